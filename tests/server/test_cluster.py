"""PostgreSQL and Dask: what one machine does is done bit for bit by a cluster."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from pathlib import Path

import pytest
from astropy.io import fits

from models.base import Roots
from tests.server.cluster import count_flow_runs, dask, postgres, postgres_programs
from tests.server.installation import Installation

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.tools,
    pytest.mark.skipif(
        importlib.util.find_spec("prefect_dask") is None,
        reason="prefect-dask is not installed here (scripts/setup --cluster): runs on Dask are not tested",
    ),
    pytest.mark.skipif(
        postgres_programs() is None, reason="PostgreSQL is not installed here: Prefect on PostgreSQL is not tested"
    ),
]

DATED = ("PROCDATE", "CHECKSUM", "DATASUM")


def contents(path: Path) -> str:
    """Digest of a product: bytes of its data, cards of its headers but for the dates."""
    if path.suffix != ".fits":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    with fits.open(path, memmap=False) as hdus:
        for hdu in hdus:
            cards = [str(card) for card in hdu.header.cards if card.keyword not in DATED]
            digest.update("\n".join(cards).encode())
            digest.update(b"" if hdu.data is None else hdu.data.tobytes())
    return digest.hexdigest()


def products(root: Path) -> dict[str, str]:
    """Digests of all frames, masters, stacks, PSFs and heads."""
    return {
        path.relative_to(root).as_posix(): contents(path)
        for pattern in ("[0-9]*/**/*", "stacks/**/*")
        for path in sorted(root.glob(pattern))
        if path.suffix in (".fits", ".head", ".psf")
    }


def made_on(campaign, root: Path, address: str | None, database: str | None) -> Installation:
    shutil.copytree(campaign.roots.catalogs, root / "catalogs")
    environment = {"OHP_DASK_SCHEDULER": address} if address else {}
    environment |= {"PREFECT_API_DATABASE_CONNECTION_URL": database} if database else {}
    made = Installation(Roots(data=root, raw=campaign.roots.raw), **environment)
    made.deployments("server", "--background")
    try:
        for command in (("flows.reduce_year", "2023"), ("flows.stack_target", "M67")):
            done = made.run(*command, timeout=600)
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        made.stop()
    return made


def test_a_cluster_makes_the_same_products(campaign, tmp_path):
    alone = made_on(campaign, tmp_path / "alone", None, None)
    with (
        postgres(tmp_path / "database") as database,
        dask(tmp_path / "dask", alone.environment) as address,
    ):
        together = made_on(campaign, tmp_path / "together", address, database)
        assert count_flow_runs(database) == 2
    expected = products(alone.roots.data)
    assert len(expected) == 28
    assert products(together.roots.data) == expected
    assert [entry["stage"] for entry in together.made()].count("reduce") == 6
    # a client that asked the scheduler: the flow's own process made no frame
    assert (tmp_path / "dask" / "dask.log").read_text().count("Receive client connection: PrefectDaskClient") == 2
