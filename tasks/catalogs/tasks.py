"""Catalogue cones. The local store is their cache: only an answer that was understood enters it."""

from __future__ import annotations

from typing import Any

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from models.base import Roots
from models.catalog import Catalogue, Cone, StoredCone
from models.settings import Settings
from tasks.catalogs import DownError, fetch_cone
from tasks.core.errors import TransientError

__all__ = ["catalogue_cone"]


def _worth_another_round(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Prefect's retry condition: a passing failure, of services that are not given up."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TransientError) and not isinstance(error, DownError)


@task(
    name="ask catalogue",
    task_run_name="ask {catalogue} at {cone.ra:.3f} {cone.dec:+.3f}",
    tags=["catalogue"],
    # Rounds of the whole list of services, each of which `fetch_cone` tries several times. All of it ends when the
    # services' patience does.
    retries=2,
    retry_delay_seconds=exponential_backoff(15),
    retry_jitter_factor=0.5,
    retry_condition_fn=_worth_another_round,
    persist_result=False,
)
def catalogue_cone(catalogue: Catalogue, cone: Cone, roots: Roots, settings: Settings) -> StoredCone:
    """Rows of a catalogue around a field, from the store or from the services in their order."""
    return fetch_cone(catalogue, cone, roots, settings)
