"""A release in which a run found nothing to do, and that nobody has touched since, is not looked at frame by frame.

All that a release is made from is compared at once: every file of the raw tree and of the data root (by inode, size and
times), profile, targets, settings, our code, the programs' versions. One difference, and everything is looked at as
ever, by content.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from flows import _effort as effort
from flows._parts import Part
from models.base import Roots
from models.run import RunContext, RunSummary
from tasks.core.files import write_json
from tasks.core.home import prefect_home
from tasks.core.untouched import UntellableError, tree_state
from tasks.report import software_versions

__all__ = ["Release", "besides"]

_PLACES = {"data_root", "raw_root", "workers"}
"""Settings that say where and with how many hands, not what."""
_TOOLS = ("solve-field", "source-extractor", "scamp", "SWarp", "psfex")
_PACKAGES = ("flows", "models", "tasks")
_log = logging.getLogger("ohp.run")


def besides(run: RunContext) -> str:
    """What else than files a release depends on: profile, targets, settings, versions."""
    settings = run.settings.model_dump(mode="json", exclude=_PLACES)
    parts = [run.telescope.model_dump(mode="json"), settings, software_versions(_TOOLS)]
    parts += [{name: target.model_dump(mode="json") for name, target in sorted(run.targets.items())}]
    return json.dumps(parts, sort_keys=True, default=str)


def _our_code() -> str:
    state = hashlib.sha256()
    top = Path(__file__).resolve().parents[1]
    for package in _PACKAGES:
        for path in sorted((top / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                state.update(f"{path.relative_to(top).as_posix()}\0".encode())
                state.update(path.read_bytes())
    return state.hexdigest()


def _left_out(roots: Roots) -> frozenset[Path]:
    """What changes without anything having changed, and the raw tree, which is looked at on its own."""
    cache = roots.data / ".cache"
    busy = [cache / name for name in ("locks", "matplotlib", "unchanged", "digests.sqlite")]
    busy += [cache / f"digests.sqlite-{name}" for name in ("shm", "wal")]
    return frozenset([*busy, roots.scratch, roots.logs, roots.raw, prefect_home(roots)])


class Release:
    """What is known of the release as it was made the last time.

    Parameters
    ----------
    run
        The run that is beginning.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._file = run.roots.data / ".cache" / "unchanged" / f"whole_{run.telescope.name}.json"
        self._raw = self._state_of_raw()
        self._effort = effort.so_far()

    def as_it_was(self) -> RunSummary | None:
        """What the last run found, if it found nothing to do and nothing has been touched since; else None."""
        if self._run.refresh or self._raw is None:
            return None
        try:
            known = json.loads(self._file.read_bytes())
            summary = RunSummary.model_validate_json(json.dumps(known["summary"]))
            key, at = str(known["key"]), str(known["at"])
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            return None  # never made, or not by this version: looked at as ever
        if key != self._key():
            return None
        said = f"no file, setting or program has changed since {at}"
        return summary.model_copy(update={"figures": {"unchanged": said, **summary.figures}})

    def remember(self, parts: Sequence[Part], summary: RunSummary) -> None:
        """Note the release as it is now, if the run found all on record and nothing waits.

        What a run has to make, or fails at in a way that is on no record (a tool that crashed, a mistake of ours), the
        next run looks at again.
        """
        self._file.unlink(missing_ok=True)
        failures = [*summary.failures, *(failure for each in parts for failure in each.failures)]
        if self._effort != effort.so_far() or summary.n_pending or any(failure.pending for failure in failures):
            return
        # A raw frame that came or changed while the run was at work may not have been seen by it.
        if self._raw is None or self._state_of_raw() != self._raw:
            return
        key = self._key()
        if key is not None:
            at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            write_json(self._file, {"key": key, "at": at, "summary": summary.model_dump(mode="json")})

    def _state_of_raw(self) -> str | None:
        roots = self._run.roots
        inside = frozenset([roots.data]) if roots.data.is_relative_to(roots.raw) else frozenset[Path]()
        return self._told(roots.raw, inside)

    def _key(self) -> str | None:
        data = self._told(self._run.roots.data, _left_out(self._run.roots))
        if data is None or self._raw is None:
            return None
        return hashlib.sha256("\0".join([self._raw, data, besides(self._run), _our_code()]).encode()).hexdigest()

    def _told(self, folder: Path, left_out: frozenset[Path]) -> str | None:
        try:
            return tree_state(folder, left_out)
        except UntellableError as error:
            _log.info("everything is looked at, since %s", error)
            return None
