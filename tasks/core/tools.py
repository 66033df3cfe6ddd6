"""The one way to run an external tool: no shell, no stray configuration, nothing outlives us.

A tool runs in a scratch folder of its own and in its own process group, which is killed at the wall-clock
limit, when the flow stops, and (by the kernel) when this process dies. All that descends from it carries a mark in
its environment, by which it is found and killed, too, in whatever session it hides. What a tool printed is kept as a
log only when it fails. An output that is there in part is no output.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import itertools
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks.core.errors import StageError
from tasks.core.files import owner, torn, writing

__all__ = [
    "PACKAGES",
    "ToolFailedError",
    "StoppedError",
    "ToolMissingError",
    "Tool",
    "TOOLS",
    "end_orphans",
    "end_with_parent",
    "run_tool",
    "scratch",
    "stop_tools",
    "tool_version",
]

_LOG_LIMIT = 8 << 20
_BLOCK = 1 << 20
_POLL_S = 0.05
_ENDING_S = 5.0
_SHARE_OF_DISK = 4
_LEAST_FILE = 64 << 20
_LITTLE_ROOM = 16 << 20
_MAKE_ROOM = "free some room on the disk, then run the same command again"
_MARK = "TOOL_RUN_OHP"
_PROBE_S = 60.0


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

    def __reduce__(self) -> tuple[type[ToolFailedError], tuple[str, str, str, Path | None], dict[str, object]]:
        return type(self), (self.stage, self.reason, self.remedy, self.log), {"of_the_machine": self.of_the_machine}

    @classmethod
    def with_room(cls, free: int, stage: str, reason: str, remedy: str, log: Path | None = None) -> ToolFailedError:
        """The failure of a tool that found so many bytes free: tools seldom say that it was the disk that is full."""
        if free >= _LITTLE_ROOM and os.strerror(errno.ENOSPC) not in reason:
            return cls(stage, reason, remedy, log)
        error = cls(stage, f"the disk is full ({free >> 20} MB left): {reason}", _MAKE_ROOM, log)
        error.of_the_machine = True
        return error


class StoppedError(Exception):
    """The run is being stopped: nothing new is begun. No failure of the frame it happens to."""


_live: set[subprocess.Popen[bytes]] = set()
_stopping = threading.Event()
_lock = threading.RLock()  # a signal handler may come while it is held
_REINSTALL = "reinstall {}; python -m flows.doctor checks"
_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def _before_exec(largest_file: int) -> Callable[[], None]:
    """What a tool's process does before it becomes the tool: die with its parent, leave no core, not fill the disk."""

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        limit = largest_file if hard == resource.RLIM_INFINITY else min(largest_file, hard)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))

    return prepare


def end_with_parent() -> None:
    """In a child before its program begins: SIGTERM when the parent dies, however it does (see prctl(2))."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # it ended by itself in the meantime
        os.killpg(process.pid, signal.SIGKILL)


_numbers = itertools.count()


def _new_mark() -> str:
    """Says whose a tool is: the processes' name space, this process and when it began, a number."""
    return f"{_pid_namespace()}:{os.getpid()}:{_began(os.getpid())}:{next(_numbers)}"


@functools.cache
def _pid_namespace() -> str:
    return os.readlink("/proc/self/ns/pid").strip("pid:[]")


def _began(pid: int) -> str:
    """When a process began, in the kernel's ticks: with its number it is the process and no later one."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]


def _marks() -> Iterator[tuple[int, str]]:
    """Every process that descends from a tool of ours, and its mark."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"{entry.path}/environ", "rb") as stream:
                environment = stream.read()
        except OSError:  # it ended, or belongs to somebody else
            continue
        for item in environment.split(b"\0"):
            if item.startswith(_MARK.encode() + b"="):
                yield int(entry.name), item.partition(b"=")[2].decode("ascii", "replace")


def _end_tree(process: subprocess.Popen[bytes], mark: str) -> None:
    """Kill a tool and all that it started, wherever its children went."""
    _kill_group(process)
    process.wait()
    end = time.monotonic() + _ENDING_S
    while (left := [pid for pid, theirs in _marks() if theirs == mark]) and time.monotonic() < end:
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def end_orphans() -> list[int]:
    """Kill what descends from tools whose process is gone: a worker that the kernel killed could not do it itself.

    Returns
    -------
    list of int
        Processes that were killed.
    """
    ended = []
    for pid, mark in list(_marks()):
        namespace, owner_pid, began, *_ = [*mark.split(":"), "", "", ""]
        if namespace != _pid_namespace() or not owner_pid.isdigit():
            continue
        try:
            if _began(int(owner_pid)) == began:
                continue
        except OSError:
            pass
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
            ended.append(pid)
    return ended


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


def _probe(label: str, path: str, mtime_ns: int) -> str:
    answer = _asked_version(label, path, mtime_ns)
    if isinstance(answer, str):
        return answer
    raise ToolFailedError(*answer)


@functools.cache
def _asked_version(label: str, path: str, _mtime_ns: int) -> str | tuple[str, str, str]:
    """The version, or the parts of the error: what hangs once must not hang for each frame."""
    remedy = f"is it really {label}? reinstall the package {TOOLS[label].package}"
    with tempfile.TemporaryDirectory(prefix="version-") as folder:
        try:
            text = run_tool(
                label, TOOLS[label].version_args, cwd=Path(folder), timeout_s=_PROBE_S, ok_codes=tuple(range(256))
            )
        except ToolFailedError as error:
            return label, f"{path} does not tell its version: {error.reason}", remedy
    if match := re.search(r"(?:version|Revision)\s+v?([0-9][0-9.]*[0-9])", text, re.IGNORECASE):
        return f"{label} {match.group(1)}"
    return label, f"{path} does not tell its version", remedy


def _environment(threads: int) -> dict[str, str]:
    keep = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "USER")
    environment = {key: os.environ[key] for key in keep if key in os.environ}
    return environment | {"LC_ALL": "C", "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}


@contextmanager
def scratch(parent: Path, prefix: str = "run") -> Iterator[Path]:
    """A folder for one run of a tool, removed afterwards.

    Short and without spaces or commas whatever `parent` is called: SExtractor cuts names at a comma and
    refuses spaces and paths of 263 characters, so a parent that has them is stood in for by the system's
    temporary folder. Its name says whose it is (`tasks.core.files.sweep`).
    """
    parent.mkdir(parents=True, exist_ok=True)
    fit = len(str(parent)) < 120 and not re.search(r"[\s,@'\"\\]", str(parent))
    with tempfile.TemporaryDirectory(prefix=f"{prefix}-{owner()}-", dir=parent if fit else None) as folder:
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
    optional: Sequence[Path] = (),
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
        Files that must exist and be whole afterwards (`tasks.core.files.torn`).
    threads
        Threads it may use.
    log
        Where to keep the output if it fails.
    ok_codes
        Exit statuses that mean success.
    optional
        Files that may be missing, but must be whole if they are there.

    Raises
    ------
    ToolMissingError, ToolFailedError
        `ToolFailedError.reason` names exit status or signal and the last line the tool printed.
    """
    executable = _resolve(label)
    started = time.monotonic()
    mark = _new_mark()
    before = set(os.listdir(cwd))
    largest_file = max(_LEAST_FILE, shutil.disk_usage(cwd).free // _SHARE_OF_DISK)
    printed = _Printed()
    reader, writer = os.pipe()
    try:
        try:
            with _lock:
                if _stopping.is_set():
                    raise StoppedError(label)
                process = subprocess.Popen(
                    [executable, *arguments], cwd=cwd, stdin=subprocess.DEVNULL, stdout=writer,
                    stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_before_exec(largest_file),
                    env=_environment(threads) | {_MARK: mark},
                )  # fmt: skip
                _live.add(process)
        except OSError as error:  # no program at all, or no memory for one
            raise ToolFailedError(
                label, f"{executable} cannot be started: {error}", _REINSTALL.format(label)
            ) from error
        finally:
            os.close(writer)
        try:
            late = _attend(process, reader, printed, started + timeout_s)
        finally:
            _end_tree(process, mark)
            printed.take_rest(reader)
            if _stopping.is_set():
                log = None  # it was killed, it did not fail
            with _lock:
                _live.discard(process)
    finally:
        os.close(reader)

    text = printed.text()
    problem = None
    if late:
        problem = f"ran longer than {timeout_s:.0f} s and was stopped"
    elif process.returncode == -signal.SIGXFSZ:
        problem = (
            f"wanted a file of more than {largest_file >> 20} MB, a quarter of the room on the disk, and was stopped"
        )
    elif process.returncode < 0:
        problem = f"died of {signal.Signals(-process.returncode).name}"
    elif process.returncode not in ok_codes:
        problem = f"exited with status {process.returncode}"
    else:
        missing = [path.name for path in outputs if not path.is_file() or path.stat().st_size == 0]
        cut = [f"{path.name} ({why})" for path in (*outputs, *optional) if path.is_file() and (why := torn(path))]
        if missing:
            problem = f"exited normally but did not write {', '.join(missing)}"
        elif cut:
            problem = f"exited normally but wrote only a part of {', '.join(cut)}"
    if problem is None:
        return text
    free, last = shutil.disk_usage(cwd).free, _last_line(text)
    where = "run it again with its log kept"
    if log is not None:
        command = " ".join([executable, *arguments])
        said = f"$ {command}\n# after {time.monotonic() - started:.1f} s: {problem}\n{text}"
        where = _keep_log(log, said, [cwd / name for name in os.listdir(cwd) if name not in before])
    raise ToolFailedError.with_room(free, label, f"{problem}: {last}", where, log if log and log.is_file() else None)


def _last_line(text: str) -> str:
    """The last line with something on it, fit for a report."""
    for line in reversed(text[-4096:].splitlines()):
        if said := "".join(letter for letter in line if letter.isprintable()).strip():
            return said[:200]
    return "it printed nothing"


def _attend(process: subprocess.Popen[bytes], reader: int, printed: _Printed, end: float) -> bool:
    """Read what a tool prints until it ends; whether it did not in time.

    A child that it left behind may hold its output open: only the tool's own end counts.
    """
    ready = select.poll()
    ready.register(reader, select.POLLIN | select.POLLHUP)
    while process.poll() is None:
        left = end - time.monotonic()
        if left <= 0:
            return True
        if ready.poll(1000 * min(left, _POLL_S)) and not printed.take(reader):
            break  # closed: as a rule it ends now
    try:
        process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return True
    return False


class _Printed:
    """The end of what a tool prints: gigabytes of it cost neither memory nor disk."""

    def __init__(self) -> None:
        self._blocks: deque[bytes] = deque()
        self._kept = self._lost = 0

    def take(self, reader: int) -> bool:
        """Read a block; False at the end."""
        block = os.read(reader, _BLOCK)
        self._blocks.append(block)
        self._kept += len(block)
        while self._kept - len(self._blocks[0]) >= _LOG_LIMIT:
            self._lost += len(self._blocks[0])
            self._kept -= len(self._blocks.popleft())
        return bool(block)

    def take_rest(self, reader: int) -> None:
        """Read what is still in the pipe."""
        os.set_blocking(reader, False)
        with suppress(BlockingIOError):
            while self.take(reader):
                pass

    def text(self) -> str:
        """What is kept, and how much came before."""
        said = b"".join(self._blocks).decode("utf-8", "replace")
        return f"[{self._lost} bytes before this are left out]\n{said}" if self._lost else said


def _keep_log(log: Path, text: str, leftovers: Sequence[Path]) -> str:
    """Write a failed tool's log, on a full disk over the remains of its outputs; what to tell a person of it."""
    for attempt in (1, 2):
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with writing(log, durable=False) as temporary:
                temporary.write_text(text, encoding="utf-8")
            return f"see {log}"
        except OSError as error:
            why = error.strerror or str(error)
            for path in leftovers if attempt == 1 else ():
                with suppress(OSError):
                    path.unlink()
    return f"its log could not be kept ({why}); see to the disk and run it again"
