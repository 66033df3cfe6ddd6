"""Aperture photometry of stars on frames and stacks alike, and the growth curve that brings it to all light.

Pixel positions are zero-based array coordinates throughout: the centre of ``data[0, 0]`` is (0, 0).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sep
from scipy.optimize import least_squares
from scipy.special import stdtr

from tasks.photometry.images import StarImage, prepare_image

__all__ = [
    "DEFAULT_BETA",
    "Apertures",
    "GrowthCurve",
    "aperture_fluxes",
    "aperture_photometry",
    "default_curve",
    "fit_growth_curve",
    "growth_curve",
    "moffat_enclosed",
]

FloatArray = npt.NDArray[np.floating[Any]]

SKY_INNER, SKY_OUTER = 4.0 / 3.0, 2.0
"""Radii of the sky annulus, in aperture radii."""


class Apertures(NamedTuple):
    """Fluxes of stars: ``flux, err, flag, sky`` (sky and flux in the image's unit), one value a star."""

    flux: FloatArray
    err: FloatArray
    flag: npt.NDArray[np.uint8]
    sky: FloatArray


def aperture_photometry(
    data: FloatArray,
    mask: npt.NDArray[Any],
    var: FloatArray,
    x: FloatArray,
    y: FloatArray,
    radius_px: float,
    *,
    core_px: float | None = None,
    sky_px: tuple[float, float] | None = None,
) -> Apertures:
    """Flux of stars in circular apertures above the local sky.

    The sky is the clipped *median* of the pixels of an annulus that hold no light of a source: sep's own
    ``bkgann`` is a mean, which neighbours pull up by 8-13 mmag in crowded fields. Masked pixels outside a
    star's core are filled from their neighbours; a masked pixel in the core cannot be, and flags the star.

    Parameters
    ----------
    data
        Image, 2-D, any sky level.
    mask
        Same shape; a pixel is used only where it is 0. Non-finite pixels count as masked.
    var
        Variance per pixel, same shape, unit of `data` squared.
    x, y
        Zero-based positions, px, shape (N,).
    radius_px
        Aperture radius, px.
    core_px
        A masked pixel within this radius flags CORE_MASKED; default a third of `radius_px`
        (1 FWHM for an aperture of 3 FWHM).
    sky_px
        Inner and outer radius of the annulus; default 4/3 and 2 aperture radii.

    Returns
    -------
    Apertures
        flux, err (sqrt of the summed variance and the sky's own error), flag (`ApertureFlag`), sky; shape (N,).
    """
    return aperture_fluxes(prepare_image(data, mask, var), x, y, radius_px, core_px=core_px, sky_px=sky_px)


def aperture_fluxes(
    image: StarImage,
    x: FloatArray,
    y: FloatArray,
    radius_px: float,
    *,
    core_px: float | None = None,
    sky_px: tuple[float, float] | None = None,
) -> Apertures:
    """As `aperture_photometry`, on an image that was prepared once for several measurements."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    sky_px = sky_px or (SKY_INNER * radius_px, SKY_OUTER * radius_px)
    sky, sky_err, flag = image.sky(x, y, *sky_px)
    flag |= image.blemishes(x, y, radius_px, core_px if core_px is not None else radius_px / 3.0)
    total, noise, _ = sep.sum_circle(image.filled, x, y, radius_px, var=image.variance, subpix=0)
    area = np.pi * radius_px**2
    return Apertures(total - area * sky, np.hypot(noise, area * sky_err), flag, sky)


def moffat_enclosed(r: FloatArray | float, fwhm: float, beta: float) -> FloatArray:
    """Share of a Moffat profile's light within radius `r` (Moffat 1969, A&A 3, 455; integrated)."""
    alpha2 = (fwhm / 2.0) ** 2 / (2.0 ** (1.0 / beta) - 1.0)
    return np.asarray(1.0 - (1.0 + np.square(r) / alpha2) ** (1.0 - beta), dtype=np.float64)


class GrowthCurve(NamedTuple):
    """How much of a star's light lies within a radius.

    Attributes
    ----------
    fwhm_px, beta
        The Moffat profile that fits.
    n_stars
        Stars it was measured on; 0: the default profile for the given width stands in.
    covariance
        Of `fwhm_px` and `beta`: (var, cov, var).
    """

    fwhm_px: float
    beta: float
    n_stars: int
    covariance: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def enclosed(self, r: FloatArray | float) -> FloatArray:
        """Share of the total light within `r` px of a star on pixels.

        A pixel's value is a mean over it, and a circle takes a part of each pixel on its rim: both smooth by a
        box, of variance 1/12 px^2 an axis each. To second order that moves ``pi r / 6`` times the profile's slope.
        """
        alpha2 = (self.fwhm_px / 2.0) ** 2 / (2.0 ** (1.0 / self.beta) - 1.0)
        q = np.square(r) / alpha2
        slope = -2.0 * self.beta * (self.beta - 1.0) / (np.pi * alpha2**2) * r * (1.0 + q) ** (-self.beta - 1.0)
        return np.asarray(moffat_enclosed(r, self.fwhm_px, self.beta) + np.pi / 6.0 * r * slope)

    def beyond_line(self, distance: FloatArray) -> FloatArray:
        """Share of the light on the far side of a straight line at `distance` px from the star (< 0: on this side)."""
        alpha = self.fwhm_px / 2.0 / np.sqrt(2.0 ** (1.0 / self.beta) - 1.0)
        # Seen edge-on a Moffat profile is Student's t of 2 beta - 2 degrees of freedom.
        freedom = 2.0 * self.beta - 2.0
        return np.asarray(stdtr(freedom, -np.asarray(distance) / alpha * np.sqrt(freedom)))

    def measured_share(self, r: float, sky_px: tuple[float, float] | None = None) -> float:
        """Share that `aperture_photometry` finds: less than `enclosed`, since the annulus holds some of the wings."""
        inner, outer = sky_px or (SKY_INNER * r, SKY_OUTER * r)
        middle = np.sqrt((inner**2 + outer**2) / 2.0)  # halves the annulus: where the median of its pixels lies
        edges = np.array([middle - 0.05, middle + 0.05])
        light = np.diff(self.enclosed(edges))[0] / (np.pi * np.diff(edges**2)[0])
        return float(self.enclosed(r) - light * np.pi * r**2)

    def share_error(self, r: float) -> float:
        """Error of `measured_share`, from that of the fit."""
        steps = 0.01 * self.fwhm_px, 0.05
        by_width = (self._replace(fwhm_px=self.fwhm_px + steps[0]).measured_share(r) - self.measured_share(r)) / steps[
            0
        ]
        by_beta = (self._replace(beta=self.beta + steps[1]).measured_share(r) - self.measured_share(r)) / steps[1]
        of_width, both, of_beta = self.covariance
        variance = by_width**2 * of_width + 2.0 * by_width * by_beta * both + by_beta**2 * of_beta
        return float(np.sqrt(max(variance, 0.0)))


DEFAULT_BETA = 3.0
"""Wings of stars under ordinary seeing (Trujillo et al. 2001, MNRAS 328, 977 find 2.5 to 4.8 for real frames)."""

_MIN_CURVE_STARS = 5


_WIDTH_ERROR = 0.05
_BETA_ERROR = 0.7


def default_curve(fwhm_px: float) -> GrowthCurve:
    """What stands in where no star tells: a Moffat of that width and beta 3, each as uncertain as frames differ."""
    return GrowthCurve(fwhm_px, DEFAULT_BETA, 0, ((_WIDTH_ERROR * fwhm_px) ** 2, 0.0, _BETA_ERROR**2))


def fit_growth_curve(
    data: FloatArray, mask: npt.NDArray[Any], var: FloatArray, x: FloatArray, y: FloatArray, fwhm_px: float
) -> GrowthCurve:
    """As `growth_curve`, on an image that was not prepared; arguments as for `aperture_photometry`."""
    return growth_curve(prepare_image(data, mask, var), x, y, fwhm_px)


def growth_curve(image: StarImage, x: FloatArray, y: FloatArray, fwhm_px: float) -> GrowthCurve:
    """Fit a Moffat profile to the growth curve of bright isolated stars.

    Fluxes in apertures of 0.5 to 3.5 FWHM are divided by that in 3 FWHM, and the median ratios of all stars
    are fitted with the Moffat's enclosed light, the sky annulus (4.7 to 7 FWHM, the same for all apertures)
    included in the model. Stars with any flag are left out.

    Parameters
    ----------
    image
        From `prepare_image`.
    x, y
        Positions of bright (S/N > 50) isolated unsaturated stars, zero-based px.
    fwhm_px
        First guess of the width, px.

    Returns
    -------
    GrowthCurve
        With fewer than five usable stars: a Moffat of `fwhm_px` and beta 3, ``n_stars`` 0.
    """
    default = default_curve(fwhm_px)
    steps = np.array([0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.5]) * fwhm_px
    reference = 7
    sky = (4.0 / 3.0 * steps[-1], 2.0 * steps[-1])
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    level, _, flag = image.sky(x, y, *sky)
    flag |= image.blemishes(x, y, float(steps[-1]), fwhm_px)
    flux = np.array([sep.sum_circle(image.filled, x, y, r, subpix=0)[0] - np.pi * r * r * level for r in steps])
    usable = (flag == 0) & (flux > 0).all(axis=0)
    if usable.sum() < _MIN_CURVE_STARS:
        return default
    ratio = flux[:, usable] / flux[reference, usable]
    curve = np.median(ratio, axis=1)
    n = int(usable.sum())
    error = np.hypot(1.2533 * 1.4826 * np.median(np.abs(ratio - curve[:, None]), axis=1) / np.sqrt(n), 5e-4)

    def residual(parameters: FloatArray) -> FloatArray:
        model = GrowthCurve(float(parameters[0]) * fwhm_px, float(parameters[1]), n)
        shares = np.array([model.measured_share(float(r), sky) for r in steps])
        # A weak prior keeps beta in nature's range where the wings drown in noise.
        return np.append((shares / shares[reference] - curve) / error, (parameters[1] - DEFAULT_BETA) / 1.5)

    fit = least_squares(residual, [1.0, DEFAULT_BETA], bounds=([0.3, 1.8], [3.0, 10.0]))
    if not fit.success:
        return default
    covariance = np.linalg.pinv(fit.jac.T @ fit.jac, hermitian=True)
    (of_width, both), (_, of_beta) = covariance * np.array([[fwhm_px**2, fwhm_px], [fwhm_px, 1.0]])
    return GrowthCurve(float(fit.x[0]) * fwhm_px, float(fit.x[1]), n, (float(of_width), float(both), float(of_beta)))
