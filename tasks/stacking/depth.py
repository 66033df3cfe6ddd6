"""Depth of a stack, measured in apertures on empty sky."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import sep
from astropy.io import fits
from scipy import ndimage

from models.base import Roots
from models.stack import ZERO_POINT, Stack, StackPsf

__all__ = ["depth", "empty_aperture_sigma"]

FloatImage = npt.NDArray[np.float32]
BoolImage = npt.NDArray[np.bool_]

_MIN_APERTURES = 50
_MAX_APERTURES = 4000
_DEEP = 0.5
"""Pixels with less than this times the typical full weight are the ragged border, not the stack."""


def empty_aperture_sigma(data: FloatImage, weight: FloatImage, radius: float) -> tuple[float, int] | None:
    """Scatter of the sums of apertures that hold no source.

    Resampling correlates neighbours, so the noise of a sum is 2-2.5 times what its pixels' noise suggests:
    it has to be measured.

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
    image = np.ascontiguousarray(data, dtype=np.float32)
    positive = weight[weight > 0]
    if not positive.size:
        return None
    full = float(np.percentile(positive, 75))
    shallow = weight < _DEEP * full
    background = sep.Background(image, mask=shallow, bw=64, bh=64)
    image = image - background.back()
    noise = 1.4826 * float(np.median(np.abs(image[~shallow] - np.median(image[~shallow]))))
    if noise <= 0:
        return None
    smooth = ndimage.gaussian_filter(np.where(shallow, 0, image), 1.5)
    smooth_noise = 1.4826 * float(np.median(np.abs(smooth[~shallow] - np.median(smooth[~shallow]))))
    occupied = shallow | (smooth > 3.0 * smooth_noise)
    occupied = ndimage.binary_opening(occupied & ~shallow, iterations=1) | shallow
    room = ndimage.distance_transform_edt(~occupied)
    centres = _places(room > 1.5 * radius + 2.0, radius)
    if len(centres) < _MIN_APERTURES:
        return None
    sums, _, _ = sep.sum_circle(
        np.ascontiguousarray(image), centres[:, 1].astype(float), centres[:, 0].astype(float), radius, subpix=0
    )
    middle = np.median(sums)
    return 1.4826 * float(np.median(np.abs(sums - middle))), len(centres)


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


def depth(stack: Stack, psf: StackPsf | None, roots: Roots) -> float | None:
    """5 sigma depth for point sources, in an aperture of 2 FWHM diameter, corrected for the light outside it.

    Parameters
    ----------
    stack
        As `combine` made it.
    psf
        Its PSF: gives the aperture and the correction.
    roots
        Data root.

    Returns
    -------
    float or None
        Magnitude; None where it has no meaning or cannot be measured: a relative scale, no PSF, no empty sky.
    """
    if psf is None or not stack.calibrated:
        return None
    data = fits.getdata(roots.of(stack.image)).astype(np.float32)
    weight = fits.getdata(roots.of(stack.weight)).astype(np.float32)
    measured = empty_aperture_sigma(data, weight, psf.fwhm_px)
    if measured is None or measured[0] <= 0:
        return None
    share = _enclosed(fits.getdata(roots.of(psf.file)), psf.fwhm_px)
    return float(ZERO_POINT - 2.5 * np.log10(5.0 * measured[0] / share)) if share > 0 else None
