"""What a run leaves at the terminal: figures, what was left out and why, where to look."""

from __future__ import annotations

from collections import defaultdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.base import Roots
from models.frame import FrameFailure
from models.run import RunSummary
from tasks.core.shown import at_terminal

__all__ = ["print_summary"]

_MOST_REASONS = 12


def _shown(text: str) -> str:
    return escape(at_terminal(text))


def _by_reason(failures: tuple[FrameFailure, ...]) -> dict[tuple[str, str, str], list[FrameFailure]]:
    groups: dict[tuple[str, str, str], list[FrameFailure]] = defaultdict(list)
    for failure in failures:
        groups[failure.stage, failure.reason, failure.remedy].append(failure)
    return groups


def print_summary(summary: RunSummary, roots: Roots) -> None:
    """Print a run's summary: short when all went well, never silent about what did not."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"\n[bold]{_shown(summary.title)}[/bold]")
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in summary.figures.items():
        table.add_row(_shown(name), _shown(value))
    console.print(table)
    groups = _by_reason(summary.failures)
    for (stage, reason, remedy), failures in list(groups.items())[:_MOST_REASONS]:
        mark = "[yellow]pending[/yellow]" if failures[0].pending else "[red]left out[/red]"
        names = ", ".join(failure.file for failure in failures[:3])
        more = f" and {len(failures) - 3} more" if len(failures) > 3 else ""
        console.print(f"{mark} {_shown(names)}{more}\n    {_shown(stage)}: {_shown(reason)}\n    -> {_shown(remedy)}")
    if len(groups) > _MOST_REASONS:
        console.print(f"... and {len(groups) - _MOST_REASONS} more reasons, all in the reports")
    for file in summary.files:
        console.print(f"  {_shown(str(roots.data / file))}")
