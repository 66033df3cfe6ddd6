"""Light in apertures: circles of multiples of the FWHM, Kron's ellipses, above the sky around each source."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import sep

from models.sourcelist import APERTURES_FWHM, SourceFlag
from tasks.sourcelists.detect import Detection
from tasks.sourcelists.images import BandImage, BoolImage, FloatArray

__all__ = ["Circles", "Kron", "blemishes", "circles", "kron", "local_sky", "missing_weight"]

_RING_FWHM = (4.0, 6.0)
"""Of the sky, as for the frames' zero points and the stacks' tie to PS1."""
_LEAST_RING = 0.15
"""Share of the ring that must be free of sources; else the smooth sky stands (0)."""
_CLIPS = 3
_SOME_MISSING = 0.07
"""Weights vary by less with the flat field and from pixel to pixel."""
_BATCH = 4000
_KRON_FACTOR, _KRON_LEAST = 2.5, 3.5
"""As SExtractor's MAG_AUTO."""


class Circles(NamedTuple):
    """Fluxes above the local sky and errors of independent pixels, shape (N, apertures); sky a pixel, shape (N,)."""

    flux: FloatArray
    white: FloatArray
    sky: FloatArray


class Kron(NamedTuple):
    """Flux, error of independent pixels, and the ellipse's mean radius, px; shape (N,)."""

    flux: FloatArray
    white: FloatArray
    radius: FloatArray


def _ring(fwhm: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    reach = int(np.ceil(_RING_FWHM[1] * fwhm))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    distance = np.hypot(dy, dx)
    inside = (distance >= _RING_FWHM[0] * fwhm) & (distance <= _RING_FWHM[1] * fwhm)
    return dy[inside], dx[inside]


def _medians(values: FloatArray) -> FloatArray:
    """Median of each row without its NaN, which sort to the end; far faster than nanmedian on a busy row."""
    ranked = np.sort(values, axis=1)
    number = np.maximum(np.isfinite(values).sum(axis=1), 1)
    row = np.arange(len(values))
    return np.asarray(0.5 * (ranked[row, (number - 1) // 2] + ranked[row, number // 2]))


def local_sky(band: BandImage, occupied: BoolImage, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Clipped median of the free pixels in a ring of 4 to 6 FWHM, and its variance; 0 and 0 where none is free."""
    dy, dx = _ring(band.fwhm_px)
    free = ~(occupied | band.bad)
    ny, nx = band.data.shape
    sky, variance = np.zeros(x.size), np.zeros(x.size)
    for start in range(0, x.size, _BATCH):
        part = np.s_[start : start + _BATCH]
        rows = np.rint(y[part]).astype(int)[:, None] + dy
        columns = np.rint(x[part]).astype(int)[:, None] + dx
        within = (rows >= 0) & (rows < ny) & (columns >= 0) & (columns < nx)
        rows, columns = np.clip(rows, 0, ny - 1), np.clip(columns, 0, nx - 1)
        good = within & free[rows, columns]
        values = np.where(good, band.data[rows, columns], np.nan).astype(np.float64)
        known = good.mean(axis=1) >= _LEAST_RING
        values = values[known]
        if not values.size:
            continue
        for _ in range(_CLIPS):
            middle = _medians(values)[:, None]
            scatter = 1.4826 * _medians(np.abs(values - middle))[:, None]
            values = np.where(np.abs(values - middle) > 3.0 * scatter, np.nan, values)
        number = np.isfinite(values).sum(axis=1)
        here = np.zeros(known.size)
        here[known] = _medians(values)
        sky[part] = here
        spread = np.zeros(known.size)
        spread[known] = np.pi / 2 * np.nanvar(values, axis=1) / np.maximum(number, 1)
        variance[part] = spread
    return sky, variance


def circles(
    band: BandImage, occupied: BoolImage, x: FloatArray, y: FloatArray, radii: tuple[float, ...] = APERTURES_FWHM
) -> Circles:
    """Fluxes in circles (radii in FWHM). Pixels without data are made up for by the others in the aperture."""
    sky, sky_variance = local_sky(band, occupied, x, y)
    flux, white = np.zeros((x.size, len(radii))), np.zeros((x.size, len(radii)))
    for column, radius in enumerate(radii):
        r = radius * band.fwhm_px
        total, _, _ = sep.sum_circle(band.data, x, y, r, mask=band.bad, subpix=0)
        noise, _, _ = sep.sum_circle(band.variance, x, y, r, mask=band.bad, subpix=0)
        area = np.pi * r**2
        flux[:, column] = total - sky * area
        white[:, column] = np.sqrt(np.maximum(noise, 0.0) + sky_variance * area**2)
    return Circles(flux, white, sky)


def kron(band: BandImage, seen: Detection, sky: FloatArray) -> Kron:
    """Flux in 2.5 Kron radii of the detection, at least 3.5 of its axes (as MAG_AUTO); neighbours' pixels are left out.

    What a neighbour covers, the aperture's other pixels make up for.
    """
    reach = np.maximum(_KRON_FACTOR * seen.kron, _KRON_LEAST)
    reach = np.minimum(reach, 0.45 * min(band.data.shape) / seen.a)
    number = np.arange(1, seen.x.size + 1)
    ellipse = (seen.x, seen.y, seen.a, seen.b, seen.theta, reach)
    own = {"mask": band.bad, "seg_id": number, "segmap": seen.segments, "subpix": 5}
    total, _, _ = sep.sum_ellipse(band.data, *ellipse, **own)
    noise, _, _ = sep.sum_ellipse(band.variance, *ellipse, **own)
    area = np.pi * seen.a * seen.b * reach**2
    return Kron(np.asarray(total - sky * area), np.sqrt(np.maximum(noise, 0.0)), reach * np.sqrt(seen.a * seen.b))


def missing_weight(band: BandImage, x: FloatArray, y: FloatArray) -> FloatArray:
    """Share of the usual weight that is missing within 1 FWHM, mean over the good pixels there; never below 0."""
    reach = max(1.0, band.fwhm_px)
    usual = float(np.median(band.weight[~band.bad]))
    total, _, _ = sep.sum_circle(band.weight, x, y, reach, mask=band.bad, subpix=5)
    return np.asarray(np.maximum(1.0 - total / (np.pi * reach**2 * usual), 0.0))


def blemishes(band: BandImage, x: FloatArray, y: FloatArray) -> npt.NDArray[np.int32]:
    """`SourceFlag` of each source that pixels and weights tell."""
    flags = np.zeros(x.size, np.int32)
    reach = max(1.0, band.fwhm_px)
    half = int(np.ceil(reach))
    dy, dx = np.mgrid[-half : half + 1, -half : half + 1]
    inside = np.hypot(dy, dx) <= reach
    ny, nx = band.data.shape
    rows, columns = np.rint(y).astype(int)[:, None] + dy[inside], np.rint(x).astype(int)[:, None] + dx[inside]
    within = (rows >= 0) & (rows < ny) & (columns >= 0) & (columns < nx)
    rows, columns = np.clip(rows, 0, ny - 1), np.clip(columns, 0, nx - 1)
    bad = band.bad[rows, columns] | ~within
    usual = float(np.median(band.weight[~band.bad]))
    flags[bad.any(axis=1)] |= SourceFlag.MASKED
    flags[bad.all(axis=1)] |= SourceFlag.NO_DATA
    flags[((band.data[rows, columns] > 0.99 * band.saturation) & within).any(axis=1)] |= SourceFlag.SATURATED
    low = np.where(bad, np.nan, band.weight[rows, columns])
    flags[(np.nan_to_num(low, nan=0.0).sum(axis=1) < 0.5 * usual * np.maximum((~bad).sum(axis=1), 1))] |= (
        SourceFlag.LOW_WEIGHT
    )
    flags[_at_edge(band, x, y)] |= SourceFlag.EDGE
    flags[missing_weight(band, x, y) > _SOME_MISSING] |= SourceFlag.FEWER_FRAMES
    return flags


def _at_edge(band: BandImage, x: FloatArray, y: FloatArray) -> BoolImage:
    """Whether an aperture of 1.5 FWHM reaches beyond what the image covers: along eight spokes, no data."""
    ny, nx = band.data.shape
    reach = 1.5 * band.fwhm_px
    # A spoke's end without data, and the next three pixels outwards without any: the border, not a blemish.
    outside = np.zeros(x.size, bool)
    for angle in np.arange(8) * np.pi / 4:
        gone = np.ones(x.size, bool)
        for step in range(4):
            column = np.rint(x + (reach + step) * np.cos(angle)).astype(int)
            row = np.rint(y + (reach + step) * np.sin(angle)).astype(int)
            within = (row >= 0) & (row < ny) & (column >= 0) & (column < nx)
            gone &= ~within | band.bad[np.clip(row, 0, ny - 1), np.clip(column, 0, nx - 1)]
        outside |= gone
    return outside
