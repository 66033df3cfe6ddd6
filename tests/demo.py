"""The demo's products, made once for all tests that read them, by the commands a newcomer types.

The fixture is registered by tests/conftest.py alone: registered twice, it would be made twice.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from models.base import Roots

REPO = Path(__file__).resolve().parents[1]


_OURS = {
    "OHP_CATALOG_MODE": "offline",
    "OHP_SIMBAD_URLS": "",  # no test asks the world for names, be it online otherwise
    "PREFECT_SERVER_API_PORT": "4",
}


class Demo(NamedTuple):
    """A finished demo and what it printed."""

    roots: Roots
    output: str
    errors: str
    status: int
    home: Path
    raw_before: dict[str, tuple[str, int]]


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    """Digest and modification time of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(*arguments: str, home: Path, timeout: float = 900, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one of our commands as a shell would, with a home folder of the test's own."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OHP_", "PREFECT_"))}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPO,
        env=clean | _OURS | {"HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """`make demo` in a folder of its own (about four minutes); with ``--demo DIR`` an existing one is read."""
    home = tmp_path_factory.mktemp("home")
    existing = request.config.getoption("--demo")
    if existing:
        root = Path(existing).resolve()
        return Demo(Roots(data=root, raw=root / "raw"), "", "", 0, home, snapshot(root / "raw"))
    root = tmp_path_factory.mktemp("demo") / "demo"
    simulated = run("flows.simulate_campaign", "--root", str(root), home=home)
    assert simulated.returncode == 0, simulated.stderr
    before = snapshot(root / "raw")
    done = run("flows.demo", "--root", str(root), home=home, timeout=1500)
    return Demo(Roots(data=root, raw=root / "raw"), done.stdout, done.stderr, done.returncode, home, before)
