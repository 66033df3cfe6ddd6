"""What a release makes of its years and groups."""

from __future__ import annotations

import re

import numpy as np
import pytest
from prefect.client.schemas.objects import State, StateType

from flows import STATUS_FAILED, STATUS_OK, STATUS_PENDING
from flows._release import exit_status, part, release_summary
from models.base import Roots
from models.frame import FrameFailure
from models.run import RunContext, RunSummary
from models.settings import Settings
from tasks.core.errors import StageError, UserError
from tasks.core.tools import StoppedError
from tests.sourcelists.sky import place, stars


@pytest.fixture
def run(tmp_path):
    return RunContext.of("T120", Settings(data_root=tmp_path))


def came_to(outcome):
    kind = StateType.FAILED if isinstance(outcome, BaseException) else StateType.COMPLETED
    return lambda: State(type=kind, data=outcome)


def summary(made: int, asked: int, pending: int = 0, *failures: FrameFailure) -> RunSummary:
    return RunSummary(title="x", n_made=made, n_asked=asked, n_pending=pending, failures=failures)


def too_few(stage: str = "selection") -> FrameFailure:
    return FrameFailure(file="M92_r", stage=stage, reason="1 usable of 1 frames in r, 2 needed", remedy="observe more")


def test_all_well(run):
    parts = [
        part("2023", "reduce-year", run, came_to(summary(6, 6))),
        part("M67", "stack-target", run, came_to(summary(2, 2))),
    ]
    told = release_summary(parts, run)
    assert told.figures == {"2023": "6 of 6 frames calibrated", "M67": "2 of 2 stacks"}
    assert (told.n_made, told.n_asked, exit_status(told)) == (2, 2, STATUS_OK)
    assert (run.roots.data / "stacks" / "index.html").is_file()


def test_a_year_or_group_that_fails_is_named_and_the_others_count(run):
    parts = [
        part("2019", "reduce-year", run, came_to(UserError("no raw frames of 2019"))),
        part("2023", "reduce-year", run, came_to(summary(6, 6))),
        part("M51", "stack-target", run, came_to(StageError("align", "SCAMP died", "report it"))),
        part("M67", "stack-target", run, came_to(KeyError("mistake"))),
        part("M92", "stack-target", run, came_to(summary(0, 1, 0, too_few("combine")))),
    ]
    told = release_summary(parts, run)
    assert [failure.file for failure in told.failures] == ["2019", "M51", "M67", "M92"]
    assert told.figures["M51"] == "failed: SCAMP died"
    assert "unforeseen KeyError" in told.failures[2].reason
    assert list(run.roots.logs.glob("error-*-M67.log"))
    assert (told.n_made, told.n_asked, told.failed, exit_status(told)) == (1, 5, False, STATUS_FAILED)


def test_a_group_with_too_few_frames_is_no_failure(run):
    told = release_summary([part("M92", "stack-target", run, came_to(summary(0, 1, 0, too_few())))], run)
    assert told.failures == ()
    assert told.figures["M92"] == "0 of 1 stacks (1 left out or incomplete)"
    assert exit_status(told) == STATUS_OK


def test_what_waits_for_a_catalogue_is_pending(run):
    told = release_summary([part("2023", "reduce-year", run, came_to(summary(4, 6, 2)))], run)
    assert told.n_pending == 2
    assert exit_status(told) == STATUS_PENDING


def test_a_release_that_is_stopped_stops(run):
    with pytest.raises(StoppedError):
        part("2023", "reduce-year", run, came_to(StoppedError("combine")))


def test_years_share_one_look_at_the_raw_tree(campaign, tmp_path):
    """The part of the whole inventory is what an inventory of that year gives."""
    from models.telescope import load_telescope
    from tasks.inventory import of_years, take_inventory

    roots = Roots(data=tmp_path, raw=campaign.roots.raw)
    telescope = load_telescope("T120")
    whole = take_inventory(roots, telescope)
    assert of_years(whole, [2023]) == take_inventory(roots, telescope, [2023])
    assert whole.frames
    assert of_years(whole, [1999]) == take_inventory(roots, telescope, [1999])
    assert not of_years(whole, [1999]).frames


def test_its_tables_are_written(run):
    told = release_summary([part("2023", "reduce-year", run, came_to(summary(6, 6)))], run)
    assert told.files == ("stacks/index.html", "stacks/release.md", "stacks/release.json", "stacks/obscore.vot")
    for file in (
        "stacks/release.md",
        "stacks/release.json",
        "stacks/release_stacks.ecsv",
        "schemas/release.schema.json",
    ):
        assert (run.roots.data / file).is_file()
    assert "release.md" in (run.roots.data / "stacks" / "index.html").read_text()


def test_the_first_index_has_all_and_a_second_run_writes_nothing(tmp_path):
    """Groups' pages are the flow's of each group; what the release itself adds is what counts here."""
    roots = place(tmp_path, *stars(np.random.default_rng(5), 4)).roots
    run = RunContext.of("T120", Settings(data_root=tmp_path))
    parts = [part("X", "stack-target", run, came_to(summary(2, 2)))]

    def state():
        files = [*(tmp_path / "stacks").rglob("*"), *(tmp_path / "schemas").rglob("*")]
        return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files if path.is_file()}

    release_summary(parts, run)
    linked = set(re.findall(r'href="([^"#]+)"', (tmp_path / "stacks" / "index.html").read_text()))
    assert {path.name for path in roots.data.glob("stacks/*") if path.is_file()} - {"index.html"} <= linked
    assert {"obscore.vot", "T120_moc.fits", "T120_Rc_moc.fits", "release.json"} <= linked
    before = state()
    release_summary(parts, run)
    assert state() == before


def test_tables_that_cannot_be_made_cost_the_release_nothing_else(run):
    (run.roots.data / "stacks").mkdir()
    (run.roots.data / "stacks" / "stack_all_report.json").write_text("{")
    told = release_summary([part("2023", "reduce-year", run, came_to(summary(6, 6)))], run)
    assert (told.n_made, told.n_asked) == (1, 1)
    assert [failure.file for failure in told.failures] == ["release tables"]
    assert "stack_all_report.json cannot be read" in told.failures[0].reason
    assert exit_status(told) == STATUS_FAILED
    assert told.files == ("stacks/index.html",)
