"""An image made ready for measuring stars on it: masked pixels filled, sources known, sky around a place.

Pixel positions are zero-based array coordinates throughout: the centre of ``data[0, 0]`` is (0, 0).
"""

from __future__ import annotations

from enum import IntFlag
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sep
from scipy.ndimage import label

from tasks.core.masks import grown

__all__ = ["ApertureFlag", "StarImage", "core_peak", "fill_masked", "prepare_image", "source_mask"]

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]

_CHUNK = 256
_MIN_SKY_PIXELS = 50
_MAX_FILLED = 0.1

_SQUARE = np.ones((3, 3), bool)
_MIN_AREA = 5


class ApertureFlag(IntFlag):
    """Why an aperture is not to be trusted; 0: nothing is wrong."""

    CORE_MASKED = 1
    MUCH_MASKED = 2
    EDGE = 4
    NO_SKY = 8


def _disc(inner: float, outer: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    reach = int(np.ceil(outer))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    r2 = dx * dx + dy * dy
    inside = (r2 >= inner * inner) & (r2 <= outer * outer)
    return dy[inside], dx[inside]


def fill_masked(data: FloatArray, bad: BoolArray) -> FloatArray:
    """Replace masked pixels by the weighted mean of their good neighbours within two pixels.

    Parameters
    ----------
    data
        Image, 2-D.
    bad
        True where a pixel is not to be used, same shape.

    Returns
    -------
    ndarray of float32
        A copy; pixels with no good neighbour in reach are NaN.
    """
    filled = np.ascontiguousarray(data, dtype=np.float32).copy()
    # A stack's surroundings without data are most of its bad pixels; few of these have a neighbour with data.
    reached = bad & grown(~bad, 2)
    filled[bad & ~reached] = np.nan
    rows, columns = np.nonzero(reached)
    if rows.size == 0:
        return filled
    dy, dx = _disc(0.5, 2.5)
    weight = np.exp(-(dx * dx + dy * dy) / 2.0)
    ny, nx = data.shape
    y, x = rows[:, None] + dy, columns[:, None] + dx
    inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
    y, x = np.clip(y, 0, ny - 1), np.clip(x, 0, nx - 1)
    w = np.where(inside & ~bad[y, x], weight, 0.0)
    total = w.sum(axis=1)
    values = (w * np.where(bad[y, x], 0.0, data[y, x])).sum(axis=1)
    filled[rows, columns] = np.where(total > 0, values / np.where(total > 0, total, 1.0), np.nan)
    return filled


def source_mask(data: FloatArray, bad: BoolArray, threshold: float = 1.5, mesh_px: int = 64) -> BoolArray:
    """Pixels with light of any source in them: not to be taken for sky.

    Parameters
    ----------
    data
        Image, 2-D.
    bad
        True where a pixel is not to be used, same shape.
    threshold
        Of the smoothed image (SExtractor's default 3 x 3 kernel), sigma of the sky.
    mesh_px
        Mesh of the sky map taken off first.

    Returns
    -------
    ndarray of bool
        Segments of five or more pixels, grown by three pixels.
    """
    image = np.ascontiguousarray(np.where(np.isfinite(data), data, 0.0), dtype=np.float32)
    if bad.all():
        return np.zeros(image.shape, bool)
    sky = sep.Background(image, mask=bad, bw=mesh_px, bh=mesh_px)
    if sky.globalrms <= 0:
        return np.zeros(image.shape, bool)
    image -= sky.back(dtype=np.float32)
    image[bad] = 0.0
    above = (_smoothed(image) > np.float32(threshold * sky.globalrms)) & ~bad
    labels, number = label(above, _SQUARE)
    large = np.bincount(labels.ravel(), minlength=number + 1) >= _MIN_AREA
    large[0] = False
    return grown(large[labels], 3, diagonal=False)


def _smoothed(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Weighted mean of 3 x 3 pixels: SExtractor's default kernel; 0 outside."""
    quarter, half = np.float32(0.25), np.float32(0.5)
    down = half * image
    down[1:] += quarter * image[:-1]
    down[:-1] += quarter * image[1:]
    result = half * down
    result[:, 1:] += quarter * down[:, :-1]
    result[:, :-1] += quarter * down[:, 1:]
    return result


def _gather(
    image: npt.NDArray[Any], x: FloatArray, y: FloatArray, dy: npt.NDArray[np.intp], dx: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[Any], BoolArray]:
    ny, nx = image.shape
    rows = np.rint(y).astype(np.intp)[:, None] + dy
    columns = np.rint(x).astype(np.intp)[:, None] + dx
    inside = (rows >= 0) & (rows < ny) & (columns >= 0) & (columns < nx)
    return image[np.clip(rows, 0, ny - 1), np.clip(columns, 0, nx - 1)], inside


def _clipped_median(values: FloatArray, rounds: int = 5, sigma: float = 2.5) -> tuple[FloatArray, FloatArray, Any]:
    """Median, sigma and number of the values along the last axis after clipping; NaN counts for nothing.

    Sigma is the distance of the 16th percentile from the median: neighbours sit on the upper side.
    """
    ordered = np.sort(values, axis=1)  # NaN comes last
    rows = np.arange(ordered.shape[0])
    low = np.zeros(ordered.shape[0], np.intp)
    high = np.isfinite(ordered).sum(axis=1)
    empty = high == 0

    def at(share: float) -> FloatArray:
        place = low + share * np.maximum(high - low - 1, 0)
        below = np.minimum(place.astype(np.intp), ordered.shape[1] - 1)
        above = np.minimum(below + 1, np.maximum(high - 1, 0))
        return np.asarray(ordered[rows, below] + (place - below) * (ordered[rows, above] - ordered[rows, below]))

    centre: FloatArray = np.zeros(ordered.shape[0])
    scatter: FloatArray = centre
    for _ in range(rounds):
        centre = at(0.5)
        scatter = centre - at(0.1587)
        first = (ordered < (centre - sigma * scatter)[:, None]).sum(axis=1)
        last = (ordered <= (centre + sigma * scatter)[:, None]).sum(axis=1)
        if (first == low).all() and (last == high).all():
            break
        low, high = first, last
    centre = np.where(empty, 0.0, at(0.5))
    return centre, np.where(empty, 0.0, scatter), np.where(empty, 0, high - low)


class StarImage(NamedTuple):
    """An image ready to be measured; from `prepare_image`. All arrays are 2-D and of one shape.

    Attributes
    ----------
    data
        As it was.
    bad
        True where a pixel is not to be used.
    filled
        float32, bad pixels filled from their neighbours; finite everywhere.
    variance
        float32, the median of the others where bad.
    sources
        True where there is light of a source.
    """

    data: FloatArray
    bad: BoolArray
    filled: FloatArray
    variance: FloatArray
    sources: BoolArray

    def sky(
        self, x: FloatArray, y: FloatArray, inner: float, outer: float
    ) -> tuple[FloatArray, FloatArray, npt.NDArray[np.uint8]]:
        """Sky, its error and NO_SKY flags in annuli about positions: the clipped median of pixels without a source.

        Where fewer than 50 such pixels remain, those with light of sources are taken as well.
        """
        sky, error, flag = np.zeros(x.size), np.zeros(x.size), np.zeros(x.size, np.uint8)
        ring = _disc(inner, outer)
        for start in range(0, x.size, _CHUNK):
            part = slice(start, min(start + _CHUNK, x.size))
            values, inside = _gather(self.data, x[part], y[part], *ring)
            hidden, _ = _gather(self.bad, x[part], y[part], *ring)
            lit, _ = _gather(self.sources, x[part], y[part], *ring)
            good = inside & ~hidden
            dark = good & ~lit
            good = np.where((dark.sum(axis=1) >= _MIN_SKY_PIXELS)[:, None], dark, good)
            sky[part], scatter, count = _clipped_median(np.where(good, values, np.nan))
            error[part] = np.sqrt(np.pi / 2 / np.maximum(count, 1)) * scatter
            flag[part][count < _MIN_SKY_PIXELS] |= np.uint8(ApertureFlag.NO_SKY)
        return sky, error, flag

    def blemishes(self, x: FloatArray, y: FloatArray, radius: float, core: float) -> npt.NDArray[np.uint8]:
        """CORE_MASKED, MUCH_MASKED (over a tenth of the aperture) and EDGE flags at positions."""
        flag = np.zeros(x.size, np.uint8)
        disc, middle = _disc(0.0, radius), _disc(0.0, max(core, 1.0))
        for start in range(0, x.size, _CHUNK):
            part = slice(start, min(start + _CHUNK, x.size))
            hidden, inside = _gather(self.bad, x[part], y[part], *disc)
            flag[part][~inside.all(axis=1)] |= np.uint8(ApertureFlag.EDGE)
            flag[part][(hidden & inside).mean(axis=1) > _MAX_FILLED] |= np.uint8(ApertureFlag.MUCH_MASKED)
            hidden, inside = _gather(self.bad, x[part], y[part], *middle)
            flag[part][(hidden & inside).any(axis=1)] |= np.uint8(ApertureFlag.CORE_MASKED)
        return flag


def prepare_image(data: FloatArray, mask: npt.NDArray[Any], var: FloatArray) -> StarImage:
    """Make an image ready to measure stars on it.

    Parameters
    ----------
    data
        Image, 2-D, any sky level.
    mask
        Same shape; a pixel is used only where it is 0. Non-finite pixels count as masked.
    var
        Variance per pixel, same shape, unit of `data` squared.
    """
    bad = (np.asarray(mask) != 0) | ~np.isfinite(data) | ~np.isfinite(var)
    filled = fill_masked(data, bad)
    variance = np.ascontiguousarray(np.maximum(var, 0.0), dtype=np.float32)
    unknown = ~np.isfinite(filled)
    if bad.any():
        good = ~bad
        if unknown.any():
            filled[unknown] = np.median(data[good]) if good.any() else 0.0
        variance[bad] = np.median(variance[good]) if good.any() else 0.0
    return StarImage(data, bad, filled, variance, source_mask(filled, bad))


def core_peak(data: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Highest pixel of the 3 x 3 around each (zero-based) position, sky included; NaN pixels are ignored."""
    values, inside = _gather(np.asarray(data), np.asarray(x, float), np.asarray(y, float), *_disc(0.0, 1.5))
    return np.asarray(np.where(inside & np.isfinite(values), values, -np.inf).max(axis=1, initial=-np.inf))
