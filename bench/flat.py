"""Cost grows as the work does: memory of the flow's process and time per frame, from 30 to 3000 frames of one year.

The flow, its Prefect task runs, records, ledger, pool and reports are the real ones; the stages are trivial ones that
write small products (`bench.stages.REPLACED` names them all).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.figures import Figure
from bench.place import Place
from bench.processes import memory_of, server
from bench.release import Plan
from models.base import Roots
from tasks.core.ledger import LEDGER

__all__ = ["BODIES_A_FRAME", "measure", "sampler", "slope"]

BODIES_A_FRAME = 7
"""Cached stages of a frame: reduce, measure, solve, calibrate twice (the year's colour terms), PSF, publish."""

_YEAR, _GROUPS = 2025, 8


def sampler(roots: Roots) -> Callable[[int], tuple[float, float]]:
    """What tells how many frames' worth of stages have ended, and the memory (MB) of the process then."""
    ledger = roots.logs / LEDGER
    done = [0, 0]

    def sample(pid: int) -> tuple[float, float]:
        if ledger.exists():
            with ledger.open("rb") as stream:
                stream.seek(done[0])
                new = stream.read()
            done[0] += len(new)
            done[1] += new.count(b"\n")
        return done[1] / BODIES_A_FRAME, memory_of(pid)

    return sample


def slope(samples: list[tuple[float, float]], frames: int) -> float:
    """MB per 1000 frames, fitted to the samples after a tenth of the frames: before, imports and buffers count."""
    late = np.array([sample for sample in samples if sample[0] >= frames / 10])
    return float(np.polyfit(late[:, 0], late[:, 1], 1)[0]) * 1000 if len(late) > 2 else float("nan")


def measure(place: Place) -> list[Figure]:
    """Runs of a hundredth, a tenth and all of the frames, beside a server."""
    sizes = [max(6, place.frames // 100), max(12, place.frames // 10), place.frames]
    per_frame, cpu, figures = {}, {}, []
    for size in sizes:
        roots = place.release(f"flat-{size}", Plan(size, (_YEAR,), min(_GROUPS, size)))
        with server(roots.data, place.folder / "logs" / f"flat-{size}-server.log") as beside:
            said, done = place.child(
                roots, f"flat-{size}", "--simulated", "--warm", "--reduce", str(_YEAR), server=beside,
                sample=sampler(roots),
            )  # fmt: skip
        per_frame[size] = said["wall_s"] / size
        cpu[size] = (said["cpu_s"] + said["server_cpu_s"]) / size
        if size == sizes[-1]:
            most = max(memory for _, memory in done.samples)
            figures += [
                Figure(name=f"memory of the flow's process, {size} frames, highest", value=most, unit="MB", goal=1024),
                Figure(
                    name="its growth after the first tenth",
                    value=slope(done.samples, size),
                    unit="MB per 1000 frames",
                    detail=f"fitted to {len(done.samples)} samples",
                ),
            ]
    for size in sizes:
        figures.append(
            Figure(
                name=f"time per frame, {size} frames", value=1e3 * per_frame[size], unit="ms",
                detail=f"processor time, with the server's: {1e3 * cpu[size]:.0f} ms",
            )
        )  # fmt: skip
    figures.append(
        Figure(
            name=f"time per frame, {sizes[-1]} against {sizes[-2]} frames",
            value=per_frame[sizes[-1]] / per_frame[sizes[-2]],
            goal=1.1,
            detail=f"processor time: {cpu[sizes[-1]] / cpu[sizes[-2]]:.2f}",
        )
    )
    return figures
