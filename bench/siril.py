"""Calibrate, align and stack one filter of 20 frames, against Siril's script for the same (Debian's `siril`)."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from statistics import median

from bench.contest import ratio
from bench.figures import Figure, machine
from bench.place import Place, reset
from bench.processes import server
from models.base import Roots
from models.simulation import SimulationOptions
from models.telescope import load_telescope
from tasks.inventory import take_inventory
from tasks.simulation import simulate_campaign

__all__ = ["measure"]

_YEAR, _GROUP, _FILTER, _FRAMES = 2025, "M67", "r", 20
_KEEP = ("raw", "catalogs", "astrometry_index", ".prefect")

_SCRIPT = """\
requires 1.0.0
setcpu {cores}
setext fits
set16bits
cd bias
convert bias -out=../process
cd ../process
stack bias rej 3 3 -nonorm -out=master_bias
cd ../flat
convert flat -out=../process
cd ../process
preprocess flat -bias=master_bias
stack pp_flat rej 3 3 -norm=mul -out=master_flat
cd ../science
convert light -out=../process
cd ../process
set32bits
preprocess light -bias=master_bias -flat=master_flat -cc=dark
register pp_light
stack r_pp_light rej 3 3 -norm=addscale -output_norm -out=../result
close
"""


def _folders(roots: Roots, work: Path) -> None:
    """Links to the raw frames as Siril wants them: a folder a kind."""
    shutil.rmtree(work, ignore_errors=True)
    for frame in take_inventory(roots, load_telescope("T120", roots.data)).frames:
        if frame.kind in ("bias", "flat", "science"):
            folder = work / frame.kind
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{frame.name}.fits").symlink_to(roots.raw / frame.path)
    (work / "process").mkdir()
    (work / "all.ssf").write_text(_SCRIPT.format(cores=machine()["cores"]), encoding="ascii")


def _siril(work: Path, log: Path) -> float:
    for made in (*(work / "process").iterdir(), *work.glob("result*")):
        made.unlink()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        started = time.perf_counter()
        subprocess.run(  # nosec B603 B607
            ["siril-cli", "-d", str(work), "-s", str(work / "all.ssf")],  # noqa: S607
            check=True, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
        )  # fmt: skip
        seconds = time.perf_counter() - started
    if not list(work.glob("result*")):
        raise RuntimeError(f"siril made no stack:\n{log.read_text(errors='replace')[-2000:]}")
    return seconds


def _products(root: Path) -> int:
    """Files that a person or a program asks for: no logs, records, schemas or intermediate files."""
    return sum(
        1
        for path in root.rglob("*")
        if path.is_file()
        and not {"raw", "catalogs", "astrometry_index", ".prefect", ".cache", "logs", "schemas"}
        & set(path.relative_to(root).parts)
    )


def measure(place: Place) -> list[Figure]:
    """Both in turns; the pipeline on an empty data root beside a running server, its two commands as flows."""
    if shutil.which("siril-cli") is None:
        place.say("  siril is not installed (apt-get install siril): not measured")
        return []
    root = place.folder / "siril"
    if root.exists():
        shutil.rmtree(root)
    roots = Roots(data=root, raw=root / "raw")
    frames = 4 if place.frames < 100 else _FRAMES
    options = SimulationOptions(seed=3, years=(_YEAR,), fields=(_GROUP,), filters=(_FILTER,), frames=frames)
    simulate_campaign(roots, options, workers=machine()["cores"])
    work = place.folder / "siril-work"
    _folders(roots, work)
    place.child(roots, "siril-index", "--reduce", str(_YEAR), telescope="T120")
    ours: list[float] = []
    theirs: list[float] = []
    for turn in range(place.repeats):
        reset(roots, _KEEP)
        logs = place.folder / "logs"
        with server(roots.data, logs / f"siril-{turn}-server.log") as beside:
            said, _ = place.child(
                roots, f"siril-ours-{turn}", "--warm", "--reduce", str(_YEAR), "--stack", _GROUP, telescope="T120",
                server=beside,
            )  # fmt: skip
        ours.append(said["wall_s"])
        theirs.append(_siril(work, logs / f"siril-theirs-{turn}.log"))
        place.say(f"  siril: {theirs[-1]:.1f} s")
    made = _products(root)
    of_siril = sum(1 for _ in (work / "process").glob("pp_light*.fits")) + len(list(work.glob("result*"))) + 2
    each = [seconds / made for seconds in ours], [seconds / of_siril for seconds in theirs]
    return [
        ratio(
            f"calibrate, align and stack {frames} frames of one filter, a product's time against siril's", *each, 1.0,
            detail=f"{made} and {of_siril} products",
        ),
        ratio(
            "the same as a whole", ours, theirs, None,
            detail=f"medians {median(ours):.1f} s and {median(theirs):.1f} s; siril makes no masks, variances, plate "
            "solutions, zero points, PSFs, weights, validation or reports",
        ),
    ]  # fmt: skip
