"""Star light that a median loses, and whether it loses as much of faint stars as of bright ones.

A pixel's median over frames of mixed seeing is not linear in the stars' profiles: sharp frames lose their cores,
wide ones their wings, and a stack of 1.8-4.0 arcsec frames holds 15-40 mmag less of its stars' light than went in.
The weighted mean of the same resampled frames is linear. The ratio of star fluxes on the two says what is
missing, with the photometric zero point of neither involved.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import sep
from astropy.table import Table

from models.settings import PhotometrySettings
from models.stack import StackLinearity
from tasks.photometry import StarImage, aperture_fluxes, prepare_image
from tasks.stacking.relative import huber_location
from tasks.stacking.starflux import usable_stars

__all__ = ["Beside", "LightLoss", "light_loss", "linearity"]

FloatImage = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

_MIN_STARS = 8
_APERTURE_FWHM = 4.0
_DETECTION_SIGMA = 10.0
_MIN_SNR = 50.0
_SETTINGS = PhotometrySettings(min_snr=_MIN_SNR)

_BENT_APERTURE_FWHM = 1.25
"""Where the sky leaves something of a faint star."""
_BENT_SIGMA = 4.0
_BENT_MIN_SNR = 15.0
_BENT_SETTINGS = PhotometrySettings(min_snr=_BENT_MIN_SNR)
_BRIGHT_SNR, _FAINT_SNR = 250.0, 80.0
"""Stars that stand out of each frame's noise in every pixel of their cores, against those that do in none: of these
a median is as linear as a mean."""
_MIN_OF_A_KIND = 5
"""Of the brightest and of the faintest, where so few are that bright or that faint."""
_OWN_NOISE = 0.7
"""Of a star's noise (mag times S/N), what a median does not share with the mean."""
_LEAST_APART = 1.5
"""Magnitudes between the typical bright and the typical faint star."""
_WIDTH_OF_HALF_LIGHT = 1.54
"""FWHM over half-light radius of a Moffat profile of beta 3, 2 (2^(1/3) - 1)^0.5 / (2^(1/2) - 1)^0.5 = 1.58, less
what pixels add."""


@dataclass(frozen=True)
class LightLoss:
    """What a stack's stars have lost against the mean of its frames.

    Attributes
    ----------
    magnitude, error
        How much too faint the stars are, mag; its error.
    n_stars
        It was measured on.
    """

    magnitude: float
    error: float
    n_stars: int


@dataclass(frozen=True)
class Beside:
    """A stack beside the mean of its frames, each made ready for measuring once for all that is measured on them.

    Attributes
    ----------
    image, mean
        The stack and the weighted mean, sky subtracted, shape (ny, nx).
    bad
        Pixels without data on one of them.
    """

    image: FloatImage
    mean: FloatImage
    bad: npt.NDArray[np.bool_]

    def _clean(self, data: FloatImage) -> tuple[FloatImage, sep.Background]:
        clean = np.ascontiguousarray(np.where(self.bad, 0, data), dtype=np.float32)
        mesh = min(64, *clean.shape)
        return clean, sep.Background(clean, mask=self.bad, bw=mesh, bh=mesh)

    @cached_property
    def _images(self) -> tuple[tuple[FloatImage, sep.Background], tuple[FloatImage, sep.Background]]:
        return self._clean(self.image), self._clean(self.mean)

    @cached_property
    def ready(self) -> tuple[StarImage, StarImage]:
        """Stack and mean ready for apertures, the same noise in all pixels of each."""
        one, two = (
            prepare_image(
                clean, self.bad, np.full(clean.shape, max(background.globalrms, 1e-12) ** 2, np.float32)
            )
            for clean, background in self._images
        )  # fmt: skip
        return one, two

    @cached_property
    def flat(self) -> tuple[FloatImage, float]:
        """The mean above its sky, and its noise."""
        clean, background = self._images[1]
        return clean - background.back(dtype=np.float32), float(background.globalrms)


def _stars(
    beside: Beside,
    fwhm_px: float,
    linear_limit: float,
    sigma: float = _DETECTION_SIGMA,
    settings: PhotometrySettings = _SETTINGS,
) -> Table | None:
    flat, noise = beside.flat
    if noise <= 0:
        return None
    sep.set_extract_pixstack(max(300_000, flat.size))
    found = sep.extract(flat, sigma, err=noise, mask=beside.bad, minarea=5)
    if not len(found):
        return None
    half, _ = sep.flux_radius(flat, found["x"], found["y"], 6.0 * found["a"], 0.5, normflux=found["flux"], subpix=5)
    table = Table({
        "X": found["x"] + 1.0, "Y": found["y"] + 1.0, "FLUX": found["flux"], "PEAK": found["peak"],
        "FWHM_PX": _WIDTH_OF_HALF_LIGHT * half,
        "SNR": found["flux"] / (noise * np.sqrt(np.pi) * 2.0 * fwhm_px),
    })  # fmt: skip
    table = table[(found["flag"] == 0) & (found["a"] < 1.5 * found["b"])]
    return table[usable_stars(table, flat.shape, fwhm_px, 0.8 * linear_limit, settings)]


def _on_both(
    beside: Beside, x: FloatArray, y: FloatArray, radius: float, fwhm_px: float, min_snr: float
) -> tuple[list[FloatArray], list[FloatArray], npt.NDArray[np.bool_]]:
    """Fluxes of the same stars on two images, their relative errors, and which are good on both."""
    fluxes: list[FloatArray] = []
    errors: list[FloatArray] = []
    good: npt.NDArray[np.bool_] = np.ones(len(x), bool)
    for prepared in beside.ready:
        found = aperture_fluxes(prepared, x, y, radius, core_px=fwhm_px)
        good &= (found.flag == 0) & (found.flux > min_snr * found.err)
        fluxes.append(np.asarray(found.flux, np.float64))
        errors.append(found.err / np.maximum(found.flux, 1e-30))
    return fluxes, errors, good


def light_loss(beside: Beside, fwhm_px: float, linear_limit: float) -> LightLoss | None:
    """How much fainter stars are on a stack than on the mean of the same frames.

    Fluxes of the same isolated unsaturated stars on both, in apertures of 4 FWHM: what lies outside them differs by
    1-2 mmag between the two, and no profile has to be assumed.

    Parameters
    ----------
    beside
        The stack and the weighted mean.
    fwhm_px
        Typical seeing, px.
    linear_limit
        Level up to which every frame is linear.

    Returns
    -------
    LightLoss or None
        None where fewer than 8 stars are fit for it.
    """
    stars = _stars(beside, fwhm_px, linear_limit)
    if stars is None or len(stars) < _MIN_STARS:
        return None
    x, y = np.asarray(stars["X"], float) - 1.0, np.asarray(stars["Y"], float) - 1.0
    radius = _APERTURE_FWHM * fwhm_px
    fluxes, errors, good = _on_both(beside, x, y, radius, fwhm_px, _MIN_SNR)
    if np.count_nonzero(good) < _MIN_STARS:
        return None
    fainter = -2.5 * np.log10(fluxes[0][good] / fluxes[1][good])
    # Both images have the same noise but for the combination: the larger of the two errors is ample.
    centre, error = huber_location(fainter, np.hypot(np.maximum(errors[0], errors[1])[good], 0.005))
    return LightLoss(magnitude=centre, error=error, n_stars=int(np.count_nonzero(good)))


def linearity(beside: Beside, fwhm_px: float, linear_limit: float) -> StackLinearity | None:
    """How much fainter faint stars are on a stack than bright ones, against the mean of the same frames.

    The mean is linear in every pixel, and the noise of the two is nearly the same: so their ratio tells millimagnitudes
    where a comparison with a catalogue would be lost in the noise of faint stars. What bends the frames themselves
    (the detector) is on both and not seen.

    Parameters
    ----------
    beside, fwhm_px, linear_limit
        As for `light_loss`.

    Returns
    -------
    StackLinearity or None
        None where fewer than 10 stars are fit for it, or bright and faint ones are less than 1.5 mag apart.
    """
    stars = _stars(beside, fwhm_px, linear_limit, _BENT_SIGMA, _BENT_SETTINGS)
    if stars is None or not len(stars):
        return None
    x, y = np.asarray(stars["X"], float) - 1.0, np.asarray(stars["Y"], float) - 1.0
    fluxes, errors, good = _on_both(beside, x, y, _BENT_APERTURE_FWHM * fwhm_px, fwhm_px, _BENT_MIN_SNR)
    if np.count_nonzero(good) < 2 * _MIN_OF_A_KIND:
        return None
    fainter = -2.5 * np.log10(fluxes[0][good] / fluxes[1][good])
    snr = 1.0 / errors[1][good]
    order = np.argsort(-snr, kind="stable")
    n_bright = max(_MIN_OF_A_KIND, int(np.count_nonzero(snr > _BRIGHT_SNR)))
    n_faint = max(_MIN_OF_A_KIND, int(np.count_nonzero(snr < _FAINT_SNR)))
    of_kind = [order[:n_bright], order[-n_faint:]]
    if 2.5 * np.log10(np.median(snr[of_kind[0]]) / np.median(snr[of_kind[1]])) < _LEAST_APART:
        return None
    (bright, bright_error), (faint, faint_error) = (
        huber_location(fainter[chosen], np.hypot(_OWN_NOISE / snr[chosen], 0.003)) for chosen in of_kind
    )
    return StackLinearity(
        magnitude=faint - bright, error=float(np.hypot(bright_error, faint_error)), n_bright=n_bright, n_faint=n_faint
    )
