"""What really ran: one line for every body of a cached task, whatever state Prefect shows.

``DATA_ROOT/logs/made.jsonl`` answers "what ran again, and how long did it take" for a person, and lets a test count.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from models.base import Record, Roots

__all__ = ["LEDGER", "Made", "note_made", "read_made", "size", "told"]

LEDGER = "made.jsonl"

_log = logging.getLogger("ohp.ledger")


class Made(Record):
    """One body that ran to its end."""

    at: str = Field(description="UTC when it ended")
    stage: str = Field(description="the cached task's name in lower case with dashes")
    what: str = Field(description="the task run's name")
    key: str = Field(description="digest of all that the result depends on")
    outcome: str = Field(pattern="^(made|failed)$", description="failed: the result says why, and is kept, too")
    seconds: float
    run: str = Field(description="id of the flow run")


def _path(roots: Roots) -> Path:
    return roots.logs / LEDGER


def note_made(roots: Roots, made: Made) -> None:
    """Append a line; lines of several processes do not mix (one write in append mode).

    The work itself is done: where the line cannot be written (a full disk), the log says so, and nothing else happens.
    """
    path = _path(roots)
    line = (json.dumps(made.model_dump(mode="json"), ensure_ascii=False) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line if _ends_well(descriptor) else b"\n" + line)
        finally:
            os.close(descriptor)
    except OSError as error:
        _log.warning("%s: %s; what ran is not noted there", path, error.strerror)


def _ends_well(descriptor: int) -> bool:
    """Whether the last line is whole: the next one must not become a part of one that was cut."""
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


def size(roots: Roots) -> int:
    """Length of the ledger now, bytes: `read_made` reads on from there."""
    path = _path(roots)
    return path.stat().st_size if path.exists() else 0


def read_made(roots: Roots, start: int = 0, run: str | None = None) -> list[Made]:
    """Lines from an offset on, of one flow run if its id is given.

    A line that a killed process or a full disk cut is left out.
    """
    path = _path(roots)
    if not path.exists():
        return []
    with path.open("rb") as stream:
        stream.seek(start)
        lines = stream.read().splitlines()
    found = []
    for line in lines:
        try:
            made = Made.model_validate_json(line)
        except ValidationError:
            continue
        if run is None or made.run == run:
            found.append(made)
    return found


def told(made: Sequence[Made]) -> str:
    """In words: ``'reduce 6, measure 6'``; ``'nothing'``."""
    counts = Counter(entry.stage for entry in made)
    failed = sum(entry.outcome == "failed" for entry in made)
    words = ", ".join(f"{stage} {count}" for stage, count in counts.items()) or "nothing"
    return words + (f" ({failed} of them failed)" if failed else "")


def now() -> str:
    """UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
