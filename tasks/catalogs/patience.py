"""How long a service is asked in vain before a run goes on without it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

__all__ = ["PATIENCE", "Patience"]

_GIVEN_UP_FOR_S = 600.0
"""So long is a service that was given up not asked again by the same process: much shorter than a night's run, longer
than the questions for all its fields take."""


class Patience:
    """Since when each service has given nothing but failures, in the memory of this process.

    So a dead service costs a run its patience once, not once a field. A run that is started later asks anew.

    Parameters
    ----------
    clock
        Seconds from any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._vain: dict[Hashable, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def left(self, service: Hashable, limit_s: float) -> float:
        """Seconds that a service may still be waited for; 0: it is given up for now."""
        with self._lock:
            since, last = self._vain.get(service, (0.0, 0.0))
            now = self._clock()
            if service not in self._vain or now - last > _GIVEN_UP_FOR_S:
                self._vain.pop(service, None)
                return limit_s
            return max(0.0, since + limit_s - now)

    def failed(self, service: Hashable, started: float) -> None:
        """A try that began at `started` (of the clock) was in vain."""
        with self._lock:
            since, _ = self._vain.get(service, (started, started))
            self._vain[service] = since, self._clock()

    def give_up(self, service: Hashable) -> None:
        """Its patience is at an end, such as when it asks for more than is left."""
        with self._lock:
            self._vain[service] = float("-inf"), self._clock()

    def answered(self, service: Hashable) -> None:
        """It is there: all is forgotten."""
        with self._lock:
            self._vain.pop(service, None)

    def now(self) -> float:
        """The clock."""
        return self._clock()


PATIENCE = Patience()
"""This process's."""
