"""A figure of merit, and how those of several campaigns are put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from models.base import Record

__all__ = [
    "Figure",
    "markdown_table",
    "median_error",
    "over_seeds",
    "robust",
    "weighted_mean",
    "width_error",
    "width_error_share",
    "worst_beyond",
]


class Figure(Record):
    """A figure of merit with its goal.

    `bound` is what a small campaign must reach in the tests: its few frames and stars leave more chance than a goal
    that is stated for many. Without one it is the goal. `error` is the measurement's own (one standard deviation),
    where it counts: of many stacks the worst is off by two or three of them.
    """

    name: str
    value: float
    unit: str
    goal: float | None = None
    bound: float | None = None
    better: Literal["below", "above", "between"] = "below"
    least: float | None = None
    error: float | None = None
    detail: str = ""
    pulls: tuple[float, ...] = Field((), exclude=True, description="of which `value` is the width about 0")

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        return self._within(self.goal)

    @property
    def holds(self) -> bool | None:
        """Whether the bound of the tests is kept; None where there is none."""
        return self._within(self.bound if self.bound is not None else self.goal)

    @property
    def goal_text(self) -> str:
        """The goal as a person writes it; empty where there is none."""
        if self.goal is None:
            return ""
        if self.better == "between":
            return f"{self.least:g} to {self.goal:g} {self.unit}".rstrip()
        return f"{'≤' if self.better == 'below' else '≥'} {self.goal:g} {self.unit}".rstrip()

    def _within(self, limit: float | None) -> bool | None:
        if limit is None:
            return None
        if self.better == "above":
            return self.value >= limit
        return self.value <= limit and (self.least is None or self.value >= self.least)


def robust(values: Sequence[float] | npt.NDArray[np.float64], about: float | None = None) -> float:
    """Standard deviation from the median absolute deviation, about the median or a given value."""
    array = np.asarray(values, np.float64)
    centre = float(np.median(array)) if about is None else about
    return float(1.4826 * np.median(np.abs(array - centre)))


_MAD_EFFICIENCY = 0.37
"""Of the median absolute deviation of Gaussian values (Hampel 1974, JASA 69, 383)."""


def width_error(values: Sequence[float] | npt.NDArray[np.float64]) -> float:
    """Error of `robust`, of so many values."""
    return robust(values, 0.0) * width_error_share(len(values))


def width_error_share(number: float) -> float:
    """Error of `robust` over its value, of so many independent Gaussian values."""
    return 1.0 / float(np.sqrt(2.0 * _MAD_EFFICIENCY * max(number, 1.0)))


def weighted_mean(values: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean of (value, error) by inverse variance, and its error."""
    weight = np.array([error**-2.0 for _, error in values])
    return float(np.average([value for value, _ in values], weights=weight)), float(weight.sum() ** -0.5)


def worst_beyond(values: Mapping[str, tuple[float, float]], sigma: float = 2.0) -> tuple[str, float]:
    """Of (value, error) by label, the one furthest from 0 when so many errors are taken off; that distance, 0 or more.

    Of thirty stacks, one is off by two of its errors by chance: the largest value alone would tell of the measurement.
    """
    left = {label: max(0.0, abs(value) - sigma * error) for label, (value, error) in values.items()}
    worst = max(left, key=lambda label: (left[label], abs(values[label][0])))
    return worst, left[worst]


def median_error(values: Sequence[float] | npt.NDArray[np.float64]) -> float:
    """Error of the median of Gaussian values, from their median absolute deviation."""
    return float(np.sqrt(np.pi / 2)) * robust(values) / float(np.sqrt(max(len(values), 1)))


def over_seeds(campaigns: Sequence[Sequence[Figure]]) -> tuple[Figure, ...]:
    """One figure of each name: of several campaigns the worst, with the others' range in the detail.

    Worst is the largest where less is better, the smallest where more is, and of a range what is furthest from its
    middle. The width of pulls is taken of those of all campaigns together: a campaign's frames share a few colour
    terms and flats, so that one alone tells the width of a handful of draws.
    """
    by_name: dict[str, list[Figure]] = {}
    for figures in campaigns:
        for figure in figures:
            by_name.setdefault(figure.name, []).append(figure)
    worst = []
    for figures in by_name.values():
        first = figures[0]
        if first.pulls:
            every = [pull for figure in figures for pull in figure.pulls]
            chosen = first.model_copy(update={"value": robust(every, 0.0), "error": width_error(every)})
        elif first.better == "between" and first.least is not None and (most := first.goal or first.bound) is not None:
            middle = (most + first.least) / 2
            chosen = max(figures, key=lambda figure: abs(figure.value - middle))
        elif first.better == "above":
            chosen = min(figures, key=lambda figure: figure.value)
        else:
            chosen = max(figures, key=lambda figure: abs(figure.value))
        if len(figures) > 1:
            seen = ", ".join(_number(figure.value) for figure in figures)
            chosen = chosen.model_copy(update={"detail": "; ".join(filter(None, (f"seeds {seen}", chosen.detail)))})
        worst.append(chosen)
    return tuple(worst)


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def markdown_table(figures: Sequence[Figure]) -> str:
    """The figures as rows of a table: name, value, goal, whether reached, detail."""
    lines = ["| figure | measured | goal | reached | |", "|---|---|---|---|---|"]
    for figure in figures:
        reached = "" if figure.reached is None else ("yes" if figure.reached else "**no**")
        error = "" if figure.error is None else f" ± {_number(figure.error)}"
        value = f"{_number(figure.value)}{error} {figure.unit}".rstrip()
        lines.append(f"| {figure.name} | {value} | {figure.goal_text} | {reached} | {figure.detail} |")
    return "\n".join(lines) + "\n"
