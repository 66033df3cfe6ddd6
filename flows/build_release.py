"""The whole release: every year of the raw tree reduced, then every group that the frames show stacked.

python -m flows.build_release
python -m flows.build_release --root /data/ohp --raw-root /archive/raw

The same work as reduce_year and stack_target, in one run; what is made already is only checked. If the last run found
nothing to do, and no file, setting or program has changed since, that is said and nothing else is done.
"""

from __future__ import annotations

import sys
from functools import partial

from flows._cli import ALL_SECTIONS, Command

command = Command("flows.build_release", __doc__ or "", ALL_SECTIONS)
command.add_refresh()
if __name__ == "__main__":
    command.begin()  # --help and mistakes end here, before Prefect's seconds of import
    from flows._prefect import begin

    begin(command)

from prefect import flow
from prefect.client.schemas.objects import State

from flows._group import groups_seen
from flows._lost import noted
from flows._parameters import AllSettings, Refresh, TelescopeName
from flows._prefect import running, stopping_at_once, without_heartbeat
from flows._release import ReleaseProgress, part, release_summary, years_of
from flows._runner import finish
from flows._untouched import Release
from flows._year import one_inventory
from flows.reduce_year import reduce_year
from flows.stack_target import stack_target
from models.run import RunContext, RunSummary


@flow(name="build-release", flow_run_name="release {telescope}", description=__doc__, persist_result=False)
def build_release(
    telescope: TelescopeName = "T120", settings: AllSettings = None, refresh: Refresh = ()
) -> State[RunSummary]:
    """All years, then all groups; one that fails is named and does not stop the others.

    Parameters
    ----------
    telescope
        Name of a telescope profile.
    settings
        All settings; by default from the environment and pipeline.toml.
    refresh
        Stages to run again whatever is on record.
    """
    run = RunContext.of(telescope, settings, refresh)
    common = (telescope, run.settings, run.refresh)
    with noted(run.roots), running(run.settings.workers), stopping_at_once(), without_heartbeat():
        release = Release(run)
        if (known := release.as_it_was()) is not None:
            return finish(known)
        told = ReleaseProgress(telescope)
        with one_inventory(run) as inventory:
            years = [
                told.after(part(str(year), "reduce-year", run, partial(reduce_year, year, *common, return_state=True)))
                for year in told.each(years_of(inventory, run), "years")
            ]
        groups = [
            told.after(
                part(target.name, "stack-target", run, partial(stack_target, target.name, *common, return_state=True))
            )
            for target in told.each(groups_seen(run), "groups")
        ]
        summary = release_summary([*years, *groups], run)
        told.end()
        release.remember([*years, *groups], summary)
        return finish(summary)


if __name__ == "__main__":
    from flows._release import describe_release, exit_status
    from flows._runner import run_once

    if command.args.dry_run:
        sys.exit(command.run(describe_release))
    call = (command.telescope.name, command.settings, tuple(command.args.refresh))
    sys.exit(command.run(lambda args, settings, telescope: exit_status(run_once(build_release, call, settings))))
