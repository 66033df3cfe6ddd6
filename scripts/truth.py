"""Simulate campaigns of several seeds, reduce and stack them, and set what came out against what was put in.

Each seed is a campaign of its own under the root: two fields (a rich cluster; a sparse field with a spiral of
10 arcmin), three years, six filters, seeing of 1.6 to 4.5 arcsec, mixed exposure times and thin cloud. Its groups are
stacked twice, weighted and by the median, and both are measured; of each figure the worst seed stands in the table.
Run again, only what changed is made again.

python -m scripts.truth
python -m scripts.truth --seeds 31 --write docs/truth.md
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows import STATUS_FAILED, STATUS_OK
from flows._cli import Command, say
from models.base import Roots
from models.settings import Settings
from models.telescope import Telescope

if TYPE_CHECKING:
    from tasks.truth import Figure

_GROUPS = ("M51", "M67")
_HEAD = """\
# Against the truth

What the pipeline makes of simulated campaigns, measured against what was put into them by `make truth` (seeds {seeds};
of each figure the worst seed, the others beside it). The simulator's stars, not the pipeline's numbers, are the
measure. Made with {software}, on {cores} cores.

"""


_BESIDE = """
## The release and this system, side by side

The release's figures are those of its document and of a prototype that repeated its methods on simulated frames; ours
are those above.

| | release | ours |
|---|---|---|
"""

_COMPARED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("positions, a frame's stars", "plate solution of order 2: 310-390 mas over the chip; one Gaia epoch for 8 years",
     ("position of stars with S/N > 50, median over the chip", "position of stars with S/N > 50, 95 % within",
      "position over the whole chip, stars or not, 95 % within")),
    ("between filters", "not measured",
     ("world coordinates between filters of a group, rms over the field, worst pair",)),
    ("zero point of a frame, g r i", "night to night 20-50 mmag",
     ("frame zero points g r i, abs(bias), worst filter", "frame zero points g r i, scatter, worst filter")),
    ("zero point of a frame, B V", "taken as PS1 g: off by -0.5 / +0.4 mag",
     ("frame zero points B V, abs(bias), worst filter", "frame zero points B V, scatter, worst filter")),
    ("scatter of a frame's stars", "0.5-0.8 mag (5 arcsec match, galaxies, saturated stars, no colour term)",
     ("rms of clean stars on a frame, g r i, worst filter", "rms of clean stars on a frame, B V, worst filter")),
    ("a stack's magnitudes", "offset from 30.0: median +0.001, sigma 0.20 mag; M81 B +1.65",
     ("stacks g r i, abs(median of measured - true), worst", "stacks B V R, abs(median of measured - true), worst")),
    ("stacks validated", "117 of 118 (text), M64 not", ("validation: broad-band stacks not validated",)),
    ("the same stacks by the release's method", "offset sigma 0.20, rms 0.82 mag (median)",
     ("validation by the release's method, median rms",)),
    ("frames of a narrow band", "scaled by exposure time: range 0.35 mag",
     ("relative scale of a stack's frames, narrow bands, rms",)),
    ("frames of a broad band", "scaled by their own zero points",
     ("relative scale of a stack's frames, broad bands, rms",
      "relative scale of a stack's frames, broad bands, worst stack")),
    ("depth, median", "0.24 mag lost against the ideal, up to 0.43 (0.80, 0.67 of its depth)",
     ("depth of stacks (median) against ideal weights, worst",)),
    ("depth, weighted", "no such product",
     ("depth of stacks (weighted) against ideal weights", "depth of stacks (weighted) against ideal weights, worst")),
    ("faint against bright stars", "loses 16 / 30 / 40 mmag of bright / middle / faint stars",
     ("stacks (median), faint against bright stars", "stacks (weighted), faint against bright stars")),
    ("noise", "the weight is the flat: an aperture's noise is 2-2.5 times what its pixels say",
     ("pull of the noise in empty apertures, frames", "pull of the noise in empty apertures, stacks (median)",
      "pull of the noise in empty apertures, stacks (weighted)")),
    ("blemishes", "no mask",
     ("bad pixels left (beyond 6 sigma on empty sky), stacks (median), worst",
      "bad pixels left (beyond 6 sigma on empty sky), stacks (weighted), worst")),
    ("light of a 10 arcmin spiral within 5 arcmin", "12-13 % lost",
     ("light of the 10 arcmin spiral within 5 arcmin, default product, worst filter",
      "light of the 10 arcmin spiral within 5 arcmin, extended product, worst filter")),
    ("its outer ring", "0.39 of the light at 23.2 mag/arcsec^2",
     ("light of the 10 arcmin spiral in the ring of 24 mag/arcsec^2, default product, worst filter",
      "light of the 10 arcmin spiral in the ring of 24 mag/arcsec^2, extended product, worst filter")),
    ("PSF image", "labelled 0.770 arcsec/px, sampled at PSFEx's automatic step; header's FWHM 29 % off",
     ("PSF image (median), FWHM against the stars', worst beyond 2 sigma of its stars",
      "PSF image (weighted), FWHM against the stars', worst beyond 2 sigma of its stars",
      "PSF image (weighted), EE50 against the frames' profiles, worst")),
)  # fmt: skip


def _beside(figures: Sequence[Figure]) -> str:
    """The release's figures beside ours, by name; one that was not measured says so."""
    known = {figure.name: figure for figure in figures}
    lines = []
    for what, release, names in _COMPARED:
        ours = "; ".join(
            f"{name}: {known[name].value:.3g} {known[name].unit}".rstrip() if name in known else f"{name}: not measured"
            for name in names
        )
        lines.append(f"| {what} | {release} | {ours} |")
    return _BESIDE + "\n".join(lines) + "\n"


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
    from tasks.truth import Scene, catalogue_figures, markdown_table, measure_campaign, measure_stacks, over_seeds

    campaigns = []
    for seed in args.seeds:
        root = settings.roots.data / f"seed{seed}"
        at, roots = ("--root", str(root)), Roots(data=root, raw=root / "raw")
        _command("flows.simulate_campaign", *at, "--seed", str(seed))
        _command("flows.reduce_year", *_years(root), *at)
        _command("flows.stack_target", *_GROUPS, *at, "--combine", "weighted")
        weighted = [figure for figure in measure_stacks(Scene.of(roots, telescope.name)) if "(weighted)" in figure.name]
        _command("flows.stack_target", *_GROUPS, *at)
        lists = catalogue_figures(Scene.of(roots, telescope.name))
        campaigns.append([*measure_campaign(roots, telescope.name), *weighted, *lists])
    figures = over_seeds(campaigns)
    versions = software_versions(("solve-field", "source-extractor", "scamp", "SWarp", "psfex"))
    text = (
        _HEAD.format(
            seeds=", ".join(map(str, args.seeds)),
            software=", ".join(f"{name} {version}" for name, version in versions.items()),
            cores=len(os.sched_getaffinity(0)),
        )
        + markdown_table(figures)
        + _beside(figures)
    )
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
        "--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[21, 22, 23], metavar="N,N,...",
        help="seeds of the campaigns (default: 21,22,23)",
    )  # fmt: skip
    command.parser.add_argument("--write", type=Path, metavar="FILE", help="write the table to this file, too")
    command.parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON to this file")
    return command.run(_measure)


if __name__ == "__main__":
    sys.exit(main())
