"""What sums up a whole data root is made again only when something in it has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from models.base import Roots
from tasks.core.files import digest_file, write_json

__all__ = ["made_before", "unless_unchanged"]


def _state(roots: Roots, name: str) -> Path:
    return roots.data / ".cache" / "unchanged" / f"{name}.json"


def _key(inputs: Iterable[Path], without: Iterable[Path], besides: str, roots: Roots) -> str:
    """Digest of the inputs' names and contents, and of what else the making depends on."""
    left_out = set(without)
    digest = hashlib.sha256(besides.encode())
    for path in sorted(set(inputs) - left_out):
        digest.update(f"{path.relative_to(roots.data).as_posix()}\0{digest_file(path, roots)}\0".encode())
    return digest.hexdigest()


def _read(roots: Roots, name: str) -> Mapping[str, object]:
    try:
        state = json.loads(_state(roots, name).read_bytes())
    except (OSError, ValueError):  # not there, or not whole
        return {}
    return state if isinstance(state, dict) else {}


def made_before(roots: Roots, name: str) -> tuple[Path, ...]:
    """What was made under this name the last time."""
    outputs = _read(roots, name).get("outputs")
    return tuple(roots.data / each for each in outputs) if isinstance(outputs, dict) else ()


def unless_unchanged(
    roots: Roots,
    name: str,
    inputs: Callable[[], Iterable[Path]],
    besides: str,
    make: Callable[[], tuple[Path, ...]],
    without: Callable[[], Iterable[Path]] = tuple,
) -> tuple[Path, ...]:
    """Call `make`, or return the paths of what it made the last time if nothing has changed.

    Parameters
    ----------
    roots, name
        Where and under which name it is remembered.
    inputs
        The files that are looked at, their contents by digest; those that `make` itself writes do not count.
    besides
        All else that decides the result: settings, versions.
    make
        Returns the files it has written, the same bytes (but for dates) for the same inputs.
    without
        Files among the inputs that are not looked at.

    Raises
    ------
    OSError
        If a file cannot be read or written.
    """
    state, before = _read(roots, name), made_before(roots, name)
    outputs = state.get("outputs")
    if before and isinstance(outputs, dict) and all(path.is_file() for path in before):
        same = all(digest_file(path, roots) == outputs[path.relative_to(roots.data).as_posix()] for path in before)
        if same and state.get("key") == _key(inputs(), {*before, *without()}, besides, roots):
            return before
    made = make()
    kept = {path.relative_to(roots.data).as_posix(): digest_file(path, roots) for path in made}
    key = _key(inputs(), {*made, *without()}, besides, roots)
    write_json(_state(roots, name), {"key": key, "outputs": kept})
    return made
