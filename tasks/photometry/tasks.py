"""Zero points of frames."""

from __future__ import annotations

from prefect import task

from models.base import Roots
from models.catalog import StoredCone
from models.frame import CalibratedFrame, FrameFailure, SolvedFrame
from models.settings import PhotometrySettings
from models.telescope import Telescope
from tasks.core.cache import ByContent
from tasks.core.running import is_transient, settled
from tasks.photometry import calibrate_frame

__all__ = ["calibrated_frame"]


@task(
    name="calibrate",
    task_run_name="zero point {solved.raw.night} {solved.raw.name}",
    cache_policy=ByContent(code=[calibrate_frame]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def calibrated_frame(
    solved: SolvedFrame, ps1: StoredCone | None, roots: Roots, telescope: Telescope, settings: PhotometrySettings
) -> CalibratedFrame | FrameFailure:
    """Zero point of a frame against PS1."""
    return settled(solved.raw.path, calibrate_frame, solved, ps1, roots, telescope, settings)
