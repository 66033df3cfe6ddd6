"""Frames without Gaia: what their common stars make of plate solutions that disagree."""

from __future__ import annotations

import numpy as np
from astropy.wcs import WCS

from tasks.astrometry.relative import common_stars, fit_to_common_stars
from tasks.astrometry.sources import Sources

SHAPE = (500, 650)
SCALE = 5.17
N_STARS = 300


def _wcs(ra: float, dec: float, angle_deg: float = 180.0, scale: float = SCALE) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(SHAPE[1] + 1) / 2, (SHAPE[0] + 1) / 2]
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    wcs.wcs.cd = scale / 3600 * np.array([[-cos, sin], [sin, cos]])
    wcs.wcs.set()
    return wcs


def _seen(wcs: WCS, ra: np.ndarray, dec: np.ndarray, rng: np.random.Generator) -> Sources:
    """The stars on a frame, with errors of 0.05 px."""
    x, y = wcs.all_world2pix(ra, dec, 1)
    inside = (x > 5) & (x < SHAPE[1] - 5) & (y > 5) & (y < SHAPE[0] - 5)
    x, y = x[inside] + rng.normal(0, 0.05, inside.sum()), y[inside] + rng.normal(0, 0.05, inside.sum())
    flux = np.linspace(1e5, 1e3, len(x))
    ones = np.ones(len(x))
    return Sources(x, y, flux, 100 * ones, 2 * ones, ones < 0, ones > 0, 0.05 * ones)


def _campaign(n_frames: int, far: int | None = None) -> tuple[list[WCS], list[WCS], list[Sources]]:
    """True and published world coordinates of drifting frames; every fifth is off by 0.4 px and turned."""
    rng = np.random.default_rng(8)
    ra = 31 + rng.uniform(-0.9, 0.9, N_STARS * 2) / np.cos(np.radians(46.8))
    dec = 46.8 + rng.uniform(-0.7, 0.7, N_STARS * 2)
    true, said, seen = [], [], []
    for k in range(n_frames):
        away = 10.0 if k == far else 0.0
        centre = (31.2 - 0.02 * k + away, 46.75 + 0.004 * k)
        true.append(_wcs(*centre))
        wrong = 0.4 if k % 5 == 2 else 0.03
        dx, dy = rng.normal(0, wrong * SCALE / 3600, 2)
        said.append(_wcs(centre[0] + dx, centre[1] + dy, 180 + wrong * 0.1, SCALE * (1 + wrong * 1e-3)))
        seen.append(_seen(true[-1], ra + away, dec, rng))
    return true, said, seen


def _disagreement(wcses: list[WCS], true: list[WCS]) -> float:
    """Largest difference (px, rms over the frame) between one frame's error on the sky and the median's."""
    gx, gy = np.meshgrid(np.linspace(20, 630, 8), np.linspace(20, 480, 8))
    sky = np.array([w.all_pix2world(gx.ravel(), gy.ravel(), 1) for w in true])
    off = []
    for wcs, (ra, dec) in zip(wcses, sky, strict=True):
        x, y = wcs.all_world2pix(ra, dec, 1)
        off.append(np.column_stack([x - gx.ravel(), y - gy.ravel()]))
    relative = np.array(off) - np.median(off, axis=0)
    return float(np.sqrt((relative**2).sum(axis=-1).mean(axis=-1)).max())


def test_frames_that_disagree_are_brought_together() -> None:
    true, said, seen = _campaign(10)
    fitted, stars = fit_to_common_stars(said, seen, [SHAPE] * 10, 1.5 * SCALE, SCALE, 3, 6)
    assert _disagreement(said, true) > 0.3
    assert _disagreement([wcs for wcs in fitted if wcs is not None], true) < 0.05
    assert len(stars) > 100


def test_the_place_on_the_sky_stays_the_plate_solutions() -> None:
    true, said, seen = _campaign(10)
    fitted, _ = fit_to_common_stars(said, seen, [SHAPE] * 10, 1.5 * SCALE, SCALE, 3, 6)
    assert all(wcs is not None for wcs in fitted)
    before = np.median([np.subtract(w.wcs.crval, t.wcs.crval) for w, t in zip(said, true, strict=True)], axis=0)
    after = np.median(
        [
            np.subtract(w.all_pix2world(*t.wcs.crpix, 1), t.wcs.crval)
            for w, t in zip(fitted, true, strict=True)
            if w is not None
        ],
        axis=0,
    )
    assert np.abs(after - before).max() * 3600 < 0.1 * SCALE


def test_a_frame_of_another_place_is_not_fitted() -> None:
    _, said, seen = _campaign(6, far=4)
    fitted, _ = fit_to_common_stars(said, seen, [SHAPE] * 6, 1.5 * SCALE, SCALE, 3, 6)
    assert [wcs is None for wcs in fitted] == [False] * 4 + [True, False]


def test_one_frame_has_no_common_stars() -> None:
    _, said, seen = _campaign(1)
    assert len(common_stars(said, seen, 1.5 * SCALE)) == 0
    assert fit_to_common_stars(said, seen, [SHAPE], 1.5 * SCALE, SCALE, 3, 6)[0] == [None]


def test_empty_frames_are_left_as_they_are() -> None:
    _, said, seen = _campaign(2)
    none = [frame.take(slice(0)) for frame in seen]
    fitted, stars = fit_to_common_stars(said, none, [SHAPE] * 2, 1.5 * SCALE, SCALE, 3, 6)
    assert fitted == [None, None]
    assert len(stars) == 0
