"""Throughput of `reduce_year` with two workers against one, on real frames, beside a running server."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.campaign import YEAR, campaign
from bench.contest import ratio
from bench.figures import Figure
from bench.place import Place, reset
from bench.processes import server

__all__ = ["measure"]

_KEEP = ("raw", "catalogs", "astrometry_index", ".prefect")
_WORKERS = (1, 2)
_FRAMES = 8
"""Of each field and filter, 64 in all: masters, catalogues and what follows the frames count as in a small night."""


def measure(place: Place) -> list[Figure]:
    """One and two workers in turns, each time on a data root without products (the index files of the fields stay)."""
    roots = campaign(place, "workers", _FRAMES)
    taken: dict[int, list[dict[str, Any]]] = {number: [] for number in _WORKERS}
    place.child(roots, "workers-first", "--warm", "--reduce", str(YEAR), telescope="T120")
    for turn in range(place.repeats):
        for number in _WORKERS:
            reset(roots, _KEEP)
            with server(roots.data, place.folder / "logs" / f"workers-{number}-{turn}-server.log") as beside:
                said, _ = place.child(
                    roots, f"workers-{number}-{turn}", "--warm", "--workers", str(number), "--reduce", str(YEAR),
                    telescope="T120", server=beside,
                )  # fmt: skip
            taken[number].append(said)
    one, two = ([each["wall_s"] for each in taken[number]] for number in _WORKERS)
    frames = sum(1 for _ in roots.data.glob(f"{YEAR}/T120/reduced/*/*.fits"))
    cpu = {number: median(each["cpu_s"] + each["server_cpu_s"] for each in taken[number]) for number in _WORKERS}
    return [
        ratio(
            "reduce_year, throughput of 2 workers against 1", one, two, 1.8, better="above",
            detail=f"{frames} frames; medians {median(one):.1f} s and {median(two):.1f} s; processor time "
            f"{cpu[1]:.1f} s and {cpu[2]:.1f} s, of it the server's "
            f"{median(each['server_cpu_s'] for each in taken[1]):.1f} s and "
            f"{median(each['server_cpu_s'] for each in taken[2]):.1f} s",
        )
    ]  # fmt: skip
