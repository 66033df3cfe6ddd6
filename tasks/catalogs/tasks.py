"""Catalogue cones. The local store is their cache: only an answer that was understood enters it."""

from __future__ import annotations

from prefect import task

from models.base import Roots
from models.catalog import Catalogue, Cone, StoredCone
from models.settings import Settings
from tasks.catalogs import fetch_cone
from tasks.core.running import is_transient

__all__ = ["catalogue_cone"]


@task(
    name="ask catalogue",
    task_run_name="ask {catalogue} at {cone.ra:.3f} {cone.dec:+.3f}",
    tags=["catalogue"],
    retries=1,  # of the whole list of services, each of which `fetch_cone` has tried several times
    retry_delay_seconds=60,
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient,
    persist_result=False,
)
def catalogue_cone(catalogue: Catalogue, cone: Cone, roots: Roots, settings: Settings) -> StoredCone:
    """Rows of a catalogue around a field, from the store or from the services in their order."""
    return fetch_cone(catalogue, cone, roots, settings)
