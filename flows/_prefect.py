"""Prefect's surroundings for a run from the shell: state under the data root, a server if one runs, quiet logs.

`prepare` must run before Prefect is imported (Prefect reads its settings then).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows._cli import Command, say
from models.settings import Settings
from tasks.core.files import remove_unfinished
from tasks.core.home import claim_home, prefect_home

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

__all__ = [
    "at_the_shell",
    "begin",
    "check_roots",
    "drain",
    "prepare",
    "running",
    "stopping_at_once",
    "without_heartbeat",
]

_PATIENCE_S = 4.0


def prepare(settings: Settings) -> str:
    """Point Prefect at the data root and at a server that runs; return a line that says which.

    Nothing leaves this machine: the only address asked is the local server's, for 0.3 s.
    """
    roots = settings.roots
    defaults = {
        "PREFECT_HOME": str(prefect_home(roots)),
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(roots.data / ".cache" / "results"),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "MPLCONFIGDIR": str(roots.data / ".cache" / "matplotlib"),
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        # No page that a browser shows may speak to the embedded server: its interface is not looked at.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "http://127.0.0.1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if password := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        os.environ.setdefault("PREFECT_API_AUTH_STRING", password)
    if settings.dask_scheduler is not None:
        os.environ["OHP_DASK_SCHEDULER"] = settings.dask_scheduler  # a flow's runner is made when it is imported
    if "PREFECT_API_URL" in os.environ:
        return f"Prefect server {os.environ['PREFECT_API_URL']}"
    url = f"http://127.0.0.1:{os.environ.get('PREFECT_SERVER_API_PORT', '4200')}/api"
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=0.3) as answer:  # noqa: S310 (http on loopback)  # nosec B310
            answer.read()
    except (urllib.error.URLError, OSError):
        first = not (prefect_home(roots) / "prefect.db").exists()
        return "starting Prefect's embedded server" + (
            " (20-30 s the first time)" if first else " (about 10 s; `prefect server start` beside it saves them)"
        )
    os.environ["PREFECT_API_URL"] = url
    return f"Prefect server {url}"


def begin(command: Command) -> None:
    """Say at once what is going to happen, check the folders, point Prefect at them; then the imports may take time."""
    roots = command.settings.roots
    check_roots(command, writes=not command.args.dry_run)
    if not command.args.dry_run:
        claim_home(roots)
    say(f"{command.module} on {command.telescope.name}, products under {roots.data}; {prepare(command.settings)}")


def check_roots(command: Command, writes: bool) -> None:
    """End the program where the raw tree is missing or the data root cannot be written.

    Raises
    ------
    SystemExit
        With status 2 after one clear line.
    """
    roots = command.settings.roots
    if not writes:
        return
    try:
        roots.data.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=roots.data):
            pass
    except OSError as error:
        command.stop(f"cannot write under {roots.data}: {error.strerror}; give another --root (or OHP_DATA_ROOT)")


_runs = 0


@contextmanager
def running(workers: int) -> Iterator[None]:
    """Around a flow run: the pool of processes, and nothing left behind. The outermost one counts."""
    global _runs
    from tasks.core.pool import configure_pool, stop_pool
    from tasks.core.tools import stop_tools

    _runs += 1
    if _runs == 1:
        configure_pool(workers)
    try:
        yield
    except BaseException:
        if _runs == 1:
            stop_tools()
            stop_pool(at_once=True)
        raise
    finally:
        _runs -= 1
        if _runs == 0:
            stop_pool()


@contextmanager
def at_the_shell(workers: int) -> Iterator[None]:
    """Around the flow runs of one command: quiet logs, no heartbeat (1 s a flow), one pool for all."""
    for name in ("prefect", "prefect._internal", "prefect._internal.concurrency"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).setLevel(logging.INFO)
    # Prefect ends a flow that got SIGTERM in order, then sends it once more to whoever had it before.
    before = signal.signal(signal.SIGTERM, lambda number, _frame: _give_up(128 + number))
    try:
        with running(workers), without_heartbeat():
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def without_heartbeat() -> Iterator[None]:
    """Flow runs begun inside end a second earlier: each waits that long for its heartbeat's thread."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def _give_up(status: int) -> None:
    """End the process: Ctrl-C also ended the embedded server, and Prefect would wait for that in vain.

    Where only this process was told to stop, the embedded server still runs and would outlive it.
    """
    for pid in _children():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    print("\nstopped; what was finished is kept, the same command carries on from there", file=sys.stderr, flush=True)
    remove_unfinished()
    os._exit(status)


def _children() -> list[int]:
    """Processes that this one started and that are still there."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread that ended in the meantime
            found += [int(word) for word in path.read_text().split()]
    return found


def _stop_at_once(status: int) -> None:
    """End the tools and workers of this process, and soon the process itself if something hangs all the same."""
    from tasks.core.pool import stop_pool
    from tasks.core.tools import stop_tools

    stop_tools()
    stop_pool(at_once=True)
    watchdog = threading.Timer(_PATIENCE_S, _give_up, (status,))
    watchdog.daemon = True
    watchdog.start()


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """In a flow's body: Ctrl-C and SIGTERM end the tools and workers first, then the flow as Prefect does it.

    Tasks that still wait in Prefect's queue then fall through. What hangs all the same is ended after 4 s.

    Prefect's own handler of SIGTERM stays where it is: without it Prefect takes a run that was cancelled from its
    interface for one that crashed. It raises `TerminationSignal` in the flow's body.
    """
    from prefect.exceptions import TerminationSignal

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ours = [number for number, handler in before.items() if not _raises_by_itself(number, handler)]

    def stop(number: int, frame: FrameType | None) -> None:
        _stop_at_once(128 + number)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        raise KeyboardInterrupt

    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    except TerminationSignal:
        _stop_at_once(128 + signal.SIGTERM)
        raise
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _raises_by_itself(number: int, handler: object) -> bool:
    module = getattr(handler, "__module__", None) or ""
    return number == signal.SIGTERM and module.startswith("prefect.")


def drain(flow_run_id: UUID, timeout_s: float = 20.0) -> None:
    """Wait until the embedded server has stored the task runs of a flow run; it drops the rest at exit.

    Results and cache do not depend on it: only what the interface shows later does.
    """
    from prefect import get_client
    from prefect.client.base import ServerType

    with get_client(sync_client=True) as client:
        if client.server_type is not ServerType.EPHEMERAL:
            return
        seen: tuple[int, int] | None = None
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            now = (_count(client, flow_run_id), _count(client, flow_run_id, ["PENDING", "RUNNING"]))
            if now == seen and now[1] == 0:
                return
            seen = now
            time.sleep(0.6)


def _count(client: SyncPrefectClient, flow_run_id: UUID, states: list[str] | None = None) -> int:
    body: dict[str, Any] = {"flow_runs": {"id": {"any_": [str(flow_run_id)]}}}
    if states:
        body["task_runs"] = {"state": {"type": {"any_": states}}}
    return int(client._client.post("/task_runs/count", json=body).json())


def task_threads() -> int:
    """Threads of a flow's task runner: they wait for the processes, of which there is one a core."""
    return len(os.sched_getaffinity(0)) + 2
