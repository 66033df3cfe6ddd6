"""Why a stage could not do its work. A stage raises one of these; the frame's task turns it into a record."""

from __future__ import annotations

from models.frame import FrameFailure

__all__ = ["StageError", "TransientError", "UserError", "blame"]


class UserError(Exception):
    """Wrong usage or input: one clear line for the user, exit status 2, no traceback."""


class StageError(Exception):
    """A stage cannot do its work on this input, and would not the next time either.

    Parameters
    ----------
    stage
        Such as ``'reduction'``, ``'plate solution'``.
    reason
        What is wrong, for a person.
    remedy
        What that person can do about it.
    """

    pending = False
    of_the_machine = False
    """The disk or the network refused: true only today, and never recorded. Set where the stage ran (`blame`)."""

    def __init__(self, stage: str, reason: str, remedy: str) -> None:
        super().__init__(stage, reason, remedy)
        self.stage, self.reason, self.remedy = stage, reason, remedy

    def __str__(self) -> str:
        return f"{self.stage}: {self.reason} ({self.remedy})"

    def record(self, file: str) -> FrameFailure:
        """The failure as data."""
        return FrameFailure(file=file, stage=self.stage, reason=self.reason, remedy=self.remedy, pending=self.pending)


def blame(error: StageError) -> None:
    """Mark an error that was raised from one of the operating system's: no room, no permission, input/output error.

    A FITS file that is none raises an `OSError` in astropy, too, but without an error number.
    """
    cause = error.__cause__
    error.of_the_machine = isinstance(cause, OSError) and cause.errno is not None


class TransientError(StageError):
    """The same, but worth trying again later: a service is down, an answer was cut."""

    pending = True
