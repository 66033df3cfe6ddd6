"""What the tests of the flows share with those of the demo's products."""

from __future__ import annotations

from tests.demo import REPO, Demo, run, snapshot

__all__ = ["REPO", "Demo", "run", "snapshot"]
