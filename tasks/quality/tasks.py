"""Quality and sources of reduced frames."""

from __future__ import annotations

from prefect import task

from models.base import Roots
from models.frame import FrameFailure, MeasuredFrame, ReducedFrame
from models.settings import QualitySettings
from models.telescope import Telescope
from tasks.core.cache import ByContent
from tasks.core.running import is_transient, settled
from tasks.quality import measure_frame

__all__ = ["measured_frame"]


@task(
    name="measure",
    task_run_name="measure {reduced.raw.night} {reduced.raw.name}",
    cache_policy=ByContent(code=[measure_frame]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def measured_frame(
    reduced: ReducedFrame, roots: Roots, telescope: Telescope, settings: QualitySettings
) -> MeasuredFrame | FrameFailure:
    """Seeing, sky, elongation, flags and the list of sources."""
    return settled(reduced.raw.path, measure_frame, reduced, roots, telescope, settings)
