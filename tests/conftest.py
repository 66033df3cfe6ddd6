"""Fixtures that all tests share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

import pytest
from xdist.scheduler import LoadScopeScheduling

from models.base import Roots
from tests.demo import demo  # noqa: F401 (a fixture)

if TYPE_CHECKING:
    from astropy.table import Table
    from xdist.remote import Producer

    from models.simulation import Truth

REPO = Path(__file__).resolve().parents[1]

# No test asks the world for names; those of names bring a service of their own.
os.environ.setdefault("OHP_SIMBAD_URLS", "")


class Campaign(NamedTuple):
    """A simulated campaign on disk. Nobody writes into it."""

    roots: Roots
    truth: Truth
    stars: Table


@pytest.fixture(scope="session")
def shared() -> Path:
    """The material beside the checkout; a test that needs it skips where it is absent."""
    folder = REPO.parent / "shared"
    if not folder.is_dir():
        # A worktree lies deeper than the checkout.
        folder = REPO.parent.parent / "shared"
    if not folder.is_dir():
        pytest.skip("../shared is not here: real frames, headers and recorded answers are tested only where it is")
    return folder


@pytest.fixture(scope="session")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """One night-pair of 2023 on M67: g and r, 3 frames each, 5 biases, 4 flats a filter (about 6 s to make)."""
    from models.simulation import SimulationOptions
    from tasks.simulation import read_stars, simulate_campaign

    root = tmp_path_factory.mktemp("campaign")
    roots = Roots(data=root, raw=root / "raw")
    options = SimulationOptions(seed=11, years=(2023,), fields=("M67",), filters=("g", "r"), biases=5, flats=4)
    truth = simulate_campaign(roots, options, workers=2).truth
    return Campaign(roots, truth, read_stars(root))


@pytest.fixture
def campaign_roots(campaign: Campaign, tmp_path: Path) -> Roots:
    """A data root of the test's own, with the campaign's raw frames (to read) and catalogues (copied)."""
    shutil.copytree(campaign.roots.catalogs, tmp_path / "catalogs")
    return Roots(data=tmp_path, raw=campaign.roots.raw)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--demo DIR`: read an existing demo instead of making one; `--caching DIR`: the same for tests/caching."""
    parser.addoption("--demo", metavar="DIR", help="root of an existing `make demo`, instead of making one")
    parser.addoption("--caching", metavar="DIR", help="where tests/caching keeps its campaign between sessions")
    parser.addoption("--requests", type=int, default=200, help="tests/load: stack requests at once")
    parser.addoption("--busy", metavar="DIR", help="tests/load: a data root that its requests had before")
    parser.addoption("--year-frames", type=int, default=3000, help="tests/load: frames of the year")


_DEMO_FILES = ("test_demo.py", "test_demo_pages.py", "test_docs.py", "test_document.py", "test_quickstart.py")
_LONG = ("demo", "caching", "server", "flows/test_retry_queries.py", "flows/test_real.py", "flows/test_bad_input.py")


def _together(file: PurePath) -> str:
    """Name of what a test file, relative to ``tests``, shares costly products with."""
    if file.name in _DEMO_FILES:
        return "demo"
    if file.parts[0] == "faults" and file.name != "test_corpus.py":
        return "faults"
    return file.parts[0] if file.parts[0] in ("caching", "server") else file.as_posix()


class _Scheduling(LoadScopeScheduling):
    """Of two test processes, one makes the demo, the other the campaign of ``tests/caching``, and so on.

    pytest-xdist's own ``xdist_group`` has no effect with pytest 9.2, whose node ids cannot be set.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _together(PurePath(nodeid.split("::", 1)[0]).relative_to("tests"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _Scheduling:
    return _Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first, so that two processes end together."""

    def rank(item: pytest.Item) -> int:
        together = _together(item.path.relative_to(REPO / "tests"))
        return _LONG.index(together) if together in _LONG else len(_LONG)

    items.sort(key=rank)
