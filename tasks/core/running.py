"""How a Prefect task runs a pure function: in the pool, with a permanent failure as data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from models.frame import FrameFailure
from tasks.core.errors import StageError, TransientError
from tasks.core.pool import in_pool
from tasks.core.tools import ToolFailedError, ToolMissingError

__all__ = ["is_transient", "settled"]

P = ParamSpec("P")
R = TypeVar("R")


def settled(file: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | FrameFailure:
    """Run `function` in the process pool; what would fail again in the same way comes back as a record.

    Such a record is a result like any other and may be cached: the same input is not tried again. What
    depends on the day (a service, a tool that crashed or is not there) is raised and never cached.
    """
    try:
        return in_pool(function, *args, **kwargs)
    except (TransientError, ToolFailedError, ToolMissingError):
        raise
    except StageError as error:
        return error.record(file)


def is_transient(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Prefect's retry condition: only what may go better the next time."""
    return isinstance(state.result(raise_on_failure=False), TransientError)
