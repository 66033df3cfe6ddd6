"""Which catalogue stars calibrate an image, and which detections they are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.table import Table
from scipy.spatial import cKDTree

from models.telescope import Band

__all__ = ["MatchedStars", "PS1Stars", "ps1_stars", "match_and_select", "on_image"]

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

NEIGHBOUR_RATIO = 0.1
"""A neighbour with more than this share of a star's light ends its isolation."""

MAX_CONTAMINATION = 0.03
"""Largest share of a star's light that all catalogued neighbours in its aperture may add."""

SATURATED = 14.0
"""Brighter stars saturate in some of PS1's exposures (Magnier et al. 2013, ApJS 205, 20: from 13.5 mag in g r i)."""

_MAX_MAG_ERR = 0.05


class PS1Stars(NamedTuple):
    """All PS1 objects around an image, one band's view of them; arrays of shape (N,).

    Attributes
    ----------
    ra, dec
        deg, ICRS.
    mag, mag_err
        PSF magnitude in the calibrating band; NaN where PS1 has none.
    colour
        The band's PS1 colour; NaN where unknown, where one of its bands is saturated in PS1, or the band has none.
    star
        PSF and Kron magnitudes agree, and the magnitude's error is below 0.05.
    """

    ra: FloatArray
    dec: FloatArray
    mag: FloatArray
    mag_err: FloatArray
    colour: FloatArray
    star: BoolArray

    def take(self, rows: IntArray) -> PS1Stars:
        """Some of the objects."""
        return PS1Stars(
            self.ra[rows], self.dec[rows], self.mag[rows], self.mag_err[rows], self.colour[rows], self.star[rows]
        )


def _column(table: Table, name: str) -> FloatArray:
    column = table[name]
    values = np.asarray(column.filled(np.nan) if hasattr(column, "filled") else column, dtype=np.float64)
    return np.where((values > -5) & (values < 40), values, np.nan)  # the archive writes -999 for none


def ps1_stars(table: Table, band: Band, max_psf_kron: float) -> PS1Stars:
    """A PS1 cone as seen by one of our bands.

    Parameters
    ----------
    table
        The archive's columns (`models.catalog.StoredCone`).
    band
        Must have a PS1 band.
    max_psf_kron
        Largest PSF - Kron magnitude of a star; a galaxy has more light in its Kron aperture. About
        0.05 separates them to 21 mag (Farrow et al. 2014, MNRAS 437, 748).

    Raises
    ------
    ValueError
        If the band has no PS1 counterpart.
    """
    if band.ps1 is None:
        raise ValueError(f"{band.name} has no PS1 band")
    mag = _column(table, f"{band.ps1}MeanPSFMag")
    mag_err = _column(table, f"{band.ps1}MeanPSFMagErr")
    kron = _column(table, f"{band.ps1}MeanKronMag")
    colour = np.full(len(table), np.nan)
    if band.colour is not None:
        blue, red = (_column(table, f"{c}MeanPSFMag") for c in band.colour)
        with np.errstate(invalid="ignore"):
            colour = np.where((blue > SATURATED) & (red > SATURATED), blue - red, np.nan)
    with np.errstate(invalid="ignore"):
        star = (mag - kron < max_psf_kron) & (mag_err < _MAX_MAG_ERR) & np.isfinite(mag)
    ra, dec = (np.asarray(table[name], dtype=np.float64) for name in ("raMean", "decMean"))
    return PS1Stars(ra, dec, mag, mag_err, colour, star)


def on_image(stars: PS1Stars, wcs: Any, shape: tuple[int, int], margin_px: float) -> tuple[PS1Stars, FloatArray]:
    """The objects that fall on an image or within a margin of it, and where.

    Parameters
    ----------
    stars
        From `ps1_stars`.
    wcs
        astropy WCS, distortions included.
    shape
        (rows, columns).
    margin_px
        Neighbours just off the edge still throw light on the image.

    Returns
    -------
    PS1Stars, ndarray
        The objects, and their zero-based positions, shape (N, 2), columns x, y.
    """
    ny, nx = shape
    corners = np.array([[-margin_px, -margin_px], [nx + margin_px, -margin_px], [-margin_px, ny + margin_px]])
    middle = wcs.all_pix2world([[(nx - 1) / 2, (ny - 1) / 2]], 0)[0]
    edge = np.vstack([wcs.all_pix2world(corners, 0), wcs.all_pix2world([[nx + margin_px, ny + margin_px]], 0)])
    reach = _separation_deg(middle[0], middle[1], edge[:, 0], edge[:, 1]).max()
    # Only what is near: the inverse of a distortion polynomial runs away far off the chip.
    near = np.flatnonzero(_separation_deg(middle[0], middle[1], stars.ra, stars.dec) <= reach)
    if near.size == 0:
        return stars.take(near), np.zeros((0, 2))
    pixel = np.asarray(wcs.all_world2pix(np.column_stack([stars.ra[near], stars.dec[near]]), 0, quiet=True))
    low, high = -margin_px, np.array([nx - 1 + margin_px, ny - 1 + margin_px])
    inside = np.isfinite(pixel).all(axis=1) & (pixel >= low).all(axis=1) & (pixel <= high).all(axis=1)
    return stars.take(near[inside]), pixel[inside]


def _separation_deg(ra0: float, dec0: float, ra: FloatArray, dec: FloatArray) -> FloatArray:
    a0, d0, a, d = np.radians(ra0), np.radians(dec0), np.radians(ra), np.radians(dec)
    h = np.sin((d - d0) / 2) ** 2 + np.cos(d0) * np.cos(d) * np.sin((a - a0) / 2) ** 2
    return np.asarray(np.degrees(2 * np.arcsin(np.sqrt(np.clip(h, 0, 1)))))


class MatchedStars(NamedTuple):
    """Catalogue stars that calibrate an image.

    Attributes
    ----------
    catalogue
        Index into the `PS1Stars`, shape (M,).
    detection
        Index into the detections, shape (M,).
    n_matched
        Matches before magnitudes, shape and isolation were looked at.
    counts
        What each cut left, in words, for the reason of a failure.
    neighbours
        Catalogued objects near the chosen stars, one row each.
    """

    catalogue: IntArray
    detection: IntArray
    n_matched: int
    counts: tuple[str, ...]
    neighbours: Neighbours


class Neighbours(NamedTuple):
    """Catalogued objects near stars; arrays of shape (K,).

    Attributes
    ----------
    star
        Index into the chosen stars.
    distance
        px.
    share
        Their light over the star's.
    """

    star: IntArray
    distance: FloatArray
    share: FloatArray

    def light(self, n: int, inside: FloatArray) -> FloatArray:
        """Light they add to each of `n` stars, in units of the star's, when `inside` of each is in the aperture."""
        return np.asarray(np.bincount(self.star, self.share * inside, n), np.float64)


def match_and_select(
    stars: PS1Stars,
    pixel: FloatArray,
    x: FloatArray,
    y: FloatArray,
    *,
    match_px: float,
    isolation_px: float,
    aperture_px: float,
    mag_range: tuple[float, float],
) -> MatchedStars:
    """Match detections with PS1 and keep unblended stars of useful magnitude.

    A match is mutual: each is the other's nearest, within `match_px`. A star is isolated when no catalogued
    object of a tenth of its light lies within `isolation_px` and all objects within its aperture together
    add no more than 3 %.

    Parameters
    ----------
    stars, pixel
        From `on_image`.
    x, y
        Detections, zero-based px.
    match_px, isolation_px, aperture_px
        Radii, px.
    mag_range
        Brightest and faintest star.
    """
    nothing = np.zeros(0, np.intp)
    if len(pixel) == 0 or len(x) == 0:
        none = (f"{len(pixel)} PS1 objects on the frame", f"{len(x)} detections")
        return MatchedStars(nothing, nothing, 0, none, _no_neighbours())
    tree, found = cKDTree(pixel), cKDTree(np.column_stack([x, y]))
    distance, nearest = found.query(pixel, distance_upper_bound=match_px)
    near = np.flatnonzero(np.isfinite(distance))
    _, back = tree.query(np.column_stack([x, y]))
    catalogue = near[back[nearest[near]] == near]
    detection = nearest[catalogue]
    counts = [f"{len(pixel)} PS1 objects on the frame", f"{len(x)} detections", f"{catalogue.size} matched"]
    n_matched = catalogue.size

    with np.errstate(invalid="ignore"):
        bright = (stars.mag > mag_range[0]) & (stars.mag < mag_range[1])
    catalogue = catalogue[bright[catalogue]]
    counts.append(f"{catalogue.size} of {mag_range[0]} to {mag_range[1]} mag")
    catalogue = catalogue[stars.star[catalogue]]
    counts.append(f"{catalogue.size} stars")
    alone, neighbours = _isolated(stars.mag, pixel, tree, catalogue, isolation_px, aperture_px)
    catalogue = catalogue[alone]
    counts.append(f"{catalogue.size} isolated")
    detection = nearest[catalogue]
    return MatchedStars(catalogue, detection, n_matched, tuple(counts), neighbours)


def _no_neighbours() -> Neighbours:
    return Neighbours(np.zeros(0, np.intp), np.zeros(0), np.zeros(0))


def _isolated(
    mag: FloatArray, pixel: FloatArray, tree: cKDTree, chosen: IntArray, isolation_px: float, aperture_px: float
) -> tuple[BoolArray, Neighbours]:
    """Which stars are alone, and the neighbours that those have nevertheless (numbered among the lonely ones)."""
    good = np.ones(chosen.size, bool)
    number, near = 0, list[tuple[IntArray, FloatArray, FloatArray]]()
    reach = max(isolation_px, aperture_px)
    for i, (star, around) in enumerate(zip(chosen, tree.query_ball_point(pixel[chosen], reach), strict=True)):
        others = np.array([j for j in around if j != star and np.isfinite(mag[j])], dtype=np.intp)
        if others.size == 0:
            number += 1
            continue
        share = 10 ** (-0.4 * (mag[others] - mag[star]))
        distance = np.hypot(*(pixel[others] - pixel[star]).T)
        good[i] = not (share[distance < isolation_px] > NEIGHBOUR_RATIO).any() and (
            share[distance < aperture_px].sum() <= MAX_CONTAMINATION
        )
        if good[i]:
            near.append((np.full(others.size, number, np.intp), distance, share))
            number += 1
    if not near:
        return good, _no_neighbours()
    star, away, light = (np.concatenate([part[k] for part in near]) for k in range(3))
    return good, Neighbours(np.asarray(star, np.intp), away, light)
