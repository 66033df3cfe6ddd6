"""Cost grows as the work does where pixels are concerned: a group of 200 frames, a camera of 4096 x 4096 pixels.

Everything real: simulated frames, reduced, calibrated and stacked by the flows. The memory is that of the flow, its
workers and its tools together (Pss), looked at twice a second.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

from bench.figures import Figure, machine
from bench.place import Place
from bench.processes import REPO, memory_of_tree, server
from models.base import Roots
from models.settings import StackSettings
from models.simulation import SimulationOptions
from tasks.simulation import simulate_campaign

__all__ = ["measure"]

_YEAR, _GROUP, _FILTER = 2025, "M67", "r"
_FRAMES = (25, 200)
_SIDES = (1024, 4096)
_OF_A_SIDE = 4
_PROFILE = REPO / "models" / "profiles" / "T120.toml"


def _campaign(place: Place, name: str, frames: int, side: int) -> Roots:
    root = place.folder / name
    if root.exists():
        shutil.rmtree(root)
    roots = Roots(data=root, raw=root / "raw")
    options = SimulationOptions(
        seed=3, years=(_YEAR,), fields=(_GROUP,), filters=(_FILTER,), frames=frames, size=side, oddities=False
    )
    simulate_campaign(roots, options, workers=machine()["cores"])
    return roots


def _camera(roots: Roots, side: int) -> str:
    """Name of a profile like the T120's with a chip of that side, written where an observatory puts its own."""
    text = _PROFILE.read_text(encoding="utf-8")
    text = text.replace("shape = [1024, 1024]", f"shape = [{side}, {side}]").replace(
        'name = "T120"', 'name = "WIDE"', 1
    )
    path = roots.data / "telescopes" / "WIDE.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return "WIDE"


def _night(place: Place, roots: Roots, label: str, telescope: str) -> dict[str, dict[str, Any]]:
    """A year reduced and its group stacked: wall time and highest memory of each."""
    told = {}
    with server(roots.data, place.folder / "logs" / f"{label}-server.log") as beside:
        for part, options in (("reduce", ("--reduce", str(_YEAR))), ("stack", ("--stack", _GROUP))):
            said, done = place.child(
                roots,
                f"{label}-{part}",
                "--warm",
                *options,
                telescope=telescope,
                server=beside,
                sample=lambda pid: (0.0, memory_of_tree(pid)),
            )
            told[part] = {"seconds": said["wall_s"], "memory": max(memory for _, memory in done.samples)}
    return told


def _stacked(roots: Roots, telescope: str) -> int:
    """Frames in the stack.

    Raises
    ------
    RuntimeError
        If there is none: then nothing was measured.
    """
    path = roots.data / "stacks" / _GROUP / telescope / "stack_all_report.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    if not rows or rows[0]["status"] != "OK":
        raise RuntimeError(f"no stack was made: {rows}")
    return int(rows[0]["n_combined"])


def measure(place: Place) -> list[Figure]:
    """Groups of 25 and of 200 frames; cameras of 1024 and of 4096 pixels a side. Each once: they take long."""
    few = place.frames < 100
    figures: list[Figure] = []
    groups: dict[int, dict[str, dict[str, Any]]] = {}
    made: dict[int, int] = {}
    for frames in (2, 4) if few else _FRAMES:
        roots = _campaign(place, f"growth-{frames}", frames, 512 if few else 1024)
        groups[frames] = _night(place, roots, f"growth-{frames}", "T120" if not few else _camera(roots, 512))
        made[frames] = _stacked(roots, "T120" if not few else "WIDE")
        shutil.rmtree(roots.data)
    (small, less), (large, more) = groups.items()
    limit = StackSettings().memory_mb
    figures += [
        Figure(
            name=f"memory of stack_target, one filter of {large} frames, highest", value=more["stack"]["memory"],
            unit="MB", goal=2.0 * limit,
            detail=f"of {small} frames: {less['stack']['memory']:.0f} MB; {made[large]} and {made[small]} combined; "
            f"stack.memory_mb is {limit}",
        ),
        Figure(
            name=f"time a frame of stack_target, {large} against {small} frames",
            value=more["stack"]["seconds"] / large / (less["stack"]["seconds"] / small), goal=1.1,
            detail=f"{more['stack']['seconds']:.0f} s and {less['stack']['seconds']:.0f} s",
        ),
        Figure(
            name=f"time a frame of reduce_year, {large} against {small} frames",
            value=more["reduce"]["seconds"] / large / (less["reduce"]["seconds"] / small), goal=1.1,
            detail=f"{more['reduce']['seconds']:.0f} s and {less['reduce']['seconds']:.0f} s",
        ),
    ]  # fmt: skip
    cameras: dict[int, dict[str, dict[str, Any]]] = {}
    n = 2 if few else _OF_A_SIDE
    for side in (512, 768) if few else _SIDES:
        roots = _campaign(place, f"growth-side-{side}", n, side)
        telescope = _camera(roots, side)
        cameras[side] = _night(place, roots, f"growth-side-{side}", telescope)
        _stacked(roots, telescope)
        shutil.rmtree(roots.data)
    (narrow, before), (wide, after) = cameras.items()
    pixels = (wide / narrow) ** 2
    for part, name in (("reduce", "reduce_year"), ("stack", "stack_target")):
        figures += [
            Figure(
                name=f"time a pixel of {name}, a camera of {wide} against one of {narrow} px a side",
                value=after[part]["seconds"] / before[part]["seconds"] / pixels, goal=1.0,
                detail=f"{n} frames: {after[part]['seconds']:.0f} s and {before[part]['seconds']:.0f} s",
            ),
            Figure(
                name=f"memory of {name} with a camera of {wide} px a side, highest", value=after[part]["memory"],
                unit="MB", goal=8192.0, detail=f"of {narrow} px: {before[part]['memory']:.0f} MB",
            ),
        ]  # fmt: skip
    return figures
