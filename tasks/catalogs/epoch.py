"""Gaia positions at the epoch of a frame."""

from __future__ import annotations

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from tasks.catalogs.columns import plain_values
from tasks.catalogs.cones import to_degrees, unit_vectors
from tasks.core.errors import StageError

__all__ = ["GAIA_EPOCH", "at_epoch"]

GAIA_EPOCH = 2016.0
"""Julian year of the positions of Gaia EDR3 and DR3."""

_MAS = 1.0 / 3.6e6
"""A milliarcsecond in degrees."""

_G = np.array([6.0, 9.0, 12.0, 15.0, 17.0, 18.0, 20.0, 21.0])
_POSITION_ERROR_MAS = np.array([0.02, 0.02, 0.02, 0.02, 0.05, 0.09, 0.4, 1.0])
"""Median position errors of Gaia (E)DR3 by magnitude (Lindegren et al. 2021, A&A 649, A2, table 4; rounded up)."""

_SPREAD_MAS_YR = np.array([40.0, 25.0, 14.0, 9.0, 7.0, 6.5, 5.0, 5.0])
"""Spread of proper motions by magnitude, per axis, where a field has too few stars to measure its own.

Order of magnitude for the disc at middle galactic latitudes: ~35 km/s per axis, over the distance
of a typical star of that magnitude.
"""

_NEIGHBOURS = 101
_MIN_NEIGHBOURS = 25


def at_epoch(gaia: Table, jyear: float) -> Table:
    """Positions of Gaia stars at a Julian year.

    Linear motion in the plane tangent to the sphere at the catalogue position: `pmra` includes cos(dec), so it is a
    displacement to the east on the sky; as a vector it does no harm at the poles or at 0h. Left out: parallax (the
    yearly ellipse, < 10 mas beyond 100 pc) and perspective acceleration (< 1 mas in 10 yr for all but a few
    nearby stars).

    Parameters
    ----------
    gaia
        Rows as `read_cone` gives them.
    jyear
        Such as ``Time(...).jyear`` at mid-exposure.

    Returns
    -------
    Table
        Same rows and order. ``SOURCE_ID`` int64; ``RA DEC`` f8, deg, ICRS at `jyear`; ``RA_ERR DEC_ERR`` f8, deg on
        the sky (RA_ERR includes cos(dec)); ``G BP_RP`` f8, mag, NaN where missing; ``HAS_PM`` bool.
        The errors are those of the catalogue at 2016.0. They do not grow with time for stars with
        proper motion, for the columns we keep hold no errors of proper motion (for G < 18 they add less than
        2 mas in 10 yr). A position error that the table lacks is replaced by the median of Gaia DR3 at that
        magnitude. A star without proper motion stays where it was in 2016 and gets the spread of the proper motions
        of the stars of similar magnitude in the same table (about zero, so their common motion
        counts as well), times the difference in epoch, in quadrature.

    Raises
    ------
    StageError
        If `jyear` is not a year between 1900 and 2200, where linear motion holds.
    """
    if not 1900.0 <= jyear <= 2200.0:
        raise StageError(
            "catalogues", f"{jyear} is not an epoch that Gaia positions can be moved to", "check the frame's DATE-OBS"
        )
    years = jyear - GAIA_EPOCH
    ra, dec = plain_values(gaia["ra"]), plain_values(gaia["dec"])
    pmra, pmdec = plain_values(gaia["pmra"]), plain_values(gaia["pmdec"])
    magnitude = plain_values(gaia["phot_g_mean_mag"])
    has_pm = np.isfinite(pmra) & np.isfinite(pmdec)

    step = np.radians(_MAS) * years
    east_step = np.where(has_pm, pmra, 0.0) * step
    north_step = np.where(has_pm, pmdec, 0.0) * step
    a, d = np.radians(ra), np.radians(dec)
    east = np.stack([-np.sin(a), np.cos(a), np.zeros_like(a)], axis=-1)
    north = np.stack([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)], axis=-1)
    moved = unit_vectors(ra, dec) + east * east_step[:, None] + north * north_step[:, None]
    ra_then, dec_then = to_degrees(moved)

    typical = np.interp(np.where(np.isfinite(magnitude), magnitude, 20.0), _G, _POSITION_ERROR_MAS)
    extra = np.zeros((2, len(gaia)))
    if years != 0.0 and not has_pm.all():
        extra[:, ~has_pm] = abs(years) * _spread(magnitude, pmra, pmdec, has_pm)
    errors = []
    for name, added in zip(("ra_error", "dec_error"), extra, strict=True):
        known = plain_values(gaia[name]) if name in gaia.colnames else np.full(len(gaia), np.nan)
        errors.append(np.hypot(np.where(np.isfinite(known), known, typical), added) * _MAS)

    out = Table()
    out["SOURCE_ID"] = np.asarray(gaia["source_id"]).astype(np.int64)
    out["RA"], out["DEC"] = ra_then, dec_then
    out["RA_ERR"], out["DEC_ERR"] = errors
    out["G"] = magnitude
    out["BP_RP"] = plain_values(gaia["bp_rp"]) if "bp_rp" in gaia.colnames else np.full(len(gaia), np.nan)
    out["HAS_PM"] = has_pm
    for name in ("RA", "DEC", "RA_ERR", "DEC_ERR"):
        out[name].unit = "deg"
    out.meta["EPOCH"] = float(jyear)
    return out


def _spread(
    magnitude: NDArray[np.float64],
    pmra: NDArray[np.float64],
    pmdec: NDArray[np.float64],
    has_pm: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Robust rms of the proper motions (mas/yr; east, north) about zero near the magnitude of each star without one.

    Shape (2, number without). From the up to 101 stars next in magnitude; from the fallback relation where the table
    has fewer than 25 with proper motion.
    """
    wanted = np.where(np.isfinite(magnitude[~has_pm]), magnitude[~has_pm], 20.0)
    known = np.flatnonzero(has_pm & np.isfinite(magnitude))
    if len(known) < _MIN_NEIGHBOURS:
        relation = np.interp(wanted, _G, _SPREAD_MAS_YR)
        return np.stack([relation, relation])
    known = known[np.argsort(magnitude[known], kind="stable")]
    width = min(_NEIGHBOURS, len(known))
    middle = np.searchsorted(magnitude[known], wanted)
    start = np.clip(middle - width // 2, 0, len(known) - width)
    rows = known[start[:, None] + np.arange(width)]
    # The median of |x| of a normal distribution about zero is 0.6745 sigma.
    return np.stack([np.median(np.abs(axis[rows]), axis=1) / 0.6745 for axis in (pmra, pmdec)])
