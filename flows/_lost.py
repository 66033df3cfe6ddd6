"""Runs that were killed: a note of each run at work, and what is left of it marked as crashed by the next one.

Nobody tells the server that a process was killed with SIGKILL, by the kernel for want of memory, or by a power cut;
its run would stay *Running* for ever. A note is a file under ``DATA_ROOT/.prefect/running`` that its process holds a
lock on: whoever can take the lock knows that the process is gone.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from models.base import Roots
from tasks.core.home import prefect_home

__all__ = ["noted"]

_log = logging.getLogger("ohp.run")


def _folder(roots: Roots) -> Path:
    return prefect_home(roots) / "running"


@contextmanager
def noted(roots: Roots) -> Iterator[None]:
    """In a flow's body: mark the runs of this data root whose process is gone, then leave a note of this one."""
    context = FlowRunContext.get()
    here = str(context.flow_run.id) if context is not None and context.flow_run is not None else None
    _mark_lost(roots, here)
    if here is None:
        yield
        return
    path, unlocked = _folder(roots) / here, _folder(roots) / f".{here}"
    descriptor = None
    try:
        _folder(roots).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unlocked.replace(path)  # seen only now that its lock is held
    except OSError as error:  # no locks there, no room: the run itself needs no note
        _log.warning("no note of this run in %s: %s; if it is killed, it stays Running", path.parent, error.strerror)
        with suppress(OSError):
            unlocked.unlink(missing_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        if descriptor is not None:
            os.close(descriptor)


def _mark_lost(roots: Roots, here: str | None) -> None:
    """Mark what has a note and no process; `here` is this run, which may be a killed one that is tried again."""
    if not _folder(roots).is_dir():
        return
    for path in sorted(_folder(roots).glob("[!.]*")):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # it ended just now, another run has marked it, or it is another user's
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.name != here:
                _mark(path.name)
            path.unlink(missing_ok=True)
        except OSError:  # at work, or nobody can tell: there are no locks
            continue
        finally:
            os.close(descriptor)


def _mark(name: str) -> None:
    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(UUID(name))
        except (ObjectNotFound, ValueError):  # of another server, or pruned, or no note of ours
            return
        if run.state is None or run.state.type not in (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING):
            return
        state: State[object] = Crashed(
            message="Its process was killed. What it had finished is kept; run it again for the rest."
        )
        client.set_flow_run_state(run.id, state, force=True)
        _log.warning("the run %s was killed while it ran; marked as crashed", run.name)
