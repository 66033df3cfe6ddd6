"""A year or a group as a part of the release."""

from __future__ import annotations

from collections import Counter

from models.frame import FrameFailure
from models.run import RunSummary

__all__ = ["Part"]


class Part:
    """A year or a group of the release, and what became of it."""

    def __init__(self, name: str, stage: str, outcome: RunSummary | FrameFailure) -> None:
        self.name, self.stage, self.outcome = name, stage, outcome

    @property
    def failure(self) -> FrameFailure | None:
        """Why nothing came of it; None if something did, or if there is only too little to stack."""
        if isinstance(self.outcome, FrameFailure):
            return self.outcome
        if not self.outcome.failed or all(each.stage == "selection" for each in self.outcome.failures):
            return None
        worst = [each for each in self.outcome.failures if each.stage != "selection"]
        return FrameFailure(
            file=self.name,
            stage=self.stage,
            reason=f"nothing was made; {len(worst)} problems, the first: {worst[0].reason}",
            remedy=worst[0].remedy,
        )

    @property
    def failures(self) -> tuple[FrameFailure, ...]:
        """All that failed in it."""
        return self.outcome.failures if isinstance(self.outcome, RunSummary) else (self.outcome,)

    @property
    def pending(self) -> int:
        """How much of it waits for a catalogue."""
        return self.outcome.n_pending if isinstance(self.outcome, RunSummary) else int(self.outcome.pending)

    @property
    def told(self) -> str:
        """It in a line."""
        if isinstance(self.outcome, FrameFailure):
            return f"failed: {self.outcome.reason}"
        made, asked = self.outcome.n_made, self.outcome.n_asked
        what = "frames calibrated" if self.stage == "reduce-year" else "stacks"
        left_out = Counter(each.pending for each in self.outcome.failures)
        notes = [f"{self.pending} pending"] if self.pending else []
        notes += [f"{left_out[False]} left out or incomplete"] if left_out[False] else []
        return f"{made} of {asked} {what}" + (f" ({', '.join(notes)})" if notes else "")
