"""Every raw file below a folder: no link leads out of it or round in circles, nothing is opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models.base import Roots
from models.telescope import Telescope

__all__ = ["Found", "count_raw_files", "scan"]

_GZIP = ".gz"


@dataclass(frozen=True)
class Found:
    r"""A file (or a folder that cannot be read) below the raw root.

    Attributes
    ----------
    path
        Absolute.
    relative
        Relative to the raw root, POSIX; bytes that are no UTF-8 stand as ``\xNN``.
    problem, remedy
        Why it cannot be opened, and what to do; empty when it can.
    ignored
        Why it is no raw file although its suffix says so, where that is no problem.
    """

    path: Path
    relative: str
    problem: str = ""
    remedy: str = ""
    ignored: str = ""


def readable(name: str) -> str:
    r"""A path as text that can be printed and stored: bytes that are no UTF-8 as ``\xNN``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_raw(name: str, suffixes: tuple[str, ...]) -> bool:
    low = name.lower()
    return low.removesuffix(_GZIP).endswith(tuple(suffix.lower() for suffix in suffixes))


def scan(roots: Roots, suffixes: tuple[str, ...]) -> Iterator[Found]:
    """Find the files with one of the suffixes, at any depth.

    A linked folder is not entered: what is inside the root is found at its own place, what is outside does
    not belong to it. The data root is skipped where it lies below the raw root.
    """
    products = _identity(roots.data)
    waiting = [(roots.raw, "")]
    while waiting:
        folder, below = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                listing = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            yield Found(
                folder, readable(below) or ".", f"the folder cannot be read: {error.strerror}", "check who may read it"
            )
            continue
        for entry in listing:
            relative = f"{below}/{entry.name}" if below else entry.name
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                if products is None or _identity(path) != products:
                    waiting.append((path, relative))
            elif entry.is_symlink():
                if found := _link(path, relative, roots, suffixes):
                    yield found
            elif _is_raw(entry.name, suffixes):
                yield _file(entry, path, relative)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _file(entry: os.DirEntry[str], path: Path, relative: str) -> Found:
    name = readable(relative)
    if entry.name.startswith("._"):
        return Found(path, name, ignored="a companion file of macOS, not a frame")
    try:
        regular = stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode)
    except OSError as error:
        return Found(path, name, f"cannot be read: {error.strerror}", "check the disk and who may read the file")
    if not regular:
        return Found(path, name, "not a regular file", "remove it from the raw tree")
    if name != relative:
        return Found(
            path, name, "its path is not UTF-8", "rename it, for instance: convmv -f latin1 -t utf8 -r --notest FOLDER"
        )
    return Found(path, name)


def _link(path: Path, relative: str, roots: Roots, suffixes: tuple[str, ...]) -> Found | None:
    name = readable(relative)
    target = Path(os.path.realpath(path))
    inside = target.is_relative_to(os.path.realpath(roots.raw))
    is_folder = target.is_dir()
    if not is_folder and not _is_raw(path.name, suffixes):
        return None
    if is_folder and inside:
        return None
    if not inside:
        return Found(
            path,
            name,
            "a link that leads out of the raw root: not followed",
            "copy what it points to into the raw tree, or give the real folder as the raw root",
        )
    if not target.exists():
        return Found(path, name, "a link to nothing", "remove it, or restore what it pointed to")
    return Found(path, name, ignored=f"a link to {readable(target.name)}, which is listed at its own place")


def count_raw_files(roots: Roots, telescope: Telescope) -> int:
    """How many files with the telescope's suffixes lie below the raw root; none is opened."""
    return sum(not found.ignored and not found.problem for found in scan(roots, telescope.suffixes))
