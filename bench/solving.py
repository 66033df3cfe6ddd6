"""A frame's plate solution, against `solve-field` on the image as the release called it, on the same index files."""

from __future__ import annotations

import subprocess
from pathlib import Path
from statistics import median

from bench.bare import Prepared
from bench.campaign import campaign, here
from bench.contest import Work, contest, ratio
from bench.figures import Figure
from bench.place import Place
from models.frame import ReducedFrame
from models.run import RunContext

__all__ = ["detecting", "measure", "ours", "theirs"]

_FRAMES = 8


def _some(folder: str) -> tuple[RunContext, Prepared, list[ReducedFrame]]:
    from tasks.calibration import reduce_frame

    run, ready = here(folder)
    science = ready.science[:: max(1, len(ready.science) // _FRAMES)][:_FRAMES]
    reduced = [
        reduce_frame(raw, *ready.masters(raw), run.roots, run.telescope, run.settings.reduction) for raw in science
    ]
    return run, ready, reduced


def detecting(folder: str) -> Work:
    """`measure_frame`: sources, seeing, sky, which other stages use, too."""
    from tasks.quality import measure_frame

    run, _, reduced = _some(folder)
    yield
    for each in reduced:
        measure_frame(each, run.roots, run.telescope, run.settings.quality)
    return {"solved": len(reduced)}


def ours(folder: str) -> Work:
    """`solve_frame`: solve-field on the list of sources, a cubic fit to Gaia at the frame's epoch, its verification."""
    from models.catalog import Cone
    from tasks.astrometry import solve_frame
    from tasks.core.errors import StageError
    from tasks.quality import measure_frame

    run, ready, reduced = _some(folder)
    measured = [measure_frame(each, run.roots, run.telescope, run.settings.quality) for each in reduced]
    yield
    solved = 0
    for each in measured:
        field = ready.at(each.raw, run)
        cone = field.gaia.cone
        hint = Cone(ra=cone.ra, dec=cone.dec, radius=run.settings.astrometry.search_radius_deg)
        try:
            solve_frame(each, hint, field.index, field.gaia, run.roots, run.telescope, run.settings.astrometry)
            solved += 1
        except StageError:
            continue
    return {"solved": solved}


def theirs(folder: str) -> Work:
    """The release's call (parameters.md): the image, downsampled by 2, 5 deg about the header's position, 120 s."""
    run, ready, reduced = _some(folder)
    out = Path(folder) / "solve-field"
    out.mkdir(exist_ok=True)
    calls = []
    for number, each in enumerate(reduced):
        field = ready.at(each.raw, run)
        config = out / f"{number}.cfg"
        files = "".join(f"index {run.roots.of(file)}\n" for file in field.index.files)
        config.write_text(f"cpulimit 120\ninparallel\n{files}", encoding="utf-8")
        scale = run.telescope.camera.scale_at(each.raw.binning)
        settings, cone = run.settings.astrometry, field.gaia.cone
        calls.append([
            "solve-field", str(run.roots.of(each.file)), "--overwrite", "--dir", str(out), "--out", f"{number}",
            "--config", str(config), "--downsample", "2", "--scale-units", "arcsecperpix",
            "--scale-low", f"{settings.scale_low * scale:.4f}", "--scale-high", f"{settings.scale_high * scale:.4f}",
            "--ra", f"{cone.ra:.5f}", "--dec", f"{cone.dec:.5f}", "--radius", "5", "--cpulimit", "120", "--no-plots",
        ])  # fmt: skip
    yield
    for call in calls:
        subprocess.run(call, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # nosec B603
    return {"solved": sum((out / f"{number}.solved").exists() for number in range(len(calls)))}


def measure(place: Place) -> list[Figure]:
    """All three on the same frames, in turns."""
    roots = campaign(place)
    names = ("detecting", "ours", "theirs")
    taken = contest(place, "plate solution", "bench.solving", {"folder": str(roots.data)}, names)
    detecting, ours, theirs = (taken[name] for name in names)
    number = detecting.said["solved"]
    said = f"medians of a frame {median(ours.seconds) / number:.3f} s and {median(theirs.seconds) / number:.3f} s"
    together = [a + b for a, b in zip(detecting.seconds, ours.seconds, strict=True)]
    return [
        ratio("plate solution from a frame's sources, against the release's solve-field", ours.seconds, theirs.seconds,
              0.25, detail=said),
        ratio("the same with finding and measuring the sources, which other stages use, too", together, theirs.seconds,
              None, detail=f"medians of a frame {median(together) / number:.3f} s"),
        Figure(
            name="frames solved by theirs and not by ours", goal=0,
            value=max(0, theirs.said["solved"] - ours.said["solved"]),
            detail=f"of {number}: ours {ours.said['solved']}, theirs {theirs.said['solved']}",
        ),
    ]  # fmt: skip
