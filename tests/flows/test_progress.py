"""A stage of many pieces: results in order, failures among them, few under way at a time, what is known not made.

And one that is such a stage: the compressed copy of a release.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from prefect import flow, task
from prefect.artifacts import Artifact
from prefect.context import FlowRunContext
from prefect.testing.utilities import prefect_test_harness

import flows._progress
import flows._tally
from flows._compressed import compress_release
from flows._prefect import task_threads
from flows._progress import RunProgress
from flows._runner import task_runner
from flows._tally import Tally
from models.frame import FrameFailure, FrameRecord, RawFrame
from models.run import RunContext
from models.settings import Settings
from tasks.core.records import NOTHING
from tests.sourcelists.sky import place, stars


@pytest.fixture(scope="module", autouse=True)
def server():
    with prefect_test_harness(server_startup_timeout=120):
        yield


@task(persist_result=False)
def halved(number: int) -> float:
    """Half of an even number."""
    time.sleep(0.002 * (number % 3))
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number / 2


def test_results_keep_their_order_and_failures_are_among_them(capsys, monkeypatch):
    monkeypatch.setattr(flows._progress, "known", lambda _work, n: n / 2 if n % 4 == 0 else NOTHING)

    @flow(task_runner=task_runner())
    def work() -> list[object]:
        with RunProgress("halves", "halves") as progress:
            return [repr(each) for each in progress.each("halve", halved, [(n,) for n in range(60)])]

    results = work()
    assert results == [f"ValueError('{n} is odd')" if n % 2 else repr(n / 2) for n in range(60)]
    assert "halve: 45 (15 more as recorded) in " in capsys.readouterr().err


def test_few_are_under_way_at_a_time_and_prefect_keeps_little(monkeypatch):
    """3000 frames are no reason for 3000 threads' worth of waiting task runs, nor for all they leave behind."""
    monkeypatch.setattr(flows._progress, "known", lambda *_: NOTHING)
    monkeypatch.setattr(flows._progress, "_RELATIONS", 20)
    submitted, most, kept = [0], [0], []
    lock = threading.Lock()

    @task(persist_result=False)
    def counted(_number: int) -> list[int]:
        with lock:
            submitted[0] -= 1
        return [0]

    @flow(task_runner=task_runner())
    def work() -> None:
        submit = counted.submit

        def counting(*arguments: object) -> object:
            with lock:
                submitted[0] += 1
                most[0] = max(most[0], submitted[0])
            context = FlowRunContext.get()
            assert context is not None
            kept.append(len(context.run_results))
            return submit(*arguments)

        monkeypatch.setattr(counted, "submit", counting)
        with RunProgress("many", "many") as progress:
            assert progress.each("count", counted, [(n,) for n in range(80)]) == [[0]] * 80

    work()
    assert 1 <= most[0] <= 2 * task_threads()
    assert len(kept) == 80
    assert max(kept) <= 20 + 2 * 2 * task_threads()


def test_a_flow_is_no_faster_than_its_server(monkeypatch):
    """Behind is what the server has not yet noted; a pace that is not kept holds the next task run back."""
    monkeypatch.setattr(flows._progress, "known", lambda *_: NOTHING)
    monkeypatch.setattr(flows._pace, "_LOOK_EVERY_S", 0.0)
    waits: list[float] = []
    behind = iter([9.0, 7.0, 2.0])
    real = flows._pace.Pace._behind

    def told(pace: flows._pace.Pace) -> float:
        assert real(pace) < 30
        return next(behind, 0.0)

    monkeypatch.setattr(flows._pace.Pace, "_behind", told)
    monkeypatch.setattr(flows._pace, "time", SimpleNamespace(monotonic=time.monotonic, sleep=waits.append))

    @flow(task_runner=task_runner())
    def work() -> None:
        with RunProgress("paced", "paced") as progress:
            assert progress.each("pace", halved, [(n,) for n in (0, 2, 4)]) == [0.0, 1.0, 2.0]

    work()
    assert waits.count(0.5) == 2


class Made:
    """A result that carries a frame's record, as a pass does."""

    def __init__(self, record: FrameRecord) -> None:
        self.record = record


def frame(**given: Any) -> FrameRecord:
    raw = RawFrame(
        path="a.fits", digest="0" * 64, name="a", kind="science", why="", telescope="T120", night="20230314",
        date_obs=datetime(2023, 3, 14, 22, tzinfo=UTC), exptime=60, binning=2, shape=(8, 8), filter="r",
    )  # fmt: skip
    return FrameRecord(raw=raw, **given)


def stopped(pending: bool) -> FrameFailure:
    return FrameFailure(file="a.fits", stage="catalogues", reason="503", remedy="wait", pending=pending)


def test_a_tally_says_what_became_of_each():
    tally = Tally("frames", 5, ("first", "last"), failed=1)
    assert str(tally) == "0 of 6 frames done, 1 failed, 0 pending, 5 to go"
    good, bad, waiting = frame(), frame(failures=(stopped(False),)), frame(failures=(stopped(True),))
    for number, result in enumerate((good, Made(bad), Made(waiting), ValueError(), good)):
        tally.note("first", number, result)
    tally.note("another stage", 0, ValueError())
    assert str(tally) == "0 of 6 frames done, 3 failed, 1 pending, 2 to go"
    assert tally.percent == pytest.approx(50.0)
    for number, result in enumerate((good, bad, good, bad, stopped(True))):
        tally.note("last", number, result)
    assert str(tally) == "2 of 6 frames done, 3 failed, 1 pending"
    assert tally.percent == pytest.approx(100.0)


def test_the_interface_is_told_done_failed_and_pending_as_the_run_goes(monkeypatch):
    monkeypatch.setattr(flows._progress, "known", lambda *_: NOTHING)
    monkeypatch.setattr(flows._tally, "_EVERY_S", 0.0)
    told = []
    real = flows._tally.update_progress_artifact

    def telling(identity: Any, percent: float, description: str) -> Any:
        told.append((percent, description))
        return real(identity, percent, description=description)

    monkeypatch.setattr(flows._tally, "update_progress_artifact", telling)

    @flow(task_runner=task_runner())
    def work() -> None:
        with RunProgress("a year's frames", "told") as progress:
            progress.expect("frames", 6, ("halve",))
            progress.each("halve", halved, [(n,) for n in range(6)])

    work()
    assert len(told) == 7
    assert [percent for percent, _ in told] == sorted(percent for percent, _ in told)
    assert "to go; now halve 1/6" in told[0][1]
    kept = Artifact.get("told")
    assert kept is not None
    assert kept.data == 100.0
    assert kept.description == "a year's frames: 3 of 6 frames done, 3 failed, 0 pending"


def test_a_run_goes_on_where_its_progress_cannot_be_shown(monkeypatch, caplog):
    monkeypatch.setattr(flows._progress, "known", lambda *_: NOTHING)
    monkeypatch.setattr(flows._tally, "_EVERY_S", 0.0)

    def refuse(*_: Any, **__: Any) -> None:
        raise httpx.ConnectError("no server")

    monkeypatch.setattr(flows._tally, "update_progress_artifact", refuse)

    @flow(task_runner=task_runner())
    def work() -> list[float]:
        with RunProgress("unseen", "unseen") as progress:
            return progress.each("halve", halved, [(n,) for n in (0, 2, 4)])

    assert work() == [0.0, 1.0, 2.0]
    assert [record.message for record in caplog.records if record.name == "ohp.progress"] == [
        "unseen: its progress is no longer shown: ConnectError: no server"
    ]


def test_the_compressed_copy_follows_the_images(tmp_path, capsys):
    made = place(tmp_path, *stars(np.random.default_rng(5), 4))
    folder = tmp_path / "compressed" / "X" / "T120"

    def compressed(**settings: Any) -> list[FrameFailure]:
        run = RunContext.of("T120", Settings(data_root=tmp_path, release={"compressed": True} | settings))

        @flow(task_runner=task_runner())
        def release() -> list[dict[str, Any]]:
            return [failure.model_dump() for failure in compress_release(run)]

        return [FrameFailure.model_validate(each) for each in release()]

    assert compressed(compressed=False) == []
    assert not folder.exists()
    assert compressed() == []
    names = {f"X_{filter}{kind}.fits.fz" for filter in "rR" for kind in ("", ".weight", "_psf")}
    assert {path.name for path in folder.iterdir()} == names
    assert "compressed copy: 6 in" in capsys.readouterr().err
    (folder / "X_g.fits.fz").write_bytes(b"of a stack that is gone")
    (folder / "X_R.fits.fz").unlink()
    before = (folder / "X_r.fits.fz").stat().st_mtime_ns
    assert compressed() == []
    assert "compressed copy: 1 (5 more as recorded)" in capsys.readouterr().err
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / "X_r.fits.fz").stat().st_mtime_ns == before
    made.roots.of(made.stacks[0].image).write_bytes(b"no FITS")
    [failure] = compressed()
    assert (failure.file, "cannot be read" in failure.reason) == ("compressed/X/T120/X_r.fits.fz", True)
