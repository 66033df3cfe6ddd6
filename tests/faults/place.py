"""A data root for faults: made quickly, driven by commands, looked over afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.base import Roots
from models.simulation import SimulationOptions
from tests.caching.site import YEAR, Site
from tests.caching.test_killed import half_written, undated
from tests.demo import REPO

__all__ = ["GROUP", "YEAR", "Place", "differences", "patience", "processes_with", "simulated"]

GROUP = "M67"
SIDE = 512
_LEFT_ALONE = ("raw", ".prefect")


def simulated(root: Path, frames: int = 2, groups: Sequence[str] = (GROUP,)) -> None:
    """A night-pair of small frames in g and r, with catalogues and a telescope of that shape."""
    from tasks.simulation import simulate_campaign

    options = SimulationOptions(
        seed=11, years=(YEAR,), fields=tuple(groups), filters=("g", "r"), frames=frames, biases=3, flats=3, size=SIDE,
        oddities=False,
    )  # fmt: skip
    simulate_campaign(Roots(data=root, raw=root / "raw"), options, workers=2)
    profile = (REPO / "models" / "profiles" / "T120.toml").read_text()
    (root / "telescopes").mkdir()
    (root / "telescopes" / "T120.toml").write_text(profile.replace("[1024, 1024]", f"[{SIDE}, {SIDE}]"))


@dataclass(frozen=True)
class Place:
    """A data root; its raw frames may lie elsewhere."""

    roots: Roots
    api: str

    @classmethod
    def beside(cls, source: Path, data: Path, api: str, products: bool = False) -> Place:
        """A data root over the raw frames of another one, with its catalogues and telescope, or all it has made."""
        data.mkdir(parents=True, exist_ok=True)
        names = [path.name for path in source.iterdir() if path.name not in _LEFT_ALONE] if products else []
        for name in dict.fromkeys(["catalogs", "telescopes", *names]):
            kind = shutil.copytree if (source / name).is_dir() else shutil.copy
            if (source / name).exists():
                kind(source / name, data / name)
        return cls(Roots(data=data, raw=source / "raw"), api)

    @property
    def site(self) -> Site:
        """For what looks at data roots in tests/caching."""
        return Site(self.roots)

    def start(self, *arguments: str, prefix: Sequence[str] = (), **environment: str) -> subprocess.Popen[str]:
        """One of our commands as a shell starts it, beside a running server."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("OHP_", "PREFECT_"))}
        ours = {
            "HOME": str(self.roots.data.parent),
            "OHP_CATALOG_MODE": "offline",
            "OHP_WORKERS": "2",
            "PREFECT_API_URL": self.api,
        }
        roots = ["--root", str(self.roots.data), "--raw-root", str(self.roots.raw)]
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", *arguments, *roots],
            cwd=REPO, env=clean | ours | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def run(self, *arguments: str, timeout: float = 3600, **options: Any) -> tuple[int, str]:
        """The same to its end; exit status and what it printed."""
        process = self.start(*arguments, **options)
        try:
            output, _ = process.communicate(timeout=timeout)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, output

    def reduce(self, *more: str, **options: Any) -> tuple[int, str]:
        return self.run("flows.reduce_year", str(YEAR), *more, **options)

    def stack(self, *more: str, **options: Any) -> tuple[int, str]:
        return self.run("flows.stack_target", GROUP, *more, **options)

    def complete(self, **options: Any) -> str:
        """The next runs, with nothing in their way: they must make everything."""
        status, output = self.reduce(**options)
        assert status == 0, output
        status, more = self.stack(**options)
        assert status == 0, output + more
        return output + more

    def report(self, name: str) -> list[dict[str, Any]]:
        """Rows of a report, over all groups."""
        path = min(self.roots.data.rglob(f"{name}.json"), key=lambda path: len(path.parts))
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        assert isinstance(rows, list)
        return rows

    def unfinished_by_killed(self) -> list[str]:
        """Torn files under their own names, which not even a killed run may leave."""
        return half_written(self.site)

    def unfinished(self) -> list[str]:
        """Torn files, temporary ones, working folders: there must be none."""
        data = self.roots.data
        left = [path.relative_to(data).as_posix() for path in data.rglob("*.tmp") if ".prefect" not in path.parts]
        scratch = [path.name for path in self.roots.scratch.iterdir()] if self.roots.scratch.is_dir() else []
        return half_written(self.site) + left + scratch


def patience(seconds: float) -> float:
    """As long as so many seconds of a machine that does nothing else."""
    return seconds * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


def differences(ours: Place, undisturbed: Place, years: Sequence[str] = (f"{YEAR}",)) -> list[str]:
    """Products that are not what an undisturbed run makes, but for dates."""
    mine, theirs = undated(ours.site, years), undated(undisturbed.site, years)
    return sorted({name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)})


def processes_with(word: str) -> dict[int, str]:
    """Live processes that have a word in their command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            said = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if word in said and int(folder.name) != os.getpid():
                found[int(folder.name)] = said
    return found


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """A file system of the test's own."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *arguments, str(folder)], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
