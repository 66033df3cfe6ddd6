"""Where a stack shows anything but sky: small sources pixel by pixel, large objects by their own isophotes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import sep
from scipy import ndimage

from tasks.stacking.surface import darkest_mode

__all__ = [
    "Extent",
    "compact_sources",
    "extended_light",
    "grown",
    "largest",
    "main_objects",
    "significance",
    "smoothed",
]

FloatImage = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
BoolImage = npt.NDArray[np.bool_]

_MESH_PX = 64
_COMPACT_SIGMA = 2.0
_SMOOTH_PX = 1.2
_MIN_AREA_PX = 6
_GROW = 0.6
_MAX_GROW_PX = 16.0
_WIDEST_PX = 64
_SHALLOW = 0.2
"""Pixels with less than this times the typical weight: the ragged border, where noise passes for sources."""

_SCALES = (1.0, 2.0, 4.0)
_ISOPHOTE_SIGMA = 3.0
_MIN_GROW = 2.0
_FEW = 20
_SURELY_SIGMA = 5.0


@dataclass(frozen=True)
class Extent:
    """The largest object of a map.

    Attributes
    ----------
    diameter
        Of the circle of its area, in units of the map's pixels.
    x, y
        Its middle, zero-based.
    """

    diameter: float
    x: float
    y: float


def _sigma(values: npt.NDArray[np.floating]) -> float:
    """Noise from what lies below the median: sources only raise the upper half."""
    middle = np.median(values)
    below = values[values <= middle]
    return 1.4826 * float(np.median(middle - below)) if below.size else 0.0


def significance(data: FloatImage, weight: FloatImage) -> FloatImage:
    """How far each pixel, slightly smoothed, stands out of its surroundings of 3 x 64 px, in sigma.

    Parameters
    ----------
    data, weight
        Stack and weight map, shape (ny, nx).

    Returns
    -------
    numpy.ndarray
        0 where the stack has no data.
    """
    covered = weight > 0
    if not covered.any():
        return np.zeros(data.shape, np.float32)
    typical = float(np.median(weight[covered]))
    use = weight > _SHALLOW * typical
    clean = np.ascontiguousarray(np.where(covered, data, 0), np.float32)
    mesh = min(_MESH_PX, *data.shape)
    background = sep.Background(clean, mask=~use, bw=mesh, bh=mesh)
    flat = np.where(covered, clean - background.back(dtype=np.float32), 0)
    evened = flat * np.sqrt(np.where(covered, weight, 0) / typical)
    smooth = ndimage.gaussian_filter(evened, _SMOOTH_PX)
    noise = _sigma(smooth[use])
    return np.asarray(np.where(covered, smooth / (noise or 1.0), 0), np.float32)


def compact_sources(significances: Sequence[FloatImage]) -> BoolImage:
    """Pixels of stars, small galaxies and knots, out to well beyond where they can be seen.

    Whatever stands out by 2 sigma in all filters together, grown by 0.6 of its own radius: a Moffat wing has fallen to
    a tenth of a sigma there.

    Parameters
    ----------
    significances
        Of each filter of a group (`significance`).
    """
    total, number = np.zeros_like(significances[0]), np.zeros(significances[0].shape, np.int16)
    for each in significances:
        total += each
        number += each != 0
    labels, count = ndimage.label(total > _COMPACT_SIGMA * np.sqrt(np.maximum(number, 1)), structure=np.ones((3, 3)))
    area = np.bincount(labels.ravel(), minlength=count + 1)
    area[0] = 0
    radius = np.sqrt(area / np.pi)
    found = np.zeros(labels.shape, bool)
    low = float(np.sqrt(_MIN_AREA_PX / np.pi))
    while low < _WIDEST_PX:  # classes of size: one distance map each
        high = 1.5 * low if 1.5 * low < _WIDEST_PX else np.inf
        members = (radius >= low) & (radius < high)
        if members.any():
            reach = min(_GROW * 1.25 * low, _MAX_GROW_PX) + 1.5
            found |= ndimage.distance_transform_edt(~members[labels]) <= reach
        low = 1.5 * low
    return found & (number > 0)


def smoothed(values: FloatArray, share: FloatArray, scale: float) -> FloatArray:
    """Gaussian mean of what there is: values of NaN or share 0 count nothing; NaN where nothing is near.

    Parameters
    ----------
    values, share
        Shape (rows, columns); share: weight of each value.
    scale
        Standard deviation of the Gaussian, px.
    """
    there = np.isfinite(values) & (share > 0)
    weight = np.where(there, share, 0.0)
    total = ndimage.gaussian_filter(np.where(there, values, 0.0) * weight, scale, mode="constant")
    norm = ndimage.gaussian_filter(weight, scale, mode="constant")
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norm > 1e-3 * max(float(weight.max()), 1e-300), total / norm, np.nan)


def extended_light(light: FloatArray, share: FloatArray, covered: BoolImage, empty: BoolImage) -> BoolImage:
    """Blocks within the isophotes of large objects.

    On maps smoothed by 1, 2 and 4 blocks whatever is 3 sigma above the sky and wider than the smoothing. Sigma is the
    smoothed sky's own scatter from place to place, so that what the flats left counts as noise; what is far above the
    commonest value is no sky even where it is the larger part.

    Parameters
    ----------
    light
        Mean surface brightness above the sky of each block's pixels outside compact sources; NaN: none left.
    share
        Share of such pixels: how much a block counts.
    covered
        Blocks in which anything can be found: those of full depth, stars or not.
    empty
        Blocks taken for sky so far.

    Returns
    -------
    numpy.ndarray
        Not grown, holes filled.
    """
    found = np.zeros(light.shape, bool)
    first = smoothed(light, share, _SCALES[0])
    dark = empty & covered & np.isfinite(first)
    if np.count_nonzero(dark) < _FEW:
        return found
    level, noise = darkest_mode(first[dark])
    dark &= np.nan_to_num(first) < level + _SURELY_SIGMA * noise
    for scale in _SCALES:
        smooth = smoothed(light, np.where(found, 0.0, share), scale)  # what is found already must not smear
        known = np.isfinite(smooth)
        ground = smooth[dark & known & ~found]
        if ground.size < _FEW:
            break
        level, noise = float(np.median(ground)), _sigma(ground)
        above = known & covered & (np.nan_to_num(smooth) - level > _ISOPHOTE_SIGMA * noise)
        labels, count = ndimage.label(above)
        area = np.bincount(labels.ravel(), minlength=count + 1)
        area[0] = 0
        found |= (area > np.pi * (2.0 * scale) ** 2)[labels] & (labels > 0)
    known = covered & np.isfinite(light) & (share > 0)
    if known.any():  # under a star's mask a block is what its neighbour is
        near = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
        found = found[tuple(near)] & covered
    return np.asarray(ndimage.binary_fill_holes(found))


def grown(objects: BoolImage, share: float) -> BoolImage:
    """Each connected object out to `share` of its radius beyond its edge, at least 2 blocks."""
    labels, _ = ndimage.label(objects)
    result = objects.copy()
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        radius = np.sqrt(np.count_nonzero(labels[box] == number) / np.pi)
        reach = max(_MIN_GROW, share * radius)
        pad = int(np.ceil(reach)) + 1
        rows, columns = (
            slice(max(0, side.start - pad), min(size, side.stop + pad))
            for side, size in zip(box, objects.shape, strict=True)
        )
        window = (rows, columns)
        result[window] |= ndimage.distance_transform_edt(labels[window] != number) <= reach
    return result


def main_objects(objects: BoolImage) -> BoolImage:
    """The largest connected object and those at least half as wide, without thin tails."""
    labels, _ = ndimage.label(ndimage.binary_opening(objects, iterations=2))
    area = np.bincount(labels.ravel())
    area[0] = 0
    return np.asarray((area >= max(area.max() / 4, 1))[labels])


def largest(objects: BoolImage) -> Extent | None:
    """The largest connected object; None where there is none."""
    labels, count = ndimage.label(objects)
    if not count:
        return None
    area = np.bincount(labels.ravel())
    area[0] = 0
    number = int(np.argmax(area))
    y, x = ndimage.center_of_mass(labels == number)
    return Extent(diameter=float(2.0 * np.sqrt(area[number] / np.pi)), x=float(x), y=float(y))
