"""Circles on the sky: what covers what, and few circles for many pointings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from models.catalog import Cone
from tasks.core.errors import StageError

__all__ = ["COVER_TOLERANCE_DEG", "bounding_cone", "contains", "covers", "plan_cones", "rounded", "separation"]

COVER_TOLERANCE_DEG = 1e-6
"""How far (3.6 mas) a stored cone may fall short of the asked one: rounding, not sky."""


def unit_vectors(ra: ArrayLike, dec: ArrayLike) -> NDArray[np.float64]:
    """Unit vectors, shape (..., 3), of positions in degrees."""
    a, d = np.radians(np.asarray(ra, np.float64)), np.radians(np.asarray(dec, np.float64))
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def to_degrees(vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right ascension in [0, 360) and declination (deg) of vectors of any length, shape (..., 3)."""
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    ra = np.degrees(np.arctan2(y, x)) % 360.0
    # A tiny negative angle plus 360 rounds to 360 itself.
    return np.where(ra >= 360.0, 0.0, ra), np.degrees(np.arctan2(z, np.hypot(x, y)))


def separation(ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike) -> NDArray[np.float64]:
    """Angular distance in degrees, good at all distances (Vincenty's form), of positions in degrees."""
    d1, d2 = np.radians(np.asarray(dec1, np.float64)), np.radians(np.asarray(dec2, np.float64))
    da = np.radians(np.asarray(ra2, np.float64) - np.asarray(ra1, np.float64))
    along = np.cos(d1) * np.sin(d2) - np.sin(d1) * np.cos(d2) * np.cos(da)
    across = np.cos(d2) * np.sin(da)
    ahead = np.sin(d1) * np.sin(d2) + np.cos(d1) * np.cos(d2) * np.cos(da)
    apart: NDArray[np.float64] = np.degrees(np.arctan2(np.hypot(across, along), ahead))
    return apart


def contains(cone: Cone, ra: ArrayLike, dec: ArrayLike) -> NDArray[np.bool_]:
    """Which positions (deg) lie in a cone."""
    inside: NDArray[np.bool_] = separation(cone.ra, cone.dec, ra, dec) <= cone.radius + COVER_TOLERANCE_DEG
    return inside


def covers(outer: Cone, inner: Cone) -> bool:
    """Whether all of `inner` lies in `outer`."""
    if outer.radius >= 180.0:
        return True
    apart = float(separation(outer.ra, outer.dec, inner.ra, inner.dec))
    return apart + inner.radius <= outer.radius + COVER_TOLERANCE_DEG


def rounded(ra: float, dec: float, radius: float) -> Cone:
    """The cone with its centre rounded to 4 and its radius up to 3 decimals, grown so that it covers the given one.

    So the name of its file in the store says exactly what is in it.
    """
    ra_round, dec_round = round(ra % 360.0, 4) % 360.0, round(dec, 4)
    moved = float(separation(ra, dec, ra_round, dec_round))
    grown = math.ceil(round((radius + moved) * 1000.0, 6)) / 1000.0
    return Cone(ra=ra_round, dec=dec_round, radius=min(grown, 180.0))


def bounding_cone(pointings: NDArray[np.float64], radius: float) -> Cone:
    """A small cone that covers circles of `radius` (deg) about all `pointings`, shape (N, 2), deg.

    The centre is found by Bădoiu and Clarkson's walk towards the farthest point (2003, "Smaller core-sets
    for balls"), within a per cent of the smallest circle.
    """
    vectors = unit_vectors(pointings[:, 0], pointings[:, 1])
    centre = vectors.mean(axis=0)
    if not np.linalg.norm(centre) > 1e-9:  # spread over the whole sky: no mean direction
        centre = vectors[0]
    centre = centre / np.linalg.norm(centre)
    for step in range(1, 101):
        farthest = vectors[np.argmin(vectors @ centre)]
        centre = centre + (farthest - centre) / (step + 1)
        centre = centre / np.linalg.norm(centre)
    ra, dec = (float(value) for value in to_degrees(centre))
    reach = float(np.max(separation(ra, dec, pointings[:, 0], pointings[:, 1])))
    return rounded(ra, dec, reach + radius)


def plan_cones(
    pointings: Sequence[tuple[float, float]], radius_deg: float, margin: float, max_spread_deg: float | None = None
) -> list[Cone]:
    """Few cones that cover many pointings: one a field or group, not one a frame.

    Greedy and deterministic: the pointing with the most others within `max_spread_deg` starts a field, takes
    them, and the rest goes on the same way; each field gets the smallest circle about its members. The
    order of `pointings` does not matter.

    Parameters
    ----------
    pointings
        (RA, Dec) in deg, one a frame; repeated ones are welcome.
    radius_deg
        Half diagonal of a frame.
    margin
        What a pointing may be off by, deg.
    max_spread_deg
        How far from a field's first pointing its others may lie; default the larger of `radius_deg` +
        `margin` and 0.5°, the release's radius of a merged group.

    Returns
    -------
    list of Cone
        Sorted by right ascension and declination; every circle of `radius_deg` + `margin` about a pointing
        lies in one of them. Centres are rounded to 4 decimals, radii up to 3.

    Raises
    ------
    StageError
        If a pointing is not a position on the sky.
    """
    if not pointings:
        return []
    given = np.asarray(pointings, np.float64)
    if not np.all(np.isfinite(given)) or np.any(np.abs(given[:, 1]) > 90.0):
        raise StageError("catalogues", "a pointing is not a position on the sky", "leave frames without pointing out")
    given[:, 0] %= 360.0
    reach = radius_deg + margin
    spread = max_spread_deg if max_spread_deg is not None else max(reach, 0.5)
    left = np.unique(np.round(given, 4), axis=0)
    chord = 2.0 * math.sin(math.radians(min(spread, 180.0)) / 2.0)
    cones: list[Cone] = []
    while len(left):
        vectors = unit_vectors(left[:, 0], left[:, 1])
        tree = cKDTree(vectors)
        start = int(np.argmax(tree.query_ball_point(vectors, chord, return_length=True)))
        taken = np.zeros(len(left), bool)
        taken[tree.query_ball_point(vectors[start], chord)] = True
        taken[start] = True
        # Rounding to 4 decimals moved the pointings by less than 1e-4 deg.
        cones.append(bounding_cone(left[taken], reach + 1e-4))
        left = left[~taken]
    return sorted(cones, key=lambda cone: (cone.ra, cone.dec))
