"""How flows run: threads that hand work to processes, a final state that tells, exit statuses."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import State, StateType
from prefect.task_runners import ThreadPoolTaskRunner

from flows import STATUS_FAILED, STATUS_OK, STATUS_PENDING
from flows._prefect import at_the_shell, drain, task_threads
from flows._summary import print_summary
from models.run import RunSummary
from models.settings import Settings
from tasks.core.errors import UserError

__all__ = ["finish", "run_all", "run_once", "task_runner"]


def task_runner() -> Any:  # Prefect's own annotations of runner and flow do not fit each other
    """Threads: they only wait for the pool's processes and for tools (measured in prefect.md).

    With ``OHP_DASK_SCHEDULER`` the workers of that Dask scheduler do the work instead (docs/deployment.md).

    Raises
    ------
    UserError
        If a scheduler is named and prefect-dask is not installed.
    """
    address = os.environ.get("OHP_DASK_SCHEDULER")
    if not address:
        return ThreadPoolTaskRunner(max_workers=task_threads())
    try:
        from prefect_dask import DaskTaskRunner
    except ModuleNotFoundError as error:
        raise UserError(
            f"OHP_DASK_SCHEDULER={address}, but {error.name} is not installed; scripts/setup --cluster installs it"
        ) from error
    return DaskTaskRunner(address=address)


def finish(summary: RunSummary) -> State[RunSummary]:
    """Final state of a flow: failed only when nothing useful is left; what was left out is in its message."""
    left_out = f"{summary.n_made} of {summary.n_asked} made, {len(summary.failures)} problems"
    if not summary.n_asked:
        left_out = next(iter(summary.figures.values()), "nothing to do")
    if summary.failed and summary.n_asked:
        return State(type=StateType.FAILED, name="Failed", message=left_out, data=summary)
    left_over = "Pending" if summary.n_pending else "Errors" if summary.failures else ""
    name = f"CompletedWith{left_over}" if left_over else "Completed"
    return State(type=StateType.COMPLETED, name=name, message=left_out, data=summary)


def run_once(flow: Flow[..., Any], arguments: Sequence[Any], settings: Settings) -> RunSummary:
    """Run a flow from the shell, print what came of it."""
    with at_the_shell(settings.workers):
        run: Callable[..., State[Any]] = flow
        state = run(*arguments, return_state=True)
        summary = state.result(raise_on_failure=False)
        if not isinstance(summary, RunSummary):
            raise summary if isinstance(summary, BaseException) else RuntimeError(state.message or state.name)
        print_summary(summary, settings.roots)
        if state.state_details.flow_run_id is not None:
            drain(state.state_details.flow_run_id)
    return summary


def run_all(flow: Flow[..., Any], calls: Sequence[tuple[Any, ...]], settings: Settings) -> int:
    """Run a flow for each of its calls, return the exit status."""
    with at_the_shell(settings.workers):
        summaries = [run_once(flow, call, settings) for call in calls]
    if any(summary.failed for summary in summaries):
        return STATUS_FAILED
    return STATUS_PENDING if any(summary.n_pending for summary in summaries) else STATUS_OK
