"""Weight of every pixel of a frame: the flat where the pixel is good, 0 where it is not.

The flat is the inverse variance of the sky, up to the frame's constant that SWarp measures itself
(RESCALE_WEIGHTS): dividing by it leaves the sky's noise at ``sky / flat``. The variance of the *sources* is
left out on purpose: weights that know the counts bias a weighted mean low.

A saturated pixel gets weight 0 only where another frame sees the place unsaturated: weight 0 in every frame would
leave a hole in the stack that looks like a place without data. So short exposures fill in the cores and bleeds of
long ones, and a star saturated in all of them keeps its (flat-topped) core. A bleed beyond the core is not the star's:
where no frame shows what is under it, there is no data.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from scipy import ndimage

from models.base import Roots
from models.frame import MaskBit
from models.stack import AlignedFrame, ScaledFrame
from models.telescope import Telescope
from tasks.core.errors import StageError
from tasks.core.files import digest_file
from tasks.core.masks import grown, highest
from tasks.stacking.heads import frame_label, head_wcs
from tasks.stacking.selection import separation_deg

__all__ = ["Seen", "frame_weight", "make_weights", "spared_cores"]

MaskImage = npt.NDArray[np.uint8]
BoolImage = npt.NDArray[np.bool_]
FloatImage = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

CORE_BITS = int(MaskBit.SATURATED | MaskBit.BLEED)
"""Too bright, but there is a star."""

LANCZOS_REACH = 3
"""SWarp drops every output pixel whose LANCZOS3 kernel meets a pixel of weight 0."""

_EIGHT = np.ones((3, 3), bool)
_CORE_SHARE = 0.35
_STEP = 10.0
_CORNER = np.array([[0.0, 0.0], [_STEP, 0.0], [0.0, _STEP]])


class Seen(NamedTuple):
    """What a frame's weight is made from: its mask (bits of `models.frame.MaskBit`) and the name of its master flat."""

    mask: MaskImage
    flat: str


def frame_weight(mask: MaskImage, flat: FloatImage | None, spared: BoolImage) -> FloatImage:
    """Weight map of one frame.

    Parameters
    ----------
    mask
        Bits of `models.frame.MaskBit`, shape (ny, nx).
    flat
        Normalised master flat; None: uniform response.
    spared
        Saturated or bled pixels that keep their weight since no other frame shows what is there.

    Returns
    -------
    numpy.ndarray
        float32, exactly 0 where a pixel must not be used.
    """
    response = np.ones(mask.shape, np.float32) if flat is None else flat.astype(np.float32, copy=True)
    only_core = (mask & ~np.uint8(CORE_BITS)) == 0
    usable = (mask == 0) | (only_core & spared)
    usable &= np.isfinite(response) & (response > 0)
    response[~usable] = 0.0
    return response


def _blobs(mask: MaskImage) -> tuple[npt.NDArray[np.int32], int]:
    labels, count = ndimage.label((mask & np.uint8(CORE_BITS)) != 0, structure=_EIGHT)
    return labels, int(count)


def _streaks(labels: npt.NDArray[np.int32]) -> BoolImage:
    """Pixels of saturated blobs that charge spilled into along the columns, far from the round core.

    The core is what is left of a blob that is longer than wide after an opening with a disk of 0.7 times its width.
    """
    streak = np.zeros(labels.shape, bool)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        blob = labels[box] == number
        width = int(blob.sum(axis=1).max())
        if blob.shape[0] <= 2 * width + 2:
            continue
        radius = round(_CORE_SHARE * width)
        y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
        core = ndimage.binary_opening(np.pad(blob, radius), x**2 + y**2 <= radius**2)
        core = ndimage.binary_dilation(core, _EIGHT)[radius : radius + blob.shape[0], radius : radius + blob.shape[1]]
        streak[box] |= blob & ~core
    return streak


def _overlap(one: AlignedFrame, other: AlignedFrame) -> bool:
    """Whether two frames can see the same place; far from a frame its distortion polynomial means nothing."""
    reach = sum(
        math.hypot(*frame.frame.raw.shape) / 2.0 * frame.frame.solved.solution.pixel_scale / 3600.0
        for frame in (one, other)
    )
    return separation_deg(one.ra, one.dec, other.ra, other.dec) < reach


def spared_cores(masks: Sequence[MaskImage], frames: Sequence[AlignedFrame], roots: Roots) -> list[BoolImage]:
    """Saturated cores that must keep their weight, for each frame.

    A pixel of a core loses its weight only if it and its surroundings as far as the kernel reaches are seen clean by
    other frames, each place by at least one; so no choice can open a hole. A bleed always does.

    Parameters
    ----------
    masks
        Of all frames of the stack.
    frames
        The frames, for their `.head`.
    roots
        Where the `.head` files are.
    """
    wcs = [head_wcs(frame, roots) for frame in frames]
    clean = [~grown(mask != 0, LANCZOS_REACH) for mask in masks]
    spared = []
    for own, mask in enumerate(masks):
        labels, count = _blobs(mask)
        if not count:
            spared.append(np.zeros(mask.shape, bool))
            continue
        around = highest(labels, LANCZOS_REACH)
        rows, columns = np.nonzero(around)
        blob = around[rows, columns] - 1
        size = np.maximum(np.bincount(blob, minlength=count), 1)
        centre = np.column_stack([np.bincount(blob, where, count) / size for where in (columns, rows)])
        offset = np.column_stack([columns, rows]) - centre[blob]
        sky = wcs[own].all_pix2world(np.vstack([centre + step for step in _CORNER]), 0)
        seen = np.zeros(len(rows), bool)
        for other, there in enumerate(wcs):
            unseen = np.flatnonzero(~seen)
            if other == own or not len(unseen) or not _overlap(frames[own], frames[other]):
                continue
            # A core is small: a linear map of its centre and two points beside it places its pixels well enough.
            at, right, up = there.wcs_world2pix(sky, 0).reshape(3, count, 2)
            of, away = blob[unseen], offset[unseen] / _STEP
            place = at[of] + away[:, :1] * (right - at)[of] + away[:, 1:] * (up - at)[of]
            x, y = np.rint(np.nan_to_num(place, nan=-1e6).clip(-1e6, 1e6)).astype(int).T
            ny, nx = clean[other].shape
            inside = (x >= LANCZOS_REACH) & (x < nx - LANCZOS_REACH) & (y >= LANCZOS_REACH) & (y < ny - LANCZOS_REACH)
            found = np.zeros(len(unseen), bool)
            found[inside] = clean[other][y[inside], x[inside]]
            seen[unseen[found]] = True
        unseen_here = np.zeros(mask.shape, bool)
        unseen_here[rows[~seen], columns[~seen]] = True
        spared.append((labels > 0) & grown(unseen_here, LANCZOS_REACH) & ~_streaks(labels))
    return spared


def _flat_of(frame: AlignedFrame, name: str, roots: Roots, telescope: Telescope) -> FloatImage | None:
    """The master flat a frame was divided by, found by its name and proven by its digest; None: not found."""
    wanted = frame.frame.reduced.flat
    for path in sorted(roots.data.glob(f"[0-9]*/{telescope.name}/master_flat/{name}")):
        if digest_file(path, roots) == wanted:
            with fits.open(path, memmap=False) as hdus:
                return np.asarray(hdus[0].data, np.float32)
    return None


def make_weights(
    chosen: Sequence[ScaledFrame], seen: Sequence[Seen], folder: Path, roots: Roots, telescope: Telescope
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Write the weight maps of a stack's frames as ``{index:04d}.weight.fits``.

    Parameters
    ----------
    chosen
        Frames of the stack, in its order.
    seen
        Of each of them.
    folder
        Scratch folder of the SWarp run.
    roots, telescope
        Where the frames, `.head` files and flats are.

    Returns
    -------
    paths, notes
        The files, and what could not be done in words.

    Raises
    ------
    StageError
        If a flat does not fit its frame.
    """
    frames = [item.aligned for item in chosen]
    spared = spared_cores([each.mask for each in seen], frames, roots)
    flats: dict[tuple[str, str | None], FloatImage | None] = {}
    paths: list[Path] = []
    without: dict[str, list[str]] = defaultdict(list)
    for index, (frame, (mask, name)) in enumerate(zip(frames, seen, strict=True)):
        key = (name, frame.frame.reduced.flat)
        if key not in flats:
            flats[key] = _flat_of(frame, name, roots, telescope) if frame.frame.reduced.flat else None
        flat = flats[key]
        if flat is None:
            why = "no flat" if frame.frame.reduced.flat is None else f"the flat {name} is gone or changed"
            without[why].append(frame_label(frame))
        elif flat.shape != mask.shape:
            raise StageError(
                "weights",
                f"the flat {name} has {flat.shape[::-1]} px, {frame_label(frame)} {mask.shape[::-1]}",
                "reduce the year again",
            )
        path = folder / f"{index:04d}.weight.fits"
        fits.PrimaryHDU(frame_weight(mask, flat, spared[index])).writeto(path)
        paths.append(path)
    notes = tuple(
        f"uniform weight, {why}: {'all frames' if len(labels) == len(frames) else ', '.join(labels)}"
        for why, labels in without.items()
    )
    return tuple(paths), notes
