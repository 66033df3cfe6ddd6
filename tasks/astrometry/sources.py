"""What the astrometry needs of a frame's source list and of the Gaia catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from models.base import Roots
from models.catalog import Cone, StoredCone
from models.frame import MeasuredFrame
from models.telescope import Telescope
from tasks.astrometry.headers import frame_geometry
from tasks.astrometry.matching import Floats, Reference
from tasks.catalogs import at_epoch, contains, read_cone
from tasks.quality import read_sources

__all__ = ["Sources", "gaia_reference", "gaia_stars", "in_frame", "load_sources", "fitting_stars", "verification_stars"]

_FLOOR_PX = 0.02
_SATURATED_PX = 0.5
_BLENDED = 3.0
_SATURATION_MARGIN = 0.9
_SPARSE = 20


@dataclass(frozen=True)
class Sources:
    """A frame's sources, brightest first.

    Attributes
    ----------
    x, y
        1-based FITS pixels, f8 (n,).
    flux, snr, fwhm
        ADU, 1, px; f8 (n,).
    saturated, clean
        bool (n,); clean: neither saturated nor blended nor cut off by an edge.
    error
        Expected error of the position, one axis, px, f8 (n,).
    """

    x: Floats
    y: Floats
    flux: Floats
    snr: Floats
    fwhm: Floats
    saturated: NDArray[np.bool_]
    clean: NDArray[np.bool_]
    error: Floats

    def __len__(self) -> int:
        return len(self.x)

    def take(self, which: NDArray[Any] | slice) -> Sources:
        """The sources of a boolean array, a list of indices or a slice."""
        return Sources(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


def load_sources(measured: MeasuredFrame, roots: Roots, telescope: Telescope) -> Sources:
    """Read the source list; rows without a position or a positive flux are left out.

    The error of a position is FWHM / 2.355 / (S/N) (King 1983, PASP 95, 163), with a floor for what the
    detector and the air add; a saturated star's is half a pixel.
    """
    table = read_sources(measured, roots)
    columns = {name: np.asarray(np.ma.filled(table[name], np.nan), dtype="f8") for name in
               ("X", "Y", "FLUX", "SNR", "FWHM_PX", "PEAK")}  # fmt: skip
    flags = np.asarray(table["FLAGS"]).astype(int)
    good = np.isfinite(columns["X"]) & np.isfinite(columns["Y"]) & (columns["FLUX"] > 0) & (columns["SNR"] > 0)
    x, y, flux, snr, fwhm, peak = (column[good] for column in columns.values())
    flags = flags[good]
    ceiling = _SATURATION_MARGIN * min(
        telescope.camera.saturation_adu, telescope.camera.nonlinear_adu or telescope.camera.saturation_adu
    )
    saturated = (peak + max(0.0, measured.quality.sky_adu) >= ceiling) | ((flags & 4) > 0)
    width = np.where(np.isfinite(fwhm) & (fwhm > 0), fwhm, 4.0)
    error = np.hypot(width / 2.355 / snr, _FLOOR_PX)
    error = np.where(flags & 3, _BLENDED * error, error)
    error = np.where(saturated, np.maximum(error, _SATURATED_PX), error)
    order = np.argsort(-flux, kind="stable")
    return Sources(x, y, flux, snr, fwhm, saturated, (flags == 0) & ~saturated, error).take(order)


def in_frame(wcs: WCS, ra: Floats, dec: Floats, shape: tuple[int, int], margin: float = 0.0) -> NDArray[np.bool_]:
    """Which positions fall on the frame by the linear part of its WCS; `margin` (px) widens it."""
    ra0, dec0, scale, _, _ = frame_geometry(wcs, shape)
    near = np.hypot((((ra - ra0) + 180) % 360 - 180) * np.cos(np.radians(dec0)), dec - dec0)
    result = near < 1.5 * (max(shape) + 2 * margin) * scale / 3600 + 0.01
    x, y = wcs.wcs_world2pix(ra[result], dec[result], 1)
    inside = (x > 0.5 - margin) & (x < shape[1] + 0.5 + margin) & (y > 0.5 - margin) & (y < shape[0] + 0.5 + margin)
    result[result] = inside
    return np.asarray(result)


def gaia_stars(gaia: StoredCone, circle: Cone, jyear: float, roots: Roots) -> Reference:
    """All Gaia stars with a magnitude in a circle, moved to an epoch."""
    rows = read_cone(gaia, roots)
    rows = rows[contains(circle, rows["ra"], rows["dec"])]
    moved = at_epoch(rows, jyear)
    mag = np.asarray(moved["G"], dtype="f8")
    keep = np.isfinite(mag)
    error = 3600 * np.hypot(np.asarray(moved["RA_ERR"], "f8"), np.asarray(moved["DEC_ERR"], "f8")) / np.sqrt(2)
    return Reference(
        np.asarray(moved["RA"], "f8")[keep], np.asarray(moved["DEC"], "f8")[keep], error[keep], mag[keep],
        f"{gaia.release}, epoch {jyear:.3f}",
    )  # fmt: skip


def gaia_reference(
    gaia: StoredCone, wcs: WCS, shape: tuple[int, int], jyear: float, roots: Roots, limit: float
) -> Reference:
    """Gaia stars brighter than `limit` (G) on a frame and 20 px around it, at the frame's epoch."""
    ra, dec, scale, _, _ = frame_geometry(wcs, shape)
    radius = 0.55 * float(np.hypot(*shape)) * scale / 3600 + 0.01
    stars = gaia_stars(gaia, Cone(ra=ra, dec=dec, radius=min(radius, 180.0)), jyear, roots)
    stars = stars.take(stars.mag < limit)
    return stars.take(in_frame(wcs, stars.ra, stars.dec, shape, margin=20))


def verification_stars(stars: Reference, limit: float) -> Reference:
    """Those brighter than `limit` (G), or all where fewer than 20 are."""
    bright = stars.mag < limit
    return stars.take(bright) if bright.sum() >= _SPARSE else stars


def fitting_stars(stars: Reference, n_sources: int) -> Reference:
    """The brightest, three times as many as sources: deep in a sparse field, without chance pairs in a rich one."""
    if len(stars) <= 3 * n_sources:
        return stars
    return stars.take(stars.mag <= np.sort(stars.mag)[3 * n_sources - 1])
