"""Aperture photometry of stars on frames and stacks alike: masked pixels, local sky, growth curve.

Pixel positions are zero-based array coordinates throughout: the centre of ``data[0, 0]`` is (0, 0).
"""

from __future__ import annotations

from enum import IntFlag
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sep
from scipy.ndimage import binary_dilation
from scipy.optimize import least_squares

__all__ = [
    "DEFAULT_BETA",
    "ApertureFlag",
    "Apertures",
    "GrowthCurve",
    "aperture_photometry",
    "core_peak",
    "fill_masked",
    "fit_growth_curve",
    "moffat_enclosed",
    "source_mask",
]

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]

SKY_INNER, SKY_OUTER = 4.0 / 3.0, 2.0
"""Radii of the sky annulus, in aperture radii."""

_CHUNK = 256
_MIN_SKY_PIXELS = 50
_MAX_FILLED = 0.1


class ApertureFlag(IntFlag):
    """Why an aperture is not to be trusted; 0: nothing is wrong."""

    CORE_MASKED = 1
    MUCH_MASKED = 2
    EDGE = 4
    NO_SKY = 8


class Apertures(NamedTuple):
    """Fluxes of stars: ``flux, err, flag, sky`` (sky and flux in the image's unit), one value a star."""

    flux: FloatArray
    err: FloatArray
    flag: npt.NDArray[np.uint8]
    sky: FloatArray


def _disc(inner: float, outer: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    reach = int(np.ceil(outer))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    r2 = dx * dx + dy * dy
    inside = (r2 >= inner * inner) & (r2 <= outer * outer)
    return dy[inside], dx[inside]


def fill_masked(data: FloatArray, bad: BoolArray) -> FloatArray:
    """Replace masked pixels by the weighted mean of their good neighbours within two pixels.

    Parameters
    ----------
    data
        Image, 2-D.
    bad
        True where a pixel is not to be used, same shape.

    Returns
    -------
    ndarray of float32
        A copy; pixels with no good neighbour in reach are NaN.
    """
    filled = np.ascontiguousarray(data, dtype=np.float32).copy()
    rows, columns = np.nonzero(bad)
    if rows.size == 0:
        return filled
    dy, dx = _disc(0.5, 2.5)
    weight = np.exp(-(dx * dx + dy * dy) / 2.0)
    ny, nx = data.shape
    y, x = rows[:, None] + dy, columns[:, None] + dx
    inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
    y, x = np.clip(y, 0, ny - 1), np.clip(x, 0, nx - 1)
    w = np.where(inside & ~bad[y, x], weight, 0.0)
    total = w.sum(axis=1)
    values = (w * np.where(bad[y, x], 0.0, data[y, x])).sum(axis=1)
    filled[rows, columns] = np.where(total > 0, values / np.where(total > 0, total, 1.0), np.nan)
    return filled


def source_mask(data: FloatArray, bad: BoolArray, threshold: float = 1.5, mesh_px: int = 64) -> BoolArray:
    """Pixels with light of any source in them: not to be taken for sky.

    Parameters
    ----------
    data
        Image, 2-D.
    bad
        True where a pixel is not to be used, same shape.
    threshold
        Of the smoothed image (sep's default 3 x 3 kernel), sigma of the sky.
    mesh_px
        Mesh of the sky map taken off first.

    Returns
    -------
    ndarray of bool
        Segments of five or more pixels, grown by three pixels.
    """
    image = np.ascontiguousarray(np.where(np.isfinite(data), data, 0.0), dtype=np.float32)
    if bad.all():
        return np.zeros(image.shape, bool)
    sky = sep.Background(image, mask=bad, bw=mesh_px, bh=mesh_px)
    if sky.globalrms <= 0:
        return np.zeros(image.shape, bool)
    image -= sky.back(dtype=np.float32)
    sep.set_extract_pixstack(max(300_000, image.size))
    _, segments = sep.extract(
        image, threshold, err=sky.globalrms, mask=bad, minarea=5, deblend_cont=1.0, clean=False, segmentation_map=True
    )
    return np.asarray(binary_dilation(segments > 0, iterations=3))


def _gather(
    image: npt.NDArray[Any], x: FloatArray, y: FloatArray, dy: npt.NDArray[np.intp], dx: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[Any], BoolArray]:
    ny, nx = image.shape
    rows = np.rint(y).astype(np.intp)[:, None] + dy
    columns = np.rint(x).astype(np.intp)[:, None] + dx
    inside = (rows >= 0) & (rows < ny) & (columns >= 0) & (columns < nx)
    return image[np.clip(rows, 0, ny - 1), np.clip(columns, 0, nx - 1)], inside


def _clipped_median(values: FloatArray, iterations: int = 4, sigma: float = 2.5) -> tuple[FloatArray, FloatArray, Any]:
    """Median, robust sigma and number of values along the last axis; NaN counts for nothing."""
    values = np.array(values, dtype=np.float64)
    empty = ~np.isfinite(values).any(axis=1)
    values[empty] = 0.0  # keeps nanmedian silent; the count of these rows is put to 0 below
    for _ in range(iterations):
        centre = np.nanmedian(values, axis=1, keepdims=True)
        scatter = 1.4826 * np.nanmedian(np.abs(values - centre), axis=1, keepdims=True)
        outlier = np.abs(values - centre) > sigma * scatter
        if not outlier.any():
            break
        values[outlier & (scatter > 0)] = np.nan
    centre = np.nanmedian(values, axis=1)
    scatter = 1.4826 * np.nanmedian(np.abs(values - centre[:, None]), axis=1)
    count = np.where(empty, 0, np.isfinite(values).sum(axis=1))
    return centre, scatter, count


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
    sources: BoolArray | None = None,
) -> Apertures:
    """Flux of stars in circular apertures above the local sky.

    The sky is the clipped *median* of an annulus (2.5 sigma, four rounds): sep's own ``bkgann`` is a mean,
    which neighbours pull up by 8-13 mmag in crowded fields. Masked pixels outside a star's core are filled
    from their neighbours; a masked pixel in the core cannot be, and flags the star.

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
    sources
        From `source_mask`: pixels left out of the sky, as long as 50 others remain in the annulus.

    Returns
    -------
    Apertures
        flux, err (sqrt of the summed variance and the sky's own error), flag (`ApertureFlag`), sky; shape (N,).
    """
    image = _prepare(data, mask, var)
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    sky_px = sky_px or (SKY_INNER * radius_px, SKY_OUTER * radius_px)
    sky, sky_err, flag = _local_sky(image, sources, x, y, *sky_px)
    flag |= _blemishes(image, x, y, radius_px, core_px if core_px is not None else radius_px / 3.0)
    total, noise, _ = sep.sum_circle(image.filled, x, y, radius_px, var=image.variance, subpix=0)
    area = np.pi * radius_px**2
    return Apertures(total - area * sky, np.hypot(noise, area * sky_err), flag, sky)


class _Image(NamedTuple):
    data: FloatArray
    bad: BoolArray
    filled: FloatArray
    variance: FloatArray


def _prepare(data: FloatArray, mask: npt.NDArray[Any], var: FloatArray) -> _Image:
    bad = (np.asarray(mask) != 0) | ~np.isfinite(data) | ~np.isfinite(var)
    filled = fill_masked(data, bad)
    variance = np.ascontiguousarray(np.maximum(var, 0.0), dtype=np.float32)
    unknown = ~np.isfinite(filled)
    if unknown.any() or bad.any():
        good = ~bad
        filled[unknown] = np.median(data[good]) if good.any() else 0.0
        variance[bad] = np.median(variance[good]) if good.any() else 0.0
    return _Image(data, bad, filled, variance)


def _local_sky(
    image: _Image, sources: BoolArray | None, x: FloatArray, y: FloatArray, inner: float, outer: float
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.uint8]]:
    sky, error, flag = np.zeros(x.size), np.zeros(x.size), np.zeros(x.size, np.uint8)
    ring = _disc(inner, outer)
    for start in range(0, x.size, _CHUNK):
        part = slice(start, min(start + _CHUNK, x.size))
        values, inside = _gather(image.data, x[part], y[part], *ring)
        hidden, _ = _gather(image.bad, x[part], y[part], *ring)
        if sources is not None:
            lit, _ = _gather(sources, x[part], y[part], *ring)
            enough = (inside & ~hidden & ~lit).sum(axis=1) >= _MIN_SKY_PIXELS
            hidden = hidden | (lit & enough[:, None])
        sky[part], scatter, count = _clipped_median(np.where(inside & ~hidden, values, np.nan))
        error[part] = np.sqrt(np.pi / 2 / np.maximum(count, 1)) * scatter
        flag[part][count < _MIN_SKY_PIXELS] |= np.uint8(ApertureFlag.NO_SKY)
    return sky, error, flag


def _blemishes(image: _Image, x: FloatArray, y: FloatArray, radius: float, core: float) -> npt.NDArray[np.uint8]:
    flag = np.zeros(x.size, np.uint8)
    disc, middle = _disc(0.0, radius), _disc(0.0, max(core, 1.0))
    for start in range(0, x.size, _CHUNK):
        part = slice(start, min(start + _CHUNK, x.size))
        hidden, inside = _gather(image.bad, x[part], y[part], *disc)
        flag[part][~inside.all(axis=1)] |= np.uint8(ApertureFlag.EDGE)
        flag[part][(hidden & inside).mean(axis=1) > _MAX_FILLED] |= np.uint8(ApertureFlag.MUCH_MASKED)
        hidden, inside = _gather(image.bad, x[part], y[part], *middle)
        flag[part][(hidden & inside).any(axis=1)] |= np.uint8(ApertureFlag.CORE_MASKED)
    return flag


def core_peak(data: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Highest pixel of the 3 x 3 around each (zero-based) position, sky included; NaN pixels are ignored."""
    values, inside = _gather(np.asarray(data), np.asarray(x, float), np.asarray(y, float), *_disc(0.0, 1.5))
    return np.asarray(np.where(inside & np.isfinite(values), values, -np.inf).max(axis=1, initial=-np.inf))


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
    """

    fwhm_px: float
    beta: float
    n_stars: int

    def enclosed(self, r: FloatArray | float) -> FloatArray:
        """Share of the total light within `r` px."""
        return moffat_enclosed(r, self.fwhm_px, self.beta)

    def measured_share(self, r: float, sky_px: tuple[float, float] | None = None) -> float:
        """Share that `aperture_photometry` finds: less than `enclosed`, since the annulus holds some of the wings."""
        inner, outer = sky_px or (SKY_INNER * r, SKY_OUTER * r)
        middle = np.sqrt((inner**2 + outer**2) / 2.0)  # halves the annulus: where the median of its pixels lies
        edges = np.array([middle - 0.05, middle + 0.05])
        light = np.diff(self.enclosed(edges))[0] / (np.pi * np.diff(edges**2)[0])
        return float(self.enclosed(r) - light * np.pi * r**2)


DEFAULT_BETA = 3.0
"""Wings of stars under ordinary seeing (Trujillo et al. 2001, MNRAS 328, 977 find 2.5 to 4.8 for real frames)."""

_MIN_CURVE_STARS = 5


def fit_growth_curve(
    data: FloatArray,
    mask: npt.NDArray[Any],
    var: FloatArray,
    x: FloatArray,
    y: FloatArray,
    fwhm_px: float,
    sources: BoolArray | None = None,
) -> GrowthCurve:
    """Fit a Moffat profile to the growth curve of bright isolated stars.

    Fluxes in apertures of 0.5 to 3.5 FWHM are divided by that in 3 FWHM, and the median ratios of all stars
    are fitted with the Moffat's enclosed light, the sky annulus (4.7 to 7 FWHM, the same for all apertures)
    included in the model. Stars with any flag are left out.

    Parameters
    ----------
    data, mask, var
        As for `aperture_photometry`.
    x, y
        Positions of bright (S/N > 50) isolated unsaturated stars, zero-based px.
    fwhm_px
        First guess of the width, px.
    sources
        As for `aperture_photometry`.

    Returns
    -------
    GrowthCurve
        With fewer than five usable stars: a Moffat of `fwhm_px` and beta 3, ``n_stars`` 0.
    """
    default = GrowthCurve(fwhm_px, DEFAULT_BETA, 0)
    steps = np.array([0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.5]) * fwhm_px
    reference = 7
    sky = (4.0 / 3.0 * steps[-1], 2.0 * steps[-1])
    image = _prepare(data, mask, var)
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    level, _, flag = _local_sky(image, sources, x, y, *sky)
    flag |= _blemishes(image, x, y, float(steps[-1]), fwhm_px)
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
    return GrowthCurve(float(fit.x[0]) * fwhm_px, float(fit.x[1]), n)
