"""Aperture photometry of the stars that tie the frames of a filter together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import sep
from astropy.table import Table
from scipy.spatial import cKDTree

from models.settings import PhotometrySettings

__all__ = ["StarFluxes", "measure_stars", "usable_stars"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_ANNULUS = (1.5, 2.2)
"""Inner and outer radius of the sky annulus, aperture radii: outside of what a Moffat star still adds."""

_ENOUGH = 30
"""Isolated stars that make crowded ones unnecessary."""

_BRIGHTEST = 400
"""Stars measured on a frame: beyond them the scale no longer gains."""


@dataclass(frozen=True)
class StarFluxes:
    """Fluxes of the stars of one frame.

    Attributes
    ----------
    x, y
        Centres, FITS pixels, shape (n,).
    flux, sigma
        Aperture flux above the local sky and its error, ADU.
    """

    x: FloatArray
    y: FloatArray
    flux: FloatArray
    sigma: FloatArray


def usable_stars(
    sources: Table, shape: tuple[int, int], fwhm_px: float, peak_limit: float, settings: PhotometrySettings
) -> IntArray:
    """Indices of sources fit for photometry: bright, unsaturated, off the edge, isolated where enough are.

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
        ``min_snr``, ``aperture_fwhm``, ``isolation_fwhm``.
    """
    x, y = np.asarray(sources["X"], float), np.asarray(sources["Y"], float)
    flux = np.asarray(sources["FLUX"], float)
    margin = settings.aperture_fwhm * fwhm_px + 2.0
    fit = (
        (np.asarray(sources["SNR"], float) >= settings.min_snr)
        & (np.asarray(sources["PEAK"], float) < peak_limit)
        & (np.asarray(sources["FWHM_PX"], float) > 0.5 * fwhm_px)  # cosmic rays are sharper than the seeing
        & (np.asarray(sources["FWHM_PX"], float) < 2.0 * fwhm_px)
        & (x > margin) & (x < shape[1] + 1 - margin) & (y > margin) & (y < shape[0] + 1 - margin)
        & (flux > 0)
    )  # fmt: skip
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
    radius: float,
) -> StarFluxes:
    """Aperture fluxes above the median of an annulus; stars with a masked pixel in the aperture are left out.

    The sky is the clipped median of the annulus: `sep`'s own annulus takes the mean, which biases crowded
    fields by about 10 mmag.

    Parameters
    ----------
    data, mask, variance
        Frame (ADU), its mask and its variance (ADU^2), shape (ny, nx).
    x, y
        Centres, FITS pixels.
    radius
        Of the aperture, px.
    """
    image = np.ascontiguousarray(data, dtype=np.float32)
    bad = np.ascontiguousarray(mask != 0)
    image = np.where(bad, np.float32(0), image)
    noise = np.where(bad | ~np.isfinite(variance), 0, variance).astype(np.float32)
    cx, cy = x - 1.0, y - 1.0
    total, _, _ = sep.sum_circle(image, cx, cy, radius, subpix=0)
    error2, _, _ = sep.sum_circle(noise, cx, cy, radius, subpix=0)
    spoiled, _, _ = sep.sum_circle(bad.astype(np.float32), cx, cy, radius, subpix=0)
    sky, sky_error = _annulus_sky(image, bad, cx, cy, radius)
    area = np.pi * radius**2
    flux = total - sky * area
    sigma = np.sqrt(error2 + (sky_error * area) ** 2)
    good = (spoiled == 0) & np.isfinite(flux) & np.isfinite(sigma) & (flux > 0) & (sigma > 0)
    return StarFluxes(x=x[good], y=y[good], flux=flux[good], sigma=sigma[good])


def _annulus_sky(
    image: npt.NDArray[np.float32], bad: npt.NDArray[np.bool_], x: FloatArray, y: FloatArray, radius: float
) -> tuple[FloatArray, FloatArray]:
    inner, outer = (factor * radius for factor in _ANNULUS)
    reach = int(np.ceil(outer))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    distance = np.hypot(dx, dy)
    ring = (distance >= inner) & (distance <= outer)
    columns = np.rint(x).astype(int)[:, None] + dx[ring][None, :]
    rows = np.rint(y).astype(int)[:, None] + dy[ring][None, :]
    inside = (rows >= 0) & (rows < image.shape[0]) & (columns >= 0) & (columns < image.shape[1])
    rows, columns = np.where(inside, rows, 0), np.where(inside, columns, 0)
    values = np.where(inside & ~bad[rows, columns], image[rows, columns], np.nan).astype(float)
    enough = np.isfinite(values).sum(axis=1) >= 20
    values[~enough] = 0.0
    for _ in range(4):
        middle = np.nanmedian(values, axis=1, keepdims=True)
        spread = 1.4826 * np.nanmedian(np.abs(values - middle), axis=1, keepdims=True)
        values[np.abs(values - middle) > 3.0 * np.maximum(spread, 1e-6)] = np.nan
    count = np.maximum(np.isfinite(values).sum(axis=1), 1)
    sky = np.nanmedian(values, axis=1)
    error = 1.2533 * np.nanstd(values, axis=1) / np.sqrt(count)
    return np.where(enough, sky, np.nan), error
