"""Simulate campaigns of several seeds, reduce and stack them, and set what came out against what was put in.

Each seed is a campaign of its own under the root: two fields (a rich cluster; a sparse field with a spiral of
10 arcmin), three years, six filters, seeing of 1.6 to 4.5 arcsec, mixed exposure times and thin cloud. Its groups are
stacked twice, weighted and by the median, and both are measured; of each figure the worst seed stands in the table.
Run again, only what changed is made again.

python -m scripts.truth
python -m scripts.truth --seeds 21 --write docs/truth.md
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from flows import STATUS_FAILED, STATUS_OK
from flows._cli import Command, say
from models.base import Roots
from models.settings import Settings
from models.telescope import Telescope

_GROUPS = ("M51", "M67")
_HEAD = """\
# Against the truth

What the pipeline makes of simulated campaigns, measured against what was put into them by `make truth` (seeds {seeds};
of each figure the worst seed, the others beside it). The simulator's stars, not the pipeline's numbers, are the
measure; these seeds were not looked at while methods were chosen. Made with {software}, on {cores} cores.

"""


def _command(*arguments: str) -> None:
    say(f"\n$ python -m {' '.join(arguments)}")
    environment = os.environ | {"OHP_CATALOG_MODE": "offline"}
    status = subprocess.run([sys.executable, "-m", *arguments], env=environment, check=False).returncode
    if status != STATUS_OK:
        raise SystemExit(f"python -m {' '.join(arguments)} ended with status {status}: nothing to measure")


def _years(root: Path) -> list[str]:
    from tasks.simulation import read_truth

    return [str(year) for year in read_truth(root).options.years]


def _measure(args: argparse.Namespace, settings: Settings, telescope: Telescope) -> int:
    from tasks.report import software_versions
    from tasks.truth import Scene, markdown_table, measure_campaign, measure_stacks, over_seeds

    campaigns = []
    for seed in args.seeds:
        root = settings.roots.data / f"seed{seed}"
        at, roots = ("--root", str(root)), Roots(data=root, raw=root / "raw")
        _command("flows.simulate_campaign", *at, "--seed", str(seed))
        _command("flows.reduce_year", *_years(root), *at)
        _command("flows.stack_target", *_GROUPS, *at, "--combine", "weighted")
        weighted = [figure for figure in measure_stacks(Scene.of(roots, telescope.name)) if "(weighted)" in figure.name]
        _command("flows.stack_target", *_GROUPS, *at)
        campaigns.append([*measure_campaign(roots, telescope.name), *weighted])
    figures = over_seeds(campaigns)
    versions = software_versions(("solve-field", "source-extractor", "scamp", "SWarp", "psfex"))
    text = _HEAD.format(
        seeds=", ".join(map(str, args.seeds)),
        software=", ".join(f"{name} {version}" for name, version in versions.items()),
        cores=len(os.sched_getaffinity(0)),
    ) + markdown_table(figures)
    if args.write is not None:
        args.write.write_text(text, encoding="utf-8")
    if args.json is not None:
        values = [figure.model_dump(mode="json") for figure in figures]
        args.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    say(text)
    missed = [figure.name for figure in figures if figure.reached is False]
    say(f"{len(missed)} of {sum(figure.goal is not None for figure in figures)} goals missed"
        + (": " + "; ".join(missed) if missed else ""))  # fmt: skip
    return STATUS_FAILED if missed else STATUS_OK


def main() -> int:
    """Entry point of ``python -m scripts.truth``."""
    command = Command("scripts.truth", __doc__ or "", writes=False)
    command.parser.set_defaults(root=Path("truth"))
    command.parser.add_argument(
        "--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[11, 12, 13], metavar="N,N,...",
        help="seeds of the campaigns (default: 11,12,13)",
    )  # fmt: skip
    command.parser.add_argument("--write", type=Path, metavar="FILE", help="write the table to this file, too")
    command.parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON to this file")
    return command.run(_measure)


if __name__ == "__main__":
    sys.exit(main())
