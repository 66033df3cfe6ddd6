"""Ask the catalogue queries that are pending again, and finish what waited for their answers; nothing else.

A run that ends with exit status 75 notes what it waits for under DATA_ROOT/pending. This command asks exactly those
queries; each run whose queries were answered is taken up where it stood. With nothing pending it ends at once.

python -m flows.retry_queries
python -m flows.retry_queries --root /data/ohp --dry-run
"""

from __future__ import annotations

import argparse
import sys

from flows import STATUS_OK
from flows._cli import Command, say
from flows._pending import settings_of, waiting_runs
from models.field import Question
from models.run import RunContext, RunSummary, WaitingRun
from models.settings import Settings
from models.telescope import Telescope

command = Command("flows.retry_queries", __doc__ or "", ("catalogs",))


def describe(args: argparse.Namespace, settings: Settings, telescope: Telescope) -> int:
    """What waits, and for what; asks nothing."""
    waiting = waiting_runs(settings.roots, telescope.name)
    for each in waiting:
        cones = ", ".join(_said(question) for question in each.unanswered) or "the frames of its years"
        say(f"{each.flow} {each.subject}: {each.n_pending} pending since {each.since}, for {cones}")
    if not waiting:
        say("nothing is pending")
    return STATUS_OK


def _said(question: Question) -> str:
    cone = question.cone
    return f"{question.catalogue} at {cone.ra:.3f} {cone.dec:+.3f}"


if __name__ == "__main__":
    command.begin()
    if command.args.dry_run or not waiting_runs(command.settings.roots, command.telescope.name):
        sys.exit(command.run(describe))
    from flows._prefect import begin

    begin(command)

from prefect import flow, task
from prefect.client.schemas.objects import State, StateType

from flows._parameters import AllSettings, TelescopeName
from flows._run import a_run
from flows._runner import task_runner
from models.catalog import StoredCone
from models.frame import FrameFailure
from tasks.catalogs.tasks import catalogue_cone
from tasks.core.cache import recall
from tasks.core.errors import StageError


@task(name="ask again", task_run_name="ask again {question.catalogue}", persist_result=False)
def asked_again(question: Question, run: RunContext) -> StoredCone | FrameFailure:
    """The answer to a pending query, or why there is still none."""
    ask = catalogue_cone.with_options(retries=0)  # what is still not there is asked again by the next schedule
    try:
        answer: StoredCone = recall(ask, question.catalogue, question.cone, run.roots, run.settings)
        return answer
    except StageError as error:
        return error.record(_said(question))


def _ready(waiting: WaitingRun, answered: set[Question], took_up_a_year: bool) -> bool:
    """Whether taking a run up again can finish anything."""
    if waiting.unanswered:
        return any(question in answered for question in waiting.unanswered)
    return waiting.flow == "reduce_year" or took_up_a_year


def _take_up(waiting: WaitingRun, run: RunContext) -> RunSummary:
    """Run a waiting year or group again, with the settings that it had."""
    settings = settings_of(waiting, run.settings)
    if waiting.flow == "reduce_year":
        from flows.reduce_year import reduce_year

        state = reduce_year(int(waiting.subject), waiting.telescope, settings, return_state=True)
    else:
        from flows.stack_target import stack_target

        state = stack_target(waiting.subject, waiting.telescope, settings, return_state=True)
    result = state.result(raise_on_failure=False)
    if isinstance(result, RunSummary):
        return result
    failure = FrameFailure(
        file=f"{waiting.flow} {waiting.subject}",
        stage="retry",
        reason=str(result) or state.name or "failed",
        remedy=f"python -m flows.{waiting.flow} {waiting.subject} says more",
    )
    return RunSummary(title=f"{waiting.flow} {waiting.subject}", n_asked=1, n_made=0, n_pending=0, failures=(failure,))


@flow(
    name="retry-queries",
    flow_run_name="retry queries {telescope}",
    description=__doc__,
    task_runner=task_runner(),
    persist_result=False,
)
def retry_queries(telescope: TelescopeName = "T120", settings: AllSettings = None) -> State[RunSummary]:
    """Ask again what is pending; finish what was answered.

    Parameters
    ----------
    telescope
        Name of a telescope profile.
    settings
        All settings; those of the stages are taken from the runs that wait.
    """
    run = RunContext.of(telescope, settings)
    waiting = waiting_runs(run.roots, telescope)
    if not waiting:
        nothing = RunSummary(title=f"pending queries {telescope}", n_asked=0, n_made=0)
        return State(type=StateType.COMPLETED, name="NothingPending", message="nothing is pending", data=nothing)
    with a_run(run, f"retry queries {telescope}") as progress:
        questions = sorted({question for each in waiting for question in each.unanswered}, key=_said)
        answers = progress.each("ask again", asked_again, [(question, run) for question in questions])
        answered = {q for q, answer in zip(questions, answers, strict=True) if isinstance(answer, StoredCone)}
        summaries: list[RunSummary] = []
        left: list[WaitingRun] = []
        for each in waiting:
            if _ready(each, answered, bool(summaries)):
                summaries.append(_take_up(each, run))
            else:
                left.append(each)
        return _finish(telescope, questions, answers, summaries, left)


def _finish(
    telescope: str,
    questions: list[Question],
    answers: list[object],
    summaries: list[RunSummary],
    left: list[WaitingRun],
) -> State[RunSummary]:
    n_answered = sum(isinstance(answer, StoredCone) for answer in answers)
    summary = RunSummary(
        title=f"pending queries {telescope}",
        n_asked=len(questions) + len(summaries) + len(left),
        n_made=n_answered + sum(not each.failed for each in summaries),
        n_pending=sum(each.n_pending for each in summaries) + sum(each.n_pending for each in left),
        failures=tuple(answer for answer in answers if isinstance(answer, FrameFailure))
        + tuple(failure for each in summaries for failure in each.failures),
        figures={
            "queries": f"{n_answered} of {len(questions)} answered",
            "taken up": ", ".join(each.title for each in summaries) or "nothing",
            "still waiting": ", ".join(f"{each.flow} {each.subject}" for each in left) or "nothing",
        },
    )
    if any(each.failed for each in summaries):
        return State(type=StateType.FAILED, name="Failed", message=summary.figures["taken up"], data=summary)
    name = "CompletedWithPending" if summary.n_pending else "Completed"
    return State(type=StateType.COMPLETED, name=name, message=summary.figures["queries"], data=summary)


if __name__ == "__main__":
    from flows._runner import run_all

    call = (command.telescope.name, command.settings)
    sys.exit(command.run(lambda args, settings, telescope: run_all(retry_queries, [call], settings)))
