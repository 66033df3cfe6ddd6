"""What is done to each stack after SWarp: PSF, validation, depth, header, plots."""

from __future__ import annotations

from prefect import task

from flows._frame import Way
from models.field import FieldCatalogs
from models.frame import FrameFailure
from models.run import RunContext
from models.stack import Stack
from tasks.psf.tasks import psf_of_stack
from tasks.stacking.tasks import finished_stack, stack_picture
from tasks.validation.tasks import validated_stack, validation_plot

__all__ = ["finish_filter"]


@task(name="stack", task_run_name="finish one filter", tags=["stacking"], persist_result=False)
def finish_filter(stack: Stack | FrameFailure, catalogs: FieldCatalogs, run: RunContext) -> Stack | FrameFailure:
    """PSF and validation of a stack, its header and plots. A stack without them is still a stack, and says so."""
    if isinstance(stack, FrameFailure):
        return stack
    way, roots, telescope = Way(f"{stack.group}_{stack.filter}"), run.roots, run.telescope
    psf = way.step(psf_of_stack, stack, roots, telescope, run.settings.psf)
    with_psf = stack.model_copy(update={"psf": psf})
    verdict = way.step(validated_stack, with_psf, catalogs.ps1, roots, telescope, run.settings.validation)
    if verdict is not None:
        way.step(validation_plot, with_psf, verdict, catalogs.ps1, roots, telescope, run.settings.validation)
    notes = stack.notes + tuple(f"{failure.stage}: {failure.reason}" for failure in way.failures)
    noted = stack.model_copy(update={"notes": notes})
    finished = finished_stack(noted, psf, verdict, roots, run.settings.stack.zero_point)
    stack_picture(finished, roots)
    return finished
