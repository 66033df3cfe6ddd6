"""The parts of `build_release`: which years and groups there are, and what became of each."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prefect.client.schemas.objects import State

from flows import STATUS_FAILED, STATUS_OK, STATUS_PENDING
from flows._cli import say
from flows._compressed import compress_release
from flows._group import STACK_REPORTS, describe_groups, groups_seen
from flows._pages import year_pages
from flows._parts import Part
from flows._tally import ProgressArtifact, Tally
from flows._untouched import besides
from flows._way import Way, as_failure
from flows._year import describe_years
from models.frame import FrameFailure
from models.inventory import Inventory
from models.release import COMPRESSED
from models.run import RunContext, RunSummary
from models.settings import Settings
from models.telescope import Telescope
from tasks.archive import complete_release, write_sky
from tasks.core.errors import StageError, UserError
from tasks.core.records import locked
from tasks.core.unchanged import unless_unchanged
from tasks.inventory import take_inventory
from tasks.pages import write_index_page
from tasks.report import write_release, write_schemas

__all__ = ["ReleaseProgress", "describe_release", "exit_status", "part", "release_summary", "years_of"]

Piece = TypeVar("Piece")


class ReleaseProgress:
    """How far a release is: years, then groups, done, failed, pending; each has a progress artifact of its own."""

    def __init__(self, telescope: str) -> None:
        title = f"release {telescope}"
        self._artifact = ProgressArtifact(title, title)
        self._artifact.begin()
        self._tally: Tally | None = None
        self._told: list[str] = []
        self._number = 0

    def each(self, pieces: Sequence[Piece], unit: str) -> Iterator[Piece]:
        """The pieces one by one."""
        if self._tally is not None:
            self._told.append(str(self._tally))
        self._tally, self._number = Tally(unit, len(pieces), (unit,)), -1
        for self._number, piece in enumerate(pieces):
            yield piece

    def after(self, done: Part) -> Part:
        """A piece has ended."""
        if self._tally is not None:
            outcome = done.failure
            if outcome is None and done.pending:
                outcome = FrameFailure(file=done.name, stage=done.stage, reason="", remedy="", pending=True)
            self._tally.note(self._tally.unit, self._number, outcome)
            self._artifact.tell(self._percent, self._words, force=True)
        return done

    @property
    def _percent(self) -> float:
        share = self._tally.percent if self._tally is not None else 0.0
        return share / 2 + (50.0 if self._told else 0.0)

    @property
    def _words(self) -> str:
        return "; ".join([*self._told, str(self._tally or "nothing to do")])

    def end(self) -> None:
        """All is done."""
        self._artifact.tell(100.0, self._words, force=True)


def years_of(inventory: Inventory, run: RunContext) -> list[int]:
    """Years of the usable raw frames.

    Raises
    ------
    UserError
        If there are none.
    """
    years = sorted({frame.year for frame in inventory.frames})
    if not years:
        raise UserError(f"no raw frames of {run.telescope.name} under {run.roots.raw}; give --raw-root or OHP_RAW_ROOT")
    return years


def part(name: str, stage: str, run: RunContext, work: Callable[[], State[Any]]) -> Part:
    """Run a year or a group; whatever happens to it, the others have their turn.

    Raises
    ------
    StoppedError
        If the run is being stopped.
    """
    outcome = work().result(raise_on_failure=False)
    if isinstance(outcome, RunSummary):
        return Part(name, stage, outcome)
    if isinstance(outcome, UserError):
        again = f"python -m flows.{stage.replace('-', '_')} {name} says more"
        return Part(name, stage, FrameFailure(file=name, stage=stage, reason=str(outcome), remedy=again))
    error = outcome if isinstance(outcome, BaseException) else RuntimeError(f"{stage} gave no summary")
    return Part(name, stage, as_failure(error, name, stage, run.roots))


def _looked_at(run: RunContext) -> list[Path]:
    """All that the release's tables, coverage and digests are made of."""
    data = run.roots.data
    found = [
        *(data / "stacks").rglob("*"),
        *(data / COMPRESSED).rglob("*"),
        *data.glob(f"[0-9]*/{run.telescope.name}/**/*"),
    ]
    return [path for path in found if path.is_file()]


def _tables_and_provenance(run: RunContext) -> tuple[Path, ...]:
    """Tables, ObsCore, MOCs, and every product's digest and provenance; what people look for first."""
    obscore, *maps = write_sky(run.roots, run.telescope)
    page, *tables = write_release(run.roots, run.telescope, run.targets)
    write_index_page(run.roots)  # it links to all of them, and its digest is in the next
    index, *others = complete_release(run.roots, run.telescope, run.settings)
    return (page, index, obscore, *maps, *others, *(each for each in tables if each != index))


def release_summary(parts: Sequence[Part], run: RunContext) -> RunSummary:
    """The index page over all groups, the release's tables, and the release in numbers."""
    failures = [each.failure for each in parts if each.failure is not None]
    files: tuple[Path, ...] = ()
    with locked(run.roots, STACK_REPORTS):
        write_schemas(run.roots.data / "schemas")
        years = {int(each.name): each.outcome for each in parts if each.stage == "reduce-year"}
        of_years = {year: told.failures for year, told in years.items() if isinstance(told, RunSummary)}
        way = Way("pages", run.roots)
        failures += way.step(year_pages, of_years, run) or []
        index = way.step(write_index_page, run.roots)
        failures += [*way.failures, *compress_release(run)]
        try:  # last: it holds the digests of all the others
            name = f"release_{run.telescope.name}"
            files = unless_unchanged(
                run.roots, name, lambda: _looked_at(run), besides(run), lambda: _tables_and_provenance(run)
            )[:3]
        except StageError as error:
            failures.append(error.record("release tables"))
        files = (*((index,) if index is not None else ()), *files)
    return RunSummary(
        title=f"release {run.telescope.name}",
        n_asked=len(parts),
        n_made=sum(each.failure is None for each in parts),
        n_pending=sum(each.pending for each in parts),
        failures=tuple(failures),
        figures={each.name: each.told for each in parts},
        files=tuple(file.relative_to(run.roots.data).as_posix() for file in files),
    )


def exit_status(summary: RunSummary) -> int:
    """Failed where a year or group is missing, although the others were made."""
    if summary.failures:
        return STATUS_FAILED
    return STATUS_PENDING if summary.n_pending else STATUS_OK


def describe_release(args: argparse.Namespace, settings: Settings, telescope: Telescope) -> int:
    """What building the release would do, as far as it is known before the frames are solved; writes nothing."""
    run = RunContext.of(telescope.name, settings)
    years = years_of(take_inventory(run.roots, telescope), run)
    status = describe_years(argparse.Namespace(years=years), settings, telescope)
    groups = groups_seen(run)
    if not groups:
        say("groups: not known before the frames are solved")
        return status
    return max(
        status, describe_groups(argparse.Namespace(groups=[group.name for group in groups]), settings, telescope)
    )
