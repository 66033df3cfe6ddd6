"""Processes that are measured: their environment, their time on the processor, their memory, Prefect's server."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["REPO", "Finished", "Server", "clean_environment", "cpu_of_tree", "free_port", "memory_of", "run", "server"]

REPO = Path(__file__).resolve().parents[1]
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = resource.getpagesize()


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without settings of ours or Prefect's; catalogues from the store only."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OHP_", "PREFECT_"))}
    return kept | {"OHP_CATALOG_MODE": "offline", "PYTHONUNBUFFERED": "1"} | more


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _stat(pid: str) -> list[str] | None:
    try:
        # The name, in brackets, may hold blanks.
        return Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _tree(pid: int) -> dict[int, list[str]]:
    """The fields of /proc/PID/stat from the third on of a process and of all that descend from it now."""
    stats = {int(name): stat for name in os.listdir("/proc") if name.isdigit() and (stat := _stat(name)) is not None}
    children: dict[int, list[int]] = {}
    for child, stat in stats.items():
        children.setdefault(int(stat[1]), []).append(child)
    found, waiting = {}, [pid]
    while waiting:
        each = waiting.pop()
        waiting += children.get(each, [])
        if each in stats:
            found[each] = stats[each]
    return found


def cpu_of_tree(pid: int) -> float:
    """Processor seconds of a process, of all that descend from it now, and of those they have waited for."""
    return sum(int(ticks) for stat in _tree(pid).values() for ticks in stat[11:15]) / _TICK


def memory_of(pid: int) -> float:
    """Resident memory of one process, MB; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def memory_of_tree(pid: int) -> float:
    """Memory of a process and of all that descend from it now, MB; pages they share count once (Pss of proc(5))."""
    total = 0
    for each in _tree(pid):
        try:
            rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or in the middle of exec
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total * 1024 / 1e6


@dataclass
class Finished:
    """A process that ended."""

    seconds: float
    status: int
    output: str
    samples: list[tuple[float, float]] = field(default_factory=list)


def run(
    arguments: Sequence[str],
    log: Path,
    environment: dict[str, str] | None = None,
    sample: Callable[[int], tuple[float, float]] | None = None,
    statuses: Sequence[int] = (0,),
    prefix: Sequence[str] = (),
) -> Finished:
    """Run ``python ARGUMENTS`` from the checkout and time it.

    Parameters
    ----------
    log
        Where its output goes.
    sample
        Called with the process id twice a second while it runs.
    statuses
        Exit statuses that are fine.
    prefix
        Put before the command.

    Raises
    ------
    RuntimeError
        If it ended otherwise; with the end of its output.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    samples: list[tuple[float, float]] = []
    started = time.perf_counter()
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*prefix, sys.executable, *arguments],
            cwd=REPO, env=environment or clean_environment(), stdin=subprocess.DEVNULL, stdout=sink,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            while sample is not None:
                try:
                    process.wait(0.5)
                    break
                except subprocess.TimeoutExpired:
                    samples.append(sample(process.pid))
            process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    seconds = time.perf_counter() - started
    output = log.read_text(encoding="utf-8", errors="replace")
    if process.returncode not in statuses:
        raise RuntimeError(f"{' '.join(arguments)} ended with status {process.returncode}:\n{output[-3000:]}")
    return Finished(seconds, process.returncode, output, samples)


@dataclass(frozen=True)
class Server:
    """A Prefect server of a data root."""

    url: str
    pid: int


@contextmanager
def server(root: Path, log: Path, **more: str) -> Iterator[Server]:
    """Prefect's server of a data root as `make server` starts it, on a port of its own; `more` is environment."""
    port = free_port()
    environment = clean_environment(OHP_DATA_ROOT=str(root), **more)
    run(["-m", "deployments", "server", "--port", str(port), "--background"], log, environment)
    try:
        pid = int((root / ".prefect" / "server.lock").read_text())
        yield Server(f"http://127.0.0.1:{port}/api", pid)
    finally:
        run(["-m", "deployments", "stop", "--port", str(port)], log.with_suffix(".stop.log"), environment)
