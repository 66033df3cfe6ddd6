"""How far a run is: a bar at the terminal, a line a stage elsewhere, a progress artifact in the interface."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from prefect import Task
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from flows import _effort as effort
from flows._pace import Pace
from flows._prefect import task_threads
from flows._tally import ProgressArtifact, Tally
from tasks.core.cache import known
from tasks.core.errors import StageError
from tasks.core.records import NOTHING

__all__ = ["Begun", "Link", "RunProgress", "Stage"]

_RELATIONS = 10_000


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


def _as_it_came(_: int, result: Any) -> Sequence[Any]:
    return (result,)


@dataclass(frozen=True)
class Link:
    """A task of a chain: under which name it is shown, and its arguments, from a piece's number and what came of it."""

    name: str
    work: Task[..., Any]
    call: Callable[[int, Any], Sequence[Any]] = _as_it_came


@dataclass
class Stage:
    """How far a stage is; called after each piece, with a note if there is one."""

    progress: Progress
    bar: TaskID
    total: int
    done: int = 0
    note: str = ""
    recorded: int = 0
    told: Callable[[], None] = lambda: None

    def __call__(self, note: str = "") -> None:
        self.done += 1
        self.note = note or self.note
        self.progress.update(self.bar, completed=self.done, note=self.note)
        self.told()

    def as_recorded(self) -> None:
        """A piece that need not be made."""
        self.total -= 1
        self.recorded += 1
        self.note = f"{self.recorded} more as recorded"
        self.progress.update(self.bar, total=max(self.total, 1), note=self.note)


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
        self._artifact = ProgressArtifact(title, key)
        self._tally: Tally | None = None

    def __enter__(self) -> RunProgress:
        self._bar.start()
        self._artifact.begin()
        return self

    def expect(self, unit: str, total: int, stages: Sequence[str], failed: int = 0) -> None:
        """Say what the run is about: so many pieces (``'frames'``), each of which goes through these stages."""
        self._tally = Tally(unit, total, stages, failed)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind is None:
            self._artifact.tell(100.0, str(self._tally or "done"), force=True)

    def _tell(self, stage: Stage, name: str) -> None:
        now = f"{name} {stage.done}/{stage.total}"
        if self._tally is None:
            self._artifact.tell(100.0 * stage.done / max(stage.total, 1), now)
        else:
            self._artifact.tell(self._tally.percent, f"{self._tally}; now {now}")

    def _note(self, name: str, number: int, result: Any) -> None:
        if self._tally is not None:
            self._tally.note(name, number, result)

    @contextmanager
    def stage(self, name: str, total: int, since: float | None = None) -> Iterator[Stage]:
        """A stage of `total` pieces; yields what is told of each."""
        started = since or time.monotonic()
        stage = Stage(self._bar, self._bar.add_task(name, total=max(total, 1), note=""), total)
        stage.told = lambda: self._tell(stage, name)
        yield stage
        note = stage.note or ("" if stage.total else "nothing to do")
        self._bar.update(stage.bar, completed=stage.total or 1, total=stage.total or 1, note=note)
        if not self._console.is_terminal:
            said = f" ({stage.note})" if stage.note else ""
            self._console.print(f"{name}: {stage.done}{said} in {time.monotonic() - started:.1f} s", highlight=False)

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
            results.append(_known(work, call))
            if results[-1] is NOTHING:
                effort.count()
                futures[(submit or work.submit)(*_as_it_is(call, submit is not None))] = len(results) - 1
        return Begun(results, futures, started)

    def end(self, name: str, begun: Begun) -> list[Any]:
        """Wait for what was begun.

        Returns
        -------
        list
            Results in the order of the calls, errors as exceptions among them.
        """
        with self.stage(name, len(begun.results), begun.started) as stage:
            for _ in range(len(begun.results) - len(begun.futures)):
                stage.as_recorded()
            for future in as_completed(list(begun.futures)):
                begun.results[begun.futures[future]] = future.result(raise_on_failure=False)
                stage()
        return begun.results

    def must_end(self, name: str, begun: Begun) -> list[Any]:
        """The same where nothing can go on without each result: the first error is raised."""
        return _all_well(self.end(name, begun))

    def each(self, name: str, work: Task[..., Any], calls: Iterable[Sequence[Any]]) -> list[Any]:
        """A task for each of its calls, a few at a time (`_in_flight`); results as `end` gives them."""
        return self.chain(list(calls), Link(name, work))[0]

    def chain(self, calls: Sequence[Sequence[Any]], *links: Link) -> list[list[Any]]:
        """Tasks that follow one another, for each call of the first: a piece never waits for the others' stages.

        A few task runs are under way at a time (`_in_flight`): what Prefect keeps of one that waits, and of its
        messages to the server, would grow with the number of frames: 336 MB per 1000 frames (`python -m bench flat`).

        Returns
        -------
        list of list
            For each link its results in the order of the calls, errors as exceptions among them.
        """
        results: list[list[Any]] = [[None] * len(calls) for _ in links]
        ready = deque((0, number, call) for number, call in enumerate(calls))
        under_way: dict[PrefectFuture[Any], tuple[int, int]] = {}
        ended: SimpleQueue[PrefectFuture[Any]] = SimpleQueue()
        pace = Pace()
        bars = [ExitStack() for _ in links]
        with ExitStack() as every:
            for bar in reversed(bars):  # so that the first stage is the first to say how it went
                every.enter_context(bar)
            stages = [
                bar.enter_context(self.stage(link.name, len(calls))) for bar, link in zip(bars, links, strict=True)
            ]

            def note(at: int, number: int, result: Any) -> None:
                results[at][number] = result
                self._note(links[at].name, number, result)
                if at + 1 < len(links):
                    ready.append((at + 1, number, links[at + 1].call(number, result)))

            def take() -> None:
                future = ended.get()
                at, number = under_way.pop(future)
                note(at, number, future.result(raise_on_failure=False))
                pace.one_ended()
                stages[at]()
                _forget_relations()

            while ready or under_way:
                if not ready or len(under_way) >= _in_flight():
                    take()
                    continue
                at, number, call = ready.popleft()
                known = _known(links[at].work, call)
                if known is not NOTHING:
                    note(at, number, known)
                    stages[at].as_recorded()
                    continue
                pace.wait()
                effort.count()
                future = links[at].work.submit(*_as_it_is(call, on_threads=False))
                under_way[future] = (at, number)
                future.add_done_callback(ended.put)
        return results

    def must_each(self, name: str, work: Task[..., Any], calls: Iterable[Sequence[Any]]) -> list[Any]:
        """The same where nothing can go on without each result: the first error is raised."""
        return _all_well(self.each(name, work, calls))


def _known(work: Task[..., Any], call: Sequence[Any]) -> Any:
    """As recorded; the error where nobody can tell: a tool is not there, or does not say its version."""
    try:
        return known(work, *call)
    except StageError as error:
        return error


def _all_well(results: list[Any]) -> list[Any]:
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def _forget_relations() -> None:
    """Which task made what, by which Prefect draws lines between task runs: let go of when they are many."""
    context = FlowRunContext.get()
    if context is not None and len(context.run_results) > _RELATIONS:
        context.run_results.clear()


def _in_flight() -> int:
    """Task runs that are submitted at a time: enough that no thread, or worker of a cluster, waits for its next."""
    context = FlowRunContext.get()
    if context is not None and isinstance(context.task_runner, ThreadPoolTaskRunner):
        return 2 * task_threads()
    return 1024
