"""Run a program for which the kernel refuses locks, as a file system without them does.

python -m tests.faults.lockless PROGRAM ARGUMENT ...

A seccomp filter (seccomp(2)) answers ENOLCK to every request for a lock; children inherit it. Hard links cannot be
refused so: glibc makes every semaphore with one, under /dev/shm.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
import sys

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _SECOND_ARGUMENT = 0, 24
_CALLS = {"x86_64": (72, 73), "aarch64": (25, 32)}
"""fcntl, flock."""


def _program() -> list[tuple[int, int, int, int]]:
    fcntl_call, flock_call = _CALLS[platform.machine()]
    commands = [fcntl.F_SETLK, fcntl.F_SETLKW, 37, 38]  # and F_OFD_SETLK, F_OFD_SETLKW
    no_lock = (_RETURN, 0, 0, _ERRNO | errno.ENOLCK)
    lines: list[tuple[int, int, int, int]] = [(_LOAD, 0, 0, _NUMBER)]
    lines += [(_EQUAL, 0, 1, flock_call), no_lock]
    lines += [(_EQUAL, 1, 0, fcntl_call), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, _SECOND_ARGUMENT)]
    for command in commands:
        lines += [(_EQUAL, 0, 1, command), no_lock]
    return [*lines, (_RETURN, 0, 0, _ALLOW)]


def refuse_locks() -> None:
    """Install the filter in this process, for good."""
    lines = _program()
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    program = struct.pack("HxxxxxxQ", len(lines), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp refused the filter")


if __name__ == "__main__":
    refuse_locks()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 (no shell)
