"""The parts of `reduce_year`: which frames there are, their masters, the year's reports."""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from prefect.runtime import flow_run

from flows import STATUS_OK
from flows._cli import say
from flows._frame import PlacedFrame
from flows._pages import year_page
from flows._progress import RunProgress
from flows._sky import group_rows, sky_of
from flows._way import as_failure
from models.field import FieldCatalogs
from models.frame import ColourTerm, FrameFailure, FrameRecord, MasterBias, MasterFlat, RawFrame, ReducedFrame
from models.inventory import Inventory
from models.run import RunContext, RunSummary
from models.settings import Settings
from models.telescope import Telescope
from tasks.calibration.tasks import master_bias, master_flat
from tasks.core.errors import UserError
from tasks.core.files import write_json
from tasks.core.records import locked
from tasks.fields import SkyMap
from tasks.inventory import night_of, of_years, take_inventory
from tasks.inventory.tasks import raw_inventory
from tasks.photometry import gather_colour_terms
from tasks.report import read_years, write_frames, write_report, write_schemas, year_rows
from tasks.report.tasks import report_with_artifact

__all__ = [
    "Masters",
    "NoFramesError",
    "colour_terms",
    "describe_years",
    "masters_of",
    "nothing_yet",
    "one_inventory",
    "report_year",
    "run_name",
    "science_frames",
    "this_year",
    "year_inventory",
]

_FOLDERS = {
    "frame_stats": "qc",
    "astrom_report": "astrometry",
    "phot_report": "photometry",
    "psf_report": "psf",
}


_NOTES_SHOWN = 8

_whole: ContextVar[Inventory | None] = ContextVar("inventory of all years", default=None)


class NoFramesError(UserError):
    """There are no raw frames of the year."""


@contextmanager
def one_inventory(run: RunContext) -> Iterator[Inventory]:
    """Look at the raw tree once; every year that is reduced inside takes its part of that."""
    inventory = raw_inventory(run.roots, run.telescope, None)
    token = _whole.set(inventory)
    try:
        yield inventory
    finally:
        _whole.reset(token)


def this_year(run: RunContext) -> int:
    """Year of the night that began last, local noon to noon: in the morning of January 1 it is the old year."""
    return int(night_of(datetime.now(UTC), run.telescope.site)[:4])


def run_name() -> str:
    """Name of a run of `reduce_year`."""
    year = flow_run.parameters.get("year")
    return f"reduce {year or 'this year'} {flow_run.parameters.get('telescope')}"


def nothing_yet(year: int, run: RunContext, error: NoFramesError) -> RunSummary:
    """What a nightly run outside of a campaign comes to."""
    return RunSummary(
        title=f"{year} {run.telescope.name}", n_asked=0, n_made=0, figures={"raw files": f"nothing to do: {error}"}
    )


def _refuse_empty(inventory: Inventory, year: int, run: RunContext) -> None:
    if inventory.frames or inventory.unusable:
        return
    everything = take_inventory(run.roots, run.telescope)
    years = sorted({frame.year for frame in everything.frames})
    there = f"years there: {', '.join(map(str, years))}" if years else "no raw frame of that telescope is there"
    raise NoFramesError(f"no raw frames of {year} for {run.telescope.name} under {run.roots.raw}; {there}")


def year_inventory(year: int, run: RunContext, progress: RunProgress) -> Inventory:
    """The raw frames of a year.

    Raises
    ------
    NoFramesError
        If there is none; names the years there are.
    UserError
        If there is no raw tree.
    """
    if not run.roots.raw.is_dir():
        raise UserError(f"no raw frames: {run.roots.raw} is not a folder; give --raw-root (or OHP_RAW_ROOT)")
    whole = _whole.get()
    with progress.stage("inventory", 1) as advance:
        inventory = raw_inventory(run.roots, run.telescope, [year]) if whole is None else of_years(whole, [year])
        advance(f"{len(inventory.rows)} files")
    _refuse_empty(inventory, year, run)
    return inventory


def science_frames(inventory: Inventory, run: RunContext) -> tuple[list[RawFrame], list[FrameRecord]]:
    """Science frames in a known filter, and records of those whose filter the profile does not know."""
    known, unknown = [], []
    for frame in inventory.frames:
        if frame.kind != "science":
            continue
        if frame.filter is not None:
            known.append(frame)
            continue
        failure = FrameFailure(
            file=frame.path,
            stage="inventory",
            reason=f"unknown filter: {frame.why}",
            remedy=f"add the spelling to a band of the profile, telescopes/{run.telescope.name}.toml",
        )
        unknown.append(FrameRecord(raw=frame, failures=(failure,)))
    return known, unknown


@dataclass(frozen=True)
class Masters:
    """Master frames of a year by binning and filter, and why some are missing."""

    bias: dict[int, MasterBias]
    flat: dict[tuple[int, str], MasterFlat]
    failures: tuple[FrameFailure, ...]

    @property
    def left_out(self) -> tuple[FrameFailure, ...]:
        """Calibration frames that did not pass the masters' checks."""
        remedy = "none needed: the master is made without it"
        return tuple(
            FrameFailure(file=rejected.file, stage=stage, reason=rejected.reason, remedy=remedy)
            for stage, masters in (("master bias", self.bias.values()), ("master flat", self.flat.values()))
            for master in masters
            for rejected in master.rejected
        )

    def biases(self, frames: Sequence[RawFrame]) -> list[MasterBias | None]:
        """The master bias of each frame."""
        return [self.bias.get(frame.binning) for frame in frames]

    def flats(self, frames: Sequence[RawFrame]) -> list[MasterFlat | None]:
        """The master flat of each frame."""
        return [self.flat.get((frame.binning, frame.filter or "")) for frame in frames]


def masters_of(inventory: Inventory, run: RunContext, progress: RunProgress) -> Masters:
    """Master biases per binning, then master flats per binning and filter."""
    biases: dict[int, list[RawFrame]] = defaultdict(list)
    flats: dict[tuple[int, str], list[RawFrame]] = defaultdict(list)
    for frame in inventory.frames:
        if frame.kind == "bias":
            biases[frame.binning].append(frame)
        elif frame.kind == "flat" and frame.filter is not None:
            flats[frame.binning, frame.filter].append(frame)
    failures: list[FrameFailure] = []

    def kept(results: Sequence[Any], keys: Sequence[Any], what: str) -> dict[Any, Any]:
        good = {}
        for key, result in zip(keys, results, strict=True):
            if isinstance(result, BaseException):
                result = as_failure(result, f"{what} {key}", "masters", run.roots)
            if isinstance(result, FrameFailure):
                failures.append(result)
            else:
                good[key] = result
        return good

    made_biases = progress.each(
        "master bias",
        master_bias,
        [
            (tuple(frames), run.roots, run.telescope, run.settings.bias, frames[0].year, binning)
            for binning, frames in biases.items()
        ],
    )
    bias = kept(made_biases, list(biases), "bias of binning")
    made_flats = progress.each(
        "master flats",
        master_flat,
        [
            (
                tuple(frames),
                bias.get(binning),
                run.roots,
                run.telescope,
                run.settings.flat,
                frames[0].year,
                binning,
                filter,
            )
            for (binning, filter), frames in flats.items()
        ],
    )
    flat = kept(made_flats, list(flats), "flat of binning and filter")
    return Masters(bias=bias, flat=flat, failures=tuple(failures))


def colour_terms(placed: Sequence[PlacedFrame], run: RunContext) -> tuple[ColourTerm, ...]:
    """Colour term of each filter from the frames of the year; also written beside the photometry report."""
    frames = [frame.record.calibrated for frame in placed if frame.record.calibrated is not None]
    terms = gather_colour_terms(frames)
    if frames:
        folder = run.roots.data / str(frames[0].raw.year) / run.telescope.name / "photometry"
        write_json(folder / "colour_terms.json", [term.model_dump(mode="json") for term in terms])
    return terms


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _uncorrected(reduced: Sequence[ReducedFrame]) -> str:
    """How many frames had no master bias or no master flat."""
    counts = {
        "bias": sum(1 for frame in reduced if frame.bias is None),
        "flat": sum(1 for frame in reduced if frame.flat is None),
    }
    said = [f"{'all' if count == len(reduced) else count} without {kind}" for kind, count in counts.items() if count]
    return f" ({', '.join(said)})" if said else ""


def _figures(inventory: Inventory, masters: Masters, records: Sequence[FrameRecord]) -> dict[str, str]:
    kinds = Counter(row.kind for row in inventory.rows)
    reduced = [record.reduced for record in records if record.reduced]
    solved = [record.solved for record in records if record.solved]
    points = [record.calibrated.zero_point for record in records if record.calibrated]
    zero_points = [point for point in points if point.status == "OK"]
    statuses = Counter(point.status for point in points)
    set_aside = kinds["junk"] - len(inventory.unusable)
    figures = {
        "raw files": ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        + (f" ({set_aside} of them copies, tests and the like: flows.inventory says why)" if set_aside > 0 else ""),
        "masters": f"{len(masters.bias)} bias, {len(masters.flat)} flat"
        + (f" ({len(masters.left_out)} calibration frames left out)" if masters.left_out else ""),
        "reduced": f"{len(reduced)} of {len(records)} science frames" + _uncorrected(reduced),
        "plate solutions": f"{len(solved)}"
        + (f", median rms {_median([s.solution.rms_arcsec for s in solved]):.3f} arcsec" if solved else ""),
        "zero points": f"{len(zero_points)}"
        + (f", median scatter {_median([p.zp_rms for p in zero_points]):.3f} mag" if zero_points else "")
        + "".join(f"; {count} {status}" for status, count in sorted(statuses.items()) if status != "OK"),
        "PSF models": f"{sum(1 for record in records if record.psf is not None)}",
    }
    seeing = _median([record.quality.fwhm_arcsec for record in records if record.quality])
    if seeing is not None:
        figures["median seeing"] = f"{seeing:.2f} arcsec"
    return figures


def _sky_figures(sky: SkyMap, records: Sequence[FrameRecord]) -> dict[str, str]:
    """What the year's frames show, and where that is not what they say."""
    shown = Counter(sky.group_of[r.raw.label] for r in records if r.raw.label in sky.group_of)
    if not shown:
        return {}
    figures = {"groups": ", ".join(f"{name} {count}" for name, count in sorted(shown.items()))}
    said = Counter(sky.notes[r.raw.label] for r in records if r.raw.label in sky.notes)
    if said:
        lines = [f"{count} × {note}" for note, count in sorted(said.items(), key=lambda item: (-item[1], item[0]))]
        more = f"; and {len(lines) - _NOTES_SHOWN} more, in astrom_report.json" if len(lines) > _NOTES_SHOWN else ""
        figures["word against sky"] = "; ".join(lines[:_NOTES_SHOWN]) + more
    moving = Counter(sky.moving[r.raw.label] for r in records if r.raw.label in sky.moving)
    if moving:
        figures["moving targets"] = "; ".join(f"{count} frames: {why}" for why, count in sorted(moving.items()))
    return figures


def report_year(
    year: int,
    inventory: Inventory,
    masters: Masters,
    fields: Sequence[FieldCatalogs],
    records: Sequence[FrameRecord],
    run: RunContext,
    progress: RunProgress,
) -> RunSummary:
    """Write the four reports, the frames file, the schemas and the year's page; sum the year up."""
    folder = run.roots.data / str(year) / run.telescope.name
    sky = sky_of({**read_years(run.roots, run.telescope), year: tuple(records)}, run).map
    rows = year_rows(records, sky.group_of, sky.notes, sky.moving)
    files = []
    for kind, subfolder in _FOLDERS.items():
        path = folder / subfolder / f"{kind}.json"
        report_with_artifact(path, kind, rows[kind], f"{year} {run.telescope.name}")
        files.append(path.relative_to(run.roots.data).as_posix())
    write_frames(records, folder)
    groups_file = run.roots.data / "stacks" / f"{run.telescope.name}_groups_report.json"
    with locked(run.roots, "groups"):
        write_report(groups_file, "groups_report", group_rows(sky, run))
    files.append(groups_file.relative_to(run.roots.data).as_posix())
    write_schemas(run.roots.data / "schemas")
    made = [*masters.bias.values(), *masters.flat.values()]
    write_json(folder / "masters.json", [master.model_dump(mode="json") for master in made])
    other_failures = tuple(inventory.unusable) + masters.failures + masters.left_out
    failures = other_failures + tuple(failure for record in records for failure in record.failures)
    page, troubles = year_page(year, records, sky.group_of, other_failures, run, progress)
    files += [page.relative_to(run.roots.data).as_posix()] if page is not None else []
    useful = [record for record in records if record.calibrated is not None]
    return RunSummary(
        title=f"{year} {run.telescope.name}",
        n_asked=len(records),
        n_made=len(useful),
        n_pending=sum(1 for record in records if record.pending),
        unanswered=tuple(question for field in fields for question in field.unanswered),
        failures=failures + troubles,
        figures=_figures(inventory, masters, records) | _sky_figures(sky, records),
        files=tuple(files),
    )


def describe_years(args: argparse.Namespace, settings: Settings, telescope: Telescope) -> int:
    """What reducing the years would do, from the headers alone; writes nothing."""
    run = RunContext.of(telescope.name, settings)
    if not run.roots.raw.is_dir():
        raise UserError(f"no raw frames: {run.roots.raw} is not a folder; give --raw-root (or OHP_RAW_ROOT)")
    for year in args.years:
        inventory = take_inventory(run.roots, telescope, [year])
        _refuse_empty(inventory, year, run)
        say(f"{year} {telescope.name}: would make, under {run.roots.data / str(year) / telescope.name}")
        frames = inventory.frames
        for kind in ("bias", "flat", "science"):
            counts = Counter((frame.binning, frame.filter or "") for frame in frames if frame.kind == kind)
            for (binning, filter), count in sorted(counts.items()):
                product = "reduced frames" if kind == "science" else f"a master {kind}"
                say(f"  {product:<14} from {count:4d} {filter or 'unfiltered'} {kind} frames, binning {binning}")
        for failure in inventory.unusable:
            say(f"  left out: {failure.file}: {failure.reason} -> {failure.remedy}")
    return STATUS_OK
