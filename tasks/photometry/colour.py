"""Colour terms of filters, gathered from many frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from models.frame import CalibratedFrame, ColourTerm

__all__ = ["gather_colour_terms"]

MIN_FRAMES = 3
_STEP = 0.005
_CLIP_SIGMA = 3.0
_MAD_TO_SIGMA = 1.4826


def gather_colour_terms(frames: Sequence[CalibratedFrame]) -> tuple[ColourTerm, ...]:
    """One colour term a filter from the terms that its frames were fitted with.

    A filter's transmission does not change from one frame to the next, but the term fitted on a single frame
    is uncertain by some hundredths, and with it the zero point at colour zero. The mean over frames, weighted
    with stars / rms² and clipped at 3 robust sigma about the median, takes that scatter away. It is rounded to
    0.005, which is below what the zero points can tell (2 mmag at a typical colour), so that one more frame rarely
    recalibrates all others.

    Parameters
    ----------
    frames
        Frames of any filters; those without a fitted term do not count.

    Returns
    -------
    tuple of ColourTerm
        By filter name; filters with fewer than 3 frames are not in it (their frames keep their own terms).
    """
    terms: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for frame in frames:
        point = frame.zero_point
        fitted = point.status == "OK" and point.colour_term not in (None, 0.0)
        if fitted and frame.raw.filter is not None and point.colour_term is not None:
            weight = point.n_stars / max(point.zp_rms or 0.0, 0.005) ** 2
            terms[frame.raw.filter].append((point.colour_term, weight))
    gathered = []
    for name, values in sorted(terms.items()):
        if len(values) < MIN_FRAMES:
            continue
        term, weight = np.array(values).T
        scatter = _MAD_TO_SIGMA * float(np.median(np.abs(term - np.median(term))))
        keep = np.abs(term - np.median(term)) <= max(_CLIP_SIGMA * scatter, 1e-3)
        mean = float(np.average(term[keep], weights=weight[keep]))
        spread = float(np.sqrt(np.average((term[keep] - mean) ** 2, weights=weight[keep])))
        effective = float(weight[keep].sum() ** 2 / (weight[keep] ** 2).sum())
        gathered.append(
            ColourTerm(
                filter=name,
                term=round(round(mean / _STEP) * _STEP, 3),
                error=round(spread / max(1.0, effective - 1.0) ** 0.5, 5),
                n_frames=int(keep.sum()),
            )
        )
    return tuple(gathered)
