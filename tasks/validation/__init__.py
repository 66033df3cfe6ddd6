"""Validation: stacks against PS1, and the plots of it."""

from tasks.validation.plots import plot_validation
from tasks.validation.validate import Residuals, judge, residuals, tie_stack, validate_stack

__all__ = ["Residuals", "judge", "plot_validation", "residuals", "tie_stack", "validate_stack"]
