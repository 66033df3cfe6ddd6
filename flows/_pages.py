"""The pages of a group and of a year: their pictures drawn where they changed, then the page itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prefect import task

from flows._progress import RunProgress
from flows._sky import sky_of_run
from flows._way import Way, as_failure, stages
from models.base import Record
from models.field import FieldCatalogs
from models.frame import ColourTerm, FrameFailure, FrameRecord, Rejected
from models.page import GroupPictures, PageFrame, Picture, StackPictures, StackPlots
from models.run import RunContext
from models.stack import Stack
from models.target import Target
from tasks.core.cache import recorded
from tasks.core.records import NOTHING, recording
from tasks.pages import group_frames, page_frame, write_year_page
from tasks.pages.tasks import maps_of_stack, night_timeline, pictures_of_group, stack_plots
from tasks.report import read_years
from tasks.report.tasks import show_picture

__all__ = ["DrawnGroup", "draw_group", "year_page", "year_pages"]


class DrawnStack(Record):
    """The pictures of one stack; what could not be drawn."""

    maps: StackPictures | None
    plots: StackPlots | None
    failures: tuple[FrameFailure, ...] = ()


_NO_PICTURES = GroupPictures(colour=None)


@dataclass(frozen=True)
class DrawnGroup:
    """All that a group's page shows besides numbers."""

    frames: tuple[PageFrame, ...]
    maps: dict[str, StackPictures] = field(default_factory=dict)
    plots: dict[str, StackPlots] = field(default_factory=dict)
    pictures: GroupPictures = _NO_PICTURES
    troubles: tuple[FrameFailure, ...] = ()

    @property
    def every(self) -> Iterator[Picture]:
        """Each picture but the index's small one."""
        records: list[Record] = [self.pictures, *self.maps.values(), *self.plots.values()]
        for record in records:
            for name, value in record:
                if isinstance(value, Picture) and name != "thumbnail":
                    yield value


@task(name="pictures", task_run_name="pictures of {stack.group} {stack.filter}", persist_result=False)
def draw_stack(
    stack: Stack, catalogs: FieldCatalogs, terms: Sequence[ColourTerm], epoch: float, run: RunContext
) -> DrawnStack:
    """A stack's maps and plots."""
    way = Way(f"{stack.group}_{stack.filter}", run.roots)
    telescope = run.telescope.with_colour_terms([term for term in terms if term.filter == stack.filter])
    with stages(run):
        maps = way.step(maps_of_stack, stack, run.roots)
        plots = way.step(
            stack_plots, stack, catalogs.ps1, catalogs.gaia, epoch, run.roots, telescope, run.settings.validation
        )
    return DrawnStack(maps=maps, plots=plots, failures=tuple(way.failures))


def _epoch(stack: Stack, records: Mapping[str, FrameRecord]) -> float:
    """Mean of the frames' mid-exposures, by exposure time, as a Julian year."""
    raws = [records[name].raw for name in stack.inputs if name in records]
    total = sum(raw.exptime for raw in raws)
    if total <= 0.0:
        return 2016.0
    return round(sum(raw.exptime * raw.mid_exposure_jyear for raw in raws) / total, 4)


def _faint(stack: Stack) -> Stack:
    """The stack with the image that keeps a galaxy's faint light, where there is one."""
    file = stack.extended.file if stack.extended is not None else None
    return stack if file is None else stack.model_copy(update={"image": file})


def draw_group(
    target: Target,
    stacks: Sequence[Stack],
    records: Sequence[FrameRecord],
    left_out: Sequence[Rejected],
    catalogs: FieldCatalogs,
    terms: Sequence[ColourTerm],
    run: RunContext,
    progress: RunProgress,
) -> DrawnGroup:
    """Draw what a group's page shows; what could not be drawn costs nothing else."""
    used = {name for stack in stacks for name in stack.inputs}
    frames = group_frames(records, used, left_out, target.name)
    if not stacks:
        return DrawnGroup(frames)
    of = {record.raw.label: record for record in records}
    calls = [(stack, catalogs, terms, _epoch(stack, of), run) for stack in stacks]
    drawn = [
        DrawnStack(maps=None, plots=None, failures=(as_failure(each, target.name, "pictures", run.roots),))
        if isinstance(each, BaseException)
        else each
        for each in progress.each("pictures", draw_stack, calls)
    ]
    way = Way(target.name, run.roots)
    continuum = {band.name: band.continuum for band in run.telescope.bands if band.narrow}
    # One scale for all channels: a default stack beside one for extended targets would colour the sky.
    whole = all(stack.extended is not None and stack.extended.file is not None for stack in stacks)
    shown = tuple(_faint(stack) if whole else stack for stack in stacks)
    pictures = way.step(pictures_of_group, shown, frames, continuum, run.roots, target.name)
    pairs = list(zip(stacks, drawn, strict=True))
    return DrawnGroup(
        frames=frames,
        maps={stack.filter: each.maps for stack, each in pairs if each.maps is not None},
        plots={stack.filter: each.plots for stack, each in pairs if each.plots is not None},
        pictures=pictures or _NO_PICTURES,
        troubles=tuple(failure for each in drawn for failure in each.failures) + tuple(way.failures),
    )


def _nights(frames: Sequence[PageFrame]) -> dict[str, tuple[PageFrame, ...]]:
    ordered = sorted(frames, key=lambda frame: (frame.night, frame.mjd, frame.label))
    return {
        night: tuple(frame for frame in ordered if frame.night == night)
        for night in sorted({frame.night for frame in ordered})
    }


def _written(
    year: int,
    frames: Sequence[PageFrame],
    results: Mapping[str, object],
    failures: Sequence[FrameFailure],
    run: RunContext,
) -> tuple[Path | None, tuple[FrameFailure, ...]]:
    """The page, None if it could not be written; and what could not be drawn or written."""
    plots = {night: result for night, result in results.items() if isinstance(result, Picture)}
    troubles = [
        as_failure(result, night, "timeline", run.roots) if isinstance(result, BaseException) else result
        for night, result in results.items()
        if isinstance(result, BaseException | FrameFailure)
    ]
    way = Way(f"page of {year}", run.roots)
    page = way.step(write_year_page, year, frames, plots, failures, run.roots, run.telescope, troubles)
    return page, (*troubles, *way.failures)


def _undrawn(night: str, year: int) -> FrameFailure:
    again = f"run python -m flows.reduce_year {year}"
    return FrameFailure(file=night, stage="timeline", reason="it is not on record", remedy=again)


def year_page(
    year: int,
    records: Sequence[FrameRecord],
    group_of: Mapping[str, str],
    failures: Sequence[FrameFailure],
    run: RunContext,
    progress: RunProgress,
) -> tuple[Path | None, tuple[FrameFailure, ...]]:
    """Timelines of a year's nights, and its page; what of them could not be made.

    Parameters
    ----------
    records
        Every science frame.
    group_of
        What each frame shows, by its label.
    failures
        Of what is no science frame.
    """
    frames = [page_frame(record, group=group_of.get(record.raw.label, "")) for record in records]
    nights = _nights(frames)
    calls = [(night, mine, run.telescope.name, run.roots) for night, mine in nights.items()]
    results = progress.each("timelines", night_timeline, calls)
    for night, result in zip(nights, results, strict=True):
        if isinstance(result, Picture) and run.roots.of(result.file).stat().st_mtime >= run.started:
            show_picture(run.roots.of(result.file), f"timeline {night} {run.telescope.name}", result.alt)
    return _written(year, frames, dict(zip(nights, results, strict=True)), failures, run)


def year_pages(failures: Mapping[int, Sequence[FrameFailure]], run: RunContext) -> list[FrameFailure]:
    """Write the pages of years anew when all groups are made, since they link to the groups' pages.

    What could not be made is returned.

    Parameters
    ----------
    failures
        Of each year, as its run told them.
    """
    years = read_years(run.roots, run.telescope)
    wanted = {year: years[year] for year in failures if year in years}
    if not wanted:
        return []
    group_of = sky_of_run(run).map.group_of
    troubles: list[FrameFailure] = []
    for year, records in wanted.items():
        frames = [page_frame(record, group=group_of.get(record.raw.label, "")) for record in records]
        of_frames = {failure for record in records for failure in record.failures}
        others = [failure for failure in failures[year] if failure not in of_frames]
        results: dict[str, object] = {}
        with recording(run.roots, run.refresh, run.started):
            for night, mine in _nights(frames).items():
                made = recorded(night_timeline, night, mine, run.telescope.name, run.roots)
                results[night] = made if made is not NOTHING else _undrawn(night, year)
        troubles += _written(year, frames, results, others, run)[1]
    return troubles
