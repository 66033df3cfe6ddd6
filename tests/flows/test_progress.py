"""A stage of many pieces: results in order, failures among them, few under way at a time, what is known not made."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
from prefect import flow, task
from prefect.context import FlowRunContext
from prefect.testing.utilities import prefect_test_harness

import flows._progress
from flows._prefect import task_threads
from flows._progress import RunProgress
from flows._runner import task_runner
from tasks.core.records import NOTHING


@pytest.fixture(scope="module", autouse=True)
def server():
    with prefect_test_harness():
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
