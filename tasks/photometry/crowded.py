"""PSF photometry where stars overlap: cores of clusters, on a frame or a stack.

Pixel positions are zero-based array coordinates throughout: the centre of ``data[0, 0]`` is (0, 0).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.table import Table
from photutils.detection import find_peaks
from photutils.utils.exceptions import NoDetectionsWarning
from scipy.ndimage import map_coordinates
from scipy.signal import fftconvolve
from scipy.spatial import cKDTree

from tasks.core.errors import StageError
from tasks.photometry.crowded_fit import Fit, fit_all
from tasks.photometry.crowded_scene import (
    CrowdedFlag,
    CrowdedOptions,
    FloatArray,
    Image,
    IntArray,
    Psf,
    Stars,
    checked,
    draw,
    filtered,
    inside,
    noise_factor,
    psf_of,
    smooth,
    value_at,
    white,
    with_photons,
)

__all__ = ["CrowdedFlag", "CrowdedOptions", "crowded_photometry"]

_MODEL_STARS = 30
_LEAST_MODEL_ERROR, _DEFAULT_MODEL_ERROR = 0.002, 0.01


def crowded_photometry(
    data: npt.NDArray[Any],
    weight: npt.NDArray[Any],
    psf: npt.NDArray[Any],
    *,
    x: npt.NDArray[Any] | None = None,
    y: npt.NDArray[Any] | None = None,
    fixed: bool = False,
    zero_point: float = 30.0,
    saturation: float | None = None,
    gain: float | None = None,
    options: CrowdedOptions | None = None,
) -> Table:
    """PSF photometry of a crowded field, every star fitted with its neighbours.

    Stars are found, brightest first, as peaks of the image filtered with the PSF, then in what is left when those
    are subtracted (Stetson 1987, PASP 99, 191). Stars nearer to each other than 1.5 FWHM are fitted together by
    photutils (at most ten: larger chains are cut at their widest gaps); all others are subtracted first, in an
    order in which no two groups that are fitted at a time touch; after some rounds it no longer matters who
    went first. The sky is a mesh of the clipped background of the residual.

    An error has three parts in quadrature: that of the fit, times the scatter of fluxes weighed by the PSF in the
    residual near the star over what white noise predicts (the correlation of a stack's pixels and the
    confusion by stars too faint to be found are in it); the error of the PSF on the star's own light; and on
    the light of its neighbours under it.

    Parameters
    ----------
    data
        Image, 2-D, with any smooth sky.
    weight
        Inverse variance of the sky per pixel, same shape (a stack's weight map, if need be times its INVVAR); 0: no
        data. Its scale is checked on the residual, so that a factor does not matter for the errors.
    psf
        PSF, square, odd side, centred, a sample a pixel (any PSF image of this pipeline).
    x, y
        Zero-based positions of the stars, px, shape (N,). Default: stars are found. With positions none is added or
        left out, and row i is star i.
    fixed
        The given positions are kept.
    zero_point
        ``mag = -2.5 log10(flux) + zero_point``.
    saturation
        Pixels above are not used; stars with such pixels in the core are measured on the rest and flagged.
    gain
        Electrons per unit of `data`, for the stars' photon noise; default: without.
    options
        Numbers that seldom need a change.

    Returns
    -------
    Table
        Found stars brightest first, given ones in their order. ``x y x_err y_err`` (px), ``flux flux_err`` (all of a
        star's light, wings beyond the stamp included), ``mag mag_err``, ``sky`` (per pixel), ``crowding`` (light of
        neighbours under the star over its own, both weighed by the PSF), ``chi2`` (reduced, against the errors of
        single pixels), ``qfit`` (residual in absolute value over flux), ``n_group``, ``flags`` (`CrowdedFlag`). A
        star that could not be fitted has NaN. ``meta["noise_factor"]`` is the median of the scatter's ratio.

    Raises
    ------
    StageError
        If shapes do not fit, no pixel is usable, the PSF has no light in its middle, or `fixed` has no positions.
    """
    options = options or CrowdedOptions()
    image, model = checked(data, weight, saturation), psf_of(psf, options)
    given = x is not None and y is not None
    if (x is None) != (y is None) or (fixed and not given):
        raise StageError("crowded photometry", "x and y are needed, both", "give both, or neither to find the stars")
    sky = smooth(image.data, image.bad, model, options)
    stars = _given(x, y, image, sky, model) if given else Stars(*(np.empty(0) for _ in range(3)))
    fit = Fit.empty(stars.x.size)
    for _ in range(options.rounds):
        residual = image.data - sky
        draw(residual, stars, model, -1.0)
        light = image.data - sky - residual
        noisy = image._replace(variance=with_photons(image.variance, light, gain))
        if not given:
            new = _find(residual, light, noisy, stars, model, options)
            if not new.x.size and stars.x.size and fit.flux_err.size == stars.x.size:
                break
            draw(residual, new, model, -1.0)
            stars = Stars(*(np.concatenate(pair) for pair in zip(stars, new, strict=True)))
            if not stars.x.size:
                break
        stars, fit = fit_all(residual, noisy, stars, model, fixed, options)
        sky = sky + smooth(residual, image.bad, model, options)
    if not given and stars.x.size:
        stars, fit, sky = _without_faint(image, sky, stars, fit, model, gain, options)
    return _table(image, sky, stars, fit, model, zero_point, saturation, gain, given, options, np.asarray(data))


def _find(
    residual: FloatArray, light: FloatArray, image: Image, stars: Stars, psf: Psf, options: CrowdedOptions
) -> Stars:
    flux = filtered(np.where(image.bad, 0.0, residual), psf)
    # The mean around is taken off: the slope of a bright star's wing is no star.
    wide = psf.half
    axis = np.arange(-wide, wide + 1)
    ring = np.hypot(axis[:, None], axis[None, :])
    around = ((ring > 1.5 * psf.fwhm) & (ring <= 2.5 * psf.fwhm)).astype(np.float64)
    level = fftconvolve(flux, around / around.sum(), mode="same")
    error = white(image.variance, psf) * noise_factor(residual, image, psf, options)[0]
    limit = options.detection_sigma * np.hypot(
        error, options.residual_share / options.detection_sigma * filtered(light, psf)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)  # none found: that is the end of the search
        peaks = find_peaks(flux - level - limit, 0.0, box_size=2 * round(psf.fwhm / 2) + 1, mask=image.bad)
    if peaks is None or not len(peaks):
        return Stars(*(np.empty(0) for _ in range(3)))
    x, y = (np.asarray(peaks[key], np.float64) for key in ("x_peak", "y_peak"))
    found = Stars(x, y, flux[y.astype(int), x.astype(int)])
    if stars.x.size:
        nearest, _ = cKDTree(np.column_stack([stars.x, stars.y])).query(np.column_stack([x, y]))
        found = Stars(*(column[nearest > options.separation_fwhm * psf.fwhm] for column in found))
    return found


def _given(x: npt.NDArray[Any] | None, y: npt.NDArray[Any] | None, image: Image, sky: FloatArray, psf: Psf) -> Stars:
    x, y = np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()
    if x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise StageError("crowded photometry", "x and y are no positions", "finite numbers, as many x as y")
    flux = map_coordinates(filtered(np.where(image.bad, 0.0, image.data - sky), psf), [y, x], order=1, mode="nearest")
    return Stars(x, y, np.maximum(flux, 0.0))


def _without_faint(
    image: Image, sky: FloatArray, stars: Stars, fit: Fit, psf: Psf, gain: float | None, options: CrowdedOptions
) -> tuple[Stars, Fit, FloatArray]:
    """Drop detected stars that turned out to be noise, or two on one place, and fit the others once more."""
    residual = image.data - sky
    draw(residual, stars, psf, -1.0)
    noisy = image._replace(variance=with_photons(image.variance, image.data - sky - residual, gain))
    factor = noise_factor(residual, noisy, psf, options)[0]
    keep = np.isfinite(fit.flux_err) & (stars.flux > options.keep_sigma * factor * fit.flux_err)
    order = np.argsort(-stars.flux, kind="stable")
    tree = cKDTree(np.column_stack([stars.x, stars.y]))
    for i in order:
        if keep[i]:
            near = [j for j in tree.query_ball_point([stars.x[i], stars.y[i]], 0.3 * psf.fwhm) if j != i]
            keep[[j for j in near if stars.flux[j] <= stars.flux[i]]] = False
    kept = order[keep[order]]
    stars = Stars(*(column[kept] for column in stars))
    if not stars.x.size:
        return stars, Fit.empty(0), sky
    residual = image.data - sky
    draw(residual, stars, psf, -1.0)
    stars, fit = fit_all(residual, noisy, stars, psf, False, options)
    good = (fit.flags & CrowdedFlag.NOT_FITTED) == 0
    return Stars(*(column[good] for column in stars)), Fit(*(column[good] for column in fit)), sky


def _table(
    image: Image, sky: FloatArray, stars: Stars, fit: Fit, psf: Psf, zero_point: float, saturation: float | None,
    gain: float | None, given: bool, options: CrowdedOptions, data: npt.NDArray[Any],
) -> Table:  # fmt: skip
    residual = image.data - sky
    draw(residual, stars, psf, -1.0)
    light = image.data - sky - residual
    noisy = image._replace(variance=with_photons(image.variance, light, gain))
    _, factor = noise_factor(residual, noisy, psf, options)
    flags = fit.flags.copy()
    if stars.x.size:
        of_star = value_at(factor, stars)
        others = np.maximum(value_at(filtered(light, psf), stars) - stars.flux, 0.0)
        hidden = _hidden(stars, psf, options)
        flags |= _blemishes(stars, image, psf, options, data, saturation)
    else:
        of_star = others = hidden = np.empty(0)
    model_error = options.model_error
    if model_error is None:
        model_error = _model_error(residual, light, noisy, stars, of_star * fit.flux_err, psf)
    error = np.sqrt(
        np.square(of_star * fit.flux_err)
        + np.square(hidden)
        + np.square(model_error) * (np.square(stars.flux) + np.square(others))
    )
    lost = (flags & CrowdedFlag.NOT_FITTED) > 0
    flux = np.where(lost, np.nan, stars.flux)
    flags[flux <= 0] |= int(CrowdedFlag.NEGATIVE)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = error / flux
        table = Table(
            {
                "x": stars.x, "y": stars.y, "x_err": of_star * fit.x_err, "y_err": of_star * fit.y_err,
                "flux": flux / psf.stamp_share, "flux_err": error / psf.stamp_share,
                "mag": np.where(flux > 0, -2.5 * np.log10(flux / psf.stamp_share) + zero_point, np.nan),
                "mag_err": np.where(flux > 0, 2.5 / np.log(10.0) * ratio, np.nan),
                "sky": value_at(sky, stars) if stars.x.size else np.empty(0), "crowding": others / flux,
                "chi2": fit.chi2, "qfit": fit.qfit, "n_group": fit.n_group, "flags": flags,
            }
        )  # fmt: skip
    if not given:
        table = table[np.argsort(-table["flux"], kind="stable")]
    for key, unit in (
        ("x", "pix"),
        ("y", "pix"),
        ("x_err", "pix"),
        ("y_err", "pix"),
        ("mag", "mag"),
        ("mag_err", "mag"),
    ):
        table[key].unit = unit
    table.meta["noise_factor"] = float(np.median(of_star)) if stars.x.size else float(np.median(factor))
    table.meta["model_error"] = model_error
    table.meta["fwhm_px"] = psf.fwhm
    table.meta["stamp_share"] = psf.stamp_share
    return table


def _model_error(
    residual: FloatArray, light: FloatArray, image: Image, stars: Stars, error: FloatArray, psf: Psf
) -> float:
    """Error of the PSF as a part of the light: residual over model in the cores of the brightest stars, rms.

    The median of up to thirty stars of S/N above 100 (or the ten best), the noise of the pixels taken off.
    """
    usable = inside(stars, residual.shape) & np.isfinite(error) & (stars.flux > 0)
    chosen = np.flatnonzero(usable)[np.argsort(-stars.flux[usable], kind="stable")]
    strong = stars.flux[chosen] > 100.0 * error[chosen]
    chosen = chosen[: max(min(np.count_nonzero(strong), _MODEL_STARS), 10)]
    reach, found = psf.core.shape[0] // 2, []
    for i in chosen:
        row, column = round(float(stars.y[i])), round(float(stars.x[i]))
        cut = np.s_[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
        good = ~image.bad[cut]
        if good.mean() > 0.8:
            excess = np.square(residual[cut][good]).sum() - image.variance[cut][good].sum()
            found.append(excess / np.square(light[cut][good]).sum())
    return max(float(np.sqrt(max(np.median(found), 0.0))), _LEAST_MODEL_ERROR) if found else _DEFAULT_MODEL_ERROR


def _hidden(stars: Stars, psf: Psf, options: CrowdedOptions) -> FloatArray:
    """Scatter of the light of stars hidden in each star: those too near to be told apart, as the field around has them.

    A star nearer than 0.6 FWHM and much fainter is not found and adds its light. As many lie there as anywhere else
    within 10 FWHM; the sum of the squares of the light of those with up to 3 % of the star's is the variance.
    (Brighter ones are rare: they make outliers, not the width of the distribution.)
    """
    tree = cKDTree(np.column_stack([stars.x, stars.y]))
    reach = 10.0 * psf.fwhm
    area_ratio = (0.6 / 10.0) ** 2
    result = np.zeros(stars.x.size)
    for i, near in enumerate(tree.query_ball_point(np.column_stack([stars.x, stars.y]), reach)):
        flux = stars.flux[near]
        flux = flux[(flux > 0) & (flux < options.hidden_share * stars.flux[i])]
        result[i] = np.sqrt(area_ratio * np.square(flux).sum())
    return result


def _blemishes(
    stars: Stars, image: Image, psf: Psf, options: CrowdedOptions, data: npt.NDArray[Any], saturation: float | None
) -> IntArray:
    """SATURATED, MASKED (in the core), EDGE (fitted in part) and BLENDED (a brighter one within 0.75 FWHM) flags."""
    flags = np.zeros(stars.x.size, np.intp)
    reach = psf.core.shape[0] // 2
    column, row = np.rint(stars.x).astype(int), np.rint(stars.y).astype(int)
    ny, nx = image.data.shape
    flags[(column < reach) | (row < reach) | (column >= nx - reach) | (row >= ny - reach)] |= int(CrowdedFlag.EDGE)
    near = int(np.ceil(psf.fwhm / 2))
    tree = cKDTree(np.column_stack([stars.x, stars.y]))
    for i in range(stars.x.size):
        core = np.s_[
            max(row[i] - near, 0) : max(row[i] + near + 1, 0), max(column[i] - near, 0) : max(column[i] + near + 1, 0)
        ]
        if image.bad[core].any():
            flags[i] |= int(CrowdedFlag.MASKED)
            if saturation is not None and (data[core] >= saturation).any():
                flags[i] |= int(CrowdedFlag.SATURATED)
        close = tree.query_ball_point([stars.x[i], stars.y[i]], 0.75 * psf.fwhm)
        if stars.flux[close].max(initial=0.0) > stars.flux[i]:
            flags[i] |= int(CrowdedFlag.BLENDED)
    return flags
