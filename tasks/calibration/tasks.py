"""Masters and reduced frames: cached by the contents of what goes in."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task

from models.base import Roots
from models.frame import FrameFailure, MasterBias, MasterFlat, RawFrame, ReducedFrame
from models.settings import BiasSettings, FlatSettings, ReductionSettings
from models.telescope import Telescope
from tasks.calibration import make_master_bias, make_master_flat, reduce_frame
from tasks.core.cache import ByContent
from tasks.core.running import is_transient, settled

__all__ = ["master_bias", "master_flat", "reduced_frame"]


@task(
    name="master bias",
    task_run_name="master bias {year} {binning}x{binning}",
    cache_policy=ByContent(code=[make_master_bias], ignore=["year", "binning"]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def master_bias(
    frames: Sequence[RawFrame], roots: Roots, telescope: Telescope, settings: BiasSettings, year: int, binning: int
) -> MasterBias | FrameFailure:
    """The master bias of a year and binning."""
    return settled(f"bias {year} {binning}x{binning}", make_master_bias, frames, roots, telescope, settings)


@task(
    name="master flat",
    task_run_name="master flat {year} {filter} {binning}x{binning}",
    cache_policy=ByContent(code=[make_master_flat], ignore=["year", "binning", "filter"]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def master_flat(
    frames: Sequence[RawFrame],
    bias: MasterBias | None,
    roots: Roots,
    telescope: Telescope,
    settings: FlatSettings,
    year: int,
    binning: int,
    filter: str,
) -> MasterFlat | FrameFailure:
    """The master flat of a year, filter and binning."""
    file = f"flat {year} {filter} {binning}x{binning}"
    return settled(file, make_master_flat, frames, bias, roots, telescope, settings)


@task(
    name="reduce",
    task_run_name="reduce {raw.night} {raw.name}",
    cache_policy=ByContent(code=[reduce_frame]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def reduced_frame(
    raw: RawFrame,
    bias: MasterBias | None,
    flat: MasterFlat | None,
    roots: Roots,
    telescope: Telescope,
    settings: ReductionSettings,
) -> ReducedFrame | FrameFailure:
    """Science, mask and variance of a frame."""
    return settled(raw.path, reduce_frame, raw, bias, flat, roots, telescope, settings)
