"""One small campaign, reduced and stacked once; every test works on its own copy of the whole data root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.base import Roots
from models.simulation import SimulationOptions
from tests.caching.site import GROUPS, YEAR, Site, copied, counted_bodies
from tests.demo import REPO

_SIDE = 768


@pytest.fixture(scope="package")
def api() -> Iterator[str]:
    """Address of a Prefect server for these tests; gone before other tests look at pool and signals."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    from flows._prefect import at_the_shell

    ours = {key: os.environ.pop(key) for key in list(os.environ) if key.startswith("OHP_")}
    with prefect_test_harness(server_startup_timeout=120), at_the_shell(2), counted_bodies():
        yield str(PREFECT_API_URL.value())
    os.environ.update(ours)


@pytest.fixture(scope="package")
def finished(api: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A night-pair of 2023: M67 and M51 in g and r, two frames of each, small frames; complete. Nobody writes here."""
    from tasks.simulation import simulate_campaign

    kept = request.config.getoption("--caching")
    root = Path(kept).resolve() if kept else tmp_path_factory.mktemp("caching") / "data"
    site = Site(Roots(data=root, raw=root / "raw"))
    options = SimulationOptions(
        seed=11, years=(YEAR,), fields=GROUPS, filters=("g", "r"), frames=2, biases=3, flats=3, size=_SIDE
    )
    simulate_campaign(site.roots, options, workers=2)
    profile = (REPO / "models" / "profiles" / "T120.toml").read_text()
    assert "shape = [1024, 1024]" in profile
    (root / "telescopes").mkdir(exist_ok=True)
    (root / "telescopes" / "T120.toml").write_text(profile.replace("[1024, 1024]", f"[{_SIDE}, {_SIDE}]"))
    ran = site.run()
    assert [(summary.n_asked, summary.n_made) for summary in ran.summaries] == [(8, 8), (2, 2), (2, 2)]
    return site


@pytest.fixture
def site(finished: Site, tmp_path: Path) -> Site:
    """A copy of the finished data root, which a test may change."""
    return copied(finished, tmp_path / "data")
