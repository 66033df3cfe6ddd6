"""Two programs for the harness to compare."""

from __future__ import annotations

import time

import numpy as np

from bench.contest import Work


def quick(size: int) -> Work:
    """Does nothing."""
    yield
    return {"size": size}


def slow(size: int) -> Work:
    """Sleeps, and holds 64 MB."""
    yield
    held = np.ones(8_000_000)
    time.sleep(0.25)
    assert held.sum() > size
