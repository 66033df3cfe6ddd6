"""Measure a simulated campaign's products against the truth and write the figures as Markdown.

python -m scripts.measure --root demo --write docs/measured.md
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from flows import STATUS_FAILED, STATUS_OK
from flows._cli import Command, say
from models.settings import Settings
from models.telescope import Telescope

_HEAD = """\
# Measured

What the pipeline reaches on the simulated campaign of `make demo` (two fields, three years, six filters), measured
against the simulator's truth by `make measured`. Made with {software}, on {cores} cores.

"""


def _other_sections(path: Path) -> str:
    """What stands below the table under headings of its own: measured by other commands, and kept."""
    if not path.exists():
        return ""
    _, heading, rest = path.read_text(encoding="utf-8").partition("\n## ")
    return heading + rest


def _measure(args: argparse.Namespace, settings: Settings, telescope: Telescope) -> int:
    from tasks.report import software_versions
    from tasks.truth import markdown_table, measure_campaign

    figures = measure_campaign(settings.roots, telescope.name)
    versions = software_versions(("solve-field", "source-extractor", "scamp", "SWarp", "psfex"))
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    text = _HEAD.format(software=software, cores=len(os.sched_getaffinity(0))) + markdown_table(figures)
    if args.write is not None:
        args.write.write_text(text + _other_sections(args.write), encoding="utf-8")
    say(text)
    return STATUS_FAILED if any(figure.reached is False for figure in figures) else STATUS_OK


def main() -> int:
    """Entry point of ``python -m scripts.measure``."""
    command = Command("scripts.measure", __doc__ or "", writes=False)
    command.parser.add_argument("--write", type=Path, metavar="FILE", help="write the table to this file, too")
    return command.run(_measure)


if __name__ == "__main__":
    sys.exit(main())
