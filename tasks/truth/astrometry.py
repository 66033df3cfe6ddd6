"""How well positions are known: plate solutions, `.head` files, filters of a group against each other."""

from __future__ import annotations

import itertools
import warnings
from collections import defaultdict

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from models.frame import FrameRecord
from models.simulation import TrueFrame, TrueWcs
from tasks.astrometry import read_head
from tasks.catalogs import separation
from tasks.quality import read_sources
from tasks.simulation import to_pixels, to_sky, true_sources
from tasks.truth.figure import Figure
from tasks.truth.scene import Scene, isolated, tangent

__all__ = ["astrometric_figures"]

FloatArray = npt.NDArray[np.float64]

_WRONG_ARCSEC = 2.0
_MATCH_ARCSEC = 1.5
_BRIGHT_SNR = 50.0
_SAME_LIGHT = 0.4
_OFF_MAS = 200.0
_NODES = 9


def _offsets(record: FrameRecord, true: TrueFrame, scene: Scene) -> dict[int, FloatArray]:
    """Offsets (arcsec, east and north) of a frame's stars with S/N > 50 from the truth, through its `.head`.

    A source counts as the star it lies on if it has about the star's light: the arm of a spiral does not.
    """
    assert record.measured is not None
    head = _head_of(record, scene)
    if head is None:
        return {}
    sources = read_sources(record.measured, scene.roots)
    good = (sources["SNR"] > _BRIGHT_SNR) & (sources["FLAGS"] == 0)
    ra, dec = head.all_pix2world(np.asarray(sources["X"])[good], np.asarray(sources["Y"])[good], 1)
    known = true_sources(true, scene.stars, margin_px=20)
    assert true.wcs is not None
    ra0, dec0 = true.wcs.crval
    place = tangent(np.asarray(known["ra_now"]), np.asarray(known["dec_now"]), ra0, dec0)
    # A galaxy or a knot of a spiral beside a star moves its centre as another star would.
    alone = isolated(place, np.asarray(known["flux"])) & np.asarray(known["kind"] == "star")
    found = tangent(ra, dec, ra0, dec0)
    distance, index = cKDTree(place).query(found, distance_upper_bound=_MATCH_ARCSEC)
    near = np.isfinite(distance)
    light = np.asarray(sources["FLUX"])[good]
    return {
        int(known["id"][j]): found[i] - place[j]
        for i, j in zip(np.flatnonzero(near), index[near], strict=True)
        if alone[j] and abs(np.log(light[i] / known["flux"][j])) < _SAME_LIGHT
    }


def _head_of(record: FrameRecord, scene: Scene) -> WCS | None:
    assert record.reduced is not None
    head = scene.roots.of(record.reduced.file).with_suffix(".head")
    return read_head(head) if head.is_file() else None


def _over_chip(head: WCS, true: TrueWcs) -> FloatArray:
    """How far a frame's `.head` is from the truth on a grid over the whole chip, stars or not, mas."""
    ny, nx = true.shape
    x, y = (each.ravel() for each in np.meshgrid(np.linspace(1, nx, _NODES), np.linspace(1, ny, _NODES)))
    ra0, dec0 = true.crval
    ra, dec = head.all_pix2world(x, y, 1)
    true_ra, true_dec = to_sky(true, x, y)
    off = tangent(ra, dec, ra0, dec0) - tangent(true_ra, true_dec, ra0, dec0)
    return np.asarray(1e3 * np.hypot(off[:, 0], off[:, 1]))


def _over_field(head: WCS, true: TrueWcs, scene: Scene, centre: tuple[float, float]) -> FloatArray:
    """What a frame's `.head` puts places of the sky off by, arcsec (n, 2), on a grid about a centre (deg).

    NaN where the place is not on the chip; the same places for all frames of a field.
    """
    ny, nx = true.shape
    half = max(nx, ny) / 2 * scene.telescope.camera.grid_scale / 3600
    east, north = (each.ravel() for each in np.meshgrid(*(np.linspace(-half, half, _NODES),) * 2))
    ra, dec = centre[0] + east / np.cos(np.radians(centre[1])), centre[1] + north
    x, y = to_pixels(true, ra, dec)
    head_ra, head_dec = head.all_pix2world(x, y, 1)
    found = tangent(head_ra, head_dec, *centre) - tangent(ra, dec, *centre)
    found[(x < 1) | (x > nx) | (y < 1) | (y > ny)] = np.nan
    return found


def _rms(offsets: FloatArray) -> float:
    return 1e3 * float(np.sqrt(np.mean(np.sum(np.square(offsets), axis=1))))


def astrometric_figures(scene: Scene) -> list[Figure]:
    """Frames solved, none wrongly; stars' places over the chip; filters against each other."""
    solved, wrong = 0, 0
    by_filter: dict[tuple[str, str], dict[int, list[FloatArray]]] = defaultdict(lambda: defaultdict(list))
    frame_rms: dict[str, float] = {}
    single: list[FloatArray] = []
    chips: dict[str, FloatArray] = {}
    fields: dict[tuple[str, str], list[FloatArray]] = defaultdict(list)
    centres: dict[str, tuple[float, float]] = {}
    for record, true in scene.pairs:
        if record.solved is None:
            continue
        solved += 1
        assert true.wcs is not None
        ny, nx = true.wcs.shape
        ra, dec = to_sky(true.wcs, np.array([(nx + 1) / 2]), np.array([(ny + 1) / 2]))
        solution = record.solved.solution
        wrong += float(separation(ra[0], dec[0], solution.ra, solution.dec)) * 3600 > _WRONG_ARCSEC
        centre = centres.setdefault(true.field or "", (solution.ra, solution.dec))
        if (head := _head_of(record, scene)) is not None:
            chips[record.raw.label] = _over_chip(head, true.wcs)
            fields[true.field or "", true.filter or ""].append(_over_field(head, true.wcs, scene, centre))
        offsets = _offsets(record, true, scene)
        if not offsets:
            continue
        values = np.array(list(offsets.values()))
        single.append(1e3 * np.hypot(values[:, 0], values[:, 1]))
        frame_rms[record.raw.label] = _rms(values)
        for star, offset in offsets.items():
            by_filter[true.field or "", true.filter or ""][star].append(offset)
    figures = [
        Figure(name="frames solved", value=100 * solved / len(scene.pairs), unit="%", goal=98.0, better="above",
               detail=f"{solved} of {len(scene.pairs)}"),
        Figure(name="wrong solutions accepted", value=wrong, unit="frames", goal=0.0),
    ]  # fmt: skip
    if single:
        worst = max(frame_rms, key=lambda label: frame_rms[label])
        every = np.concatenate(single)
        figures += [
            Figure(name="position of stars with S/N > 50, median over the chip", value=float(np.median(every)),
                   unit="mas", goal=30.0, detail=f"{len(every)} stars of {len(frame_rms)} frames"),
            Figure(name="position of stars with S/N > 50, 95 % within", value=float(np.percentile(every, 95)),
                   unit="mas", goal=60.0),
            Figure(name="position rms of a frame's stars, worst frame", value=frame_rms[worst], unit="mas",
                   detail=worst),
        ]  # fmt: skip
    if chips:
        every = np.concatenate(list(chips.values()))
        whole = {label: float(np.sqrt(np.mean(chip**2))) for label, chip in chips.items()}
        off = [f"{label} {value:.0f} mas" for label, value in sorted(whole.items()) if value > _OFF_MAS]
        figures += [
            Figure(name="position over the whole chip, stars or not, median", value=float(np.median(every)), unit="mas",
                   goal=30.0, detail=f"{_NODES} x {_NODES} places on {len(chips)} frames"),
            Figure(name="position over the whole chip, stars or not, 95 % within",
                   value=float(np.percentile(every, 95)), unit="mas", goal=60.0),
            Figure(name="frames accepted though off by more than 0.2 arcsec (rms over the chip)", value=len(off),
                   unit="frames", goal=0.0, detail=", ".join(off)),
        ]  # fmt: skip
    figures += _between_filters(by_filter)
    figures += _between_stacks(fields)
    return figures


def _between_filters(by_filter: dict[tuple[str, str], dict[int, list[FloatArray]]]) -> list[Figure]:
    apart: dict[str, float] = {}
    for (field, one), (other_field, two) in itertools.combinations(sorted(by_filter), 2):
        common = by_filter[field, one].keys() & by_filter[other_field, two].keys()
        if field != other_field or len(common) < 5:
            continue
        offsets = [
            np.mean(by_filter[field, one][star], axis=0) - np.mean(by_filter[field, two][star], axis=0)
            for star in common
        ]
        apart[f"{field} {one}-{two}"] = _rms(np.array(offsets))
    if not apart:
        return []
    worst = max(apart, key=lambda pair: apart[pair])
    detail = f"{worst}; {len(apart)} pairs, median {np.median(list(apart.values())):.0f} mas"
    return [
        Figure(name="stars between filters of a group, their own noise included, worst pair", value=apart[worst],
               unit="mas", bound=40.0, detail=detail)
    ]  # fmt: skip


def _between_stacks(fields: dict[tuple[str, str], list[FloatArray]]) -> list[Figure]:
    """World coordinates of one filter against another's, averaged over its frames: without errors of single stars."""
    apart: dict[str, float] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        means = {key: np.nanmean(np.array(frames), axis=0) for key, frames in fields.items()}
    for (field, one), (other, two) in itertools.combinations(sorted(means), 2):
        if field == other:
            difference = means[field, one] - means[other, two]
            apart[f"{field} {one}-{two}"] = _rms(difference[np.isfinite(difference).all(axis=1)])
    if not apart:
        return []
    worst, typical = max(apart, key=lambda pair: apart[pair]), float(np.median(list(apart.values())))
    return [
        Figure(name="world coordinates between filters of a group, rms over the field, worst pair", value=apart[worst],
               unit="mas", goal=20.0, detail=f"{worst}; {len(apart)} pairs, median {typical:.0f} mas")
    ]  # fmt: skip
