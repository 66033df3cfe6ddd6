"""Where the results of cached tasks are recorded: one folder of a data root, shared by every run on it.

A record is Prefect's own (`prefect.results.ResultRecord`, JSON). What Prefect's file storage lacks is added here: a
record appears whole or not at all, one run at a time works on a key (a second run waits and then finds the record),
a lock dies with its process, and a record whose products are gone or changed is none.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import logging
import os
import struct
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from prefect.context import FlowRunContext, TaskRunContext
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer
from pydantic import BaseModel

from models.base import FileRef, Record, Roots
from tasks.core.files import is_current, writing
from tasks.core.tools import StoppedError, stopping

__all__ = ["NOTHING", "Recording", "current", "locked", "products_in", "recording", "stage_of"]

_log = logging.getLogger("ohp.cache")

NOTHING: Any = object()
"""What `Recording.get` gives where there is no record that counts; None may be a result."""

_POLL_S = 0.05
_CLOCKS_DIFFER_S = 300.0
"""How far the clock of a network disk may be ahead of ours."""


def stage_of(key: str) -> str:
    """The stage that a key belongs to: the task's name in lower case, with dashes."""
    return key.rpartition("-")[0].lower()


def products_in(value: Any) -> Iterator[FileRef]:
    """Every file that a result refers to."""
    if isinstance(value, FileRef):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from products_in(getattr(value, name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from products_in(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from products_in(item)


@dataclass(frozen=True)
class Recording:
    """The records of a data root, as one run sees them.

    Parameters
    ----------
    roots
        Folders of the run.
    refresh
        Stages (`stage_of` a key) whose older records do not count.
    since
        Time (s since 1970) before which a record of these is older.
    """

    roots: Roots
    refresh: Collection[str] = ()
    since: float = 0.0

    @property
    def folder(self) -> Path:
        """Where the records lie."""
        return self.roots.data / ".cache" / "results"

    def get(self, key: str) -> Any:
        """The recorded result, or `NOTHING`.

        A record counts while it can be read, all its products are there with their content, and nobody asked
        for its stage to run again. What only stands in for the work of a tool that failed (``provisional``) counts in
        the run that made it.
        """
        path = self.folder / key
        try:
            written = path.stat().st_mtime
            if self.refresh and stage_of(key) in self.refresh and not self._of_this_run(written):
                return NOTHING
            result = _result_in(_unsealed(path))
        except FileNotFoundError:
            return NOTHING
        except (OSError, ValueError, LookupError, TypeError, ImportError, AttributeError, RecursionError) as error:
            _log.warning("the record %s cannot be read and does not count: %s", path.name, error)
            return NOTHING
        if getattr(result, "provisional", False) and not self._of_this_run(written):
            return NOTHING
        return result if all(is_current(product, self.roots) for product in products_in(result)) else NOTHING

    def _of_this_run(self, written: float) -> bool:
        """Whether a record was written since the run began; one from the future is of before the clock was set back."""
        return self.since <= written < time.time() + _CLOCKS_DIFFER_S

    def forget(self, key: str) -> None:
        """Remove a record."""
        (self.folder / key).unlink(missing_ok=True)


_current: ContextVar[Recording | None] = ContextVar("recording", default=None)


def current() -> Recording | None:
    """The recording that the code which asks runs in; None outside of `recording`."""
    return _current.get()


class _Folder(LocalFileSystem):
    """Prefect's local storage, but a file appears whole or not at all."""

    _block_type_name: ClassVar[str] = "OHP record folder"

    def _resolve_path(self, path: str) -> Path:
        # Prefect resolves the folder anew for each access, link by link: an eighth of what a task run costs.
        bare = bool(path) and path == Path(path).name and path != ".."
        return Path(self.basepath) / path if bare and self.basepath else super()._resolve_path(path)

    def write_path(self, path: str, content: bytes, _sync: bool | None = None) -> str:  # type: ignore[override]
        target = self._resolve_path(path)
        # Not synced: a record lost in a power cut costs a rerun, thousands of syncs cost minutes.
        with writing(target, durable=False) as temporary:
            temporary.write_bytes(content + _seal(target.name, content))
        return str(target)

    def read_path(self, path: str, _sync: bool | None = None) -> bytes:  # type: ignore[override]
        content = _unsealed(self._resolve_path(path))
        _result_in(content)  # Prefect reads it its own way after this
        return content


_SERIALIZER = JSONSerializer().model_dump(mode="json")


def _result_in(content: bytes) -> Any:
    """The result in a record, if it is one of ours: JSON of plain values and of models of this project.

    Whoever may write into the folder of the records is trusted with numbers and with nothing else. Prefect reads a
    record with the serializer that the record names (pickle, which runs what is in it) and imports every class that it
    names; neither is done here.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    record = json.loads(content)
    if record["metadata"]["serializer"] != _SERIALIZER:
        raise ValueError(f"it is not to be read as plain JSON but as {record['metadata']['serializer']!r:.200}")
    return json.loads(record["result"], object_hook=_model)


def _model(value: dict[str, Any]) -> Any:
    """The model that Prefect's encoder wrote as its class's name and its fields."""
    if "__exc_type__" in value:
        raise ValueError("it holds an exception, which no result is")
    if "__class__" not in value:
        return value
    module, _, name = str(value["__class__"]).rpartition(".")
    if module.partition(".")[0] == "models":
        importlib.import_module(module)
    found = getattr(sys.modules.get(module), name, None)
    if not (isinstance(found, type) and issubclass(found, Record)):
        raise ValueError(f"it names {value['__class__']!r:.200}, which is no model of ours")
    return found.model_validate(value["data"])


def _seal(name: str, content: bytes) -> bytes:
    """Last line of a record: a wrong digit in it, or another record in its place, would go into all that follows."""
    return b"\n" + hashlib.sha256(name.encode() + b"\n" + content).hexdigest().encode() + b"\n"


def _unsealed(path: Path) -> bytes:
    stored = path.read_bytes()
    content, _, _ = stored.removesuffix(b"\n").rpartition(b"\n")
    if stored != content + _seal(path.name, content):
        raise ValueError("it does not fit its digest")
    return content


@contextmanager
def recording(roots: Roots, refresh: Collection[str] = (), since: float = 0.0) -> Iterator[Recording]:
    """Inside, tasks keep their results under the data root, whatever Prefect's own settings say.

    Must be entered in a flow run (its body, or a task of it on another machine).
    """
    here = Recording(roots, tuple(refresh), since)
    if _current.get() == here:
        yield here
        return
    here.folder.mkdir(parents=True, exist_ok=True)
    store = ResultStore(
        result_storage=_Folder(basepath=str(here.folder)),
        lock_manager=_KeyLocks(here),
        serializer=JSONSerializer(),
    )
    token = _current.set(here)
    try:
        context = TaskRunContext.get() or FlowRunContext.get()
        if context is None:
            yield here
        else:
            with context.model_copy(update={"result_store": store}):
                yield here
    finally:
        _current.reset(token)


class _KeyLocks:
    """Prefect's `LockManager` with locks of the kernel: whoever dies has none any more.

    All keys share one file; a key is a byte of it (open file description locks, see fcntl(2)), so that no
    litter is left. On a file system without such locks two runs may do the same work twice; each file is
    still whole.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._path = recording.roots.data / ".cache" / "locks"
        self._held: dict[str, tuple[int | None, str]] = {}
        self._guard = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"_recording": self._recording, "_path": self._path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_recording"])  # type: ignore[misc]

    def __deepcopy__(self, memo: dict[int, Any]) -> _KeyLocks:
        return self

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Wait for the key, then forget its record if it does not count any more."""
        if self.is_lock_holder(key, holder):
            return True
        descriptor = _lock_byte(self._path, key, acquire_timeout)
        if descriptor == _BUSY:
            return False
        with self._guard:
            self._held[key] = (descriptor, holder)
        if self._recording.get(key) is NOTHING:
            self._recording.forget(key)
        return True

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """The same; our tasks are synchronous."""
        return self.acquire_lock(key, holder, acquire_timeout, hold_timeout)

    def release_lock(self, key: str, holder: str) -> None:
        """Let the next one at the key."""
        with self._guard:
            descriptor, _ = self._held.pop(key, (None, ""))
        if descriptor is not None:
            os.close(descriptor)

    def is_locked(self, key: str) -> bool:
        """Whether this process holds the key."""
        return key in self._held

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether `holder` has the key."""
        return self._held.get(key, (None, ""))[1] == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody has the key.

        Records are replaced as a whole, so that reading needs no lock.
        """
        return True

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """The same."""
        return True


_BUSY = -1
_told_lockless = threading.Event()


def _lock_byte(path: Path, key: str, timeout: float | None = None) -> int | None:
    """An open descriptor that holds the key's lock; `_BUSY` after `timeout`; None where there are no locks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    byte = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    started, told = time.monotonic(), False
    while True:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
            return descriptor
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: somebody has it
            pass
        except OSError as error:
            os.close(descriptor)
            if not _told_lockless.is_set():
                _told_lockless.set()
                _log.warning("no locks on this file system (%s): two runs at once may do the same work twice", error)
            return None
        if not told and time.monotonic() - started > 1.0:
            told = True
            _log.info("another run is at %s; waiting for it", stage_of(key))
        if stopping():
            os.close(descriptor)
            raise StoppedError("waiting for another run")
        if timeout is not None and time.monotonic() - started >= timeout:
            os.close(descriptor)
            return _BUSY
        time.sleep(_POLL_S)


@contextmanager
def locked(roots: Roots, name: str) -> Iterator[None]:
    """Alone at something that every run on a data root shares: reading, changing and writing back a file."""
    descriptor = _lock_byte(roots.data / ".cache" / "locks", f"shared:{name}")
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
