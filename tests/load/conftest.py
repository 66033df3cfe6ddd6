"""What the load tests share: a finished data root, and a place for their figures, shown when they have ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.base import Roots
from models.simulation import SimulationOptions
from tests.demo import REPO
from tests.load.figures import GROUPS, Figures

_FIGURES = pytest.StashKey[Figures]()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Rows for docs/measured.md."""
    return request.config.stash.setdefault(_FIGURES, Figures())


@pytest.fixture(scope="session")
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root of two groups, reduced and stacked once for all tests (`--busy DIR`: one that is there). To read."""
    from tasks.simulation import simulate_campaign

    if existing := request.config.getoption("--busy"):
        return Path(existing)
    root = tmp_path_factory.mktemp("finished")
    options = SimulationOptions(
        seed=11, years=(2023,), fields=GROUPS, filters=("g", "r"), frames=2, biases=3, flats=3, oddities=False
    )
    simulate_campaign(Roots(data=root, raw=root / "raw"), options, workers=2)
    environment = os.environ | {"OHP_CATALOG_MODE": "offline", "OHP_SIMBAD_URLS": "", "HOME": str(root)}
    for arguments in (("flows.reduce_year", "2023"), ("flows.stack_target", *GROUPS)):
        command = [sys.executable, "-m", *arguments, "--root", str(root)]
        done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return root


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash.get(_FIGURES, None)
    if found is not None and found.rows:
        terminalreporter.section("load: rows for docs/measured.md")
        terminalreporter.write_line("\n".join(found.rows))
