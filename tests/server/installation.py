"""A server, a worker and the deployments of a data root of the test's own, driven by commands and Prefect's API."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.base import Roots

REPO = Path(__file__).resolve().parents[2]
TOOLS = {"SWarp", "scamp", "source-extractor", "psfex", "solve-field", "astrometry-engine"}
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], timeout: float, what: str) -> Any:
    """Wait for something; return it."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not within {timeout:.0f} s"
        time.sleep(0.2)
    return value


class Installation:
    """What `make server worker deploy` leaves behind."""

    def __init__(self, roots: Roots, python: str = sys.executable, **environment: str) -> None:
        self.roots, self.python, self.port = roots, python, free_port()
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("OHP_", "PREFECT_"))}
        self.environment = clean | {
            "HOME": str(roots.data),
            "OHP_DATA_ROOT": str(roots.data),
            "OHP_RAW_ROOT": str(roots.raw),
            "OHP_CATALOG_MODE": "offline",
            "PREFECT_SERVER_API_PORT": str(self.port),
        } | environment  # fmt: skip

    def run(self, *arguments: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run one of our modules as a shell would."""
        return subprocess.run(
            [self.python, "-m", *arguments], cwd=REPO, env=self.environment, capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip

    def deployments(self, *arguments: str) -> str:
        """A command of `python -m deployments` that must go well; what it said."""
        done = self.run("deployments", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return done.stdout

    def start(self) -> None:
        """Server, deployments, worker."""
        self.deployments("server", "--background")
        self.deployments("deploy")
        self.deployments("worker", "--background")

    def stop(self) -> None:
        """End all that was started."""
        self.deployments("stop")

    def logs(self) -> str:
        """The ends of the logs, for a test that failed."""
        return "".join(
            f"\n--- {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.roots.logs.glob("prefect-*.log"))
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> Any:
        return self._ask(urllib.request.Request(f"{self.url}/api{path}"))

    def post(self, path: str, body: dict[str, Any], method: str = "POST") -> Any:
        request = urllib.request.Request(
            f"{self.url}/api{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method
        )
        return self._ask(request)

    def _ask(self, request: urllib.request.Request) -> Any:
        for pause in (1, 2, 4, 0):
            try:
                with urllib.request.urlopen(request, timeout=300) as answer:
                    content = answer.read()
                return json.loads(content) if content else None
            except urllib.error.HTTPError as error:
                if error.code != 503 or not pause:  # its database was busy; Prefect's own client asks again, too
                    raise
                time.sleep(pause)
        raise AssertionError("not reached")

    def deployment(self, name: str) -> dict[str, Any]:
        """A deployment as the server has it."""
        return self.get(f"/deployments/name/{name}/{name}")

    def begin(self, name: str, **parameters: Any) -> str:
        """Ask for a run of a deployment; its id."""
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return self.post(f"/deployments/{self.deployment(name)['id']}/create_flow_run", body)["id"]

    def state(self, run: str) -> dict[str, Any]:
        return self.get(f"/flow_runs/{run}")["state"]

    def end_of(self, run: str, timeout: float = 240) -> dict[str, Any]:
        """The final state of a run."""

        def final() -> dict[str, Any] | None:
            state = self.state(run)
            return state if state["type"] in FINAL else None

        try:
            return until(final, timeout, f"run {run}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.state(run)}{self.logs()}") from error

    def task_runs(self, run: str) -> list[dict[str, Any]]:
        body = {"flow_runs": {"id": {"any_": [run]}}, "limit": 200}
        return self.post("/task_runs/filter", body)

    def made(self) -> list[dict[str, Any]]:
        """The ledger of task bodies that really ran."""
        path = self.roots.logs / "made.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def holder(self, name: str) -> int:
        """Process id of server or worker."""
        return int((self.roots.data / ".prefect" / f"{name}.lock").read_text())

    def processes(self) -> dict[int, str]:
        """Processes that work in or for this data root, but server and worker."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                environment = (folder / "environ").read_bytes()
                place = os.readlink(folder / "cwd")
            except OSError:
                continue
            data = str(self.roots.data)
            if not words or int(folder.name) == os.getpid():
                continue
            ours = f"OHP_DATA_ROOT={data}\0".encode() in environment or place.startswith(data)
            if ours and "server start" not in words and "worker start" not in words:
                found[int(folder.name)] = words
        return found

    def flow_process(self) -> int:
        """The process of the run at work."""
        return until(
            lambda: next((pid for pid, words in self.processes().items() if "prefect.engine" in words), None),
            60,
            "a flow process",
        )

    def tool(self, timeout: float = 120) -> int:
        """An astronomy tool at work for this data root."""
        return until(
            lambda: next(
                (pid for pid, words in self.processes().items() if Path(words.split()[0]).name in TOOLS), None
            ),
            timeout,
            "a tool at work",
        )


def copy_root(source: Roots, target: Path) -> Roots:
    """A data root of the test's own, with the products of another one but nothing of its Prefect."""
    shutil.copytree(source.data, target, ignore=shutil.ignore_patterns(".prefect", "logs", "raw"), dirs_exist_ok=True)
    return Roots(data=target, raw=source.raw)
