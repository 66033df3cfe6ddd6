"""The pages' pictures, each made again only when what it shows has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefect import task

from models.base import Roots
from models.catalog import StoredCone
from models.frame import FrameFailure
from models.page import GroupPictures, PageFrame, Picture, StackPictures, StackPlots
from models.settings import ValidationSettings
from models.stack import Stack, stack_paths
from models.telescope import Telescope
from tasks.core.cache import ByContent
from tasks.core.running import is_transient, settled
from tasks.pages import group_pictures, night_picture, pictures_of_stack, plots_of_stack

__all__ = ["maps_of_stack", "night_timeline", "pictures_of_group", "stack_plots"]


@task(
    name="maps of stack",
    task_run_name="maps of {stack.group} {stack.filter}",
    cache_policy=ByContent(code=[pictures_of_stack]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def maps_of_stack(stack: Stack, roots: Roots) -> StackPictures | FrameFailure:
    """The stack, its weight and its depth for its page."""
    return settled(f"{stack.group}_{stack.filter}", pictures_of_stack, stack, roots)


def _plots(
    stack: Stack,
    ps1: StoredCone | None,
    gaia: StoredCone | None,
    epoch: float,
    roots: Roots,
    telescope: Telescope,
    settings: ValidationSettings,
) -> StackPlots:
    folder = stack_paths(stack.group, stack.telescope, stack.filter, roots).plots
    return plots_of_stack(stack, folder, ps1, gaia, epoch, roots, telescope, settings)


@task(
    name="plots of stack",
    task_run_name="plots of {stack.group} {stack.filter}",
    cache_policy=ByContent(code=[plots_of_stack, _plots]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def stack_plots(
    stack: Stack,
    ps1: StoredCone | None,
    gaia: StoredCone | None,
    epoch: float,
    roots: Roots,
    telescope: Telescope,
    settings: ValidationSettings,
) -> StackPlots | FrameFailure:
    """PSF, magnitudes against PS1, positions against Gaia."""
    file = f"{stack.group}_{stack.filter}"
    return settled(file, _plots, stack, ps1, gaia, epoch, roots, telescope, settings)


@task(
    name="pictures of group",
    task_run_name="pictures of {group}",
    cache_policy=ByContent(code=[group_pictures], ignore=["group"]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def pictures_of_group(
    stacks: Sequence[Stack], frames: Sequence[PageFrame], continuum: Mapping[str, str | None], roots: Roots, group: str
) -> GroupPictures | FrameFailure:
    """A group in colour, and its frames against time."""
    return settled(group, group_pictures, stacks, frames, continuum, roots)


@task(
    name="timeline of night",
    task_run_name="timeline of {night}",
    cache_policy=ByContent(code=[night_picture]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def night_timeline(night: str, frames: Sequence[PageFrame], telescope: str, roots: Roots) -> Picture | FrameFailure:
    """A night as it went."""
    return settled(night, night_picture, night, frames, telescope, roots)
