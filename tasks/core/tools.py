"""The one way to run an external tool: no shell, no stray configuration, nothing outlives us.

A tool runs in a scratch folder of its own and in its own process group, which is killed at the wall-clock
limit, when the flow stops, and (by the kernel) when this process dies. What it printed is kept as a log
only when it fails.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks.core.errors import StageError

__all__ = [
    "PACKAGES",
    "ToolFailedError",
    "StoppedError",
    "ToolMissingError",
    "Tool",
    "TOOLS",
    "end_with_parent",
    "run_tool",
    "scratch",
    "stop_tools",
    "tool_version",
]

_LOG_LIMIT = 8 << 20


class Tool:
    """An external tool: the names it goes by, how it says its version, the Debian package that has it."""

    def __init__(self, label: str, names: tuple[str, ...], package: str, version_args: tuple[str, ...]) -> None:
        self.label, self.names, self.package, self.version_args = label, names, package, version_args


TOOLS = {
    tool.label: tool
    for tool in (
        Tool("source-extractor", ("source-extractor", "sex", "sextractor"), "source-extractor", ("--version",)),
        Tool("scamp", ("scamp",), "scamp", ("--version",)),
        Tool("SWarp", ("SWarp", "swarp"), "swarp", ("--version",)),
        Tool("psfex", ("psfex",), "psfex", ("--version",)),
        Tool("solve-field", ("solve-field",), "astrometry.net", ("--help",)),
        Tool("build-astrometry-index", ("build-astrometry-index",), "astrometry.net", ("-h",)),
    )
}
PACKAGES = tuple(sorted({tool.package for tool in TOOLS.values()}))


class ToolMissingError(StageError):
    """The tool is not installed."""


class ToolFailedError(StageError):
    """The tool exited with an error, was killed, ran too long, or did not write what it should."""

    def __init__(self, stage: str, reason: str, remedy: str, log: Path | None = None) -> None:
        super().__init__(stage, reason, remedy)
        self.log = log

    def __reduce__(self) -> tuple[type[ToolFailedError], tuple[str, str, str, Path | None]]:
        return type(self), (self.stage, self.reason, self.remedy, self.log)


class StoppedError(Exception):
    """The run is being stopped: nothing new is begun. No failure of the frame it happens to."""


_live: set[subprocess.Popen[bytes]] = set()
_stopping = threading.Event()
_lock = threading.RLock()  # a signal handler may come while it is held
_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with_parent() -> None:
    """In a child before its program begins: SIGTERM when the parent dies, however it does (see prctl(2))."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # it ended by itself in the meantime
        os.killpg(process.pid, signal.SIGKILL)


def stopping() -> bool:
    """Whether this process has been told to stop."""
    return _stopping.is_set()


def stop_tools() -> None:
    """Kill every tool of this process, with its children, and let none start any more."""
    _stopping.set()
    with _lock:
        for process in _live:
            _kill_group(process)


def _resolve(label: str) -> str:
    tool = TOOLS[label]
    for name in tool.names:
        if found := shutil.which(name):
            return found
    raise ToolMissingError(
        label,
        f"{label} is not installed",
        f"apt-get install {tool.package}, or make setup; python -m flows.doctor checks",
    )


def tool_version(label: str) -> str:
    """Version of a tool as it reports it; probed once a process and executable.

    Raises
    ------
    ToolMissingError
        If it is not installed.
    """
    path = _resolve(label)
    status = os.stat(path)
    return _probe(label, path, status.st_mtime_ns)


@functools.cache
def _probe(label: str, path: str, _mtime_ns: int) -> str:
    answer = subprocess.run(
        [path, *TOOLS[label].version_args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        env=_environment(1),
        check=False,
    )
    text = answer.stdout.decode("utf-8", "replace")
    if match := re.search(r"(?:version|Revision)\s+v?([0-9][0-9.]*[0-9])", text, re.IGNORECASE):
        return f"{label} {match.group(1)}"
    raise ToolFailedError(
        label,
        f"{path} does not tell its version",
        f"is it really {label}? reinstall the package {TOOLS[label].package}",
    )


def _environment(threads: int) -> dict[str, str]:
    keep = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "USER")
    environment = {key: os.environ[key] for key in keep if key in os.environ}
    return environment | {"LC_ALL": "C", "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}


@contextmanager
def scratch(parent: Path, prefix: str = "run") -> Iterator[Path]:
    """A folder for one run of a tool, removed afterwards.

    Short and without spaces or commas whatever `parent` is called: SExtractor cuts names at a comma and
    refuses spaces and paths of 263 characters, so a parent that has them is stood in for by the system's
    temporary folder.
    """
    parent.mkdir(parents=True, exist_ok=True)
    fit = len(str(parent)) < 120 and not re.search(r"[\s,@'\"\\]", str(parent))
    with tempfile.TemporaryDirectory(prefix=f"{prefix}-", dir=parent if fit else None) as folder:
        yield Path(folder)


def run_tool(
    label: str,
    arguments: Sequence[str],
    *,
    cwd: Path,
    timeout_s: float,
    outputs: Sequence[Path] = (),
    threads: int = 1,
    log: Path | None = None,
    ok_codes: tuple[int, ...] = (0,),
) -> str:
    """Run a tool and return what it printed (stdout and stderr together).

    Parameters
    ----------
    label
        A key of `TOOLS`.
    arguments
        Each one argument; never seen by a shell.
    cwd
        Its scratch folder; no configuration of another run lies there.
    timeout_s
        Wall-clock limit; the whole process group is killed at it.
    outputs
        Files that must exist and not be empty afterwards.
    threads
        Threads it may use.
    log
        Where to keep the output if it fails.

    Raises
    ------
    ToolMissingError, ToolFailedError
        `ToolFailedError.reason` names exit status or signal and the last line the tool printed.
    """
    executable = _resolve(label)
    started = time.monotonic()
    with tempfile.TemporaryFile(dir=cwd) as sink:
        with _lock:
            if _stopping.is_set():
                raise StoppedError(label)
            process = subprocess.Popen(
                [executable, *arguments], cwd=cwd, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=_die_with_parent, env=_environment(threads),
            )  # fmt: skip
            _live.add(process)
        try:
            process.wait(timeout=timeout_s)
            late = False
        except subprocess.TimeoutExpired:
            late = True
        finally:
            _kill_group(process)
            process.wait()
            if _stopping.is_set():
                log = None  # it was killed, it did not fail
            with _lock:
                _live.discard(process)
        sink.seek(0, os.SEEK_END)
        size = sink.tell()
        sink.seek(max(0, size - _LOG_LIMIT))
        text = sink.read().decode("utf-8", "replace")

    problem = None
    if late:
        problem = f"ran longer than {timeout_s:.0f} s and was stopped"
    elif process.returncode < 0:
        problem = f"died of {signal.Signals(-process.returncode).name}"
    elif process.returncode not in ok_codes:
        problem = f"exited with status {process.returncode}"
    else:
        missing = [path.name for path in outputs if not path.is_file() or path.stat().st_size == 0]
        if missing:
            problem = f"exited normally but did not write {', '.join(missing)}"
    if problem is None:
        return text
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        command = " ".join([executable, *arguments])
        log.write_text(f"$ {command}\n# after {time.monotonic() - started:.1f} s: {problem}\n{text}", encoding="utf-8")
    where = f"see {log}" if log is not None else "run it again with its log kept"
    raise ToolFailedError(label, f"{problem}: {last[:200]}", where, log)
