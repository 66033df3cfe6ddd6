"""What the tests of the flows share with those of the demo's products."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.processes import server
from tests.demo import REPO, Demo, run, snapshot

__all__ = ["REPO", "Demo", "beside", "run", "snapshot"]


@pytest.fixture(scope="session")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment of commands beside one running Prefect server: an embedded one would cost each ten seconds."""
    root = tmp_path_factory.mktemp("server")
    with server(root, root / "server.log") as running:
        yield {"PREFECT_API_URL": running.url}
