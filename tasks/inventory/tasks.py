"""Look at the raw tree: never cached, since looking is how a change is seen (digests are remembered)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prefect import task

from models.base import Roots
from models.inventory import Inventory
from models.telescope import Telescope
from tasks.inventory import take_inventory

__all__ = ["raw_inventory"]


@task(name="inventory", task_run_name="inventory {telescope.name}", persist_result=False)
def raw_inventory(
    roots: Roots,
    telescope: Telescope,
    years: Sequence[int] | None,
    progress: Callable[[int, int], None] | None = None,
) -> Inventory:
    """Classify the raw files of some years; None: of all."""
    return take_inventory(roots, telescope, years, progress)
