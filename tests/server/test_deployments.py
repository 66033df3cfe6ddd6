"""The deployments on a real server and worker."""

from __future__ import annotations

import pytest

from tests.server.installation import until

pytestmark = [pytest.mark.server, pytest.mark.tools]


def test_stack_target_runs_to_completed(installation):
    """From the data that a run from the shell made; a second run makes nothing."""
    reduced = len(installation.made())
    assert reduced > 6
    first = installation.begin("stack-target", group="M67")
    state = installation.end_of(first)
    assert state["type"] == "COMPLETED", state
    names = {each["name"] for each in installation.task_runs(first)}
    assert {"select M67 g", "SWarp M67 r", "finish M67 g", "finish M67 r"} <= names
    assert state["message"].startswith("2 of 2 made")
    stacks = sorted(path.name for path in installation.roots.data.glob("stacks/M67/T120/M67_?.fits"))
    assert stacks == ["M67_g.fits", "M67_r.fits"]
    made = installation.made()
    assert {entry["stage"] for entry in made[reduced:]} >= {"align-group", "combine", "finish-stack"}
    again = installation.begin("stack-target", group="M67")
    assert installation.end_of(again)["type"] == "COMPLETED"
    assert installation.made() == made
    until(lambda: not installation.processes(), 30, "the end of the run's process")
    logs = installation.post("/logs/filter", {"logs": {"flow_run_id": {"any_": [again]}}})
    assert any(line["name"] == "ohp.run" and "what ran: nothing" in line["message"] for line in logs), logs


def test_the_forms_offer_lists_and_help(installation):
    schema = installation.deployment("stack-target")["parameter_openapi_schema"]["properties"]
    assert {"M51", "M67", "ZZ_Ceti_field"} <= set(schema["group"]["enum"])
    assert schema["telescope"]["enum"] == ["T080", "T120"]
    assert all(each["description"] for each in schema.values())
    form = next(each for each in schema["settings"]["anyOf"] if each["type"] == "object")["properties"]
    assert "data_root" not in form
    combine = form["stack"]["properties"]["combine"]
    assert combine["enum"] == ["median", "weighted", "clipped"]
    assert combine["description"].startswith("combination of the frames: ")
    assert combine["description"].endswith(" (default: median)")
    assert "default" not in str(form).replace("(default", "")


def test_deployments_run_alone_and_on_time(installation):
    crons = {
        "reduce-year": ["0 9 * * *"],
        "stack-target": [],
        "build-release": ["0 12 * * SUN"],
        "retry-queries": ["30 */2 * * *"],
    }
    for name, expected in crons.items():
        deployment = installation.deployment(name)
        assert deployment["global_concurrency_limit"]["limit"] == 1
        # A stack that somebody asked for is nobody else's to make: it waits for its turn.
        waits = name == "stack-target"
        assert deployment["concurrency_options"]["collision_strategy"] == ("ENQUEUE" if waits else "CANCEL_NEW")
        assert [each["schedule"]["cron"] for each in deployment["schedules"]] == expected
        assert deployment["description"]
        assert "ohp" in deployment["tags"]


def test_a_year_without_frames_is_no_failure_of_the_nightly_run(installation):
    state = installation.end_of(installation.begin("reduce-year"))
    assert state["name"] == "Completed"
    assert "no raw frames of" in state["message"]


def test_nothing_pending_takes_no_time(installation):
    run = installation.begin("retry-queries")
    assert installation.end_of(run)["name"] == "NothingPending"
    assert installation.get(f"/flow_runs/{run}")["total_run_time"] < 5


def test_starting_twice_does_nothing(installation):
    before = installation.holder("server"), installation.holder("worker")
    assert "runs already" in installation.deployments("server", "--background")
    assert "runs already" in installation.deployments("worker", "--background")
    installation.deployments("deploy")
    assert (installation.holder("server"), installation.holder("worker")) == before


def test_a_release_of_what_is_made_makes_nothing(installation):
    """After the two runs above, from the shell and as a deployment."""
    assert installation.end_of(installation.begin("stack-target", group="M67"))["type"] == "COMPLETED"
    made = installation.made()
    done = installation.run("flows.build_release")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 frames calibrated" in done.stdout
    assert "2 of 2 stacks" in done.stdout
    run = installation.begin("build-release")
    assert installation.end_of(run)["message"] == "2 of 2 made, 0 problems"
    assert installation.made() == made
