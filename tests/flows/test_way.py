"""Failures become records; what nobody foresaw keeps its traceback in a log and stops nothing."""

from __future__ import annotations

import pickle

import pytest

from flows._way import Way, as_failure
from models.base import FileRef, Record, Roots
from models.frame import FrameFailure
from tasks.core.errors import StageError, TransientError
from tasks.core.tools import StoppedError


class FileCopy(Record):
    """Made from one file and told of another."""

    first: FileRef
    second: FileRef


@pytest.fixture
def roots(tmp_path) -> Roots:
    return Roots(data=tmp_path / "data", raw=tmp_path / "raw")


def _raise(error: BaseException) -> int:
    raise error


def test_results_pass_and_known_failures_are_kept(roots):
    way = Way("a.fits", roots)
    assert way.step(lambda: 7) == 7
    assert way.step(_raise, StageError("PSF", "2 stars, 4 are needed", "none")) is None
    assert way.step(_raise, TransientError("catalogues", "503", "later")) is None
    record = FrameFailure(file="a.fits", stage="x", reason="y", remedy="z")
    assert way.step(lambda: record) is None
    assert [(f.stage, f.pending) for f in way.failures] == [("PSF", False), ("catalogues", True), ("x", False)]
    assert not roots.logs.exists()


def test_an_unforeseen_error_is_a_record_with_its_traceback_in_a_log(roots):
    way = Way("night/../a b.fits", roots)
    assert way.step(_raise, ZeroDivisionError("division by zero")) is None
    (failure,) = way.failures
    assert "unforeseen ZeroDivisionError: division by zero" in failure.reason
    (log,) = roots.logs.iterdir()
    assert str(log) in failure.remedy
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize("error", [StoppedError("x"), KeyboardInterrupt()])
def test_being_stopped_is_no_failure_of_the_frame(roots, error):
    with pytest.raises(type(error)):
        as_failure(error, "a.fits", "x", roots)


def test_a_result_holds_what_it_was_made_from_not_a_copy_of_it(roots):
    """Results come from other processes: without this each stage's would hold all earlier ones once more."""
    file = FileRef(path="a.fits", digest="0" * 64)
    other = FileRef(path="b.fits", digest="0" * 64)

    def stage(_given: FileRef) -> FileCopy:
        copied: FileCopy = pickle.loads(pickle.dumps(FileCopy(first=file, second=other)))
        return copied

    made = Way("a.fits", roots).step(stage, file)
    assert made == FileCopy(first=file, second=other)
    assert made.first is file
    assert made.second is not other
