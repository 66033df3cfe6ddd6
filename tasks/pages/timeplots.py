"""Frames against time: of a group over all its nights, of one night as a timeline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from models.base import Roots
from models.page import PageFrame, Picture
from tasks.pages.drawing import GREY, INK, LEGEND, ORANGE, band_style, drawing, faint_grid, save_svg

__all__ = ["group_timeline", "night_timeline"]

_MOST_LABELS = 24
_ROOM = 0.12
"""Above and below the marks, as a share of what they span: no mark is cut."""

_USED = ("used", "reduced")


def _strips(frames: Sequence[PageFrame]) -> tuple[dict[str, float], list[tuple[float, float, str]]]:
    """Place of each frame on an axis on which nights stand side by side, and each night's strip.

    Inside of its strip a frame stands at its time; a strip is as wide as its night has frames, so that years without
    any take no room.
    """
    nights = sorted({frame.night for frame in frames})
    places: dict[str, float] = {}
    strips, left = [], 0.0
    for night in nights:
        mine = [frame for frame in frames if frame.night == night]
        width = max(math.sqrt(len(mine)) * 2.0, 2.0)
        first, last = min(frame.mjd for frame in mine), max(frame.mjd for frame in mine)
        for frame in mine:
            share = (frame.mjd - first) / (last - first) if last > first else 0.5
            places[frame.label] = left + width * (0.08 + 0.84 * share)
        strips.append((left, left + width, f"{night[:4]}-{night[4:6]}-{night[6:]}"))
        left += width
    return places, strips


def _points(axes: Axes, frames: Sequence[PageFrame], places: dict[str, float], what: str, label: bool) -> int:
    """Frames of each filter; one that is in no stack is hollow. Returns how many have the value."""
    count = 0
    for band in sorted({frame.filter for frame in frames}, key=str.casefold):
        colour, marker = band_style(band)
        for used in (True, False):
            mine = [
                (places[frame.label], getattr(frame, what))
                for frame in frames
                if frame.filter == band and (frame.status in _USED) == used and getattr(frame, what) is not None
            ]
            count += len(mine)
            if not mine and not (used and label):
                continue
            x, y = np.array(mine).T if mine else (np.array([]), np.array([]))
            axes.plot(
                x, y, ls="none", marker=marker, ms=4.5, color=colour, mfc=colour if used else "none",
                label=band if used and label else None,
            )  # fmt: skip
    return count


def _span(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}, median {float(np.median(values)):.1f}" if values else "none known"


def group_timeline(group: str, frames: Sequence[PageFrame], path: Path, roots: Roots) -> Picture | None:
    """Seeing and zero point of each frame of a group against time; None without frames."""
    if not frames:
        return None
    places, strips = _strips(frames)
    with drawing(7.6, 4.4, above=LEGEND) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        _points(upper, frames, places, "seeing_arcsec", label=True)
        _points(lower, frames, places, "zp", label=False)
        for axes, label in ((upper, "seeing (″)"), (lower, "zero point (mag)")):
            axes.set_ylabel(label)
            axes.margins(y=_ROOM)
            axes.grid(axis="y", color=INK, alpha=0.13, linewidth=0.6)
            for number, (left, right, _) in enumerate(strips):
                if number % 2:
                    axes.axvspan(left, right, color=INK, alpha=0.05, lw=0)
        step = math.ceil(len(strips) / _MOST_LABELS)
        shown = strips[::step]
        lower.set_xticks([(left + right) / 2 for left, right, _ in shown], [name for *_, name in shown])
        steep = len(shown) > 5
        lower.tick_params(axis="x", rotation=90 if steep else 0, length=0)
        lower.set_xlim(0.0, strips[-1][1])
        figure.legend(loc="upper center", ncols=9, handletextpad=0.1, columnspacing=1.2)
        seeing = [frame.seeing_arcsec for frame in frames if frame.seeing_arcsec is not None]
        points = [frame.zp for frame in frames if frame.zp is not None]
        alt = (
            f"Seeing and zero point of the {len(frames)} frames of {group} over {len(strips)} nights, "
            f"{strips[0][2]} to {strips[-1][2]}; seeing {_span(seeing)} arcseconds, zero points {_span(points)} "
            "magnitudes; hollow marks are frames in no stack"
        )
        return save_svg(figure, path, alt, roots)


_LANES = {"used": 0, "reduced": 0, "left out": 1, "pending": 2, "failed": 3}


def night_timeline(night: str, frames: Sequence[PageFrame], path: Path, roots: Roots) -> Picture:
    """A night as it went: each frame as a bar of its exposure, what became of it, its zero point and its seeing."""
    start = math.floor(min(frame.mjd for frame in frames) * 24.0) / 24.0
    hours = {frame.label: (frame.mjd - start) * 24.0 for frame in frames}
    words = {"reduced": "solved"}
    counts = {words.get(name, name): sum(frame.status == name for frame in frames) for name in _LANES}
    with drawing(7.6, 4.6, above=LEGEND) as figure:
        bars, points, seeing = figure.subplots(3, 1, sharex=True, height_ratios=(1.3, 1.0, 1.0))
        for band in sorted({frame.filter for frame in frames}, key=str.casefold):
            colour, marker = band_style(band)
            mine = [frame for frame in frames if frame.filter == band]
            for lane in sorted({_LANES[frame.status] for frame in mine}):
                bars.broken_barh(
                    [
                        (hours[frame.label] - frame.exptime_s / 7200.0, max(frame.exptime_s / 3600.0, 0.008))
                        for frame in mine
                        if _LANES[frame.status] == lane
                    ],
                    (lane - 0.36, 0.72), facecolors=colour, linewidth=0,
                )  # fmt: skip
            bars.plot([], [], ls="none", marker=marker, color=colour, label=band or "no filter")
        flagged = [frame for frame in frames if frame.flags]
        if flagged:
            bars.plot(
                [hours[frame.label] for frame in flagged], [_LANES[frame.status] - 0.5 for frame in flagged],
                ls="none", marker="v", ms=5, color=ORANGE, mec=INK, mew=0.4, label="quality flag",
            )  # fmt: skip
        bars.set_yticks(range(4), ["solved", "left out", "pending", "failed"])
        bars.set_ylim(3.6, -0.75)
        _points(points, frames, hours, "zp", label=False)
        _points(seeing, frames, hours, "seeing_arcsec", label=False)
        points.set_ylabel("zero point (mag)")
        seeing.set_ylabel("seeing (″)")
        points.margins(y=_ROOM)
        seeing.margins(y=_ROOM)
        for axes in (bars, points, seeing):
            faint_grid(axes)
        if not any(frame.zp is not None for frame in frames):
            points.text(0.5, 0.5, "no zero point", color=GREY, ha="center", va="center", transform=points.transAxes)
        if not any(frame.seeing_arcsec is not None for frame in frames):
            seeing.text(0.5, 0.5, "no seeing", color=GREY, ha="center", va="center", transform=seeing.transAxes)
        first = round(start * 24.0) % 24
        seeing.xaxis.set_major_formatter(
            lambda hour, _: f"{int(first + hour) % 24:02d}:{round(hour % 1 * 60) % 60:02d}"
        )
        seeing.set_xlabel("UTC")
        figure.legend(loc="upper center", ncols=9, handletextpad=0.2, columnspacing=1.2)
        became = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        alt = f"Timeline of the night {night}: {len(frames)} frames ({became}), {len(flagged)} with quality flags"
        return save_svg(figure, path, alt, roots)
