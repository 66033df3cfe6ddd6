"""Which failures are results, kept like any other, and which are of the day."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from flows._way import as_failure
from models.base import FileRef, Roots
from models.frame import FrameFailure
from tasks.core.errors import GoneError, StageError, TransientError, blame, left_out
from tasks.core.files import ref
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


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x.fits"), "No space left on device: /data/x.fits"),
        (OSError("Not enough space on disk: requested 2359296, available 0."), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "Permission denied: /data/x"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (MemoryError("Unable to allocate 8 GiB"), "memory ran out"),
    ],
)
def test_what_the_machine_refused_is_said_and_pending_whatever_the_stage_took_it_for(cause, words):
    """Across processes, and however deep it lies."""
    with pytest.raises(StageError) as failure:
        settled("x.fits", _raise, _stage(), cause)
    deep, error = RuntimeError("while writing"), _stage()
    deep.__cause__, error.__cause__ = cause, deep
    blame(error)
    for record in (failure.value.record("x.fits"), error.record("x.fits")):
        assert record.reason == words
        assert record.pending
        assert "run the same command again" in record.remedy
    for behind in (cause, deep):
        record = as_failure(behind, "x.fits", "combine", Roots(data=Path("/nowhere"), raw=Path("/nowhere")))
        assert (record.stage, record.reason, record.pending) == ("combine", words, True)


def _frame_of(file: FileRef, roots: Roots) -> None:
    raise StageError("plate solution", f"{file.path} has no stars", "look at it")


def test_what_a_stage_makes_of_a_file_that_is_gone_is_no_record(tmp_path):
    """The key is of what was in the file: once it is back, such a record would stand for it."""
    roots = Roots(data=tmp_path, raw=tmp_path / "raw")
    path = tmp_path / "sources.fits"
    path.write_bytes(b"stars")
    file = ref(path, roots)
    assert isinstance(settled("x.fits", _frame_of, file, roots), FrameFailure)
    for change in (path.unlink, lambda: path.write_bytes(b"others")):
        change()
        with pytest.raises(StageError) as failure:
            settled("x.fits", _frame_of, file, roots)
        assert failure.value.record("x.fits").pending
    path.write_bytes(b"stars")
    assert isinstance(settled("x.fits", _frame_of, file, roots), FrameFailure)


@pytest.mark.parametrize("error", [_stage(), StageError("SCAMP", "2 stars", "none")])
def test_an_input_is_left_out_for_what_it_is(error):
    assert left_out(error) == error.reason


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (GoneError("catalogues", "gaia.fits is gone", "fetch it"), None),
        (_stage(), OSError(errno.EIO, "Input/output error")),
        (_stage(), FileNotFoundError(errno.ENOENT, "No such file or directory")),
    ],
)
def test_no_input_is_left_out_for_what_the_machine_refused(error, cause):
    error.__cause__ = cause
    with pytest.raises(StageError) as failure:
        left_out(error)
    assert failure.value.record("x.fits").pending


def test_a_mistake_of_ours_is_none_of_the_machine(tmp_path):
    roots = Roots(data=tmp_path, raw=tmp_path)
    record = as_failure(KeyError("FWHM"), "x.fits", "measure", roots)
    assert record.reason.startswith("unforeseen KeyError")
    assert not record.pending
    (log,) = roots.logs.glob("error-*.log")
    assert "KeyError" in log.read_text()
