"""Stars that some frames lack pixels of: the stack shows them with other seeing than the rest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.sourcelist import APERTURES_FWHM
from tasks.sourcelists.corrections import Correction, enclosed
from tasks.sourcelists.images import BandImage, BoolImage, FloatArray

__all__ = ["Fewer", "spread_of", "typical_spreads", "with_loss", "with_own_growth"]

_FEWEST = 3
_SEEING_RATIO = 1.15
"""Of the seeing of the frames that are left to that of all, where too few such stars tell; FWHM differ by some 30 %."""
_PSF_RADIUS = 0.7
"""Circle (FWHM) whose light follows the seeing as the PSF flux does."""
_SAME = 5.0
_OUTLIER = 6.0
_LOSS = 0.7
"""Of light that the largest aperture lacks, over the spread of the smallest's growth: on eight simulated fields (seeds
1, 51, 52, 53; stars of 14 to 18 mag) 0.3 to 1.0, half of them below 0.7."""


class Fewer(NamedTuple):
    """Sources that some frames lack.

    Attributes
    ----------
    all
        Which they are, shape (N,).
    stars
        The bright, clean, isolated ones that may be stars.
    near
        Light of neighbours in the largest aperture.
    """

    all: BoolImage
    stars: BoolImage
    near: FloatArray


def typical_spreads(band: BandImage) -> tuple[float, ...]:
    """How far corrections of such stars are off where none tells, mag: of each smaller aperture, and of the PSF flux.

    From the PSF's growth, were its FWHM 15 % larger or smaller.
    """
    if band.psf is None:
        return (0.05,) * len(APERTURES_FWHM)
    found = []
    for radius in (*APERTURES_FWHM[:-1], _PSF_RADIUS):
        inside = enclosed(band, radius * band.fwhm_px * np.array([1.0 / _SEEING_RATIO, _SEEING_RATIO]))
        found.append(float(1.25 * np.log10(inside[1] / inside[0])))
    return tuple(found)


def with_own_growth(
    flux: FloatArray, error: FloatArray, step: Correction, reference: FloatArray, reference_error: FloatArray,
    fewer: Fewer, typical: float,
) -> tuple[FloatArray, FloatArray, float]:  # fmt: skip
    """Fluxes of such stars from the correction of all stars and from their own light in the largest aperture.

    How far the correction of all stars is off for them is measured on the bright ones, as a scatter S about it. A star
    has the mean of its corrected flux (error and S) and of its flux in the largest aperture, weighed so that their
    common noise counts once: a bright one has its own growth curve, a faint one the correction of all with the error S.
    What differs from a star by more than 5 S, such as a galaxy, keeps its flux, with that error.

    Parameters
    ----------
    flux, error
        Corrected by `step`, shape (N,).
    step
        The correction of all stars.
    reference, reference_error
        In the largest aperture, shape (N,).
    fewer
        Which sources.
    typical
        S where fewer than three stars tell, mag.

    Returns
    -------
    flux, error
        Shape (N,), changed where `fewer.all`.
    spread
        S, mag.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        # Of aperture and largest aperture the light inside is the same: its noise is in both.
        shared = np.square(error) * np.minimum(10 ** (0.4 * step.at), 1.0)
        apart = np.maximum(np.square(error) + np.square(reference_error) - 2.0 * shared, 1e-4 * np.square(error))
        off = 1.0857 * (reference - flux) / flux
        noise = 1.0857 * np.sqrt(apart) / flux
    spread = spread_of(off, noise, fewer.stars, typical)
    wide = spread / 1.0857 * np.maximum(np.nan_to_num(flux), 0.0)
    between = apart + np.square(fewer.near)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.square(wide) / (np.square(wide) + between)
        alike = np.abs(reference - flux) < _SAME * np.sqrt(np.square(wide) + between)
    own = np.where(alike & np.isfinite(own), own, 0.0)
    mixed = flux + own * np.where(own > 0, reference - flux, 0.0)
    variance = (
        np.square(1.0 - own) * (np.square(error) + np.square(wide))
        + np.where(own > 0, np.square(own) * (np.square(reference_error) + np.square(fewer.near)), 0.0)
        + 2.0 * own * (1.0 - own) * shared
    )
    return np.where(fewer.all, mixed, flux), np.where(fewer.all, np.sqrt(variance), error), spread


def with_loss(flux: FloatArray, error: FloatArray, fewer: Fewer, spread: float) -> FloatArray:
    """Errors of such stars with that of the largest aperture itself.

    Where a star's core saturates in the sharp frames, the core is that of the wide ones, the wings those of all: both
    are fainter than they would be in the same frames, and so is the sum, by up to 0.1 mag. Core light that goes missing
    is missing in every aperture, and widens the growth from the smallest aperture to the largest, too.

    Parameters
    ----------
    flux, error
        Of any kind, shape (N,).
    fewer
        Which sources.
    spread
        S of the smallest aperture (`with_own_growth`), mag.
    """
    lost = _LOSS * spread / 1.0857 * np.nan_to_num(flux)
    return np.where(fewer.all, np.hypot(error, lost), error)


def spread_of(off: FloatArray, noise: FloatArray, stars: BoolImage, typical: float) -> float:
    """Scatter of `stars` about 0 beyond their noise; `typical` where fewer than three tell. All in mag, shape (N,)."""
    known = stars & np.isfinite(off) & np.isfinite(noise)
    if np.count_nonzero(known) < _FEWEST:
        return typical
    usual = max(float(np.median(np.abs(off[known]))), 1e-4)
    kept = known & (np.abs(off) <= _OUTLIER * usual)
    return float(np.sqrt(max(np.mean(np.square(off[kept]) - np.square(noise[kept])), 0.0)))
