"""Starting, finding and ending Prefect's server and worker of a data root.

Each holds a lock under ``DATA_ROOT/.prefect`` as long as it lives, so that a second one (another cron job, a
colleague) sees it, whatever became of the first one's parents, and a reboot leaves nothing to clean up.
"""

from __future__ import annotations

import base64
import fcntl
import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from flows import STATUS_FAILED, STATUS_OK
from flows._cli import Command, say
from models.base import Roots
from models.settings import Settings
from tasks.core.errors import UserError
from tasks.core.home import prefect_home

__all__ = ["POOL", "deploy", "start_server", "start_worker", "status", "stop"]

POOL = "ohp"
"""The work pool of prefect.yaml: processes on this machine."""

_CHECKOUT = Path(__file__).resolve().parents[1]
_PREFECT_FILE = Path("deployments") / "prefect.yaml"
_PATIENCE_S = 120.0
"""For a server or worker to be up on a machine that does nothing else."""
_GRACE_S = 20.0

_DEFAULTS = {
    # Without these, the database of a nightly run grows for ever (12 KB a task run).
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(60 * 86400),
    # The newer interface calls a statistics service from the browser, whatever PREFECT_SERVER_ANALYTICS_ENABLED says.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_CLI_PROMPT": "false",
    # Of many requests that wait for their turn, the next one begins soon after the one before (10 and 30 s else).
    "PREFECT_WORKER_QUERY_SECONDS": "3",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
}


class Options(Protocol):
    """What the command line says about server and worker."""

    @property
    def host(self) -> str:
        """Address the server listens on."""

    @property
    def port(self) -> int | None:
        """Its port."""

    @property
    def background(self) -> bool:
        """Whether to return when it is up."""

    @property
    def limit(self) -> int:
        """Runs at work at once."""


def _port(options: Options) -> int:
    return options.port or int(os.environ.get("PREFECT_SERVER_API_PORT", "4200"))


def _api(options: Options) -> str:
    return os.environ.get("PREFECT_API_URL") or f"http://127.0.0.1:{_port(options)}/api"


def _surroundings(settings: Settings, options: Options) -> dict[str, str]:
    """Environment of server, worker and, through the worker, of every run.

    All of the command line that a run needs is in it: a run is another process and reads the same settings.
    """
    roots = settings.roots
    environment = dict(os.environ)
    for name, value in (_DEFAULTS | {"PREFECT_HOME": str(prefect_home(roots))}).items():
        environment.setdefault(name, value)
    own = f"http://127.0.0.1:{_port(options)},http://localhost:{_port(options)}"
    # Prefect lets the scripts of any web page that somebody on this machine looks at start runs.
    environment.setdefault("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", own)
    if password := _password():
        environment.setdefault("PREFECT_API_AUTH_STRING", password)
    environment |= {
        "OHP_DATA_ROOT": str(roots.data),
        "PREFECT_API_URL": _api(options),
        "PREFECT_SERVER_API_PORT": str(_port(options)),  # the interface calls 4200 otherwise
        "PREFECT_SERVER_API_HOST": options.host,
        "MPLCONFIGDIR": environment.get("MPLCONFIGDIR", str(roots.data / ".cache" / "matplotlib")),
        "PYTHONUNBUFFERED": "1",
    }
    return environment


def _password() -> str | None:
    """``USER:PASSWORD`` of the server's interface, if it asks for one."""
    return os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get("PREFECT_SERVER_API_AUTH_STRING")


def _headers() -> dict[str, str]:
    password = _password()
    known = {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"} if password else {}
    return known | {"Content-Type": "application/json"}


def _get(url: str) -> Any:
    request = urllib.request.Request(url, headers=_headers())  # noqa: S310 (the address of our own server)
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 (the same)  # nosec B310
        return json.loads(answer.read())


def _home_of_server(options: Options) -> str | None:
    """PREFECT_HOME of the server that answers; None where none does.

    Raises
    ------
    UserError
        If it asks for another password.
    """
    try:
        return str(_get(f"{_api(options)}/admin/settings")["home"])
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise UserError(
                f"{_api(options)} asks for a password: set PREFECT_API_AUTH_STRING=USER:PASSWORD"
            ) from error
        return None
    except (urllib.error.URLError, OSError, ValueError, KeyError):
        return None


def _patience_s() -> float:
    """How long a process that has just begun, or has much to do, may take to answer."""
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0))) * _PATIENCE_S


def _find_server(options: Options, roots: Roots) -> str | None:
    """PREFECT_HOME of the server; one of this data root that lives and does not answer yet is waited for."""
    started = time.monotonic()
    while (home := _home_of_server(options)) is None and _holder(roots, "server") is not None:
        if time.monotonic() > started + _patience_s():
            break
        time.sleep(0.3)
    return home


def _state(roots: Roots, name: str) -> Path:
    folder = prefect_home(roots)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.lock"


def _holder(roots: Roots, name: str) -> int | None:
    """Process id of the live server or worker of this data root."""
    path = _state(roots, name)
    if not path.exists():
        return None
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read() or 0)
    return None


def _become(
    roots: Roots, name: str, arguments: list[str], environment: dict[str, str], program: str = "prefect"
) -> int:
    """Take the lock and turn into the server or worker: signals then reach it, and the lock ends with it."""
    file = os.open(_state(roots, name), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        say(f"the {name} of {roots.data} runs already")
        return STATUS_OK
    os.ftruncate(file, 0)
    os.pwrite(file, str(os.getpid()).encode(), 0)
    os.set_inheritable(file, True)
    os.chdir(_CHECKOUT)
    os.execve(sys.executable, [sys.executable, "-m", program, *arguments], environment)  # noqa: S606 (no shell)  # nosec B606


def _in_background(
    command: Command, options: Options, name: str, up: Callable[[], bool], environment: dict[str, str]
) -> int:
    """Start this same command again, detached from terminal and cron; wait until it is up."""
    roots = command.settings.roots
    roots.logs.mkdir(parents=True, exist_ok=True)
    log = roots.logs / f"prefect-{name}.log"
    again = [sys.executable, "-m", "deployments", name, "--root", str(roots.data), "--host", options.host]
    again += ["--port", str(_port(options)), "--limit", str(options.limit), "--workers", str(command.settings.workers)]
    with log.open("ab") as sink:
        process = subprocess.Popen(
            again, cwd=_CHECKOUT, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
            start_new_session=True, env=environment,
        )  # fmt: skip
    started = time.monotonic()
    while not up():
        if process.poll() is not None or time.monotonic() > started + _patience_s():
            say(f"the {name} did not start; see {log}")
            return STATUS_FAILED
        time.sleep(0.3)
    say(f"{name} started (process {process.pid}), log {log}")
    return STATUS_OK


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def start_server(command: Command, options: Options) -> int:
    """Prefect's server and interface for this data root."""
    roots = command.settings.roots
    environment = _surroundings(command.settings, options)
    if not _is_loopback(options.host) and not _password():
        say(
            f"whoever reaches {options.host}:{_port(options)} can run commands on this machine as you; "
            "set PREFECT_SERVER_API_AUTH_STRING=USER:PASSWORD (docs/security.md)"
        )
    home = _find_server(options, roots)
    if home is not None:
        if Path(home) == Path(environment["PREFECT_HOME"]):
            say(f"the server of {roots.data} runs already: {_page(options)}")
            return STATUS_OK
        command.stop(
            f"{_api(options)} is the server of {home}; give this one another --port (or PREFECT_SERVER_API_PORT)"
        )
    if options.background:
        done = _in_background(command, options, "server", lambda: _home_of_server(options) is not None, environment)
        if done == STATUS_OK:
            say(f"interface: {_page(options)}")
        return done
    arguments = ["server", "start", "--host", options.host, "--port", str(_port(options))]
    return _become(roots, "server", arguments, environment, "deployments.prefect_server")


def _page(options: Options) -> str:
    return _api(options).removesuffix("/api")


def _need_server(command: Command, options: Options, environment: dict[str, str]) -> None:
    home = _find_server(options, command.settings.roots)
    if home is None:
        command.stop(f"no Prefect server at {_api(options)}; first: python -m deployments server --background")
    if "PREFECT_API_URL" not in os.environ and Path(home) != Path(environment["PREFECT_HOME"]):
        command.stop(
            f"{_api(options)} is the server of {home}, not of {command.settings.roots.data}; "
            "give --port (or PREFECT_API_URL for a server that both share)"
        )


def start_worker(command: Command, options: Options) -> int:
    """The process that starts the runs that are due."""
    settings, roots = command.settings, command.settings.roots
    environment = _surroundings(settings, options)
    environment |= {"OHP_WORKERS": str(settings.workers)}
    if settings.dask_scheduler is not None:
        environment["OHP_DASK_SCHEDULER"] = settings.dask_scheduler
    if settings.raw_root is not None:
        environment["OHP_RAW_ROOT"] = str(roots.raw)
    _need_server(command, options, environment)
    if holder := _holder(roots, "worker"):
        say(f"the worker of {roots.data} runs already (process {holder})")
        return STATUS_OK
    name = f"{os.uname().nodename}-{os.getpid()}"
    if options.background:
        return _in_background(
            command, options, "worker", lambda: _holder(roots, "worker") is not None and _polls(options), environment
        )
    arguments = ["worker", "start", "--pool", POOL, "--type", "process", "--name", name]
    arguments += ["--limit", str(options.limit), "--install-policy", "never"]
    say(f"worker {name}, products under {roots.data}, server {_api(options)}")
    return _become(roots, "worker", arguments, environment)


def _polls(options: Options) -> bool:
    """Whether a worker of the pool has reported to the server in the last half minute."""
    try:
        return bool(_post(options, f"/work_pools/{POOL}/workers/filter", {"workers": {"status": {"any_": ["ONLINE"]}}}))
    except (urllib.error.URLError, OSError):
        return False


def _post(options: Options, path: str, body: dict[str, Any], method: str = "POST") -> Any:
    """Ask the server's API."""
    request = urllib.request.Request(  # noqa: S310 (our own server)
        f"{_api(options)}{path}", json.dumps(body).encode(), _headers(), method=method
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # nosec B310
        content = answer.read()
    return json.loads(content) if content else None


def deploy(command: Command, options: Options) -> int:
    """Register the deployments of prefect.yaml, without questions; a second time it brings them up to date."""
    environment = _surroundings(command.settings, options)
    _need_server(command, options, environment)
    started = time.time()
    for arguments in (
        ["work-pool", "create", POOL, "--type", "process", "--overwrite"],
        ["--no-prompt", "deploy", "--all", "--prefect-file", str(_PREFECT_FILE)],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=_CHECKOUT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            return _failed(command, " ".join(["prefect", *arguments]), done.stdout + done.stderr)
    _automate(options)
    names = _registered(options, started)
    for name in names:
        say(f"  {name}")
    say(f"{len(names)} deployments at {_page(options)}/deployments, products under {command.settings.roots.data}")
    return STATUS_OK


_ENDS = [f"prefect.flow-run.{state}" for state in ("Completed", "CompletedWith*", "Failed", "Crashed", "Cancelled")]
"""In an automation's pattern `*` stands for at least one character: `Completed*` alone would miss `Completed`."""


def _automation(name: str, after: str, expect: list[str], within_s: int, state: str, message: str) -> dict[str, Any]:
    """An automation: when nothing expected follows an event of a run, its state is changed."""
    return {
        "name": name,
        "description": message,
        "enabled": True,
        "trigger": {
            "type": "event",
            "posture": "Proactive",
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "after": [f"prefect.flow-run.{after}"],
            "expect": [*_ENDS, *expect],
            "for_each": ["prefect.resource.id"],
            "threshold": 1,
            "within": within_s,
        },
        "actions": [{"type": "change-flow-run-state", "state": state, "message": message, "force": True}],
    }


_AUTOMATIONS = (
    _automation(
        "ohp: a run that fell silent",
        "heartbeat",
        ["prefect.flow-run.heartbeat"],
        600,
        "CRASHED",
        "No sign of life for ten minutes: machine or process is gone. What was finished is kept; run it again.",
    ),
    _automation(
        "ohp: a cancelled run that does not end",
        "Cancelling",
        [],
        120,
        "CANCELLED",
        "Cancelled before its process was up; two minutes later nothing had ended.",
    ),
)
"""A run in the state Running or Cancelling keeps its deployment's only place: none may stay there for ever."""


def _automate(options: Options) -> None:
    known = _post(
        options, "/automations/filter", {"automations": {"name": {"any_": [a["name"] for a in _AUTOMATIONS]}}}
    )
    there = {each["name"]: each["id"] for each in known}
    for automation in _AUTOMATIONS:
        if automation["name"] in there:
            _post(options, f"/automations/{there[automation['name']]}", automation, "PUT")
        else:
            _post(options, "/automations/", automation)


def _failed(command: Command, what: str, output: str) -> int:
    """Keep what a program printed, say its last line."""
    log = command.settings.roots.logs / "prefect-deploy.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(output, encoding="utf-8")
    last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "it printed nothing")
    say(f"{what} failed: {last[:300]} (details: {log})")
    return STATUS_FAILED


def _registered(options: Options, since: float) -> list[str]:
    """Deployments of the pool that were written since then."""
    from datetime import datetime

    answer = _post(options, "/deployments/filter", {"work_pools": {"name": {"any_": [POOL]}}})
    return sorted(each["name"] for each in answer if datetime.fromisoformat(each["updated"]).timestamp() >= since - 1)


def status(command: Command, options: Options) -> int:
    """Say what runs."""
    roots = command.settings.roots
    for name in ("server", "worker"):
        holder = _holder(roots, name)
        say(f"{name}: " + (f"runs (process {holder})" if holder else "does not run"))
    home = _home_of_server(options)
    say(f"{_api(options)}: " + (f"answers, keeps its state in {home}" if home else "no answer"))
    return STATUS_OK


def stop(command: Command, options: Options) -> int:
    """End worker and server of this data root; runs at work are stopped and carry on from the cache next time."""
    roots = command.settings.roots
    for name in ("worker", "server"):
        holder = _holder(roots, name)
        if not holder:
            say(f"{name}: did not run")
            continue
        os.kill(holder, signal.SIGTERM)
        end = time.monotonic() + _GRACE_S
        while _holder(roots, name) and time.monotonic() < end:
            time.sleep(0.2)
        if _holder(roots, name):
            os.kill(holder, signal.SIGKILL)
            say(f"{name}: did not end within {_GRACE_S:.0f} s, killed")
        else:
            say(f"{name}: ended")
    return STATUS_OK
