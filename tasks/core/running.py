"""How a Prefect task runs a pure function: in the pool, noted in the ledger, with a permanent failure as data."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext, TaskRunContext

from models.base import Roots
from models.frame import FrameFailure
from tasks.core.cache import ByContent
from tasks.core.errors import StageError, TransientError
from tasks.core.files import is_current
from tasks.core.ledger import Made, note_made, now
from tasks.core.pool import in_pool
from tasks.core.records import products_in
from tasks.core.tools import ToolFailedError, ToolMissingError

__all__ = ["is_transient", "made", "settled"]

P = ParamSpec("P")
R = TypeVar("R")


def settled(file: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | FrameFailure:
    """Run `function` in the process pool; what would fail again in the same way comes back as a record.

    Such a record is a result like any other and may be cached: the same input is not tried again. What
    depends on the day (a service, a tool that crashed or is not there, a disk that is full) is raised and never cached.
    """
    started = time.monotonic()
    try:
        result = in_pool(function, *args, **kwargs)
    except (TransientError, ToolFailedError, ToolMissingError):
        raise
    except StageError as error:
        if error.of_the_machine or _lacked(args, kwargs):
            error.of_the_machine = True
            raise
        _note("failed", time.monotonic() - started)
        return error.record(file)
    _note("made", time.monotonic() - started)
    return result


def _lacked(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a file that a stage was given is not there as it was: when it is back, so is its key."""
    given = [*args, *kwargs.values()]
    roots = next((value for value in given if isinstance(value, Roots)), None)
    return roots is not None and not all(is_current(file, roots) for file in products_in(given))


def made(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run `function` in the process pool where no failure is data: whatever it raises is raised."""
    started = time.monotonic()
    result = in_pool(function, *args, **kwargs)
    _note("made", time.monotonic() - started)
    return result


def _note(outcome: str, seconds: float) -> None:
    """A line in the ledger for the task run that this body belongs to."""
    context, flow = TaskRunContext.get(), FlowRunContext.get()
    if context is None:
        return
    task = context.task
    policy: object = task.cache_policy
    if not isinstance(policy, ByContent):
        return
    roots = next((value for value in context.parameters.values() if isinstance(value, Roots)), None)
    if roots is None:
        return
    note_made(
        roots,
        Made(
            at=now(),
            stage=task.name.lower().replace(" ", "-"),
            what=context.task_run.name,
            key=policy.key(task.name, context.parameters),
            outcome=outcome,
            seconds=round(seconds, 3),
            run=str(flow.flow_run.id) if flow is not None and flow.flow_run is not None else "",
        ),
    )


def is_transient(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Prefect's retry condition: only what may go better the next time."""
    return isinstance(state.result(raise_on_failure=False), TransientError)
