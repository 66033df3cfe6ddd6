"""Writes a simulated campaign: raw frames, catalogues, truth."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from flows import STATUS_OK
from flows._cli import Command, say
from models.settings import Settings
from models.simulation import SIMULATED, SimulationOptions
from models.telescope import Telescope

_COMMAND = Command(
    "flows.simulate_campaign",
    """\
Writes raw frames of the T120 (or T080) as its camera does, Gaia and PS1 catalogues of the same sky, and truth.json.

  python -m flows.simulate_campaign --root demo
  python -m flows.simulate_campaign --root small --years 2023 --filters g,r,Ha --seed 7
  python -m flows.simulate_campaign --root t080 --telescope T080 --years 2024 --fields M67

The same options write the same bytes. Files that are there and right are kept; a raw folder that holds anything
else is left alone.""",
    options=SimulationOptions,
)


def _simulate(args: argparse.Namespace, settings: Settings, telescope: Telescope) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tasks.core.errors import UserError
    from tasks.simulation import plan_campaign, simulate_campaign

    if telescope.name not in SIMULATED:
        raise UserError(f"only {' and '.join(SIMULATED)} are simulated, not {telescope.name}")
    options = _COMMAND.options_of(args, SimulationOptions).model_copy(update={"telescope": telescope.name})
    shots = plan_campaign(options)
    counts = {kind: sum(shot.kind == kind for shot in shots) for kind in ("science", "flat", "bias")}
    what = f"{counts['science']} science frames, {counts['flat']} flats, {counts['bias']} biases"
    years = " ".join(str(year) for year in sorted(options.years))
    if args.dry_run:
        say(f"would write {what} of {years} under {settings.roots.raw}")
        for field in options.fields:
            for band in dict.fromkeys(s.filter for s in shots if s.field == field):
                mine = [s for s in shots if s.field == field and s.filter == band]
                say(f"  {field} {band}: {len(mine)} frames, {sum(s.exptime for s in mine):g} s")
        return STATUS_OK
    say(f"simulating {what} of {years} under {settings.roots.raw}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("frames", total=len(shots))
        result = simulate_campaign(settings.roots, options, settings.workers, lambda: bar.advance(task))
    say(
        f"{result.written} frames written, {result.kept} already there; {result.catalogue_rows} catalogue rows; "
        f"truth: {settings.roots.data / 'truth.json'}"
    )
    return STATUS_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    return _COMMAND.run(_simulate, arguments)


if __name__ == "__main__":
    sys.exit(main())
