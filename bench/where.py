"""Where the time of a year and of a group goes: tools, waiting for them, reading and writing, computing.

Everything runs in one process, one stage at a time, so that each has the processor to itself. First without a profile,
which gives the times; then with one, which says how a stage's own time is spent.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import resource
import shutil
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.campaign import YEAR, campaign
from bench.contest import Work, contest
from bench.figures import Figure
from bench.group import stacking_campaign
from bench.place import Place, reset
from models.base import Roots

__all__ = ["group", "measure", "year"]

_READING = (
    "fromfile", "tofile", "fsync", "'read' of", "'write' of", "_hashlib", "posix.open", "io.open", "posix.unlink",
    "byteswap", "posix.rename", "posix.replace", "'close' of", "ImagingEncoder", "crc32", "sendfile", "zlib",
)  # fmt: skip
_WAITING = ("'poll' of", "fork_exec", "time.sleep", "posix.waitpid", "'acquire' of", "posix.read}")


@dataclass
class _Stage:
    """Of all calls of a stage's function."""

    wall: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    tools: list[float] = field(default_factory=list)
    profile: cProfile.Profile = field(default_factory=cProfile.Profile)

    def shares(self) -> tuple[float, float]:
        """Of the profiled time: reading and writing, starting tools and waiting for them."""
        stats = pstats.Stats(self.profile).stats  # type: ignore[attr-defined]
        spent = {name: own for (_, _, name), (_, _, own, _, _) in stats.items()}
        total = sum(spent.values()) or 1.0
        of = [sum(own for name, own in spent.items() if any(part in name for part in parts))
              for parts in (_READING, _WAITING)]  # fmt: skip
        return of[0] / total, of[1] / total


class _Here:
    """In the place of `tasks.core.pool.in_pool`: the stage runs here and now."""

    def __init__(self, profiled: bool) -> None:
        self.stages: dict[str, _Stage] = defaultdict(_Stage)
        self._profiled, self._lock = profiled, threading.Lock()

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            stage = self.stages[function.__name__]
            before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
            started = time.perf_counter()
            try:
                with stage.profile if self._profiled else nullcontext():
                    return function(*args, **kwargs)
            finally:
                stage.wall.append(time.perf_counter() - started)
                after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
                own, tools = (
                    b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(before, after, strict=True)
                )
                stage.own.append(own)
                stage.tools.append(tools)

    def told(self) -> dict[str, dict[str, Any]]:
        said = {}
        for name, stage in self.stages.items():
            shares = stage.shares() if self._profiled else (0.0, 0.0)
            said[name] = {
                "calls": len(stage.wall), "wall": stage.wall, "own": stage.own, "tools": stage.tools,
                "reading": shares[0], "waiting": shares[1],
            }  # fmt: skip
        return said


def _installed(profiled: bool) -> _Here:
    from tasks.core import pool

    here = _Here(profiled)
    in_pool = pool.in_pool
    for module in list(sys.modules.values()):
        if getattr(module, "in_pool", None) is in_pool:
            module.in_pool = here  # type: ignore[attr-defined]
    return here


def year(folder: str, profiled: bool) -> Work:
    """`reduce_year` by the bare functions."""
    from bench import bare
    from models.run import RunContext
    from models.settings import Settings

    root = Path(folder)
    run = RunContext.of("T120", Settings(data_root=root, raw_root=root / "raw", workers=1))
    here = _installed(profiled)
    reset(run.roots, ("raw", "catalogs"))
    yield
    bare.reduce_year(YEAR, run)
    return here.told()


def group(folder: str, ready: str, profiled: bool) -> Work:
    """`stack_target` as it is, but for where its stages run."""
    import os

    os.environ["OHP_CATALOG_MODE"] = "offline"
    from models.settings import Settings

    root = Path(folder)
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(ready, root, symlinks=True)
    settings = Settings(data_root=root, raw_root=root / "raw", workers=1)
    from flows._prefect import prepare

    prepare(settings)
    from flows._runner import run_all
    from flows.stack_target import stack_target

    here = _installed(profiled)
    yield
    started = time.perf_counter()
    run_all(stack_target, [("M67", "T120", settings)], settings)
    return here.told() | {"flow": time.perf_counter() - started}


def _rows(what: str, plain: dict[str, Any], profiled: dict[str, Any], per: float, unit: str) -> list[Figure]:
    figures = []
    for name, stage in plain.items():
        if name == "flow":
            continue
        total, own, tools = (sum(stage[key]) / per for key in ("wall", "own", "tools"))
        reading = profiled[name]["reading"] * own if name in profiled else 0.0
        waiting = max(0.0, total - own - tools)
        figures.append(
            Figure(
                name=f"{what}: {name}", value=1e3 * total, unit=f"ms {unit}",
                detail=f"{stage['calls']} calls, median {1e3 * median(stage['wall']):.0f} ms; tools "
                f"{1e3 * tools:.0f}, computing {1e3 * (own - reading):.0f}, reading and writing {1e3 * reading:.0f}, "
                f"starting processes and waiting {1e3 * waiting:.0f}",
            )
        )  # fmt: skip
    return sorted(figures, key=lambda figure: -figure.value)


def measure(place: Place) -> list[Figure]:
    """Stages of a year (the demo's campaign) and of a group (the rich field), medians over the turns."""
    roots = campaign(place, "where")
    frames = sum(1 for path in roots.raw.rglob("*.fits") if path.name.startswith(("M51", "M67")))
    few = place.frames < 100
    filters = ("g", "r") if few else ("B", "V", "g", "r", "i")
    ready = stacking_campaign(place, "where-group", filters, 2 if few else 8)
    figures: list[Figure] = []
    work = Roots(data=place.folder / "where-turn", raw=place.folder / "where-turn" / "raw")
    for what, name, arguments, per, unit in (
        ("year", "year", {"folder": str(roots.data)}, float(max(1, frames)), "a frame"),
        ("group", "group", {"folder": str(work.data), "ready": str(ready.data)}, 1.0, "in all"),
    ):
        once = Place(place.folder, 1, place.frames, place.say)
        plain = contest(once, f"where {what}", "bench.where", arguments | {"profiled": False}, (name,))[name]
        traced = contest(once, f"where {what} profiled", "bench.where", arguments | {"profiled": True}, (name,))[name]
        figures += _rows(what, plain.said, traced.said, per, unit)
    (place.folder / "where.json").write_text(json.dumps([f.model_dump() for f in figures]), encoding="utf-8")
    return figures
