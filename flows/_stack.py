"""Each filter of a group: SWarp, then PSF, validation, depth, header, plots of its stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefect import task
from prefect.runtime import task_run
from prefect.utilities.annotations import quote

from flows._progress import Link, RunProgress
from flows._way import Way, as_failure, stages
from models.field import FieldCatalogs
from models.frame import ColourTerm, FrameFailure
from models.run import RunContext
from models.stack import Selection, Stack
from tasks.core.cache import recall
from tasks.psf.tasks import psf_of_stack
from tasks.stacking import stack_colour
from tasks.stacking.tasks import combined_stack, finished_stack, shared_grid, stack_picture
from tasks.validation.tasks import tied_stack, validated_stack, validation_plot

__all__ = ["Made", "finish_filter", "stack_filters"]


def _name() -> str:
    stack = task_run.parameters.get("stack")
    if isinstance(stack, quote):  # as it was submitted, see flows._progress
        stack = stack.unquote()
    return f"finish {stack.group} {stack.filter}" if isinstance(stack, Stack) else "nothing to finish"


@task(name="stack", task_run_name=_name, persist_result=False)
def finish_filter(
    stack: Stack | FrameFailure, catalogs: FieldCatalogs, terms: Sequence[ColourTerm], run: RunContext
) -> Stack | FrameFailure:
    """PSF, tie to PS1 and validation of a stack, its header and plots. What it lacks, it says."""
    if isinstance(stack, FrameFailure):
        return stack
    way, roots, settings = Way(f"{stack.group}_{stack.filter}", run.roots), run.roots, run.settings
    mine = [term for term in terms if term.filter == stack.filter]
    telescope = run.telescope.with_colour_terms(mine)
    with stages(run):
        psf = way.step(psf_of_stack, stack, roots, telescope, settings.psf)
        with_psf = stack.model_copy(update={"psf": psf})
        tied = way.step(tied_stack, with_psf, catalogs.ps1, roots, telescope, settings.validation) or with_psf
        verdict = way.step(validated_stack, tied, catalogs.ps1, roots, telescope, settings.validation)
        if verdict is not None:
            way.step(validation_plot, tied, verdict, catalogs.ps1, roots, telescope, settings.validation)
        notes = stack.notes + tuple(f"{failure.stage}: {failure.reason}" for failure in way.failures)
        colour = stack.colour or stack_colour(telescope, stack.filter, mine[0].date if mine else "")
        noted = tied.model_copy(update={"notes": notes, "colour": colour})
        finished: Stack = recall(finished_stack, noted, psf, verdict, roots)
        recall(stack_picture, finished, roots)
    return finished


@dataclass(frozen=True)
class Made:
    """What came of a group's filters: as SWarp combined them, and as people get them; in the selections' order."""

    combined: tuple[Stack | FrameFailure, ...] = ()
    finished: tuple[object, ...] = ()


def stack_filters(
    chosen: Sequence[Selection],
    catalogs: FieldCatalogs,
    terms: Sequence[ColourTerm],
    run: RunContext,
    progress: RunProgress,
) -> Made:
    """SWarp for each filter on the grid they share, then what is done to its stack; a filter waits for no other.

    Those with most frames first, so that no core is left with the longest at the end. A filter that fails leaves the
    others alone.
    """
    if not chosen:
        return Made()
    roots, telescope, settings = run.roots, run.telescope, run.settings.stack
    grid = Way(chosen[0].group, roots)
    shared = grid.step(shared_grid, chosen, roots, telescope, settings, chosen[0].group)
    if shared is None:
        failed = tuple(grid.failures[0].model_copy(update={"file": f"{each.group}_{each.filter}"}) for each in chosen)
        return Made(failed, failed)
    order = sorted(range(len(chosen)), key=lambda number: -len(chosen[number].chosen))

    def to_finish(place: int, result: object) -> tuple[object, ...]:
        selection = chosen[order[place]]
        stack = (
            as_failure(result, f"{selection.group}_{selection.filter}", "combine", roots)
            if isinstance(result, BaseException)
            else result
        )
        combined[order[place]] = stack
        return stack, catalogs, terms, run

    combined: dict[int, Any] = {}
    calls = [(chosen[number], shared, roots, telescope, settings) for number in order]
    stages = Link("combine", combined_stack), Link("PSF and validation", finish_filter, to_finish)
    finished = dict(zip(order, progress.chain(calls, *stages)[1], strict=True))
    return Made(
        tuple(combined[number] for number in range(len(chosen))),
        tuple(finished[number] for number in range(len(chosen))),
    )
