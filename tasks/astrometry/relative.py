"""Where there is no Gaia: the stars that a group's frames have in common, placed by all frames together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tasks.astrometry.fitting import PolynomialFit, fit_best_degree
from tasks.astrometry.matching import Floats, Reference, gnomonic, match_stars
from tasks.astrometry.sources import Sources

__all__ = ["common_stars", "fit_to_common_stars"]

_ROUNDS = 3
_MIN_FRAMES = 2
_FLOOR_ARCSEC = 0.01


def common_stars(wcses: Sequence[WCS], sources: Sequence[Sources], radius: float) -> Reference:
    """Stars seen on at least two frames, each at the median of the positions that the frames give it.

    The median over many frames forgives the few whose plate solution rests on a handful of stars.

    Parameters
    ----------
    wcses, sources
        World coordinates of each frame, and its stars.
    radius
        Largest distance between two frames' positions of one star, arcsec.

    Returns
    -------
    Reference
        ``error`` is the scatter of the median (1.4826 MAD / sqrt n), arcsec; ``mag`` is instrumental.
    """
    ra0, dec0 = (float(value) for value in wcses[0].wcs.crval)
    tangent = [np.column_stack(_on_plane(wcs, seen, ra0, dec0)) for wcs, seen in zip(wcses, sources, strict=True)]
    anchors = np.empty((0, 2))
    owners: list[NDArray[np.intp]] = []
    # The frame with most stars first, so that most anchors come from one frame.
    order = sorted(range(len(tangent)), key=lambda i: (-len(tangent[i]), i))
    found: dict[int, NDArray[np.intp]] = {}
    for i in order:
        star = _nearest(tangent[i], anchors, radius)
        new = np.flatnonzero(star < 0)
        star[new] = len(anchors) + np.arange(len(new))
        anchors = np.vstack([anchors, tangent[i][new]])
        found[i] = star
    owners = [found[i] for i in range(len(tangent))]
    return _medians(tangent, owners, [seen.flux for seen in sources], len(anchors), ra0, dec0)


def _on_plane(wcs: WCS, seen: Sources, ra0: float, dec0: float) -> tuple[Floats, Floats]:
    ra, dec = wcs.all_pix2world(seen.x, seen.y, 1)
    east, north = gnomonic(ra, dec, ra0, dec0)
    return east * 3600, north * 3600


def _nearest(points: Floats, anchors: Floats, radius: float) -> NDArray[np.intp]:
    """Anchor of each point, mutually nearest and within the radius; -1 without one."""
    star = np.full(len(points), -1, dtype=np.intp)
    if not len(anchors) or not len(points):
        return star
    distance, nearest = cKDTree(anchors).query(points, distance_upper_bound=radius)
    near = np.flatnonzero(np.isfinite(distance))
    _, back = cKDTree(points).query(anchors[nearest[near]])
    mutual = near[back == near]
    star[mutual] = nearest[mutual]
    return star


def _medians(
    tangent: Sequence[Floats], owners: Sequence[NDArray[np.intp]], fluxes: Sequence[Floats], n: int, ra0: float,
    dec0: float,
) -> Reference:  # fmt: skip
    table = np.full((len(tangent), n, 3), np.nan)
    for i, star in enumerate(owners):
        table[i, star, :2] = tangent[i]
        table[i, star, 2] = fluxes[i]
    counts = np.isfinite(table[..., 0]).sum(axis=0)
    kept = counts >= _MIN_FRAMES
    table, counts = table[:, kept], counts[kept]
    east, north, flux = np.nanmedian(table, axis=0).T if kept.any() else np.empty((3, 0))
    away = np.abs(table[..., :2] - np.stack([east, north], axis=-1))
    scatter = 1.4826 * np.nanmedian(away, axis=0).mean(axis=-1) if kept.any() else np.empty(0)
    plane = WCS(naxis=2)
    plane.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    plane.wcs.crval = [ra0, dec0]
    plane.wcs.cdelt = [1 / 3600, 1 / 3600]
    ra, dec = plane.wcs_pix2world(east, north, 1)
    return Reference(
        np.asarray(ra), np.asarray(dec), np.hypot(scatter / np.sqrt(counts), _FLOOR_ARCSEC), -2.5 * np.log10(flux),
        "stars common to the group's frames",
    )  # fmt: skip


def fit_to_common_stars(
    wcses: Sequence[WCS], sources: Sequence[Sources], shapes: Sequence[tuple[int, int]], radius: float, scale: float,
    max_degree: int, min_matched: int,
) -> tuple[list[WCS | None], Reference]:  # fmt: skip
    """Fit every frame to the stars that the frames have in common; the common stars follow in turns.

    What the plate solutions say of the sky as a whole (where, how large, how turned) is kept as their median;
    only what the frames disagree on goes away.

    Parameters
    ----------
    wcses, sources, shapes
        Plate solution, clean stars and (rows, columns) of each frame.
    radius
        Match radius, arcsec.
    scale
        arcsec/px, of which the errors of the sources are counted.
    max_degree
        Of the polynomial.
    min_matched
        A frame with fewer common stars is not fitted.

    Returns
    -------
    list of WCS or None
        None: too few common stars.
    Reference
        The common stars at last.
    """
    current = list(wcses)
    fitted: list[WCS | None] = [None] * len(wcses)
    stars = common_stars(current, sources, radius)
    for _ in range(_ROUNDS):
        for i, (seen, shape) in enumerate(zip(sources, shapes, strict=True)):
            fit = _fit(current[i], seen, shape, stars, radius, scale, max_degree, min_matched)
            if fit is not None:
                fitted[i] = current[i] = fit.wcs
        stars = common_stars(current, sources, radius)
    return fitted, stars


def _fit(
    wcs: WCS, seen: Sources, shape: tuple[int, int], stars: Reference, radius: float, scale: float, max_degree: int,
    min_matched: int,
) -> PolynomialFit | None:  # fmt: skip
    match = match_stars(wcs, seen.x, seen.y, stars, radius)
    if len(match) < min_matched:
        return None
    sigma = np.hypot(seen.error[match.source] * scale, stars.error[match.star])
    return fit_best_degree(
        seen.x[match.source], seen.y[match.source], stars.ra[match.star], stars.dec[match.star], sigma, shape,
        max_degree, wcs,
    )  # fmt: skip
