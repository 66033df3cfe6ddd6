"""Prefect's interface in a real browser: pages, form, and Retry on a run that waits for a catalogue."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.base import Roots
from tests.server.browser import CHROMIUM, Page, browser
from tests.server.installation import Installation, until

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.tools,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: Prefect's interface is not tested in a browser"),
]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with browser(tmp_path / "browser") as tab:
        yield tab


def pictures() -> Path:
    """Where the screenshots go, for a person to look at."""
    folder = Path(__file__).resolve().parents[2] / "data" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_pages_of_deployments_form_and_run(installation, page):
    run = installation.begin("stack-target", group="M67")
    assert installation.end_of(run)["type"] == "COMPLETED"

    page.open(f"{installation.url}/deployments", "build-release")
    for text in ("reduce-year", "stack-target", "At 09:00 AM", "scheduled", "on-demand"):
        assert text in page.text
    page.picture(pictures() / "deployments.png")

    identity = installation.deployment("stack-target")["id"]
    page.open(f"{installation.url}/deployments/deployment/{identity}", "flows/stack_target.py:stack_target")
    page.press("Description")
    page.until_shown("to one stack a filter, with its page")
    page.open(f"{installation.url}/deployments/deployment/{identity}/run", "Target group to stack")
    page.press("Change some")
    page.until_shown("combination of the frames: ")
    page.picture(pictures() / "form.png", height=2400)

    page.open(f"{installation.url}/runs/flow-run/{run}", "what ran")
    page.picture(pictures() / "flow_run.png")
    page.press("Artifacts")
    page.until_shown("stack-all-report-m67-t120")
    page.picture(pictures() / "artifacts.png", height=1600)
    outside = [url for url in page.asked if not url.startswith((installation.url, "data:", "blob:", "about:"))]
    assert outside == []


def test_the_form_starts_a_run_with_what_was_filled_in_alone(installation, page):
    identity = installation.deployment("stack-target")["id"]
    page.open(f"{installation.url}/deployments/deployment/{identity}/run?parameters=%7B%22group%22:%22M67%22%7D", "M67")
    body = {"deployments": {"id": {"any_": [identity]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 200}
    before = {each["id"] for each in installation.post("/flow_runs/filter", body)}
    page.press("Submit")
    (newest,) = until(
        lambda: [each for each in installation.post("/flow_runs/filter", body) if each["id"] not in before],
        30,
        "the run",
    )
    assert newest["parameters"]["group"] == "M67"
    assert newest["parameters"].get("settings") is None
    assert installation.end_of(newest["id"])["type"] == "COMPLETED"


@pytest.fixture
def waiting(campaign, tmp_path) -> Iterator[Installation]:
    """An installation without any catalogue."""
    root = tmp_path / "waiting"
    root.mkdir()
    made = Installation(Roots(data=root, raw=campaign.roots.raw))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_retry_finishes_exactly_the_rest(waiting, campaign, page):
    """First from the command line, when Gaia has come; then the button, when PS1 has."""
    run = waiting.begin("reduce-year", year=2023)
    assert waiting.end_of(run)["name"] == "CompletedWithPending"
    first = Counter(entry["stage"] for entry in waiting.made())
    assert first["reduce"] == first["measure"] == 6
    assert "solve" not in first

    def retried(press) -> Counter[str]:
        lines, attempts = len(waiting.made()), waiting.get(f"/flow_runs/{run}")["run_count"]
        press()
        until(lambda: waiting.get(f"/flow_runs/{run}")["run_count"] > attempts, 90, "the second try")
        waiting.end_of(run)
        return Counter(entry["stage"] for entry in waiting.made()[lines:])

    def from_the_command_line() -> None:
        done = waiting.run("prefect", "--no-prompt", "flow-run", "retry", run)
        assert done.returncode == 0, done.stdout + done.stderr

    def in_the_browser() -> None:
        page.open(f"{waiting.url}/runs/flow-run/{run}", "CompletedWithPending")
        page.press("Retry")
        page.until_shown("This will retry flow run")
        page.press("Retry", last=True)

    waiting.environment |= {
        "PREFECT_API_URL": f"{waiting.url}/api",
        "PREFECT_HOME": str(waiting.roots.data / ".prefect"),
    }
    shutil.copytree(campaign.roots.catalogs / "gaia", waiting.roots.catalogs / "gaia")
    second = retried(from_the_command_line)
    assert waiting.state(run)["name"] == "CompletedWithPending"
    assert second["solve"] == 6
    assert not {"reduce", "measure", "master-bias", "master-flat"} & set(second)

    shutil.copytree(campaign.roots.catalogs / "ps1", waiting.roots.catalogs / "ps1")
    third = retried(in_the_browser)
    assert waiting.state(run)["type"] == "COMPLETED"
    assert waiting.state(run)["name"] != "CompletedWithPending"
    assert third["calibrate"] >= 6
    assert set(third) <= {"calibrate", "model-psf", "publish"}, third

    assert retried(from_the_command_line) == {}
