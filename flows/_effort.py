"""Whether a run had anything to do but look at records: pieces that it submitted, failures that are on no record."""

from __future__ import annotations

import threading

__all__ = ["count", "so_far"]

_lock = threading.Lock()
_number = 0


def count() -> None:
    """Something was submitted, or failed in a way that the next run tries again."""
    global _number
    with _lock:
        _number += 1


def so_far() -> int:
    """How much of it there was in this process."""
    return _number
