"""The page of a year: each night as it went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from models.base import Roots
from models.frame import FrameFailure
from models.page import PageFrame, Picture, YearCard
from models.telescope import Telescope
from tasks.pages.group import CARD
from tasks.pages.writing import Links, link, shortened, write_card, write_page

__all__ = ["write_year_page", "year_folder"]


def year_folder(year: int, telescope: Telescope, roots: Roots) -> Path:
    """Where a year's products lie."""
    return roots.data / str(year) / telescope.name


def _night(night: str, frames: Sequence[PageFrame], plot: Picture | None, why: str) -> dict[str, object]:
    became = Counter(frame.status for frame in frames)
    words = {"reduced": "solved", "used": "solved"}
    parts = [f"{count} {words.get(name, name)}" for name, count in sorted(became.items())]
    bands = Counter(frame.filter or "no filter" for frame in frames)
    seeing = sorted(frame.seeing_arcsec for frame in frames if frame.seeing_arcsec is not None)
    said = (
        f"{len(frames)} frames: {', '.join(parts)}. In {', '.join(f'{band} {n}' for band, n in sorted(bands.items()))}."
    )
    if seeing:
        said += f" Seeing {seeing[0]:.1f}″ to {seeing[-1]:.1f}″, median {seeing[len(seeing) // 2]:.1f}″."
    troubled = [frame for frame in frames if frame.status in ("failed", "pending") or frame.flags or frame.reason]
    loud = {frame.label for frame in troubled}
    return {
        "night": night,
        "name": f"{night[:4]}-{night[4:6]}-{night[6:]}",
        "said": said,
        "plot": plot,
        "no_plot": f"No timeline: {why or 'it was not drawn'}.",
        "troubled": troubled,
        "calm": [frame for frame in frames if frame.label not in loud],
    }


def write_year_page(
    year: int,
    frames: Sequence[PageFrame],
    plots: Mapping[str, Picture],
    failures: Sequence[FrameFailure],
    roots: Roots,
    telescope: Telescope,
    troubles: Sequence[FrameFailure] = (),
) -> Path:
    """Write ``{year}/{telescope}/index.html`` and, for the index, ``page.json`` beside it.

    Parameters
    ----------
    year
        Of the nights.
    frames
        Every science frame.
    plots
        Timelines by night.
    failures
        What is of no science frame: masters, calibration frames left out, files that cannot be used.
    roots, telescope
        Folders, profile.
    troubles
        Timelines that could not be drawn, by night.
    """
    folder = year_folder(year, telescope, roots)
    path = folder / "index.html"
    folder.mkdir(parents=True, exist_ok=True)
    why = {each.file: each.reason for each in troubles}
    ordered = sorted(frames, key=lambda frame: (frame.mjd, frame.label))
    nights = sorted({frame.night for frame in ordered})
    shown = Counter(frame.group for frame in ordered if frame.group)
    card = YearCard(
        year=year,
        telescope=telescope.name,
        n_nights=len(nights),
        n_frames=len(ordered),
        n_calibrated=sum(frame.status in ("reduced", "used") for frame in ordered),
        n_pending=sum(frame.status == "pending" for frame in ordered),
        n_failed=sum(frame.status == "failed" for frame in ordered),
    )
    reports = sorted([*folder.glob("*/*.json"), folder / "frames.json", folder / "masters.json"])
    write_page(
        path,
        "year.html",
        card=card,
        telescope=telescope,
        links=Links(path, roots),
        index=(roots.data / "stacks" / "index.html").is_file(),
        groups=[
            {
                "name": name,
                "count": count,
                "link": link(f"../../stacks/{name}/{telescope.name}/index.html")
                if (roots.data / "stacks" / name / telescope.name / "index.html").is_file()
                else "",
            }
            for name, count in sorted(shown.items())
        ],
        nights=[
            _night(night, [frame for frame in ordered if frame.night == night], plots.get(night), why.get(night, ""))
            for night in nights
        ],
        failures=failures,
        most=shortened(len(ordered)),
        files=[
            {"name": file.name, "link": link(file.relative_to(folder).as_posix())} for file in reports if file.is_file()
        ],
    )
    write_card(folder / CARD, card)
    return path
