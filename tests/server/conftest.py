"""A small campaign, reduced; and an installation over it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from models.base import Roots
from tests.server.installation import Installation


@pytest.fixture(scope="session")
def installation(campaign, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Server, worker and deployments over the small campaign, whose year is reduced from the shell."""
    root = tmp_path_factory.mktemp("installation")
    shutil.copytree(campaign.roots.catalogs, root / "catalogs")
    (root / "targets.toml").write_text("[ZZ_Ceti_field]\nra = 23.5\ndec = -17.6\n")
    made = Installation(Roots(data=root, raw=campaign.roots.raw))
    try:
        made.start()
        done = made.run("flows.reduce_year", "2023")
        assert done.returncode == 0, done.stdout + done.stderr
        yield made
    finally:
        made.stop()
