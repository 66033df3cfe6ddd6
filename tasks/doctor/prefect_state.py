"""How Prefect will run: beside which server, with its state where. Nothing but the loopback address is asked."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from models.base import Roots
from tasks.core.home import prefect_home
from tasks.doctor.check import Check

__all__ = ["check_prefect"]

_WAIT_S = 0.3
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _answers(url: str) -> bool:
    if urlsplit(url).scheme not in ("http", "https"):
        return False
    # No proxy: a look at this machine must not become a request to another one.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url.rstrip('/')}/health", timeout=_WAIT_S) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _server() -> Check:
    given = os.environ.get("PREFECT_API_URL")
    url = given or f"http://127.0.0.1:{os.environ.get('PREFECT_SERVER_API_PORT', '4200')}/api"
    if given and urlsplit(url).hostname not in _LOOPBACK:
        found = f"{url} (PREFECT_API_URL); on another machine: not asked from here"
        return Check(subject="Prefect", name="server", state="note", found=found, mend=f"curl {url}/health tells")
    if _answers(url):
        return Check(subject="Prefect", name="server", state="ok", found=f"{url} answers")
    if given:
        return Check(
            subject="Prefect", name="server", state="missing", found=f"{url} (PREFECT_API_URL) does not answer",
            mend="prefect server start, or unset PREFECT_API_URL: a run then starts its own",
        )  # fmt: skip
    return Check(
        subject="Prefect", name="server", state="ok",
        found="none runs: each run starts an embedded one (about 10 s; prefect server start saves them)",
    )  # fmt: skip


def check_prefect(roots: Roots) -> list[Check]:
    """Server and home folder of Prefect, as a run of ours will have them."""
    home = Path(os.environ.get("PREFECT_HOME") or prefect_home(roots)).expanduser()
    given = " (PREFECT_HOME)" if os.environ.get("PREFECT_HOME") else ""
    base = home
    while not base.exists() and base != base.parent:
        base = base.parent
    if base.is_dir() and os.access(base, os.W_OK | os.X_OK):
        state = Check(subject="Prefect", name="home", state="ok", found=f"{home}{given}")
    else:
        state = Check(
            subject="Prefect", name="home", state="missing", found=f"{home}{given} cannot be written",
            mend="unset PREFECT_HOME: it is then kept under the data root",
        )  # fmt: skip
    return [_server(), state]
