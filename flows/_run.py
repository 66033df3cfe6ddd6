"""What every flow needs around its work, from a shell or on a worker: records, processes, signals, progress."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext

from flows._prefect import running, stopping_at_once
from flows._progress import RunProgress, artifact_key
from models.run import RunContext
from tasks.core.files import sweep
from tasks.core.ledger import read_made, size, told
from tasks.core.records import recording

__all__ = ["a_run"]

_log = logging.getLogger("ohp.run")


@contextmanager
def a_run(run: RunContext, title: str) -> Iterator[RunProgress]:
    """The body of a flow runs inside; yields its progress.

    Results are kept under the data root whoever runs the flow, what a killed run left half-written is removed,
    Ctrl-C and SIGTERM end tools and processes first, and at the end it is said what really ran.
    """
    removed = sweep(run.roots)
    if removed:
        _log.info("removed %d unfinished files of runs that were killed", len(removed))
    before = size(run.roots)
    with (
        recording(run.roots, run.refresh, run.started),
        running(run.settings.workers),
        stopping_at_once(),
        RunProgress(title, title) as progress,
    ):
        yield progress
        _say_what_ran(run, title, before)


def _say_what_ran(run: RunContext, title: str, before: int) -> None:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    entries = read_made(run.roots, before, str(context.flow_run.id))
    rows = [f"| {entry.stage} | {entry.what} | {entry.outcome} | {entry.seconds:.2f} |" for entry in entries[:500]]
    more = [f"\nand {len(entries) - 500} more, in logs/made.jsonl"] if len(entries) > 500 else []
    text = [f"**What ran:** {told(entries)}. Everything else was as recorded.", ""]
    if rows:
        text += ["| stage | what | outcome | s |", "|---|---|---|---|", *rows, *more]
    create_markdown_artifact("\n".join(text), key=artifact_key(f"ran-{title}"), description=f"{title}: what ran")
    _log.info("what ran: %s", told(entries))
