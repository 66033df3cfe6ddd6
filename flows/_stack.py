"""What is done to each stack after SWarp: PSF, validation, depth, header, plots."""

from __future__ import annotations

from prefect import task

from flows._frame import Way
from models.field import FieldCatalogs
from models.frame import FrameFailure
from models.run import RunContext
from models.stack import Stack
from tasks.psf.tasks import psf_of_stack
from tasks.stacking.tasks import finished_stack
from tasks.validation.tasks import validated_stack

__all__ = ["finish_filter"]


@task(name="stack", task_run_name="finish one filter", tags=["stacking"], persist_result=False)
def finish_filter(stack: Stack | FrameFailure, catalogs: FieldCatalogs, run: RunContext) -> Stack | FrameFailure:
    """PSF and validation of a stack, its header and plots. A stack without them is still a stack, and says so."""
    if isinstance(stack, FrameFailure):
        return stack
    way = Way(f"{stack.group}_{stack.filter}")
    psf = way.step(psf_of_stack, stack, run.roots, run.telescope, run.settings.psf)
    validation = way.step(
        validated_stack,
        stack.model_copy(update={"psf": psf}),
        catalogs.ps1,
        run.roots,
        run.telescope,
        run.settings.validation,
    )
    notes = stack.notes + tuple(f"{failure.stage}: {failure.reason}" for failure in way.failures)
    return finished_stack(stack.model_copy(update={"notes": notes}), psf, validation, run.roots)
