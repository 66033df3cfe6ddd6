"""The whole way on a small simulated campaign: the commands a person would type, one after the other.

Simulates three years of two fields under demo/, reduces each year, stacks both groups, says where the pages are.
Run again, it makes only what is missing.

python -m flows.demo
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows import STATUS_FAILED, STATUS_OK, STATUS_PENDING
from flows._cli import Command, say
from flows._prefect import prepare
from models.base import Roots
from models.settings import Settings
from models.telescope import Telescope
from tasks.core.tools import end_with_parent

GROUPS = ("M51", "M67")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _server(roots: Roots) -> Iterator[str]:
    """A Prefect server for all commands, so that each starts in seconds; stopped at the end."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    roots.logs.mkdir(parents=True, exist_ok=True)
    with (roots.logs / "prefect-server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PREFECT_SERVER_API_PORT": str(port)},
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        try:
            end = time.monotonic() + 120
            while not _answers(url):
                if server.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"Prefect's server did not start; see {roots.logs / 'prefect-server.log'}")
                time.sleep(0.3)
            yield url
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as answer:  # noqa: S310 (http on loopback)  # nosec B310
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _command(arguments: list[str], environment: dict[str, str]) -> int:
    say(f"\n$ python -m {' '.join(arguments)}")
    started = time.monotonic()
    status = subprocess.run([sys.executable, "-m", *arguments], env=environment, check=False).returncode
    say(f"[exit status {status}, {time.monotonic() - started:.0f} s]")
    return status


def run(args: argparse.Namespace, settings: Settings, telescope: Telescope) -> int:
    """Simulate, reduce, stack."""
    from tasks.inventory import take_inventory

    started = time.monotonic()
    roots = settings.roots
    root = ["--root", str(roots.data)]
    simulate = ["flows.simulate_campaign", *root, *(["--dry-run"] if args.dry_run else [])]
    environment = os.environ | {"OHP_CATALOG_MODE": "offline"}
    if args.dry_run:
        return _command(simulate, environment)
    prepare(settings)
    statuses = [_command(simulate, environment)]
    if statuses[0]:
        return STATUS_FAILED
    years = sorted({str(frame.year) for frame in take_inventory(roots, telescope).frames})
    say("\nStarting a Prefect server for the commands that follow")
    with _server(roots) as url:
        environment = os.environ | environment | {"PREFECT_API_URL": url}
        statuses.append(_command(["flows.reduce_year", *years, *root], environment))
        statuses.append(_command(["flows.stack_target", *GROUPS, *root], environment))
    say(f"\nThe demo took {time.monotonic() - started:.0f} s. Its pages: {roots.data / 'stacks' / 'index.html'}")
    wrong = [status for status in statuses if status not in (STATUS_OK, STATUS_PENDING)]
    return STATUS_FAILED if wrong else max(statuses)


def main() -> int:
    """Entry point of ``python -m flows.demo``."""
    command = Command("flows.demo", __doc__ or "")
    command.parser.set_defaults(root=Path("demo"))
    return command.run(run)


if __name__ == "__main__":
    sys.exit(main())
