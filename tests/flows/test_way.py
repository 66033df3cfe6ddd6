"""Failures become records; what nobody foresaw keeps its traceback in a log and stops nothing."""

from __future__ import annotations

import pytest

from flows._way import Way, as_failure
from models.base import Roots
from models.frame import FrameFailure
from tasks.core.errors import StageError, TransientError
from tasks.core.tools import StoppedError


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
