"""Astrometry, zero points, stacks and PSFs of a simulated campaign, measured against what was put in.

Nothing here uses how the pipeline came to its numbers: only its files and reports, and the simulator's truth.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.stats import SigmaClip
from astropy.table import Table
from astropy.wcs import WCS
from photutils.aperture import ApertureStats, CircularAnnulus, CircularAperture
from scipy.spatial import cKDTree

from models.base import Record, Roots
from models.frame import FrameRecord
from models.simulation import TrueFrame
from models.telescope import load_telescope
from tasks.astrometry import read_head
from tasks.catalogs import separation
from tasks.core.errors import StageError
from tasks.psf import fit_moffat
from tasks.quality import read_sources
from tasks.report import read_years
from tasks.simulation import at_epoch, read_stars, read_truth, to_sky, true_sources

__all__ = ["Figure", "measure_campaign"]

FloatArray = npt.NDArray[np.float64]

_WRONG_ARCSEC = 2.0
_MATCH_ARCSEC = 1.5
_BRIGHT_SNR = 50.0
_ISOLATION_ARCSEC = 12.0
_NEIGHBOUR = 0.02
_SAME_LIGHT = 0.4


class Figure(Record):
    """A figure of merit with its goal."""

    name: str
    value: float
    unit: str
    bound: float | None
    better: str = "below"
    detail: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.bound is None:
            return None
        return self.value <= self.bound if self.better == "below" else self.value >= self.bound


def _tangent(ra: FloatArray, dec: FloatArray, ra0: float, dec0: float) -> FloatArray:
    """Offsets on the sky from a point, arcsec, east and north, shape (N, 2); for fields of a degree."""
    d_ra = (ra - ra0 + 180.0) % 360.0 - 180.0
    return np.column_stack([d_ra * np.cos(np.radians(dec)) * 3600.0, (dec - dec0) * 3600.0])


def _isolated(positions: FloatArray, flux: FloatArray) -> npt.NDArray[np.bool_]:
    """Sources without a neighbour of more than 2 % of their light within 12 arcsec."""
    tree = cKDTree(positions)
    alone = np.ones(len(flux), bool)
    for i, neighbours in enumerate(tree.query_ball_point(positions, _ISOLATION_ARCSEC)):
        others = [j for j in neighbours if j != i]
        alone[i] = not others or float(np.max(flux[others])) < _NEIGHBOUR * flux[i]
    return alone


def _positions(record: FrameRecord, true: TrueFrame, stars: Table, roots: Roots) -> dict[int, FloatArray] | None:
    """Offsets (arcsec, east and north) of a frame's stars with S/N > 50 from the truth, through its `.head`.

    A source counts as the star it lies on if it has about the star's light: the arm of a spiral does not.
    """
    assert record.measured is not None
    assert record.reduced is not None
    head = roots.of(record.reduced.file).with_suffix(".head")
    if not head.is_file():
        return None
    sources = read_sources(record.measured, roots)
    good = (sources["SNR"] > _BRIGHT_SNR) & (sources["FLAGS"] == 0)
    ra, dec = read_head(head).all_pix2world(np.asarray(sources["X"])[good], np.asarray(sources["Y"])[good], 1)
    known = true_sources(true, stars, margin_px=20)
    known = known[known["kind"] == "star"]
    assert true.wcs is not None
    ra0, dec0 = true.wcs.crval
    place = _tangent(np.asarray(known["ra_now"]), np.asarray(known["dec_now"]), ra0, dec0)
    alone = _isolated(place, np.asarray(known["flux"]))
    found = _tangent(ra, dec, ra0, dec0)
    distance, index = cKDTree(place).query(found, distance_upper_bound=_MATCH_ARCSEC)
    near = np.isfinite(distance)
    light = np.asarray(sources["FLUX"])[good]
    return {
        int(known["id"][j]): found[i] - place[j]
        for i, j in zip(np.flatnonzero(near), index[near], strict=True)
        if alone[j] and abs(np.log(light[i] / known["flux"][j])) < _SAME_LIGHT
    }


def _astrometry(
    records: Sequence[tuple[FrameRecord, TrueFrame]], stars: Table, roots: Roots
) -> tuple[list[Figure], dict[str, float]]:
    solved, wrong = 0, 0
    by_filter: dict[tuple[str, str], dict[int, list[FloatArray]]] = defaultdict(lambda: defaultdict(list))
    frame_rms: dict[str, float] = {}
    for record, true in records:
        if record.solved is None:
            continue
        solved += 1
        assert true.wcs is not None
        ny, nx = true.wcs.shape
        ra, dec = to_sky(true.wcs, np.array([(nx + 1) / 2]), np.array([(ny + 1) / 2]))
        solution = record.solved.solution
        wrong += float(separation(ra[0], dec[0], solution.ra, solution.dec)) * 3600 > _WRONG_ARCSEC
        offsets = _positions(record, true, stars, roots)
        if not offsets:
            continue
        values = np.array(list(offsets.values()))
        frame_rms[record.raw.label] = float(np.sqrt(np.mean(np.sum(values**2, axis=1))))
        for star, offset in offsets.items():
            by_filter[true.field or "", true.filter or ""][star].append(offset)
    rms = np.array(list(frame_rms.values()))
    between = []
    for (field, one), (other_field, two) in itertools.combinations(sorted(by_filter), 2):
        common = by_filter[field, one].keys() & by_filter[other_field, two].keys()
        if field != other_field or len(common) < 5:
            continue
        apart = [
            np.mean(by_filter[field, one][star], axis=0) - np.mean(by_filter[field, two][star], axis=0)
            for star in common
        ]
        between.append(float(np.sqrt(np.mean(np.sum(np.square(apart), axis=1)))))
    figures = [
        Figure(name="frames solved", value=100 * solved / len(records), unit="%", bound=98.0, better="above",
               detail=f"{solved} of {len(records)}"),
        Figure(name="wrong solutions accepted", value=wrong, unit="frames", bound=0.0),
    ]  # fmt: skip
    if len(rms):
        figures += [
            Figure(name="position rms of stars with S/N > 50 after SCAMP, median frame",
                   value=1e3 * float(np.median(rms)), unit="mas", bound=60.0,
                   detail=f"{len(rms)} frames, both axes together"),
            Figure(name="the same, worst frame", value=1e3 * float(rms.max()), unit="mas", bound=None,
                   detail=max(frame_rms, key=lambda label: frame_rms[label])),
        ]  # fmt: skip
    if between:
        figures.append(
            Figure(name="position rms between filters of a group, worst pair", value=1e3 * max(between), unit="mas",
                   bound=40.0, detail=f"{len(between)} pairs, median {1e3 * float(np.median(between)):.0f} mas")
        )  # fmt: skip
    return figures, frame_rms


def _zero_points(records: Sequence[tuple[FrameRecord, TrueFrame]]) -> list[Figure]:
    errors: dict[str, list[float]] = defaultdict(list)
    for record, true in records:
        point = record.calibrated.zero_point if record.calibrated else None
        if point is not None and point.zp is not None and true.zero_point is not None:
            errors[true.filter or ""].append(point.zp - true.zero_point)
    figures = []
    gri = np.array([value for name in "gri" for value in errors.get(name, [])])
    if len(gri):
        figures += [
            Figure(name="frame zero point g r i, median abs. error", value=1e3 * float(np.median(np.abs(gri))),
                   unit="mmag", bound=10.0, detail=f"{len(gri)} frames"),
            Figure(name="frame zero point g r i, worst error", value=1e3 * float(np.abs(gri).max()), unit="mmag",
                   bound=50.0),
        ]  # fmt: skip
    for name, values in sorted(errors.items()):
        bias = float(np.median(values))
        scatter = 1.4826 * float(np.median(np.abs(np.array(values) - bias)))
        figures.append(
            Figure(name=f"frame zero point {name}, bias", value=1e3 * bias, unit="mmag", bound=None,
                   detail=f"scatter {1e3 * scatter:.1f} mmag, {len(values)} frames")
        )  # fmt: skip
    return figures


def _clean_stars(stars: Table, field: str, filter: str, jyear: float, wcs: WCS) -> tuple[FloatArray, FloatArray]:
    """Pixel (0-based) and natural magnitude of a field's isolated stars of 14 to 18 mag."""
    here = stars[stars["field"] == field]
    mag = np.asarray(here[f"{filter}_nat"], np.float64)
    ra, dec = at_epoch(here, jyear)
    place = _tangent(np.asarray(ra), np.asarray(dec), float(np.median(ra)), float(np.median(dec)))
    flux = np.where(np.isfinite(mag), 10 ** (-0.4 * mag), 0.0)
    good = _isolated(place, flux) & np.asarray(here["kind"] == "star") & (mag > 14.0) & (mag < 18.0)
    x, y = wcs.all_world2pix(np.asarray(ra)[good], np.asarray(dec)[good], 0)
    return np.column_stack([x, y]), mag[good]


def _aperture_fluxes(
    data: npt.NDArray[np.float32], bad: npt.NDArray[np.bool_], pixels: FloatArray, radius: float
) -> tuple[FloatArray, FloatArray]:
    """Fluxes in circles above the clipped median of a ring around each, and their errors from the ring's scatter."""
    circles = CircularAperture(pixels, radius)
    rings = CircularAnnulus(pixels, 1.5 * radius, 2.5 * radius)
    sky = ApertureStats(data, rings, mask=bad, sigma_clip=SigmaClip(3.0))
    total, _ = circles.do_photometry(data.astype(np.float64))
    flux = np.asarray(total) - np.asarray(sky.median) * circles.area
    return flux, np.asarray(sky.std) * np.sqrt(circles.area)


def _stack(
    path: Path, field: str, filter: str, jyear: float, stars: Table, roots: Roots
) -> tuple[float | None, int, float | None, fits.Header]:
    """Median of measured - true magnitude, stars used, and FWHM of the PSF image over that of the stars."""
    with fits.open(path, memmap=False) as hdus:
        header, data = hdus[0].header, np.ascontiguousarray(hdus[0].data, np.float32)
    weight = fits.getdata(path.with_name(path.name.replace(".fits", ".weight.fits")))
    pixels, mag = _clean_stars(stars, field, filter, jyear, WCS(header))
    fwhm = float(header.get("FWHM_PX", 4.0))
    radius, half = 3.0 * fwhm, int(np.ceil(4.0 * fwhm))
    ny, nx = data.shape
    inside = np.all((pixels > half + 1) & (pixels < np.array([nx, ny]) - half - 2), axis=1)
    pixels, mag = pixels[inside], mag[inside]
    bad = np.ascontiguousarray(weight == 0)
    covered = np.array(
        [not bad[int(y) - half : int(y) + half, int(x) - half : int(x) + half].any() for x, y in pixels], dtype=bool
    )
    pixels, mag = pixels[covered], mag[covered]
    if len(mag) < 5:
        return None, len(mag), None, header
    flux, error = _aperture_fluxes(data, bad, pixels, radius)
    strong = flux > 30 * error
    if header.get("PHOTZP") is None or strong.sum() < 5:
        offset = None
    else:
        offset = float(np.median(-2.5 * np.log10(flux[strong]) + header["PHOTZP"] - mag[strong]))
    widths = []
    for (x, y), value, limit in sorted(zip(pixels, flux, mag, strict=True), key=lambda item: -item[1])[:80]:
        row, column = int(np.rint(y)), int(np.rint(x))
        stamp = data[row - half : row + half + 1, column - half : column + half + 1]
        if value < 0 or limit < 14.5:
            continue
        try:
            widths.append(fit_moffat(stamp.astype(np.float64), fwhm).fwhm_px)
        except StageError:
            continue
        if len(widths) == 25:
            break
    psf_path = path.with_name(path.name.replace(".fits", "_psf.fits"))
    ratio = None
    if len(widths) >= 3 and psf_path.is_file():
        image = fits.getdata(psf_path).astype(np.float64)
        ratio = fit_moffat(image, fwhm).fwhm_px / float(np.median(widths))
    return offset, int(strong.sum()), ratio, header


def _psf_image(path: Path) -> tuple[float, float, float]:
    """Sum, distance of the centroid from the centre (px) and pixel scale of a PSF image."""
    with fits.open(path, memmap=False) as hdus:
        image, header = np.asarray(hdus[0].data, np.float64), hdus[0].header
    rows, columns = np.indices(image.shape) - (np.array(image.shape).reshape(2, 1, 1) - 1) / 2
    core = np.hypot(rows, columns) <= 2 * float(header["FWHM_PX"])
    light = image * core
    off = float(np.hypot((light * rows).sum(), (light * columns).sum()) / light.sum())
    return float(image.sum()), off, float(header["PIXSCALE"])


def _stacks(truth_stars: Table, epochs: Mapping[str, float], roots: Roots, telescope: str) -> list[Figure]:
    offsets: dict[str, float] = {}
    ratios: dict[str, float] = {}
    sums, centres, scales = [], [], []
    grids: dict[str, set[tuple[Any, ...]]] = defaultdict(set)
    details = {}
    for path in sorted((roots.data / "stacks").glob(f"*/{telescope}/*.weight.fits")):
        image = path.with_name(path.name.replace(".weight.fits", ".fits"))
        group, filter = image.stem.rsplit("_", 1)
        if group not in epochs:
            continue
        offset, n, ratio, header = _stack(image, group, filter, epochs[group], truth_stars, roots)
        grids[group].add(tuple(header[key] for key in _GRID))
        label = f"{group} {filter}"
        if offset is not None:
            offsets[label], details[label] = offset, n
        if ratio is not None:
            ratios[label] = ratio
        psf_path = image.with_name(f"{image.stem}_psf.fits")
        if psf_path.is_file():
            total, off, scale = _psf_image(psf_path)
            sums.append(abs(total - 1.0))
            centres.append(off)
            scales.append(abs(scale - load_telescope(telescope).camera.grid_scale))
    figures = []
    gri = {label: value for label, value in offsets.items() if label.split()[1] in "gri"}
    if gri:
        worst = max(gri, key=lambda label: abs(gri[label]))
        figures.append(
            Figure(name="stacks g r i, abs(median of measured - true), worst", value=1e3 * abs(gri[worst]), unit="mmag",
                   bound=15.0, detail=f"{worst}, {details[worst]} isolated stars, aperture 3 FWHM")
        )  # fmt: skip
    figures += [
        Figure(name=f"stack {label}, median of measured - true", value=1e3 * value, unit="mmag", bound=None,
               detail=f"{details[label]} isolated stars")
        for label, value in sorted(offsets.items())
    ]  # fmt: skip
    if grids:
        figures.append(
            Figure(name="grids in a group (NAXIS, CRPIX, CRVAL, CD)", value=max(map(len, grids.values())), unit="",
                   bound=1.0)
        )  # fmt: skip
    if ratios:
        worst = max(ratios, key=lambda label: abs(ratios[label] - 1))
        figures.append(
            Figure(name="PSF image, FWHM against the stars', worst", value=100 * abs(ratios[worst] - 1), unit="%",
                   bound=3.0, detail=f"{worst}; median {100 * (float(np.median(list(ratios.values()))) - 1):+.1f} %")
        )  # fmt: skip
    if sums:
        figures += [
            Figure(name="PSF image, abs(sum - 1), worst", value=max(sums), unit="", bound=1e-4),
            Figure(name="PSF image, centroid off the centre, worst", value=max(centres), unit="px", bound=0.05),
            Figure(name="PSF image, abs(PIXSCALE - 0.770)", value=max(scales), unit="arcsec/px", bound=1e-6),
        ]  # fmt: skip
    return figures


_GRID = (
    "NAXIS1", "NAXIS2", "CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CD1_1", "CD1_2", "CD2_1", "CD2_2",
)  # fmt: skip


def measure_campaign(roots: Roots, telescope: str = "T120") -> tuple[Figure, ...]:
    """Measure what the pipeline made of a simulated campaign.

    Parameters
    ----------
    roots
        Data root with the simulator's ``truth.json``, reduced years and stacks.
    telescope
        Name of the profile.

    Returns
    -------
    tuple of Figure
        Every figure of the main job, with its goal where there is one.

    Raises
    ------
    StageError
        If there is no truth or nothing was reduced.
    """
    if not (roots.data / "truth.json").is_file():
        raise StageError("truth", f"{roots.data} has no truth.json", "run python -m flows.simulate_campaign first")
    truth, stars = read_truth(roots.data), read_stars(roots.data)
    science = {frame.path: frame for frame in truth.frames if frame.kind == "science"}
    records = [record for year in read_years(roots, load_telescope(telescope)).values() for record in year]
    pairs = [(record, science[record.raw.path]) for record in records if record.raw.path in science]
    if not pairs:
        raise StageError("truth", "no simulated frame was reduced", "run python -m flows.reduce_year first")
    epochs = {
        field: float(np.mean([true.mid_jyear for _, true in pairs if true.field == field and true.mid_jyear]))
        for field in {true.field for _, true in pairs if true.field}
    }
    astrometry, _ = _astrometry(pairs, stars, roots)
    return (*astrometry, *_zero_points(pairs), *_stacks(stars, epochs, roots, telescope))
