"""Encircled light: how much of a star's light lies within a radius, measured on stars or summed on a PSF image."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sep
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq, least_squares

from tasks.photometry import StarImage, moffat_enclosed
from tasks.psf.images import MoffatFit

__all__ = ["EncircledEnergy", "Growth", "encircled_energy", "measure_growth"]

FloatArray = npt.NDArray[np.floating[Any]]

DEFAULT_BETA = 3.0
"""Wings of stars under ordinary seeing (Trujillo et al. 2001, MNRAS 328, 977 find 2.5 to 4.8 for real frames)."""

_CORE = np.array([0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0])
_RINGS = np.array([1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.25, 3.5])
_SKY = (5.0, 8.0)
_MIN_STARS = 5
_BETA_RANGE = (2.2, 6.0)
_MIN_RING_PIXELS = 8
_MODEL_ERROR = 0.015
_CORRELATED = 2.0
_CLIP_SIGMA = 4.0


class EncircledEnergy(NamedTuple):
    """Radii that hold half and four fifths of *all* of a star's light, px."""

    ee50_px: float
    ee80_px: float


class Growth(NamedTuple):
    """Share of all of a star's light within a radius, as measured on stars.

    Attributes
    ----------
    radius_px, share
        0.25 to 3.5 FWHM, and the light within.
    fwhm_px, beta
        Moffat profile that fits, which says what lies beyond.
    n_stars
        Stars it was measured on.
    """

    radius_px: FloatArray
    share: FloatArray
    fwhm_px: float
    beta: float
    n_stars: int

    def radius_of(self, goal: float) -> float:
        """Radius that holds a share of all the light, px."""
        if not self.share[0] < goal < self.share[-1]:
            return _moffat_radius(goal, self.fwhm_px, self.beta)
        # What is interpolated is the small rest that the Moffat leaves.
        rest = PchipInterpolator(self.radius_px, self.share - self._moffat(self.radius_px))
        return float(
            brentq(lambda r: float(self._moffat(r)) + float(rest(r)) - goal, self.radius_px[0], self.radius_px[-1])
        )

    def _moffat(self, r: FloatArray | float) -> FloatArray:
        return moffat_enclosed(r, self.fwhm_px, self.beta)


def measure_growth(
    image: StarImage, x: FloatArray, y: FloatArray, fwhm_px: float, beta: float = DEFAULT_BETA
) -> Growth | None:
    """Growth curve of bright stars, deaf to their neighbours.

    Within 1 FWHM the light is summed in circles. Beyond, each ring of a quarter FWHM counts with the *median* of
    its pixels (over the Moffat profile that is fitted meanwhile, so that the slope within a ring does not
    matter), since a sum takes the faint neighbours of a rich field for wings: 1 % too much at 3 FWHM and 5 % at
    7. All is relative to the light within 1 FWHM; the weighted median of the stars counts, those left out that
    deviate by more than four of its robust sigma; and a Moffat profile fitted to the result tells what lies beyond
    3.5 FWHM and how much of the wings is in the annulus of the sky (5 to 8 FWHM).

    Parameters
    ----------
    image
        From `tasks.photometry.prepare_image`.
    x, y
        Zero-based positions of bright, unsaturated stars that are isolated to about 3 FWHM, px.
    fwhm_px, beta
        First guess of the profile.

    Returns
    -------
    Growth or None
        None with fewer than five usable stars.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.size < _MIN_STARS:
        return None
    flag = image.blemishes(x, y, 2.0 * fwhm_px, fwhm_px)
    sky, _, no_sky = image.sky(x, y, _SKY[0] * fwhm_px, _SKY[1] * fwhm_px)
    core = np.array([sep.sum_circle(image.filled, x, y, r, subpix=0)[0] - np.pi * r * r * sky for r in _CORE * fwhm_px])
    usable = ((flag | no_sky) == 0) & (core > 0).all(axis=0)
    if np.count_nonzero(usable) < _MIN_STARS:
        return None
    x, y, sky, core = x[usable], y[usable], sky[usable], core[:, usable]
    inner = core / core[-1]
    noise = _CORRELATED * float(np.sqrt(np.median(image.variance) * np.pi)) * 2.0 * fwhm_px
    weight = 1.0 / ((noise / core[-1]) ** 2 + _MODEL_ERROR**2)
    radius = np.concatenate([_CORE, _RINGS[1:]]) * fwhm_px
    width, wings = fwhm_px, float(np.clip(beta, *_BETA_RANGE))
    for _ in range(3):  # the wings in the sky's annulus, and the slope within a ring, follow the fit
        rings = _rings(image, x, y, sky, core[-1], fwhm_px, width, wings)
        curve = np.concatenate([inner, 1.0 + np.cumsum(rings, axis=0)])
        light = _weighted_median(curve, weight)
        spread = 1.4826 * _weighted_median(np.abs(curve - light[:, None]), weight)
        # What is not as round or as narrow as the stars (a knot of a spiral arm, a pair) stands out at one radius.
        off = np.abs(curve - light[:, None]) / np.maximum(spread, _MODEL_ERROR * light)[:, None]
        alike = np.nanmax(off, axis=0) < _CLIP_SIGMA
        if np.count_nonzero(alike) >= _MIN_STARS:
            light = _weighted_median(curve[:, alike], weight[alike])
        n = weight.sum() ** 2 / np.square(weight).sum()
        width, wings = _fit(radius, light, np.hypot(1.2533 * spread / np.sqrt(n), 1e-3), fwhm_px)
    sky_share = _sky_share(fwhm_px, width, wings)
    whole = float(moffat_enclosed(radius[-1], width, wings))
    # The annulus took its share of the wings off every pixel.
    total = (light[-1] + _sky_light(radius[-1], sky_share, radius[len(_CORE) - 1], width, wings)) / whole
    share = (light + _sky_light(radius, sky_share, radius[len(_CORE) - 1], width, wings)) / total
    return Growth(radius, np.maximum.accumulate(share), width, wings, int(x.size))


def _weighted_median(values: FloatArray, weight: FloatArray) -> FloatArray:
    """Weighted median of each row; NaN counts for nothing."""
    order = np.argsort(values, axis=1)  # NaN comes last
    ordered = np.take_along_axis(values, order, axis=1)
    weights = np.where(np.isfinite(ordered), weight[order], 0.0)
    total = np.cumsum(weights, axis=1)
    # Half of a value's weight lies on either side of it: linear between values.
    middle = (total - weights / 2) / total[:, -1:]
    return np.array(
        [np.interp(0.5, row[w > 0], v[w > 0]) for row, v, w in zip(middle, ordered, weights, strict=True)],
        dtype=np.float64,
    )


def _sky_share(fwhm_px: float, width: float, beta: float) -> float:
    """Surface brightness of a Moffat of light 1 in the middle of the sky's annulus, per px."""
    middle = fwhm_px * np.sqrt((_SKY[0] ** 2 + _SKY[1] ** 2) / 2.0)
    return float(_moffat_surface(middle, width, beta))


def _sky_light(r: FloatArray | float, sky_share: float, r_core: float, width: float, beta: float) -> FloatArray:
    """What the annulus of the sky took from the light within r, in units of the (measured) light within `r_core`."""
    unit = float(moffat_enclosed(r_core, width, beta)) - sky_share * np.pi * r_core**2
    return np.asarray(sky_share * np.pi * np.square(r) / unit)


def _moffat_surface(r: FloatArray | float, width: float, beta: float) -> FloatArray:
    alpha2 = (width / 2.0) ** 2 / (2.0 ** (1.0 / beta) - 1.0)
    return np.asarray((beta - 1.0) / (np.pi * alpha2) * (1.0 + np.square(r) / alpha2) ** -beta)


def _moffat_radius(goal: float, fwhm: float, beta: float) -> float:
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    return float(np.sqrt(alpha2 * ((1 - goal) ** (1 / (1 - beta)) - 1)))


def _rings(
    image: StarImage, x: FloatArray, y: FloatArray, sky: FloatArray, core: FloatArray, fwhm_px: float,
    width: float, beta: float,
) -> FloatArray:  # fmt: skip
    """Light of each ring of each star over that within 1 FWHM, (rings, stars); NaN where too few pixels are good."""
    half = int(np.ceil(_RINGS[-1] * fwhm_px)) + 1
    ny, nx = image.data.shape
    edges = _RINGS * fwhm_px
    surface_sky = _sky_share(fwhm_px, width, beta)
    unit = float(moffat_enclosed(fwhm_px, width, beta)) - surface_sky * np.pi * fwhm_px**2
    areas = np.pi * np.diff(edges**2)
    model_light = np.diff(moffat_enclosed(edges, width, beta)) - surface_sky * areas
    result = np.full((edges.size - 1, x.size), np.nan)
    for star in range(x.size):
        row, column = round(float(y[star])), round(float(x[star]))
        rows = slice(max(row - half, 0), min(row + half + 1, ny))
        columns = slice(max(column - half, 0), min(column + half + 1, nx))
        yy, xx = np.mgrid[rows, columns]
        distance = np.hypot(xx - x[star], yy - y[star])
        light = (image.data[rows, columns] - sky[star]) / core[star]
        # The difference to the model has no slope within a ring; its median is that of the sky's noise.
        model = (_moffat_surface(distance, width, beta) - surface_sky) / unit
        which = np.searchsorted(edges, distance, side="right") - 1
        which[image.bad[rows, columns]] = -1
        for ring in range(edges.size - 1):
            chosen = which == ring
            if np.count_nonzero(chosen) >= _MIN_RING_PIXELS:
                off = float(np.median(light[chosen] - model[chosen]))
                result[ring, star] = model_light[ring] / unit + off * areas[ring]
    return result


def _fit(radius: FloatArray, light: FloatArray, error: FloatArray, fwhm_px: float) -> tuple[float, float]:
    """Moffat profile of a growth curve relative to 1 FWHM: FWHM (px) and beta."""
    unit = len(_CORE) - 1

    def residual(p: FloatArray) -> FloatArray:
        width, beta = float(p[0]) * fwhm_px, float(p[1])
        model = moffat_enclosed(radius, width, beta) - _sky_share(fwhm_px, width, beta) * np.pi * radius**2
        # A weak prior keeps beta in nature's range where the wings drown in noise.
        return np.append((model / model[unit] - light) / error, (beta - DEFAULT_BETA) / 1.5)

    fit = least_squares(residual, [1.0, DEFAULT_BETA], bounds=([0.5, _BETA_RANGE[0]], [2.0, _BETA_RANGE[1]]))
    return float(fit.x[0]) * fwhm_px, float(fit.x[1])


def encircled_energy(image: FloatArray, shape: MoffatFit, growth: Growth | None = None) -> EncircledEnergy:
    """Radii of 50 and 80 % encircled energy, wings beyond the stamp accounted for.

    Where bright stars gave a growth curve, it tells. Else the stamp's light is summed to its inscribed circle, and
    the Moffat fitted to it says what share of the whole that is.

    Parameters
    ----------
    image
        Centred, square, odd side, sum 1.
    shape
        Moffat fitted to it.
    growth
        Growth curve of the stars, None: not measurable.
    """
    if growth is not None:
        return EncircledEnergy(growth.radius_of(0.5), growth.radius_of(0.8))
    beta = float(np.clip(shape.beta, *_BETA_RANGE))
    half = (image.shape[0] - 1) // 2
    fine = 9
    # Pixels are divided 9 x 9, so that a circle through one counts the part inside.
    big = np.kron(image, np.full((fine, fine), 1.0 / fine**2))
    axis = (np.arange(big.shape[0]) - (big.shape[0] - 1) / 2) / fine
    radius = np.hypot(axis[:, None], axis[None, :]).ravel()
    order = np.argsort(radius, kind="stable")
    radius, light = radius[order], np.cumsum(big.ravel()[order])
    edge = int(np.searchsorted(radius, half))
    share = light[:edge] / light[edge - 1] * float(moffat_enclosed(half, shape.fwhm_px, beta))

    def reach(goal: float) -> float:
        if share[-1] >= goal:
            return float(radius[int(np.argmax(share >= goal))])
        return _moffat_radius(goal, shape.fwhm_px, beta)

    return EncircledEnergy(reach(0.5), reach(0.8))
