"""A release with nothing to do: every year and group looked at again, and no pixel read.

The release is made by the real flows with trivial stages (`bench.stages`); what is timed is the plain command.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from statistics import median

from bench.figures import Figure
from bench.place import Place
from bench.processes import run, server
from bench.release import SIDE, TELESCOPE, Plan
from models.base import Roots
from tasks.core.ledger import size

__all__ = ["measure"]

_SAMPLE = 60
_RAW_BYTES, _REDUCED_BYTES = 2_102_400, 9_446_400
_YEARS, _GROUPS = (2018, 2019, 2020, 2021, 2023, 2025), 40


def _pixel_bytes(roots: Roots) -> int:
    """What the pixels of raw and reduced frames amount to."""
    raw = sum(1 for _ in roots.raw.rglob("*.fits")) * SIDE * SIDE * 2
    return raw + sum(1 for _ in roots.data.glob("*/*/reduced/*/*.fits")) * SIDE * SIDE * 4


def _sha256sum(folder: Path, frames: int) -> tuple[float, str]:
    """Seconds that `sha256sum` needs for the raw and reduced frames of a release of real size, from a sample of them.

    A raw frame of 1024 x 1024 pixels has 2.1 MB, a reduced one with mask and variance 9.4 MB.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sample = min(frames, _SAMPLE)
    names = []
    for number in range(sample):
        for kind, n_bytes in (("raw", _RAW_BYTES), ("reduced", _REDUCED_BYTES)):
            path = folder / f"{kind}-{number}.fits"
            path.write_bytes(os.urandom(n_bytes))
            names.append(str(path))
    started = time.perf_counter()
    subprocess.run(["sha256sum", *names], check=True, stdout=subprocess.DEVNULL)  # noqa: S607  # nosec B603 B607
    seconds = (time.perf_counter() - started) * frames / sample
    shutil.rmtree(folder)
    total = frames * (_RAW_BYTES + _REDUCED_BYTES)
    return seconds, f"{total / 1e9:.1f} GB, in memory already, from a sample of {sample} frames"


_LOOKED_AT, _UNTOUCHED, _EMBEDDED = "each frame looked at", "untouched", "untouched, embedded server"


def _forget(roots: Roots) -> None:
    """That the release was made whole: every frame is looked at again."""
    for path in (roots.data / ".cache" / "unchanged").glob("whole_*.json"):
        path.unlink()


def measure(place: Place) -> list[Figure]:
    """Make the release, then check it as often as asked, each way in turns."""
    roots = place.release("nothing", Plan(place.frames, _YEARS, min(_GROUPS, max(2, place.frames // 12))))
    logs = place.folder / "logs"
    command = ["-m", "flows.build_release", "--root", str(roots.data), "--telescope", TELESCOPE]
    taken: dict[str, list[float]] = {_LOOKED_AT: [], _UNTOUCHED: [], _EMBEDDED: []}
    with server(roots.data, logs / "nothing-server.log") as beside:
        place.child(roots, "nothing-first", "--simulated", "--release", server=beside)
        # The groups' pages now link to what the release's last step made after them.
        run(command, logs / "nothing-settled.log", place.environment(beside))
        before = size(roots)
        _forget(roots)
        said, _ = place.child(roots, "nothing-counted", "--release", server=beside)
        for turn in range(place.repeats):
            for number, where in enumerate(taken):
                if where == _LOOKED_AT:
                    _forget(roots)
                there = None if where == _EMBEDDED else beside
                done = run(command, logs / f"nothing-{number}-{turn}.log", place.environment(there))
                taken[where].append(done.seconds)
                place.say(f"  release with nothing to do, {where}: {done.seconds:.1f} s")
        ran = size(roots) - before
    pixels = _pixel_bytes(roots)
    figures = [
        Figure(
            name=f"release of {place.frames} frames with nothing to do, {where}", value=median(seconds), unit="s",
            goal=60.0 if where == _LOOKED_AT else None,
            detail=f"median of {len(seconds)}, {min(seconds):.1f} to {max(seconds):.1f}",
        )
        for where, seconds in taken.items()
    ]  # fmt: skip
    opened = said["opened"]
    sums, how = _sha256sum(place.folder / "sha256sum", place.frames)
    figures += [
        Figure(
            name=f"a rerun with nothing to do, {where}, against sha256sum of {place.frames} frames of real size",
            value=median(taken[where]) / sums, goal=0.2 if where == _UNTOUCHED else None,
            detail=f"sha256sum: {sums:.1f} s for {how}",
        )
        for where in (_LOOKED_AT, _UNTOUCHED)
    ]  # fmt: skip
    return [
        *figures,
        Figure(
            name="processor time with each frame looked at", value=said["cpu_s"], unit="s",
            detail=f"and {said['server_cpu_s']:.1f} s of the server",
        ),
        Figure(name="bytes of the ledger written (task bodies that ran)", value=ran, goal=0),
        Figure(name="products opened (FITS files, PSF models, solutions)", value=opened["products"], goal=0),
        Figure(
            name="raw frames opened, for their headers", value=opened["raw frames"],
            detail=f"{opened['records']} records and {opened['others under the data root']} other files opened",
        ),
        Figure(
            name="bytes read, against those of all pixels", value=said["bytes_read"] / pixels,
            detail=f"{said['bytes_read'] / 1e6:.0f} MB; pixels of {SIDE} x {SIDE} frames: {pixels / 1e6:.0f} MB",
        ),
    ]  # fmt: skip
