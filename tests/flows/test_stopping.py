"""Runs that are stopped or lose a worker: quick to end, nothing left running, nothing lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.flows.conftest import REPO

pytestmark = [pytest.mark.tools]


@contextmanager
def reducing(campaign, root: Path) -> Iterator[subprocess.Popen[str]]:
    """`reduce_year` at work: its first reduced frame is there."""
    shutil.copytree(campaign.roots.catalogs, root / "catalogs")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OHP_", "PREFECT_"))}
    raw = ["--raw-root", str(campaign.roots.raw)]
    with subprocess.Popen(
        [sys.executable, "-m", "flows.reduce_year", "2023", "--root", str(root), *raw],
        cwd=REPO,
        env=clean | {"HOME": str(root), "OHP_CATALOG_MODE": "offline", "PREFECT_SERVER_API_PORT": "4"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        end = time.monotonic() + 120
        while not list(root.glob("2023/T120/reduced/*/*.fits")) and time.monotonic() < end:
            time.sleep(0.1)
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def _workers(pid: int) -> list[int]:
    """Processes of the pool: children of the fork server, which is a child of the flow."""
    return [
        worker
        for child in _children(pid)
        if b"forkserver" in Path(f"/proc/{child}/cmdline").read_bytes()
        for worker in _children(child)
    ]


def _left(root: Path) -> dict[str, str]:
    """Processes that have to do with a data root, by what their command line or environment says."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            said = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            if str(root).encode() in said:
                found[folder.name] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or somebody else's
            continue
    return found


@pytest.mark.parametrize(
    ("number", "whom"),
    [("SIGINT", "group"), pytest.param("SIGTERM", "group", marks=pytest.mark.slow), ("SIGTERM", "process")],
)
def test_stopping_is_quick_and_leaves_nothing_running(campaign, tmp_path, number, whom):
    """To the whole group, as a terminal's Ctrl-C does, or to the flow alone, as ``kill`` does."""
    with reducing(campaign, tmp_path) as process:
        asked = time.monotonic()
        tell = os.killpg if whom == "group" else os.kill
        tell(process.pid, getattr(signal, number))
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - asked < 10
        assert process.returncode != 0
        assert "Traceback" not in errors
        end = time.monotonic() + 10
        while (left := _left(tmp_path)) and time.monotonic() < end:
            time.sleep(0.2)
        assert not left
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_killed_worker_costs_no_frame(campaign, tmp_path):
    with reducing(campaign, tmp_path) as process:
        workers = _workers(process.pid)
        assert workers
        os.kill(workers[0], signal.SIGKILL)
        output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, output + errors
    assert "reduced          6 of 6 science frames" in output
    assert "PSF models       6" in output
    assert "Traceback" not in errors
