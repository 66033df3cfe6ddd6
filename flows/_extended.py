"""Stacks for extended targets beside the default ones, where a group needs them; the default ones never do."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task
from prefect.runtime import task_run

from flows._progress import RunProgress
from flows._way import Way, as_failure, stages
from models.frame import FrameFailure
from models.run import RunContext
from models.stack import ExtendedStack, GroupSources, Selection, Stack, stack_paths
from tasks.stacking import wanted
from tasks.stacking.tasks import (
    extended_picture,
    extended_stack,
    finished_extended,
    group_sources,
    shared_grid,
)

__all__ = ["extend_filters", "extend_stack"]


def _name() -> str:
    stack = task_run.parameters.get("finished")
    return f"extended {stack.group} {stack.filter}" if isinstance(stack, Stack) else "nothing to extend"


@task(name="extended stack", task_run_name=_name, persist_result=False)
def extend_stack(
    selection: Selection,
    every: Sequence[Selection],
    combined: Stack,
    finished: Stack,
    sources: GroupSources,
    run: RunContext,
) -> ExtendedStack:
    """The stack for extended targets of one filter; why there is none, where there is none."""
    way, roots, settings = Way(f"{finished.group}_{finished.filter}_ext", run.roots), run.roots, run.settings.stack
    made: ExtendedStack | None = None
    with stages(run):
        grid = way.step(shared_grid, every, roots, run.telescope, settings, finished.group)
        if grid is not None:
            degree, least = settings.extended_degree, settings.extended_min_sky
            made = way.step(
                extended_stack, selection, grid, combined, sources, roots, run.telescope, settings, degree, least
            )
        if made is not None:
            made = way.step(finished_extended, made, finished, roots)
        if made is not None:
            way.step(extended_picture, made, finished, roots)
    said = tuple(f"{failure.stage}: {failure.reason}" for failure in way.failures)
    if made is None:
        return ExtendedStack(file=None, reason="; ".join(("not made", *said)))
    return made.model_copy(update={"reason": "; ".join((made.reason, *said))})


def _without(reason: str, finished: Sequence[object], run: RunContext) -> list[object]:
    """The stacks with the reason why there is none for extended targets; what an earlier run made goes."""
    result: list[object] = []
    for stack in finished:
        if isinstance(stack, Stack):
            _remove(stack, run)
            stack = stack.model_copy(update={"extended": ExtendedStack(file=None, reason=reason)})
        result.append(stack)
    return result


def _remove(stack: Stack, run: RunContext) -> None:
    paths = stack_paths(stack.group, stack.telescope, stack.filter, run.roots)
    for path in (paths.extended, paths.plots / f"{paths.extended.stem}.png"):
        path.unlink(missing_ok=True)


def extend_filters(
    chosen: Sequence[Selection],
    combined: Sequence[Stack | FrameFailure],
    finished: Sequence[object],
    run: RunContext,
    progress: RunProgress,
) -> list[object]:
    """Stacks for extended targets beside the finished ones, if the group has an object that needs them.

    Parameters
    ----------
    chosen, combined, finished
        Of each filter: its frames, what came of combining them, and of finishing that; in the same order.

    Returns
    -------
    list
        `finished`, each stack with its companion or with why it has none.
    """
    triples = [
        (selection, before, after)
        for selection, before, after in zip(chosen, combined, finished, strict=True)
        if isinstance(before, Stack) and isinstance(after, Stack)
    ]
    settings = run.settings.stack
    if not triples or settings.extended == "never":
        return _without("not made: stack.extended is never", finished, run)
    group = triples[0][0].group
    stacks = tuple(before for _, before, _ in triples)
    sources = progress.each("sources of the group", group_sources, [(stacks, run.roots, group)])[0]
    if not isinstance(sources, GroupSources):
        if isinstance(sources, BaseException):
            sources = as_failure(sources, group, "sources of the group", run.roots)
        return _without(f"not made: {sources.stage}: {sources.reason}", finished, run)
    needed, why = wanted(sources, settings)
    if not needed:
        return _without(why, finished, run)
    calls = [(selection, tuple(chosen), before, after, sources, run) for selection, before, after in triples]
    results = dict(
        zip(
            (after.filter for _, _, after in triples),
            progress.each("for extended targets", extend_stack, calls),
            strict=True,
        )
    )
    return [_with(stack, results[stack.filter], why, run) if isinstance(stack, Stack) else stack for stack in finished]


def _with(stack: Stack, result: object, why: str, run: RunContext) -> Stack:
    if isinstance(result, BaseException):
        failure = as_failure(result, f"{stack.group}_{stack.filter}_ext", "extend", run.roots)
        result = ExtendedStack(file=None, reason=f"not made: {failure.stage}: {failure.reason}")
    assert isinstance(result, ExtendedStack)
    if result.file is None:
        _remove(stack, run)
    else:
        result = result.model_copy(update={"reason": f"{why}; {result.reason}"})
    return stack.model_copy(update={"extended": result})
