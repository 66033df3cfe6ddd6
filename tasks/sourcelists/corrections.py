"""Corrections that bring all magnitudes of a point source to that of the largest aperture, and what they leave."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from models.sourcelist import APERTURES_FWHM, SourceFlag
from tasks.sourcelists.images import BandImage, BoolImage, FloatArray, robust

__all__ = ["LEAST_FLOOR", "Correction", "correct", "correction_stars", "enclosed", "like_stars", "shares"]

_SNR = 60.0
_FEWEST, _LINEAR, _QUADRATIC = 5, 25, 60
_ISOLATION_FWHM = 7.0
_NEIGHBOUR = 0.02
LEAST_FLOOR = 0.003
"""Errors of flat fields and of stars' shape that a comparison of apertures on one image does not show, mag."""


class Correction(NamedTuple):
    """What is to be added to a magnitude; shape (N,), and its middle; and the scatter of stars about it, mag."""

    at: FloatArray
    middle: float
    floor: float
    n_stars: int


def correction_stars(
    band: BandImage, x: FloatArray, y: FloatArray, flux: FloatArray, error: FloatArray, flags: np.ndarray,
    starlike: BoolImage,
) -> tuple[BoolImage, BoolImage]:  # fmt: skip
    """Bright, clean, isolated stars of a band: for the corrections, and those that some frames lack.

    Parameters
    ----------
    band
        Its FWHM.
    x, y, flux, error, flags
        Of all sources, in an aperture of 1.5 FWHM.
    starlike
        What may be a star.
    """
    ruled_out = SourceFlag.MASKED | SourceFlag.EDGE | SourceFlag.SATURATED | SourceFlag.NO_DATA | SourceFlag.LOW_WEIGHT
    with np.errstate(divide="ignore", invalid="ignore"):
        good = starlike & (flux > _SNR * error) & ((flags & int(ruled_out)) == 0)
    if not good.any():
        return np.asarray(good), np.asarray(good)
    places = np.column_stack([x, y])
    near = cKDTree(places).query_ball_point(places[good], _ISOLATION_FWHM * band.fwhm_px)
    light = np.maximum(np.nan_to_num(flux), 0.0)
    same = good & ((flags & int(SourceFlag.FEWER_FRAMES)) == 0)
    alone = [
        light[others].sum() - light[i] < _NEIGHBOUR * light[i]
        for i, others in zip(np.flatnonzero(good), near, strict=True)
    ]
    lonely = np.zeros(good.size, bool)
    lonely[np.flatnonzero(good)[np.array(alone)]] = True
    # Of a star that some frames lack, the stack shows another width.
    whole = lonely & same
    return np.asarray(whole if np.count_nonzero(whole) >= _FEWEST else lonely), np.asarray(lonely & ~same)


_LIKE_A_STAR_MAG = 0.08


def like_stars(band: BandImage, small: FloatArray, large: FloatArray) -> BoolImage:
    """Sources whose light grows from the smallest aperture to the next as the PSF's does, to 0.08 mag.

    Parameters
    ----------
    band
        With its PSF; without one, all are.
    small, large
        Fluxes in the first two apertures.
    """
    part = shares(band)
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = -2.5 * np.log10(small / large)
    if part is None:
        return np.asarray(np.isfinite(growth))
    return np.asarray(np.abs(growth + 2.5 * np.log10(part[0] / part[1])) < _LIKE_A_STAR_MAG)


def _terms(x: FloatArray, y: FloatArray, shape: tuple[int, ...], n_stars: int) -> FloatArray:
    u, v = 2 * x / shape[1] - 1, 2 * y / shape[0] - 1
    columns = [np.ones_like(u)]
    if n_stars >= _LINEAR:
        columns += [u, v]
    if n_stars >= _QUADRATIC:
        columns += [u * u, u * v, v * v]
    return np.column_stack(columns)


def correct(
    band: BandImage, x: FloatArray, y: FloatArray, flux: FloatArray, error: FloatArray, reference: FloatArray,
    reference_error: FloatArray, stars: BoolImage, share: float | None,
) -> Correction:  # fmt: skip
    """Correction of a flux to that of the largest aperture, from stars; a quadratic over the field if they are many.

    Robust least squares (Tukey's biweight). Fewer than 5 stars: `share`, what the PSF says; without a PSF none.

    Parameters
    ----------
    band, x, y
        Where the sources are.
    flux, error
        To be corrected, shape (N,).
    reference, reference_error
        In the largest aperture, shape (N,).
    stars
        Of which it is measured.
    share
        Part of the largest aperture's light that `flux` holds, by the PSF.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        step = -2.5 * np.log10(reference / flux)
        noise = 1.0857 * np.hypot(error / flux, reference_error / reference)
    used = stars & np.isfinite(step) & np.isfinite(noise) & (np.abs(step) < 3.0)
    n = int(used.sum())
    if n < _FEWEST:
        middle = 2.5 * np.log10(share) if share else 0.0
        return Correction(np.full(x.size, middle), float(middle), 0.02, 0)
    weight = 1.0 / np.hypot(noise[used], 0.005)
    terms = _terms(x, y, band.data.shape, n)
    design = terms[used]
    bisquare = np.ones(n)
    fitted: FloatArray = np.zeros(design.shape[1])
    for _ in range(15):
        w = weight * np.sqrt(bisquare)
        fitted = np.asarray(np.linalg.lstsq(design * w[:, None], step[used] * w, rcond=None)[0], np.float64)
        left = (step[used] - design @ fitted) * weight
        scale = max(robust(left), 1e-6)
        bisquare = np.square(np.clip(1.0 - np.square(left / (5.0 * scale)), 0.0, None))
    residual = step[used] - design @ fitted
    kept = bisquare > 0
    freedom = np.sqrt(kept.sum() / max(kept.sum() - design.shape[1], 1))
    excess = (robust(residual[kept]) * freedom) ** 2 - float(np.median(np.square(noise[used][kept])))
    reach = np.column_stack([terms[:, 0], np.clip(terms[:, 1:], -1.0, 1.0)])
    return Correction(reach @ fitted, float(np.median(design @ fitted)), float(np.sqrt(max(excess, 0.0))), n)


def _growth(band: BandImage) -> tuple[FloatArray, FloatArray]:
    """Radii (px) and the part of a point source's light inside them."""
    assert band.psf is not None
    fine = 5
    side = band.psf.shape[0] * fine
    axis = (np.arange(side) - (side - 1) / 2) / fine
    distance = np.hypot(*np.meshgrid(axis, axis))
    light = np.kron(band.psf, np.ones((fine, fine))) / fine**2
    radii = np.linspace(0.5, band.psf.shape[0] // 2, 60)
    return radii, np.array([float(light[distance <= radius].sum()) for radius in radii])


def shares(band: BandImage) -> tuple[float, ...] | None:
    """Part of the largest aperture's light that each aperture holds, by the PSF; the PSF's own is last."""
    if band.psf is None:
        return None
    inside = enclosed(band, np.array([radius * band.fwhm_px for radius in APERTURES_FWHM]))
    return (
        *(float(each) for each in inside),
        float(1.0 / np.interp(APERTURES_FWHM[-1] * band.fwhm_px, *_growth(band))),
    )


def enclosed(band: BandImage, radius: FloatArray) -> FloatArray:
    """Part of the light of the largest aperture's that a circle holds of a point source; at most 1. 1 without a PSF."""
    if band.psf is None:
        return np.ones(radius.shape)
    radii, inside = _growth(band)
    whole = np.interp(APERTURES_FWHM[-1] * band.fwhm_px, radii, inside)
    return np.asarray(np.clip(np.interp(radius, radii, inside) / whole, 0.05, 1.0))
