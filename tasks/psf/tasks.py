"""PSF models of frames and stacks."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task

from models.base import FileRef, Roots
from models.frame import CalibratedFrame, FrameFailure, FramePsf
from models.settings import PsfSettings
from models.stack import Stack, StackPsf
from models.telescope import Telescope
from tasks.core.cache import ByContent
from tasks.core.running import is_transient, settled
from tasks.psf import mean_psf, model_psf, stack_psf

__all__ = ["frame_psf", "mean_frame_psf", "psf_of_stack"]


@task(
    name="model PSF",
    task_run_name="PSF {calibrated.raw.night} {calibrated.raw.name}",
    cache_policy=ByContent(code=[model_psf], tools=["source-extractor", "psfex"]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def frame_psf(
    calibrated: CalibratedFrame, roots: Roots, telescope: Telescope, settings: PsfSettings
) -> FramePsf | FrameFailure:
    """SExtractor's catalogue and PSFEx's model of a frame."""
    return settled(calibrated.raw.path, model_psf, calibrated, roots, telescope, settings)


@task(
    name="PSF of stack",
    task_run_name="PSF {stack.group} {stack.filter}",
    cache_policy=ByContent(code=[stack_psf], tools=["source-extractor", "psfex"]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def psf_of_stack(stack: Stack, roots: Roots, telescope: Telescope, settings: PsfSettings) -> StackPsf | FrameFailure:
    """PSF image of a stack, from the stack itself."""
    return settled(f"{stack.group}_{stack.filter}", stack_psf, stack, roots, telescope, settings)


@task(
    name="mean PSF",
    task_run_name="mean PSF {telescope.name}",
    cache_policy=ByContent(code=[mean_psf]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def mean_frame_psf(psfs: Sequence[FramePsf], roots: Roots, telescope: Telescope) -> FileRef | FrameFailure:
    """Median of all frames' PSFs."""
    return settled(f"{telescope.name}_mean_psf", mean_psf, psfs, roots, telescope)
