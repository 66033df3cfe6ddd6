"""Archives are asked one question at a time and not too often, whoever asks: threads, runs, machines.

What everybody has in common is the data root, so that is where the rules are kept: lock files and, in one of them, when
the last request ended. It needs no Prefect server and holds beside one, and on every host that shares the data root
over a file system with locks (NFS has them since version 4; local ones all do).
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.core.files import NO_LOCKS
from tasks.core.tools import StoppedError, stopping

__all__ = ["Turns", "held", "rest"]

_log = logging.getLogger("ohp.catalogs")

_LOOK_S = 0.05
_SAY_AFTER_S = 5.0

_here: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
_warned: set[str] = set()


def rest(seconds: float) -> None:
    """Sleep, unless the run is being stopped.

    Raises
    ------
    StoppedError
        As soon as it is.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0.0:
        if stopping():
            raise StoppedError("a catalogue query")
        time.sleep(min(left, 0.2))


@contextmanager
def held(path: Path) -> Iterator[int]:
    """Hold a lock file, waiting for whoever has it; a process that dies lets go of it. Yields its descriptor.

    Where the file system has no locks, it holds within this process only, which the log says once.

    Raises
    ------
    StoppedError
        If the run is stopped while it waits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    waited = _Wait(path)
    mine = _here[str(path)]
    while not mine.acquire(timeout=_LOOK_S):
        waited.on()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            while not _taken(descriptor, path):
                waited.on()
                time.sleep(_LOOK_S)
            yield descriptor
        finally:
            os.close(descriptor)
    finally:
        mine.release()


def _taken(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        if str(path.parent) not in _warned:
            _warned.add(str(path.parent))
            _log.warning("%s has no locks (%s): other processes may ask archives at the same time", path.parent, error)
    return True


class _Wait:
    """Says that it takes long, once, and ends when the run does."""

    def __init__(self, path: Path) -> None:
        self._path, self._since, self._said = path, time.monotonic(), False

    def on(self) -> None:
        if stopping():
            raise StoppedError("a catalogue query")
        if not self._said and time.monotonic() - self._since > _SAY_AFTER_S:
            self._said = True
            _log.info("waiting for another query to end (%s)", self._path.name)


class Turns:
    """Whose turn it is to ask a host.

    Parameters
    ----------
    folder
        Of the lock files, below the data root.
    interval_s
        Least time from the end of one request to a host to the beginning of the next.
    """

    def __init__(self, folder: Path, interval_s: float) -> None:
        self._folder, self._interval_s = folder, interval_s

    def _file(self, host: str, what: str) -> Path:
        return self._folder / f"{re.sub(r'[^A-Za-z0-9.-]', '_', host)}.{what}"

    @contextmanager
    def question(self, host: str) -> Iterator[None]:
        """For a whole question, which may be many requests: launch, polls, pages."""
        with held(self._file(host, "question")):
            yield

    @contextmanager
    def request(self, host: str) -> Iterator[None]:
        """For one request; begins when the interval since the last one is over.

        The time in the file is another host's clock, perhaps: one that is ahead never makes us wait longer than
        the interval.
        """
        with held(self._file(host, "request")) as descriptor:
            try:
                last = float(os.pread(descriptor, 64, 0) or b"-inf")
            except ValueError:
                last = float("-inf")
            rest(min(max(0.0, last + self._interval_s - time.time()), self._interval_s))
            try:
                yield
            finally:
                os.pwrite(descriptor, f"{time.time():020.6f}".encode(), 0)
