"""Where Prefect keeps its state on a data root that several accounts may share."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from models.base import Roots
from tasks.core.files import has_locks

__all__ = ["claim_home", "prefect_home"]


def claim_home(roots: Roots) -> None:
    """Make the folder before Prefect does: of two accounts that begin at once, each then knows whose it is."""
    with suppress(OSError):  # it is there; that a data root cannot be written is told elsewhere
        (roots.data / ".prefect").mkdir(mode=0o700)


def prefect_home(roots: Roots) -> Path:
    """``DATA_ROOT/.prefect``, or ``.prefect-UID`` for an account that may not use the first one's.

    Its database says what a worker runs: Prefect gives it to the account that makes it, and to nobody else. A database
    needs locks: on a file system without them it is kept under the account's own ``~/.cache/ohp-prefect``.
    """
    if not has_locks(roots.data):
        name = hashlib.sha256(str(roots.data.resolve()).encode()).hexdigest()[:12]
        return Path.home() / ".cache" / "ohp-prefect" / name
    shared = roots.data / ".prefect"
    database = shared / "prefect.db"
    usable = os.access(shared, os.R_OK | os.W_OK | os.X_OK) and (
        not database.exists() or os.access(database, os.R_OK | os.W_OK)
    )
    return shared if usable or not shared.exists() else roots.data / f".prefect-{os.geteuid()}"
