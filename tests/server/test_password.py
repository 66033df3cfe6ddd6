"""A server with a password: nothing without it, everything of ours with it."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from models.base import Roots
from tests.server.installation import Installation

pytestmark = [pytest.mark.server, pytest.mark.slow]

_WORD = "observer:correct horse"


def test_nothing_without_the_password_and_everything_with_it(campaign, tmp_path):
    root = tmp_path / "guarded"
    root.mkdir()
    made = Installation(Roots(data=root, raw=campaign.roots.raw), PREFECT_SERVER_API_AUTH_STRING=_WORD)
    try:
        made.deployments("server", "--background")
        for path in ("/flow_runs/filter", "/deployments/filter"):
            request = urllib.request.Request(f"{made.url}/api{path}", b"{}", {"Content-Type": "application/json"})
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(request, timeout=30)
        assert "4 deployments" in made.deployments("deploy")
        assert "started" in made.deployments("worker", "--background")
        assert "answers" in made.deployments("status")
        done = made.run("flows.stack_target", "M67")  # a run from the shell beside it; there are no frames to stack
        assert f"Prefect server {made.url}" in done.stdout
        assert "no reduced frames of T120" in done.stdout + done.stderr

        known = made.environment.pop("PREFECT_SERVER_API_AUTH_STRING")
        for words in (None, "observer:wrong"):
            made.environment |= {"PREFECT_API_AUTH_STRING": words} if words else {}
            refused = made.run("deployments", "deploy")
            assert refused.returncode == 2
            assert "asks for a password" in refused.stdout + refused.stderr
            assert "Traceback" not in refused.stdout + refused.stderr
        made.environment |= {"PREFECT_API_AUTH_STRING": known}
        assert "answers" in made.deployments("status")
    finally:
        made.stop()


def test_another_address_than_loopback_is_warned_of(tmp_path):
    """An address for documentation (RFC 5737), which no machine has: nothing ever listens there."""
    made = Installation(Roots(data=tmp_path, raw=tmp_path / "raw"))
    done = made.run("deployments", "server", "--host", "192.0.2.1", timeout=120)
    assert done.returncode != 0
    assert f"whoever reaches 192.0.2.1:{made.port} can run commands on this machine as you" in done.stdout
    assert "PREFECT_SERVER_API_AUTH_STRING" in done.stdout
