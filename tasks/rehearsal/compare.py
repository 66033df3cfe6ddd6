"""What the pipeline made of the archive that was played, frame by frame against what was played."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from astropy.io import fits
from pydantic import Field

from models.base import Record, Roots
from models.frame import FrameRecord
from models.report import StackRow
from models.settings import SelectionSettings
from models.simulation import ArchiveFrame, ArchiveTruth
from models.telescope import Telescope
from tasks.core.errors import UserError
from tasks.report import read_report, read_years
from tasks.simulation import visible_stars

__all__ = ["Comparison", "GroupResult", "RejectedFrame", "compare"]

_SHIFTED_MAG = 0.25
"""A zero point that far from the median of its group and filter does stand out; such a frame is no good one."""
_SPARSE = 12
"""Stars with a signal to noise above ten: with fewer no plate solution can be asked for."""


class RejectedFrame(Record):
    """A frame that is in no stack."""

    path: str
    group: str
    filter: str
    damage: str | None
    reason: str
    right: bool = Field(description="the reason is what is really wrong with it")


class GroupResult(Record):
    """A group: what was there and what was found."""

    group: str
    filters_true: tuple[str, ...]
    filters_stacked: tuple[str, ...]
    filters_possible: tuple[str, ...] = Field(description="with enough good frames for a stack")
    frames: int
    good: int
    good_assigned: int = Field(description="good frames that the plate solution puts into the group")
    good_used: int
    damaged: int
    damaged_used: int
    strangers: tuple[str, ...] = Field(description="frames in the group or its stacks that show something else")

    @property
    def found(self) -> bool:
        """Whether every stack that its good frames allow is there under its name."""
        return set(self.filters_possible) <= set(self.filters_stacked)


class Comparison(Record):
    """A rehearsal's outcome."""

    groups: tuple[GroupResult, ...]
    rejected: tuple[RejectedFrame, ...]
    unexpected_groups: tuple[str, ...] = Field(description="groups with stacks that were never observed")
    not_science: tuple[str, ...] = Field(description="science frames that the inventory took for something else")
    false_science: tuple[str, ...] = Field(description="calibration frames that it took for science")
    wrong_filter: tuple[str, ...] = ()

    @property
    def good(self) -> int:
        """Frames with nothing wrong, copies counted once."""
        return sum(group.good for group in self.groups)

    @property
    def good_used(self) -> int:
        """And those of them that are in a stack."""
        return sum(group.good_used for group in self.groups)

    @property
    def problems(self) -> list[str]:
        """What falls short of the goals, a line each; empty: all reached."""
        lines = [
            f"{group.group}: no stack in {', '.join(sorted(set(group.filters_possible) - set(group.filters_stacked)))}"
            for group in self.groups if not group.found
        ]  # fmt: skip
        lines += [f"{group.group}: {path} is in the group and shows something else"
                  for group in self.groups for path in group.strangers]  # fmt: skip
        lines += [f"{name}: stacked, but never observed" for name in self.unexpected_groups]
        if self.good and self.good_used < 0.98 * self.good:
            lines.append(f"{self.good_used} of {self.good} good frames used, fewer than 98 %")
        lines += [f"{frame.path}: {frame.reason}: not what is wrong with it"
                  for frame in self.rejected if not frame.right]  # fmt: skip
        lines += [f"{path}: a science frame, taken for something else" for path in self.not_science]
        lines += [f"{path}: a calibration frame, taken for science" for path in self.false_science]
        lines += [f"{path}: filter misread" for path in self.wrong_filter]
        return lines


def _stacked(roots: Roots, telescope: Telescope) -> dict[tuple[str, str], list[str]]:
    """Labels of the frames in each published stack, from its header."""
    found = {}
    for path in sorted((roots.data / "stacks").glob(f"*/{telescope.name}/*.weight.fits")):
        image = path.with_name(path.name.replace(".weight.fits", ".fits"))
        header = fits.getheader(image)
        group, filter = image.stem.rsplit("_", 1)
        found[group, filter] = [str(header[f"INP{n:04d}"]) for n in range(1, int(header["NCOMBINE"]) + 1)]
    return found


def _assigned(roots: Roots, telescope: Telescope, records: Mapping[str, FrameRecord]) -> dict[str, str]:
    """The group of each frame (by raw path) as the years' astrometry reports say it."""
    of_file = {record.reduced.file.path: path for path, record in records.items() if record.reduced is not None}
    found = {}
    for report in sorted(roots.data.glob(f"[0-9]*/{telescope.name}/astrometry/astrom_report.json")):
        for row in read_report(report, "astrom_report").rows:
            if row.group is not None and row.file in of_file:
                found[of_file[row.file]] = row.group
    return found


def _reasons(rows: Sequence[StackRow]) -> dict[str, str]:
    return {rejected.file: rejected.reason for row in rows for rejected in row.rejected}


def _why(record: FrameRecord | None, said: Mapping[str, str]) -> str:
    if record is None:
        return "not among the science frames"
    if record.raw.label in said:
        return said[record.raw.label]
    if record.failures:
        return f"{record.failures[-1].stage}: {record.failures[-1].reason}"
    return "in no stack and in no list: no reason is given"


def _shows(frame: ArchiveFrame | None, group: str) -> bool:
    """Whether a frame shows a group; one of the wrong field shows the sky beside it."""
    return frame is not None and frame.group == group and frame.damage != "wrong field"


def _never_observed(used: Mapping[str, str], shown: Mapping[str, ArchiveFrame | None]) -> set[str]:
    """Groups with a stack of frames that show what they should: a place of their own is right for the others."""
    found = set()
    for path, group in used.items():
        frame = shown[path]
        if frame is None or frame.damage != "wrong field":
            found.add(group)
    return found


class _Judge:
    """Tells whether a reason is right, from the truth alone."""

    def __init__(self, truth: ArchiveTruth) -> None:
        self.truth = truth
        self.usual: dict[tuple[str | None, str | None], float] = {}
        several: dict[tuple[str | None, str | None], list[float]] = defaultdict(list)
        for frame in truth.frames:
            if frame.frame is not None and frame.frame.zero_point is not None and frame.damage is None:
                several[frame.group, frame.filter].append(frame.frame.zero_point)
        self.usual = {key: float(np.median(values)) for key, values in several.items()}
        self.enough = {key: len(values) for key, values in several.items()}

    def right(self, frame: ArchiveFrame, reason: str, settings: SelectionSettings) -> bool:
        """Whether what is said about a frame is what is wrong with it."""
        if re.search(r"not stacked: |usable of", reason):
            return self.enough.get((frame.group, frame.filter), 0) < settings.min_frames
        if re.search(r"the field is at|arcmin from", reason):
            return frame.damage == "wrong field"
        if "zero point" in reason:
            return self._shifted(frame)
        if re.search(r"plate solution|catalogue|source|star|sky", reason):
            return frame.damage in ("dome closed", "wrong field") or self._sparse(frame)
        return False

    def wrong_with(self, frame: ArchiveFrame) -> str | None:
        """What is wrong with a frame; None: it is good."""
        if frame.damage is None and self._shifted(frame):
            return f"more than {_SHIFTED_MAG} mag off its group's zero point"
        return frame.damage

    def _shifted(self, frame: ArchiveFrame) -> bool:
        zero_point = frame.frame.zero_point if frame.frame else None
        usual = self.usual.get((frame.group, frame.filter))
        return zero_point is not None and usual is not None and abs(zero_point - usual) > _SHIFTED_MAG

    def _sparse(self, frame: ArchiveFrame) -> bool:
        return frame.frame is not None and visible_stars(frame.frame, self.truth.options) < _SPARSE


def compare(
    truth: ArchiveTruth,
    rows: Sequence[StackRow],
    roots: Roots,
    telescope: Telescope,
    settings: SelectionSettings,
) -> Comparison:
    """Set the products against what was played.

    Parameters
    ----------
    truth
        What was played.
    rows
        Of ``stack_all_report.json``.
    roots, telescope
        Of the products.
    settings
        How many frames a stack needs.

    Raises
    ------
    UserError
        If nothing was reduced.
    """
    records = {record.raw.path: record for year in read_years(roots, telescope).values() for record in year}
    if not records:
        raise UserError(f"no reduced frames under {roots.data}")
    originals = {frame.path: frame for frame in truth.frames if frame.copy_of is None}
    twin = {frame.path: originals[frame.copy_of] for frame in truth.frames if frame.copy_of is not None}
    shown = {path: originals.get(path) or twin.get(path) for path in records}
    of_label = {record.raw.label: path for path, record in records.items()}
    stacks = _stacked(roots, telescope)
    used = {of_label[label]: group for (group, _), labels in stacks.items() for label in labels}
    assigned = _assigned(roots, telescope, records)
    record_of = {frame.path: records[path] for path, frame in shown.items() if frame is not None}
    said, judge = _reasons(rows), _Judge(truth)
    science = [frame for frame in originals.values() if frame.kind == "science"]
    groups = sorted({frame.group for frame in science if frame.group})
    rejected, results = [], []
    for group in groups:
        mine = [frame for frame in science if frame.group == group]
        used_here = {frame.path for frame in mine
                     if frame.path in record_of and used.get(record_of[frame.path].raw.path) == group}  # fmt: skip
        claimed = [path for path in records if group in (used.get(path), assigned.get(path))]
        strangers = [path for path in claimed if not _shows(shown[path], group)]
        good = [frame for frame in mine if judge.wrong_with(frame) is None]
        counts = {filter: sum(frame.filter == filter for frame in good) for filter in {frame.filter for frame in mine}}
        results.append(
            GroupResult(
                group=group,
                filters_true=tuple(sorted(str(filter) for filter in counts)),
                filters_stacked=tuple(sorted(filter for name, filter in stacks if name == group)),
                filters_possible=tuple(sorted(str(f) for f, n in counts.items() if n >= settings.min_frames)),
                frames=len(mine), good=len(good), good_assigned=sum(
     frame.path in record_of and assigned.get(record_of[frame.path].raw.path) == group
     for frame in good
 ),
 good_used=sum(frame.path in used_here for frame in good),
                damaged=len(mine) - len(good),
                damaged_used=sum(frame.path in used_here for frame in mine if frame not in good),
                strangers=tuple(strangers),
            )
        )  # fmt: skip
        for frame in mine:
            if frame.path in used_here:
                continue
            reason = _why(record_of.get(frame.path), said)
            rejected.append(
                RejectedFrame(
                    path=frame.path, group=group, filter=str(frame.filter), damage=judge.wrong_with(frame),
                    reason=reason, right=judge.right(frame, reason, settings),
                )
            )  # fmt: skip
    return Comparison(
        groups=tuple(results), rejected=tuple(rejected),
        unexpected_groups=tuple(sorted(_never_observed(used, shown) - set(groups))),
        not_science=tuple(frame.path for frame in science if frame.path not in record_of),
        false_science=tuple(
            path for path, frame in shown.items() if frame is not None and frame.kind != "science"
        ),
        wrong_filter=tuple(
            frame.path for frame in science
            if frame.path in record_of and record_of[frame.path].raw.filter != frame.filter
        ),
    )  # fmt: skip
