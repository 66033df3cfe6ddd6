"""One field a target group or pointing, so that a catalogue is asked once a field and not once a frame."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from models.catalog import Cone
from models.field import Field
from models.frame import RawFrame
from models.settings import AstrometrySettings, SelectionSettings
from models.target import NamedPlace, Target, target_by_object
from models.telescope import Telescope
from tasks.catalogs import separation
from tasks.fields.names import coordinate_name

__all__ = ["field_at", "field_of_target", "hinted_fields", "plan_fields"]


def _half_diagonal_deg(telescope: Telescope) -> float:
    return float(np.hypot(*telescope.camera.shape) / 2 * telescope.camera.pixel_scale / 3600)


def _rounded_up(radius: float) -> float:
    return math.ceil(radius * 1000) / 1000


def _extent_deg(target: Target, selection: SelectionSettings) -> float:
    """How far from the group's centre the centres of its frames may lie."""
    return selection.merged_radius_deg if target.merged else selection.radius_arcmin / 60


def field_of_target(
    target: Target, telescope: Telescope, astrometry: AstrometrySettings, selection: SelectionSettings
) -> Field:
    """The field of a target group: wide enough for every frame of it, and for headers that are off."""
    radius = _half_diagonal_deg(telescope) + astrometry.cone_margin_deg + _extent_deg(target, selection)
    return Field(name=target.name, cone=Cone(ra=target.ra, dec=target.dec, radius=_rounded_up(radius)))


def _target_near(
    frame: RawFrame, targets: Mapping[str, Target], astrometry: AstrometrySettings, selection: SelectionSettings
) -> Target | None:
    if frame.ra is None or frame.dec is None:
        return None
    near = [
        (float(separation(frame.ra, frame.dec, target.ra, target.dec)), target.name)
        for target in targets.values()
        if abs(target.dec - frame.dec) < 2
    ]
    within = [
        (apart, name)
        for apart, name in near
        if apart <= astrometry.cone_margin_deg + _extent_deg(targets[name], selection)
    ]
    return targets[min(within)[1]] if within else None


def _known_near(ra: float, dec: float, known: Sequence[Cone], radius: float, margin: float) -> tuple[float, float]:
    """Centre of the known cone nearest to a position, if it is within the margin and wide enough; else the position."""
    near = [
        (apart, cone.ra, cone.dec)
        for cone in known
        if cone.radius >= radius and (apart := float(separation(ra, dec, cone.ra, cone.dec))) < margin
    ]
    return min(near)[1:] if near else (round(ra, 4) % 360.0, round(dec, 4))


def field_at(
    ra: float, dec: float, telescope: Telescope, astrometry: AstrometrySettings, known: Sequence[Cone] = ()
) -> Field:
    """A field of its own for a place where no target is; on a known cone that would do as well, if there is one."""
    radius = _rounded_up(_half_diagonal_deg(telescope) + 2 * astrometry.cone_margin_deg)
    ra, dec = _known_near(ra, dec, known, radius, astrometry.cone_margin_deg)
    return Field(name=coordinate_name(ra, dec), cone=Cone(ra=ra, dec=dec, radius=radius))


def plan_fields(
    frames: Sequence[RawFrame],
    targets: Mapping[str, Target],
    telescope: Telescope,
    astrometry: AstrometrySettings,
    selection: SelectionSettings,
    known: Sequence[Cone] = (),
    names: Mapping[str, NamedPlace] | None = None,
) -> tuple[Field, ...]:
    """Fields that cover what the headers' positions and objects of science frames say.

    A header position near a target group, or an OBJECT that names one, gives the group's field; other
    positions are gathered into fields of their own (greedily, the first of a heap is its centre). Frames
    that say nothing give no field: they are searched in all of them.

    Parameters
    ----------
    names
        What a resolver knows of other words: they say where to look for frames whose header does not.
    known
        Cones whose catalogues are at hand. A field of positions is laid on one of them where it would do as well:
        what was asked for one year's pointings serves the next year's, a little beside them.

    Returns
    -------
    tuple of Field
        Most frames first.
    """
    table = dict(targets)
    count: Counter[str] = Counter()
    fields: dict[str, Field] = {}
    loose: list[tuple[float, float]] = []
    for frame in frames:
        found = {
            target.name: target
            for target in (
                _target_near(frame, targets, astrometry, selection),
                target_by_object(frame.object, table) or target_by_object(frame.name, table),
            )
            if target is not None
        }
        for name, target in found.items():
            fields.setdefault(name, field_of_target(target, telescope, astrometry, selection))
            count[name] += 1
        place = (names or {}).get(frame.object)
        if found:
            continue
        if frame.ra is not None and frame.dec is not None:
            loose.append((frame.ra, frame.dec))
        elif place is not None and place.ra is not None and place.dec is not None:
            loose.append((place.ra, place.dec))
    for ra, dec in loose:
        for field in fields.values():
            if separation(ra, dec, field.cone.ra, field.cone.dec) < astrometry.cone_margin_deg:
                count[field.name] += 1
                break
        else:
            field = field_at(ra, dec, telescope, astrometry, known)
            fields[field.name] = field
            count[field.name] += 1
    return tuple(fields[name] for name, _ in sorted(count.items(), key=lambda item: (-item[1], item[0])))


def hinted_fields(
    frame: RawFrame,
    fields: Sequence[Field],
    targets: Mapping[str, Target],
    names: Mapping[str, NamedPlace] | None = None,
) -> list[tuple[Literal["header", "name"], Field]]:
    """The fields that a frame speaks of: those its header's position lies in, the nearest first, then its OBJECT's.

    A file name stands in for an OBJECT that names no target.
    """
    table = targets if isinstance(targets, dict) else dict(targets)
    hinted: list[tuple[Literal["header", "name"], Field]] = []
    if frame.ra is not None and frame.dec is not None:
        apart = [(float(separation(frame.ra, frame.dec, field.cone.ra, field.cone.dec)), field) for field in fields]
        within = [each for each in apart if each[0] <= each[1].cone.radius]
        hinted += [("header", field) for _, field in sorted(within, key=lambda each: (each[0], each[1].name))]
    named = target_by_object(frame.object, table) or target_by_object(frame.name, table)
    hinted += [("name", field) for field in fields if named is not None and field.name == named.name]
    place = (names or {}).get(frame.object) if named is None else None
    if place is not None and place.ra is not None and place.dec is not None:
        hinted += [
            ("name", field)
            for field in fields
            if separation(place.ra, place.dec, field.cone.ra, field.cone.dec) < field.cone.radius
        ]
    first: dict[str, tuple[Literal["header", "name"], Field]] = {}
    for hint, field in hinted:
        first.setdefault(field.name, (hint, field))
    return list(first.values())
