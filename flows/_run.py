"""What every flow needs around its work, from a shell or on a worker: records, processes, signals, progress."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext

from flows._lost import noted
from flows._prefect import running, stopping_at_once
from flows._progress import RunProgress
from flows._tally import artifact_key
from models.base import Roots
from models.run import RunContext
from tasks.core.files import sweep
from tasks.core.ledger import read_made, size, told
from tasks.core.records import recording
from tasks.core.shown import in_markdown
from tasks.core.tools import end_orphans

__all__ = ["a_run"]

_log = logging.getLogger("ohp.run")


@contextmanager
def a_run(run: RunContext, title: str) -> Iterator[RunProgress]:
    """The body of a flow runs inside; yields its progress.

    Results are kept under the data root whoever runs the flow, what a killed run left half-written is removed,
    Ctrl-C and SIGTERM end tools and processes first, and at the end it is said what really ran.
    """
    # Prefect gives the loggers it is told of (PREFECT_LOGGING_EXTRA_LOGGERS) its handlers but not its level.
    logging.getLogger("ohp").setLevel(logging.INFO)
    removed = _swept(run.roots)
    if removed:
        _log.info("removed %d unfinished files of runs that were killed", len(removed))
    before = size(run.roots)
    with (
        noted(run.roots),
        recording(run.roots, run.refresh, run.started),
        running(run.settings.workers),
        stopping_at_once(),
        _cache_troubles() as troubles,
        RunProgress(title, title) as progress,
    ):
        yield progress
        _say_what_ran(run, title, before)
        if troubles.said:
            said = (
                f"{len(troubles.said)} results could not be recorded and will be made again next time; the first: "
                f"{troubles.said[0]}; is {run.roots.data / '.cache'} writable, the disk full?"
            )
            _log.error(said)
            print(said, file=sys.stderr, flush=True)


_SWEEP_EVERY_S = 60.0
_last_sweep: dict[Path, float] = {}


def _swept(roots: Roots) -> list[Path]:
    """Sweep, but not for each of the many flow runs of a release: it looks at every file."""
    now = time.monotonic()
    if now - _last_sweep.get(roots.data, -_SWEEP_EVERY_S) < _SWEEP_EVERY_S:
        return []
    removed = sweep(roots)
    end_orphans()
    _last_sweep[roots.data] = time.monotonic()
    return removed


class _Troubles(logging.Handler):
    """Collects what Prefect says about results that it could not record: it goes on as if nothing had happened."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "committing transaction" in text or "cache key" in text or "serializing result" in text:
            error = record.exc_info[1] if record.exc_info else None
            self.said.append(f"{type(error).__name__}: {error}" if error is not None else text)


@contextmanager
def _cache_troubles() -> Iterator[_Troubles]:
    handler, logger = _Troubles(), logging.getLogger("prefect.task_runs")
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


def _say_what_ran(run: RunContext, title: str, before: int) -> None:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    entries = read_made(run.roots, before, str(context.flow_run.id))
    rows = [
        f"| {entry.stage} | {in_markdown(entry.what)} | {entry.outcome} | {entry.seconds:.2f} |"
        for entry in entries[:500]
    ]
    more = [f"\nand {len(entries) - 500} more, in logs/made.jsonl"] if len(entries) > 500 else []
    text = [f"**What ran:** {told(entries)}. Everything else was as recorded.", ""]
    if rows:
        text += ["| stage | what | outcome | s |", "|---|---|---|---|", *rows, *more]
    create_markdown_artifact(
        "\n".join(text), key=artifact_key(f"ran-{title}"), description=f"{in_markdown(title)}: what ran"
    )
    _log.info("what ran: %s", told(entries))
