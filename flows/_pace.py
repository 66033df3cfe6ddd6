"""Never faster than Prefect's server can note: what it cannot keep up with is held in memory here, or lost there."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime

import httpx
from prefect import get_client
from prefect.client.schemas.sorting import TaskRunSort
from prefect.context import FlowRunContext
from prefect.events.worker import EventsWorker

__all__ = ["Pace"]

_UNSENT = 2000
_BEHIND_S = 5.0
_LOOK_EVERY_S = 5.0
_PATIENCE_S = 20.0


class Pace:
    """Of the task runs of one flow run.

    A task run sends three messages, of some 10 kB each with what belongs to it. Prefect's queue of those still to be
    sent has no end, and of those that its server has not yet stored it drops what exceeds 10 000: the task runs are
    then missing in the interface (results and cache never depend on it). Where a frame costs a second nothing ever
    waits; where all stages are trivial, the server is slower than the flow.
    """

    def __init__(self) -> None:
        self._ended: datetime | None = None
        self._looked = time.monotonic()

    def one_ended(self) -> None:
        """A task run has ended, here."""
        self._ended = datetime.now(UTC)

    def wait(self) -> None:
        """Wait while too much is unsent or the server is more than 5 s behind; after 20 s, go on all the same."""
        unsent = EventsWorker.instance()._queue
        end = time.monotonic() + _PATIENCE_S
        while unsent.qsize() > _UNSENT and time.monotonic() < end:
            time.sleep(0.05)
        if time.monotonic() - self._looked < _LOOK_EVERY_S:
            return
        # A server that does not answer now has nothing to say about the pace.
        with suppress(httpx.HTTPError):
            while self._behind() > _BEHIND_S and time.monotonic() < end:
                time.sleep(0.5)
        self._looked = time.monotonic()

    def _behind(self) -> float:
        """How long ago, when the last task run ended here, the last one that the server has noted had ended, s."""
        context = FlowRunContext.get()
        if self._ended is None or context is None or context.flow_run is None:
            return 0.0
        asked = {
            "flow_runs": {"id": {"any_": [str(context.flow_run.id)]}},
            "task_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED"]}}},
            "sort": TaskRunSort.END_TIME_DESC.value,
            "limit": 1,
        }
        with get_client(sync_client=True) as client:
            newest = client._client.post("/task_runs/filter", json=asked).json()
        if not newest or newest[0]["end_time"] is None:
            return (self._ended - context.start_time).total_seconds()
        return (self._ended - datetime.fromisoformat(newest[0]["end_time"])).total_seconds()
