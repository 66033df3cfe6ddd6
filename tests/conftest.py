"""Fixtures that all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The material beside the checkout; a test that needs it skips where it is absent."""
    folder = REPO.parent / "shared"
    if not folder.is_dir():
        # A worktree lies deeper than the checkout.
        folder = REPO.parent.parent / "shared"
    if not folder.is_dir():
        pytest.skip("../shared is not here: real frames, headers and recorded answers are tested only where it is")
    return folder
