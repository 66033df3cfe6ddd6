"""Identifiers of Gaia and PS1 by position."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from models.base import Roots
from models.catalog import StoredCone
from tasks.catalogs import at_epoch, read_cone
from tasks.sourcelists.images import FloatArray

__all__ = ["Matches", "match_gaia", "match_ps1"]


class Matches(NamedTuple):
    """Identifier of each source (0: none), distance (NaN: none) and the catalogue's magnitude; shape (N,)."""

    identifier: npt.NDArray[np.int64]
    arcsec: FloatArray
    mag: FloatArray

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """Whether a source has one."""
        return np.isfinite(self.arcsec)


def _on_plane(ra: FloatArray, dec: FloatArray, ra0: float, dec0: float) -> FloatArray:
    """Gnomonic offsets from a point, arcsec; infinite on the far side of the sky."""
    a, d = np.radians(ra - ra0), np.radians(dec)
    sin0, cos0 = np.sin(np.radians(dec0)), np.cos(np.radians(dec0))
    cosine = sin0 * np.sin(d) + cos0 * np.cos(d) * np.cos(a)
    with np.errstate(divide="ignore", invalid="ignore"):
        xi = np.cos(d) * np.sin(a) / cosine
        eta = (cos0 * np.sin(d) - sin0 * np.cos(d) * np.cos(a)) / cosine
    plane = np.degrees(np.column_stack([xi, eta])) * 3600.0
    return np.where((cosine > 0.1)[:, None], plane, 1e9)


def _mutual(ra: FloatArray, dec: FloatArray, theirs: FloatArray, identifier: FloatArray | npt.NDArray[np.int64],
            mag: FloatArray, centre: tuple[float, float], radius: float) -> Matches:  # fmt: skip
    """The nearest of each other within a radius."""
    ours = _on_plane(ra, dec, *centre)
    number, apart, magnitude = np.zeros(ra.size, np.int64), np.full(ra.size, np.nan), np.full(ra.size, np.nan)
    if not len(theirs) or not len(ours):
        return Matches(number, apart, magnitude)
    distance, nearest = cKDTree(theirs).query(ours, distance_upper_bound=radius)
    _, back = cKDTree(ours).query(theirs)
    known = np.isfinite(distance)
    known[known] = back[nearest[known]] == np.flatnonzero(known)
    number[known] = np.asarray(identifier)[nearest[known]]
    apart[known], magnitude[known] = distance[known], mag[nearest[known]]
    return Matches(number, apart, magnitude)


def match_gaia(ra: FloatArray, dec: FloatArray, gaia: StoredCone, jyear: float, radius: float, roots: Roots) -> Matches:
    """Gaia stars, moved to the stacks' epoch, nearest to each source within `radius` (arcsec) and it to them."""
    table = at_epoch(read_cone(gaia, roots), jyear)
    centre = float(np.median(ra)), float(np.median(dec))
    theirs = _on_plane(np.asarray(table["RA"]), np.asarray(table["DEC"]), *centre)
    return _mutual(ra, dec, theirs, np.asarray(table["SOURCE_ID"]), np.asarray(table["G"]), centre, radius)


def match_ps1(ra: FloatArray, dec: FloatArray, ps1: StoredCone, radius: float, roots: Roots) -> Matches:
    """PS1 objects nearest to each source within `radius` (arcsec) and it to them."""
    table = read_cone(ps1, roots)
    centre = float(np.median(ra)), float(np.median(dec))
    there = np.asarray(table["raMean"], np.float64), np.asarray(table["decMean"], np.float64)
    known = np.isfinite(there[0]) & np.isfinite(there[1])
    theirs = _on_plane(there[0][known], there[1][known], *centre)
    mag = np.asarray(table["rMeanPSFMag"], np.float64)[known]
    return _mutual(ra, dec, theirs, np.asarray(table["objID"], np.int64)[known], mag, centre, radius)
