"""Where light falls: the true sky-to-pixel mapping, and the point-spread function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.simulation import TrueWcs

__all__ = ["pixel_area", "pixel_to_plane", "project", "to_pixels", "to_sky", "wcs_header"]

Array = NDArray[np.float64]


def project(ra: Array, dec: Array, crval: tuple[float, float]) -> tuple[Array, Array]:
    """Gnomonic projection about `crval`; all in degrees (east, north)."""
    a, d = np.deg2rad(ra - crval[0]), np.deg2rad(dec)
    d0 = np.deg2rad(crval[1])
    denominator = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a)
    xi = np.cos(d) * np.sin(a) / denominator
    eta = (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a)) / denominator
    return np.rad2deg(xi), np.rad2deg(eta)


def _deproject(xi: Array, eta: Array, crval: tuple[float, float]) -> tuple[Array, Array]:
    x, y, d0 = np.deg2rad(xi), np.deg2rad(eta), np.deg2rad(crval[1])
    denominator = np.cos(d0) - y * np.sin(d0)
    a = np.arctan2(x, denominator)
    dec = np.arctan2((np.sin(d0) + y * np.cos(d0)) * np.cos(a), denominator)
    return (crval[0] + np.rad2deg(a)) % 360.0, np.rad2deg(dec)


def to_pixels(wcs: TrueWcs, ra: Array, dec: Array) -> tuple[Array, Array]:
    """True pixel positions (1-based, FITS) of sky positions in degrees; exact to 1e-9 px.

    Parameters
    ----------
    wcs
        A frame's true mapping.
    ra, dec
        ICRS degrees at the epoch of the exposure: apply proper motion first.
    """
    xi, eta = project(np.asarray(ra, float), np.asarray(dec, float), wcs.crval)
    inverse = np.linalg.inv(np.array(wcs.cd))
    big_u = inverse[0, 0] * xi + inverse[0, 1] * eta
    big_v = inverse[1, 0] * xi + inverse[1, 1] * eta
    big_r = np.hypot(big_u, big_v)
    # Newton on R = r (1 + k r^2); far outside the chip the cubic is not meant, so r is bounded there.
    r = big_r.copy()
    for _ in range(6):
        r = r - (r * (1 + wcs.k * r**2) - big_r) / (1 + 3 * wcs.k * r**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        shrink = np.where(big_r > 0, r / big_r, 1.0)
    return big_u * shrink + wcs.crpix[0], big_v * shrink + wcs.crpix[1]


def pixel_to_plane(wcs: TrueWcs, x: Array, y: Array) -> tuple[Array, Array]:
    """Plane coordinates (degrees east and north of CRVAL) of 1-based pixel positions."""
    u, v = x - wcs.crpix[0], y - wcs.crpix[1]
    s = 1 + wcs.k * (u**2 + v**2)
    cd = wcs.cd
    return cd[0][0] * s * u + cd[0][1] * s * v, cd[1][0] * s * u + cd[1][1] * s * v


def to_sky(wcs: TrueWcs, x: Array, y: Array) -> tuple[Array, Array]:
    """ICRS degrees of 1-based pixel positions."""
    return _deproject(*pixel_to_plane(wcs, np.asarray(x, float), np.asarray(y, float)), wcs.crval)


def pixel_area(wcs: TrueWcs) -> Array:
    """Sky area of each pixel relative to the one at CRPIX; shape as the frame's. Distortion only (TAN: < 1e-5)."""
    y, x = np.mgrid[1 : wcs.shape[0] + 1, 1 : wcs.shape[1] + 1].astype(float)
    r2 = (x - wcs.crpix[0]) ** 2 + (y - wcs.crpix[1]) ** 2
    area: Array = (1 + wcs.k * r2) * (1 + 3 * wcs.k * r2)
    return area


def wcs_header(wcs: TrueWcs) -> dict[str, str | float | int]:
    """The mapping as FITS cards (TAN-SIP) for `astropy.wcs.WCS`."""
    k = wcs.k
    return {
        "WCSAXES": 2, "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CUNIT1": "deg", "CUNIT2": "deg",
        "CRVAL1": wcs.crval[0], "CRVAL2": wcs.crval[1], "CRPIX1": wcs.crpix[0], "CRPIX2": wcs.crpix[1],
        "CD1_1": wcs.cd[0][0], "CD1_2": wcs.cd[0][1], "CD2_1": wcs.cd[1][0], "CD2_2": wcs.cd[1][1],
        "RADESYS": "ICRS", "NAXIS1": wcs.shape[1], "NAXIS2": wcs.shape[0],
        "A_ORDER": 3, "B_ORDER": 3, "A_3_0": k, "A_1_2": k, "B_0_3": k, "B_2_1": k,
    }  # fmt: skip
