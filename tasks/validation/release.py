"""The 2018-2025 release's own check of a stack, so that its numbers and ours can be set side by side.

As its text describes it: apertures of 3 FWHM on the background-subtracted stack, every detection of 5 sigma matched
with the nearest PS1 object within 5 arcsec, 13 < m_PS1 < 20, median of the differences after five rounds of clipping at
2.5 robust sigma. No cut on galaxies, neighbours or saturation, no colour term: its rms of 0.5 to 0.8 mag is the price.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sep
from astropy.table import Table
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from models.stack import ZERO_POINT
from models.telescope import Band

__all__ = ["ReleaseCheck", "release_check"]

FloatArray = npt.NDArray[np.floating[Any]]

_APERTURE_FWHM = 3.0
_DETECTION_SIGMA = 5.0
_MIN_AREA_PX = 5
_MESH_PX = 64
_MATCH_ARCSEC = 5.0
_BRIGHT, _FAINT = 13.0, 20.0
_CLIP_SIGMA, _ROUNDS = 2.5, 5
_MIN_STARS = 5


class ReleaseCheck(NamedTuple):
    """Offset from zero point 30 (positive: magnitudes too faint), scatter after clipping, mag; sources left."""

    offset: float
    rms: float
    n_stars: int


def release_check(
    image: FloatArray, bad: npt.NDArray[np.bool_], wcs: WCS, fwhm_px: float, table: Table, band: Band
) -> ReleaseCheck | None:
    """Check a stack as the release did.

    Parameters
    ----------
    image, bad
        The stack, zero point 30; pixels without data. 2-D.
    wcs
        Of the stack.
    fwhm_px
        Of its PSF.
    table
        PS1 objects with ``raMean decMean`` and the band's ``MeanPSFMag``.
    band
        With a PS1 band.

    Returns
    -------
    ReleaseCheck or None
        None with fewer than five matches: the release then called a stack not validated.
    """
    clean = np.ascontiguousarray(np.where(bad, 0, image), dtype=np.float32)
    sky = sep.Background(clean, mask=bad, bw=_MESH_PX, bh=_MESH_PX)
    flat = clean - sky.back(dtype=np.float32)
    sep.set_extract_pixstack(max(300_000, image.size))
    if sky.globalrms <= 0:
        return None
    found = sep.extract(flat, _DETECTION_SIGMA, err=sky.globalrms, mask=bad, minarea=_MIN_AREA_PX)
    if not len(found):
        return None
    flux, _, _ = sep.sum_circle(flat, found["x"], found["y"], _APERTURE_FWHM * fwhm_px, mask=bad)
    column = table[f"{band.ps1}MeanPSFMag"]
    mag = np.asarray(column.filled(np.nan) if hasattr(column, "filled") else column, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        fit = np.flatnonzero((mag > _BRIGHT) & (mag < _FAINT))
    if not len(fit):
        return None
    scale = float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600.0)
    ra, dec = (np.asarray(table[name], dtype=np.float64)[fit] for name in ("raMean", "decMean"))
    objects = wcs.all_world2pix(np.column_stack([ra, dec]), 0)
    on = np.isfinite(objects).all(axis=1)
    distance, nearest = cKDTree(objects[on]).query(
        np.column_stack([found["x"], found["y"]]), distance_upper_bound=_MATCH_ARCSEC / scale
    )
    matched = np.isfinite(distance) & (flux > 0)
    difference = mag[fit][on][nearest[matched]] + 2.5 * np.log10(flux[matched])
    for _ in range(_ROUNDS):
        if len(difference) < _MIN_STARS:
            return None
        middle = float(np.median(difference))
        sigma = 1.4826 * float(np.median(np.abs(difference - middle)))
        difference = difference[np.abs(difference - middle) <= _CLIP_SIGMA * sigma]
    if len(difference) < _MIN_STARS:
        return None
    return ReleaseCheck(ZERO_POINT - float(np.median(difference)), float(np.std(difference)), len(difference))
