"""Noise and depth of a stack, measured in apertures on empty sky."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import sep
from astropy.io import fits
from scipy import ndimage

from models.base import Roots
from models.stack import ZERO_POINT, Stack, StackNoise, StackPsf
from tasks.core.masks import grown, opened

__all__ = ["depth", "empty_aperture_sigma", "measure_noise", "stack_noise"]

FloatImage = npt.NDArray[np.float32]
BoolImage = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

_MIN_APERTURES = 50
_MAX_APERTURES = 4000
_PLENTY = 400
_CLEARANCES = (2.5, 2.0, 1.5)
"""Distance of an aperture's centre from the nearest source, radii: as much as leaves plenty of places."""
_MIN_PIXELS = 10_000
_FAINT = 2.5
"""Sources above so many sigma of the smoothed sky are left out. With 3 the faint galaxies of deep stacks pass for noise
(quoted errors of simulated r stacks up to 15 % too large), with 2 peaks of the noise itself would be left out."""
_GALAXY = 0.5
"""Where the smooth light is brighter than the typical sky by so much of a pixel's noise, a galaxy's own structure
would count as noise."""
_RING = (2.0, 5.0)
"""Of the local sky, aperture radii."""
_DEEP = 0.5
"""Pixels with less than this times the typical full weight are the ragged border, not the stack."""


@dataclass(frozen=True)
class _Sky:
    """A stack without its large-scale sky, and where it is empty."""

    image: FloatImage
    occupied: BoolImage


def _robust(values: npt.NDArray[np.floating]) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _sky(data: FloatImage, weight: FloatImage) -> _Sky | None:
    image = np.ascontiguousarray(data, dtype=np.float32)
    positive = weight[weight > 0]
    if not positive.size:
        return None
    shallow = weight < _DEEP * float(np.percentile(positive, 75))
    occupied = shallow
    # Once more with what the first look found left out of the sky: it had raised it.
    for _ in range(2):
        light = sep.Background(image, mask=occupied, bw=64, bh=64).back(dtype=np.float32)
        flat = image - light
        noise = _robust(flat[~shallow])
        if noise <= 0:
            return None
        smooth = ndimage.gaussian_filter(np.where(shallow, 0, flat), 1.5)
        above = smooth > _FAINT * _robust(smooth[~shallow])
        occupied = opened(above & ~shallow) | shallow
        inside = light - np.median(light[~shallow]) > _GALAXY * noise
        if np.count_nonzero(~(occupied | inside)) > _MIN_PIXELS:
            occupied |= inside
    return _Sky(flat, occupied)


def _empty_apertures(sky: _Sky, radius: float) -> tuple[FloatArray, FloatArray] | None:
    """Centres (row, column) of apertures that hold no source, and their sums above the sky in a ring around each.

    The sky's own noise in the ring is divided out: what is left is that of the aperture alone.
    """
    room = ndimage.distance_transform_edt(~sky.occupied)
    centres = np.empty((0, 2), np.int64)
    for clearance in _CLEARANCES:
        if len(centres) < _PLENTY:
            centres = _places(room > clearance * radius + 2.0, radius)
    if len(centres) < _MIN_APERTURES:
        return None
    y, x = centres.T.astype(float)
    inner, outer = _RING[0] * radius, _RING[1] * radius
    free = (~sky.occupied).astype(np.float32)
    number, _, _ = sep.sum_circann(free, x, y, inner, outer, subpix=1)
    light, _, _ = sep.sum_circann(sky.image * free, x, y, inner, outer, subpix=1)
    sums, _, _ = sep.sum_circle(sky.image, x, y, radius, subpix=0)
    area = np.pi * radius**2
    enough = number > 2.0 * area
    if np.count_nonzero(enough) < _MIN_APERTURES:
        return None
    number, light, sums = number[enough], light[enough], sums[enough]
    return centres[enough].astype(float), (sums - light / number * area) / np.sqrt(1.0 + area / number)


def empty_aperture_sigma(data: FloatImage, weight: FloatImage, radius: float) -> tuple[float, int] | None:
    """Scatter of the sums of apertures that hold no source.

    Resampling correlates neighbours, so the noise of a sum is larger than what its pixels' noise suggests: it has to
    be measured.

    Parameters
    ----------
    data, weight
        Stack and weight map, shape (ny, nx).
    radius
        Of the apertures, px.

    Returns
    -------
    sigma, count
        Robust standard deviation of the sums, and how many apertures it is from; None where the empty sky has
        room for fewer than 50.
    """
    sky = _sky(data, weight)
    found = _empty_apertures(sky, radius) if sky is not None else None
    return (_robust(found[1]), len(found[1])) if found is not None else None


def measure_noise(
    data: FloatImage, weight: FloatImage, radius: float, pixel_scale: float, calibrated: bool
) -> StackNoise | None:
    """What the weight map means in terms of noise, and how much neighbours have of it in common.

    Parameters
    ----------
    data, weight
        Stack and weight map, shape (ny, nx).
    radius
        Of the apertures, px: the FWHM.
    pixel_scale
        arcsec/px.
    calibrated
        Whether the stack has its zero point: without one there is no surface brightness.

    Returns
    -------
    StackNoise or None
        None where the empty sky has room for fewer than 50 apertures.
    """
    sky = _sky(data, weight)
    found = _empty_apertures(sky, radius) if sky is not None else None
    if sky is None or found is None:
        return None
    centres, sums = found
    away = ~grown(sky.occupied, math.ceil(radius / 2), diagonal=False)
    free = away if np.count_nonzero(away) > _MIN_PIXELS else ~sky.occupied
    pull = _robust(sky.image[free] * np.sqrt(weight[free]))
    sigma = _robust(sums)
    if pull <= 0 or sigma <= 0:
        return None
    variance = np.divide(pull**2, weight, out=np.zeros_like(weight), where=weight > 0)
    white, _, _ = sep.sum_circle(variance, centres[:, 1], centres[:, 0], radius, subpix=0)
    per_arcsec = sigma / (math.sqrt(math.pi) * radius * pixel_scale)
    return StackNoise(
        inverse_variance=pull**-2,
        correlation=_robust(sums / np.sqrt(white)),
        aperture_sigma=sigma,
        aperture_px=radius,
        n_apertures=len(sums),
        surface_brightness=ZERO_POINT - 2.5 * math.log10(per_arcsec) if calibrated else None,
    )


def stack_noise(stack: Stack, psf: StackPsf | None, roots: Roots) -> StackNoise | None:
    """`measure_noise` of a stack as `combine` made it, in apertures of its own PSF; None without one."""
    if psf is None:
        return None
    data = fits.getdata(roots.of(stack.image)).astype(np.float32)
    weight = fits.getdata(roots.of(stack.weight)).astype(np.float32)
    return measure_noise(data, weight, psf.fwhm_px, psf.fwhm_arcsec / psf.fwhm_px, stack.calibrated)


def _places(free: BoolImage, radius: float) -> npt.NDArray[np.int64]:
    """Centres (row, column) on a regular mesh that keeps the apertures apart; thinned evenly if there are many."""
    step = int(np.ceil(2.0 * radius)) + 1
    rows, columns = np.nonzero(free[::step, ::step])
    centres = np.column_stack([rows, columns]) * step
    thin = max(1, int(np.ceil(len(centres) / _MAX_APERTURES)))
    return centres[::thin].astype(np.int64)


def _enclosed(psf: FloatImage, radius: float) -> float:
    """Share of a point source's light within a circle about the PSF image's centre."""
    image = np.ascontiguousarray(psf, dtype=np.float64)
    centre = (image.shape[1] - 1) / 2.0, (image.shape[0] - 1) / 2.0
    inside, _, _ = sep.sum_circle(image, [centre[0]], [centre[1]], radius, subpix=0)
    return float(inside[0] / image.sum())


def depth(stack: Stack, psf: StackPsf | None, noise: StackNoise | None, roots: Roots) -> float | None:
    """5 sigma depth for point sources, in an aperture of 2 FWHM diameter, corrected for the light outside it.

    Parameters
    ----------
    stack
        As `combine` made it.
    psf
        Its PSF: gives the correction.
    noise
        Of such apertures (`stack_noise`).
    roots
        Data root.

    Returns
    -------
    float or None
        Magnitude; None where it has no meaning or cannot be measured: a relative scale, no PSF, no empty sky.
    """
    if psf is None or noise is None or not stack.calibrated:
        return None
    share = _enclosed(fits.getdata(roots.of(psf.file)), psf.fwhm_px)
    return float(ZERO_POINT - 2.5 * np.log10(5.0 * noise.aperture_sigma / share)) if share > 0 else None
