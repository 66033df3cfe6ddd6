"""One year of raw frames to calibrated frames: masters, reduction, plate solution, zero point, PSF, reports.

python -m flows.reduce_year 2025
python -m flows.reduce_year 2023 2025 --root /data/ohp --raw-root /archive/raw --workers 4
"""

from __future__ import annotations

import sys

from flows._cli import Command

command = Command(
    "flows.reduce_year",
    __doc__ or "",
    ("bias", "flat", "reduction", "quality", "astrometry", "photometry", "psf", "catalogs"),
)
command.parser.add_argument("years", type=int, nargs="+", metavar="YEAR", help="year of the nights, such as 2025")
if __name__ == "__main__":
    command.begin()  # --help and mistakes end here, before Prefect's seconds of import
    from flows._prefect import begin

    begin(command)

from prefect import flow, unmapped
from prefect.client.schemas.objects import State

from flows._frame import (
    frame_finish,
    frame_pixels,
    frame_place,
    known_fields,
    surviving_frames,
    surviving_places,
    surviving_records,
)
from flows._progress import RunProgress
from flows._runner import finish, task_runner
from flows._year import colour_terms, masters_of, report_year, science_frames, year_inventory
from models.run import RunContext, RunSummary
from models.settings import Settings


@flow(
    name="reduce-year",
    flow_run_name="reduce {year} {telescope}",
    description=__doc__,
    task_runner=task_runner(),
    persist_result=False,
)
def reduce_year(year: int, telescope: str = "T120", settings: Settings | None = None) -> State[RunSummary]:
    """Raw frames of a year to calibrated frames and four reports.

    Parameters
    ----------
    year
        Year of the nights (local noon to noon).
    telescope
        Name of a telescope profile.
    settings
        All settings; by default from the environment and pipeline.toml.
    """
    run = RunContext.of(telescope, settings)
    with RunProgress(f"reduce {year} {telescope}", f"reduce-{year}-{telescope}") as progress:
        inventory = year_inventory(year, run, progress)
        science, unknown = science_frames(inventory, run)

        asked = known_fields(science, run)
        masters = masters_of(inventory, run, progress)
        pixels = frame_pixels.map(science, masters.biases(science), masters.flats(science), unmapped(run))
        measured = surviving_records(progress.collect("reduce and measure", pixels), science, run)

        fields = progress.must_all("catalogues", asked)
        places = frame_place.map(measured, unmapped(fields), unmapped(run))
        placed = surviving_places(progress.collect("solve and calibrate", places), measured, run)

        terms = colour_terms(placed, run)
        finished = frame_finish.map(placed, unmapped(terms), unmapped(run))
        records = surviving_frames(progress.collect("PSF and publish", finished), placed, run)

        return finish(report_year(year, inventory, masters, [*records, *unknown], run))


if __name__ == "__main__":
    from flows._runner import run_all
    from flows._year import describe_years

    if command.args.dry_run:
        sys.exit(command.run(describe_years))
    sys.exit(command.run(lambda args, settings, telescope: run_all(reduce_year, args.years, settings, telescope)))
