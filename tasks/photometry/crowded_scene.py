"""What crowded photometry works on: image, PSF and stars, and how they are filtered, drawn and their noise measured."""

from __future__ import annotations

import hashlib
from enum import IntFlag
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sep
from photutils.psf import ImagePSF
from pydantic import Field
from scipy.ndimage import binary_dilation, gaussian_filter, map_coordinates
from scipy.signal import fftconvolve
from scipy.stats import norm

from models.base import Record
from tasks.core.errors import StageError

__all__ = [
    "BoolArray", "CrowdedFlag", "CrowdedOptions", "FloatArray", "Image", "IntArray", "Psf", "Stars", "checked", "draw",
    "filtered", "inside", "noise_factor", "psf_of", "smooth", "value_at", "white", "with_photons",
]  # fmt: skip

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

_WING_BETA = 3.0
_LIMITS = 24
"""Steps from a tenth to thirty times the field's scatter: a factor of 1.28 each."""


class CrowdedFlag(IntFlag):
    """What is to be known of a star's fit; 0: nothing is wrong."""

    SATURATED = 1
    MASKED = 2
    EDGE = 4
    BLENDED = 8
    NOT_CONVERGED = 16
    AT_BOUND = 32
    NOT_FITTED = 64
    NEGATIVE = 128


class CrowdedOptions(Record):
    """How stars are found and fitted; lengths in FWHM of the PSF."""

    detection_sigma: float = Field(5.0, gt=0, description="of a star's flux, noise as measured")
    keep_sigma: float = Field(3.0, ge=0, description="detected stars that end up fainter are dropped")
    rounds: int = Field(4, ge=1, le=20, description="each: find stars in the residual, fit all, map the sky")
    fit_fwhm: float = Field(1.6, gt=0.5, description="side of the square of pixels a star is fitted in")
    group_fwhm: float = Field(1.5, ge=0, description="nearer stars are fitted together")
    max_group: int = Field(10, ge=1, le=50, description="largest number of stars fitted together")
    separation_fwhm: float = Field(0.7, gt=0, description="nearest a new star may lie to a known one")
    move_fwhm: float = Field(0.5, gt=0, description="farthest a star may move in a round")
    sky_mesh_fwhm: float = Field(10.0, ge=3, description="mesh of the sky map")
    model_error: float | None = Field(None, ge=0, description="error of the PSF as a part of the light; None: measured")
    noise_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="an error of the sky holds for this share of places; None: it is the root of their mean square",
    )
    hidden_share: float = Field(
        0.03, ge=0, le=1, description="stars hidden in a star have up to this share of its light"
    )
    residual_share: float = Field(
        0.015, ge=0, description="of the light that was fitted: no star is found in less than that"
    )


class Stars(NamedTuple):
    """Places and fluxes, shape (N,)."""

    x: FloatArray
    y: FloatArray
    flux: FloatArray


class Image(NamedTuple):
    """Pixels, those that are not used, and the variance of each."""

    data: FloatArray
    bad: BoolArray
    variance: FloatArray


class Psf(NamedTuple):
    """Model, its width and half its stamp, and its core as a kernel for finding and weighing."""

    model: ImagePSF
    fwhm: float
    half: int
    core: FloatArray
    stamp_share: float


def checked(data: npt.NDArray[Any], weight: npt.NDArray[Any], saturation: float | None) -> Image:
    """The image with what is bad in it.

    Raises
    ------
    StageError
        If there is no usable pixel.
    """
    if data.ndim != 2 or data.shape != weight.shape:
        raise StageError(
            "crowded photometry", f"image {data.shape} and weight {weight.shape} do not fit", "give those of one stack"
        )
    values, inverse = np.asarray(data, np.float64), np.asarray(weight, np.float64)
    bad = ~(np.isfinite(values) & np.isfinite(inverse) & (inverse > 0))
    if bad.all():
        raise StageError("crowded photometry", "no pixel has a weight", "look at the weight map")
    if saturation is not None:
        # The neighbours of a saturated pixel hold some of its charge.
        bad |= binary_dilation(np.where(np.isfinite(values), values, 0.0) >= saturation)
    variance = np.where(bad, 0.0, 1.0 / np.where(bad, 1.0, inverse))
    variance[bad] = np.median(variance[~bad]) if not bad.all() else 1.0
    return Image(np.where(bad & ~np.isfinite(values), 0.0, values), bad, variance)


def psf_of(psf: npt.NDArray[Any], options: CrowdedOptions) -> Psf:
    """The PSF ready for use.

    Raises
    ------
    StageError
        If it is none.
    """
    image = np.asarray(psf, np.float64)
    side = image.shape[0] if image.ndim == 2 else 0
    if side < 7 or side % 2 == 0 or image.shape != (side, side) or not np.isfinite(image).all() or image.sum() <= 0:
        raise StageError("crowded photometry", f"no PSF: shape {image.shape}", "a square stamp of odd side with light")
    image = image / image.sum()
    half = side // 2
    if image[half, half] < 0.8 * image.max():
        raise StageError("crowded photometry", "the PSF is not centred", "centre it on its middle pixel")
    rows, columns = np.indices(image.shape) - half
    fwhm = 2.0 * float(np.sqrt(np.count_nonzero(image > image[half, half] / 2.0) / np.pi))
    reach = min(half, max(1, round(options.fit_fwhm * fwhm / 2.0)))
    core = image[half - reach : half + reach + 1, half - reach : half + reach + 1]
    # Beyond the stamp the light of a Moffat's wings, r**-6 for beta 3, from its brightness along the rim.
    distance = np.hypot(rows, columns)
    rim = (distance > 0.8 * half) & (distance <= half)
    wing = max(float(np.mean(image[rim] * distance[rim] ** (2 * _WING_BETA))), 0.0)
    wide = np.indices((12 * side + 1,) * 2) - 6 * side
    outside = np.abs(wide).max(axis=0) > half
    beyond = wing * float((np.hypot(*wide)[outside] ** (-2 * _WING_BETA)).sum())
    return Psf(_model_of(image), fwhm, half, core, 1.0 / (1.0 + beyond))


def _model_of(image: FloatArray) -> ImagePSF:
    """Photutils' image model as a class of its own for each PSF.

    Photutils 3.0 keeps the models of groups by number of stars and *name of the class*: with its own class, groups
    would be fitted with the PSF of an earlier call.
    """
    mark = hashlib.sha256(image.tobytes()).hexdigest()[:16]
    model: ImagePSF = type(f"ImagePSF_{mark}", (ImagePSF,), {})(image)
    return model


def smooth(image: FloatArray, bad: BoolArray, psf: Psf, options: CrowdedOptions) -> FloatArray:
    """Smooth background: sep's clipped mode in a mesh."""
    mesh = max(16, round(options.sky_mesh_fwhm * psf.fwhm))
    values = np.ascontiguousarray(np.where(bad, 0.0, image))
    return np.asarray(sep.Background(values, mask=bad, bw=mesh, bh=mesh, fw=3, fh=3).back(), np.float64)


def with_photons(variance: FloatArray, light: FloatArray, gain: float | None) -> FloatArray:
    """Variance with the photons of the stars' light."""
    return variance if gain is None else variance + np.maximum(light, 0.0) / gain


def filtered(image: FloatArray, psf: Psf) -> FloatArray:
    """Flux of a star at every pixel: the image weighed with the PSF."""
    return np.asarray(fftconvolve(image, psf.core[::-1, ::-1], mode="same") / np.square(psf.core).sum())


def white(variance: FloatArray, psf: Psf) -> FloatArray:
    """Error of `filtered` if pixels were independent."""
    total = fftconvolve(variance, np.square(psf.core)[::-1, ::-1], mode="same")
    return np.asarray(np.sqrt(np.maximum(total, 1e-30)) / np.square(psf.core).sum())


def noise_factor(residual: FloatArray, image: Image, psf: Psf, options: CrowdedOptions) -> tuple[float, FloatArray]:
    """Scatter of fluxes weighed by the PSF in the residual over that of white noise: the field's, and a smooth map.

    The field's is a robust scatter: that of the sky, to find stars against. The map is a mean of squares, since the
    tail that stars too faint to be found make is noise to the others; what a saturated star leaves is cut at ten
    times the field's scatter. With `CrowdedOptions.noise_share` it is what that share of the residual near a place
    stays below, in units of what it would be were it normal: in the core of a cluster the squares are those of a few
    places, such as what brightest stars leave, and a star is rarely one of them.
    """
    score = filtered(np.where(image.bad, 0.0, residual), psf) / white(image.variance, psf)
    good = ~binary_dilation(image.bad, iterations=2)
    if not good.any():
        return 1.0, np.ones(residual.shape)
    whole = 1.4826 * float(np.median(np.abs(score[good] - np.median(score[good]))))
    width = options.sky_mesh_fwhm * psf.fwhm / 2.0
    n = gaussian_filter(good.astype(np.float64), width, mode="constant")
    if options.noise_share is not None:
        return whole, _below(np.abs(score), good, n, width, whole, options.noise_share)
    squares = np.where(good, np.minimum(np.square(score), np.square(10.0 * whole)), 0.0)
    total = gaussian_filter(squares, width, mode="constant")
    return whole, np.sqrt(np.where(n > 1e-3, total / np.maximum(n, 1e-3), np.square(whole)))


def _below(score: FloatArray, good: BoolArray, n: FloatArray, width: float, whole: float, share: float) -> FloatArray:
    """What a share of the scores around each pixel (Gaussian weights of a width, px) stays below, as a scatter."""
    limits = whole * np.geomspace(0.1, 30.0, _LIMITS)
    found, last, low = np.full(score.shape, limits[-1]), np.zeros(score.shape), 0.0
    open_still = np.ones(score.shape, bool)
    for limit in limits:
        part = gaussian_filter((good & (score < limit)).astype(np.float64), width, mode="constant") / np.maximum(
            n, 1e-3
        )
        here = open_still & (part >= share)
        step = (share - last[here]) / np.maximum(part[here] - last[here], 1e-9)
        found[here] = low + step * (limit - low)
        open_still &= ~here
        last, low = part, float(limit)
    return np.asarray(np.where(n > 1e-3, found / float(norm.ppf((1.0 + share) / 2.0)), whole))


def inside(stars: Stars, shape: tuple[int, ...]) -> BoolArray:
    """Which stars lie on the image."""
    return np.asarray(
        (stars.x > -0.5) & (stars.y > -0.5) & (stars.x < shape[1] - 0.5) & (stars.y < shape[0] - 0.5), bool
    )


def draw(image: FloatArray, stars: Stars, psf: Psf, sign: float) -> None:
    """Add (or subtract) stars to an image in place."""
    ny, nx = image.shape
    for x, y, flux in zip(*stars, strict=True):
        column, row = round(float(x)), round(float(y))
        left, right = max(column - psf.half, 0), min(column + psf.half + 1, nx)
        bottom, top = max(row - psf.half, 0), min(row + psf.half + 1, ny)
        if left >= right or bottom >= top or flux == 0:
            continue
        yy, xx = np.mgrid[bottom:top, left:right]
        image[bottom:top, left:right] += psf.model.evaluate(xx, yy, sign * flux, x, y)


def value_at(image: FloatArray, stars: Stars) -> FloatArray:
    """An image at the stars' places."""
    return np.asarray(map_coordinates(image, [stars.y, stars.x], order=1, mode="nearest"), np.float64)
