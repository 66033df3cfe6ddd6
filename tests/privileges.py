"""Rights taken away: root reads every file and writes everywhere, so that for root nothing would be unreadable."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

__all__ = ["confined", "reading_only_what_it_may"]

_DAC = (1 << 1) | (1 << 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of linux/capability.h."""
_VERSION = 0x20080522

_LESS = ["setpriv", "--inh-caps", "-all", "--bounding-set", "-dac_override,-dac_read_search,-sys_admin"]

_CONFINED = r"""
mount --make-rprivate /
for place in "$1" "$2" "$3"; do mount --bind "$place" "$place"; done
findmnt -rn -o TARGET | while read -r place; do
  case "$place" in "$1"|"$3"|/proc*|/sys*|/dev*) ;; *) mount -o remount,bind,ro "$place" || exit 1 ;; esac
done || exit 1
shift 3
"""


@contextmanager
def reading_only_what_it_may() -> Iterator[None]:
    """Inside, permissions hold for this thread even if it is root's."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable of 32 capabilities, twice
    if libc.capget(header, before):
        raise OSError(ctypes.get_errno(), "capget")
    less = (ctypes.c_uint32 * 6)(*before)
    less[0] &= ~_DAC
    if libc.capset(header, less):
        raise OSError(ctypes.get_errno(), "capset")
    try:
        yield
    finally:
        libc.capset(header, before)


@cache
def _works(prefix: tuple[str, ...]) -> bool:
    return subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0


def confined(data: Path, raw: Path, temporary: Path) -> list[str]:
    """What a command is put behind so that it can write below two folders only, and read what it may.

    All else, the raw frames too, is mounted read-only in a mount namespace of its own (mount_namespaces(7)). Without
    the right to that, only the rights of root are taken away; without setpriv (util-linux), nothing is.

    Parameters
    ----------
    data, temporary
        Where it may write. The second one is for TMPDIR.
    raw
        Where it may not, even below `data`.
    """
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return []
    places = [str(data), str(raw), str(temporary)]
    script = f'{_CONFINED}\nexec {" ".join(_LESS)} -- "$@"'
    inside = ["unshare", "--mount", "sh", "-ec", script, "sh", *places]
    if _works(tuple(inside)):
        return inside
    return _LESS if _works(tuple(_LESS)) else []
