"""Which source is which star, and whether that is more than chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.spatial import cKDTree

__all__ = ["Match", "Reference", "chance_matches", "gnomonic", "match_stars"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """Reference stars at the epoch of a frame.

    Attributes
    ----------
    ra, dec
        deg, ICRS, f8 (n,).
    error
        Of the position, one axis, arcsec, f8 (n,).
    mag
        f8 (n,); brighter stars are smaller.
    text
        What this is and at which epoch, for the header and the report.
    """

    ra: Floats
    dec: Floats
    error: Floats
    mag: Floats
    text: str

    def __len__(self) -> int:
        return len(self.ra)

    def take(self, which: NDArray[np.bool_]) -> Reference:
        """The stars where `which` is true."""
        return Reference(self.ra[which], self.dec[which], self.error[which], self.mag[which], self.text)


@dataclass(frozen=True)
class Match:
    """Pairs of a source and a star: indices into the two lists, and how far apart they are.

    ``dx`` and ``dy`` are source minus star on the tangent plane (east, north), arcsec.
    """

    source: NDArray[np.intp]
    star: NDArray[np.intp]
    dx: Floats
    dy: Floats

    def __len__(self) -> int:
        return len(self.source)

    @property
    def separation(self) -> Floats:
        """Distance of each pair, arcsec."""
        return np.hypot(self.dx, self.dy)

    @property
    def rms(self) -> float:
        """Root mean square of the separations, arcsec; NaN without pairs."""
        return float(np.sqrt(np.mean(self.dx**2 + self.dy**2))) if len(self) else float("nan")

    def take(self, which: NDArray[np.bool_]) -> Match:
        """The pairs where `which` is true."""
        return Match(self.source[which], self.star[which], self.dx[which], self.dy[which])


def gnomonic(ra: Floats, dec: Floats, ra0: float, dec0: float) -> tuple[Floats, Floats]:
    """Standard coordinates (east, north; deg) about a tangent point; NaN for the far half of the sky.

    Calabretta & Greisen 2002 (A&A 395, 1077), eq. 54 in the tangent plane's own orientation.
    """
    a, d = np.radians(np.asarray(ra, dtype="f8") - ra0), np.radians(np.asarray(dec, dtype="f8"))
    sin0, cos0 = np.sin(np.radians(dec0)), np.cos(np.radians(dec0))
    depth = np.sin(d) * sin0 + np.cos(d) * cos0 * np.cos(a)
    depth = np.where(depth > 1e-3, depth, np.nan)
    return (
        np.degrees(np.cos(d) * np.sin(a) / depth),
        np.degrees((np.sin(d) * cos0 - np.cos(d) * sin0 * np.cos(a)) / depth),
    )


def _plane(wcs: WCS, x: Floats, y: Floats, reference: Reference) -> tuple[Floats, Floats]:
    """Sources and stars on one tangent plane, arcsec, (n, 2) each; stars on the far side are put at infinity."""
    ra0, dec0 = (float(value) for value in wcs.wcs.crval)
    ra, dec = wcs.all_pix2world(x, y, 1)
    sources = np.column_stack(gnomonic(ra, dec, ra0, dec0)) * 3600
    stars = np.column_stack(gnomonic(reference.ra, reference.dec, ra0, dec0)) * 3600
    return np.nan_to_num(sources, nan=1e9), np.nan_to_num(stars, nan=-1e9)


def _mutual(sources: Floats, stars: Floats, radius: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    if not len(sources) or not len(stars):
        empty = np.empty(0, dtype=np.intp)
        return empty, empty
    star_tree = cKDTree(stars)
    distance, star = star_tree.query(sources, distance_upper_bound=radius)
    found = np.flatnonzero(np.isfinite(distance))
    if not len(found):
        return found, found
    _, back = cKDTree(sources).query(stars[star[found]])
    both = back == found
    return found[both], np.asarray(star[found][both], dtype=np.intp)


def match_stars(wcs: WCS, x: Floats, y: Floats, reference: Reference, radius: float) -> Match:
    """Pair sources with stars: each the other's nearest, within `radius` (arcsec).

    Parameters
    ----------
    wcs
        Celestial WCS, distortion included.
    x, y
        1-based FITS pixels, f8 (n,).
    reference
        The stars.
    radius
        arcsec.
    """
    sources, stars = _plane(wcs, x, y, reference)
    source, star = _mutual(sources, stars, radius)
    delta = sources[source] - stars[star]
    return Match(source, star, delta[:, 0], delta[:, 1])


def chance_matches(wcs: WCS, x: Floats, y: Floats, reference: Reference, radius: float) -> float:
    """Mean number of pairs when the sources are shifted against the stars: what chance alone gives.

    Shifts of 12 and 20 match radii in eight directions keep the local density of a field or a cluster and
    undo every true pair.
    """
    sources, stars = _plane(wcs, x, y, reference)
    counts = []
    for k in range(8):
        step = radius * (12.0 if k % 2 else 20.0)
        shift = step * np.array([np.cos(k * np.pi / 4), np.sin(k * np.pi / 4)])
        counts.append(len(_mutual(sources + shift, stars, radius)[0]))
    return float(np.mean(counts))
