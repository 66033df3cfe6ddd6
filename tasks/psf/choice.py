"""Which of a stack's stars its PSF is made from: bright, single, shown by all frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from scipy.spatial import cKDTree

from models.settings import PsfSettings
from tasks.core.errors import StageError
from tasks.psf.extraction import BLEMISH, read_objects
from tasks.psf.frame import candidates
from tasks.psf.images import fit_moffat

__all__ = ["Stars", "bright_stars", "doubles", "evenly_covered", "leave_out_doubles", "leave_out_uneven"]

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]

_ISOLATION_FWHM = 5.0
_EVEN = (0.85, 1.2)
_EVEN_CORE_FWHM, _EVEN_WINGS_FWHM = 1.0, 2.5
_MAX_UNEVEN_WINGS = 0.15
_MIN_STARS = 8
_BLENDED, _INCOMPLETE = 2, 16
"""SExtractor's flags of an object that was blended with another, and of one whose aperture data are incomplete."""
_DOUBLE_SIGMA = 4.0
_LEAST_SPREAD = 0.015, 0.01
"""Of stars' log axis ratios and relative widths over a field: what a fit to a bright star leaves."""
_MOST_LOOKED_AT = 120


class Stars(NamedTuple):
    """Bright, clean, isolated sources of a stack, by their row in the catalogue; zero-based px, brightest first."""

    row: npt.NDArray[np.int64]
    x: FloatArray
    y: FloatArray
    snr: FloatArray
    half_light_px: FloatArray


def bright_stars(objects: fits.FITS_rec, settings: PsfSettings, width: float) -> Stars:
    """The rows of SExtractor's table that are stars, clean and isolated (a neighbour's light below 5 %)."""
    x, y = (np.asarray(objects[key], dtype=float) - 1.0 for key in ("XWIN_IMAGE", "YWIN_IMAGE"))
    flux, snr = (np.asarray(objects[key], dtype=float) for key in ("FLUX_AUTO", "SNR_WIN"))
    radius, ratio = (np.asarray(objects[key], dtype=float) for key in ("FLUX_RADIUS", "ELONGATION"))
    good = (
        (snr > settings.min_snr)
        & ((ratio - 1) / (ratio + 1) < settings.max_ellipticity)
        & (radius > 0.5)
        & ((objects["FLAGS"] & 0xFE) == 0)
        & ((objects["IMAFLAGS_ISO"] & BLEMISH) == 0)
    )
    if good.any():
        # Galaxies are wider than the stars: the half-light radius of the brighter half, within 25 %.
        order = np.argsort(-snr[good], kind="stable")
        typical = np.median(radius[good][order[: max(5, order.size // 2)]])
        good &= np.abs(radius / typical - 1) < 0.25
    if good.any():
        around = cKDTree(np.column_stack([x, y])).query_ball_point(
            np.column_stack([x, y])[good], _ISOLATION_FWHM * width
        )
        alone = [flux[near].sum() < 1.05 * flux[i] for i, near in zip(np.flatnonzero(good), around, strict=True)]
        good[np.flatnonzero(good)[~np.array(alone)]] = False
    chosen = np.flatnonzero(good)
    chosen = chosen[np.argsort(-snr[chosen], kind="stable")]
    return Stars(chosen, x[chosen], y[chosen], snr[chosen], radius[chosen])


def leave_out_uneven(catalogue: Path, weight: FloatArray, width: float, settings: PsfSettings) -> fits.FITS_rec:
    """The catalogue's sources; those that not all frames show in full are flagged.

    In the file as well, from which PSFEx chooses. Nothing is flagged where fewer than eight candidates would remain.
    """
    objects = read_objects(catalogue)
    even = evenly_covered(
        weight, np.asarray(objects["XWIN_IMAGE"]) - 1.0, np.asarray(objects["YWIN_IMAGE"]) - 1.0, width
    )
    if candidates(objects[even], settings) < _MIN_STARS:
        return objects
    with fits.open(catalogue, mode="update", memmap=False) as hdus:
        # FLAGS and not IMAFLAGS_ISO: where PSFEx looks for the stars' typical width it heeds the former alone.
        hdus["LDAC_OBJECTS"].data["FLAGS"][~even] |= _INCOMPLETE
    return read_objects(catalogue)


def leave_out_doubles(
    catalogue: Path, objects: fits.FITS_rec, image: FloatArray, bad: BoolArray, width: float, settings: PsfSettings
) -> fits.FITS_rec:
    """The catalogue's sources; stars with a companion that SExtractor did not split are flagged, in the file as well.

    Where there are few stars: among many a double star counts for little. Nothing is flagged where fewer than eight
    candidates would remain.
    """
    stars = bright_stars(objects, settings, width)
    if not _MIN_STARS < stars.x.size <= _MOST_LOOKED_AT:
        return objects
    double = stars.row[doubles(image, bad, stars.x, stars.y, stars.snr, width)]
    rest = np.ones(len(objects), bool)
    rest[double] = False
    if rest.all() or candidates(objects[rest], settings) < _MIN_STARS:
        return objects
    with fits.open(catalogue, mode="update", memmap=False) as hdus:
        hdus["LDAC_OBJECTS"].data["FLAGS"][double] |= _BLENDED
    return read_objects(catalogue)


def doubles(
    image: FloatArray, bad: BoolArray, x: FloatArray, y: FloatArray, snr: FloatArray, width: float
) -> BoolArray:
    """Which stars are no single ones: elongated or wide as the others are not.

    Of a fitted Moffat profile the ellipticity (as a vector) and the width, against the median of all stars and their
    spread. Two stars of 0.7 mag difference a pixel apart turned the PSF image of a sparse field by 0.01.

    Parameters
    ----------
    image, bad
        The stack, ADU, and its unusable pixels, 2-D.
    x, y, snr
        Zero-based positions, px, and signal to noise, shape (N,).
    width
        Usual FWHM, px.

    Returns
    -------
    ndarray of bool
        Shape (N,); False for a star that no profile fits.
    """
    half = int(np.ceil(4.0 * width))
    shapes = np.full((x.size, 3), np.nan)
    for i, (column, row) in enumerate(zip(np.rint(x).astype(int), np.rint(y).astype(int), strict=True)):
        cut = np.s_[max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1]
        if image[cut].shape != (2 * half + 1, 2 * half + 1) or bad[cut].any():
            continue
        try:
            fit = fit_moffat(image[cut].astype(np.float64), width)
        except StageError:
            continue  # PSFEx looks at it for itself
        e = 2 * np.arctanh(fit.ellipticity)
        shapes[i] = e * np.cos(2 * fit.angle), e * np.sin(2 * fit.angle), np.log(fit.fwhm_px)
    known = np.isfinite(shapes[:, 2])
    if np.count_nonzero(known) < _MIN_STARS:
        return np.zeros(x.size, bool)
    off = shapes - np.median(shapes[known], axis=0)
    spread = 1.4826 * np.median(np.abs(off[known]), axis=0)
    # Errors of a fit to a star against the sky's noise: 2 and 1 over its signal to noise.
    turned = np.hypot(max(_LEAST_SPREAD[0], float(spread[:2].max())), 2.0 / snr)
    wide = np.hypot(max(_LEAST_SPREAD[1], float(spread[2])), 1.0 / snr)
    far = np.hypot(np.hypot(off[:, 0], off[:, 1]) / turned, off[:, 2] / wide)
    return np.asarray(known & (far > _DOUBLE_SIGMA))


def evenly_covered(weight: FloatArray, x: FloatArray, y: FloatArray, width: float) -> BoolArray:
    """Whether all frames show a star: the weight is the usual one throughout its core and in most of its wings.

    Parameters
    ----------
    weight
        Weight map of the stack, 2-D; its median where it is not 0 is the usual weight.
    x, y
        Zero-based positions, px, shape (N,).
    width
        FWHM, px.

    Returns
    -------
    ndarray of bool
        Shape (N,).
    """
    covered = weight > 0
    if not covered.any():
        return np.zeros(x.size, bool)
    usual = float(np.median(weight[covered]))
    odd = (weight < _EVEN[0] * usual) | (weight > _EVEN[1] * usual)
    reach = int(np.ceil(_EVEN_WINGS_FWHM * width))
    dy, dx = (v.ravel() for v in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    distance = np.hypot(dy, dx)
    inside = distance <= _EVEN_WINGS_FWHM * width
    dy, dx, core = dy[inside], dx[inside], distance[inside] <= max(_EVEN_CORE_FWHM * width, 1.5)
    rows, columns = np.rint(y).astype(int)[:, None] + dy, np.rint(x).astype(int)[:, None] + dx
    within = (rows >= 0) & (rows < weight.shape[0]) & (columns >= 0) & (columns < weight.shape[1])
    found = odd[np.clip(rows, 0, weight.shape[0] - 1), np.clip(columns, 0, weight.shape[1] - 1)] | ~within
    return np.asarray(~found[:, core].any(axis=1) & (found.mean(axis=1) <= _MAX_UNEVEN_WINGS))
