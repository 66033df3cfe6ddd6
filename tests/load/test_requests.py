"""Many people ask for stacks at once, through Prefect's API: one server, one worker, one machine."""

from __future__ import annotations

import json
import shutil
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.processes import memory_of
from models.base import Roots
from tasks.core.files import digest_file
from tests.load.figures import GROUPS, Figures, growth
from tests.server.installation import FINAL, Installation

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.load, pytest.mark.tools]

_PATIENCE_S = 1800.0
"""Longest time without one request that ends; on an idle machine each takes about 10 s, most of it imports."""


_SILENCE_S = 180
"""How long a run may give no sign of life here (600 s else), so that the test sees what becomes of those that ended."""

_FLAT = 20.0
"""MB that server or worker may grow by in 100 runs."""


@pytest.fixture(scope="module")
def busy(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation over a small campaign of two groups, reduced and stacked."""
    root = tmp_path_factory.mktemp("busy")
    shutil.copytree(finished, root, ignore=shutil.ignore_patterns(".prefect", "logs"), dirs_exist_ok=True)
    # What a run waits before it is tried again, 3 and 5 s else, would be most of the time.
    made = Installation(
        Roots(data=root, raw=root / "raw"), PREFECT_WORKER_QUERY_SECONDS="1",
        PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS="1",
    )  # fmt: skip
    try:
        made.start()
        silent_after(made, _SILENCE_S)
        yield made
    finally:
        made.stop()


def silent_after(installation: Installation, seconds: int) -> None:
    """Change after what time the registered automation takes a run for crashed."""
    for each in installation.post("/automations/filter", {}):
        if "silent" in each["name"]:
            each["trigger"]["within"] = seconds
            body = {name: each[name] for name in ("name", "description", "enabled", "trigger", "actions")}
            installation.post(f"/automations/{each['id']}", body, "PUT")
            return
    raise AssertionError("no such automation")


def products(roots: Roots) -> dict[str, str]:
    """Digest of every stack."""
    return {path.name: digest_file(path) for path in sorted((roots.data / "stacks").rglob("*.fits"))}


def asked_for(installation: Installation, deployment: str, number: int) -> tuple[str, int]:
    """The id of the run, and how often the server was too busy.

    Who is put off asks again, as Prefect's client does after a 503 (`deployments/prefect_server.py` says when that is).
    The key keeps one request one run.
    """
    group = GROUPS[number % len(GROUPS)]
    body = {"parameters": {"group": group}, "state": {"type": "SCHEDULED"}, "idempotency_key": f"request {number}"}
    request = urllib.request.Request(
        f"{installation.url}/api/deployments/{deployment}/create_flow_run",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    for busy in range(20):
        try:
            with urllib.request.urlopen(request, timeout=7200) as answer:
                return json.loads(answer.read())["id"], busy
        except urllib.error.HTTPError as error:
            if error.code not in (500, 503):
                raise
            time.sleep(float(error.headers.get("Retry-After", 2 + busy)))
    raise AssertionError(f"request {number} was never accepted")


def states(installation: Installation, runs: list[str]) -> Counter[str]:
    """How many of the runs are in each state."""
    found: Counter[str] = Counter()
    for start in range(0, len(runs), 100):
        body = {"flow_runs": {"id": {"any_": runs[start : start + 100]}}, "limit": 200}
        found.update(run["state"]["type"] for run in installation.post("/flow_runs/filter", body))
    return found


def test_a_burst_of_requests_is_accepted(tmp_path, request, figures: Figures):
    """No worker, no data: what the server makes of so many at once."""
    number: int = request.config.getoption("--requests")
    root = tmp_path / "burst"
    root.mkdir()
    made = Installation(Roots(data=root, raw=root / "raw"))
    try:
        made.deployments("server", "--background")
        made.deployments("deploy")
        identity, pid, started = made.deployment("stack-target")["id"], made.holder("server"), time.monotonic()
        with ThreadPoolExecutor(number) as many:
            answers = list(many.map(lambda n: asked_for(made, identity, n), range(number)))
        asked = time.monotonic() - started
        assert states(made, [run for run, _ in answers]) == Counter({"SCHEDULED": number})
        words = made.roots.logs.joinpath("prefect-server.log").read_text(errors="replace")
        title = f"{number} requests at once"
        put_off = sum(times for _, times in answers)
        figures.add(title, "not accepted", number - len({run for run, _ in answers}), "", goal=0)
        figures.add(title, "accepted within", asked, "s", detail=f"{put_off} times put off and asked again")
        figures.add(title, "'database is locked' in the server's log", words.count("database is locked"), "")
        figures.add(title, "memory of the server after them", memory_of(pid), "MB")
    finally:
        made.stop()


def test_requests_at_once_are_all_done_in_turn(busy, request, figures: Figures):
    """None is lost, none is cancelled, none fails; what was made is what one request makes."""
    number: int = request.config.getoption("--requests")
    before, made = products(busy.roots), len(busy.made())
    started = time.monotonic()
    identity = busy.deployment("stack-target")["id"]
    with ThreadPoolExecutor(number) as many:
        answers = list(many.map(lambda n: asked_for(busy, identity, n), range(number)))
    runs = [run for run, _ in answers]
    asked = time.monotonic() - started
    assert len(set(runs)) == number

    pids = {name: busy.holder(name) for name in ("server", "worker")}
    memory: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
    done, last = 0, time.monotonic()
    while True:
        now, before_now = states(busy, runs), done
        done = sum(now[state] for state in FINAL)
        last = time.monotonic() if done > before_now else last
        for name, pid in pids.items():
            memory[name].append((float(done), memory_of(pid)))
        if done == number or time.monotonic() > last + _PATIENCE_S:
            break
        time.sleep(3.0)
    seconds = time.monotonic() - started
    time.sleep(_SILENCE_S + 90)  # the server looks for silent ones every few seconds, and a minute late
    now = states(busy, runs)

    logs = "".join(path.read_text(errors="replace") for path in busy.roots.logs.glob("prefect-*.log"))
    locked = logs.count("database is locked")
    title = f"{number} stack requests at once"
    put_off = sum(times for _, times in answers)
    figures.add(title, "accepted within", asked, "s", detail=f"{put_off} times put off and asked again")
    figures.add(title, "completed", now["COMPLETED"], f"of {number}")
    figures.add(title, "lost, cancelled, failed", number - now["COMPLETED"], "", goal=0)
    figures.add(title, "from the first to the last", seconds, "s", detail=f"{seconds / number:.1f} s each")
    figures.add(title, "'database is locked' in the logs", locked, "", goal=0)
    for name, samples in memory.items():
        most = max(value for _, value in samples)
        grown = growth(samples, number)
        figures.add(title, f"memory of the {name}, highest", most, "MB", detail=f"{grown:+.1f} MB per 100 requests")

    assert now == Counter({"COMPLETED": number}), f"{now}{busy.logs()}"
    assert products(busy.roots) == before
    assert len(busy.made()) == made, "what was on record was made again"
    assert locked == 0
    if number >= 100:  # what it takes to warm up is none
        for name, samples in memory.items():
            assert growth(samples, number) < _FLAT, (name, samples)
