"""Stars of a group's frames, measured while the frames are aligned: that leaves a core idle and needs no alignment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from models.frame import CalibratedFrame, FrameRecord
from models.run import RunContext
from tasks.core.errors import TransientError
from tasks.stacking import StarFluxes
from tasks.stacking.tasks import fluxes_ahead

__all__ = ["Ahead"]


class Ahead:
    """What is measured ahead of the selection, by filter; nothing unless it was begun."""

    def __init__(self) -> None:
        self._begun: dict[str, Future[dict[str, StarFluxes]]] = {}

    @classmethod
    def begin(cls, records: Sequence[FrameRecord], run: RunContext) -> Ahead:
        """Begin to measure the frames of every filter. Not on a cluster, whose workers have this process' pool not."""
        ahead = cls()
        if run.settings.dask_scheduler is not None:
            return ahead
        frames: dict[str, list[CalibratedFrame]] = defaultdict(list)
        for record in records:
            if record.calibrated is not None and record.raw.filter:
                frames[record.raw.filter].append(record.calibrated)
        threads = ThreadPoolExecutor(run.settings.workers, thread_name_prefix="ahead")
        for filter, mine in frames.items():
            ahead._begun[filter] = threads.submit(
                fluxes_ahead, tuple(mine), run.roots, run.telescope, run.settings.photometry
            )
        threads.shutdown(wait=False)
        return ahead

    def cancel(self) -> None:
        """Begin no more of it."""
        for future in self._begun.values():
            future.cancel()

    def of(self, filter: str) -> dict[str, StarFluxes] | None:
        """By the frames' labels; None: the selection has to measure for itself."""
        future = self._begun.get(filter)
        if future is None:
            return None
        try:
            return future.result()
        except TransientError:  # a worker process died with it; whatever is wrong, the selection will tell
            return None
