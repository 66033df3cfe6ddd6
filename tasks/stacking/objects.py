"""What a group's stacks show: where there is anything but sky, and how large it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from models.base import Roots
from models.settings import StackSettings
from models.stack import GroupSources, Stack, stack_paths
from tasks.core.errors import StageError
from tasks.core.files import ref
from tasks.core.fitsio import write_fits
from tasks.stacking.sources import compact_sources, extended_light, grown, largest, main_objects, significance
from tasks.stacking.surface import Blocks

__all__ = ["COMPACT", "EXTENDED", "MIN_SHARE", "block_means", "deep_pixels", "find_sources", "read_image", "wanted"]

FloatImage = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
BoolImage = npt.NDArray[np.bool_]

COMPACT, EXTENDED = 1, 2
"""Bits of the map of sources."""

MIN_SHARE = 0.3
"""A block with fewer of its pixels outside stars says nothing."""

_GROW = 0.25
_ROUNDS = 5
_DEEP = 0.5


def read_image(file: Path) -> tuple[FloatImage, fits.Header]:
    """Pixels and header of a FITS image.

    Raises
    ------
    StageError
        If it cannot be read.
    """
    try:
        with fits.open(file, memmap=False) as hdus:
            return np.asarray(hdus[0].data, np.float32), hdus[0].header.copy()
    except (OSError, ValueError, TypeError) as error:
        raise StageError("extended", f"{file.name} cannot be read: {error}", "stack the group again") from error


def _image_and_weight(stack: Stack, roots: Roots) -> tuple[FloatImage, FloatImage]:
    return read_image(roots.of(stack.image))[0], read_image(roots.of(stack.weight))[0]


def block_means(blocks: Blocks, data: FloatImage, use: BoolImage) -> FloatArray:
    """Mean of the pixels to use in each block; NaN where they are too few."""
    pixels, _ = blocks.cut(np.where(use, data, np.float32(np.nan)))
    there = np.isfinite(pixels)
    count = there.sum(axis=2)
    total = np.where(there, pixels, 0).sum(axis=2, dtype=float)
    return np.where(count >= MIN_SHARE * blocks.side**2, total / np.maximum(count, 1), np.nan)


def find_sources(stacks: Sequence[Stack], roots: Roots) -> GroupSources:
    """Where the stacks of a group show stars, galaxies and large objects, in whatever filter they do.

    Parameters
    ----------
    stacks
        Of one group, on one grid.
    roots
        Data root; the map goes to ``.cache``.

    Returns
    -------
    GroupSources
        Map of bits (1: compact sources, 2: isophotes of larger objects, not grown) and the largest object.

    Raises
    ------
    StageError
        If a stack cannot be read, or they are not on one grid.
    """
    first = stacks[0]
    shape = read_image(roots.of(first.weight))[0].shape
    outstanding = []
    for stack in stacks:
        data, weight = _image_and_weight(stack, roots)
        if data.shape != shape:
            raise StageError(
                "extended",
                f"{stack.image.path} has {data.shape[1]} x {data.shape[0]} px, others of it {shape[1]} x {shape[0]}",
                "stack the group again",
            )
        outstanding.append(significance(data, weight))
    compact = compact_sources(outstanding)
    blocks = Blocks.of(compact.shape)
    objects = np.zeros(blocks.count, bool)
    diameter, where = 0.0, ""
    for stack in stacks:
        found = _isophotes(*_image_and_weight(stack, roots), compact, blocks)
        objects |= main_objects(found)
        extent = largest(found)
        if extent is not None and extent.diameter * blocks.side > diameter:
            diameter, where = extent.diameter * blocks.side, stack.filter
    bits = np.where(compact, COMPACT, 0) | np.where(blocks.spread(objects), EXTENDED, 0)
    path = stack_paths(first.group, first.telescope, first.filter, roots).work_image.with_name(
        f"{first.group}_sources.fits"
    )
    write_fits(path, [fits.PrimaryHDU(bits.astype(np.uint8))])
    return GroupSources(
        group=first.group, map=ref(path, roots), diameter_px=round(diameter, 1), filter=where,
        filters=tuple(stack.filter for stack in stacks),
    )  # fmt: skip


def _isophotes(data: FloatImage, weight: FloatImage, compact: BoolImage, blocks: Blocks) -> BoolImage:
    """Blocks of large objects on a stack whose background is gone."""
    deep = deep_pixels(weight)
    use = deep & ~compact
    light, share, covered = block_means(blocks, data, use), blocks.share(use), blocks.share(deep) >= MIN_SHARE
    objects = np.zeros(blocks.count, bool)
    for _ in range(_ROUNDS):
        found = extended_light(light, share, covered, (share >= MIN_SHARE) & ~grown(objects, _GROW)) | objects
        if np.array_equal(found, objects):
            break
        objects = found
    return objects


def deep_pixels(weight: FloatImage) -> BoolImage:
    """Pixels that most frames cover: elsewhere the border of each one shows."""
    covered = weight > 0
    return weight > _DEEP * float(np.median(weight[covered])) if covered.any() else covered


def wanted(sources: GroupSources, settings: StackSettings) -> tuple[bool, str]:
    """Whether a group gets stacks for extended targets, and why."""
    size = f"{sources.diameter_px:.0f} px across in {sources.filter}" if sources.filter else "none"
    mesh = settings.back_size_px
    if settings.extended == "never":
        return False, "not made: stack.extended is never"
    if settings.extended == "always":
        return True, f"made: stack.extended is always (largest object: {size})"
    if sources.diameter_px > mesh:
        return True, f"made: an object is {size}, larger than the background mesh of {mesh} px"
    return False, f"not made: no object is larger than the background mesh of {mesh} px (largest: {size})"
