"""One distortion for a season, each frame its place: sparse frames as good as rich ones, strays harmless."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.astrometry.fitting import fit_polynomial
from tasks.astrometry.joint import Pairs, fit_together
from tests.astrometry.sky import SHAPE, Camera
from tests.astrometry.test_headers import apart_mas, fitted, grid

NOISE_PX = 0.02


def pairs(camera: Camera, n: int, seed: int, strays: int = 0, noise_px: float = NOISE_PX) -> Pairs:
    """Stars on one side of the frame, left or right; the start is turned, shifted and knows no distortion."""
    rng = np.random.default_rng(seed)
    half = 0.4 * max(camera.shape) * camera.scale / 3600
    ra = camera.ra + rng.uniform(-half, half, 20 * n) / np.cos(np.radians(camera.dec))
    dec = camera.dec + rng.uniform(-half, half, 20 * n)
    x, y = camera.pixels(ra, dec)
    width, height = camera.shape[1], camera.shape[0]
    side = x < 0.66 * width if seed % 2 else x > 0.34 * width
    inside = np.flatnonzero((x > 0) & (x < width) & (y > 0) & (y < height) & side)[:n]
    x, y = x[inside] + rng.normal(0, noise_px, n), y[inside] + rng.normal(0, noise_px, n)
    x[:strays] += 3
    start = fitted(replace(camera, ra=camera.ra + 0.0004, angle=camera.angle + 0.02, radial=0.0, skew=0.0), degree=1)
    sigma = np.full(n, NOISE_PX * camera.scale)
    return Pairs(start, camera.shape, x, y, ra[inside], dec[inside], sigma)


def season(n: int, frames: int, **options: float) -> tuple[list[Camera], list[Pairs]]:
    cameras = [Camera(ra=132.85 + 0.02 * k, dec=11.81 - 0.01 * k, angle=-90 + 0.3 * k) for k in range(frames)]
    return cameras, [pairs(camera, n, k, **options) for k, camera in enumerate(cameras)]


def off_mas(camera: Camera, wcs) -> np.ndarray:
    x, y = grid()
    back = camera.pixels(*wcs.all_pix2world(x, y, 1))
    return 1000 * camera.scale * np.hypot(back[0] - x, back[1] - y)


def test_exact_stars_give_the_camera() -> None:
    cameras, given = season(60, 4, noise_px=0.0)
    fit = fit_together(given, 3)
    for camera, wcs in zip(cameras, fit.wcses, strict=True):
        # The camera's formula goes from sky to pixels, ours the other way: a cubic is not quite its inverse. And the
        # distortion is rounded to its error.
        assert off_mas(camera, wcs).max() < 15


def test_a_frame_replaced_seldom_moves_the_others() -> None:
    """One frame's positions measured anew, as when its raw file is replaced by one that is hardly different."""
    _, given = season(40, 8)
    first = fit_together(given, 3)
    same = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        again = replace(given[0], x=given[0].x + rng.normal(0, 0.001, 40), y=given[0].y + rng.normal(0, 0.001, 40))
        second = fit_together([again, *given[1:]], 3)
        words = [[wcs.to_header_string(relax=True) for wcs in fit.wcses] for fit in (first, second)]
        assert words[0][0] != words[1][0]
        same += words[0][1:] == words[1][1:]
    assert same >= 7


def test_sparse_frames_know_the_corners_without_stars() -> None:
    """Fifteen stars a frame, none in a third of it: a cubic polynomial of each frame's own goes wild there."""
    cameras, given = season(15, 14)
    fit = fit_together(given, 3)
    alone = [
        fit_polynomial(each.x, each.y, each.ra, each.dec, each.sigma, SHAPE, 3, each.wcs).wcs for each in given
    ]  # fmt: skip
    together = [off_mas(camera, wcs) for camera, wcs in zip(cameras, fit.wcses, strict=True)]
    apart = [off_mas(camera, wcs) for camera, wcs in zip(cameras, alone, strict=True)]
    assert np.percentile(together, 95) < 90
    assert np.percentile(together, 95) < 0.1 * np.percentile(apart, 95)
    assert fit.parameters == pytest.approx([3 + 7 / 14] * 14)


def test_strays_do_not_count() -> None:
    cameras, given = season(30, 6, strays=4)
    clean = fit_together(season(30, 6)[1], 3)
    fit = fit_together(given, 3)
    for camera, wcs, without in zip(cameras, fit.wcses, clean.wcses, strict=True):
        assert np.percentile(off_mas(camera, wcs), 95) < 100
        assert apart_mas(wcs, without).max() < 60


def test_few_stars_lower_the_degree() -> None:
    _, given = season(6, 2)
    fit = fit_together(given, 3)
    assert all(wcs.sip is None for wcs in fit.wcses)
    assert fit.parameters == (3.0, 3.0)


def test_the_same_stars_give_the_same_bits() -> None:
    _, given = season(20, 5)
    first, second = fit_together(given, 3), fit_together(given, 3)
    assert [wcs.to_header_string(relax=True) for wcs in first.wcses] == [
        wcs.to_header_string(relax=True) for wcs in second.wcses
    ]


def test_what_it_does_not_fit() -> None:
    _, given = season(20, 2)
    with pytest.raises(ValueError, match="one shape"):
        fit_together([given[0], replace(given[1], shape=(512, 512))], 3)
    few = replace(given[0], **{name: getattr(given[0], name)[:2] for name in ("x", "y", "ra", "dec", "sigma")})
    with pytest.raises(ValueError, match="three stars"):
        fit_together([few], 3)
