"""Who may speak to Prefect's API: this machine's programs and the interface's own page, nobody else."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytestmark = [pytest.mark.server, pytest.mark.tools]

_ELSEWHERE = "https://somewhere-else.example"


def answer(installation, origin: str | None, method: str = "POST", kind: str | None = "application/json"):
    """Status and headers of what creates a run, as a browser asks it for a page of `origin`."""
    identity = installation.deployment("stack-target")["id"]
    path = f"{installation.url}/api/deployments/{identity}/create_flow_run"
    headers = {"Origin": origin} if origin else {}
    if method == "OPTIONS":
        headers |= {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    elif kind:
        headers["Content-Type"] = kind
    body = json.dumps({"parameters": {"group": 7}}).encode() if method == "POST" else None
    request = urllib.request.Request(path, body, headers, method=method)
    # urllib puts a type of its own where there is none.
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def test_it_listens_on_loopback_only(installation):
    """What the kernel says of the port, not what a setting says."""
    wanted = f"{installation.port:04X}"
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if local.endswith(f":{wanted}") and state == "0A":  # LISTEN
                found.add(local.partition(":")[0])
    assert found == {"0100007F"}  # 127.0.0.1, in the order of this machine's bytes


def test_a_page_from_elsewhere_may_not_start_runs(installation):
    """A browser asks first (OPTIONS) whether a page may send JSON; without a yes it does not send it."""
    status, headers = answer(installation, _ELSEWHERE, "OPTIONS")
    assert status == 400
    assert headers.get("Access-Control-Allow-Origin") is None
    for host in ("127.0.0.1", "localhost"):
        status, headers = answer(installation, f"http://{host}:{installation.port}", "OPTIONS")
        assert status == 200
        assert headers["Access-Control-Allow-Origin"] == f"http://{host}:{installation.port}"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_what_a_browser_sends_without_asking_is_refused(installation, kind):
    """A form or a script may send these types without asking first."""
    runs = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING"]}}}, "limit": 200}
    before = len(installation.post("/flow_runs/filter", runs))
    status, headers = answer(installation, _ELSEWHERE, kind=kind)
    assert status == 422
    assert headers.get("Access-Control-Allow-Origin") is None
    assert len(installation.post("/flow_runs/filter", runs)) == before
