"""A stack against PS1, in numbers and as a plot."""

from __future__ import annotations

from prefect import task

from models.base import Roots
from models.catalog import StoredCone
from models.frame import FrameFailure
from models.settings import ValidationSettings
from models.stack import Stack, StackValidation
from models.telescope import Telescope
from tasks.core.cache import ByContent
from tasks.core.running import settled
from tasks.validation import validate_stack

__all__ = ["validated_stack"]


@task(
    name="validate",
    task_run_name="validate {stack.group} {stack.filter}",
    tags=["validation"],
    cache_policy=ByContent(code=[validate_stack]),
    persist_result=True,
)
def validated_stack(
    stack: Stack, ps1: StoredCone | None, roots: Roots, telescope: Telescope, settings: ValidationSettings
) -> StackValidation | FrameFailure:
    """Offset of a stack's zero point from PS1, its error and scatter."""
    return settled(f"{stack.group}_{stack.filter}", validate_stack, stack, ps1, roots, telescope, settings)
