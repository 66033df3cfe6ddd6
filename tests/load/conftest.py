"""What the load tests share: a place for their figures, shown when they have ended."""

from __future__ import annotations

import pytest

from tests.load.figures import Figures

_FIGURES = pytest.StashKey[Figures]()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Rows for docs/measured.md."""
    return request.config.stash.setdefault(_FIGURES, Figures())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash.get(_FIGURES, None)
    if found is not None and found.rows:
        terminalreporter.section("load: rows for docs/measured.md")
        terminalreporter.write_line("\n".join(found.rows))
