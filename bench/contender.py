"""One of two programs that are compared, in a process of its own: what it took, as JSON.

python -m bench.contender bench.masters ours '{"folder": "/tmp/x", "kind": "bias"}' OUT.json

The function is called with the arguments. If it is a generator, what it does before its first ``yield`` (imports,
reading what both are given) is not on the clock.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import resource
import sys
import time
from pathlib import Path


def _most_memory_mb() -> float:
    """Of this program. (ru_maxrss would count that of the process it was forked from, too.)"""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1.024 / 1e3


def main() -> int:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = "1"  # as in the pool's workers: one core, one frame
    module, name, arguments, out = sys.argv[1:5]
    function = getattr(importlib.import_module(module), name)
    work = function(**json.loads(arguments))
    if inspect.isgenerator(work):
        next(work)
    else:
        raise TypeError(f"{module}.{name} is no generator: where does its work begin?")
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    started, cpu = time.perf_counter(), time.process_time()
    said = None
    try:
        next(work)
    except StopIteration as done:
        said = done.value
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    tools = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu += tools.ru_utime + tools.ru_stime - children.ru_utime - children.ru_stime
    told = {"seconds": seconds, "cpu": cpu, "memory_mb": _most_memory_mb(), "said": said}
    Path(out).write_text(json.dumps(told), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
