"""PSF images: centring, shape, encircled light, and the file they are kept in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from scipy.ndimage import shift
from scipy.optimize import least_squares

from tasks.core.errors import StageError
from tasks.core.fitsio import write_fits

__all__ = [
    "MoffatFit",
    "centred",
    "centroid",
    "fit_moffat",
    "symmetric_wings",
    "write_psf_image",
]

FloatArray = npt.NDArray[np.floating[Any]]


class MoffatFit(NamedTuple):
    """An elliptical Moffat profile.

    Attributes
    ----------
    x, y
        Zero-based centre, px.
    fwhm_px
        Geometric mean of the axes' FWHM.
    ellipticity
        ``(a - b) / (a + b)``, as in PSFEx.
    beta
        Exponent.
    amplitude, background
        In the image's unit.
    angle
        Of the major axis from x to y, rad.
    """

    x: float
    y: float
    fwhm_px: float
    ellipticity: float
    beta: float
    amplitude: float
    background: float
    angle: float


def fit_moffat(image: FloatArray, guess_px: float | None = None) -> MoffatFit:
    """Fit an elliptical Moffat profile with a constant background to a star's stamp (least squares).

    Parameters
    ----------
    image
        2-D; NaN pixels are left out.
    guess_px
        First guess of the FWHM, px; default from the area above half the maximum.

    Raises
    ------
    StageError
        If there is nothing to fit or the fit does not converge.
    """
    grid = np.indices(image.shape)
    rows, columns = grid[0], grid[1]
    good = np.isfinite(image)
    peak = float(np.max(image[good])) if good.any() else 0.0
    if good.sum() < 20 or peak <= 0:
        raise StageError("PSF", "the stamp holds no star to fit", "look at the image around it")
    xx, yy, values = columns[good], rows[good], np.asarray(image[good], dtype=np.float64)
    top = int(np.argmax(values))
    x_top, y_top = float(xx[top]), float(yy[top])
    area = np.count_nonzero(values > peak / 2)
    width = guess_px or 2 * np.sqrt(area / np.pi)

    def model(p: FloatArray) -> FloatArray:
        amplitude, x0, y0, log_size, e1, e2, beta, background = p
        # exp(log_size) is the squared scale alpha²; e1, e2 skew it without changing its area.
        e = np.hypot(e1, e2)
        cosh, sinh = np.cosh(e), (np.sinh(e) / e if e > 1e-9 else 1.0)
        dx, dy = xx - x0, yy - y0
        q = (cosh - sinh * e1) * dx**2 - 2 * sinh * e2 * dx * dy + (cosh + sinh * e1) * dy**2
        return np.asarray(background + amplitude * (1 + q * np.exp(-log_size)) ** -beta)

    alpha2 = (width / 2) ** 2 / (2 ** (1 / 3) - 1)
    start = [1.0, x_top, y_top, np.log(alpha2), 0.0, 0.0, 3.0, 0.0]
    low = [0.0, x_top - 5, y_top - 5, np.log(alpha2) - 6, -2, -2, 1.2, -1]
    high = [10.0, x_top + 5, y_top + 5, np.log(alpha2) + 6, 2, 2, 50.0, 1]
    fit = least_squares(lambda p: model(p) - values / peak, start, bounds=(low, high), x_scale="jac")
    if not fit.success:
        raise StageError("PSF", f"no Moffat profile fits: {fit.message}", "look at the image around the star")
    amplitude, x0, y0, log_size, e1, e2, beta, background = (float(v) for v in fit.x)
    fwhm = 2 * np.sqrt(np.exp(log_size) * (2 ** (1 / beta) - 1))
    ratio = np.exp(-np.hypot(e1, e2))
    angle = 0.5 * float(np.arctan2(e2, e1))
    return MoffatFit(
        x0, y0, float(fwhm), float((1 - ratio) / (1 + ratio)), beta, amplitude * peak, background * peak, angle
    )


def centroid(image: FloatArray, fwhm_px: float) -> tuple[float, float]:
    """Centroid under a round Gaussian window of the star's own width, zero-based (x, y).

    The window keeps the noise of the wings out (SExtractor's XWIN_IMAGE, manual sect. "Windowed positional
    parameters"; iterated until it stands still).
    """
    yy, xx = np.indices(image.shape)
    y, x = (float(v) for v in np.unravel_index(int(np.nanargmax(image)), image.shape))
    sigma2 = 2 * (fwhm_px / 2.3548) ** 2
    for _ in range(50):
        weight = np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / sigma2) * image
        total = weight.sum()
        step_x, step_y = 2 * (weight * (xx - x)).sum() / total, 2 * (weight * (yy - y)).sum() / total
        x, y = x + step_x, y + step_y
        if np.hypot(step_x, step_y) < 1e-5:
            break
    return x, y


def centred(image: FloatArray, fwhm_px: float, size: int | None = None) -> FloatArray:
    """Shift a PSF to the middle of its stamp (cubic spline) and normalise it to sum 1.

    Parameters
    ----------
    image
        Square, odd side, star near the middle.
    fwhm_px
        Width for the centroid's window.
    size
        Side of the result; default the input's.

    Raises
    ------
    StageError
        If the image has no positive sum or cannot be centred to 0.01 px.
    """
    result = np.asarray(image, dtype=np.float64)
    total = result.sum()
    if not np.isfinite(total) or total <= 0:
        raise StageError("PSF", "the PSF image has no light in it", "more stars are needed")
    middle = (image.shape[0] - 1) / 2
    moved = np.zeros(2)
    for _ in range(8):
        x, y = centroid(result, fwhm_px)
        off = np.array([middle - y, middle - x])
        if np.abs(off).max() < 0.002:
            break
        moved += off
        # Always from the original: repeated interpolation would widen it.
        result = shift(np.asarray(image, dtype=np.float64), moved, order=3, mode="nearest")
    if not np.abs(off).max() < 0.01 or np.abs(moved).max() > 3:
        raise StageError("PSF", f"the PSF's centre is {moved} px off its stamp's", "look at the stars it is made from")
    if size is not None and size < image.shape[0]:
        cut = (image.shape[0] - size) // 2
        result = result[cut : cut + size, cut : cut + size]
    return np.asarray(result / result.sum())


def symmetric_wings(image: FloatArray, fwhm_px: float) -> FloatArray:
    """A centred PSF whose wings are the mean of themselves and their mirror image through the centre.

    From 1.25 FWHM outward (wholly from 2 FWHM) what differs between opposite sides is noise and the light of
    neighbours and galaxies, which would pull the centre of mass of a stack with few stars by 0.1 px. The
    core keeps its asymmetry; the sum does not change.

    Parameters
    ----------
    image
        Square, odd side, centred.
    fwhm_px
        Width, px.
    """
    middle = (image.shape[0] - 1) / 2
    rows, columns = np.indices(image.shape)
    radius = np.hypot(rows - middle, columns - middle) / fwhm_px
    share = np.clip((radius - 1.25) / 0.75, 0.0, 1.0) / 2.0
    return np.asarray((1.0 - share) * image + share * image[::-1, ::-1])


def write_psf_image(path: Path, image: FloatArray, cards: list[tuple[str, Any, str]]) -> None:
    """Write a PSF image (float32, sum 1.0) with its keywords and checksums; reproducible to the byte."""
    header = fits.Header(cards)
    write_fits(path, [fits.PrimaryHDU(np.asarray(image, dtype=np.float32), header=header)])
