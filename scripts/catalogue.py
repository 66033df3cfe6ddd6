"""Measure the source lists of a simulated campaign against the simulated sky and write the tables as Markdown.

python -m scripts.catalogue --root demo --write docs/source_lists.md

The root is one of `make demo`, `make truth` or `make rehearsal`, its groups stacked.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flows import STATUS_FAILED, STATUS_OK
from flows._cli import Command, say
from models.base import Roots
from models.settings import Settings
from models.telescope import Telescope

_HEAD = """\
# Source lists against the truth

What `stack_target` lists of a simulated campaign (`python -m flows.simulate_campaign`, {options}), measured against the
simulated sky by `python -m scripts.catalogue`: isolated stars (no neighbour of 2 % of their light within 12″) without a
blemish, all bands of a group together. A star is *found* where a row lies within 1.5 px of it that belongs to no
brighter star; all stars count there, blended ones too. *Scatter*: robust standard deviation of measured over true flux;
*pull*: that of (measured − true) / quoted error about 0, zero points' errors included. AP1, AP2, AP3: circles of 1, 1.5
and 3 FWHM. Made with {software}.

"""


_CROWDED = """
## A globular cluster

The crowded part of a field (`CROWDED`: PSF photometry of all its stars together) of a campaign of its own,
`python -m flows.simulate_campaign --root m13 {options}`, all bands together. Not only isolated stars: each true star
within 8 px of a listed one of that part. *Found* as above; *no true star*: rows of that PSF magnitude without a true
star of half their light within 1.5 px. Apertures as they are in the list.

"""


def _measure(args: argparse.Namespace, settings: Settings, telescope: Telescope) -> int:
    from tasks.report import software_versions
    from tasks.truth import Scene, catalogue_figures, catalogue_rows, catalogue_table, markdown_table

    scene = Scene.of(settings.roots, telescope.name)
    rows, figures = catalogue_rows(scene), catalogue_figures(scene)
    options = scene.truth.options
    text = _HEAD.format(
        options=f"seed {options.seed}, years {', '.join(map(str, options.years))}",
        software=", ".join(f"{name} {version}" for name, version in software_versions().items()),
    )
    text += markdown_table(figures)
    for group in sorted({row.group for row in rows}):
        text += f"\n## {group}\n\n" + catalogue_table([row for row in rows if row.group == group])
    if args.crowded is not None:
        text += _crowded(args.crowded, telescope)
    if args.write is not None:
        args.write.write_text(text, encoding="utf-8")
    say(text)
    return STATUS_FAILED if any(figure.reached is False for figure in figures) else STATUS_OK


def _crowded(root: Path, telescope: Telescope) -> str:
    """The crowded parts of another campaign's groups."""
    from tasks.truth import Scene, crowd_figures, crowd_rows, crowd_table, markdown_table

    scene = Scene.of(Roots(data=root.absolute(), raw=root.absolute() / "raw"), telescope.name)
    rows, options = crowd_rows(scene), scene.truth.options
    text = _CROWDED.format(
        options=f"--years {','.join(map(str, options.years))} --fields {','.join(options.fields)} "
        f"--filters {','.join(options.filters)} --seed {options.seed}"
    )
    text += markdown_table(crowd_figures(scene))
    for group in sorted({row.group for row in rows}):
        text += f"\n### {group}\n\n" + crowd_table([row for row in rows if row.group == group])
    return text


def main() -> int:
    """Entry point of ``python -m scripts.catalogue``."""
    command = Command("scripts.catalogue", __doc__ or "", writes=False)
    command.parser.add_argument("--write", type=Path, metavar="FILE", help="write the tables to this file, too")
    command.parser.add_argument("--crowded", type=Path, metavar="DIR", help="a campaign with a crowded field, stacked")
    return command.run(_measure)


if __name__ == "__main__":
    sys.exit(main())
