"""A year of 3000 frames, its stages trivial: nothing lost, nothing grows; the history in SQLite and PostgreSQL."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.flat import BODIES_A_FRAME, sampler
from bench.place import Place
from bench.processes import memory_of, server
from bench.release import Plan
from tasks.core.ledger import read_made
from tests.load.figures import Figures, growth
from tests.server.cluster import postgres, postgres_programs

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.load]

_YEAR = 2025
_TASK_RUNS_A_FRAME = 10
"""The stages', and three passes of the frame around them (counted on 60 and on 200 frames)."""


@contextmanager
def database(kind: str, folder: Path) -> Iterator[dict[str, str]]:
    """Environment of a server that keeps its history there."""
    if kind == "SQLite":
        yield {}
        return
    if postgres_programs() is None:
        pytest.skip("no PostgreSQL here (Debian package postgresql)")
    with postgres(folder / "history") as address:
        yield {"PREFECT_API_DATABASE_CONNECTION_URL": address}


def ask(url: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(f"{url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=1800) as answer:
        return json.loads(answer.read())


@pytest.mark.parametrize("kind", ["SQLite", "PostgreSQL"])
def test_a_year_of_thousands_of_frames(kind, tmp_path, request, figures: Figures):
    frames: int = request.config.getoption("--year-frames")
    place = Place(tmp_path, frames=frames)
    roots = place.release("year", Plan(frames, (_YEAR,), 8))
    log = tmp_path / "logs" / "server.log"
    with database(kind, tmp_path) as environment, server(roots.data, log, **environment) as beside:
        done_until = sampler(roots)
        servers: list[tuple[float, float]] = []

        def sample(pid: int) -> tuple[float, float]:
            done, memory = done_until(pid)
            servers.append((done, memory_of(beside.pid)))
            return done, memory

        said, done = place.child(
            roots, "year", "--simulated", "--warm", "--reduce", str(_YEAR), server=beside, sample=sample
        )
        counted = {
            name: ask(beside.url, "/task_runs/count", {"task_runs": {"state": {"type": {"any_": [name]}}}})
            for name in ("COMPLETED", "FAILED", "CRASHED", "RUNNING", "PENDING")
        }
        flows = ask(beside.url, "/flow_runs/filter", {"flow_runs": {"name": {"like_": "reduce"}}})

    (flow,) = flows
    made = Counter(entry.stage for entry in read_made(roots))
    rows = json.loads((roots.data / str(_YEAR) / "BENCH" / "qc" / "frame_stats.json").read_text())["rows"]
    words = "".join(
        path.read_text(errors="replace") for folder in (roots.logs, tmp_path / "logs") for path in folder.glob("*.log")
    )
    locked = words.count("database is locked")
    title = f"{frames} frames of a year, {kind}"
    figures.add(title, "results lost", frames - len(rows), "", goal=0)
    figures.add(title, "task bodies on record", sum(made.values()), "", detail=f"{BODIES_A_FRAME} a frame")
    # Prefect's server keeps 10000 events in memory at most and drops the others, on either database: where it gets too
    # little of the processor to follow, its history is incomplete. Products and records do not depend on it.
    missing = max(0, _TASK_RUNS_A_FRAME * frames - counted["COMPLETED"])
    dropped = words.count("Subscription queue is full")
    figures.add(title, "task runs missing in the history", missing, "", goal=0)
    figures.add(title, "events that the server dropped", dropped, "", goal=0, detail=f"task runs: {counted}")
    figures.add(title, "'database is locked' in the logs", locked, "", goal=0)
    figures.add(
        title,
        "time a frame",
        1e3 * said["wall_s"] / frames,
        "ms",
        detail=f"server {said['server_cpu_s']:.0f} s of processor",
    )
    for name, samples in (("server", servers), ("flow's process", done.samples)):
        most, grown = max(value for _, value in samples), growth(samples, frames, per=1000.0)
        figures.add(title, f"memory of the {name}, highest", most, "MB", detail=f"{grown:+.1f} MB per 1000 frames")

    assert said["status"] == 0
    assert flow["state"]["type"] == "COMPLETED", flow["state"]
    assert len(rows) == frames
    for stage in ("reduce", "measure", "solve", "model-psf", "publish"):
        assert made[stage] == frames, made
    assert counted["FAILED"] == counted["CRASHED"] == 0
    assert missing == 0 or dropped > 0, counted
    assert locked == 0
