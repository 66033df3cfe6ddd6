"""One year of raw frames to calibrated frames: masters, reduction, plate solution, zero point, PSF, reports.

python -m flows.reduce_year 2025
python -m flows.reduce_year 2023 2025 --root /data/ohp --raw-root /archive/raw --workers 4
"""

from __future__ import annotations

import sys
from itertools import repeat

from flows._cli import REDUCE_SECTIONS, Command
from flows._cli import year as year_of

command = Command(
    "flows.reduce_year",
    __doc__ or "",
    REDUCE_SECTIONS,
)
command.add_refresh()
command.parser.add_argument("years", type=year_of, nargs="+", metavar="YEAR", help="year of the nights, such as 2025")
if __name__ == "__main__":
    command.begin()  # --help and mistakes end here, before Prefect's seconds of import
    from flows._prefect import begin

    begin(command)

from prefect import flow
from prefect.client.schemas.objects import State

from flows._frame import (
    FRAME_STAGES,
    asked_beside,
    field_calls,
    frame_finish,
    frame_pixels,
    frame_place,
    known_field,
    surviving_frames,
    surviving_places,
    surviving_records,
)
from flows._parameters import ReduceSettings, Refresh, TelescopeName, Year
from flows._pending import noted
from flows._run import a_run
from flows._runner import finish, task_runner
from flows._year import (
    NoFramesError,
    colour_terms,
    masters_of,
    nothing_yet,
    report_year,
    run_name,
    science_frames,
    this_year,
    year_inventory,
)
from models.run import RunContext, RunSummary


@flow(
    name="reduce-year",
    flow_run_name=run_name,
    description=__doc__,
    task_runner=task_runner(),
    persist_result=False,
)
def reduce_year(
    year: Year = None, telescope: TelescopeName = "T120", settings: ReduceSettings = None, refresh: Refresh = ()
) -> State[RunSummary]:
    """Raw frames of a year to calibrated frames and four reports.

    Parameters
    ----------
    year
        Year of the nights (local noon to noon); None: that of the night that began last, and if there are no
        raw frames of it, nothing is done.
    telescope
        Name of a telescope profile.
    settings
        All settings; by default from the environment and pipeline.toml.
    refresh
        Stages to run again whatever is on record.
    """
    run = RunContext.of(telescope, settings, refresh)
    asked, year = year, year or this_year(run)
    with a_run(run, f"reduce {year} {telescope}") as progress:
        try:
            inventory = year_inventory(year, run, progress)
        except NoFramesError as error:
            if asked is not None:
                raise
            return finish(nothing_yet(year, run, error))
        science, unknown = science_frames(inventory, run)
        progress.expect("frames", len(science), FRAME_STAGES, failed=len(unknown))

        with asked_beside() as submit:
            asking = progress.begin(known_field, field_calls(science, run), submit)
        masters = masters_of(inventory, run, progress)
        calls = zip(science, masters.biases(science), masters.flats(science), repeat(run))
        pixels = progress.each(FRAME_STAGES[0], frame_pixels, calls)
        measured = surviving_records(pixels, science, run)

        fields = progress.must_end("catalogues", asking)
        places = progress.each(FRAME_STAGES[1], frame_place, zip(measured, repeat(fields), repeat(run)))
        placed = surviving_places(places, measured, run)

        terms = colour_terms(placed, run)
        finished = progress.each(FRAME_STAGES[2], frame_finish, zip(placed, repeat(terms), repeat(run)))
        records = surviving_frames(finished, placed, run)

        summary = report_year(year, inventory, masters, fields, [*records, *unknown], run, progress)
        return finish(noted(summary, run, "reduce_year", str(year)))


if __name__ == "__main__":
    from flows._runner import run_all
    from flows._year import describe_years

    if command.args.dry_run:
        sys.exit(command.run(describe_years))
    calls = [
        (each, command.telescope.name, command.settings, tuple(command.args.refresh)) for each in command.args.years
    ]
    sys.exit(command.run(lambda args, settings, telescope: run_all(reduce_year, calls, settings)))
