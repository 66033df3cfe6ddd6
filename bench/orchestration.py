"""What orchestration costs: `flows.reduce_year` against the bare functions on the same frames, same pool, same order.

Twice: on real frames (the demo's campaign, or a raw tree that is given), which is the truth but as noisy as the
machine; and with trivial stages, where hardly anything but the orchestration is left and its cost per frame is exact.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.campaign import YEAR, campaign
from bench.figures import Figure, machine
from bench.place import Place, reset
from bench.processes import Server, server
from bench.release import Plan
from models.base import Roots
from tasks.inventory import take_inventory

__all__ = ["measure"]

_GOAL = 0.10
_WAYS = ("bare", "embedded", "beside a server")


def _frames(roots: Roots, telescope: str) -> int:
    from models.telescope import load_telescope

    inventory = take_inventory(roots, load_telescope(telescope, roots.data), [YEAR])
    return sum(1 for frame in inventory.frames if frame.kind == "science" and frame.filter is not None)


class _Taken:
    """Wall and processor time of each way, run by run."""

    def __init__(self, frames: int, cores: int) -> None:
        self.frames, self.cores = frames, cores
        self.wall: dict[str, list[float]] = {way: [] for way in _WAYS}
        self.cpu: dict[str, list[float]] = {way: [] for way in _WAYS}
        self.server_cpu: list[float] = []

    def add(self, way: str, said: dict[str, Any]) -> None:
        self.wall[way].append(said["wall_s"])
        self.cpu[way].append(said["cpu_s"] + said["server_cpu_s"])
        if way == _WAYS[2]:
            self.server_cpu.append(said["server_cpu_s"])

    def per_frame(self, way: str, of: dict[str, list[float]]) -> float:
        """Extra s of a frame against the bare functions, median over the turns."""
        return median(own - bare for own, bare in zip(of[way], of["bare"], strict=True)) / self.frames


def _take(
    place: Place, roots: Roots, label: str, telescope: str, frames: int, keep: tuple[str, ...], options: tuple[str, ...]
) -> _Taken:
    """Each way in turns, every time on a data root without products."""
    taken = _Taken(frames, machine()["cores"])
    for turn in range(place.repeats):
        for way in _WAYS:
            reset(roots, keep)
            more = [*options, "--reduce", str(YEAR)]
            name = f"{label}-{way.split()[0]}-{turn}"
            if way == "bare":
                taken.add(way, place.child(roots, name, "--bare", *more, telescope=telescope)[0])
            elif way == "embedded":
                taken.add(way, place.child(roots, name, "--warm", *more, telescope=telescope)[0])
            else:
                with server(roots.data, place.folder / "logs" / f"{name}-server.log") as beside:
                    taken.add(way, _beside(place, roots, name, telescope, beside, more))
    return taken


def _beside(place: Place, roots: Roots, name: str, telescope: str, beside: Server, more: list[str]) -> dict[str, Any]:
    return place.child(roots, name, "--warm", *more, telescope=telescope, server=beside)[0]


def _figures(real: _Taken, trivial: _Taken) -> list[Figure]:
    own_wall = median(real.wall["bare"]) * real.cores / real.frames
    own_cpu = median(real.cpu["bare"]) / real.frames
    figures = [
        Figure(
            name="a frame's own cost, bare functions", value=own_wall, unit="s x core",
            detail=f"{real.frames} real frames, {own_cpu:.2f} s of processor time each",
        )
    ]  # fmt: skip
    for way in _WAYS[1:]:
        of_server = 1e3 * median(trivial.server_cpu) / trivial.frames
        served = f", of it the server's {of_server:.0f}" if way == _WAYS[2] else ", with the server's"
        exact, noisy = trivial.per_frame(way, trivial.wall), real.per_frame(way, real.wall)
        cpu = trivial.per_frame(way, trivial.cpu)
        figures += [
            Figure(
                name=f"orchestration per frame and core, {way}", value=1e3 * exact * trivial.cores, unit="ms",
                detail=f"{trivial.frames} frames with trivial stages; processor time {1e3 * cpu:.0f} ms{served}",
            ),
            Figure(
                name=f"of a frame's own cost, {way}", value=exact * trivial.cores / own_wall, goal=_GOAL,
                detail=f"by processor time {cpu / own_cpu:.3f}",
            ),
            Figure(
                name=f"the same on the real frames, {way}", value=noisy * real.cores / own_wall,
                detail=f"medians: {median(real.wall[way]):.1f} s, bare {median(real.wall['bare']):.1f} s; "
                f"processor time {median(real.cpu[way]):.1f} and {median(real.cpu['bare']):.1f} s",
            ),
        ]  # fmt: skip
    return figures


def measure(place: Place) -> list[Figure]:
    """Both comparisons, each way in turns."""
    real = campaign(place, "real")
    n_real = _frames(real, "T120")
    of_real = _take(place, real, "real", "T120", n_real, ("raw", "catalogs", ".prefect"), ())
    n = max(12, place.frames // 10)
    trivial = place.release("trivial", Plan(n, (YEAR,), min(8, n)))
    of_trivial = _take(
        place, trivial, "trivial", "BENCH", n, ("raw", "catalogs", "telescopes", ".prefect"), ("--simulated",)
    )
    return _figures(of_real, of_trivial)
