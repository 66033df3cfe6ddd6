"""Which group a frame belongs to: footprints that overlap, named by the place and not by the word in the header."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from models.frame import FrameRecord
from models.settings import AstrometrySettings, SelectionSettings
from models.target import NamedPlace, SkyGroup, Target, target_by_object
from tasks.catalogs import separation
from tasks.fields.footprints import Footprint, footprint_of, overlap_clusters, unit
from tasks.fields.moving import moving_fields
from tasks.fields.names import coordinate_name

__all__ = ["SkyMap", "group_frames", "in_plain_words"]


@dataclass(frozen=True)
class SkyMap:
    """Groups of solved frames.

    Attributes
    ----------
    groups
        By name.
    group_of
        Name of a frame's group, by ``raw.label``; a frame without a plate solution is in none.
    moving
        Why a frame is taken for one of a moving target, by ``raw.label``.
    notes
        Where word or header and the sky disagree, in plain words, by ``raw.label``.
    """

    groups: dict[str, SkyGroup] = field(default_factory=dict)
    group_of: dict[str, str] = field(default_factory=dict)
    moving: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def in_plain_words(ra: float, dec: float) -> str:
    """A position as people say it, ``11h41m +05°52′``."""
    hours, minutes = divmod(round(ra * 4) % 1440, 60)
    degrees, arcmin = divmod(round(abs(dec) * 60), 60)
    return f"{hours:02d}h{minutes:02d}m {'-' if dec < 0 else '+'}{degrees:02d}°{arcmin:02d}′"


def _called(name: str) -> str:
    """A group's name as people write it: ``Abell 2744``."""
    head = name.rstrip("0123456789")
    return f"{head} {name[len(head) :]}" if head in ("Abell", "NGC", "IC") and head != name else name.replace("_", " ")


def group_frames(
    records: Sequence[FrameRecord],
    targets: Mapping[str, Target],
    astrometry: AstrometrySettings,
    selection: SelectionSettings,
    names: Mapping[str, NamedPlace] | None = None,
) -> SkyMap:
    """Gather solved frames into groups.

    Footprints that overlap by ``selection.min_overlap`` of a frame are one heap, and so is what overlaps these in
    turn. A heap takes the name of the place that it shows: of the table's group whose centre lies in a footprint (of
    a group of several fields: that a frame's centre comes as near as ``merged_radius_deg``), else of an object that
    OBJECT names and that the resolver puts there, else of its position. A heap that shows several places of the
    table is divided among them: each frame goes to the nearest. Fields of a moving target form heaps of their own.

    Parameters
    ----------
    records
        Frames of all years at hand, of one telescope.
    targets
        The table of places.
    names
        What is known of other words, by OBJECT as it stands in the headers.
    """
    names = names or {}
    table = dict(targets)
    solved = [record for record in records if record.solved is not None]
    solved.sort(key=lambda record: (record.raw.date_obs, record.raw.path))
    prints = {record.raw.label: footprint_of(record.solved) for record in solved if record.solved is not None}
    meant = {word: _place_of(word, table, names) for word in {record.raw.object for record in solved}}

    def names_a_place(word: str, season: Sequence[FrameRecord]) -> bool:
        place = next((meant[record.raw.object] for record in season if meant[record.raw.object] is not None), None)
        if place is None:
            return False
        return any(
            float(separation(place.ra, place.dec, each.ra, each.dec)) < place.reach + each.diagonal / 2
            for each in (prints[record.raw.label] for record in season)
        )

    moving = moving_fields(solved, names_a_place, selection.moving_arcmin / 60)
    heaps: list[tuple[list[FrameRecord], bool]] = []
    for drifts in (False, True):
        some = [record for record in solved if (record.raw.label in moving) is drifts]
        numbers = overlap_clusters([prints[record.raw.label] for record in some], selection.min_overlap)
        by_number: dict[int, list[FrameRecord]] = defaultdict(list)
        for number, record in zip(numbers, some, strict=True):
            by_number[int(number)].append(record)
        heaps += [(members, drifts) for members in by_number.values()]
    return _Naming(table, meant, prints, selection, moving).gathered(heaps, records, astrometry)


@dataclass(frozen=True)
class _Place:
    """What a word means: a place of the table, or of the resolver."""

    name: str
    ra: float
    dec: float
    reach: float = 0.0
    tabled: bool = True


def _place_of(word: str, table: dict[str, Target], names: Mapping[str, NamedPlace]) -> _Place | None:
    target = target_by_object(word, table)
    if target is not None:
        return _Place(target.name, target.ra, target.dec, 0.5 if target.merged else 0.0)
    known = names.get(word)
    if known is None or known.ra is None or known.dec is None:
        return None
    return _Place(known.name or known.word, known.ra, known.dec, tabled=False)


class _Naming:
    """Names for heaps, and what there is to say about each frame."""

    def __init__(
        self,
        table: dict[str, Target],
        meant: dict[str, _Place | None],
        prints: dict[str, Footprint],
        selection: SelectionSettings,
        moving: dict[str, str],
    ) -> None:
        self._table, self._meant, self._prints = table, meant, prints
        self._selection, self._moving = selection, moving
        self._members: dict[str, list[FrameRecord]] = defaultdict(list)
        self._patches: Counter[str] = Counter()
        self._named_by: dict[str, Literal["table", "resolver", "position"]] = {}
        self._targets: dict[str, Target] = {}
        self._notes: dict[str, list[str]] = defaultdict(list)

    def gathered(
        self, heaps: Iterable[tuple[list[FrameRecord], bool]], records: Sequence[FrameRecord],
        astrometry: AstrometrySettings,
    ) -> SkyMap:  # fmt: skip
        """All groups."""
        for members, drifts in heaps:
            places = [] if drifts else self._tabled(members)
            if places:
                self._share(members, places)
            else:
                self._new(members, drifts)
        group_of = {record.raw.label: name for name, members in self._members.items() for record in members}
        notes = {}
        for record in records:
            if said := self._disagreement(record, group_of.get(record.raw.label), astrometry):
                notes[record.raw.label] = said
        groups = {name: self._group(name) for name in sorted(self._members)}
        return SkyMap(groups=groups, group_of=group_of, moving=dict(self._moving), notes=notes)

    def _tabled(self, members: Sequence[FrameRecord]) -> list[Target]:
        """Places of the table that a heap shows."""
        prints = [self._prints[record.raw.label] for record in members]
        found = []
        for target in self._table.values():
            apart = separation(
                np.array([each.ra for each in prints]), np.array([each.dec for each in prints]), target.ra, target.dec
            )
            if target.merged:
                shown = bool((apart <= self._selection.merged_radius_deg).any())
            else:
                shown = any(prints[i].holds(target.ra, target.dec) for i in np.flatnonzero(apart < prints[0].diagonal))
            if shown:
                found.append(target)
        return found

    def _share(self, members: Sequence[FrameRecord], places: Sequence[Target]) -> None:
        prints = [self._prints[record.raw.label] for record in members]
        apart = separation(
            np.array([[each.ra] for each in prints]), np.array([[each.dec] for each in prints]),
            np.array([place.ra for place in places]), np.array([place.dec for place in places]),
        )  # fmt: skip
        nearest = apart.argmin(axis=1)
        mine = [place for k, place in enumerate(places) if (nearest == k).any()]
        for k, place in enumerate(places):
            some = [record for record, near in zip(members, nearest, strict=True) if near == k]
            if not some:
                continue
            self._add(place, "table", some)
            others = [_called(other.name) for other in mine if other.name != place.name]
            if others:
                self._notes[place.name].append(
                    f"its fields hang together with those of {', '.join(others)}, which the table keeps apart: each "
                    "frame goes to the nearest"
                )

    def _new(self, members: Sequence[FrameRecord], drifts: bool) -> None:
        first = [record for record in members if record.raw.night == members[0].raw.night]
        # A place that is named once stays where it is when later nights are added.
        centre = unit(*np.array([(self._prints[r.raw.label].ra, self._prints[r.raw.label].dec) for r in first]).T)
        x, y, z = np.median(centre, axis=0)
        ra, dec = float(np.degrees(np.arctan2(y, x)) % 360), float(np.degrees(np.arctan2(z, np.hypot(x, y))))
        resolved = None if drifts else self._resolved(members)
        named_by: Literal["resolver", "position"]
        if resolved is not None:
            name, named_by = safe_group_name(resolved.name), "resolver"
            ra, dec = resolved.ra, resolved.dec
        else:
            name, named_by = coordinate_name(ra, dec), "position"
            taken = self._targets.get(name)
            if taken is not None:
                name = coordinate_name(ra, dec, seconds=True)
        target = Target(name=name, ra=round(ra, 4) % 360, dec=round(dec, 4))
        self._add(target, named_by, members)

    def _resolved(self, members: Sequence[FrameRecord]) -> _Place | None:
        """The object that most of the frames name, where the resolver puts it into one of their footprints."""
        words = Counter(record.raw.object for record in members)
        for word, _ in sorted(words.items(), key=lambda item: (-item[1], item[0])):
            place = self._meant[word]
            if place is None or place.tabled or not safe_group_name(place.name):
                continue
            if any(self._prints[record.raw.label].holds(place.ra, place.dec) for record in members):
                return place
        return None

    def _add(
        self, target: Target, named_by: Literal["table", "resolver", "position"], members: Sequence[FrameRecord]
    ) -> None:
        self._members[target.name] += members
        self._patches[target.name] += 1
        self._targets.setdefault(target.name, target)
        self._named_by.setdefault(target.name, named_by)

    def _group(self, name: str) -> SkyGroup:
        members, target = self._members[name], self._targets[name]
        words = Counter(record.raw.object.strip() for record in members if record.raw.object.strip())
        notes = list(dict.fromkeys(self._notes[name]))
        patches = self._patches[name]
        if patches > 1:
            said = "which the table of targets makes one group" if target.merged else "all of which show the place"
            notes.append(f"{patches} heaps of frames that do not overlap each other, {said}")
        elif target.merged:
            notes.append(f"{len(target.members)} fields of the table hang together by themselves")
        why = {self._moving[record.raw.label] for record in members if record.raw.label in self._moving}
        return SkyGroup(
            target=target,
            named_by=self._named_by[name],
            n_frames=len(members),
            nights=tuple(sorted({record.raw.night for record in members})),
            filters=tuple(sorted({record.raw.filter for record in members if record.raw.filter})),
            words=tuple(word for word, _ in sorted(words.items(), key=lambda item: (-item[1], item[0]))),
            patches=patches,
            moving="; ".join(sorted(why)),
            notes=tuple(notes),
        )

    def _disagreement(self, record: FrameRecord, group: str | None, astrometry: AstrometrySettings) -> str:
        """Where OBJECT or the mount and the sky differ, in plain words; empty where they do not."""
        if record.solved is None or group is None:
            return ""
        raw, centre = record.raw, record.solved.solution
        place = self._meant[raw.object]
        said = []
        if place is not None and place.name != group:
            apart = float(separation(centre.ra, centre.dec, place.ra, place.dec))
            elsewhere = place.tabled or apart > self._prints[raw.label].diagonal / 2 + astrometry.cone_margin_deg
            if elsewhere:
                shows = f", it shows {_called(group)}" if group in self._table else ""
                said.append(
                    f"OBJECT says {raw.object.strip()}, the field is at {in_plain_words(centre.ra, centre.dec)}; "
                    f"not {_called(place.name)}{shows}"
                )
        if raw.ra is not None and raw.dec is not None:
            off = float(separation(raw.ra, raw.dec, centre.ra, centre.dec))
            if off > astrometry.cone_margin_deg + self._prints[raw.label].diagonal / 2:
                said.append(f"the header's position {in_plain_words(raw.ra, raw.dec)} is {off:.1f}° off")
        return "; ".join(said)


def safe_group_name(name: str) -> str:
    """A resolver's name (``NGC   628``, ``* alf Lyr``) as a group's and a folder's."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "+-") else "_" if c == " " else "" for c in name.strip())
    kept = "_".join(part for part in kept.split("_") if part).lstrip("+-_")
    head, _, tail = kept.partition("_")
    return head + tail if head in ("M", "NGC", "IC") and tail.isdigit() else kept
