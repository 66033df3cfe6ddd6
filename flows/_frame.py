"""The way of one frame: its pixels, its place on the sky, its finish. Each stage a cached task.

Three passes: the first needs no catalogue and runs while the services are asked; between the second and the
third the year's colour terms are gathered from all frames. Inside a pass a failure ends the frame's way and
becomes part of its record; it never stops the others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

from prefect import task
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.callables import get_call_parameters

from flows._search import Search
from flows._sky import names_of
from flows._way import Way, as_failure, stages
from models.base import Record
from models.catalog import Catalogue, Cone, StoredCone
from models.field import Field, FieldCatalogs, Question
from models.frame import (
    CalibratedFrame,
    ColourTerm,
    FrameFailure,
    FrameRecord,
    MasterBias,
    MasterFlat,
    RawFrame,
)
from models.run import RunContext
from models.telescope import Telescope
from tasks.astrometry import installed_index
from tasks.astrometry.tasks import index_of_cone
from tasks.calibration.tasks import reduced_frame
from tasks.catalogs import photometric_reference, stored_cone, stored_cones
from tasks.catalogs.tasks import catalogue_cone
from tasks.core.cache import recall
from tasks.fields import plan_fields
from tasks.photometry.tasks import calibrated_frame
from tasks.psf.tasks import frame_psf
from tasks.quality.tasks import measured_frame
from tasks.report.tasks import published_frame

__all__ = [
    "FRAME_STAGES",
    "PlacedFrame",
    "asked_beside",
    "field_calls",
    "frame_finish",
    "frame_pixels",
    "frame_place",
    "known_field",
    "surviving_frames",
    "surviving_places",
    "surviving_records",
]


FRAME_STAGES = ("reduce and measure", "solve and calibrate", "PSF and publish")
"""The three passes."""


@task(name="frame pixels", task_run_name="pixels {raw.night} {raw.name}", persist_result=False)
def frame_pixels(raw: RawFrame, bias: MasterBias | None, flat: MasterFlat | None, run: RunContext) -> FrameRecord:
    """Reduce a frame and measure its quality."""
    way, settings = Way(raw.path, run.roots), run.settings
    with stages(run):
        reduced = way.step(reduced_frame, raw, bias, flat, run.roots, run.telescope, settings.reduction)
        measured = reduced and way.step(measured_frame, reduced, run.roots, run.telescope, settings.quality)
    return FrameRecord(raw=raw, reduced=reduced, measured=measured, failures=tuple(way.failures))


class PlacedFrame(Record):
    """A frame after its plate solution, with the PS1 cone of the field it was found in."""

    record: FrameRecord
    ps1: StoredCone | None = None
    ps1_failure: FrameFailure | None = None


@task(name="frame place", task_run_name="place {record.raw.night} {record.raw.name}", persist_result=False)
def frame_place(record: FrameRecord, fields: Sequence[FieldCatalogs], run: RunContext) -> PlacedFrame:
    """Plate solution of a measured frame, and a zero point of its own: the year's colour terms come from these."""
    if record.measured is None:
        return PlacedFrame(record=record)
    way = Way(record.raw.path, run.roots)
    calibrated, field = None, None
    with stages(run):
        search = Search(record.measured, fields, run, _catalogues_of)
        if search.solved is not None and search.field is not None:
            field = search.field
            calibrated = way.step(
                calibrated_frame, search.solved, field.ps1, run.roots, run.telescope, run.settings.photometry
            )
        elif search.failure is not None:
            way.failures.append(search.failure)
    placed = record.model_copy(
        update={
            "solved": search.solved,
            "search": tuple(search.steps),
            "calibrated": calibrated,
            "failures": record.failures + tuple(way.failures),
        }
    )
    return PlacedFrame(
        record=placed, ps1=field.ps1 if field else None, ps1_failure=field.failure("ps1") if field else None
    )


@task(
    name="frame finish",
    task_run_name="finish {placed.record.raw.night} {placed.record.raw.name}",
    persist_result=False,
)
def frame_finish(placed: PlacedFrame, terms: Sequence[ColourTerm], run: RunContext) -> FrameRecord:
    """Zero point with the colour term of the filter, PSF, and the published file."""
    record, way = placed.record, Way(placed.record.raw.path, run.roots)
    calibrated, psf = record.calibrated, None
    if record.reduced is None:
        return record
    with stages(run):
        if calibrated is not None:
            # Only its own: another filter's term is no reason to calibrate this frame again.
            mine = tuple(term for term in terms if term.filter == record.raw.filter)
            telescope = _with_terms(run.telescope, mine)
            if telescope != run.telescope:
                record = record.model_copy(update={"colour_term": mine[0]})
                calibrated = way.step(
                    calibrated_frame, calibrated.solved, placed.ps1, run.roots, telescope, run.settings.photometry
                )
        if calibrated is not None:
            calibrated = _said_why(calibrated, placed.ps1_failure, way)
            psf = way.step(frame_psf, calibrated, run.roots, run.telescope, run.settings.psf)
        record = record.model_copy(
            update={"calibrated": calibrated, "psf": psf, "failures": record.failures + tuple(way.failures)}
        )
        publishing = Way(way.file, run.roots)
        published = publishing.step(published_frame, record, run.roots)
    failures = record.failures + tuple(publishing.failures)
    return record.model_copy(update={"published": published, "failures": failures})


@functools.lru_cache(maxsize=32)
def _with_terms(telescope: Telescope, terms: tuple[ColourTerm, ...]) -> Telescope:
    """A filter's profile: one object for all its frames, which spares each of their keys a look at every band."""
    return telescope.with_colour_terms(terms)


def surviving_records(results: Sequence[Any], raws: Sequence[RawFrame], run: RunContext) -> list[FrameRecord]:
    """Records of all frames: where a task itself broke (not a stage in it), a record that says so."""
    return [
        FrameRecord(raw=raw, failures=(as_failure(result, raw.path, "frame pixels", run.roots),))
        if isinstance(result, BaseException)
        else result
        for result, raw in zip(results, raws, strict=True)
    ]


def surviving_places(results: Sequence[Any], records: Sequence[FrameRecord], run: RunContext) -> list[PlacedFrame]:
    """The same after the second pass."""
    return [
        PlacedFrame(record=_failed(record, result, "frame place", run)) if isinstance(result, BaseException) else result
        for result, record in zip(results, records, strict=True)
    ]


def surviving_frames(results: Sequence[Any], placed: Sequence[PlacedFrame], run: RunContext) -> list[FrameRecord]:
    """The same after the third."""
    return [
        _failed(before.record, result, "frame finish", run) if isinstance(result, BaseException) else result
        for result, before in zip(results, placed, strict=True)
    ]


def _failed(record: FrameRecord, error: BaseException, stage: str, run: RunContext) -> FrameRecord:
    failure = as_failure(error, record.raw.path, stage, run.roots)
    return record.model_copy(update={"failures": (*record.failures, failure)})


def _said_why(calibrated: CalibratedFrame, failure: FrameFailure | None, way: Way) -> CalibratedFrame:
    """Say why a zero point is missing; one whose catalogue will never come is not pending but failed."""
    point = calibrated.zero_point
    if point.status != "PENDING" or failure is None:
        return calibrated
    way.failures.append(failure.model_copy(update={"file": way.file}))
    status = "PENDING" if failure.pending else "FAILED"
    update = {"status": status, "reason": f"{failure.stage}: {failure.reason}"}
    return calibrated.model_copy(update={"zero_point": point.model_copy(update=update)})


def _cone(catalogue: Catalogue, cone: Cone, run: RunContext) -> StoredCone:
    """A cone from the store, without a task run; where it is not there, ask."""
    stored = stored_cone(catalogue, cone, run.roots, run.settings)
    if stored is not None:
        return stored
    result: StoredCone = recall(catalogue_cone, catalogue, cone, run.roots, run.settings)
    return result


@task(name="field", task_run_name="catalogues of {field.name}", persist_result=False)
def known_field(field: Field, run: RunContext, bands: Mapping[str, bool]) -> FieldCatalogs:
    """Ask the catalogues for a field and build its index; what could not be had is said.

    Parameters
    ----------
    bands
        Whether ``'gaia'`` and ``'ps1'`` (or what stands in for it) are needed at all.
    """
    settings = run.settings
    gaia_way, ps1_way = Way("gaia", run.roots), Way("ps1", run.roots)
    reference: Catalogue | None = None
    if bands["ps1"]:
        reference = ps1_way.step(photometric_reference, field.cone, run.roots, settings)

    def ask_reference() -> StoredCone | None:
        return ps1_way.step(_cone, reference, field.cone, run) if reference is not None else None

    with ThreadPoolExecutor(1) as beside:
        # Both at once: they are other services, and what a dead one costs shall not come twice.
        asked = beside.submit(copy_context().run, ask_reference)
        gaia = gaia_way.step(_cone, "gaia", field.cone, run) if bands["gaia"] else None
        if settings.astrometry_index_dir is not None:
            index = gaia_way.step(installed_index, settings.astrometry_index_dir)
        else:
            index = gaia_way.step(index_of_cone, gaia, run.roots, run.telescope) if gaia is not None else None
        ps1 = asked.result()
    ways: list[tuple[Catalogue | None, Way]] = [("gaia", gaia_way), (reference, ps1_way)]
    return FieldCatalogs(
        field=field,
        gaia=gaia,
        ps1=ps1,
        index=index,
        failures=tuple(gaia_way.failures + ps1_way.failures),
        unanswered=tuple(
            Question(catalogue=catalogue, cone=field.cone)
            for catalogue, way in ways
            if catalogue is not None and any(failure.pending for failure in way.failures)
        ),
    )


def _catalogues_of(field: Field, run: RunContext) -> FieldCatalogs:
    """Of a field that nobody spoke of, found by a blind search."""
    wanted = {"gaia": run.settings.astrometry.reference == "gaia", "ps1": True}
    result: FieldCatalogs = known_field.fn(field, run, wanted)
    return result


class _Asking(ThreadPoolTaskRunner[Any]):
    """Threads of their own for the catalogues' tasks, which mostly wait: those of the flow stay free for the frames."""

    def no_more(self) -> None:
        """Let the threads end when what was submitted is done."""
        if self._executor is not None:
            self._executor.shutdown(wait=False)


@contextmanager
def asked_beside() -> Iterator[Callable[..., PrefectFuture[Any]]]:
    """What submits `known_field` to threads beside the flow's own; they end with their work, nobody waits for them."""
    asking = _Asking(max_workers=2)
    asking.__enter__()
    try:
        yield lambda *call: asking.submit(known_field, get_call_parameters(known_field.fn, call, {}))
    finally:
        asking.no_more()


def field_calls(frames: Sequence[RawFrame], run: RunContext) -> list[tuple[Field, RunContext, dict[str, bool]]]:
    """Calls of `known_field` for every field the frames speak of: one question a field, not one a frame."""
    settings = run.settings
    catalogues: list[Catalogue] = ["gaia", *settings.catalogs.references]
    known = [stored.cone for catalogue in catalogues for stored in stored_cones(catalogue, run.roots)]
    names = names_of(frames, run)
    fields = plan_fields(frames, run.targets, run.telescope, settings.astrometry, settings.selection, known, names)
    filters = {frame.filter for frame in frames if frame.filter}
    calibrates = any(run.telescope.band(name).ps1 or run.telescope.band(name).continuum for name in filters)
    wanted = {"gaia": settings.astrometry.reference == "gaia", "ps1": calibrates}
    return [(field, run, wanted) for field in fields]
