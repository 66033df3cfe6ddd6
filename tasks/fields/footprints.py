"""Footprints of solved frames on the sky, and which of them hang together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from models.frame import SolvedFrame

__all__ = ["Footprint", "footprint_of", "overlap_clusters", "overlap_share", "tangent", "unit"]

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Footprint:
    """A rectangle on the sky.

    Attributes
    ----------
    ra, dec
        Its centre, deg.
    width, height
        deg
    rotation
        Position angle of its height, deg, north through east.
    """

    ra: float
    dec: float
    width: float
    height: float
    rotation: float

    def corners(self, ra0: float, dec0: float) -> Points:
        """Corners in the plane that touches the sphere at a place, deg, counter-clockwise, f8 (4, 2)."""
        x, y = tangent(np.array([self.ra]), np.array([self.dec]), ra0, dec0)
        # Far from the point of contact north turns; within a few fields that does not matter but at the poles.
        step = 1e-3 if self.dec < 89.0 else -1e-3
        nx, ny = tangent(np.array([self.ra]), np.array([self.dec + step]), ra0, dec0)
        north = math.atan2((ny[0] - y[0]) * np.sign(step), (nx[0] - x[0]) * np.sign(step))
        up = north - math.radians(self.rotation)  # east is to +x, so that position angles run clockwise here
        along = np.array([math.cos(up), math.sin(up)]) * self.height / 2
        across = np.array([math.sin(up), -math.cos(up)]) * self.width / 2
        centre = np.array([x[0], y[0]])
        return np.array([centre + a * along + b * across for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))])

    def holds(self, ra: float, dec: float) -> bool:
        """Whether a place lies in it."""
        if float(unit([ra], [dec])[0] @ unit([self.ra], [self.dec])[0]) < math.cos(math.radians(self.diagonal)):
            return False
        a, b, _, d = self.corners(ra, dec)
        along, across = d - a, b - a
        place = -a
        return bool(0 <= place @ along <= along @ along + 1e-12 and 0 <= place @ across <= across @ across + 1e-12)

    @property
    def diagonal(self) -> float:
        """From corner to corner, deg."""
        return math.hypot(self.width, self.height)


def footprint_of(solved: SolvedFrame) -> Footprint:
    """Footprint of a frame by its plate solution."""
    solution, (rows, columns) = solved.solution, solved.raw.shape
    scale = solution.pixel_scale / 3600
    return Footprint(solution.ra, solution.dec, columns * scale, rows * scale, solution.rotation_deg)


def unit(ra: Sequence[float] | Points, dec: Sequence[float] | Points) -> Points:
    """Unit vectors, f8 (n, 3)."""
    a, d = np.radians(np.asarray(ra, dtype="f8")), np.radians(np.asarray(dec, dtype="f8"))
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def tangent(ra: Points, dec: Points, ra0: float, dec0: float) -> tuple[Points, Points]:
    """Gnomonic projection about a place: x to the east, y to the north, deg."""
    a, d, d0 = np.radians(ra - ra0), np.radians(dec), math.radians(dec0)
    below = np.sin(d) * math.sin(d0) + np.cos(d) * math.cos(d0) * np.cos(a)
    x = np.cos(d) * np.sin(a) / below
    y = (np.sin(d) * math.cos(d0) - np.cos(d) * math.sin(d0) * np.cos(a)) / below
    return np.degrees(x), np.degrees(y)


def _area(polygon: Points) -> float:
    x, y = polygon[:, 0], polygon[:, 1]
    return 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))


def _counter_clockwise(polygon: Points) -> Points:
    x, y = polygon[:, 0], polygon[:, 1]
    return polygon if np.dot(x, np.roll(y, -1)) >= np.dot(y, np.roll(x, -1)) else polygon[::-1]


def _common(one: Points, other: Points) -> float:
    """Area that two convex polygons have in common (Sutherland & Hodgman 1974, CACM 17, 32)."""
    left = [(float(x), float(y)) for x, y in one]
    window = [(float(x), float(y)) for x, y in _counter_clockwise(other)]
    for (x0, y0), (x1, y1) in zip(window, window[1:] + window[:1], strict=True):
        if not left:
            return 0.0
        inside = [(x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) for x, y in left]
        kept = []
        for k, (corner, side) in enumerate(zip(left, inside, strict=True)):
            before, side_before = left[k - 1], inside[k - 1]
            if (side >= 0) != (side_before >= 0):
                t = side_before / (side_before - side)
                kept.append((before[0] + t * (corner[0] - before[0]), before[1] + t * (corner[1] - before[1])))
            if side >= 0:
                kept.append(corner)
        left = kept
    return _area(np.array(left)) if len(left) > 2 else 0.0


def overlap_share(one: Footprint, other: Footprint) -> float:
    """Share of the smaller footprint that lies in the other, 0 to 1."""
    smaller = min(one.width * one.height, other.width * other.height)
    return min(1.0, _common(one.corners(one.ra, one.dec), other.corners(one.ra, one.dec)) / smaller)


def overlap_clusters(footprints: Sequence[Footprint], least: float) -> NDArray[np.intp]:
    """Number of the heap of footprints each one belongs to: two that overlap are in one, and so are their friends.

    Parameters
    ----------
    footprints
        Of the frames.
    least
        Share of the smaller footprint from which on an overlap counts.

    Returns
    -------
    Numbers from 0, in the order of each heap's first footprint, intp (n,).
    """
    n = len(footprints)
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    if n:
        places = unit([each.ra for each in footprints], [each.dec for each in footprints])
        reach = 2 * math.sin(math.radians(max(each.diagonal for each in footprints)) / 2)
        pairs = cKDTree(places).query_pairs(reach, output_type="ndarray")
        apart = np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1)
        # The nearest first: most pairs are in one heap already when their turn comes.
        for i, j in pairs[np.lexsort((pairs[:, 1], pairs[:, 0], apart))]:
            a, b = root(int(i)), root(int(j))
            if a != b and overlap_share(footprints[i], footprints[j]) >= least:
                parent[max(a, b)] = min(a, b)
    roots = [root(i) for i in range(n)]
    number = {each: k for k, each in enumerate(dict.fromkeys(roots))}
    return np.array([number[each] for each in roots], dtype=np.intp)
