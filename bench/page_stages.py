"""Trivial stages of the pages, beside those of `bench.stages`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.base import Roots
from models.catalog import StoredCone
from models.page import AstrometricCheck, GroupPictures, PageFrame, Picture, StackPictures, StackPlots
from models.settings import ValidationSettings
from models.stack import Stack, stack_paths
from models.telescope import Telescope
from tasks.core.files import ref, writing

__all__ = ["PAGES_REPLACED"]

_BYTES = 40_000
"""Of the demo's pictures, about."""


_POSITIONS = AstrometricCheck(n_stars=50, epoch=2023.2, rms_mas=12.0, offset_ra_mas=1.0, offset_dec_mas=-1.0)


def _picture(path: Path, roots: Roots) -> Picture:
    with writing(path, durable=False) as temporary:
        temporary.write_bytes((f"{path.name} ".encode() * _BYTES)[:_BYTES])
    return Picture(file=ref(path, roots), alt=path.name, width=700, height=500)


def _of(stack: Stack, suffix: str, roots: Roots) -> Picture:
    folder = stack_paths(stack.group, stack.telescope, stack.filter, roots).plots
    return _picture(folder / f"{stack.group}_{stack.filter}_{suffix}", roots)


def pictures_of_stack(stack: Stack, roots: Roots) -> StackPictures:
    return StackPictures(
        view=_of(stack, "view.webp", roots),
        weight=_of(stack, "weight.webp", roots),
        depth=_of(stack, "depth.svg", roots),
    )


def plots(
    stack: Stack,
    ps1: StoredCone | None,
    gaia: StoredCone | None,
    epoch: float,
    roots: Roots,
    telescope: Telescope,
    settings: ValidationSettings,
) -> StackPlots:
    names = ("psf.svg", "mags.svg", "stars.svg")
    psf, mags, stars = (_of(stack, name, roots) for name in names)
    return StackPlots(psf=psf, photometry=mags, astrometry=stars, positions=_POSITIONS)


def group_pictures(
    stacks: Sequence[Stack], frames: Sequence[PageFrame], continuum: Mapping[str, str | None], roots: Roots
) -> GroupPictures:
    first = stacks[0].model_copy(update={"filter": "rgb"})
    return GroupPictures(
        colour=_of(first, "colour.webp", roots), thumbnail=_of(first, "small.webp", roots),
        frames=_of(first, "frames.svg", roots), bands=("r",),
    )  # fmt: skip


def night_picture(night: str, frames: Sequence[PageFrame], telescope: str, roots: Roots) -> Picture:
    return _picture(roots.data / night[:4] / telescope / "plots" / f"night_{night}.svg", roots)


PAGES_REPLACED: dict[str, dict[str, Any]] = {
    "tasks.pages.tasks": {
        "pictures_of_stack": pictures_of_stack,
        "_plots": plots,
        "group_pictures": group_pictures,
        "night_picture": night_picture,
    }
}
"""What is replaced, by the module of the tasks that call it."""
