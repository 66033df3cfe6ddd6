"""How much a task run should hold: a stage, a frame's pass, a whole frame, a batch of frames."""

from __future__ import annotations

import json
import shutil
from statistics import median

from bench.figures import Figure
from bench.layouts import LAYOUTS, STAGES
from bench.place import Place
from bench.processes import run, server

__all__ = ["measure"]


def measure(place: Place) -> list[Figure]:
    """Processor time per frame of each layout, flow and server together, interleaved."""
    root, logs, frames = place.folder / "holding", place.folder / "logs", max(10, min(100, place.frames // 10))
    taken: dict[str, list[tuple[float, float, float]]] = {layout: [] for layout in LAYOUTS}
    root.mkdir(parents=True, exist_ok=True)
    with server(root, logs / "holding-server.log") as beside:
        for turn in range(min(3, place.repeats)):
            for number, layout in enumerate(LAYOUTS):
                for folder in ("layout", "warm", ".cache"):
                    shutil.rmtree(root / folder, ignore_errors=True)
                out = logs / f"holding-{number}-{turn}.json"
                arguments = ["-m", "bench.layouts", "--root", str(root), "--layout", layout, "--frames", str(frames)]
                arguments += ["--server-pid", str(beside.pid), "--out", str(out)]
                done = run(arguments, out.with_suffix(".log"), place.environment(beside))
                said = json.loads(out.read_text(encoding="utf-8"))
                place.say(f"  {layout}: {done.seconds:.1f} s")
                taken[layout].append((said["cpu_s"], said["server_cpu_s"], said["wall_s"]))
    figures = []
    for layout, runs in taken.items():
        nested, passes, batch = LAYOUTS[layout]
        own, servers, wall = (1e3 * median(values) / frames for values in zip(*runs, strict=True))
        a_frame = len(passes) / batch + (STAGES if nested else 0)
        figures.append(
            Figure(
                name=f"{layout}: {a_frame:g} task runs a frame", value=own + servers, unit="ms",
                detail=f"processor time a frame: flow and pool {own:.0f}, server {servers:.0f}; wall {wall:.0f} ms",
            )
        )  # fmt: skip
    return figures
