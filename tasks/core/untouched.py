"""Whether anybody has touched a tree of files, told by inodes, sizes and times; no file is opened."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["UntellableError", "tree_state"]


class UntellableError(Exception):
    """The tree has something in it that a look at names, sizes and times does not settle."""


def _entries(folder: Path, left_out: frozenset[Path]) -> Iterator[tuple[str, os.stat_result]]:
    folders = [folder]
    while folders:
        with os.scandir(folders.pop()) as found:
            for entry in found:
                if left_out and Path(entry.path) in left_out:
                    continue
                if entry.is_dir():
                    if entry.is_symlink():
                        raise UntellableError(f"{entry.path} leads to another folder")
                    folders.append(Path(entry.path))
                else:
                    yield entry.path, entry.stat()  # of what a link leads to


def tree_state(folder: Path, left_out: frozenset[Path] = frozenset()) -> str:
    """Digest (SHA-256, hex) of which files are below a folder, and of each one's inode, size and times.

    A file whose content changes has another time of change (``st_ctime``), which nobody can set; so the state
    changes with every content, name and place, and sometimes without (a copy of the tree has another state).

    Parameters
    ----------
    folder
        What it does not hold counts as empty: also a folder that is not there.
    left_out
        Files and folders that do not count.

    Raises
    ------
    UntellableError
        If a link leads to a folder, or something cannot be looked at.
    """
    state = hashlib.sha256()
    try:
        for path, status in sorted(_entries(folder, left_out)) if folder.is_dir() else ():
            times = f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
            state.update(f"{path.removeprefix(str(folder))}\0{times}\0".encode(errors="surrogateescape"))
    except OSError as error:
        raise UntellableError(str(error)) from error
    return state.hexdigest()
