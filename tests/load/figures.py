"""Figures of the load tests: collected, shown at the end as rows of docs/measured.md."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["GROUPS", "Figures", "growth"]

GROUPS = ("M67", "M51")
"""What is asked for."""


@dataclass
class Figures:
    """Rows of a Markdown table."""

    rows: list[str] = field(default_factory=list)

    def add(self, title: str, name: str, value: float, unit: str, goal: float | None = None, detail: str = "") -> None:
        """One number; `goal` is the largest that is good."""
        said = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
        bound = "" if goal is None else f"≤ {goal:g}"
        reached = "" if goal is None else "yes" if value <= goal else "**no**"
        self.rows.append(f"| {title}: {name} | {said} {unit}".rstrip() + f" | {bound} | {reached} | {detail} |")


def growth(samples: list[tuple[float, float]], total: float, per: float = 100.0) -> float:
    """How much the second of each pair grows while the first grows by `per`; the first tenth does not count.

    A straight line through what was sampled; 0 where that is too little to tell.
    """
    late = np.array([sample for sample in samples if sample[0] >= total / 10])
    if len(late) < 3 or np.ptp(late[:, 0]) == 0:
        return 0.0
    return float(np.polyfit(late[:, 0], late[:, 1], 1)[0]) * per
