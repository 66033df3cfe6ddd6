"""Aperture photometry of the stars that tie the frames of a filter together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.table import Table
from scipy.spatial import cKDTree

from models.settings import PhotometrySettings
from tasks.photometry import aperture_fluxes, growth_curve, prepare_image

__all__ = ["StarFluxes", "measure_stars", "usable_stars"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_ENOUGH = 30
"""Isolated stars that make crowded ones unnecessary."""

_BRIGHTEST = 400
"""Stars measured on a frame: beyond them the scale no longer gains."""

_POINTLIKE, _WIDTH_NOISE = 1.25, 2.5
"""Widest FWHM of a star, in units of the seeing, and what is added to it at S/N 1: on simulated frames stars with S/N
above 30 are within 0.9-1.1, knots of a spiral and galaxies beyond 1.35."""

_CURVE_SNR = 50.0
_CURVE_STARS = 100


@dataclass(frozen=True)
class StarFluxes:
    """Fluxes of the stars of one frame.

    Attributes
    ----------
    x, y
        Centres, FITS pixels, shape (n,).
    flux, sigma
        Total flux and its error, ADU.
    """

    x: FloatArray
    y: FloatArray
    flux: FloatArray
    sigma: FloatArray


def usable_stars(
    sources: Table, shape: tuple[int, int], fwhm_px: float, peak_limit: float, settings: PhotometrySettings
) -> IntArray:
    """Indices of sources fit for photometry: bright, unsaturated, off the edge, stars, isolated where enough are.

    Parameters
    ----------
    sources
        Source table of `tasks.quality`, brightest first.
    shape
        Of the frame (rows, columns).
    fwhm_px
        Seeing.
    peak_limit
        Largest peak above the sky that is still linear, ADU.
    settings
        ``min_snr``, ``aperture_fwhm``, ``isolation_fwhm``; with fewer than ``min_stars`` that look like points all
        count.
    """
    x, y = np.asarray(sources["X"], float), np.asarray(sources["Y"], float)
    flux = np.asarray(sources["FLUX"], float)
    width = np.asarray(sources["FWHM_PX"], float) / fwhm_px
    margin = settings.aperture_fwhm * fwhm_px + 2.0
    fit = (
        (np.asarray(sources["SNR"], float) >= settings.min_snr)
        & (np.asarray(sources["PEAK"], float) < peak_limit)
        & (width > 0.5)  # cosmic rays are sharper than the seeing
        & (width < 2.0)
        & (x > margin) & (x < shape[1] + 1 - margin) & (y > margin) & (y < shape[0] + 1 - margin)
        & (flux > 0)
    )  # fmt: skip
    # Galaxies and H II regions: what of their light an aperture holds depends on the seeing.
    starlike = fit & (width < _POINTLIKE + _WIDTH_NOISE / np.asarray(sources["SNR"], float))
    if np.count_nonzero(starlike) >= settings.min_stars:
        fit = starlike
    chosen = np.flatnonzero(fit)
    if not len(chosen):
        return chosen
    tree = cKDTree(np.column_stack([x, y]))
    near = tree.query_ball_point(np.column_stack([x, y])[chosen], settings.isolation_fwhm * fwhm_px)
    alone = np.array(
        [
            not any(other != i and flux[other] > 0.1 * flux[i] for other in others)
            for i, others in zip(chosen, near, strict=True)
        ]
    )
    if np.count_nonzero(alone) >= _ENOUGH:
        chosen = chosen[alone]
    return chosen[np.argsort(-flux[chosen], kind="stable")][:_BRIGHTEST]


def measure_stars(
    data: npt.NDArray[np.float32],
    mask: npt.NDArray[np.uint8],
    variance: npt.NDArray[np.float32],
    x: FloatArray,
    y: FloatArray,
    fwhm_px: float,
    settings: PhotometrySettings,
) -> StarFluxes:
    """Total fluxes: apertures above the local sky, corrected with the frame's own growth curve.

    The same measure as that of the frames' zero points, so that the two can be tied. Without the correction
    frames whose stars have other wings would be up to 2 % off each other.

    Parameters
    ----------
    data, mask, variance
        Frame (ADU), its mask and its variance (ADU^2), shape (ny, nx).
    x, y
        Centres, FITS pixels, brightest star first.
    fwhm_px
        Seeing.
    settings
        ``aperture_fwhm``.
    """
    radius = settings.aperture_fwhm * fwhm_px
    image = prepare_image(data, mask, variance)
    measured = aperture_fluxes(image, x - 1.0, y - 1.0, radius, core_px=fwhm_px)
    with np.errstate(invalid="ignore"):
        good = (measured.flag == 0) & (measured.flux > 0) & (measured.err > 0)
    strong = np.flatnonzero(good & (measured.flux > _CURVE_SNR * measured.err))[:_CURVE_STARS]
    share = growth_curve(image, x[strong] - 1.0, y[strong] - 1.0, fwhm_px).measured_share(radius)
    return StarFluxes(x=x[good], y=y[good], flux=measured.flux[good] / share, sigma=measured.err[good] / share)
