"""A stack against PS1, in numbers and as a plot."""

from __future__ import annotations

from prefect import task

from models.base import FileRef, Roots
from models.catalog import StoredCone
from models.frame import FrameFailure
from models.settings import ValidationSettings
from models.stack import Stack, StackValidation, stack_paths
from models.telescope import Telescope
from tasks.core.cache import ByContent
from tasks.core.running import is_transient, settled
from tasks.validation import compared_stars, plot_validation, residuals, tie_stack, validate_stack

__all__ = ["tied_stack", "validated_stack", "validation_plot"]


def _with_tie(
    stack: Stack, ps1: StoredCone | None, roots: Roots, telescope: Telescope, settings: ValidationSettings
) -> Stack:
    seen = stack.model_copy(update={"compared": compared_stars(stack, ps1, roots, telescope, settings)})
    return seen.model_copy(update={"tie": tie_stack(seen, ps1, roots, telescope, settings)})


@task(
    name="tie to PS1",
    task_run_name="tie {stack.group} {stack.filter} to PS1",
    cache_policy=ByContent(code=[compared_stars, tie_stack, _with_tie]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def tied_stack(
    stack: Stack, ps1: StoredCone | None, roots: Roots, telescope: Telescope, settings: ValidationSettings
) -> Stack | FrameFailure:
    """The stack with what its flux must be raised by to fit PS1; not applied until it is finished."""
    return settled(f"{stack.group}_{stack.filter}", _with_tie, stack, ps1, roots, telescope, settings)


@task(
    name="validate",
    task_run_name="validate {stack.group} {stack.filter}",
    cache_policy=ByContent(code=[validate_stack]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def validated_stack(
    stack: Stack, ps1: StoredCone | None, roots: Roots, telescope: Telescope, settings: ValidationSettings
) -> StackValidation | FrameFailure:
    """Offset of a stack's zero point from PS1, its error and scatter."""
    return settled(f"{stack.group}_{stack.filter}", validate_stack, stack, ps1, roots, telescope, settings)


def _measure_and_plot(
    stack: Stack,
    verdict: StackValidation,
    ps1: StoredCone | None,
    roots: Roots,
    telescope: Telescope,
    settings: ValidationSettings,
) -> FileRef:
    comparable = ps1 is not None and verdict.zp_offset is not None
    found = residuals(stack, ps1, roots, telescope, settings) if comparable and ps1 is not None else None
    path = (
        stack_paths(stack.group, stack.telescope, stack.filter, roots).plots / f"{stack.group}_{stack.filter}_phot.png"
    )
    return plot_validation(stack, found, verdict, path, roots)


@task(
    name="validation plot",
    task_run_name="plot {stack.group} {stack.filter} against PS1",
    cache_policy=ByContent(code=[plot_validation, residuals, _measure_and_plot]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def validation_plot(
    stack: Stack,
    verdict: StackValidation,
    ps1: StoredCone | None,
    roots: Roots,
    telescope: Telescope,
    settings: ValidationSettings,
) -> FileRef | FrameFailure:
    """Residuals against magnitude and colour."""
    file = f"{stack.group}_{stack.filter}_phot.png"
    return settled(file, _measure_and_plot, stack, verdict, ps1, roots, telescope, settings)
