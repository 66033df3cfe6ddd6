"""How far a run is: a bar at the terminal, a line a stage elsewhere, a progress artifact in the interface."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from uuid import UUID

from prefect import Task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tasks.core.cache import known
from tasks.core.errors import StageError
from tasks.core.records import NOTHING

__all__ = ["Begun", "RunProgress", "artifact_key"]

_ARTIFACT_EVERY_S = 3.0


def artifact_key(text: str) -> str:
    """An artifact's key: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())


@dataclass(frozen=True)
class Begun:
    """Calls of a task that were begun: results that are known already, and futures of the others by their place."""

    results: list[Any]
    futures: dict[PrefectFuture[Any], int]
    started: float


def _as_it_is(call: Sequence[Any], on_threads: bool) -> Sequence[Any]:
    """Arguments in which Prefect looks for no futures; prefect-dask 0.3.7 would hand the quotes on to the task."""
    context = FlowRunContext.get()
    if on_threads or (context is not None and isinstance(context.task_runner, ThreadPoolTaskRunner)):
        return [quote(argument) for argument in call]
    return call


class RunProgress:
    """Progress of one flow run over its stages.

    Parameters
    ----------
    title
        Shown with the artifact, such as ``'reduce 2025 T120'``.
    key
        The artifact's key (folded to lower case, digits and dashes).
    """

    def __init__(self, title: str, key: str) -> None:
        self._title, self._key = title, key
        self._console = Console(file=sys.stderr)
        self._bar = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._artifact: UUID | None = None
        self._told = 0.0

    def __enter__(self) -> RunProgress:
        self._bar.start()
        artifact = create_progress_artifact(0.0, key=artifact_key(self._key), description=self._title)
        assert isinstance(artifact, UUID)  # Prefect's type covers its asynchronous form, too
        self._artifact = artifact
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind is None:
            self._tell(100.0, "done", force=True)

    def _tell(self, percent: float, what: str, force: bool = False) -> None:
        now = time.monotonic()
        if self._artifact is not None and (force or now - self._told >= _ARTIFACT_EVERY_S):
            self._told = now
            update_progress_artifact(self._artifact, percent, description=f"{self._title}: {what}")

    @contextmanager
    def stage(self, name: str, total: int, note: str = "", since: float | None = None) -> Iterator[Any]:
        """A stage of `total` pieces; yields a function to call after each, with a note if there is one."""
        bar = self._bar.add_task(name, total=max(total, 1), note=note)
        started, done = since or time.monotonic(), 0

        def advance(note: str = "") -> None:
            nonlocal done
            done += 1
            self._bar.advance(bar)
            if note:
                self._bar.update(bar, note=note)
            self._tell(100.0 * done / max(total, 1), f"{name} {done}/{total}")

        yield advance
        if total == 0:
            self._bar.update(bar, completed=1, note=note or "nothing to do")
        if not self._console.is_terminal:
            said = f" ({note})" if note else ""
            self._console.print(f"{name}: {done}{said} in {time.monotonic() - started:.1f} s", highlight=False)

    def begin(
        self,
        work: Task[..., Any],
        calls: Iterable[Sequence[Any]],
        submit: Callable[..., PrefectFuture[Any]] | None = None,
    ) -> Begun:
        """A task for each of its calls: looked up where all of it is on record, submitted (`submit`) where not."""
        started = time.monotonic()
        results: list[Any] = []
        futures: dict[PrefectFuture[Any], int] = {}
        for call in calls:
            try:
                results.append(known(work, *call))
            except StageError as error:  # a tool that is not there, or does not tell its version
                results.append(error)
            if results[-1] is NOTHING:
                futures[(submit or work.submit)(*_as_it_is(call, submit is not None))] = len(results) - 1
        return Begun(results, futures, started)

    def end(self, name: str, begun: Begun) -> list[Any]:
        """Wait for what was begun.

        Returns
        -------
        list
            Results in the order of the calls, errors as exceptions among them.
        """
        as_recorded = len(begun.results) - len(begun.futures)
        note = f"{as_recorded} more as recorded" if as_recorded else ""
        with self.stage(name, len(begun.futures), note, begun.started) as advance:
            for future in as_completed(list(begun.futures)):
                begun.results[begun.futures[future]] = future.result(raise_on_failure=False)
                advance()
        return begun.results

    def must_end(self, name: str, begun: Begun) -> list[Any]:
        """The same where nothing can go on without each result: the first error is raised."""
        results = self.end(name, begun)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def each(self, name: str, work: Task[..., Any], calls: Iterable[Sequence[Any]]) -> list[Any]:
        """Begin, and wait for the end."""
        return self.end(name, self.begin(work, calls))

    def must_each(self, name: str, work: Task[..., Any], calls: Iterable[Sequence[Any]]) -> list[Any]:
        """The same where nothing can go on without each result: the first error is raised."""
        return self.must_end(name, self.begin(work, calls))
