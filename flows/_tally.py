"""What a run has done so far, in the interface: pieces done, failed, pending, as a progress artifact."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from models.frame import FrameFailure, FrameRecord
from tasks.core.shown import in_markdown

__all__ = ["ProgressArtifact", "Tally", "artifact_key"]

_log = logging.getLogger("ohp.progress")
_EVERY_S = 3.0

Outcome = Literal["done", "failed", "pending", "under way"]


def artifact_key(text: str) -> str:
    """An artifact's key: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())


class ProgressArtifact:
    """A progress artifact, told at most every few seconds; where nobody listens, the run goes on without.

    Parameters
    ----------
    title
        Shown with it, such as ``'reduce 2025 T120'``.
    key
        Folded to lower case, digits and dashes.
    """

    def __init__(self, title: str, key: str) -> None:
        self._title, self._key = title, key
        self._artifact: UUID | None = None
        self._told = 0.0

    def begin(self) -> None:
        """Create it, at 0 %."""
        try:
            artifact = create_progress_artifact(0.0, key=artifact_key(self._key), description=in_markdown(self._title))
        except Exception as error:  # whatever the client raises: no run ends for want of a bar
            self._give_up(error)
            return
        assert isinstance(artifact, UUID)  # Prefect's type covers its asynchronous form, too
        self._artifact = artifact

    def tell(self, percent: float, what: str, force: bool = False) -> None:
        """Update it, if it is time."""
        now = time.monotonic()
        if self._artifact is None or not (force or now - self._told >= _EVERY_S):
            return
        self._told = now
        try:
            update_progress_artifact(self._artifact, percent, description=f"{in_markdown(self._title)}: {what}")
        except Exception as error:  # as above
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._artifact = None
        _log.warning("%s: its progress is no longer shown: %s: %s", self._title, type(error).__name__, error)


class Tally:
    """What became of each piece of a run, such as a year's frames, over the stages they go through.

    Parameters
    ----------
    unit
        What the pieces are, in the plural.
    total
        How many there are.
    stages
        Names of the stages each goes through; after the last one it is done.
    failed
        Pieces that failed before the first.
    """

    def __init__(self, unit: str, total: int, stages: Sequence[str], failed: int = 0) -> None:
        self.unit, self.total = unit, total + failed
        self._stages, self._before = tuple(stages), failed
        self._pieces: list[Outcome] = ["under way"] * total
        self._counts: Counter[str] = Counter({"under way": total, "failed": failed})
        self._steps = 0

    def counts(self, stage: str) -> bool:
        """Whether the pieces go through a stage."""
        return stage in self._stages

    def note(self, stage: str, number: int, result: Any) -> None:
        """A stage's result for one of the pieces."""
        if not self.counts(stage) or number >= len(self._pieces):
            return
        outcome = _outcome(result)
        if outcome == "done" and stage != self._stages[-1]:
            outcome = "under way"
        self._steps += 1
        self._counts[self._pieces[number]] -= 1
        self._counts[outcome] += 1
        self._pieces[number] = outcome

    @property
    def percent(self) -> float:
        """Of all steps of all pieces."""
        steps = len(self._pieces) * len(self._stages)
        return 100.0 * min(self._steps / steps, 1.0) if steps else 100.0

    def __str__(self) -> str:
        counts = self._counts
        told = (
            f"{counts['done']} of {self.total} {self.unit} done, {counts['failed']} failed, {counts['pending']} pending"
        )
        return told + (f", {counts['under way']} to go" if counts["under way"] else "")


def _outcome(result: Any) -> Outcome:
    """What a result says of its piece: a record of a frame, a failure, an error, or anything else that was made."""
    result = getattr(result, "record", result)
    if isinstance(result, FrameRecord):
        if result.pending:
            return "pending"
        stopped = result.failures and result.calibrated is None
        return "failed" if stopped else "done"
    if isinstance(result, FrameFailure):
        return "pending" if result.pending else "failed"
    return "failed" if isinstance(result, BaseException) else "done"
