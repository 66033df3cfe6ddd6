"""Why a stage could not do its work. A stage raises one of these; the frame's task turns it into a record."""

from __future__ import annotations

import errno
import os

from models.frame import FrameFailure

__all__ = ["StageError", "TransientError", "UserError", "blame", "machine_trouble"]


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
        pending = self.pending or self.of_the_machine
        return FrameFailure(file=file, stage=self.stage, reason=self.reason, remedy=self.remedy, pending=pending)


def blame(error: StageError) -> None:
    """Mark an error that was raised from one of the operating system's: no room, no permission, input/output error.

    A FITS file that is none raises an `OSError` in astropy, too, but without an error number.
    """
    cause = error.__cause__
    error.of_the_machine = isinstance(cause, OSError) and cause.errno is not None


_REMEDIES = {
    errno.ENOSPC: "free some room on the disk, then run the same command again",
    errno.EDQUOT: "free some of your quota, then run the same command again",
    errno.EROFS: "the disk became read-only: see to it (dmesg tells why), then run the same command again",
    errno.EACCES: "give back the permission (who owns it?), then run the same command again",
    errno.EPERM: "give back the permission (who owns it?), then run the same command again",
    errno.EIO: "the disk has errors: see to it (dmesg, smartctl), then run the same command again",
    errno.ESTALE: "the network disk was gone: see to it, then run the same command again",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n), then run the same command again",
    errno.ENFILE: "too many open files on the machine, then run the same command again",
    errno.ENOMEM: "memory is short: fewer --workers, then run the same command again",
}


def machine_trouble(error: BaseException) -> tuple[str, str] | None:
    """Reason and remedy where it is the machine that refused (no room, no permission, no memory), not the input.

    Such an error says nothing of the frame that it happened to: the same command may go well an hour later.
    """
    if isinstance(error, MemoryError):
        return "memory ran out", _REMEDIES[errno.ENOMEM]
    if not isinstance(error, OSError) or error.errno not in _REMEDIES:
        return None
    where = f": {error.filename}" if error.filename else ""
    return f"{os.strerror(error.errno)}{where}", _REMEDIES[error.errno]


class TransientError(StageError):
    """The same, but worth trying again later: a service is down, an answer was cut."""

    pending = True
