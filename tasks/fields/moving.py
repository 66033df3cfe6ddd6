"""Fields that follow something that moves: one OBJECT, another place each night, on a line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from models.frame import FrameRecord
from tasks.fields.footprints import tangent, unit

__all__ = ["moving_fields"]

_SEASON_DAYS = 30.0
"""A word that is used again after a longer gap means something new."""
_FASTEST_DEG_PER_DAY = 5.0
"""Faster than this only bodies within a few lunar distances go; a word on two places further apart is a used word."""
_CURVE = 0.25
"""Largest scatter about the straight motion, of the way it went: a path bends little in some nights."""


def moving_fields(
    records: Sequence[FrameRecord], names_a_place: Callable[[str, Sequence[FrameRecord]], bool], least_deg: float
) -> dict[str, str]:
    """Frames whose OBJECT drifts between nights, and why it is taken for a moving target.

    All solved frames that say the same (whatever its case and separators) in a season are looked at together. It
    moves if the nights' fields lie further apart than ``least_deg`` and along a straight line at a steady pace that
    a body of the Solar System may have, further than they scatter within a night. A word that names a place in
    these fields, such as a catalogue number, does not move: then somebody pointed beside it.

    Parameters
    ----------
    records
        Frames with plate solutions.
    names_a_place
        Whether a word is the name of a fixed place that lies in the fields of its frames.
    least_deg
        What pointing may be off by, deg.

    Returns
    -------
    Reason by ``raw.label`` of each frame of a moving target.
    """
    by_word: dict[str, list[FrameRecord]] = defaultdict(list)
    for record in records:
        if word := "".join(c for c in record.raw.object.casefold() if c.isalnum()):
            by_word[word].append(record)
    moving: dict[str, str] = {}
    for word in sorted(by_word):
        for season in _seasons(by_word[word]):
            spelled = season[0].raw.object.strip()
            why = _motion(season, least_deg)
            if why and not names_a_place(spelled, season):
                moving |= {record.raw.label: f"OBJECT {spelled} {why}: a moving target" for record in season}
    return moving


def _seasons(records: Sequence[FrameRecord]) -> list[list[FrameRecord]]:
    ordered = sorted(records, key=lambda record: (record.raw.date_obs, record.raw.path))
    seasons = [ordered[:1]]
    for before, record in pairwise(ordered):
        if record.raw.mid_exposure_mjd - before.raw.mid_exposure_mjd > _SEASON_DAYS:
            seasons.append([])
        seasons[-1].append(record)
    return seasons


def _motion(records: Sequence[FrameRecord], least_deg: float) -> str:
    """How the fields of some nights move, in words; empty if they do not."""
    nights: dict[str, list[int]] = defaultdict(list)
    for i, record in enumerate(records):
        nights[record.raw.night].append(i)
    if len(nights) < 2:
        return ""
    centres = [record.solved.solution for record in records if record.solved is not None]
    ra, dec = np.array([each.ra for each in centres]), np.array([each.dec for each in centres])
    time = np.array([record.raw.mid_exposure_mjd for record in records])
    middle = unit(ra, dec).sum(axis=0)
    ra0, dec0 = np.degrees(np.arctan2(middle[1], middle[0])), np.degrees(np.arcsin(middle[2] / np.linalg.norm(middle)))
    if float((unit(ra, dec) @ middle / np.linalg.norm(middle)).min()) < 0.5:
        return ""  # places a quarter of the sky apart
    place = np.stack(tangent(ra, dec, float(ra0), float(dec0)), axis=-1)
    when = np.array([np.median(time[members]) for members in nights.values()])
    where = np.array([np.median(place[members], axis=0) for members in nights.values()])
    scatter = max(float(np.median(np.hypot(*(place[members] - np.median(place[members], axis=0)).T)))
                  for members in nights.values())  # fmt: skip
    way = float(np.hypot(*(where[-1] - where[0])))
    if way <= max(least_deg, 2 * scatter):
        return ""
    since = when - when.mean()
    pace = since @ (where - where.mean(axis=0)) / (since @ since)
    off = where - where.mean(axis=0) - np.outer(since, pace)
    speed = float(np.hypot(*pace))
    if speed > _FASTEST_DEG_PER_DAY or float(np.sqrt((off**2).sum(axis=1).mean())) > _CURVE * way:
        return ""
    return f"moves {speed:.2g}° a day over {len(nights)} nights ({records[0].raw.night}-{records[-1].raw.night})"
