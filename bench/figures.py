"""What was measured, on which machine, with what; as JSON and as a table."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from models.base import Record
from tasks.core.files import write_json

__all__ = ["RESULTS", "Figure", "Measured", "Results", "machine", "merged", "read_results", "software", "table"]

RESULTS = Path(__file__).parent / "results.json"

_TOOLS = ("solve-field", "source-extractor", "scamp", "SWarp", "psfex")


class Figure(Record):
    """One number."""

    name: str
    value: float
    unit: str = ""
    goal: float | None = None
    better: Literal["below", "above"] = "below"
    detail: str = Field("", description="what it is made of, its scatter, how often it was measured")

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.better == "below" else self.value >= self.goal


class Measured(Record):
    """The figures of one subject, and under which circumstances they were taken."""

    subject: str
    made: str = Field(description="UTC")
    command: str
    machine: dict[str, Any]
    software: dict[str, str]
    seconds: float = Field(description="how long the measurement took")
    figures: tuple[Figure, ...]


class Results(Record):
    """The newest figures of each subject."""

    version: Literal[1] = Field(1, alias="schema")
    subjects: dict[str, Measured] = Field(default_factory=dict)

    model_config = Record.model_config | {"populate_by_name": True}


def _first_line(path: str, key: str) -> str:
    try:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return "unknown"


def machine() -> dict[str, Any]:
    """Processor, cores that may be used, memory, system, and the load at this moment."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": _first_line("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def software() -> dict[str, str]:
    """Versions of what was measured; with the commit where git knows it."""
    from tasks.report import software_versions

    done = subprocess.run(  # nosec B607
        # Git is where the system has it.
        ["git", "describe", "--always", "--dirty"],  # noqa: S607
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    commit = {"commit": done.stdout.strip()} if done.returncode == 0 else {}
    return software_versions(_TOOLS) | commit


def now() -> str:
    """UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def read_results(path: Path = RESULTS) -> Results:
    """What was measured before; nothing where there is no file."""
    if not path.exists():
        return Results()
    return Results.model_validate_json(path.read_bytes())


def merged(measured: Iterable[Measured], path: Path = RESULTS) -> Results:
    """Put new figures in the place of the old ones of the same subjects, and write the file."""
    before = read_results(path)
    results = before.model_copy(update={"subjects": before.subjects | {each.subject: each for each in measured}})
    write_json(path, json.loads(results.model_dump_json(by_alias=True)))
    return results


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _rows(measured: Measured) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for figure in measured.figures:
        sign = "<=" if figure.better == "below" else ">="
        goal = "" if figure.goal is None else f"{sign} {figure.goal:g} {figure.unit}".rstrip()
        reached = {None: "", True: "yes", False: "NO"}[figure.reached]
        rows.append((figure.name, f"{_number(figure.value)} {figure.unit}".rstrip(), goal, reached, figure.detail))
    return rows


def table(measured: Sequence[Measured]) -> str:
    """The figures with the goal beside each, for a terminal."""
    lines = []
    for each in measured:
        load = each.machine.get("load", ["?"])[0]
        lines += ["", f"{each.subject}  ({each.command}; {each.made}, load {load}, {each.seconds:.0f} s)"]
        rows = [("figure", "measured", "goal", "reached", ""), *_rows(each)]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines += [
            "  " + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
            for row in rows
        ]
    return "\n".join(lines).lstrip("\n")
