"""`stack_target`, all filters of a group, against the bare SCAMP, SWarp, SExtractor and PSFEx commands it needs.

The commands are those that the flow itself runs (`bench.recorder`), with the folders it prepares for them: images,
weights and settings are given to the bare commands for nothing. Only SWarp, which resamples for the flow, makes the
median as well: the flow's own comes to the same pixels. They run as a good shell script runs them on two cores:
SCAMP, then the filters' SWarp two at a time, then for each stack SExtractor and PSFEx, two stacks at a time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from bench.contest import ratio
from bench.figures import Figure, machine
from bench.place import Place
from bench.processes import run, server
from models.base import Roots
from models.simulation import SimulationOptions
from tasks.simulation import simulate_campaign

__all__ = ["measure", "recorded_commands", "stacking_campaign"]

_GROUP, _YEAR = "M67", 2025


def stacking_campaign(place: Place, name: str, filters: tuple[str, ...], frames: int) -> Roots:
    """One rich field, reduced and calibrated; its root is copied for each turn."""
    root = place.folder / name
    if root.exists():
        shutil.rmtree(root)
    roots = Roots(data=root, raw=root / "raw")
    options = SimulationOptions(seed=2, years=(_YEAR,), fields=(_GROUP,), filters=filters, frames=frames)
    simulate_campaign(roots, options, workers=machine()["cores"])
    place.child(roots, f"{name}-reduced", "--reduce", str(_YEAR), telescope="T120")
    return roots


def _call(command: dict[str, Any], recorded: Path) -> None:
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run(  # nosec B603
        command["command"], cwd=recorded / command["folder"], check=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | threads,
    )  # fmt: skip


def _in_turn(commands: Sequence[dict[str, Any]], recorded: Path) -> None:
    for each in commands:
        _call(each, recorded)


def _bare(commands: Sequence[dict[str, Any]], recorded: Path, cores: int) -> dict[str, float]:
    """Seconds of each step of the script."""
    of = {tool: [each for each in commands if each["tool"] == tool] for tool in {each["tool"] for each in commands}}
    stacks = of["SWarp"]
    models = list(zip(of["source-extractor"], of["psfex"], strict=False))
    seconds = {}
    with ThreadPoolExecutor(cores) as threads:
        started = time.perf_counter()
        for each in of["scamp"]:
            _call(each, recorded)
        seconds["scamp"] = time.perf_counter() - started
        list(threads.map(lambda each: _call(each, recorded), stacks))
        seconds["swarp"] = time.perf_counter() - started - seconds["scamp"]
        list(threads.map(lambda pair: _in_turn(pair, recorded), models))
        seconds["all"] = time.perf_counter() - started
    seconds["psfex"] = seconds["all"] - seconds["scamp"] - seconds["swarp"]
    return seconds


def _option(command: dict[str, Any], name: str) -> str:
    arguments = command["command"]
    return str(arguments[arguments.index(name) + 1])


def _one_per_stack(commands: list[dict[str, Any]], n_stacks: int) -> list[dict[str, Any]]:
    """Of what the flow ran: one extraction and one model a stack, the last ones."""
    kept = [each for each in commands if each["tool"] == "scamp"]
    stacks = [each for each in commands if each["tool"] == "SWarp" and _option(each, "-SUBTRACT_BACK") == "Y"]
    median = ["-COMBINE", "Y", "-COMBINE_TYPE", "MEDIAN"]  # the last one of an option counts
    kept += [each | {"command": [*each["command"], *median]} for each in stacks]
    for tool in ("source-extractor", "psfex"):
        kept += [each for each in commands if each["tool"] == tool][-n_stacks:]
    return kept


def _ready(place: Place) -> tuple[Roots, tuple[str, ...], int]:
    """A campaign that is reduced, its filters, and frames a filter."""
    few = place.frames < 100
    filters, frames = (("g", "r"), 2) if few else (("B", "V", "g", "r", "i"), 8)
    return stacking_campaign(place, "group", filters, frames), filters, frames


def _record(place: Place, ready: Roots, work: Path) -> Path:
    recorded = place.folder / "recorded"
    for folder in (recorded, work):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ready.data, work, symlinks=True)
    run(["-m", "bench.recorder", "--root", str(work), "--group", _GROUP, "--to", str(recorded)],
        place.folder / "logs" / "recorder.log", place.environment(None))  # fmt: skip
    return recorded


def recorded_commands(place: Place) -> Path:
    """The folder of `bench.recorder` for the group; made where it is not there."""
    recorded = place.folder / "recorded"
    if not recorded.exists():
        _record(place, _ready(place)[0], place.folder / "group-turn")
    return recorded


def measure(place: Place) -> list[Figure]:
    """The flow beside a running server, and the script, in turns."""
    cores = machine()["cores"]
    ready, filters, frames = _ready(place)
    work = place.folder / "group-turn"
    recorded = _record(place, ready, work)
    commands = json.loads((recorded / "commands.json").read_text(encoding="utf-8"))
    script = _one_per_stack(commands, len(filters))
    flow: list[float] = []
    whole: list[float] = []
    bare: list[dict[str, float]] = []
    for turn in range(place.repeats):
        shutil.rmtree(work)
        shutil.copytree(ready.data, work, symlinks=True)
        roots = Roots(data=work, raw=work / "raw")
        with server(work, place.folder / "logs" / f"group-{turn}-server.log") as beside:
            said, done = place.child(
                roots, f"group-{turn}", "--warm", "--stack", _GROUP, telescope="T120", server=beside
            )
        flow.append(said["wall_s"])
        whole.append(done.seconds)
        bare.append(_bare(script, recorded, cores))
        place.say(f"  bare commands: {bare[-1]['all']:.1f} s")
    counted = {
        tool: sum(each["tool"] == tool for each in script) for tool in ("scamp", "SWarp", "source-extractor", "psfex")
    }
    steps = ", ".join(f"{step} {median(each[step] for each in bare):.1f} s" for step in ("scamp", "swarp", "psfex"))
    return [
        ratio(
            f"stack_target of {frames * len(filters)} frames in {len(filters)} filters, against the bare commands",
            flow, [each["all"] for each in bare], 1.15,
            detail=f"medians {median(flow):.1f} s and {median(each['all'] for each in bare):.1f} s ({steps}; "
            + ", ".join(f"{count} x {tool}" for tool, count in counted.items()) + ")",
        ),
        Figure(
            name="the whole command of that, beside a running server", value=median(whole), unit="s",
            detail="with the start of Python and Prefect",
        ),
        Figure(name="commands of tools that the flow runs", value=len(commands), detail=f"{len(script)} in the script"),
    ]  # fmt: skip
