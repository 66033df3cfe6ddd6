"""How true a stack's magnitudes are, for bright and for faint stars, and what its own validation says of them."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.stats import SigmaClip
from photutils.aperture import ApertureStats, CircularAnnulus, CircularAperture

from tasks.truth.figure import Figure, median_error, weighted_mean
from tasks.truth.scene import Scene, StackImage

__all__ = ["grid_figures", "magnitude_figures", "validation_figures"]

FloatArray = npt.NDArray[np.float64]

_GRID = (
    "NAXIS1", "NAXIS2", "CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CD1_1", "CD1_2", "CD2_1", "CD2_2",
)  # fmt: skip
_RANGE = (14.0, 18.0)
_BRIGHT, _FAINT = (14.0, 16.0), (17.0, 19.5)
_MIN_STARS = 5
_INTRINSIC = 0.008
"""Scatter of bright stars in small apertures (PSF over the field, faint neighbours), mag."""


def _fluxes(
    data: npt.NDArray[np.float32],
    bad: npt.NDArray[np.bool_],
    pixels: FloatArray,
    radius: float,
    ring: tuple[float, float] = (1.5, 2.5),
) -> tuple[FloatArray, FloatArray]:
    """Fluxes in circles above the clipped median of a ring (radii) around each; errors from the ring's scatter."""
    circles = CircularAperture(pixels, radius)
    rings = CircularAnnulus(pixels, ring[0] * radius, ring[1] * radius)
    sky = ApertureStats(data, rings, mask=bad, sigma_clip=SigmaClip(3.0))
    total, _ = circles.do_photometry(data.astype(np.float64))
    flux = np.asarray(total) - np.asarray(sky.median) * circles.area
    return flux, np.asarray(sky.std) * np.sqrt(circles.area)


def clean_stars(stack: StackImage, scene: Scene, faintest: float, half: int) -> tuple[FloatArray, FloatArray]:
    """Pixels (0-based) and true magnitudes of isolated stars whose surroundings, `half` px wide, are all covered."""
    table = scene.here(stack)
    mag = np.asarray(table["mag"])
    good = np.asarray(table["alone"]) & (mag > _RANGE[0]) & (mag < faintest)
    pixels, mag = np.column_stack([table["x"], table["y"]])[good], mag[good]
    ny, nx = stack.data.shape
    inside = np.all((pixels > half + 1) & (pixels < np.array([nx, ny]) - half - 2), axis=1)
    pixels, mag = pixels[inside], mag[inside]
    empty = stack.weight == 0
    covered = np.array(
        [not empty[int(y) - half : int(y) + half, int(x) - half : int(x) + half].any() for x, y in pixels], dtype=bool
    )
    return pixels[covered], mag[covered]


def _residuals(stack: StackImage, scene: Scene) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Measured minus true magnitude (apertures of 3 FWHM), signal to noise, and true magnitude of clean stars."""
    fwhm = float(stack.header.get("FWHM_PX", 4.0))
    pixels, mag = clean_stars(stack, scene, _FAINT[1], int(np.ceil(4.0 * fwhm)))
    if not len(mag):
        return np.empty(0), np.empty(0), np.empty(0)
    flux, error = _fluxes(stack.data, np.ascontiguousarray(stack.weight == 0), pixels, 3.0 * fwhm)
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = -2.5 * np.log10(flux) + float(stack.header["PHOTZP"]) - mag
    good = np.isfinite(difference)
    return difference[good], (flux / error)[good], mag[good]


def _bright_to_faint(stack: StackImage, scene: Scene) -> tuple[float, float] | None:
    """How much fainter faint stars come out than bright ones do, and its error, mag.

    In apertures of 1.25 FWHM, where the sky's noise leaves something of a faint star; a stack's stars are all of one
    width, so that what the aperture leaves out is the same for all. The ring of sky lies at 3 to 4.5 FWHM: the
    median of a nearer one, which a star's wings slope through, is lower for bright stars than, with noise, for faint
    ones (3 mmag from 1.9 FWHM); a wider one holds the light of neighbours (3 mmag the other way in the cluster).
    """
    fwhm = float(stack.header.get("FWHM_PX", 4.0))
    pixels, mag = clean_stars(stack, scene, _FAINT[1], int(np.ceil(4.0 * fwhm)))
    if len(mag) < 2 * _MIN_STARS:
        return None
    radius = 1.25 * fwhm
    flux, error = _fluxes(stack.data, np.ascontiguousarray(stack.weight == 0), pixels, radius, ring=(2.4, 3.6))
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = -2.5 * np.log10(flux) - mag
        snr = flux / error
    bright = (mag > _BRIGHT[0]) & (mag < _BRIGHT[1]) & np.isfinite(difference)
    faint = (mag > _FAINT[0]) & (mag < _FAINT[1]) & np.isfinite(difference) & (snr > 15)
    if min(np.count_nonzero(bright), np.count_nonzero(faint)) < _MIN_STARS:
        return None
    (low, low_error), (high, high_error) = (
        _clipped_mean(difference[chosen], np.hypot(1.0857 / snr[chosen], _INTRINSIC)) for chosen in (bright, faint)
    )
    return high - low, float(np.hypot(low_error, high_error))


def _clipped_mean(values: FloatArray, errors: FloatArray) -> tuple[float, float]:
    """Weighted mean of what is within 3.5 (scaled) errors of the median, and its error."""
    pull = (values - np.median(values)) / errors
    scale = max(1.0, 1.4826 * float(np.median(np.abs(pull))))
    near = np.abs(pull) < 3.5 * scale
    weight = 1.0 / errors[near] ** 2
    return float(np.average(values[near], weights=weight)), float(scale / np.sqrt(weight.sum()))


def magnitude_figures(scene: Scene) -> list[Figure]:
    """Median of measured minus true magnitude of each stack, and its change from bright to faint stars."""
    offset: dict[str, tuple[float, float]] = {}
    count: dict[str, int] = {}
    slope: dict[str, tuple[float, float]] = {}
    unsaid = []
    methods = set()
    for stack in scene.stacks():
        methods.add(str(stack.header["COMBTYPE"]))
        if stack.header.get("PHOTZP") is None:
            continue
        difference, snr, mag = _residuals(stack, scene)
        strong = (snr > 30) & (mag < _RANGE[1])
        if np.count_nonzero(strong) >= _MIN_STARS:
            offset[stack.label] = (
                1e3 * float(np.median(difference[strong])), 1e3 * median_error(difference[strong])
            )  # fmt: skip
            count[stack.label] = int(np.count_nonzero(strong))
        change = _bright_to_faint(stack, scene)
        if change is not None:
            slope[stack.label] = change
            flagged = stack.header.get("PHOTLINF") is True
            error = float(np.hypot(change[1], stack.header.get("PHOTLINE") or 0.0))
            if abs(change[0]) > 0.010 + 2 * error and not flagged:
                unsaid.append(stack.label)
    how = "/".join(sorted(methods)).lower()
    figures = []
    for name, bands, goal in (("g r i", "gri", 10.0), ("B V R", "BVR", 20.0), ("Ha", ("Ha",), None)):
        mine = {label: value for label, value in offset.items() if label.split()[1] in bands}
        if mine:
            worst = max(mine, key=lambda label: abs(mine[label][0]))
            said = ", ".join(f"{k} {off:+.1f} ± {own:.1f} ({count[k]})" for k, (off, own) in sorted(mine.items()))
            figures += [
                Figure(name=f"stacks {name}, abs(median of measured - true), median",
                       value=float(np.median([abs(off) for off, _ in mine.values()])), unit="mmag", goal=goal,
                       bound=None if goal is None else 1.5 * goal, detail=f"{len(mine)} stacks"),
                Figure(name=f"stacks {name}, abs(median of measured - true), worst", value=abs(mine[worst][0]),
                       error=mine[worst][1], unit="mmag", goal=None if goal is None else 50.0, detail=said),
            ]  # fmt: skip
    if slope:
        worst = max(slope, key=lambda label: abs(slope[label][0]) - slope[label][1])
        said = ", ".join(f"{label} {1e3 * a:+.1f} ± {1e3 * b:.1f}" for label, (a, b) in sorted(slope.items()))
        mean, error = weighted_mean(list(slope.values()))
        name = f"stacks ({how}), faint against bright stars"
        figures += [
            Figure(name=name, value=1e3 * abs(mean), error=1e3 * error, unit="mmag",
                   goal=5.0 if how == "weighted" else None, detail=f"mean of {len(slope)} stacks"),
            Figure(name=f"{name}, worst", value=1e3 * abs(slope[worst][0]), error=1e3 * slope[worst][1], unit="mmag",
                   detail=said),
        ]  # fmt: skip
        figures.append(
            Figure(name=f"stacks ({how}) bent by more than 10 mmag whose header does not say so", value=len(unsaid),
                   unit="", goal=0.0, bound=1.0, detail=", ".join(unsaid))
        )  # fmt: skip
    return figures


def grid_figures(scene: Scene) -> list[Figure]:
    """Number of different grids within a group: one."""
    grids: dict[str, set[tuple[Any, ...]]] = defaultdict(set)
    for stack in scene.stacks():
        grids[stack.group].add(tuple(stack.header[key] for key in _GRID))
    if not grids:
        return []
    return [
        Figure(name="grids in a group (NAXIS, CRPIX, CRVAL, CD)", value=max(map(len, grids.values())), unit="",
               goal=1.0)
    ]  # fmt: skip


def validation_figures(scene: Scene) -> list[Figure]:
    """What ``phot_check_report.json`` says: offsets from 30.0, and which broad-band stacks are not validated."""
    path = scene.roots.data / "stacks" / "phot_check_report.json"
    if not path.is_file():
        return []
    rows = [row for row in json.loads(path.read_text())["rows"] if row["group"] in scene.epochs]
    broad = [row for row in rows if row["filter"] != "Ha"]
    figures = []
    for name, bands, goal in (("g r i", "gri", 0.01), ("B V R", "BVR", 0.02)):
        offsets = {
            f"{row['group']} {row['filter']}": row["zp_offset"]
            for row in broad
            if row["filter"] in bands and row["zp_offset"] is not None
        }
        if offsets:
            worst = max(offsets, key=lambda label: abs(offsets[label]))
            typical = float(np.median(np.abs(list(offsets.values()))))
            figures += [
                Figure(name=f"validation: abs(offset) of stacks {name}, median", value=typical, unit="mag", goal=goal,
                       detail=f"{len(offsets)} stacks"),
                Figure(name=f"validation: abs(offset) of stacks {name}, worst", value=abs(offsets[worst]), unit="mag",
                       goal=0.05, detail=worst),
            ]  # fmt: skip
    theirs = [row["release_rms"] for row in broad if row.get("release_rms") is not None]
    if theirs:
        figures.append(
            Figure(name="validation by the release's method, median rms", value=float(np.median(theirs)), unit="mag",
                   detail=f"{min(theirs):.2f} to {max(theirs):.2f} of {len(theirs)} stacks")
        )  # fmt: skip
    missing = [f"{row['group']} {row['filter']}" for row in broad if not row["validated"]]
    figures.append(
        Figure(name="validation: broad-band stacks not validated", value=len(missing), unit="", goal=0.0,
               detail=", ".join(missing) or f"{len(broad)} stacks")
    )  # fmt: skip
    return figures
