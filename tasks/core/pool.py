"""CPU work in Python goes to one pool of processes; Prefect's threads only hand it over and wait.

Measured (prefect.md): 39 ms a frame this way against 64 ms on threads (the GIL) and 209 ms with
Prefect's own process runner.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, ParamSpec, TypeVar

from tasks.core.errors import StageError, TransientError, blame
from tasks.core.files import remove_unfinished
from tasks.core.tools import StoppedError, end_orphans, stop_tools, stopping

__all__ = ["configure_pool", "in_pool", "stop_pool", "work_here"]

P = ParamSpec("P")
R = TypeVar("R")

_PRELOADED = ("tasks.calibration", "tasks.quality", "tasks.astrometry")
"""Imported once, before the workers are forked, instead of by each of them.

Only what leaves Matplotlib alone, which would look for its settings before the run has said where they are.
"""

_lock = threading.RLock()  # a signal handler may come while it is held
_pool: ProcessPoolExecutor | None = None
_workers = 1
_alone = False


def _end_worker(_signal: int, _frame: object) -> None:
    stop_tools()
    remove_unfinished()
    os._exit(1)


def _start_worker() -> None:
    # Ctrl-C is the flow's to handle; SIGTERM comes from it, or from the kernel when it was killed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_worker)
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    threading.Thread(target=_end_with_flow, daemon=True).start()


def _end_with_flow() -> None:
    """End when the process that made the pool is gone: a worker's own parent is the fork server, which lives on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        _end_worker(0, None)


def configure_pool(workers: int) -> None:
    """Set the number of processes; takes effect when the pool is next started."""
    global _workers
    _workers = max(1, workers)


def work_here() -> None:
    """Do all work in this process from now on: it is one of many already, such as a worker of Dask."""
    global _alone
    _alone = True


def _get() -> ProcessPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
                os.environ.setdefault(name, "1")
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(list(_PRELOADED))
            _pool = ProcessPoolExecutor(_workers, mp_context=context, initializer=_start_worker)
        return _pool


def _blaming(function: Callable[..., R], args: Sequence[Any], kwargs: Mapping[str, Any]) -> R:
    """Call the function; a cause is lost on the way between processes, so that it is looked at here."""
    try:
        return function(*args, **kwargs)
    except StageError as error:
        blame(error)
        raise


def in_pool(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a module-level function in the pool and wait for it. What it raises is raised here.

    Raises
    ------
    TransientError
        If a worker process died (killed, out of memory); the pool is started anew for what follows.
    """
    if stopping():
        raise StoppedError(function.__name__)
    if _alone:
        return function(*args, **kwargs)
    pool = _get()
    try:
        return pool.submit(_blaming, function, args, kwargs).result()
    except (BrokenProcessPool, CancelledError) as error:
        if stopping():
            raise StoppedError(function.__name__) from error
        _forget(pool)
        raise TransientError(
            function.__name__,
            "a worker process died while it worked on this",
            "run the command again; with fewer --workers if memory is short",
        ) from error


def _forget(pool: ProcessPoolExecutor) -> None:
    global _pool
    with _lock:
        if _pool is pool:
            _pool = None
    pool.shutdown(wait=False, cancel_futures=True)
    end_orphans()


def stop_pool(at_once: bool = False) -> None:
    """End the pool's processes; `at_once` also what they and their tools are working on."""
    global _pool
    with _lock:
        pool, _pool = _pool, None
    if pool is None:
        return
    workers = list((pool._processes or {}).values())
    if at_once:
        for worker in workers:
            worker.terminate()
    pool.shutdown(wait=not at_once, cancel_futures=True)
