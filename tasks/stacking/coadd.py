"""Resampled frames combined: a weighted mean with a clip that knows what seeing does to stars, and the plain median.

A pixel's frames are compared with their median. What stands further off than its own noise allows is left out of
the mean: the hit of a cosmic ray that the mask missed, a trail that ends in the frame. Where there is a star, frames
differ without anything being wrong with them, since sharp ones have its light in the core and wide ones in the wings;
clipping that would bend the magnitudes of bright stars. So the tolerance grows with the light around a pixel, as in
the minimum-median clipping of drizzled images (Fruchter & Hook 2002, PASP 114, 144; Gruen et al. 2014, PASP 126,
158), by as much as the seeing of the frame and of the median can make it differ.

The weights know the noise of the sky and nothing of the sources, so the mean is linear in their light.

The median and its weight are what SWarp 2.41 makes of the same frames with COMBINE_TYPE MEDIAN, to the rounding of
float32: the frames are read and sorted for the clip anyway, which SWarp takes another second a filter to do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from models.stack import Grid
from tasks.core.errors import StageError
from tasks.core.masks import grown, highest

__all__ = ["Coadd", "CountImage", "Resampled", "coadd", "wrong_cards"]

FloatImage = npt.NDArray[np.float32]
FloatCube = npt.NDArray[np.float32]
BoolCube = npt.NDArray[np.bool_]
CountImage = npt.NDArray[np.int16]

_FLOOR_SIGMA = 2.0
"""Light counts as such only above so much of the median's noise: else the sky's own noise would widen the tolerance."""

_LEAST_CONTRAST = 1.0
"""A frame may differ from the median by the light within a seeing disk, whatever its seeing: wide ones lose as much."""

_SHARPER = 1.3
"""What pixels and changes of the profile over the field add to (FWHM of the median / of the frame)^2."""

_WING_CONTRAST = 0.1
"""Share of a star's peak that its wings may reach beyond the seeing disk, out to three times its radius."""

_GROWN = 0.5
"""Beside a clipped pixel half of the tolerance is enough: resampling has spread the hit."""

_BYTES_A_PIXEL = 40
"""Memory of one frame's pixel on its way: values, weights, the sorted copy and what is computed from them."""

_MOST_MB = 128
"""Pieces that stay on the allocator's heap take a fifth less time than those whose pages the kernel clears first."""

_FEW = 24
"""So many frames are sorted by exchanging whole planes; more, pixel by pixel."""


@dataclass(frozen=True)
class Resampled:
    """A frame on the grid, as SWarp resampled it.

    Attributes
    ----------
    image, weight
        Background-subtracted image and its inverse variance; float32, ADU and ADU^-2 of the frame.
    scale
        ADU of the frame to ADU of the stack.
    gain
        Electrons per ADU of the frame.
    fwhm_px
        Its seeing, px of the grid; None: not known.
    """

    image: Path
    weight: Path
    scale: float
    gain: float
    fwhm_px: float | None


@dataclass(frozen=True)
class Coadd:
    """Frames combined to one image, shape (ny, nx) of the grid.

    Attributes
    ----------
    data, weight
        Weighted mean (ADU of the stack) and its inverse variance; exactly 0 where no frame has data.
    plain
        The same mean without any clipping.
    used, clipped
        How many frames are in a pixel of `data`, and how many the clip left out.
    median, median_weight
        Median of the frames (of two middle values their mean) and its inverse variance, if asked for.
    """

    data: FloatImage
    weight: FloatImage
    plain: FloatImage
    used: CountImage
    clipped: CountImage
    median: FloatImage | None = None
    median_weight: FloatImage | None = None


def wrong_cards(header: fits.Header, grid: Grid, of: str = "CR CD") -> str:
    """Cards of SWarp's header that are not those of the grid, and what they should be; empty: none.

    Parameters
    ----------
    header
        Of a resampled frame or of what SWarp combined.
    of
        Beginnings of the keywords that are looked at.
    """
    step = grid.pixel_scale / 3600.0
    asked = {
        "CRVAL1": grid.ra, "CRVAL2": grid.dec, "CRPIX1": (grid.nx + 1) / 2, "CRPIX2": (grid.ny + 1) / 2,
        "CD1_1": -step, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": step,
    }  # fmt: skip
    tolerance = {"CR": 1e-8, "CD": 1e-11}
    return "; ".join(
        f"{key} {header[key]!r} for {value!r}"
        for key, value in asked.items()
        if key.startswith(tuple(of.split())) and abs(float(header[key]) - value) > tolerance[key[:2]]
    )


class _Plane:
    """One resampled frame, read by rows of the grid."""

    def __init__(self, frame: Resampled, grid: Grid, files: ExitStack) -> None:
        try:
            image = files.enter_context(fits.open(frame.image, mode="readonly", memmap=True))
            weight = files.enter_context(fits.open(frame.weight, mode="readonly", memmap=True))
            header, self.data, self.weight = image[0].header, image[0].data, weight[0].data
        except (OSError, ValueError, TypeError) as error:
            raise StageError(
                "stacking", f"SWarp's resampled frame {frame.image.name} cannot be read: {error}", "stack again"
            ) from error
        wrong = wrong_cards(header, grid, "CRVAL CD")
        if wrong:
            raise StageError(
                "stacking",
                f"SWarp's resampled frame {frame.image.name} is on another grid: {wrong}",
                "is it the version that flows.doctor asks for?",
            )
        place = [(grid.nx + 1) / 2 - float(header["CRPIX1"]), (grid.ny + 1) / 2 - float(header["CRPIX2"])]
        self.left, self.bottom = (round(value) for value in place)
        between = max(abs(place[0] - self.left), abs(place[1] - self.bottom)) > 1e-3
        if between or self.data.shape != self.weight.shape:
            raise StageError(
                "stacking",
                f"SWarp's resampled frame {frame.image.name} lies {place[0]:.3f}, {place[1]:.3f} px into the grid",
                "is it the version that flows.doctor asks for?",
            )
        self.scale = frame.scale
        self.grid = grid

    def rows(self, low: int, high: int, values: FloatImage, weights: FloatImage) -> None:
        """Fill values (ADU of the stack; infinity: none) and weights (0: none) of rows low to high of the grid."""
        values[:], weights[:] = np.inf, 0.0
        height, width = self.data.shape
        y0, y1 = max(low, self.bottom, 0), min(high, self.bottom + height, self.grid.ny)
        x0, x1 = max(self.left, 0), min(self.left + width, self.grid.nx)
        if y0 >= y1 or x0 >= x1:
            return
        mine = slice(y0 - self.bottom, y1 - self.bottom), slice(x0 - self.left, x1 - self.left)
        there = slice(y0 - low, y1 - low), slice(x0, x1)
        value, weight = values[there], weights[there]
        # In double precision, as SWarp scales them: its median and ours are then the same.
        np.multiply(self.data[mine], self.scale, out=value, dtype=np.float64)
        np.multiply(self.weight[mine], self.scale**-2, out=weight, dtype=np.float64)
        missing = ~(np.isfinite(value) & (weight > 0) & (weight < np.inf))
        value[missing], weight[missing] = np.inf, 0.0


def _exchanges(number: int) -> Iterator[tuple[int, int]]:
    """Pairs to be put in order, one after the other, that sort so many numbers (Batcher 1968, AFIPS 32, 307)."""
    p = 1
    while p < number:
        k = p
        while k >= 1:
            for j in range(k % p, number - k, 2 * k):
                for i in range(min(k, number - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        yield i + j, i + j + k
            k //= 2
        p *= 2


def _in_order(values: FloatCube) -> FloatCube:
    """Each pixel's values of all frames, ascending."""
    if len(values) > _FEW:
        return np.sort(values, axis=0)
    ordered = values.copy()
    larger = np.empty_like(ordered[0])
    for low, high in _exchanges(len(ordered)):
        np.maximum(ordered[low], ordered[high], out=larger)
        np.minimum(ordered[low], ordered[high], out=ordered[low])
        ordered[high] = larger
    return ordered


def _at(ordered: FloatCube, place: npt.NDArray[np.intp]) -> FloatImage:
    """Of each pixel the value at its place."""
    found: FloatImage = np.take_along_axis(ordered, place[None], axis=0)[0]
    return found


class _Pixels(NamedTuple):
    """The frames' pixels in some rows of the grid.

    Attributes
    ----------
    values, weights
        As `_Plane.rows` gives them, shape (frames, rows, nx).
    inverse
        1 / weight, 0 without a value.
    known
        Frames with a value.
    middle
        The lower one of two middle values; 0 without a value.
    variance
        Of the median, as if all frames were as noisy.
    """

    values: FloatCube
    weights: FloatCube
    inverse: FloatCube
    ordered: FloatCube
    known: npt.NDArray[np.intp]
    middle: FloatImage
    variance: FloatImage

    @classmethod
    def of(cls, values: FloatCube, weights: FloatCube) -> _Pixels:
        """What is wrong with a frame is bright, as a rule: of two frames that differ, the brighter one is suspect."""
        inverse = np.empty_like(weights)
        count = np.zeros(values.shape[1:], np.intp)
        total = np.zeros(values.shape[1:], np.float32)
        with np.errstate(divide="ignore"):
            np.divide(np.float32(1.0), weights, out=inverse)
        for weight, mine in zip(weights, inverse, strict=True):
            known = weight > 0
            mine[~known] = 0.0
            count += known
            total += mine
        ordered = _in_order(values)
        middle = np.where(count > 0, _at(ordered, np.maximum(count - 1, 0) // 2), np.float32(0))
        number = np.maximum(count, 1).astype(np.float32)
        return cls(values, weights, inverse, ordered, count, middle, total * np.float32(np.pi / 2) / number**2)

    def median(self, inner: slice) -> tuple[FloatImage, FloatImage]:
        """Of some of the rows: the median and its inverse variance, as SWarp's ``coadd_line`` has them.

        The noise of a median of n normal values is the mean of theirs times ``pi / 2 (n + pi / 2 - 1)`` over n**2 for
        odd n and ``pi / 2 (n + pi - 2)`` for even n; of two it is a mean.
        """
        count, ordered, middle = self.known[inner], self.ordered[:, inner], self.middle[inner]
        upper = _at(ordered, np.minimum(count // 2, len(ordered) - 1))
        image = np.where(count % 2 == 1, middle, (middle + upper) / np.float32(2))
        image[count == 0] = 0.0
        roots, inverse = np.zeros(count.shape), np.zeros(count.shape)
        for weight, mine in zip(self.weights[:, inner], self.inverse[:, inner], strict=True):
            known = weight > 0
            roots += np.divide(1.0, np.sqrt(mine, dtype=np.float64), out=np.zeros(count.shape), where=known)
            inverse += mine
        number = np.maximum(count, 1).astype(np.float64)
        more = number + np.where(count % 2 == 1, np.pi / 2 - 1, np.pi - 2)
        variance = np.where(
            count > 2, np.pi * number**2 / (2 * np.maximum(roots, 1e-100) ** 2 * more), inverse / number**2
        )
        variance = variance.astype(np.float32)
        return image, np.divide(np.float32(1), variance, out=np.zeros_like(variance), where=count > 0)


def _median_seeing(
    weights: npt.NDArray[np.float32], fwhm: Sequence[float], count: npt.NDArray[np.intp]
) -> npt.NDArray[np.float32]:
    """Seeing of the frame that is the median where a star's core is: there the widest frame is the faintest one."""
    seeing = np.zeros(count.shape, np.float32)
    so_far = np.zeros(count.shape, np.intp)
    for index in sorted(range(len(fwhm)), key=lambda i: -fwhm[i]):
        known = weights[index] > 0
        so_far += known
        seeing[known & (so_far == (count + 1) // 2)] = fwhm[index]
    return seeing


def _outliers(pixels: _Pixels, frames: Sequence[Resampled], fwhm: Sequence[float], sigma: float) -> BoolCube:
    """Which pixels of which frames the mean must do without; shape of values."""
    light = np.maximum(pixels.middle - np.float32(_FLOOR_SIGMA) * np.sqrt(pixels.variance), 0)
    disk, wings = _reaches(fwhm)
    core = highest(light, disk)
    halo = (np.float32(_WING_CONTRAST) * highest(light, wings)) ** 2

    def tolerance(index: int, where: tuple[npt.NDArray[np.intp], ...]) -> npt.NDArray[np.float32]:
        """Square of what a frame may be off by, in some pixels."""
        rows, columns = where
        seeing = _median_seeing(pixels.weights[:, rows, columns], fwhm, pixels.known[where])
        contrast = np.maximum(np.float32(_SHARPER) * (seeing / np.float32(fwhm[index])) ** 2 - 1, _LEAST_CONTRAST)
        noise = pixels.inverse[index][where] + pixels.variance[where]
        noise += np.float32(frames[index].scale / frames[index].gain) * core[where]
        near: npt.NDArray[np.float32] = (
            np.float32(sigma**2) * noise + (contrast.astype(np.float32) * core[where]) ** 2 + halo[where]
        )
        return near

    out = np.zeros(pixels.values.shape, bool)
    for index, (value, inverse) in enumerate(zip(pixels.values, pixels.inverse, strict=True)):
        square = (value - pixels.middle) ** 2
        # Nowhere is the tolerance below that for the sky's noise: only what is beyond this is looked at in full.
        suspect = np.nonzero((square > np.float32(sigma**2) * (inverse + pixels.variance)) & (inverse > 0))
        beyond = square[suspect] > tolerance(index, suspect)
        if beyond.any():
            mine = np.zeros(square.shape, bool)
            mine[suspect] = beyond
            beside = np.nonzero(grown(mine, 2) & (inverse > 0))
            out[index][beside] = square[beside] > np.float32(_GROWN**2) * tolerance(index, beside)
    return out


def _reaches(fwhm: Sequence[float]) -> tuple[int, int]:
    """Half sides (px) of the squares in which a star's core and its wings are looked for."""
    widest = max(fwhm)
    return max(2, math.ceil(widest / 2)), max(4, math.ceil(1.5 * widest))


def coadd(
    frames: Sequence[Resampled], grid: Grid, clip_sigma: float, memory_mb: int, seeing_px: float, median: bool = False
) -> Coadd:
    """Weighted mean of resampled frames without what is off their median.

    With two frames in a pixel the larger value is left out if they differ by more than the tolerance; with one,
    nothing can be seen.

    Parameters
    ----------
    frames
        On the grid, in the stack's order.
    grid
        Shape of the result.
    clip_sigma
        What is off by more than so many times its noise is left out.
    memory_mb
        Rows are taken in pieces that need no more.
    seeing_px
        Stands in where a frame's own is not known, px.
    median
        Whether the median itself is wanted as well.

    Raises
    ------
    StageError
        If a resampled frame cannot be read or does not lie on the grid.
    """
    fwhm = [frame.fwhm_px or seeing_px for frame in frames]
    halo = _reaches(fwhm)[1] + 3
    shape = (grid.ny, grid.nx)
    data, weight, plain = (np.zeros(shape, np.float32) for _ in range(3))
    used, clipped = (np.zeros(shape, np.int16) for _ in range(2))
    medians = [np.zeros(shape, np.float32) for _ in range(2)] if median else []
    with ExitStack() as files:
        planes = [_Plane(frame, grid, files) for frame in frames]
        room = min(memory_mb, _MOST_MB) * 1e6
        step = max(16, int(room / (grid.nx * _BYTES_A_PIXEL * (len(frames) + 2))) - 2 * halo)
        for top in range(0, grid.ny, step):
            end = min(top + step, grid.ny)
            low, high = max(0, top - halo), min(grid.ny, end + halo)
            values, weights = (np.empty((len(frames), high - low, grid.nx), np.float32) for _ in range(2))
            for plane, of_values, of_weights in zip(planes, values, weights, strict=True):
                plane.rows(low, high, of_values, of_weights)
            pixels = _Pixels.of(values, weights)
            out = _outliers(pixels, frames, fwhm, clip_sigma)
            inner = slice(top - low, end - low)
            if median:
                medians[0][top:end], medians[1][top:end] = pixels.median(inner)
            values, weights, out = values[:, inner], weights[:, inner], out[:, inner]
            values[weights == 0] = 0.0
            plain[top:end], weight[top:end] = _mean(values, weights)
            data[top:end] = plain[top:end]
            clipped[top:end] = out.sum(axis=0)
            used[top:end] = pixels.known[inner] - clipped[top:end]
            rows, columns = np.nonzero(clipped[top:end])
            left = np.where(out[:, rows, columns], np.float32(0), weights[:, rows, columns])
            again = _mean(values[:, rows, columns], left)
            data[top:end][rows, columns], weight[top:end][rows, columns] = again
    return Coadd(data, weight, plain, used, clipped, *medians)


def _mean(
    values: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Weighted mean over the first axis and sum of the weights; 0 where that is."""
    total, weight = (np.zeros(values.shape[1:]) for _ in range(2))
    for value, mine in zip(values, weights, strict=True):
        total += value * mine
        weight += mine
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0).astype(np.float32), weight.astype(
        np.float32
    )
