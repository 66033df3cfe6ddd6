"""What the solved frames of all years show: the groups on the sky, and the group that a name means."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from models.frame import FrameRecord, RawFrame
from models.report import GroupRow
from models.run import RunContext
from models.target import NamedPlace, Target, TargetError, find_target, target_by_object
from tasks.catalogs import known_names, resolve_names
from tasks.core.errors import UserError
from tasks.fields import SkyMap, group_frames
from tasks.inventory import says_a_name
from tasks.report import read_years

__all__ = ["Sky", "group_rows", "names_of", "sky_of", "sky_of_run", "target_named"]

Years = Mapping[int, Sequence[FrameRecord]]


class Sky:
    """Frames of all years and their groups."""

    def __init__(self, years: Years, found: SkyMap, names: Mapping[str, NamedPlace]) -> None:
        self.years, self.map, self.names = years, found, names
        self.records = [record for year in years.values() for record in year]


_last: tuple[list[Sequence[FrameRecord]], RunContext, Sky] | None = None
_lock = threading.Lock()


def names_of(frames: Sequence[RawFrame], run: RunContext) -> dict[str, NamedPlace]:
    """Places that OBJECT names and the table of targets does not, as far as a resolver knows them."""
    words = {frame.object for frame in frames if frame.object and says_a_name(frame.object)}
    unknown = [word for word in words if target_by_object(word, run.targets) is None]
    return resolve_names(unknown, run.roots, run.settings)


def sky_of(years: Years, run: RunContext) -> Sky:
    """Groups of these frames; forty groups of a release look at the same ones."""
    global _last
    with _lock:
        now = list(years.values())
        if _last is not None:
            before, context, sky = _last
            names = known_names(run.roots)
            same = (
                names == sky.names and len(before) == len(now) and all(a is b for a, b in zip(before, now, strict=True))
            )
            if same and (context.targets, context.settings) == (run.targets, run.settings):
                return sky
        records, names = [record for year in now for record in year], known_names(run.roots)
        found = group_frames(records, run.targets, run.settings.astrometry, run.settings.selection, names)
        sky = Sky(years, found, names)
        _last = now, run, sky
        return sky


def sky_of_run(run: RunContext) -> Sky:
    """Groups of all that was reduced.

    Raises
    ------
    UserError
        If no year was reduced.
    """
    years = read_years(run.roots, run.telescope)
    if not years:
        raise UserError(
            f"no reduced frames of {run.telescope.name} under {run.roots.data}; first: python -m flows.reduce_year YEAR"
        )
    return sky_of(years, run)


def target_named(name: str, run: RunContext) -> Target:
    """The group that a name means: one of the table, or one that the frames show (``J1141+0552``).

    Raises
    ------
    TargetError
        If it is neither.
    """
    try:
        return find_target(name, run.targets)
    except TargetError:
        years = read_years(run.roots, run.telescope)
        for group in sky_of(years, run).map.groups.values() if years else ():
            if group.target.name.casefold() == name.strip().casefold():
                return group.target
        raise


def group_rows(sky: SkyMap, run: RunContext) -> list[GroupRow]:
    """The groups as rows of a report."""
    return [
        GroupRow(
            telescope=run.telescope.name,
            group=name,
            ra=group.target.ra,
            dec=group.target.dec,
            named_by=group.named_by,
            type=group.target.type,
            words=group.words,
            nights=group.nights,
            filters=group.filters,
            n_frames=group.n_frames,
            n_disagree=sum(1 for label, place in sky.group_of.items() if place == name and label in sky.notes),
            patches=group.patches,
            moving=group.moving,
            notes=group.notes,
        )
        for name, group in sky.groups.items()
    ]
