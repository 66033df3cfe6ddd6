"""One field a target group or pointing, so that a catalogue is asked once a field and not once a frame."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from models.catalog import Cone
from models.field import Field
from models.frame import RawFrame
from models.settings import AstrometrySettings, SelectionSettings
from models.target import Target, target_by_object
from models.telescope import Telescope
from tasks.catalogs import separation
from tasks.fields.names import coordinate_name

__all__ = ["field_of_target", "order_fields", "plan_fields"]


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


def plan_fields(
    frames: Sequence[RawFrame],
    targets: Mapping[str, Target],
    telescope: Telescope,
    astrometry: AstrometrySettings,
    selection: SelectionSettings,
    known: Sequence[Cone] = (),
) -> tuple[Field, ...]:
    """Fields that cover what the headers' positions and objects of science frames say.

    A header position near a target group, or an OBJECT that names one, gives the group's field; other
    positions are gathered into fields of their own (greedily, the first of a heap is its centre). Frames
    that say nothing give no field: they are searched in all of them.

    Parameters
    ----------
    known
        Cones whose catalogues are at hand. A field of positions is laid on one of them where it would do as well:
        what was asked for one year's pointings serves the next year's, a little beside them.

    Returns
    -------
    tuple of Field
        Most frames first.
    """
    count: Counter[str] = Counter()
    fields: dict[str, Field] = {}
    loose: list[RawFrame] = []
    for frame in frames:
        found = {
            target.name: target
            for target in (
                _target_near(frame, targets, astrometry, selection),
                target_by_object(frame.object, dict(targets)),
            )
            if target is not None
        }
        for name, target in found.items():
            fields.setdefault(name, field_of_target(target, telescope, astrometry, selection))
            count[name] += 1
        if not found and frame.ra is not None and frame.dec is not None:
            loose.append(frame)
    for frame in loose:
        assert frame.ra is not None
        assert frame.dec is not None
        for field in fields.values():
            if separation(frame.ra, frame.dec, field.cone.ra, field.cone.dec) < astrometry.cone_margin_deg:
                count[field.name] += 1
                break
        else:
            radius = _rounded_up(_half_diagonal_deg(telescope) + 2 * astrometry.cone_margin_deg)
            ra, dec = _known_near(frame.ra, frame.dec, known, radius, astrometry.cone_margin_deg)
            name = coordinate_name(ra, dec)
            fields[name] = Field(name=name, cone=Cone(ra=ra, dec=dec, radius=radius))
            count[name] += 1
    return tuple(fields[name] for name, _ in sorted(count.items(), key=lambda item: (-item[1], item[0])))


def order_fields(frame: RawFrame, fields: Sequence[Field], targets: Mapping[str, Target], most: int = 5) -> list[Field]:
    """The fields in which to look for a frame: the header's, then the name's, then the busiest of the rest."""
    named = target_by_object(frame.object, targets if isinstance(targets, dict) else dict(targets))
    place = {field.name: float(number) for number, field in enumerate(fields)}

    def rank(field: Field) -> tuple[int, float]:
        if frame.ra is not None and frame.dec is not None and abs(frame.dec - field.cone.dec) <= field.cone.radius:
            apart = float(separation(frame.ra, frame.dec, field.cone.ra, field.cone.dec))
            if apart <= field.cone.radius:
                return 0, apart
        return (1, 0.0) if named is not None and named.name == field.name else (2, place[field.name])

    return sorted(fields, key=rank)[:most]
