"""The rehearsal's page: one table of groups, one of rejected frames, the goals, what it cost."""

from __future__ import annotations

import re
from collections import Counter

from tasks.rehearsal.compare import Comparison

__all__ = ["page"]

_LISTED = 25
_HEAD = """\
# The release rehearsed

Written by `make rehearsal`: the simulator plays the archive's own files (real paths, headers, nights, filters and
exposure times; the sky of each group drawn at its true place), `flows.reduce_year` and `flows.build_release` work on
them, and what came out is set against what was played. {what}

| goal | reached | |
|---|---|---|
"""


def _yes(reached: bool) -> str:
    return "yes" if reached else "**no**"


def _joined(filters: tuple[str, ...]) -> str:
    return " ".join(filters) or "none"


def page(comparison: Comparison, what: str, costs: list[tuple[str, str]]) -> str:
    """The page as Markdown.

    Parameters
    ----------
    comparison
        The outcome.
    what
        A sentence or two on how much was played and with which software.
    costs
        What was measured of time: name, figure.
    """
    groups, rejected = comparison.groups, comparison.rejected
    share = comparison.good_used / comparison.good if comparison.good else 0.0
    strangers = sum(len(group.strangers) for group in groups)
    wrong = [frame for frame in rejected if not frame.right]
    possible = sum(len(group.filters_possible) for group in groups)
    made = sum(len(set(group.filters_possible) & set(group.filters_stacked)) for group in groups)
    goals = [
        ("every group found under its name", all(group.found for group in groups) and not comparison.unexpected_groups,
         f"{sum(group.found for group in groups)} of {len(groups)} groups, {made} of {possible} stacks"),
        ("no frame in a wrong group", strangers == 0, f"{strangers} frames"),
        ("at least 98 % of the good frames used", share >= 0.98,
         f"{comparison.good_used} of {comparison.good}: {100 * share:.1f} %"),
        ("each rejected frame with a right reason", not wrong, f"{len(rejected) - len(wrong)} of {len(rejected)}"),
        ("science told from calibration, filters read",
         not (comparison.not_science or comparison.false_science or comparison.wrong_filter),
         f"{len(comparison.not_science) + len(comparison.false_science)} kinds and {len(comparison.wrong_filter)} "
         "filters wrong"),
    ]  # fmt: skip
    lines = [_HEAD.format(what=what) + "\n".join(f"| {name} | {_yes(ok)} | {said} |" for name, ok, said in goals)]
    lines += ["", "## Groups", "", "| group | filters played | stacks | frames | good | of them assigned | used | spoilt or dimmed | of them used | of another place |", "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip # noqa: E501
    lines += [
        f"| {group.group} | {_joined(group.filters_true)} | {_joined(group.filters_stacked)} | {group.frames} | "
        f"{group.good} | {group.good_assigned} | {group.good_used} | "
        f"{group.damaged} | {group.damaged_used} | {len(group.strangers)} |"
        for group in groups
    ]
    lines += ["", "## Frames left out", ""]
    kinds = Counter((frame.damage or "nothing", _kind(frame.reason), frame.right) for frame in rejected)
    if kinds:
        lines += ["| what is wrong with it | what the pipeline says | right | frames |", "|---|---|---|---|"]
        lines += [
            f"| {damage} | {reason} | {_yes(right)} | {count} |"
            for (damage, reason, right), count in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
        ]
    else:
        lines.append("None.")
    if wrong:
        lines += ["", "Wrongly left out, or for a wrong reason:", ""]
        lines += [f"- `{frame.path}` ({frame.group} {frame.filter}): {frame.reason}" for frame in wrong[:_LISTED]]
        if len(wrong) > _LISTED:
            lines.append(f"- and {len(wrong) - _LISTED} more, all of them in rehearsal_outcome.json")
    lines += ["", "## What it costs", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {figure} |" for name, figure in costs]
    return "\n".join(lines) + "\n"


def _kind(reason: str) -> str:
    """A reason without the numbers that are one frame's own."""
    short = re.sub(r"looked in [^:]*:", "looked in …:", reason)
    return re.sub(r"[-+]?\d+(?:\.\d+)?", "…", short).replace("|", "/")
