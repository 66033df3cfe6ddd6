"""What each cached step draws: a stack's maps, a group's colour picture and timeline, a night's timeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.base import Roots
from models.page import GroupPictures, PageFrame, Picture, StackPictures
from models.stack import Stack, stack_paths
from tasks.pages.raster import colour_picture, overlay_picture, view_picture, weight_picture
from tasks.pages.stackplots import depth_picture
from tasks.pages.timeplots import group_timeline, night_timeline
from tasks.stacking import stack_view

__all__ = ["group_pictures", "night_picture", "pictures_of_stack"]


def pictures_of_stack(stack: Stack, roots: Roots) -> StackPictures:
    """The stack, its weight and its depth as ``plots/{group}_{filter}_view.webp``, ``_weight.webp``, ``_depth.svg``."""
    folder = stack_paths(stack.group, stack.telescope, stack.filter, roots).plots
    stem, view = f"{stack.group}_{stack.filter}", stack_view(stack, roots)
    depth = depth_picture(stack, view, folder / f"{stem}_depth.svg", roots)
    quartiles = tuple(round(float(each), 2) for each in depth[1]) if depth is not None else None
    return StackPictures(
        view=view_picture(stack, view, folder / f"{stem}_view.webp", roots),
        weight=weight_picture(stack, view, folder / f"{stem}_weight.webp", roots),
        depth=depth[0] if depth is not None else None,
        depth_quartiles=quartiles,
    )


def group_pictures(
    stacks: Sequence[Stack], frames: Sequence[PageFrame], continuum: Mapping[str, str | None], roots: Roots
) -> GroupPictures:
    """A group in colour with its line emission, the index's thumbnail, and its frames against time.

    Parameters
    ----------
    stacks
        Of all filters, one at least; those for extended targets show a galaxy's faint light.
    frames
        Every frame of the group.
    continuum
        Broad band by narrow band.
    roots
        Data root.
    """
    first = stacks[0]
    folder = stack_paths(first.group, first.telescope, first.filter, roots).plots
    made = colour_picture(stacks, folder / f"{first.group}_colour.webp", folder / f"{first.group}_small.webp", roots)
    line: dict[str, Any] = {}
    if made is not None and "Ha" not in made.bands:
        overlay, how = overlay_picture(stacks, continuum, made.box, folder / f"{first.group}_line.webp", roots)
        line = {"overlay": overlay, "overlay_says": how}
    elif made is not None:
        line = {"overlay_says": "Hα is one of the three colours here"}
    return GroupPictures(
        colour=made.large if made is not None else None,
        bands=made.bands if made is not None else (),
        field_arcsec=made.field if made is not None else None,
        thumbnail=made.small if made is not None else None,
        frames=group_timeline(first.group, frames, folder / f"{first.group}_frames.svg", roots),
        **line,
    )


def night_picture(night: str, frames: Sequence[PageFrame], telescope: str, roots: Roots) -> Picture:
    """A night's timeline as ``{year}/{telescope}/plots/night_{night}.svg``."""
    path = roots.data / night[:4] / telescope / "plots" / f"night_{night}.svg"
    return night_timeline(night, frames, path, roots)
