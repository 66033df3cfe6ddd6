"""Scale, select, combine: each filter of a group on its own, on the grid they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefect import task

from models.base import FileRef, Roots
from models.catalog import StoredCone
from models.frame import CalibratedFrame, FrameFailure, Rejected
from models.settings import PhotometrySettings, SelectionSettings, StackSettings
from models.stack import (
    AlignedFrame,
    ExtendedStack,
    Grid,
    GroupSources,
    Selection,
    Stack,
    StackPsf,
    StackValidation,
)
from models.target import Target
from models.telescope import Telescope
from tasks.core.cache import ByContent
from tasks.core.pool import in_pool
from tasks.core.running import is_transient, made, settled
from tasks.stacking import (
    StarFluxes,
    combine,
    common_grid,
    depth,
    extend,
    find_sources,
    finish_extended,
    finish_stack,
    plot_extended,
    plot_rgb,
    plot_stack,
    relative_zero_points,
    select_frames,
    stack_noise,
    star_fluxes,
)

__all__ = [
    "colour_picture",
    "combined_stack",
    "extended_picture",
    "extended_stack",
    "finished_extended",
    "finished_stack",
    "fluxes_ahead",
    "group_sources",
    "selected_frames",
    "shared_grid",
    "stack_picture",
]


def _scale_and_select(
    target: Target,
    filter: str,
    aligned: Sequence[AlignedFrame],
    rejected: Sequence[Rejected],
    centre: tuple[float, float] | None,
    ps1: StoredCone | None,
    roots: Roots,
    telescope: Telescope,
    photometry: PhotometrySettings,
    selection: SelectionSettings,
    ahead: Mapping[str, StarFluxes] | None = None,
) -> Selection:
    scaling = relative_zero_points(aligned, ps1, roots, telescope, photometry, ahead)
    return select_frames(target, filter, scaling, rejected, roots, telescope, selection, centre)


@task(
    name="select frames",
    task_run_name="select {target.name} {filter}",
    cache_policy=ByContent(code=[relative_zero_points, select_frames, _scale_and_select], ignore=["ahead"]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def selected_frames(
    target: Target,
    filter: str,
    aligned: Sequence[AlignedFrame],
    rejected: Sequence[Rejected],
    centre: tuple[float, float] | None,
    ps1: StoredCone | None,
    roots: Roots,
    telescope: Telescope,
    photometry: PhotometrySettings,
    selection: SelectionSettings,
    ahead: Mapping[str, StarFluxes] | None = None,
) -> Selection | FrameFailure:
    """Relative zero points from common stars, then the cuts; every frame left out has its reason.

    What `fluxes_ahead` measured is not measured again; it is what would be found here.
    """
    return settled(
        f"{target.name}_{filter}",
        _scale_and_select,
        target,
        filter,
        aligned,
        rejected,
        centre,
        ps1,
        roots,
        telescope,
        photometry,
        selection,
        ahead,
    )


def fluxes_ahead(
    frames: Sequence[CalibratedFrame], roots: Roots, telescope: Telescope, settings: PhotometrySettings
) -> dict[str, StarFluxes]:
    """Photometry of frames' stars in the process pool, for `selected_frames`; no stage: nothing of it is recorded."""
    return in_pool(star_fluxes, frames, roots, telescope, settings)


@task(
    name="grid",
    task_run_name="grid {group}",
    cache_policy=ByContent(code=[common_grid], ignore=["group"]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def shared_grid(
    selections: Sequence[Selection], roots: Roots, telescope: Telescope, settings: StackSettings, group: str
) -> Grid | FrameFailure:
    """The grid of all filters of a group."""
    return settled(group, common_grid, selections, roots, telescope, settings)


@task(
    name="combine",
    task_run_name="SWarp {selection.group} {selection.filter}",
    cache_policy=ByContent(code=[combine], tools=["SWarp"]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def combined_stack(
    selection: Selection, grid: Grid, roots: Roots, telescope: Telescope, settings: StackSettings
) -> Stack | FrameFailure:
    """Image and weight of one filter."""
    return settled(f"{selection.group}_{selection.filter}", combine, selection, grid, roots, telescope, settings)


def _measure_and_finish(stack: Stack, psf: StackPsf | None, validation: StackValidation | None, roots: Roots) -> Stack:
    noise = stack_noise(stack, psf, roots)
    return finish_stack(stack, psf, validation, roots, depth(stack, psf, noise, roots), noise)


@task(
    name="finish stack",
    task_run_name="finish {stack.group} {stack.filter}",
    cache_policy=ByContent(code=[finish_stack, depth, stack_noise, _measure_and_finish]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def finished_stack(stack: Stack, psf: StackPsf | None, validation: StackValidation | None, roots: Roots) -> Stack:
    """The stack as people get it: PSF, depth and validation in its header."""
    return made(_measure_and_finish, stack, psf, validation, roots)


@task(
    name="picture of stack",
    task_run_name="picture {stack.group} {stack.filter}",
    cache_policy=ByContent(code=[plot_stack]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def stack_picture(stack: Stack, roots: Roots) -> FileRef:
    """The stack as a person looks at it."""
    return made(plot_stack, stack, roots)


@task(
    name="colour picture",
    task_run_name="colour picture of {group}",
    cache_policy=ByContent(code=[plot_rgb], ignore=["group"]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def colour_picture(stacks: Sequence[Stack], roots: Roots, group: str) -> FileRef | None:
    """Three bands in colour; None where there are fewer."""
    return made(plot_rgb, stacks, roots)


@task(
    name="sources of group",
    task_run_name="sources of {group}",
    cache_policy=ByContent(code=[find_sources], ignore=["group"]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def group_sources(stacks: Sequence[Stack], roots: Roots, group: str) -> GroupSources | FrameFailure:
    """Where a group's stacks show anything but sky, and its largest object."""
    return settled(group, find_sources, stacks, roots)


@task(
    name="extend",
    task_run_name="SWarp {selection.group} {selection.filter} for extended targets",
    cache_policy=ByContent(code=[extend], tools=["SWarp"]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def extended_stack(
    selection: Selection,
    grid: Grid,
    stack: Stack,
    sources: GroupSources,
    roots: Roots,
    telescope: Telescope,
    settings: StackSettings,
    degree: int,
    min_sky: float,
) -> ExtendedStack | FrameFailure:
    """The image of one filter with a sky that leaves large objects alone."""
    file = f"{selection.group}_{selection.filter}_ext"
    return settled(file, extend, selection, grid, stack, sources, roots, telescope, settings, degree, min_sky)


@task(
    name="finish extended",
    task_run_name="finish {stack.group} {stack.filter} for extended targets",
    cache_policy=ByContent(code=[finish_extended]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def finished_extended(extended: ExtendedStack, stack: Stack, roots: Roots) -> ExtendedStack | FrameFailure:
    """That image as people get it, tied to PS1 as the default product is."""
    return settled(f"{stack.group}_{stack.filter}_ext", finish_extended, extended, stack, roots)


@task(
    name="picture of extended",
    task_run_name="picture {stack.group} {stack.filter} for extended targets",
    cache_policy=ByContent(code=[plot_extended]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def extended_picture(extended: ExtendedStack, stack: Stack, roots: Roots) -> FileRef | FrameFailure | None:
    """It as a person looks at it, with the outline of its sky."""
    return settled(f"{stack.group}_{stack.filter}_ext.png", plot_extended, extended, stack, roots)
