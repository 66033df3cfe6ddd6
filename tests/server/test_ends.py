"""How runs of deployments end: cancelled, terminated, killed; nothing left running, the next one carries on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.server.installation import REPO, until

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.tools]

ALL = ["align-group", "select-frames", "grid", "combine", "psf-of-stack", "tie-to-ps1", "validate", "finish-stack"]


def at_work(installation) -> str:
    """A run of `stack-target` that makes everything anew, with a tool at work."""
    run = installation.begin("stack-target", group="M67", refresh=ALL)
    installation.tool()
    return run


def test_cancelling_from_the_interface(installation):
    run = at_work(installation)
    asked = time.monotonic()
    installation.post(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    until(lambda: not installation.processes(), 10, "the end of tools and processes")
    assert time.monotonic() - asked < 10
    assert installation.end_of(run, 60)["type"] == "CANCELLED"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_to_the_flow_process_alone(installation, number):
    run = at_work(installation)
    os.kill(installation.flow_process(), number)
    until(lambda: not installation.processes(), 10, "the end of tools and processes")
    assert installation.end_of(run, 30)["type"] == "CRASHED"
    assert not list(installation.roots.data.rglob("*.tmp"))


def test_a_killed_flow_process_is_marked_and_the_next_run_carries_on(installation):
    before = len(installation.made())
    run = at_work(installation)
    until(lambda: "align-group" in [each["stage"] for each in installation.made()[before:]], 120, "the alignment")
    installation.tool()
    os.kill(installation.flow_process(), signal.SIGKILL)
    assert installation.end_of(run, 60)["type"] == "CRASHED"
    until(lambda: not installation.processes(), 20, "the end of what the killed process left")
    lines = len(installation.made())
    state = installation.end_of(installation.begin("stack-target", group="M67"))
    assert state["type"] == "COMPLETED"
    rest = [entry["stage"] for entry in installation.made()[lines:]]
    assert "combine" in rest
    assert "align-group" not in rest, rest


def test_a_killed_worker(installation):
    """Its run goes on or is marked; a new worker takes over, and the next run does what is left."""
    run = at_work(installation)
    os.kill(installation.holder("worker"), signal.SIGKILL)
    assert "started" in installation.deployments("worker", "--background")
    state = installation.end_of(run)
    assert state["type"] in ("COMPLETED", "CRASHED"), state
    state = installation.end_of(installation.begin("stack-target", group="M67"))
    assert state["type"] == "COMPLETED"
    until(lambda: not installation.processes(), 30, "the end of all processes")
    lines = len(installation.made())
    assert installation.end_of(installation.begin("stack-target", group="M67"))["type"] == "COMPLETED"
    assert len(installation.made()) == lines


def test_a_killed_run_of_the_shell_is_marked_by_the_next(installation):
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.stack_target", "M67", "--combine", "weighted"],
        cwd=REPO, env=installation.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    installation.tool()
    process.kill()
    process.wait()
    body = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    (lost,) = installation.post("/flow_runs/filter", body)
    done = installation.run("flows.stack_target", "M67", "--combine", "weighted")
    assert done.returncode == 0, done.stdout + done.stderr
    state = installation.state(lost["id"])
    assert state["type"] == "CRASHED"
    assert "was killed" in state["message"]


def test_a_second_request_waits_for_its_turn(installation):
    first = at_work(installation)
    second = installation.begin("stack-target", group="M67")
    until(lambda: installation.state(second)["name"] == "AwaitingConcurrencySlot", 60, "the second to wait")
    assert installation.end_of(first)["type"] == "COMPLETED"
    assert installation.end_of(second)["type"] == "COMPLETED"
    times = [installation.get(f"/flow_runs/{run}") for run in (first, second)]
    assert times[0]["end_time"] <= times[1]["start_time"]


def test_a_second_scheduled_run_at_the_same_time_is_cancelled(installation):
    first = installation.begin("reduce-year", year=2023, refresh=["measure", "solve"])
    until(lambda: installation.state(first)["type"] == "RUNNING", 90, "the first to run")
    second = installation.begin("reduce-year", year=2023)
    assert installation.end_of(second, 90)["type"] == "CANCELLED"
    assert installation.end_of(first)["type"] == "COMPLETED"
