"""A year reduced by the bare functions: same frames, same order, same pool of processes, no Prefect, no cache.

What `flows.reduce_year` takes longer than this is what the orchestration costs.
"""

from __future__ import annotations

import importlib
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from models.astrometry import IndexSet
from models.catalog import Cone, StoredCone
from models.field import Field as PlannedField
from models.frame import (
    CalibratedFrame,
    ColourTerm,
    FrameRecord,
    MasterBias,
    MasterFlat,
    MeasuredFrame,
    RawFrame,
    SolvedFrame,
)
from models.run import RunContext
from tasks.catalogs import find_cone
from tasks.core.errors import StageError
from tasks.core.pool import configure_pool, in_pool, stop_pool
from tasks.fields import group_frames, hinted_fields, plan_fields
from tasks.inventory import take_inventory
from tasks.photometry import gather_colour_terms
from tasks.report import write_frames, write_report, write_schemas, year_rows

__all__ = ["Field", "Prepared", "prepare", "reduce_year"]

T = TypeVar("T")


def _function(subject: str, name: str) -> Callable[..., Any]:
    """The function that the flow's task would call: the true one, or what `bench.stages` put in its place."""
    found: Callable[..., Any] = getattr(importlib.import_module(f"tasks.{subject}.tasks"), name)
    return found


class Field:
    """Catalogues and index of a place in the sky."""

    def __init__(self, gaia: StoredCone, ps1: StoredCone | None, index: IndexSet) -> None:
        self.gaia, self.ps1, self.index = gaia, ps1, index


def _masters(frames: Sequence[RawFrame], run: RunContext) -> tuple[dict[int, MasterBias], dict[Any, MasterFlat]]:
    biases: dict[int, list[RawFrame]] = defaultdict(list)
    flats: dict[tuple[int, str], list[RawFrame]] = defaultdict(list)
    for frame in frames:
        if frame.kind == "bias":
            biases[frame.binning].append(frame)
        elif frame.kind == "flat" and frame.filter is not None:
            flats[frame.binning, frame.filter].append(frame)
    bias_of, flat_of = _function("calibration", "make_master_bias"), _function("calibration", "make_master_flat")
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) + 2) as threads:
        bias = {
            key: threads.submit(in_pool, bias_of, tuple(group), run.roots, run.telescope, run.settings.bias)
            for key, group in biases.items()
        }
        made = {key: future.result() for key, future in bias.items()}
        flat = {
            key: threads.submit(
                in_pool, flat_of, tuple(group), made.get(key[0]), run.roots, run.telescope, run.settings.flat
            )
            for key, group in flats.items()
        }
        return made, {key: future.result() for key, future in flat.items()}


def _pixels(raw: RawFrame, bias: MasterBias | None, flat: MasterFlat | None, run: RunContext) -> MeasuredFrame:
    reduce, measure = _function("calibration", "reduce_frame"), _function("quality", "measure_frame")
    reduced = in_pool(reduce, raw, bias, flat, run.roots, run.telescope, run.settings.reduction)
    measured: MeasuredFrame = in_pool(measure, reduced, run.roots, run.telescope, run.settings.quality)
    return measured


def _place(
    measured: MeasuredFrame, fields: dict[str, Field], planned: Sequence[Any], run: RunContext
) -> tuple[CalibratedFrame, StoredCone | None] | None:
    solve, calibrate = _function("astrometry", "solve_frame"), _function("photometry", "calibrate_frame")
    hinted = [place for _, place in hinted_fields(measured.raw, planned, run.targets)]
    for place in hinted or planned:
        field = fields[place.name]
        hint = Cone(ra=place.cone.ra, dec=place.cone.dec, radius=run.settings.astrometry.search_radius_deg)
        try:
            solved: SolvedFrame = in_pool(
                solve, measured, hint, field.index, field.gaia, run.roots, run.telescope, run.settings.astrometry
            )
        except StageError:
            continue
        return (
            in_pool(calibrate, solved, field.ps1, run.roots, run.telescope, run.settings.photometry),
            field.ps1,
        )
    return None


def _finish(
    measured: MeasuredFrame,
    placed: tuple[CalibratedFrame, StoredCone | None] | None,
    terms: Sequence[ColourTerm],
    run: RunContext,
) -> FrameRecord:
    calibrate, model = _function("photometry", "calibrate_frame"), _function("psf", "model_psf")
    publish = _function("report", "publish_frame")
    if placed is None:
        record = FrameRecord(raw=measured.raw, measured=measured)
        return record.model_copy(update={"published": in_pool(publish, record, run.roots)})
    calibrated, ps1 = placed
    telescope = run.telescope.with_colour_terms(terms)
    if telescope != run.telescope:
        calibrated = in_pool(calibrate, calibrated.solved, ps1, run.roots, telescope, run.settings.photometry)
    try:
        psf = in_pool(model, calibrated, run.roots, run.telescope, run.settings.psf)
    except StageError:
        psf = None
    record = FrameRecord(raw=measured.raw, calibrated=calibrated, psf=psf)
    return record.model_copy(update={"published": in_pool(publish, record, run.roots)})


def _each(work: Callable[..., T], calls: Sequence[Sequence[Any]]) -> list[T]:
    """As many threads as the flow's task runner has; they wait for the pool."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) + 2) as threads:
        return list(threads.map(lambda call: work(*call), calls))


@dataclass(frozen=True)
class Prepared:
    """What has to be there before the first frame is reduced."""

    science: list[RawFrame]
    planned: tuple[PlannedField, ...]
    fields: dict[str, Field]
    bias: dict[int, MasterBias]
    flat: dict[tuple[int, str], MasterFlat]

    def masters(self, raw: RawFrame) -> tuple[MasterBias | None, MasterFlat | None]:
        """Of a frame."""
        return self.bias.get(raw.binning), self.flat.get((raw.binning, raw.filter or ""))

    def at(self, raw: RawFrame, run: RunContext) -> Field:
        """The first field that a frame's header may mean."""
        return self.fields[hinted_fields(raw, self.planned, run.targets)[0][1].name]


def prepare(year: int, run: RunContext) -> Prepared:
    """Inventory, fields with catalogues and index files, masters."""
    inventory = take_inventory(run.roots, run.telescope, [year])
    science = [frame for frame in inventory.frames if frame.kind == "science" and frame.filter is not None]
    planned = plan_fields(science, run.targets, run.telescope, run.settings.astrometry, run.settings.selection)
    build = _function("astrometry", "build_index")
    fields = {}
    for place in planned:
        gaia, ps1 = find_cone("gaia", place.cone, run.roots), find_cone("ps1", place.cone, run.roots)
        if gaia is None:
            raise RuntimeError(f"no Gaia cone of {place.name} in the store")
        fields[place.name] = Field(gaia, ps1, in_pool(build, gaia, run.roots, run.telescope))
    bias, flat = _masters(inventory.frames, run)
    return Prepared(science, tuple(planned), fields, bias, flat)


def reduce_year(year: int, run: RunContext) -> list[FrameRecord]:
    """All that `flows.reduce_year` makes: masters, calibrated frames, their reports."""
    configure_pool(run.settings.workers)
    try:
        ready = prepare(year, run)
        measured = _each(_pixels, [(raw, *ready.masters(raw), run) for raw in ready.science])
        placed = _each(_place, [(each, ready.fields, ready.planned, run) for each in measured])
        terms = gather_colour_terms([each[0] for each in placed if each is not None])
        records = _each(_finish, [(m, p, terms, run) for m, p in zip(measured, placed, strict=True)])
    finally:
        stop_pool()
    folder = run.roots.data / str(year) / run.telescope.name
    sky = group_frames(records, run.targets, run.settings.astrometry, run.settings.selection)
    rows = year_rows(records, sky.group_of, sky.notes, sky.moving)
    for kind, of_kind in rows.items():
        write_report(folder / "reports" / f"{kind}.json", kind, of_kind)
    write_frames(records, folder)
    write_schemas(run.roots.data / "schemas")
    return records
