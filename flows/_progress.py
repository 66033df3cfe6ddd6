"""How far a run is: a bar at the terminal, a line a stage elsewhere, a progress artifact in the interface."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.futures import PrefectFuture, as_completed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from flows._prefect import stopping_at_once

__all__ = ["RunProgress"]

R = TypeVar("R")

_ARTIFACT_EVERY_S = 3.0


def _artifact_key(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())


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
        self._guard = stopping_at_once()
        self._guard.__enter__()
        self._bar.start()
        artifact = create_progress_artifact(0.0, key=_artifact_key(self._key), description=self._title)
        assert isinstance(artifact, UUID)  # Prefect's type covers its asynchronous form, too
        self._artifact = artifact
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._guard.__exit__(kind, error, trace)
        if kind is None:
            self._tell(100.0, "done", force=True)

    def _tell(self, percent: float, what: str, force: bool = False) -> None:
        now = time.monotonic()
        if self._artifact is not None and (force or now - self._told >= _ARTIFACT_EVERY_S):
            self._told = now
            update_progress_artifact(self._artifact, percent, description=f"{self._title}: {what}")

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Any]:
        """A stage of `total` pieces; yields a function to call after each, with a note if there is one."""
        bar = self._bar.add_task(name, total=max(total, 1), note="")
        started, done = time.monotonic(), 0

        def advance(note: str = "") -> None:
            nonlocal done
            done += 1
            self._bar.advance(bar)
            if note:
                self._bar.update(bar, note=note)
            self._tell(100.0 * done / max(total, 1), f"{name} {done}/{total}")

        yield advance
        if total == 0:
            self._bar.update(bar, completed=1, note="nothing to do")
        if not self._console.is_terminal:
            self._console.print(f"{name}: {done} in {time.monotonic() - started:.1f} s", highlight=False)

    def collect(self, name: str, futures: Iterable[PrefectFuture[Any]]) -> list[Any]:
        """Results in the order given, errors as exceptions among them."""
        waiting = list(futures)
        with self.stage(name, len(waiting)) as advance:
            for _ in as_completed(waiting):
                advance()
        return [future.result(raise_on_failure=False) for future in waiting]

    def must_all(self, name: str, futures: Iterable[PrefectFuture[R]]) -> list[R]:
        """The same where nothing can go on without each result: the first error is raised."""
        results = self.collect(name, futures)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def must(self, name: str, future: PrefectFuture[R]) -> R:
        """The same for a single piece."""
        return self.must_all(name, [future])[0]
