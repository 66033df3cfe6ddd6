"""Every package that is installed has its version and hashes in a lock file, and is installed only so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
STEMS = ("requirements", "requirements-cluster", "requirements-docs", "requirements-bench", "requirements-audit")
_LOCKED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==([^ ;\\]+)")


def requirements(path: Path) -> list[str]:
    """Requirements of a file, each with its continued lines."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


@pytest.mark.parametrize("stem", STEMS)
def test_each_is_pinned_with_hashes_and_from_no_other_place(stem):
    found = requirements(REPO / f"{stem}.lock")
    assert len(found) > 20
    for line in found:
        assert _LOCKED.match(line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", line), line
        assert "://" not in line
        assert not line.startswith("-")


@pytest.mark.parametrize("stem", STEMS)
def test_what_is_asked_for_is_locked(stem):
    locked = {_LOCKED.match(line)[1].lower() for line in requirements(REPO / f"{stem}.lock")}
    asked = {re.split(r"[\[<>=!~ ;]", line)[0].lower() for line in requirements(REPO / f"{stem}.in")}
    assert asked <= locked


def test_no_installer_goes_round_the_hashes():
    for path in (REPO / "scripts" / "setup", REPO / "scripts" / "audit", REPO / "Makefile", REPO / ".ci" / "run"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.search(r"\bpip3? install\b", line):
                assert "--require-hashes" in line, (path, line)
                assert "--no-deps" in line, (path, line)
