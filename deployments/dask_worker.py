"""Preloaded by each worker of a Dask cluster (`dask worker ... --preload deployments.dask_worker`).

A Dask worker is one process of many already: it does a stage's work itself instead of keeping a pool.
"""

from __future__ import annotations

from typing import Any

import flows  # noqa: F401 (defaults for Prefect and for the threads of numerical libraries, before both)
from tasks.core.pool import work_here

__all__ = ["dask_setup"]


def dask_setup(worker: Any) -> None:
    """Called by Dask when the worker starts.

    Raises
    ------
    ValueError
        If it has more than one thread: stages are Python on one core, and signals are the main thread's.
    """
    if worker.state.nthreads != 1:
        raise ValueError("start the Dask workers with --nthreads 1, and as many of them as there are cores")
    work_here()
