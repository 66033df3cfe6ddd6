"""Index files, plate solutions and the joint solution of a group."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task

from models.astrometry import Alignment, IndexSet
from models.base import Roots
from models.catalog import Cone, StoredCone
from models.frame import FrameFailure, FrameRecord, MeasuredFrame, SolvedFrame
from models.settings import AstrometrySettings, ScampSettings
from models.telescope import Telescope
from tasks.astrometry import align_frames, build_index, locate_frame, solve_frame
from tasks.core.cache import ByContent
from tasks.core.running import is_transient, made, settled

__all__ = ["aligned_frames", "index_of_cone", "located_frame", "solved_frame"]


@task(
    name="build index",
    task_run_name="index of {gaia.cone.ra:.3f} {gaia.cone.dec:+.3f}",
    cache_policy=ByContent(code=[build_index], tools=["build-astrometry-index"]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def index_of_cone(gaia: StoredCone, roots: Roots, telescope: Telescope) -> IndexSet:
    """Index files of the plate solver, from a Gaia cone."""
    return made(build_index, gaia, roots, telescope)


@task(
    name="locate",
    task_run_name="locate {measured.raw.night} {measured.raw.name}",
    cache_policy=ByContent(code=[locate_frame], tools=["solve-field"]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def located_frame(
    measured: MeasuredFrame,
    index: IndexSet,
    limit_s: float,
    roots: Roots,
    telescope: Telescope,
    settings: AstrometrySettings,
) -> Cone | FrameFailure:
    """Where a frame looks, from its sources and an index alone."""
    return settled(measured.raw.path, locate_frame, measured, index, limit_s, roots, telescope, settings)


@task(
    name="solve",
    task_run_name="solve {measured.raw.night} {measured.raw.name} near {hint.ra:.2f} {hint.dec:+.2f}",
    cache_policy=ByContent(code=[solve_frame], tools=["solve-field"]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def solved_frame(
    measured: MeasuredFrame,
    hint: Cone,
    index: IndexSet,
    gaia: StoredCone | None,
    roots: Roots,
    telescope: Telescope,
    settings: AstrometrySettings,
) -> SolvedFrame | FrameFailure:
    """Plate solution of a frame, searched in one field and verified against Gaia at the frame's own epoch."""
    return settled(measured.raw.path, solve_frame, measured, hint, index, gaia, roots, telescope, settings)


@task(
    name="align group",
    task_run_name="align {group}",
    cache_policy=ByContent(code=[align_frames], tools=["scamp"]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def aligned_frames(
    frames: Sequence[FrameRecord],
    gaia: StoredCone | None,
    group: str,
    roots: Roots,
    telescope: Telescope,
    settings: ScampSettings,
) -> Alignment:
    """Joint astrometric solution of a group over all filters, every `.head` verified."""
    return made(align_frames, frames, gaia, group, roots, telescope, settings)
