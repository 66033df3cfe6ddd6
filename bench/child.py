"""A process that is measured: runs flows (or the bare functions) on a data root and says what that took, as JSON.

python -m bench.child --root DIR --telescope BENCH --reduce 2020,2021 --stack M51,M67 --out FILE
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.child", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--raw-root", type=Path)
    parser.add_argument("--telescope", default="T120")
    parser.add_argument("--reduce", default="", metavar="YEAR,YEAR")
    parser.add_argument("--stack", default="", metavar="GROUP,GROUP")
    parser.add_argument("--release", action="store_true", help="flows.build_release")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--bare", action="store_true", help="the bare functions, no Prefect")
    parser.add_argument("--simulated", action="store_true", help="trivial stages (bench.stages)")
    parser.add_argument("--warm", action="store_true", help="start Prefect's engine and server before the clock")
    parser.add_argument("--server-pid", type=int, help="a server whose processor time counts, too")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="write a profile of all threads")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


class _Opened:
    """Every file that this process opens, by kind; installed as an audit hook, so nothing escapes it."""

    def __init__(self, root: Path, raw: Path) -> None:
        self._root, self._raw = f"{root}{os.sep}", f"{raw}{os.sep}"
        self.counts = {"raw frames": 0, "products": 0, "records": 0, "others under the data root": 0}
        self.products: list[str] = []
        self.on = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not self.on or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        path = os.fspath(arguments[0])
        path = os.fsdecode(path)
        if path.startswith(self._raw):
            self.counts["raw frames"] += 1
        elif path.startswith(self._root):
            below = path[len(self._root) :]
            if below.startswith(".cache/results"):
                self.counts["records"] += 1
            elif below.endswith((".fits", ".psf", ".ldac", ".wcs", ".head")):
                self.counts["products"] += 1
                self.products.append(below)
            else:
                self.counts["others under the data root"] += 1


def _bytes_read() -> int:
    """What this process has read so far (rchar: also what was in the page cache)."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("rchar:"):
            return int(line.split()[1])
    raise RuntimeError("no rchar in /proc/self/io")


def main() -> int:
    arguments = _arguments()
    roots_root = arguments.root.resolve()
    raw_root = (arguments.raw_root or arguments.root / "raw").resolve()
    opened = _Opened(roots_root, raw_root)
    sys.addaudithook(opened)

    from flows._prefect import prepare
    from models.settings import Settings
    from models.telescope import load_telescope

    settings = Settings(data_root=roots_root, raw_root=raw_root, workers=arguments.workers)
    telescope = load_telescope(arguments.telescope, roots_root)
    prepare(settings.roots)

    import flows.build_release
    import flows.reduce_year
    import flows.stack_target
    from bench.processes import cpu_of_tree

    if arguments.simulated:
        from bench.stages import install

        install()
    if arguments.warm:
        _warm()
    years = [int(year) for year in arguments.reduce.split(",") if year]
    groups = [group for group in arguments.stack.split(",") if group]
    pids = [os.getpid(), *([arguments.server_pid] if arguments.server_pid else [])]
    opened.on, read = True, _bytes_read()
    cpu, started = [cpu_of_tree(pid) for pid in pids], time.perf_counter()
    profile = _profiled() if arguments.profile else None
    status, seconds = 0, {}
    if arguments.bare:
        from bench.bare import reduce_year
        from models.run import RunContext

        run = RunContext.of(telescope.name, settings)
        for year in years:
            begun = time.perf_counter()
            reduce_year(year, run)
            seconds[str(year)] = time.perf_counter() - begun
    else:
        from flows._release import exit_status
        from flows._runner import run_all, run_once

        for flow, subjects in ((flows.reduce_year.reduce_year, years), (flows.stack_target.stack_target, groups)):
            begun = time.perf_counter()
            if subjects:
                status = max(status, run_all(flow, subjects, settings, telescope))
                seconds[flow.name] = time.perf_counter() - begun
        if arguments.release:
            begun = time.perf_counter()
            release = flows.build_release.build_release
            status = max(status, exit_status(run_once(release, (telescope.name, settings), settings)))
            seconds[release.name] = time.perf_counter() - begun
    wall = time.perf_counter() - started
    if profile is not None:
        profile(arguments.profile)
    used = [cpu_of_tree(pid) - before for pid, before in zip(pids, cpu, strict=True)]
    opened.on = False
    said = {
        "status": status,
        "wall_s": wall,
        "parts_s": seconds,
        "cpu_s": used[0],
        "server_cpu_s": used[1] if len(used) > 1 else 0.0,
        "bytes_read": _bytes_read() - read,
        "opened": opened.counts,
        "products_opened": opened.products[:20],
        "rss_mb": _rss_mb(),
    }
    arguments.out.write_text(json.dumps(said, indent=1), encoding="utf-8")
    return status


def _rss_mb() -> float:
    from bench.processes import memory_of

    return memory_of(os.getpid())


def _warm() -> None:
    """A flow that does nothing: Prefect's engine is imported, its server is up."""
    from prefect import flow
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    @flow(name="warm-up")
    def nothing() -> int:
        return 1

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        nothing()


def _profiled() -> Any:
    """cProfile in every thread; returns what writes the sum of them."""
    import cProfile
    import pstats
    import threading

    profiles = []

    def begin(*_: Any) -> None:
        profile = cProfile.Profile(builtins=False)
        profiles.append(profile)
        profile.enable()

    threading.setprofile(begin)
    begin()

    def end(path: Path) -> None:
        threading.setprofile(None)
        for profile in profiles:
            profile.disable()
        stats = pstats.Stats(profiles[0])
        for profile in profiles[1:]:
            profile.create_stats()
            if profile.stats:
                stats.add(profile)
        stats.dump_stats(path)

    return end


if __name__ == "__main__":
    sys.exit(main())
