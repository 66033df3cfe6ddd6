"""The compressed copy of an image, as a step of a flow."""

from __future__ import annotations

from prefect import task

from models.base import FileRef, Roots
from models.frame import FrameFailure
from models.release import CompressedImage
from models.settings import ReleaseSettings
from tasks.archive.compressed import compress_image
from tasks.core.cache import ByContent
from tasks.core.running import is_transient, settled

__all__ = ["compressed_copy"]


@task(
    name="compressed copy",
    task_run_name="{target}",
    cache_policy=ByContent(code=[compress_image]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def compressed_copy(
    source: FileRef, weight: FileRef | None, target: str, roots: Roots, settings: ReleaseSettings
) -> CompressedImage | FrameFailure:
    """The tile-compressed copy of an image."""
    return settled(target, compress_image, source, weight, target, roots, settings)
