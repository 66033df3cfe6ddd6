"""Rehearse the release: the simulator plays the real archive, the flows work on it, the truth says how well.

Each science frame of the archive's header table that shows a target group is played with its real path, header, night,
filter and exposure time, of a sky drawn at the group's true place, with that year's biases and flats, copies and wrong
labels; a few are spoilt. All years are reduced, the release is built, and every frame is set against what was played:
groups found, frames in the right group, stacks made, frames left out and whether rightly.

python -m scripts.rehearsal                                   everything; says first how long that takes
python -m scripts.rehearsal --fraction 0.1                    the smallest groups, whole, up to a tenth of the frames
python -m scripts.rehearsal --groups M51,Coma --root try      these groups
python -m scripts.rehearsal --dry-run                         what would be played, and how long it would take
python -m scripts.rehearsal --compare                         only the comparison, of what is there

Run again, only what is missing is made again. It needs the table of the archive's headers, which is no part of the
project: shared/archive/t120_headers.csv beside the checkout, or --archive FILE.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.processes import cpu_of_tree
from flows import STATUS_FAILED, STATUS_OK
from flows._cli import Command, say
from models.settings import Settings
from models.simulation import RehearsalOptions
from models.target import load_targets
from models.telescope import Telescope

if TYPE_CHECKING:
    from models.simulation import ArchiveTruth
    from tasks.rehearsal import Sample

_SHOWN = 25
_REPO = Path(__file__).resolve().parents[1]
_PLAY = {"science": 0.51, "flat": 0.14, "bias": 0.05}
_REDUCE, _STACK = 3.0, 1.5
"""Processor seconds a frame of 1024 px: played, reduced, stacked. Measured, docs/rehearsal.md."""


def _table(options: RehearsalOptions) -> Path:
    if options.archive is not None:
        return Path(options.archive)
    near = [parent / "shared" / "archive" / "t120_headers.csv" for parent in _REPO.parents[:2]]
    return next((path for path in near if path.is_file()), near[0])


def _foretold(sample: Sample, options: RehearsalOptions, workers: int) -> str:
    part = (options.size / 1024) ** 2
    seconds = part * sum(sample.count(kind) * cost for kind, cost in _PLAY.items())
    seconds += sample.count("science") * (_REDUCE + _STACK) * max(part, 0.3)
    minutes = seconds / workers / 60
    return f"about {minutes:.0f} minutes on {workers} idle cores" if minutes >= 1 else "less than a minute"


def _own_telescope(options: RehearsalOptions, telescope: Telescope, root: Path) -> None:
    """A profile of the smaller frames under the data root; nothing for the camera's own size."""
    if options.size == telescope.camera.shape[0]:
        return
    import re

    shipped = (_REPO / "models" / "profiles" / f"{telescope.name}.toml").read_text(encoding="utf-8")
    text = re.sub(r"^shape = .*$", f"shape = [{options.size}, {options.size}]", shipped, count=1, flags=re.MULTILINE)
    path = root / "telescopes" / f"{telescope.name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _flow(root: Path, workers: int, *arguments: str) -> tuple[int, dict[str, float]]:
    say(f"\n$ python -m {' '.join(arguments)}")
    at = ("--root", str(root), "--workers", str(workers))
    environment = os.environ | {"OHP_CATALOG_MODE": "offline"}
    began, used = time.monotonic(), 0.0
    process = subprocess.Popen([sys.executable, "-m", *arguments, *at], env=environment, cwd=_REPO)
    try:
        while process.poll() is None:
            # Workers are nobody's children when they end: only while the tree lives can its time be read.
            used = max(used, cpu_of_tree(process.pid))
            time.sleep(0.3)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    return process.returncode, {"wall": time.monotonic() - began, "processor": used}


def _play(sample: Sample, options: RehearsalOptions, settings: Settings) -> ArchiveTruth:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tasks.simulation import play_archive

    if not sys.stderr.isatty():
        done = 0

        def tell() -> None:
            nonlocal done
            done += 1
            if done % 100 == 0:
                say(f"  {done} of {len(sample.exposures)} files played")

        return play_archive(sample.exposures, settings.roots, options, load_targets(), settings.workers, tell)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("files played", total=len(sample.exposures))
        return play_archive(
            sample.exposures, settings.roots, options, load_targets(), settings.workers, lambda: bar.advance(task)
        )


def _costs(root: Path, truth: ArchiveTruth, spent: dict[str, dict[str, float]], frames: int) -> list[tuple[str, str]]:
    """What was measured of this root's frames over all runs: a run that only finds things made adds nothing."""
    path = root / "rehearsal_costs.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name, seconds in spent.items():
        entry = known.setdefault(name, {"processor": 0.0, "wall": 0.0})
        entry["processor"] += seconds["processor"]
        entry["wall"] += seconds["wall"]
    path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    costs = [(f"a {kind} frame played", f"{seconds:.2f} processor seconds") for kind, seconds in truth.seconds.items()]
    costs += [
        (f"{name}, a science frame", f"{entry['processor'] / frames:.2f} processor seconds, {frames} frames")
        for name, entry in known.items()
    ]
    return costs


def _played(root: Path) -> list[str]:
    """Groups that an earlier run has played under this root: their frames are there, and stay."""
    path = root / "rehearsal_truth.json"
    if not path.is_file():
        return []
    return sorted({frame["group"] for frame in json.loads(path.read_text(encoding="utf-8"))["frames"]} - {None})


def _rehearse(args: argparse.Namespace, settings: Settings, telescope: Telescope) -> int:
    options = _COMMAND.options_of(args, RehearsalOptions)
    from tasks.core.errors import UserError
    from tasks.rehearsal import choose_groups, read_exposures, sample

    if telescope.name != "T120":
        raise UserError(f"the archive's headers are the T120's, not {telescope.name}'s; leave --telescope away")
    from models.telescope import load_telescope

    targets, root = load_targets(), settings.roots.data
    exposures = read_exposures(_table(options), load_telescope("T120"), targets)
    groups = tuple(dict.fromkeys([*choose_groups(exposures, options, targets), *_played(root)]))
    chosen = sample(exposures, options.model_copy(update={"groups": groups}), targets)
    say(f"{len(chosen.groups)} groups: {' '.join(chosen.groups)}")
    say(f"{_counts(chosen)} of {options.size} px under {settings.roots.raw}: "
        + _foretold(chosen, options, settings.workers))  # fmt: skip
    if args.dry_run:
        return STATUS_OK
    spent: dict[str, dict[str, float]] = {}
    if not args.compare:
        root.mkdir(parents=True, exist_ok=True)
        truth = _play(chosen, options, settings)
        _own_telescope(options, telescope, root)
        years = sorted({frame.frame.night[:4] for frame in truth.frames if frame.frame is not None})
        status, spent["flows.reduce_year"] = _flow(root, settings.workers, "flows.reduce_year", *years)
        release, spent["flows.build_release"] = _flow(root, settings.workers, "flows.build_release")
        say(f"flows.reduce_year ended with status {status}, flows.build_release with {release}")
    return _compare(args, settings, chosen, spent)


def _counts(sample: Sample) -> str:
    return f"{sample.count('science')} science frames, {sample.count('flat')} flats, {sample.count('bias')} biases"


def _compare(args: argparse.Namespace, settings: Settings, chosen: Sample, spent: dict[str, dict[str, float]]) -> int:
    """Set what is there against what was played, and write the page."""
    from models.telescope import load_telescope
    from tasks.core.errors import UserError
    from tasks.rehearsal import compare, page
    from tasks.report import read_report, software_versions
    from tasks.simulation import read_archive_truth

    root = settings.roots.data
    report = root / "stacks" / "stack_all_report.json"
    if not report.is_file():
        raise UserError(f"nothing to compare: {report} is missing; leave --compare away, or see above what failed")
    truth = read_archive_truth(settings.roots)
    rows = read_report(report, "stack_all_report").rows
    outcome = compare(truth, rows, settings.roots, load_telescope("T120", root), settings.selection)
    versions = software_versions(("solve-field", "source-extractor", "scamp", "SWarp", "psfex"))
    n_damaged = sum(frame.damage is not None for frame in truth.frames)
    what = (
        f"Here {_counts(chosen)} ({chosen.science_of_archive} science frames of groups and "
        f"{chosen.calibration_of_archive} calibration frames in the archive), {truth.options.size} px, seed "
        f"{truth.options.seed}, {n_damaged} science frames spoilt on purpose. Made with "
        + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."
    )  # fmt: skip
    text = page(outcome, what, _costs(root, truth, spent, chosen.count("science")))
    (root / "rehearsal.md").write_text(text, encoding="utf-8")
    (root / "rehearsal_outcome.json").write_text(outcome.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if args.write is not None:
        args.write.write_text(text, encoding="utf-8")
    say("\n" + text)
    for problem in outcome.problems[:_SHOWN]:
        say(problem)
    say(f"{len(outcome.problems)} problems; the page: {root / 'rehearsal.md'}")
    return STATUS_FAILED if outcome.problems else STATUS_OK


_COMMAND = Command("scripts.rehearsal", __doc__ or "", options=RehearsalOptions)
_COMMAND.parser.set_defaults(root=Path("rehearsal"))
_COMMAND.parser.add_argument(
    "--compare", action="store_true", help="make nothing: set what is there against what was played"
)
_COMMAND.parser.add_argument("--write", type=Path, metavar="FILE", help="write the page to this file, too")


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``python -m scripts.rehearsal``."""
    return _COMMAND.run(_rehearse, arguments)


if __name__ == "__main__":
    sys.exit(main())
