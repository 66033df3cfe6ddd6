"""Real frames for benchmarks: one year of the demo's campaign, and what has to be there before a stage begins."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.bare import Prepared, prepare
from bench.figures import machine
from bench.place import Place
from models.base import Roots
from models.run import RunContext
from models.settings import Settings
from models.simulation import SimulationOptions
from tasks.core.pool import work_here
from tasks.simulation import simulate_campaign

__all__ = ["YEAR", "campaign", "here"]

YEAR = 2025


def campaign(place: Place, name: str = "campaign", frames: int = 3) -> Roots:
    """M51 and M67 in the filters of the year, `frames` of each, simulated; one data root a name."""
    root = place.folder / name
    if root.exists():
        shutil.rmtree(root)
    roots = Roots(data=root, raw=root / "raw")
    few = place.frames < 100
    options = SimulationOptions(
        seed=1, years=(YEAR,), fields=("M67",) if few else ("M51", "M67"), filters=("g", "r") if few else (),
        frames=1 if few else frames,
    )  # fmt: skip
    simulate_campaign(roots, options, workers=machine()["cores"])
    return roots


def here(folder: str | Path) -> tuple[RunContext, Prepared]:
    """Inventory, fields, index files and masters of the campaign, everything done in this process, one core."""
    work_here()
    root = Path(folder)
    run = RunContext.of("T120", Settings(data_root=root, raw_root=root / "raw", workers=1))
    return run, prepare(YEAR, run)
