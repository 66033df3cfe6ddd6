"""Measure, print the figures with their goals, write them to bench/results.json.

python -m bench                      every subject (about half an hour)
python -m bench startup nothing      some of them; the others keep their last figures
python -m bench --quick              small and once: does the harness work? Writes no results
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

from bench.figures import RESULTS, Measured, machine, merged, now, software, table
from bench.place import Place

SUBJECTS = (
    "startup",
    "masters",
    "reduction",
    "solving",
    "group",
    "workers",
    "siril",
    "where",
    "orchestration",
    "holding",
    "flat",
    "growth",
    "nothing",
    "scale",
)
"""Modules of this package with a function ``measure(place) -> list of Figure``, in the order they run."""


def _subject(name: str, place: Place, command: str) -> Measured:
    module = importlib.import_module(f"bench.{name}")
    before, started = machine(), time.perf_counter()
    figures = module.measure(place)
    load = [before["load"][0], machine()["load"][0]]
    return Measured(
        subject=name,
        made=now(),
        command=command,
        machine=before | {"load": load},
        software=software(),
        seconds=round(time.perf_counter() - started, 1),
        figures=tuple(figures),
    )


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``python -m bench``."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="a few frames, once")
    parser.add_argument("--folder", type=Path, help="work there and leave it; default: a folder that is removed")
    parser.add_argument("--repeats", type=int, default=5, help="how often each figure is taken")
    parser.add_argument("--frames", type=int, default=3000, help="of the simulated release")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file to bring up to date")
    args = parser.parse_args(arguments)
    unknown = sorted(set(args.subjects) - set(SUBJECTS))
    if unknown:
        parser.error(f"no subject {', '.join(unknown)}; there are: {', '.join(SUBJECTS)}")
    repeats, frames = (1, min(args.frames, 24)) if args.quick else (args.repeats, args.frames)
    with tempfile.TemporaryDirectory(prefix="ohp-bench-") as temporary:
        place = Place((args.folder or Path(temporary)).resolve(), repeats, frames)
        place.folder.mkdir(parents=True, exist_ok=True)
        measured = []
        for name in args.subjects or SUBJECTS:
            print(f"{name} ...", flush=True)
            measured.append(_subject(name, place, f"python -m bench {name}"))
            if not args.quick:
                merged(measured[-1:], args.results)
    print(f"\n{table(measured)}")
    if not args.quick:
        print(f"\nwritten: {args.results}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
