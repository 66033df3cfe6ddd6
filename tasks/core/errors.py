"""Why a stage could not do its work. A stage raises one of these; the frame's task turns it into a record."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from models.frame import FrameFailure

__all__ = ["GoneError", "StageError", "TransientError", "UserError", "blame", "left_out", "machine_trouble"]


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
    """Mark an error behind which is one of the operating system's: no room, no permission, input/output error.

    Whatever the stage took it for, the reason is then the machine's. A FITS file that is none raises an `OSError` in
    astropy, too, but without an error number.
    """
    causes = list(_causes(error))[1:]
    for cause in causes:
        if trouble := machine_trouble(cause):
            error.reason, error.remedy = trouble
            error.args = (error.stage, *trouble)
            error.of_the_machine = True
            return
    if any(isinstance(cause, OSError) and cause.errno is not None for cause in causes[:1]):
        error.of_the_machine = True


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those it was raised from or beside, outermost first."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


_NO_ROOM = "Not enough space on disk"
"""What astropy says instead of the system's error when a FITS file does not fit."""

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
    if isinstance(error, StageError):
        return None
    for each in _causes(error):
        if isinstance(each, MemoryError):
            return "memory ran out", _REMEDIES[errno.ENOMEM]
        if isinstance(each, OSError) and each.errno in _REMEDIES:
            where = f": {each.filename}" if each.filename else ""
            return f"{os.strerror(each.errno)}{where}", _REMEDIES[each.errno]
        if isinstance(each, OSError) and _NO_ROOM in str(each):
            return os.strerror(errno.ENOSPC), _REMEDIES[errno.ENOSPC]
    return None


class GoneError(StageError):
    """What an earlier stage made is not there, or not as it was: true until that stage has run again."""

    of_the_machine = True


def left_out(error: StageError) -> str:
    """Why a stage goes on without one of its inputs.

    Its result is kept: what the machine refused today (a disk that was away, a file that is gone) is no reason for it.

    Raises
    ------
    StageError
        The error itself, if the machine is behind it.
    """
    blame(error)
    if error.of_the_machine:
        raise error
    return error.reason


class TransientError(StageError):
    """The same, but worth trying again later: a service is down, an answer was cut."""

    pending = True
