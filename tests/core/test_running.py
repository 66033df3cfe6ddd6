"""Which failures are results, kept like any other, and which are of the day."""

from __future__ import annotations

import errno

import pytest

from models.frame import FrameFailure
from tasks.core.errors import StageError, TransientError
from tasks.core.running import settled
from tasks.core.tools import ToolFailedError


def _raise(error: Exception, cause: Exception | None) -> None:
    raise error from cause


def _stage() -> StageError:
    return StageError("reduction", "x.fits cannot be read", "look at it")


@pytest.mark.parametrize("cause", [None, ValueError("no FITS"), OSError("Empty or corrupt FITS file")])
def test_what_would_fail_again_is_a_result(cause):
    record = settled("x.fits", _raise, _stage(), cause)
    assert isinstance(record, FrameFailure)
    assert not record.pending


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (_stage(), OSError(errno.EIO, "Input/output error")),
        (_stage(), OSError(errno.ENOSPC, "No space left on device")),
        (_stage(), FileNotFoundError(errno.ENOENT, "No such file or directory")),
        (_stage(), OSError(errno.ESTALE, "Stale file handle")),
        (TransientError("catalogues", "503", "later"), None),
        (ToolFailedError("scamp", "died of SIGSEGV", "see its log"), None),
        (OSError(errno.ENOSPC, "No space left on device"), None),
    ],
)
def test_what_may_go_better_tomorrow_is_raised_and_so_never_recorded(error, cause):
    with pytest.raises(type(error)):
        settled("x.fits", _raise, error, cause)
