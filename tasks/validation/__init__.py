"""Validation: stacks against PS1, and the plots of it."""

from tasks.validation.plots import plot_validation
from tasks.validation.release import ReleaseCheck, release_check
from tasks.validation.validate import Residuals, compared_stars, judge, residuals, tie_stack, validate_stack

__all__ = [
    "ReleaseCheck",
    "Residuals",
    "compared_stars",
    "judge",
    "plot_validation",
    "release_check",
    "residuals",
    "tie_stack",
    "validate_stack",
]
