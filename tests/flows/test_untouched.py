"""A release that was made whole is not looked at again until something is touched; whatever is touched is noticed."""

from __future__ import annotations

import os

import pytest

from flows import _effort as effort
from flows._parts import Part
from flows._untouched import Release
from flows._way import as_failure
from models.frame import FrameFailure
from models.run import RunContext, RunSummary
from models.settings import Settings

FAILED = FrameFailure(file="a", stage="reduce", reason="truncated", remedy="copy it again")
SUMMARY = RunSummary(title="release T120", n_asked=2, n_made=2, figures={"2025": "2 of 2 frames calibrated"})


@pytest.fixture
def place(tmp_path):
    for name in ("raw/2025/a.fits", "data/2025/T120/reduced/a.fits", "data/.cache/results/1", "data/logs/run.log"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one")
    return tmp_path


def run_at(place, refresh=(), **settings) -> RunContext:
    return RunContext.of("T120", Settings(data_root=place / "data", raw_root=place / "raw", **settings), refresh)


def remembered(place, *failures: FrameFailure, summary=SUMMARY, run=None) -> RunContext:
    run = run or run_at(place)
    Release(run).remember([Part("2025", "reduce-year", summary.model_copy(update={"failures": failures}))], summary)
    return run


def test_untouched(place):
    remembered(place, FAILED)
    (place / "data/logs/run.log").write_text("another line")
    (place / "data/.prefect").mkdir()
    (place / "data/.prefect/prefect.db").write_text("its runs")
    known = Release(run_at(place, workers=1)).as_it_was()
    assert known is not None
    assert "no file, setting or program has changed since" in known.figures["unchanged"]
    assert known.figures["2025"] == SUMMARY.figures["2025"]


def same_size_and_times(path) -> None:
    """The meanest change: as many bytes, and the old time of modification put back."""
    before = path.stat()
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


TOUCHED = {
    "a raw frame comes": lambda place: (place / "raw/2025/b.fits").write_text("one"),
    "a raw frame goes": lambda place: (place / "raw/2025/a.fits").unlink(),
    "a raw frame has another name": lambda place: (place / "raw/2025/a.fits").rename(place / "raw/2025/c.fits"),
    "a raw frame's bytes": lambda place: same_size_and_times(place / "raw/2025/a.fits"),
    "a product's bytes": lambda place: same_size_and_times(place / "data/2025/T120/reduced/a.fits"),
    "a product goes": lambda place: (place / "data/2025/T120/reduced/a.fits").unlink(),
    "a record goes": lambda place: (place / "data/.cache/results/1").unlink(),
    "a folder that is a link": lambda place: (place / "raw/2026").symlink_to(place / "data/2025"),
    "a target": lambda place: (place / "data/targets.toml").write_text('["HAT-P-32"]\nra = 31.0428\ndec = 46.6878\n'),
    "the memory of it is torn": lambda place: (place / "data/.cache/unchanged/whole_T120.json").write_text("{"),
}


@pytest.mark.parametrize("what", TOUCHED)
def test_touched(place, what):
    remembered(place)
    assert Release(run_at(place)).as_it_was() is not None
    TOUCHED[what](place)
    assert Release(run_at(place)).as_it_was() is None


def test_another_setting_or_a_refresh(place):
    remembered(place)
    other = run_at(place).settings.stack.model_copy(update={"combine": "weighted"})
    assert Release(run_at(place, stack=other)).as_it_was() is None
    assert Release(run_at(place, refresh=("combine",))).as_it_was() is None


def test_another_source_tree(place, monkeypatch):
    remembered(place)
    monkeypatch.setattr("flows._untouched._our_code", lambda: "another")
    assert Release(run_at(place)).as_it_was() is None


def test_what_may_go_better_is_tried_again(place):
    pending = FAILED.model_copy(update={"pending": True})
    for failures, summary in (((pending,), SUMMARY), ((), SUMMARY.model_copy(update={"n_pending": 1}))):
        remembered(place)
        remembered(place, *failures, summary=summary)
        assert Release(run_at(place)).as_it_was() is None


def test_a_failure_that_is_on_no_record_is_tried_again(place):
    """A tool that crashed, a mistake of ours: neither is the frame's."""
    remembered(place)
    release = Release(run_at(place))
    failure = as_failure(ZeroDivisionError("ours"), "a", "reduce", run_at(place).roots)
    release.remember([Part("2025", "reduce-year", failure)], SUMMARY)
    assert Release(run_at(place)).as_it_was() is None


def test_a_run_that_made_something_is_followed_by_one_that_looks(place):
    remembered(place)
    release = Release(run_at(place))
    effort.count()  # as flows._progress does of each piece that it submits
    release.remember([], SUMMARY)
    assert Release(run_at(place)).as_it_was() is None


def test_a_raw_frame_that_came_while_the_run_was_at_work(place):
    release = Release(run_at(place))
    (place / "raw/2025/b.fits").write_text("one")
    release.remember([], SUMMARY)
    assert Release(run_at(place)).as_it_was() is None
