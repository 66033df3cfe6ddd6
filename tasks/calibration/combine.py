"""Combining many frames of one shape in strips of rows: memory stays bounded, each strip is sorted once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tasks.core.fitsio import FloatImage, RawImage

__all__ = ["centre_and_noise", "clipped_mean", "median", "strips"]

_STRIP_VALUES = 1 << 21
_IQR_TO_SIGMA = 0.7413


def strips(
    images: Sequence[RawImage], subtract: Sequence[float] | FloatImage, divide: Sequence[float] | None = None
) -> Iterator[tuple[slice, FloatImage]]:
    """Walk over frames in strips.

    Parameters
    ----------
    images
        Frames of one shape.
    subtract
        One number a frame, or one image for all of them (ADU).
    divide
        One number a frame.

    Yields
    ------
    rows, values
        The rows of the strip, and their values as float32 of shape (rows * columns, frames), a pixel's
        values side by side: sorting them is five times quicker so.
    """
    height, width = images[0].shape
    step = max(1, _STRIP_VALUES // (len(images) * width))
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        by_frame = np.empty((len(images), (rows.stop - rows.start) * width), np.float32)
        for number, image in enumerate(images):
            strip = image.rows(rows.start, rows.stop)
            strip -= subtract[rows] if isinstance(subtract, np.ndarray) else np.float32(subtract[number])
            if divide is not None:
                strip /= np.float32(divide[number])
            by_frame[number] = strip.ravel()
        yield rows, np.ascontiguousarray(by_frame.T)


def _quantile(ordered: FloatImage, n_valid: npt.NDArray[np.intp] | None, q: float) -> FloatImage:
    """A quantile of each row of sorted values (NaN last), interpolated linearly."""
    if n_valid is None:
        place = q * (ordered.shape[1] - 1)
        low = int(place)
        high = min(low + 1, ordered.shape[1] - 1)
        weight = np.float32(place - low)
        result: FloatImage = ordered[:, low] * (1 - weight) + ordered[:, high] * weight
        return result
    places = q * (np.maximum(n_valid, 1) - 1)
    lows = places.astype(np.intp)
    highs = np.minimum(lows + 1, np.maximum(n_valid, 1) - 1)
    weights = (places - lows).astype(np.float32)
    index = np.arange(ordered.shape[0])
    result = ordered[index, lows] * (1 - weights) + ordered[index, highs] * weights
    return result


def _sorted(values: FloatImage) -> tuple[FloatImage, npt.NDArray[np.intp] | None]:
    ordered = np.sort(values, axis=1)
    if np.isnan(ordered[:, -1]).any():
        return ordered, np.count_nonzero(~np.isnan(ordered), axis=1)
    return ordered, None


def clipped_mean(values: FloatImage, clip_sigma: float, noise: float) -> tuple[FloatImage, npt.NDArray[np.int64]]:
    """Mean of each pixel's values after one clip about the median.

    A clip about the mean cannot reject anything among ten frames or fewer (the largest possible deviation is
    ``(N - 1) / sqrt(N)`` sigma). So the clip starts from the median, with the larger of the interquartile
    range of the pixel and the noise of the camera as sigma: the former knows flickering pixels, the latter
    keeps a few values that agree by chance from throwing out the rest.

    Parameters
    ----------
    values
        Shape (pixels, frames), float32, NaN where a frame has no value.
    clip_sigma
        Clip, sigma.
    noise
        Typical noise of one value.

    Returns
    -------
    mean, n_clipped
        Shape (pixels,); NaN where no frame has a value.
    """
    ordered, n_valid = _sorted(values)
    middle = _quantile(ordered, n_valid, 0.5)
    spread = _quantile(ordered, n_valid, 0.75) - _quantile(ordered, n_valid, 0.25)
    limit = (clip_sigma * np.maximum(_IQR_TO_SIGMA * spread, noise))[:, None]
    keep = np.abs(ordered - middle[:, None]) <= limit
    kept = keep.sum(axis=1)
    total = np.where(keep, ordered - middle[:, None], np.float32(0)).sum(axis=1)
    mean: FloatImage = middle + total / np.maximum(kept, 1).astype(np.float32)
    present = ordered.shape[1] if n_valid is None else n_valid
    return mean, np.asarray(present - kept, np.int64)


def median(values: FloatImage) -> FloatImage:
    """Median of each pixel's values, NaN left out.

    Parameters
    ----------
    values
        Shape (pixels, frames), float32.

    Returns
    -------
    median
        Shape (pixels,); NaN where no frame has a value.
    """
    return _quantile(*_sorted(values), 0.5)


def centre_and_noise(values: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Mean and standard deviation of what lies within 4 sigma of the median.

    Starts from the median and MAD; the deviation is then taken from the values kept, since the MAD of whole
    numbers is a whole number: too coarse for a noise of some ADU.
    """
    flat = values[np.isfinite(values)].astype(np.float64)
    if flat.size == 0:
        return float("nan"), float("nan")
    centre = float(np.median(flat))
    noise = max(1.4826 * float(np.median(np.abs(flat - centre))), 0.5)
    for _ in range(3):
        kept = flat[np.abs(flat - centre) <= 4.0 * noise]
        centre, noise = float(kept.mean()), max(float(kept.std()), 1e-6)
    return centre, noise
