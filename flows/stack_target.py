"""All frames of a target group, of all years, to one deep stack a filter on one grid.

python -m flows.stack_target M51
python -m flows.stack_target M67 M51 --root /data/ohp --combine weighted
"""

from __future__ import annotations

import sys

from flows._cli import STACK_SECTIONS, Command

command = Command(
    "flows.stack_target",
    __doc__ or "",
    STACK_SECTIONS,
)
command.add_refresh()
command.parser.add_argument(
    "groups", nargs="+", metavar="GROUP", help="target group, such as M51; case does not matter"
)
if __name__ == "__main__":
    command.begin()  # --help and mistakes end here, before Prefect's seconds of import
    from flows._prefect import begin

    command.args.groups = [command.group(name) for name in command.args.groups]
    begin(command)

from prefect import flow
from prefect.client.schemas.objects import State

from flows._extended import extend_filters
from flows._group import align, frames_of_group, group_catalogs, report_group, select
from flows._parameters import GroupName, Refresh, StackTargetSettings, TelescopeName
from flows._pending import noted
from flows._run import a_run
from flows._runner import finish, task_runner
from flows._sky import target_named
from flows._sources import begin_sources
from flows._stack import stack_filters
from models.run import RunContext, RunSummary


@flow(
    name="stack-target",
    flow_run_name="stack {group} {telescope}",
    description=__doc__,
    task_runner=task_runner(),
    persist_result=False,
)
def stack_target(
    group: GroupName, telescope: TelescopeName = "T120", settings: StackTargetSettings = None, refresh: Refresh = ()
) -> State[RunSummary]:
    """Calibrated frames of a group to stacks, weights, PSFs, plots, reports and a page.

    Parameters
    ----------
    group
        A target group of the shipped table or of ``DATA_ROOT/targets.toml``, or one that the frames show.
    telescope
        Name of a telescope profile.
    settings
        All settings; by default from the environment and pipeline.toml.
    refresh
        Stages to run again whatever is on record.
    """
    run = RunContext.of(telescope, settings, refresh)
    target = target_named(group, run)
    with a_run(run, f"stack {target.name} {telescope}") as progress:
        frames = frames_of_group(target, run)
        catalogs = group_catalogs(target, frames, run, progress)
        alignment, ahead = align(target, frames, catalogs, run, progress)
        selections = select(target, frames, alignment, ahead, catalogs, run, progress)
        chosen = [selection for selection in selections if selection.chosen]
        progress.expect("stacks", len(chosen), ("combine", "PSF and validation"), failed=len(selections) - len(chosen))
        stacked = stack_filters(chosen, catalogs, frames.colour_terms, run, progress)
        listing = begin_sources(target.name, stacked.finished, catalogs, run, progress)
        finished = extend_filters(chosen, stacked.combined, stacked.finished, run, progress)
        summary = report_group(target, frames, catalogs, alignment, selections, finished, listing, run, progress)
        return finish(noted(summary, run, "stack_target", target.name))


if __name__ == "__main__":
    from flows._group import describe_groups
    from flows._runner import run_all

    if command.args.dry_run:
        sys.exit(command.run(describe_groups))
    calls = [
        (each, command.telescope.name, command.settings, tuple(command.args.refresh)) for each in command.args.groups
    ]
    sys.exit(command.run(lambda args, settings, telescope: run_all(stack_target, calls, settings)))
