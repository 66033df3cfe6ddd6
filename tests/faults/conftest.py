"""A server for the flows, a small campaign, and what an undisturbed run makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.place import Place, simulated


@pytest.fixture(scope="package")
def api() -> Iterator[str]:
    """Address of a Prefect server: one of their own would cost the commands ten seconds each."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield str(PREFECT_API_URL.value())


@pytest.fixture(scope="package")
def campaign_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw frames and catalogues of four science frames of M67. Nobody writes here."""
    root = tmp_path_factory.mktemp("machine") / "campaign"
    simulated(root)
    return root


@pytest.fixture(scope="package")
def undisturbed(campaign_root: Path, api: str, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The same, reduced and stacked with nothing in the way."""
    place = Place.beside(campaign_root, tmp_path_factory.mktemp("undisturbed") / "data", api)
    place.complete()
    return place
