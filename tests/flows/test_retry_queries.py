"""A service is down: what can be made is made, the rest is pending, and each way of going on finishes just that."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from flows._pending import settings_of, waiting_runs
from models.base import Roots
from models.settings import Settings
from tasks.catalogs import find_cone, read_cone
from tasks.core.ledger import read_made, size
from tests.catalogs.archive import Archive
from tests.flows.conftest import run, snapshot

N_FRAMES = 6


def made_since(root: Path, start: int) -> Counter[str]:
    return Counter(entry.stage for entry in read_made(Roots(data=root, raw=root / "raw"), start))


def ledger(root: Path) -> int:
    return size(Roots(data=root, raw=root / "raw"))


class Observatory:
    """A data root without PS1, and an archive that has it but is down."""

    def __init__(self, root: Path, raw: Path, archive: Archive, beside: dict[str, str]) -> None:
        self.root, self.raw, self.archive, self.beside = root, raw, archive, beside

    def command(self, *arguments: str, root: Path | None = None):
        return run(
            *arguments,
            "--root",
            str(root or self.root),
            "--raw-root",
            str(self.raw),
            home=self.root,
            OHP_CATALOG_MODE="online",
            OHP_PS1_URLS=self.archive.mast,
            OHP_CATALOGS__RETRIES="0",
            **self.beside,
        )


@pytest.fixture(scope="module")
def waiting(campaign, beside, tmp_path_factory):
    """A year and a group made while PS1 is down."""
    root = tmp_path_factory.mktemp("waiting")
    shutil.copytree(campaign.roots.catalogs / "gaia", root / "catalogs" / "gaia")
    cone = json.loads(next((campaign.roots.catalogs / "ps1").glob("*.json")).read_text())["cone"]
    from models.catalog import Cone

    stored = find_cone("ps1", Cone(**cone), campaign.roots)
    with Archive(read_cone(stored, campaign.roots)) as archive:
        archive.moods = ["503"]
        there = Observatory(root, campaign.roots.raw, archive, beside)
        year = there.command("flows.reduce_year", "2023", "--photometry-faint-mag", "19.5")
        group = there.command("flows.stack_target", "M67")
        archive.moods = ["answer"]
        yield there, year, group


def test_what_needs_no_ps1_is_finished_and_the_rest_is_said_to_be_pending(waiting):
    there, year, group = waiting
    assert year.returncode == 75, year.stdout + year.stderr
    assert "plate solutions  6" in year.stdout
    assert "PSF models       6" in year.stdout
    assert "pending" in year.stdout
    assert "503" in year.stdout
    assert "Traceback" not in year.stderr
    assert group.returncode == 75, group.stdout + group.stderr
    rows = json.loads((there.root / "2023" / "T120" / "photometry" / "phot_report.json").read_text())["rows"]
    assert [row["status"] for row in rows] == ["PENDING"] * N_FRAMES
    page = (there.root / "stacks" / "M67" / "T120" / "index.html").read_text()
    assert "pending" in page
    assert "503" in page


def test_a_run_that_waits_is_noted_with_its_question_and_its_settings(waiting):
    there, _, _ = waiting
    roots = Roots(data=there.root, raw=there.raw)
    year, group = waiting_runs(roots, "T120")
    assert (year.flow, year.subject, year.n_pending) == ("reduce_year", "2023", N_FRAMES)
    assert (group.flow, group.subject) == ("stack_target", "M67")
    assert [question.catalogue for question in year.unanswered] == ["ps1"]
    assert waiting_runs(roots, "T080") == []
    taken_up = settings_of(year, Settings(data_root=there.root, workers=1))
    assert taken_up.photometry.faint_mag == 19.5
    assert taken_up.workers == 1
    assert taken_up.data_root == there.root


def test_nothing_is_asked_again_in_vain(waiting, tmp_path):
    """While the archive is down nothing runs, and what waits goes on waiting."""
    there, _, _ = waiting
    there.archive.moods = ["503"]
    root = tmp_path / "copy"
    shutil.copytree(there.root, root)
    before = ledger(root)
    asked = len(there.archive.questions)
    again = there.command("flows.retry_queries", root=root)
    there.archive.moods = ["answer"]
    assert again.returncode == 75, again.stdout + again.stderr
    assert "0 of 1 answered" in again.stdout
    assert len(there.archive.questions) == asked + 1
    assert not made_since(root, before)
    assert len(waiting_runs(Roots(data=root, raw=there.raw), "T120")) == 2


def _retry(there: Observatory, root: Path) -> list:
    return [there.command("flows.retry_queries", root=root)]


def _again(there: Observatory, root: Path) -> list:
    return [
        there.command("flows.reduce_year", "2023", "--photometry-faint-mag", "19.5", root=root),
        there.command("flows.stack_target", "M67", root=root),
    ]


WAYS: dict[str, Callable[[Observatory, Path], list]] = {"retry_queries": _retry, "the same commands": _again}


@pytest.mark.parametrize("way", ["retry_queries", pytest.param("the same commands", marks=pytest.mark.slow)])
def test_each_way_of_going_on_finishes_the_rest_and_nothing_else(waiting, tmp_path, way):
    there, _, _ = waiting
    root = tmp_path / "copy"
    shutil.copytree(there.root, root)
    before, asked = ledger(root), len(there.archive.questions)
    for done in WAYS[way](there, root):
        assert done.returncode == 0, done.stdout + done.stderr
    # A wide field is asked of MAST in several circles; none of them twice, and none for the stack.
    new = there.archive.questions[asked:]
    assert new
    assert len(set(new)) == len(new)
    made = made_since(root, before)
    # What PS1 has a say in: the zero point (alone, then with the year's colour term), the PSF's stars and the header.
    assert made["calibrate"] in (N_FRAMES, 2 * N_FRAMES)
    assert made["publish"] == N_FRAMES
    untouched = {"master-bias", "master-flat", "reduce", "measure", "build-index", "solve"}
    assert not untouched & set(made), made
    rows = json.loads((root / "2023" / "T120" / "photometry" / "phot_report.json").read_text())["rows"]
    assert {row["status"] for row in rows} == {"OK"}
    checks = json.loads((root / "stacks" / "phot_check_report.json").read_text())["rows"]
    assert {row["filter"] for row in checks} == {"g", "r"}
    assert waiting_runs(Roots(data=root, raw=there.raw), "T120") == []
    products = snapshot(root / "stacks")
    quiet = there.command("flows.retry_queries", root=root)
    assert (quiet.returncode, quiet.stdout.strip()) == (0, "nothing is pending")
    assert snapshot(root / "stacks") == products
