"""The parts of `stack_target`: which frames belong to a group, their alignment and selection, the group's reports."""

from __future__ import annotations

import argparse
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flows import STATUS_OK
from flows._ahead import Ahead
from flows._cli import say
from flows._compressed import compress_group
from flows._frame import known_field
from flows._pages import draw_group
from flows._progress import Begun, RunProgress
from flows._sky import sky_of, sky_of_run, target_named
from flows._sources import end_sources, with_sources
from flows._way import Way, as_failure
from models.astrometry import Alignment
from models.base import FileRef, Record, Roots
from models.field import FieldCatalogs
from models.frame import ColourTerm, FrameFailure, FramePsf, FrameRecord, Rejected, SolvedFrame
from models.report import PhotometryCheckRow, StackPsfRow, StackRow
from models.run import RunContext, RunSummary
from models.settings import Settings
from models.stack import Selection, Stack
from models.target import Target, target_by_object
from models.telescope import Telescope
from tasks.archive import cover_group
from tasks.astrometry.tasks import aligned_frames
from tasks.core.cache import recall
from tasks.core.errors import UserError
from tasks.core.files import is_current
from tasks.core.records import locked
from tasks.fields import field_of_target
from tasks.pages import write_group_page, write_index_page
from tasks.photometry import gather_colour_terms
from tasks.psf.tasks import mean_frame_psf
from tasks.report import read_years, stack_rows, write_schemas
from tasks.report.tasks import report_with_artifact, show_picture
from tasks.stacking import group_centre
from tasks.stacking.tasks import colour_picture, selected_frames

__all__ = [
    "STACK_REPORTS",
    "GroupFrames",
    "align",
    "describe_groups",
    "frames_of_group",
    "gather_rows",
    "group_catalogs",
    "groups_seen",
    "report_group",
    "select",
]


@dataclass(frozen=True)
class GroupFrames:
    """Frames of a group by their solved positions, and those that were meant for it and are not in it."""

    members: tuple[FrameRecord, ...]
    rejected: dict[str, tuple[Rejected, ...]] = field(default_factory=dict)
    pending: int = 0
    years: tuple[int, ...] = ()
    all_psfs: tuple[FrameRecord, ...] = ()
    colour_terms: tuple[ColourTerm, ...] = ()
    others: tuple[FrameRecord, ...] = ()

    @property
    def filters(self) -> list[str]:
        """Filters in which the group was observed."""
        return sorted({record.raw.filter for record in self.members if record.raw.filter} | set(self.rejected))


def groups_seen(run: RunContext) -> list[Target]:
    """Every group that the solved frames of any year show and that may be stacked, by name.

    No moving target's fields; a place that is not in the table only where a filter has frames enough.
    """
    years = read_years(run.roots, run.telescope)
    if not years:
        return []
    sky, selection = sky_of(years, run), run.settings.selection
    found = [group for group in sky.map.groups.values() if not group.moving or selection.moving]
    frames = Counter(
        (sky.map.group_of[record.raw.label], record.raw.filter)
        for record in sky.records
        if record.raw.label in sky.map.group_of
    )
    enough = {name for (name, _), count in frames.items() if count >= selection.min_frames}
    return [group.target for group in found if group.named_by == "table" or group.target.name in enough]


def _why_not(record: FrameRecord, target: Target, run: RunContext) -> tuple[str, bool] | None:
    """Why a frame of the group cannot be stacked, and whether that may change later; None: it can."""
    if record.solved is None:
        failure = record.failures[-1] if record.failures else None
        if failure is None:
            return "no plate solution", False
        return f"{failure.stage}: {failure.reason}", failure.pending
    if record.calibrated is None:
        return "its zero point was never asked for; run reduce_year again", False
    for what, file in _read_by_stacks(record.solved, record.psf).items():
        if not is_current(file, run.roots):
            return f"its {what} is gone or changed; run python -m flows.reduce_year {record.raw.year}", False
    return None


def _read_by_stacks(solved: SolvedFrame, psf: FramePsf | None) -> dict[str, FileRef]:
    """Files of a frame that its group's stages read. A stage that lacks one leaves the frame out, or fails."""
    found = {
        "reduced file": solved.reduced.file,
        "source table": solved.measured.sources,
        "plate solution": solved.solution.wcs,
    }
    return found | ({"catalogue for SCAMP": psf.catalogue} if psf else {})


def _of_one_binning(members: list[FrameRecord]) -> tuple[list[FrameRecord], list[tuple[FrameRecord, str]]]:
    """Frames of the commonest binning, and the others: pixels of different sizes are never mixed in a stack."""
    counts = Counter(record.raw.binning for record in members)
    if len(counts) < 2:
        return members, []
    common = counts.most_common(1)[0][0]
    unlike = [
        (
            record,
            f"binned {record.raw.binning} × {record.raw.binning}, the group's other frames {common} × {common}",
        )
        for record in members
        if record.raw.binning != common
    ]
    return [record for record in members if record.raw.binning == common], unlike


def frames_of_group(target: Target, run: RunContext) -> GroupFrames:
    """Gather a group's frames from every reduced year.

    A frame belongs to the group whose footprint it overlaps (`tasks.fields.group_frames`). Where a name said this
    group and the sky says another place, or nothing, the frame is listed with the reason.

    Raises
    ------
    UserError
        If no year was reduced, or no frame shows or names the group.
    """
    sky = sky_of_run(run)
    years, records = sky.years, sky.records
    members, others, rejected, pending = [], [], defaultdict(list), 0
    named = {word: target_by_object(word, run.targets) for word in {record.raw.object for record in records}}
    for record in records:
        label, place = record.raw.label, sky.map.group_of.get(record.raw.label)
        meant = named[record.raw.object]
        if place != target.name and not (meant is not None and meant.name == target.name and record.raw.filter):
            continue
        if record.solved is not None and place != target.name:
            others.append(record)
            said = sky.map.notes.get(label, f"OBJECT says {record.raw.object}, the sky says {place}")
            rejected[record.raw.filter or ""].append(Rejected(file=label, reason=said))
            continue
        if label in sky.map.moving and not run.settings.selection.moving:
            others.append(record)
            said = f"{sky.map.moving[label]} (--selection-moving stacks it)"
            rejected[record.raw.filter or ""].append(Rejected(file=label, reason=said))
            continue
        reason = _why_not(record, target, run)
        if reason is None:
            members.append(record)
        else:
            others.append(record)
            rejected[record.raw.filter or ""].append(Rejected(file=record.raw.label, reason=reason[0]))
            pending += reason[1]
    if not members and not rejected:
        seen = Counter(sky.map.group_of.values())
        there = ", ".join(f"{name} ({count})" for name, count in seen.most_common(8)) or "no known group"
        raise UserError(f"no frame of {target.name} in {', '.join(map(str, years))}; frames show {there}")
    members, unlike = _of_one_binning(members)
    others += [record for record, _ in unlike]
    for record, why in unlike:
        rejected[record.raw.filter or ""].append(Rejected(file=record.raw.label, reason=why))
    return GroupFrames(
        members=tuple(sorted(members, key=lambda record: (record.raw.date_obs, record.raw.path))),
        rejected={name: tuple(out) for name, out in rejected.items()},
        pending=pending,
        years=tuple(years),
        all_psfs=tuple(record for record in records if record.psf is not None),
        colour_terms=gather_colour_terms([record.calibrated for record in records if record.calibrated is not None]),
        others=tuple(others),
    )


def group_catalogs(target: Target, frames: GroupFrames, run: RunContext, progress: RunProgress) -> FieldCatalogs:
    """Gaia and PS1 around the group, from the store or the services."""
    place = field_of_target(target, run.telescope, run.settings.astrometry, run.settings.selection)
    bands = [run.telescope.band(name) for name in frames.filters if name]
    wanted = {
        "gaia": run.settings.astrometry.reference == "gaia",
        "ps1": any(band.ps1 or band.continuum for band in bands),
    }
    catalogs: FieldCatalogs = progress.must_each("catalogues", known_field, [(place, run, wanted)])[0]
    return catalogs


def align(
    target: Target, frames: GroupFrames, catalogs: FieldCatalogs, run: RunContext, progress: RunProgress
) -> tuple[Alignment, Ahead]:
    """SCAMP over all filters, or the common stars where there is no Gaia; without frames, nothing.

    Where it has to run, the frames' stars are measured meanwhile.
    """
    if not frames.members:
        return Alignment(aligned=()), Ahead()
    call = (frames.members, catalogs.gaia, target.name, run.roots, run.telescope, run.settings.scamp)
    begun = progress.begin(aligned_frames, [call])
    ahead = Ahead.begin(frames.members, run) if begun.futures else Ahead()
    try:
        alignment: Alignment = progress.must_end("align", begun)[0]
    except BaseException:
        ahead.cancel()
        raise
    return alignment, ahead


def select(
    target: Target,
    frames: GroupFrames,
    alignment: Alignment,
    ahead: Ahead,
    catalogs: FieldCatalogs,
    run: RunContext,
    progress: RunProgress,
) -> list[Selection]:
    """Scale and choose the frames of each filter."""
    filter_of: dict[str, str | None] = {record.raw.label: record.raw.filter for record in frames.members}
    centre = group_centre(alignment.aligned) if alignment.aligned and target.merged else None
    filters = [name for name in frames.filters if name]
    left_out = {
        filter: tuple(frames.rejected.get(filter, ()))
        + tuple(rejected for rejected in alignment.rejected if filter_of.get(rejected.file) == filter)
        for filter in filters
    }
    calls = [
        (
            target,
            filter,
            tuple(frame for frame in alignment.aligned if frame.frame.raw.filter == filter),
            left_out[filter],
            centre,
            catalogs.ps1 if run.telescope.band(filter).narrow else None,
            run.roots,
            run.telescope.with_colour_terms(_terms_for(filter, frames, run)),
            run.settings.photometry,
            run.settings.selection,
            ahead.of(filter),
        )
        for filter in filters
    ]
    results = progress.must_each("scale and select", selected_frames, calls)
    return [
        result
        if isinstance(result, Selection)
        else Selection(
            group=target.name,
            filter=filter,
            chosen=(),
            rejected=left_out[filter],
            status="TOO_FEW_FRAMES",
            reason=f"{result.stage}: {result.reason}",
        )
        for filter, result in zip(filters, results, strict=True)
    ]


def _terms_for(filter: str, frames: GroupFrames, run: RunContext) -> list[ColourTerm]:
    """Colour terms that have a say in a filter's scale: its own, and its continuum's."""
    wanted = {filter, run.telescope.band(filter).continuum}
    return [term for term in frames.colour_terms if term.filter in wanted]


def _stack_row(selection: Selection, result: object, combine: str) -> StackRow:
    stack = result if isinstance(result, Stack) else None
    rejected = stack.rejected if stack else selection.rejected
    if stack is not None:
        status, reason = "OK", "; ".join(stack.notes)
    elif isinstance(result, FrameFailure):
        status, reason = "FAILED", f"{result.stage}: {result.reason}"
    else:
        status, reason = selection.status, selection.reason
    return StackRow(
        group=selection.group,
        filter=selection.filter,
        file=stack.image.path if stack else None,
        n_combined=stack.n_combined if stack else 0,
        n_rejected=len(rejected),
        rejected=rejected,
        combine=stack.combine if stack else combine,
        fwhm_arcsec=stack.psf.fwhm_arcsec if stack and stack.psf else None,
        depth_5sigma=stack.depth_5sigma if stack else None,
        status=status,
        reason=reason,
        extended=stack.extended.file.path if stack and stack.extended and stack.extended.file else None,
        extended_reason=stack.extended.reason if stack and stack.extended else "",
    )


def _check_row(stack: Stack) -> PhotometryCheckRow:
    check = stack.validation
    return PhotometryCheckRow(
        group=stack.group,
        filter=stack.filter,
        validated=check.validated if check else False,
        reason=check.reason if check else "validation failed, see stack_all_report.json",
        zp_offset=check.zp_offset if check else None,
        zp_err=check.zp_err if check else None,
        zp_rms=check.zp_rms if check else None,
        n_stars=check.n_stars if check else None,
        release_offset=check.release_offset if check else None,
        release_rms=check.release_rms if check else None,
        release_n_stars=check.release_n_stars if check else None,
    )


def _psf_row(stack: Stack) -> StackPsfRow:
    psf = stack.psf
    return StackPsfRow(
        group=stack.group,
        filter=stack.filter,
        fwhm_px=psf.fwhm_px if psf else None,
        fwhm_arcsec=psf.fwhm_arcsec if psf else None,
        ee50_arcsec=psf.ee50_arcsec if psf else None,
        ee80_arcsec=psf.ee80_arcsec if psf else None,
        ellipticity=psf.ellipticity if psf else None,
        n_stars=psf.n_stars if psf else None,
        chi2=psf.chi2 if psf else None,
    )


STACK_REPORTS = "reports of stacks"
"""Lock of the reports and pages over all groups."""


def gather_rows(roots: Roots, telescope: Telescope, group: str, new: Mapping[str, Sequence[Record]]) -> None:
    """A group's rows, and the rows of all groups gathered: by one run at a time, or rows are lost."""
    with locked(roots, STACK_REPORTS):
        stack_rows(roots, telescope, group, new)


def report_group(
    target: Target,
    frames: GroupFrames,
    catalogs: FieldCatalogs,
    alignment: Alignment,
    selections: Sequence[Selection],
    finished: Sequence[object],
    listing: Begun,
    run: RunContext,
    progress: RunProgress,
) -> RunSummary:
    """Write the group's rows, the mean PSF and, when the sources are listed, the page; sum the group up."""
    chosen = [selection for selection in selections if selection.chosen]
    made = {
        selection.filter: as_failure(result, f"{target.name}_{selection.filter}", "stack", run.roots)
        if isinstance(result, BaseException)
        else result
        for selection, result in zip(chosen, finished, strict=True)
    }
    rows = [_stack_row(selection, made.get(selection.filter), run.settings.stack.combine) for selection in selections]
    stacks = [result for result in made.values() if isinstance(result, Stack)]
    failures = list(catalogs.failures)
    failures += [result for result in made.values() if isinstance(result, FrameFailure)]
    failures += [
        FrameFailure(
            file=f"{row.group}_{row.filter}",
            stage="selection",
            reason=row.reason,
            remedy="observe more, or lower --selection-min-frames",
        )
        for row in rows
        if row.status == "TOO_FEW_FRAMES"
    ]
    new: dict[str, Sequence[Record]] = {
        "stack_all_report": rows,
        "phot_check_report": [_check_row(stack) for stack in stacks],
        "stack_psf_report": [_psf_row(stack) for stack in stacks],
    }
    gather_rows(run.roots, run.telescope, target.name, new)
    for kind, kind_rows in new.items():
        folder = run.roots.data / "stacks" / target.name / run.telescope.name
        report_with_artifact(folder / f"{kind}.json", kind, kind_rows, f"{target.name} {run.telescope.name}")
    write_schemas(run.roots.data / "schemas")
    psfs = tuple(record.psf for record in frames.all_psfs if record.psf is not None)
    mean = recall(mean_frame_psf, psfs, run.roots, run.telescope) if psfs else None
    if isinstance(mean, FrameFailure):
        failures.append(mean)

    if stacks:
        recall(colour_picture, stacks, run.roots, target.name)
    left_out = [rejected for row in rows for rejected in row.rejected]
    every = [*frames.members, *frames.others]
    drawn = draw_group(target, stacks, every, left_out, catalogs, frames.colour_terms, run, progress)
    sources = end_sources(listing, target.name, run, progress)  # measured beside the drawing; the page links to it
    way = Way(f"page of {target.name}", run.roots)
    weights = [run.roots.of(stack.weight) for stack in stacks]
    way.step(cover_group, target.name, weights, run.telescope, run.roots)
    failures += compress_group(target.name, run, progress)
    shown = [*failures, sources] if isinstance(sources, FrameFailure) else failures
    page = way.step(
        write_group_page,
        target, stacks, left_out, shown, alignment.notes, run.roots, run.telescope,
        frames=drawn.frames, maps=drawn.maps, plots=drawn.plots, pictures=drawn.pictures, troubles=drawn.troubles,
    )  # fmt: skip
    for picture in drawn.every:
        path = run.roots.of(picture.file)
        # What an earlier run made is in the interface already, as the latest under its key.
        if path.stat().st_mtime >= run.started:
            show_picture(path, path.stem, picture.alt)
    with locked(run.roots, STACK_REPORTS):
        index = way.step(write_index_page, run.roots)
    failures += [*drawn.troubles, *way.failures]
    summary = RunSummary(
        title=f"{target.name} {run.telescope.name}",
        n_asked=len(rows),
        n_made=len(stacks),
        n_pending=frames.pending + sum(failure.pending for failure in failures),
        unanswered=catalogs.unanswered,
        failures=tuple(failures)
        + tuple(
            FrameFailure(file=rejected.file, stage="selection", reason=rejected.reason, remedy="see its year's reports")
            for rejected in left_out
        ),
        figures=_figures(target, frames, alignment, stacks),
        files=tuple(path.relative_to(run.roots.data).as_posix() for path in (page, index) if path is not None),
    )
    return with_sources(summary, sources)


_ALIGNED_BY = {
    "scamp": "by SCAMP against Gaia",
    "joint": "by our own fit of the season to Gaia",
    "plate": "by their plate solution",
    "common": "by common stars, without Gaia",
}


def _figures(target: Target, frames: GroupFrames, alignment: Alignment, stacks: Sequence[Stack]) -> dict[str, str]:
    figures = {"frames": f"{len(frames.members)} of {', '.join(map(str, frames.years))} show {target.name}"}
    if alignment.aligned:
        ways = Counter(frame.source for frame in alignment.aligned)
        rms = statistics.median(frame.rms_arcsec for frame in alignment.aligned)
        said = ", ".join(f"{count} {_ALIGNED_BY[source]}" for source, count in sorted(ways.items()))
        figures["aligned"] = f"{said}, median rms {rms:.3f} arcsec"
    for stack in stacks:
        parts = [f"{stack.n_combined} frames, {stack.exptime_s:.0f} s"]
        if stack.psf is not None:
            parts.append(f'seeing {stack.psf.fwhm_arcsec:.2f}"')
        if stack.depth_5sigma is not None:
            parts.append(f"5 sigma depth {stack.depth_5sigma:.2f}")
        if stack.validation is not None and stack.validation.zp_offset is not None:
            check = stack.validation
            parts.append(f"PS1 offset {check.zp_offset:+.3f} mag, rms {check.zp_rms:.3f} ({check.n_stars} stars)")
        elif stack.validation is not None:
            parts.append(stack.validation.reason)
        if stack.extended is not None and stack.extended.file is not None:
            parts.append("also for extended targets")
        figures[stack.filter] = ", ".join(parts)
    return figures


def describe_groups(args: argparse.Namespace, settings: Settings, telescope: Telescope) -> int:
    """Which frames would be stacked, by filter and year; writes nothing."""
    run = RunContext.of(telescope.name, settings)
    for group in args.groups:
        target = target_named(group, run)
        frames = frames_of_group(target, run)
        say(f"{target.name}: would stack, under {run.roots.data / 'stacks' / target.name / telescope.name}")
        for filter in frames.filters:
            years = Counter(record.raw.year for record in frames.members if record.raw.filter == filter)
            what = ", ".join(f"{count} of {year}" for year, count in sorted(years.items())) or "no frame"
            say(f"  {filter:<6} {what}")
            for rejected in frames.rejected.get(filter, ()):
                say(f"         left out {rejected.file}: {rejected.reason}")
    return STATUS_OK
