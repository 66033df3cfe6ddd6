"""The source list of a group, as a step of a flow."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task

from models.base import Roots
from models.catalog import StoredCone
from models.frame import FrameFailure
from models.settings import SourceSettings
from models.sourcelist import SourceList
from models.stack import Stack
from models.telescope import Telescope
from tasks.core.cache import ByContent
from tasks.core.running import is_transient, settled
from tasks.sourcelists import make_source_list

__all__ = ["source_list"]


@task(
    name="source list",
    task_run_name="sources of {group} in all bands",
    cache_policy=ByContent(code=[make_source_list], ignore=["group"]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def source_list(
    stacks: Sequence[Stack],
    gaia: StoredCone | None,
    ps1: StoredCone | None,
    roots: Roots,
    telescope: Telescope,
    settings: SourceSettings,
    group: str,
) -> SourceList | FrameFailure:
    """All sources of a group's stacks, measured in all bands."""
    return settled(f"{group}_cat", make_source_list, stacks, gaia, ps1, roots, telescope, settings)
