"""Programs that make the same thing, run in turns, each run in a process of its own (`bench.contender`)."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeAlias

from bench.figures import Figure
from bench.place import Place
from bench.processes import run

__all__ = ["Taken", "Work", "contest", "ratio"]

Work: TypeAlias = Generator[None, None, Any]
"""What a contender is: up to its ``yield`` it makes ready, what follows is timed; what it returns is told."""


@dataclass
class Taken:
    """What the runs of one contender took."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    said: Any = None

    def add(self, told: Mapping[str, Any]) -> None:
        """One run more."""
        self.seconds.append(told["seconds"])
        self.cpu.append(told["cpu"])
        self.memory_mb.append(told["memory_mb"])
        self.said = told["said"]


def contest(
    place: Place, label: str, module: str, arguments: Mapping[str, Any], contenders: Sequence[str]
) -> dict[str, Taken]:
    """Run each contender `place.repeats` times, in turns: what disturbs the machine disturbs all of them.

    Parameters
    ----------
    module, contenders
        Where the generators of `bench.contender` are, and their names.
    arguments
        What each of them is called with.
    """
    taken = {name: Taken() for name in contenders}
    for turn in range(place.repeats):
        for name in contenders:
            out = place.folder / "logs" / f"{label}-{name}-{turn}.json"
            out.parent.mkdir(parents=True, exist_ok=True)
            run(["-m", "bench.contender", module, name, json.dumps(arguments), str(out)], out.with_suffix(".log"))
            taken[name].add(json.loads(out.read_text(encoding="utf-8")))
            place.say(f"  {label}, {name}: {taken[name].seconds[-1]:.2f} s")
    return taken


def ratio(
    name: str, over: Sequence[float], under: Sequence[float], goal: float | None, *, better: str = "below",
    detail: str = "",
) -> Figure:  # fmt: skip
    """Median of the ratios turn by turn, with its range."""
    each = [a / b for a, b in zip(over, under, strict=True)]
    spread = f"{min(each):.3g} to {max(each):.3g} in {len(each)} turns"
    return Figure(
        name=name, value=median(each), goal=goal, better="above" if better == "above" else "below",
        detail=f"{detail}; {spread}" if detail else spread,
    )  # fmt: skip
