"""A flow whose task runs hold more or less: seven trivial cached stages a frame, cut in different ways.

python -m bench.layouts --root DIR --layout 'passes of cached stages' --frames 100 --out FILE
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from flows._prefect import prepare
from models.base import FileRef, Roots
from tasks.core.files import ref, writing

__all__ = ["LAYOUTS", "STAGES", "make_file"]

STAGES = 7
_PASSES = ((0, 2), (2, 4), (4, 7))

LAYOUTS: dict[str, tuple[bool, tuple[tuple[int, int], ...], int]] = {
    "passes of cached stages": (True, _PASSES, 1),
    "whole frames of cached stages": (True, ((0, STAGES),), 1),
    "batches of 10 frames of cached stages": (True, ((0, STAGES),), 10),
    "passes": (False, _PASSES, 1),
    "whole frames": (False, ((0, STAGES),), 1),
    "batches of 10 frames": (False, ((0, STAGES),), 10),
}
"""Whether each stage is a task run of its own; the stages that an outer task run holds; of how many frames."""


def make_file(frame: int, stage: int, roots: Roots) -> FileRef:
    """A stage that costs nothing but its product."""
    path = roots.data / "layout" / f"{frame:05d}" / f"{stage}.txt"
    with writing(path, durable=False) as temporary:
        temporary.write_text(f"{frame} {stage}" * 500)
    return ref(path, roots)


def _run(layout: str, frames: int, roots: Roots) -> float:
    from prefect import flow, task
    from prefect.context import FlowRunContext
    from prefect.utilities.annotations import quote

    from flows._runner import task_runner
    from flows._way import stages
    from models.run import RunContext
    from models.settings import Settings
    from tasks.core.cache import ByContent, recall
    from tasks.core.pool import in_pool
    from tasks.core.records import recording
    from tasks.core.running import settled

    nested, passes, batch = LAYOUTS[layout]
    run = RunContext.of("T120", Settings(data_root=roots.data, raw_root=roots.raw))

    @task(name="stage", cache_policy=ByContent(code=[make_file]), persist_result=True)
    def stage(frame: int, number: int, roots: Roots) -> FileRef:
        return settled(str(frame), make_file, frame, number, roots)  # type: ignore[return-value]

    @task(name="piece", persist_result=False)
    def piece(numbers: tuple[int, ...], first: int, last: int, run: RunContext) -> int:
        with stages(run):
            for frame in numbers:
                for number in range(first, last):
                    if nested:
                        recall(stage, frame, number, run.roots)
                    else:
                        in_pool(make_file, frame, number, run.roots)
        return len(numbers)

    @flow(name="layout", task_runner=task_runner(), persist_result=False)
    def work() -> float:
        assert FlowRunContext.get() is not None
        in_pool(make_file, 0, 0, roots)  # starts the pool
        started = time.perf_counter()
        with recording(run.roots):
            for first, last in passes:
                numbers = [tuple(range(start, min(start + batch, frames))) for start in range(0, frames, batch)]
                futures = [piece.submit(*map(quote, (each, first, last, run))) for each in numbers]  # type: ignore[call-overload]
                for future in futures:
                    future.result()
        return time.perf_counter() - started

    return work()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.layouts", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--layout", choices=LAYOUTS, required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--server-pid", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    roots = Roots(data=args.root.resolve(), raw=args.root.resolve() / "raw")
    from models.settings import Settings

    prepare(Settings(data_root=roots.data, raw_root=roots.raw))
    from bench.processes import cpu_of_tree
    from flows._prefect import at_the_shell

    pids = [os.getpid(), args.server_pid]
    with at_the_shell(len(os.sched_getaffinity(0))):
        _run(args.layout, 1, Roots(data=roots.data / "warm", raw=roots.raw))
        before = [cpu_of_tree(pid) for pid in pids]
        wall = _run(args.layout, args.frames, roots)
        time.sleep(3.0)  # the server records task runs a second or two later
        used = [cpu_of_tree(pid) - old for pid, old in zip(pids, before, strict=True)]
    args.out.write_text(json.dumps({"wall_s": wall, "cpu_s": used[0], "server_cpu_s": used[1]}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
