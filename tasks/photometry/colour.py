"""Colour terms of filters, from many frames and nights together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.frame import CalibratedFrame, ColourTerm

__all__ = ["gather_colour_terms"]

MIN_FRAMES = 3
_SAME_FIELD_DEG = 0.1
_CLIP_SIGMA = 3.0
_MIN_FREEDOM = 3
_MAD_TO_SIGMA = 1.4826
_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02)

FloatArray = npt.NDArray[np.float64]


class _Slope(NamedTuple):
    """Colour term of one frame: its value, its two errors, where the frame looks (deg), its night."""

    term: float
    photon: float
    star: float
    ra: float
    dec: float
    night: str


def gather_colour_terms(frames: Sequence[CalibratedFrame]) -> tuple[ColourTerm, ...]:
    """One colour term a filter: a fit to the stars of all frames, each frame with a zero point of its own.

    A filter's transmission does not change from one frame to the next; the term of a single frame is uncertain by
    some hundredths, and with it the zero point at colour zero. With a free zero point for every frame the joint
    least-squares slope is the mean of the frames' slopes, weighted with the information of each; so the slopes and
    their errors are all that is needed. Frames of one field show the same stars, whose catalogue errors are the same
    in all of them: that part of the error does not fall with their number, only with the number of fields. Frames
    (and fields) that differ by more than their errors allow raise the error accordingly, where there are four or more.

    The term is rounded to a step of about half its error, so that a changed frame rarely recalibrates all others;
    `ColourTerm.error` holds the rounding.

    Parameters
    ----------
    frames
        Frames of any filters; those without a slope of their own do not count.

    Returns
    -------
    tuple of ColourTerm
        By filter name; filters with fewer than 3 frames are not in it (their frames keep their own terms).
    """
    slopes: dict[str, list[_Slope]] = defaultdict(list)
    for frame in frames:
        own = frame.zero_point.own_colour
        if frame.zero_point.status != "OK" or own is None or frame.raw.filter is None:
            continue
        at = frame.solved.solution
        slopes[frame.raw.filter].append(
            _Slope(own.term, own.photon_error, own.star_error, at.ra, at.dec, frame.raw.night)
        )
    terms = (_joint(name, found) for name, found in sorted(slopes.items()))
    return tuple(term for term in terms if term is not None)


def _joint(name: str, slopes: Sequence[_Slope]) -> ColourTerm | None:
    values = np.array([slope.term for slope in slopes])
    errors = np.array([math.hypot(slope.photon, slope.star) for slope in slopes])
    middle = float(np.median(values))
    scatter = _MAD_TO_SIGMA * float(np.median(np.abs(values - middle)))
    kept = [
        slope
        for slope, error in zip(slopes, errors, strict=True)
        if abs(slope.term - middle) <= _CLIP_SIGMA * math.hypot(error, scatter)
    ]
    if len(kept) < MIN_FRAMES:
        return None
    fields = [_of_field(members) for members in _by_field(kept)]
    term, error = _weighted(np.array([each[0] for each in fields]), np.array([each[1] for each in fields]))
    step = max((step for step in _STEPS if step <= error / 2), default=_STEPS[0])
    known = math.hypot(error, step / math.sqrt(12.0))
    nights = sorted({slope.night for slope in kept})
    last = nights[-1]
    return ColourTerm(
        filter=name,
        term=round(round(term / step) * step, 4),
        error=round(math.ceil(known / (step / 2) - 1e-9) * step / 2, 4),
        n_frames=len(kept),
        n_nights=len(nights),
        date=f"{last[:4]}-{last[4:6]}-{last[6:]}",
    )


def _by_field(slopes: Sequence[_Slope]) -> list[list[_Slope]]:
    """Frames that look at one place, in order of appearance."""
    fields: list[list[_Slope]] = []
    for slope in slopes:
        for members in fields:
            first = members[0]
            east = (slope.ra - first.ra + 180.0) % 360.0 - 180.0
            if math.hypot(east * math.cos(math.radians(slope.dec)), slope.dec - first.dec) < _SAME_FIELD_DEG:
                members.append(slope)
                break
        else:
            fields.append([slope])
    return fields


def _of_field(slopes: Sequence[_Slope]) -> tuple[float, float]:
    """Slope of a field's frames and its error: noise averaged over the frames, the stars' own errors not."""
    term, error = _weighted(
        np.array([slope.term for slope in slopes]), np.array([max(slope.photon, 1e-5) for slope in slopes])
    )
    shared = float(np.mean([slope.star**2 for slope in slopes]))
    return term, math.sqrt(error**2 + shared)


def _weighted(values: FloatArray, errors: FloatArray) -> tuple[float, float]:
    """Weighted mean and its error, scaled up where four or more values scatter more than their errors say.

    The scatter of two or three says next to nothing about their errors.
    """
    weight = 1.0 / errors**2
    mean = float(np.average(values, weights=weight))
    freedom = len(values) - 1
    chi2 = float((weight * (values - mean) ** 2).sum() / freedom) if freedom >= _MIN_FREEDOM else 1.0
    return mean, float(math.sqrt(max(1.0, chi2) / weight.sum()))
