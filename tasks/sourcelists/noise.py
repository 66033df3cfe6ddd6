"""How much more noise a stack has than its pixels say, measured on empty sky exactly as sources are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from models.sourcelist import APERTURES_FWHM
from tasks.sourcelists.apertures import circles
from tasks.sourcelists.images import BandImage, BoolImage, FloatArray, robust
from tasks.sourcelists.psf import psf_fluxes

__all__ = ["Mixing", "NoiseFactors", "measure_factors", "mixing"]

_RADII = (*APERTURES_FWHM, 0.75, 4.0)
_FEWEST, _MOST = 40, 1500


class NoiseFactors(NamedTuple):
    """Scatter of fluxes on empty sky over the error of independent pixels.

    Attributes
    ----------
    apertures
        Of `APERTURES_FWHM`.
    psf
        Of the PSF flux; None without a PSF.
    radii, at_radii
        Of circles in general: px and factor, radii ascending.
    n
        Places it is from; 0: there was no empty sky, and the header's NOISCORR stands for all.
    """

    apertures: FloatArray
    psf: float | None
    radii: FloatArray
    at_radii: FloatArray
    n: int

    def at(self, radius: FloatArray) -> FloatArray:
        """Of a circle of any radius, px: between the measured ones, beyond them as the last two go on."""
        log_r, log_k = np.log(self.radii), np.log(self.at_radii)
        slope = max((log_k[-1] - log_k[-2]) / (log_r[-1] - log_r[-2]), 0.0)
        inside = np.interp(np.log(radius), log_r, log_k)
        beyond = np.maximum(np.log(radius) - log_r[-1], 0.0)
        return np.asarray(np.exp(inside + slope * beyond))


def _places(empty: BoolImage, radius: float) -> tuple[FloatArray, FloatArray]:
    """Centres whose surroundings hold no source, on a mesh that keeps them apart."""
    room = ndimage.distance_transform_edt(empty)
    step = max(4, int(np.ceil(2.0 * radius)))
    found = np.empty((0, 2), int)
    for clearance in (1.6, 1.2, 0.8):
        rows, columns = np.nonzero(room[step // 2 :: step, step // 2 :: step] > clearance * radius)
        found = np.column_stack([columns, rows]) * step + step // 2
        if len(found) >= 300:
            break
    thin = max(1, int(np.ceil(len(found) / _MOST)))
    x, y = found[::thin].T.astype(float)
    # Off the middle of the pixels: sources are, too.
    shift = np.modf(np.arange(x.size) * 0.618)[0] - 0.5
    return x + shift, y - shift


def measure_factors(band: BandImage, empty: BoolImage, occupied: BoolImage) -> NoiseFactors:
    """Measure empty places of a band as if there were sources.

    What the resampling correlates, the sky's residual structure and the light of sources too faint to be found are in
    the scatter of the fluxes found there; its ratio to the error that independent pixels would give is the factor.

    Parameters
    ----------
    band
        With pixel variances from ``INVVAR`` and the weight map.
    empty
        Where no source is.
    occupied
        Pixels that are no sky, for the rings.
    """
    order = np.argsort(_RADII)
    radii = np.asarray(_RADII)[order] * band.fwhm_px
    x, y = _places(empty, 1.5 * band.fwhm_px)
    if x.size < _FEWEST:
        known = max(float(band.header.get("NOISCORR", 1.0)), 1.0)
        factors = np.full(len(_RADII), known)
        return NoiseFactors(factors[: len(APERTURES_FWHM)], known if band.psf is not None else None, radii, factors, 0)
    found = circles(band, occupied, x, y, _RADII)
    pulls = found.flux / found.white
    factors = np.array([max(robust(column[np.isfinite(column)]), 1e-3) for column in pulls.T])
    psf = None
    if band.psf is not None:
        # One by one: empty places are no neighbours of each other.
        fitted = psf_fluxes(band, x, y, found.sky)
        pull = fitted.flux / fitted.white
        psf = max(robust(pull[np.isfinite(pull)]), 1e-3)
    return NoiseFactors(factors[: len(APERTURES_FWHM)], psf, radii, factors[order], int(x.size))


class Mixing(NamedTuple):
    """What a median of frames with mixed seeing does to the noise of stars.

    On sky a median of N frames has nearly the noise of their mean. In the light of a star that the frames show
    with different widths it is always the same frame, or two, that stand in the middle: there the noise is theirs.
    The variance grows with the star's light in a pixel: by nothing where seeing moves it by less than a frame's
    noise, by `BandImage.solitude` where it moves it by much more.

    Attributes
    ----------
    flux
        Steps of a star's light, ascending.
    sky, photons
        By how much the variance of sky and of photons grows at each step; shape (steps, apertures and PSF).
    """

    flux: FloatArray
    sky: FloatArray
    photons: FloatArray

    def at(self, flux: FloatArray, which: int) -> tuple[FloatArray, FloatArray]:
        """Growth of the sky's and of the photons' variance; `which`: number of the aperture, -1 for the PSF."""
        step = np.log(np.maximum(np.nan_to_num(flux), self.flux[0]))
        steps = np.log(self.flux)
        return np.interp(step, steps, self.sky[:, which]), np.interp(step, steps, self.photons[:, which])


_SEEING_SHARE = 0.3
"""How much of a pixel's light seeing moves from frame to frame, as a share: FWHM differing by some 30 %."""


def mixing(band: BandImage, sigma: float, share: float = _SEEING_SHARE) -> Mixing:
    """Tabulate it for a band; `sigma`: noise of a pixel of the stack."""
    if band.psf is None or band.solitude <= 1.0 or sigma <= 0:
        return Mixing(np.array([1.0, 2.0]), *np.ones((2, 2, len(APERTURES_FWHM) + 1)))
    half = band.psf.shape[0] // 2
    rows, columns = np.indices(band.psf.shape) - half
    distance = np.hypot(rows, columns)
    light = band.psf.ravel()
    inside = [(distance <= radius * band.fwhm_px).ravel().astype(float) for radius in APERTURES_FWHM]
    # The PSF flux weighs a pixel's variance with the square of its light there.
    weights = np.array([*inside, light**2 * inside[0]])
    flux = sigma * np.geomspace(1.0, 1e7, 60)
    moved = share * flux[:, None] * np.maximum(light, 0.0)[None, :] / (sigma * band.frame_sigma)
    alone = moved**2 / (1.0 + moved**2) * (band.solitude - 1.0)
    sky = 1.0 + alone @ weights.T / weights.sum(axis=1)
    of_light = weights * np.maximum(light, 0.0)
    return Mixing(flux, sky, 1.0 + alone @ of_light.T / of_light.sum(axis=1))
