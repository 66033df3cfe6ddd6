"""Every source of a group in every band: fluxes with errors that hold, corrected to each other for point sources."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.sourcelist import APERTURES_FWHM, SourceBand, SourceFlag
from tasks.sourcelists.apertures import Circles, Kron, blemishes, circles, kron
from tasks.sourcelists.corrections import (
    LEAST_FLOOR,
    correct,
    correction_stars,
    enclosed,
    like_stars,
    shares,
)
from tasks.sourcelists.detect import Detection
from tasks.sourcelists.fewer import Fewer, spread_of, typical_spreads, with_loss, with_own_growth
from tasks.sourcelists.images import BandImage, BoolImage, FloatArray
from tasks.sourcelists.noise import Mixing, NoiseFactors, measure_factors, mixing
from tasks.sourcelists.psf import PsfFluxes, neighbour_light, psf_fluxes

__all__ = ["Measured", "measure_band"]

_NEIGHBOURS = 0.05


class Measured(NamedTuple):
    """A band of the source list; arrays of shape (N,), apertures (N, 3); NaN where nothing was measured.

    Attributes
    ----------
    aperture, aperture_err
        Corrected to the largest aperture, units of the stack.
    kron, kron_err
        As measured: of an ellipse that holds most of a galaxy's light.
    psf, psf_err
        Corrected to the largest aperture.
    """

    band: BandImage
    aperture: FloatArray
    aperture_err: FloatArray
    kron: FloatArray
    kron_err: FloatArray
    psf: FloatArray
    psf_err: FloatArray
    chi2: FloatArray
    sky: FloatArray
    flags: npt.NDArray[np.int32]
    summary: SourceBand


def _error(
    flux: FloatArray, white: FloatArray, factor: float | FloatArray, gain: float, grown: tuple[FloatArray, FloatArray]
) -> FloatArray:
    """Noise of the sky, with what neighbouring pixels share, and of the source's photons."""
    light = np.maximum(np.nan_to_num(flux), 0.0)
    sky, photons = grown
    return np.sqrt(np.square(factor * white) * sky + light / gain * photons)


def _with_floor(flux: FloatArray, error: FloatArray, floor: float) -> FloatArray:
    """With what does not fall with flux, mag."""
    return np.hypot(error, floor / 1.0857 * np.nan_to_num(flux))


def measure_band(band: BandImage, seen: Detection, starlike: BoolImage | None = None) -> Measured:
    """Measure all sources of a group in a band.

    Apertures of 1, 1.5 and 3 FWHM about the detection's places, Kron's ellipse of the detection, and PSF fluxes of
    all sources together. Point sources' magnitudes are corrected to the aperture of 3 FWHM, in which `PHOTZP` holds.

    Parameters
    ----------
    band
        Image, noise and PSF.
    seen
        The detection on all bands.
    starlike
        What may be a star (shape (N,)), for the corrections; default: what is as wide as the PSF.
    """
    x, y = seen.x, seen.y
    occupied = (seen.segments > 0) | band.bad
    factors = measure_factors(band, seen.empty & ~band.bad, occupied)
    circle = circles(band, occupied, x, y)
    ellipse = kron(band, seen, circle.sky)
    flags = blemishes(band, x, y)
    medians = mixing(band, float(np.sqrt(np.median(band.variance[~band.bad]))))
    guess = np.maximum(circle.flux[:, 1], 0.0)
    error = np.column_stack(
        [
            _error(circle.flux[:, k], circle.white[:, k], factors.apertures[k], band.gain, medians.at(guess, k))
            for k in range(len(APERTURES_FWHM))
        ]
    )
    shaped = like_stars(band, circle.flux[:, 0], circle.flux[:, 1])
    lacking = (flags & SourceFlag.FEWER_FRAMES) > 0
    # Of the stars that some frames lack the width tells nothing.
    may_be = shaped if starlike is None else starlike & (shaped | lacking)
    stars, odd = correction_stars(band, x, y, circle.flux[:, 1], error[:, 1], flags, may_be)
    stars &= shaped
    fitted = psf_fluxes(band, x, y, circle.sky) if band.psf is not None else None
    near = np.zeros(x.size)
    if fitted is not None:
        near = neighbour_light(band, x, y, fitted.flux, APERTURES_FWHM[-1] * band.fwhm_px)
    fewer = Fewer(lacking, odd, near)
    return _assembled(band, seen, circle, ellipse, fitted, factors, medians, flags, stars, fewer, error)


def _assembled(
    band: BandImage, seen: Detection, circle: Circles, ellipse: Kron, fitted: PsfFluxes | None, factors: NoiseFactors,
    medians: Mixing, flags: npt.NDArray[np.int32], stars: BoolImage, fewer: Fewer, error: FloatArray,
) -> Measured:  # fmt: skip
    x, y = seen.x, seen.y
    part = shares(band)
    reference, reference_error = circle.flux[:, -1], error[:, -1]
    last = len(APERTURES_FWHM) - 1
    steps = [
        correct(
            band, x, y, circle.flux[:, k], error[:, k], reference, reference_error, stars, part[k] if part else None
        )
        for k in range(last)
    ]
    common = float(np.hypot(LEAST_FLOOR, band.zero_point_error))
    floors = [float(np.hypot(step.floor, common)) for step in steps] + [common]
    raised = np.column_stack([10 ** (-0.4 * step.at) for step in steps] + [np.ones(x.size)])
    aperture, noise_of = circle.flux * raised, error * raised
    typical = typical_spreads(band)
    spreads = []
    for k, step in enumerate(steps):
        aperture[:, k], noise_of[:, k], spread = with_own_growth(
            aperture[:, k], noise_of[:, k], step, reference, reference_error, fewer, typical[k]
        )
        spreads.append(spread)
    aperture_err = np.column_stack(
        [
            with_loss(aperture[:, k], _with_floor(aperture[:, k], noise_of[:, k], floors[k]), fewer, spreads[0])
            for k in range(last + 1)
        ]
    )
    psf = psf_err = chi2 = np.full(x.size, np.nan)
    psf_step, psf_floor = None, None
    if fitted is None:
        flags |= SourceFlag.NO_PSF
    else:
        assert factors.psf is not None
        sky, photons = medians.at(fitted.flux, -1)
        noise = np.sqrt(np.square(factors.psf * fitted.white) * sky + fitted.photons * photons)
        psf_step = correct(
            band, x, y, fitted.flux, noise, reference, reference_error, stars, part[-1] if part else None
        )
        psf_floor = float(np.hypot(psf_step.floor, common))
        up = 10 ** (-0.4 * psf_step.at)
        # An error of the PSF acts on what neighbours throw under a source, too.
        chi2 = fitted.chi2
        psf, noise, _ = with_own_growth(
            fitted.flux * up, noise * up, psf_step, reference, reference_error, fewer, typical[-1]
        )
        psf_err = _with_floor(psf * np.hypot(1.0, np.nan_to_num(fitted.share)), noise, psf_floor)
        psf_err = with_loss(psf, psf_err, fewer, spreads[0])
        flags[~np.isfinite(psf)] |= SourceFlag.BAD_FIT
        radius = APERTURES_FWHM[1] * band.fwhm_px
        near = neighbour_light(band, x, y, fitted.flux, radius)
        flags[near > _NEIGHBOURS * np.maximum(circle.flux[:, 1] - near, 1e-30)] |= SourceFlag.BLENDED
    total, total_err = _kron(
        band, ellipse, factors, medians, stars, fewer, reference, reference_error, common, typical[last - 1]
    )
    total_err = with_loss(total, total_err, fewer, spreads[0])
    nothing = (flags & SourceFlag.NO_DATA) > 0
    for each in (aperture, aperture_err, total, total_err):
        each[nothing] = np.nan
    return Measured(
        band=band, aperture=aperture, aperture_err=aperture_err, kron=total, kron_err=total_err,
        psf=psf, psf_err=psf_err, chi2=chi2, sky=np.where(nothing, np.nan, circle.sky), flags=flags,
        summary=SourceBand(
            filter=band.filter, column=band.column, zero_point=band.zero_point, fwhm_px=round(band.fwhm_px, 4),
            n_stars=min(step.n_stars for step in steps),
            aperture_correction=(*(round(step.middle, 5) for step in steps), 0.0),
            psf_correction=None if psf_step is None else round(psf_step.middle, 5),
            noise_factor=tuple(round(float(factor), 4) for factor in factors.apertures),
            psf_noise_factor=None if factors.psf is None else round(factors.psf, 4),
            floor=tuple(round(floor, 5) for floor in floors),
            psf_floor=None if psf_floor is None else round(psf_floor, 5),
            n_measured=int(np.count_nonzero(~nothing)),
        ),
    )  # fmt: skip


def _kron(
    band: BandImage, ellipse: Kron, factors: NoiseFactors, medians: Mixing, stars: BoolImage, fewer: Fewer,
    reference: FloatArray, reference_error: FloatArray, common: float, typical: float,
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Kron fluxes raised by the light of a point source beyond a circle of the ellipse's area, and their errors.

    How far stars then scatter about the largest aperture is the part of the error that does not fall with flux.
    """
    held = enclosed(band, ellipse.radius)
    flux = ellipse.flux / held
    error = _error(flux, ellipse.white / held, factors.at(ellipse.radius), band.gain, medians.at(flux, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        step = -2.5 * np.log10(reference / flux)
        noise = 1.0857 * np.hypot(error / flux, reference_error / reference)
    known = stars & np.isfinite(step) & np.isfinite(noise)
    left = np.median(np.square(step[known])) / 0.455 - np.median(np.square(noise[known])) if known.sum() >= 5 else 4e-4
    whole = float(np.hypot(np.sqrt(max(float(left), 0.0)), common))
    with np.errstate(divide="ignore", invalid="ignore"):  # one lies in the other: their common noise is no difference
        apart = 1.0857 * np.sqrt(np.abs(np.square(reference_error) - np.square(error))) / flux
    lacking = float(np.hypot(spread_of(step, apart, fewer.stars, typical), common))
    error = np.where(fewer.all, _with_floor(flux, error, max(lacking, whole)), _with_floor(flux, error, whole))
    return flux, error
