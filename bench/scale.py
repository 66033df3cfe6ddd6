"""Where the next limit lies: 10^4 to 10^6 frames a night on 2, 64 and 1024 cores.

A closed queueing network, solved by mean value analysis (Reiser & Lavenberg 1980, J. ACM 27, 313; many servers after
Seidmann et al. 1987, Large Scale Systems 12, 91): a fixed number of frames is under way, each asks in turn for the
flow's process, Prefect's server, a core and the disk. What a frame costs each of them is measured here, on this
machine. Its prediction for two workers stands beside the measured one.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.campaign import YEAR, campaign
from bench.contest import contest
from bench.figures import RESULTS, Figure, read_results
from bench.group import recorded_commands
from bench.place import Place
from bench.processes import server
from bench.release import Plan
from models.base import Roots

__all__ = ["Costs", "Limits", "Station", "mean_value_analysis", "measure", "night"]

_FRAMES, _CORES = (10**4, 10**5, 10**6), (2, 64, 1024)
_GROUPS_A_NIGHT = 40
_CATALOGUES = (10, 20, 40, 80)


@dataclass(frozen=True)
class Station:
    """Something that frames wait for.

    Attributes
    ----------
    seconds
        What one frame needs of it.
    servers
        How many frames it serves at a time.
    """

    name: str
    seconds: float
    servers: int = 1


@dataclass(frozen=True)
class Costs:
    """What a frame costs, s or bytes; as measured.

    Attributes
    ----------
    core
        Of a worker: all stages and their tools.
    flow, server
        Of the one process that runs the flow, and of Prefect's server with its database.
    bytes
        Read and written.
    fixed
        Of a run of one year, whatever its size.
    scamp
        Seconds of one SCAMP run: factor and power of the number of frames.
    """

    core: float
    flow: float
    server: float
    bytes: float
    fixed: float
    scamp: tuple[float, float]


@dataclass(frozen=True)
class Limits:
    """What can be set or bought.

    Attributes
    ----------
    flows
        Flow runs at a time, each a process of its own (one a night, a camera, a field).
    servers
        API processes of Prefect before one PostgreSQL.
    batch
        Frames a task run.
    disk
        Bytes a second, of all machines together.
    season_groups
        SCAMP runs that a large group is cut into.
    """

    flows: int = 1
    servers: int = 1
    batch: int = 1
    disk: float = 1e9
    season_groups: int = 1


def mean_value_analysis(stations: Sequence[Station], customers: int) -> tuple[float, dict[str, float]]:
    """Frames a second with so many under way, and how busy each station is then.

    A station of m servers is taken for one that is m times as fast, behind a delay of (m - 1) / m of its seconds.
    """
    alone = np.array([station.seconds / station.servers for station in stations])
    delay = sum(station.seconds * (station.servers - 1) / station.servers for station in stations)
    queue = np.zeros(len(stations))
    rate = 0.0
    for number in range(1, customers + 1):
        waiting = alone * (1 + queue)
        rate = number / (delay + float(waiting.sum()))
        queue = rate * waiting
    return rate, {station.name: rate * float(own) for station, own in zip(stations, alone, strict=True)}


_LAPTOP = 2
"""Cores of a machine that runs the flow and Prefect's server, too: all share them."""


def _stations(costs: Costs, limits: Limits, cores: int) -> list[Station]:
    if cores <= _LAPTOP:
        overhead = (costs.flow + costs.server) / limits.batch
        return [
            Station("cores", costs.core + overhead, cores),
            Station("disk", costs.bytes / limits.disk),
        ]
    return [
        Station("the flow's process", costs.flow / limits.batch, limits.flows),
        Station("Prefect's server", costs.server / limits.batch, limits.servers),
        Station("cores", costs.core, cores),
        Station("disk", costs.bytes / limits.disk),
    ]


def night(costs: Costs, limits: Limits, frames: int, cores: int) -> tuple[float, str, float]:
    """Seconds of a night of so many frames, what holds it up, and seconds of its longest SCAMP run."""
    rate, busy = mean_value_analysis(_stations(costs, limits, cores), min(frames, cores + 2 * limits.flows))
    a, power = costs.scamp
    scamp = a * (frames / _GROUPS_A_NIGHT / limits.season_groups) ** power
    frames_take = costs.fixed + frames / rate
    worst = max(busy, key=lambda name: busy[name])
    return frames_take + scamp, worst if frames_take > scamp else "SCAMP of one group", scamp


def _disk(folder: Path) -> float:
    """Bytes a second of files of 9.4 MB, each synchronised as a product is."""
    block = os.urandom(9_400_000)
    started, number = time.perf_counter(), 40
    for index in range(number):
        path = folder / f"disk-{index}"
        with path.open("wb") as stream:
            stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
    seconds = time.perf_counter() - started
    for index in range(number):
        (folder / f"disk-{index}").unlink()
    return number * len(block) / seconds


def _scamp(place: Place) -> tuple[tuple[float, float], str]:
    """Power law of SCAMP's seconds against the number of frames of one group; frames more than there are, twice."""
    recorded = recorded_commands(place)
    command = next(each for each in json.loads((recorded / "commands.json").read_text()) if each["tool"] == "scamp")
    source = recorded / command["folder"]
    names = (source / "frames.list").read_text(encoding="utf-8").split()
    sizes = [size for size in _CATALOGUES if size <= 4 * len(names)]
    seconds = []
    for size in sizes:
        folder = place.folder / f"scamp-{size}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder, symlinks=True)
        listed = []
        for index in range(size):
            original = names[index % len(names)].removesuffix(".cat")
            own = f"n{index:05d}"
            for suffix in (".cat", ".ahead"):
                shutil.copyfile(source / f"{original}{suffix}", folder / f"{own}{suffix}")
            listed.append(f"{own}.cat")
        (folder / "frames.list").write_text("\n".join(listed) + "\n", encoding="utf-8")
        own_command = [part.replace(str(source), str(folder)) for part in command["command"]]
        started = time.perf_counter()
        subprocess.run(  # nosec B603
            own_command, cwd=folder, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        seconds.append(time.perf_counter() - started)
        shutil.rmtree(folder)
    power, log_a = np.polyfit(np.log(sizes), np.log(seconds), 1)
    said = ", ".join(f"{size} frames {taken:.1f} s" for size, taken in zip(sizes, seconds, strict=True))
    return (math.exp(float(log_a)), float(power)), said


def _bytes(roots: Roots) -> float:
    """Read and written for one frame, by the sizes of its files: each is written once and read twice."""
    products = list(roots.data.glob(f"{YEAR}/T120/reduced/*/*.fits"))
    each = sum(path.stat().st_size for path in products) / max(1, len(products))
    raw = [path.stat().st_size for path in roots.raw.rglob("*.fits")]
    return 3 * each + sum(raw) / max(1, len(raw))


def _costs(place: Place) -> tuple[Costs, list[Figure], float]:
    """What a frame costs on this machine, and bytes a second of its disk."""
    roots = campaign(place, "scale")
    plain = contest(
        Place(place.folder, 1, place.frames, place.say), "scale year", "bench.where",
        {"folder": str(roots.data), "profiled": False}, ("year",),
    )["year"].said  # fmt: skip
    frames = len(plain["reduce_frame"]["wall"])
    a_frame = ("reduce_frame", "measure_frame", "solve_frame", "calibrate_frame", "model_psf", "publish_frame")
    core = sum(sum(plain[name]["wall"]) for name in a_frame) / frames
    number = min(place.frames, 300)
    release = place.release("scale-trivial", Plan(number, (YEAR,), min(8, number)))
    with server(release.data, place.folder / "logs" / "scale-server.log") as beside:
        few = place.release("scale-few", Plan(max(6, number // 10), (YEAR,), min(8, number)))
        short, _ = place.child(few, "scale-few", "--simulated", "--warm", "--reduce", str(YEAR), server=beside)
        said, _ = place.child(release, "scale-trivial", "--simulated", "--warm", "--reduce", str(YEAR), server=beside)
    more = number - max(6, number // 10)
    flow = (said["cpu_s"] - short["cpu_s"]) / more
    of_server = (said["server_cpu_s"] - short["server_cpu_s"]) / more
    fixed = max(0.0, short["wall_s"] - max(6, number // 10) * (said["wall_s"] - short["wall_s"]) / more)
    scamp, scamp_said = _scamp(place)
    disk = _disk(place.folder)
    costs = Costs(core=core, flow=flow, server=of_server, bytes=_bytes(roots), fixed=fixed, scamp=scamp)
    figures = [
        Figure(name="a frame's stages, one core", value=core, unit="s", detail=f"{frames} real frames"),
        Figure(name="a frame, the flow's process", value=1e3 * flow, unit="ms", detail=f"{number} trivial frames"),
        Figure(name="a frame, Prefect's server (SQLite)", value=1e3 * of_server, unit="ms"),
        Figure(name="a frame, bytes read and written", value=costs.bytes / 1e6, unit="MB"),
        Figure(name="disk, synchronised files", value=disk / 1e6, unit="MB/s"),
        Figure(name="SCAMP, power of the number of frames", value=scamp[1], detail=scamp_said),
    ]
    return costs, figures, disk


def _checked(costs: Costs, disk: float) -> list[Figure]:
    """Two workers against one on two cores: predicted and measured. One worker leaves the other core to the rest."""
    limits = Limits(disk=disk)
    alone = [
        Station("the flow's process and Prefect's server", costs.flow + costs.server),
        Station("worker", costs.core),
        Station("disk", costs.bytes / limits.disk),
    ]
    both = mean_value_analysis(_stations(costs, limits, _LAPTOP), 4)[0]
    predicted = both / mean_value_analysis(alone, 3)[0]
    measured = [
        figure.value
        for subject, each in read_results(RESULTS).subjects.items() if subject == "workers" for figure in each.figures
    ]  # fmt: skip
    said = f"measured by python -m bench workers: {measured[0]:.2f}" if measured else "bench workers: not measured yet"
    return [Figure(name="throughput of 2 workers against 1, predicted", value=predicted, detail=said)]


def _ways(disk: float) -> dict[str, Limits]:
    plain = Limits(disk=disk)
    return {
        "as it is": plain,
        "10 frames a task run": replace(plain, batch=10),
        "and 32 flow runs, 8 API processes on PostgreSQL": replace(plain, batch=10, flows=32, servers=8),
        "and a file system of 20 GB/s": replace(plain, batch=10, flows=32, servers=8, disk=20e9),
        "and groups cut by season into 100 SCAMP runs": replace(
            plain, batch=10, flows=32, servers=8, disk=20e9, season_groups=100
        ),
    }


def measure(place: Place) -> list[Figure]:
    """What a frame costs, the check, and hours of a night for every size and way."""
    costs, figures, disk = _costs(place)
    figures += _checked(costs, disk)
    for how, limits in _ways(disk).items():
        for cores in _CORES:
            for frames in _FRAMES:
                seconds, worst, scamp = night(costs, limits, frames, cores)
                figures.append(
                    Figure(
                        name=f"{frames:.0e} frames, {cores} cores, {how}", value=seconds / 3600, unit="h",
                        detail=f"held up by: {worst}; longest SCAMP run {scamp / 3600:.2g} h",
                    )
                )  # fmt: skip
    return figures
