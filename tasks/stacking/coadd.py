"""Inverse-variance weighted mean of resampled frames, with a clip that knows what seeing does to stars.

A pixel's frames are compared with their median. What stands further off than its own noise allows is left out of
the mean: the hit of a cosmic ray that the mask missed, a trail that ends in the frame. Where there is a star, frames
differ without anything being wrong with them, since sharp ones have its light in the core and wide ones in the wings;
clipping that would bend the magnitudes of bright stars. So the tolerance grows with the light around a pixel, as in
the minimum-median clipping of drizzled images (Fruchter & Hook 2002, PASP 114, 144; Gruen et al. 2014, PASP 126,
158), by as much as the seeing of the frame and of the median can make it differ.

The weights know the noise of the sky and nothing of the sources, so the mean is linear in their light.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from scipy import ndimage

from models.stack import Grid
from tasks.core.errors import StageError

__all__ = ["Coadd", "CountImage", "Resampled", "coadd"]

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
    """

    data: FloatImage
    weight: FloatImage
    plain: FloatImage
    used: CountImage
    clipped: CountImage


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
        place = [(grid.nx + 1) / 2 - float(header["CRPIX1"]), (grid.ny + 1) / 2 - float(header["CRPIX2"])]
        self.left, self.bottom = (round(value) for value in place)
        wrong = max(abs(place[0] - self.left), abs(place[1] - self.bottom)) > 1e-3
        if wrong or self.data.shape != self.weight.shape:
            raise StageError(
                "stacking",
                f"SWarp's resampled frame {frame.image.name} lies {place[0]:.3f}, {place[1]:.3f} px into the grid",
                "is it the version that flows.doctor asks for?",
            )
        self.scale = np.float32(frame.scale)
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
        data, weight = self.data[mine].astype(np.float32), self.weight[mine].astype(np.float32)
        good = np.isfinite(data) & np.isfinite(weight) & (weight > 0)
        there = slice(y0 - low, y1 - low), slice(x0, x1)
        values[there] = np.where(good, data * self.scale, np.float32(np.inf))
        weights[there] = np.where(good, weight / self.scale**2, np.float32(0))


def _reference(values: FloatCube, weights: FloatCube) -> tuple[FloatImage, FloatImage, npt.NDArray[np.intp]]:
    """Median over the frames (of two middle values the lower one), its variance, and the number of frames.

    What is wrong with a frame is bright, as a rule: of two frames that differ, the brighter one is suspect.
    """
    known = weights > 0
    count = known.sum(axis=0)
    middle = np.take_along_axis(np.sort(values, axis=0), (np.maximum(count - 1, 0) // 2)[None], axis=0)[0]
    variance = np.zeros(middle.shape, np.float32)
    for weight, mine in zip(weights, known, strict=True):
        variance += np.divide(1.0, weight, out=np.zeros_like(weight), where=mine)
    number = np.maximum(count, 1).astype(np.float32)
    return np.where(count > 0, middle, np.float32(0)), variance * np.float32(np.pi / 2) / number**2, count


def _median_seeing(weights: FloatCube, fwhm: Sequence[float], count: npt.NDArray[np.intp]) -> FloatImage:
    """Seeing of the frame that is the median where a star's core is: there the widest frame is the faintest one."""
    seeing = np.zeros(count.shape, np.float32)
    so_far = np.zeros(count.shape, np.intp)
    for index in sorted(range(len(fwhm)), key=lambda i: -fwhm[i]):
        known = weights[index] > 0
        so_far += known
        seeing[known & (so_far == (count + 1) // 2)] = fwhm[index]
    return seeing


def _outliers(
    values: FloatCube, weights: FloatCube, frames: Sequence[Resampled], fwhm: Sequence[float], sigma: float
) -> BoolCube:
    """Which pixels of which frames the mean must do without; shape of values."""
    reference, variance, count = _reference(values, weights)
    light = np.maximum(reference - np.float32(_FLOOR_SIGMA) * np.sqrt(variance), 0)
    disk, wings = _reaches(fwhm)
    core = ndimage.maximum_filter(light, size=2 * disk + 1)
    halo = (np.float32(_WING_CONTRAST) * ndimage.maximum_filter(light, size=2 * wings + 1)) ** 2
    seeing = _median_seeing(weights, fwhm, count)
    out = np.zeros(values.shape, bool)
    for index, frame in enumerate(frames):
        known = weights[index] > 0
        contrast = np.maximum(np.float32(_SHARPER) * (seeing / np.float32(fwhm[index])) ** 2 - 1, _LEAST_CONTRAST)
        noise = np.divide(1.0, weights[index], out=np.zeros_like(light), where=known) + variance
        noise += np.float32(frame.scale / frame.gain) * core
        tolerance = np.float32(sigma**2) * noise + (contrast.astype(np.float32) * core) ** 2 + halo
        square = np.where(known, values[index] - reference, np.float32(0)) ** 2
        mine = square > tolerance
        if mine.any():
            beside = ndimage.maximum_filter(mine.view(np.uint8), size=5).view(np.bool_)
            out[index] = beside & (square > np.float32(_GROWN**2) * tolerance) & known
    return out


def _reaches(fwhm: Sequence[float]) -> tuple[int, int]:
    """Half sides (px) of the squares in which a star's core and its wings are looked for."""
    widest = max(fwhm)
    return max(2, math.ceil(widest / 2)), max(4, math.ceil(1.5 * widest))


def coadd(frames: Sequence[Resampled], grid: Grid, clip_sigma: float, memory_mb: int, seeing_px: float) -> Coadd:
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
    with ExitStack() as files:
        planes = [_Plane(frame, grid, files) for frame in frames]
        step = max(16, int(memory_mb * 1e6 / (grid.nx * _BYTES_A_PIXEL * (len(frames) + 2))) - 2 * halo)
        for top in range(0, grid.ny, step):
            end = min(top + step, grid.ny)
            low, high = max(0, top - halo), min(grid.ny, end + halo)
            values, weights = (np.empty((len(frames), high - low, grid.nx), np.float32) for _ in range(2))
            for plane, of_values, of_weights in zip(planes, values, weights, strict=True):
                plane.rows(low, high, of_values, of_weights)
            out = _outliers(values, weights, frames, fwhm, clip_sigma)
            inner = slice(top - low, end - low)
            values, weights, out = values[:, inner], weights[:, inner], out[:, inner]
            values[weights == 0] = 0.0
            plain[top:end], _ = _mean(values, weights)
            clipped[top:end] = out.sum(axis=0)
            weights[out] = 0.0
            data[top:end], weight[top:end] = _mean(values, weights)
            used[top:end] = (weights > 0).sum(axis=0)
    return Coadd(data=data, weight=weight, plain=plain, used=used, clipped=clipped)


def _mean(values: FloatCube, weights: FloatCube) -> tuple[FloatImage, FloatImage]:
    """Weighted mean and sum of the weights; 0 where that is."""
    total, weight = (np.zeros(values.shape[1:]) for _ in range(2))
    for value, mine in zip(values, weights, strict=True):
        total += value * mine
        weight += mine
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0).astype(np.float32), weight.astype(
        np.float32
    )
