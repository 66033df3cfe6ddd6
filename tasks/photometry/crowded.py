"""PSF photometry where stars overlap: cores of clusters, on a frame or a stack.

Pixel positions are zero-based array coordinates throughout: the centre of ``data[0, 0]`` is (0, 0).
"""

from __future__ import annotations

import hashlib
import warnings
from enum import IntFlag
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sep
from astropy.table import QTable, Table
from astropy.utils.exceptions import AstropyUserWarning
from photutils.detection import find_peaks
from photutils.psf import ImagePSF, PSFPhotometry
from photutils.utils.exceptions import NoDetectionsWarning
from pydantic import Field
from scipy.ndimage import binary_dilation, gaussian_filter, map_coordinates
from scipy.signal import fftconvolve
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from models.base import Record
from tasks.core.errors import StageError

__all__ = ["CrowdedFlag", "CrowdedOptions", "crowded_photometry"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

_WING_BETA = 3.0
_STILL_PX = 1e-3
"""How far a fixed star may move: photutils 3.0 loses positions that are fixed outright in groups."""
_MODEL_STARS = 30
_LEAST_MODEL_ERROR, _DEFAULT_MODEL_ERROR = 0.002, 0.01
_PHOTUTILS_NOT_CONVERGED = 8
_PHOTUTILS_NEAR_BOUND = 32


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
    hidden_share: float = Field(
        0.03, ge=0, le=1, description="stars hidden in a star have up to this share of its light"
    )
    residual_share: float = Field(
        0.015, ge=0, description="of the light that was fitted: no star is found in less than that"
    )


class _Stars(NamedTuple):
    x: FloatArray
    y: FloatArray
    flux: FloatArray


class _Image(NamedTuple):
    data: FloatArray
    bad: BoolArray
    variance: FloatArray


class _Psf(NamedTuple):
    """Model, its width and half its stamp, and its core as a kernel for finding and weighing."""

    model: ImagePSF
    fwhm: float
    half: int
    core: FloatArray
    stamp_share: float


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
    image, model = _checked(data, weight, saturation), _psf(psf, options)
    given = x is not None and y is not None
    if (x is None) != (y is None) or (fixed and not given):
        raise StageError("crowded photometry", "x and y are needed, both", "give both, or neither to find the stars")
    sky = _smooth(image.data, image.bad, model, options)
    stars = _given(x, y, image, sky, model) if given else _Stars(*(np.empty(0) for _ in range(3)))
    fit = _Fit.empty(stars.x.size)
    for _ in range(options.rounds):
        residual = image.data - sky
        _draw(residual, stars, model, -1.0)
        light = image.data - sky - residual
        noisy = image._replace(variance=_with_photons(image.variance, light, gain))
        if not given:
            new = _find(residual, light, noisy, stars, model, options)
            if not new.x.size and stars.x.size and fit.flux_err.size == stars.x.size:
                break
            _draw(residual, new, model, -1.0)
            stars = _Stars(*(np.concatenate(pair) for pair in zip(stars, new, strict=True)))
            if not stars.x.size:
                break
        stars, fit = _fit_all(residual, noisy, stars, model, fixed, options)
        sky = sky + _smooth(residual, image.bad, model, options)
    if not given and stars.x.size:
        stars, fit, sky = _without_faint(image, sky, stars, fit, model, gain, options)
    return _table(image, sky, stars, fit, model, zero_point, saturation, gain, given, options, np.asarray(data))


def _checked(data: npt.NDArray[Any], weight: npt.NDArray[Any], saturation: float | None) -> _Image:
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
    return _Image(np.where(bad & ~np.isfinite(values), 0.0, values), bad, variance)


def _psf(psf: npt.NDArray[Any], options: CrowdedOptions) -> _Psf:
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
    return _Psf(_model_of(image), fwhm, half, core, 1.0 / (1.0 + beyond))


def _model_of(image: FloatArray) -> ImagePSF:
    """Photutils' image model as a class of its own for each PSF.

    Photutils 3.0 keeps the models of groups by number of stars and *name of the class*: with its own class, groups
    would be fitted with the PSF of an earlier call.
    """
    mark = hashlib.sha256(image.tobytes()).hexdigest()[:16]
    model: ImagePSF = type(f"ImagePSF_{mark}", (ImagePSF,), {})(image)
    return model


def _smooth(image: FloatArray, bad: BoolArray, psf: _Psf, options: CrowdedOptions) -> FloatArray:
    """Smooth background: sep's clipped mode in a mesh."""
    mesh = max(16, round(options.sky_mesh_fwhm * psf.fwhm))
    values = np.ascontiguousarray(np.where(bad, 0.0, image))
    return np.asarray(sep.Background(values, mask=bad, bw=mesh, bh=mesh, fw=3, fh=3).back(), np.float64)


def _with_photons(variance: FloatArray, light: FloatArray, gain: float | None) -> FloatArray:
    return variance if gain is None else variance + np.maximum(light, 0.0) / gain


def _filtered(image: FloatArray, psf: _Psf) -> FloatArray:
    """Flux of a star at every pixel: the image weighed with the PSF."""
    return np.asarray(fftconvolve(image, psf.core[::-1, ::-1], mode="same") / np.square(psf.core).sum())


def _white(variance: FloatArray, psf: _Psf) -> FloatArray:
    """Error of `_filtered` if pixels were independent."""
    total = fftconvolve(variance, np.square(psf.core)[::-1, ::-1], mode="same")
    return np.asarray(np.sqrt(np.maximum(total, 1e-30)) / np.square(psf.core).sum())


def _noise_factor(residual: FloatArray, image: _Image, psf: _Psf, options: CrowdedOptions) -> tuple[float, FloatArray]:
    """Scatter of fluxes weighed by the PSF in the residual over that of white noise: the field's, and a smooth map.

    The field's is a robust scatter: that of the sky, to find stars against. The map is a mean of squares, since the
    tail that stars too faint to be found make is noise to the others; what a saturated star leaves is cut at ten
    times the field's scatter.
    """
    score = _filtered(np.where(image.bad, 0.0, residual), psf) / _white(image.variance, psf)
    good = ~binary_dilation(image.bad, iterations=2)
    if not good.any():
        return 1.0, np.ones(residual.shape)
    whole = 1.4826 * float(np.median(np.abs(score[good] - np.median(score[good]))))
    squares = np.where(good, np.minimum(np.square(score), np.square(10.0 * whole)), 0.0)
    width = options.sky_mesh_fwhm * psf.fwhm / 2.0
    total, n = (gaussian_filter(image, width, mode="constant") for image in (squares, good.astype(np.float64)))
    return whole, np.sqrt(np.where(n > 1e-3, total / np.maximum(n, 1e-3), np.square(whole)))


def _inside(stars: _Stars, shape: tuple[int, ...]) -> BoolArray:
    return np.asarray(
        (stars.x > -0.5) & (stars.y > -0.5) & (stars.x < shape[1] - 0.5) & (stars.y < shape[0] - 0.5), bool
    )


def _find(
    residual: FloatArray, light: FloatArray, image: _Image, stars: _Stars, psf: _Psf, options: CrowdedOptions
) -> _Stars:
    flux = _filtered(np.where(image.bad, 0.0, residual), psf)
    # The mean around is taken off: the slope of a bright star's wing is no star.
    wide = psf.half
    axis = np.arange(-wide, wide + 1)
    ring = np.hypot(axis[:, None], axis[None, :])
    around = ((ring > 1.5 * psf.fwhm) & (ring <= 2.5 * psf.fwhm)).astype(np.float64)
    level = fftconvolve(flux, around / around.sum(), mode="same")
    error = _white(image.variance, psf) * _noise_factor(residual, image, psf, options)[0]
    limit = options.detection_sigma * np.hypot(
        error, options.residual_share / options.detection_sigma * _filtered(light, psf)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)  # none found: that is the end of the search
        peaks = find_peaks(flux - level - limit, 0.0, box_size=2 * round(psf.fwhm / 2) + 1, mask=image.bad)
    if peaks is None or not len(peaks):
        return _Stars(*(np.empty(0) for _ in range(3)))
    x, y = (np.asarray(peaks[key], np.float64) for key in ("x_peak", "y_peak"))
    found = _Stars(x, y, flux[y.astype(int), x.astype(int)])
    if stars.x.size:
        nearest, _ = cKDTree(np.column_stack([stars.x, stars.y])).query(np.column_stack([x, y]))
        found = _Stars(*(column[nearest > options.separation_fwhm * psf.fwhm] for column in found))
    return found


def _given(x: npt.NDArray[Any] | None, y: npt.NDArray[Any] | None, image: _Image, sky: FloatArray, psf: _Psf) -> _Stars:
    x, y = np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()
    if x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise StageError("crowded photometry", "x and y are no positions", "finite numbers, as many x as y")
    flux = map_coordinates(_filtered(np.where(image.bad, 0.0, image.data - sky), psf), [y, x], order=1, mode="nearest")
    return _Stars(x, y, np.maximum(flux, 0.0))


def _draw(image: FloatArray, stars: _Stars, psf: _Psf, sign: float) -> None:
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


def _groups(stars: _Stars, psf: _Psf, options: CrowdedOptions) -> IntArray:
    """Number of the group of each star: chains of near neighbours, cut at their widest gaps where they are too long."""
    places = np.column_stack([stars.x, stars.y])
    group = np.zeros(stars.x.size, np.intp)
    n_groups = 0
    work = [(np.arange(stars.x.size), options.group_fwhm * psf.fwhm)]
    while work:
        members, distance = work.pop()
        pairs = cKDTree(places[members]).query_pairs(distance, output_type="ndarray")
        links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(members.size,) * 2)
        n, label = connected_components(links, directed=False)
        for k in range(n):
            part = members[label == k]
            if part.size > options.max_group and distance > 0.2 * psf.fwhm:
                work.append((part, 0.85 * distance))
                continue
            for start in range(0, part.size, options.max_group):
                group[part[start : start + options.max_group]] = n_groups
                n_groups += 1
    return group


def _batches(stars: _Stars, group: IntArray, reach: int) -> list[IntArray]:
    """Stars of groups of which none has light in the pixels another is fitted in: to be fitted at a time."""
    pairs = cKDTree(np.column_stack([stars.x, stars.y])).query_pairs(reach, p=np.inf, output_type="ndarray")
    touching: dict[int, set[int]] = {int(number): set() for number in np.unique(group)}
    for a, b in group[pairs]:
        if a != b:
            touching[int(a)].add(int(b))
            touching[int(b)].add(int(a))
    # The brightest first: what they leave decides for the others.
    light = np.zeros(len(touching))
    np.maximum.at(light, group, stars.flux)
    colour: dict[int, int] = {}
    for number in np.argsort(-light, kind="stable"):
        taken = {colour[other] for other in touching[int(number)] if other in colour}
        colour[int(number)] = next(c for c in range(len(touching)) if c not in taken)
    of_star = np.array([colour[int(number)] for number in group])
    return [np.flatnonzero(of_star == c) for c in range(int(of_star.max()) + 1)]


class _Fit(NamedTuple):
    """What the last fit said of each star."""

    x_err: FloatArray
    y_err: FloatArray
    flux_err: FloatArray
    chi2: FloatArray
    qfit: FloatArray
    n_group: IntArray
    flags: IntArray

    @classmethod
    def empty(cls, n: int) -> _Fit:
        nothing = np.full((5, n), np.nan)
        return cls(
            nothing[0], nothing[1], nothing[2], nothing[3], nothing[4], np.ones(n, np.intp), np.zeros(n, np.intp)
        )


def _fit_all(
    residual: FloatArray, image: _Image, stars: _Stars, psf: _Psf, fixed: bool, options: CrowdedOptions
) -> tuple[_Stars, _Fit]:
    """Fit every group of stars in the residual with its own light put back; `residual` is kept up to date."""
    group = _groups(stars, psf, options)
    side = psf.core.shape[0]
    stars = _Stars(*(column.copy() for column in stars))
    fit = _Fit.empty(stars.x.size)
    error = np.sqrt(image.variance)
    photometry = PSFPhotometry(
        psf.model, (side, side), fitter_maxiters=50, xy_bounds=_STILL_PX if fixed else options.move_fwhm * psf.fwhm,
        group_warning_threshold=options.max_group + 1,
    )  # fmt: skip
    inside = _inside(stars, residual.shape)
    for batch in _batches(stars, group, psf.half + side // 2 + 1):
        chosen = batch[inside[batch]]
        fit.flags[batch[~inside[batch]]] |= int(CrowdedFlag.NOT_FITTED)
        if not chosen.size:
            continue
        _draw(residual, _Stars(*(column[chosen] for column in stars)), psf, 1.0)
        start = QTable({"x": stars.x[chosen], "y": stars.y[chosen], "flux": stars.flux[chosen]})
        _, start["group_id"] = np.unique(group[chosen], return_inverse=True)
        start["group_id"] += 1
        with warnings.catch_warnings():
            # Which fits did not converge is in the flags, star by star.
            warnings.filterwarnings("ignore", "One or more fit", AstropyUserWarning)
            result = photometry(residual, error=error, mask=image.bad, init_params=start)
        at = stars.x[chosen], stars.y[chosen]
        _take(result, chosen, stars, fit)
        if fixed:
            stars.x[chosen], stars.y[chosen] = at
            fit.flags[chosen] &= ~int(CrowdedFlag.AT_BOUND)
        _draw(residual, _Stars(*(column[chosen] for column in stars)), psf, -1.0)
    return stars, fit


def _take(result: QTable, chosen: IntArray, stars: _Stars, fit: _Fit) -> None:
    """Photutils' results into the arrays; a star that was not fitted stays where it was, without light."""
    result.sort("id")
    values = {key: np.asarray(result[key], np.float64) for key in ("x_fit", "y_fit", "flux_fit")}
    good = np.all([np.isfinite(column) for column in values.values()], axis=0)
    for column, key in zip(stars, ("x_fit", "y_fit", "flux_fit"), strict=True):
        column[chosen[good]] = values[key][good]
    stars.flux[chosen[~good]] = 0.0
    fit.flags[chosen[~good]] |= int(CrowdedFlag.NOT_FITTED)
    for column, key in ((fit.x_err, "x_err"), (fit.y_err, "y_err"), (fit.flux_err, "flux_err"), (fit.qfit, "qfit"),
                        (fit.chi2, "reduced_chi2")):  # fmt: skip
        column[chosen] = np.asarray(result[key])
    fit.n_group[chosen] = np.asarray(result["group_size"])
    theirs = np.asarray(result["flags"], int)
    for bit, ours in (
        (_PHOTUTILS_NOT_CONVERGED, CrowdedFlag.NOT_CONVERGED),
        (_PHOTUTILS_NEAR_BOUND, CrowdedFlag.AT_BOUND),
    ):
        fit.flags[chosen[(theirs & bit) > 0]] |= int(ours)


def _without_faint(
    image: _Image, sky: FloatArray, stars: _Stars, fit: _Fit, psf: _Psf, gain: float | None, options: CrowdedOptions
) -> tuple[_Stars, _Fit, FloatArray]:
    """Drop detected stars that turned out to be noise, or two on one place, and fit the others once more."""
    residual = image.data - sky
    _draw(residual, stars, psf, -1.0)
    noisy = image._replace(variance=_with_photons(image.variance, image.data - sky - residual, gain))
    factor = _noise_factor(residual, noisy, psf, options)[0]
    keep = np.isfinite(fit.flux_err) & (stars.flux > options.keep_sigma * factor * fit.flux_err)
    order = np.argsort(-stars.flux, kind="stable")
    tree = cKDTree(np.column_stack([stars.x, stars.y]))
    for i in order:
        if keep[i]:
            near = [j for j in tree.query_ball_point([stars.x[i], stars.y[i]], 0.3 * psf.fwhm) if j != i]
            keep[[j for j in near if stars.flux[j] <= stars.flux[i]]] = False
    kept = order[keep[order]]
    stars = _Stars(*(column[kept] for column in stars))
    if not stars.x.size:
        return stars, _Fit.empty(0), sky
    residual = image.data - sky
    _draw(residual, stars, psf, -1.0)
    stars, fit = _fit_all(residual, noisy, stars, psf, False, options)
    good = (fit.flags & CrowdedFlag.NOT_FITTED) == 0
    return _Stars(*(column[good] for column in stars)), _Fit(*(column[good] for column in fit)), sky


def _at(image: FloatArray, stars: _Stars) -> FloatArray:
    return np.asarray(map_coordinates(image, [stars.y, stars.x], order=1, mode="nearest"), np.float64)


def _table(
    image: _Image, sky: FloatArray, stars: _Stars, fit: _Fit, psf: _Psf, zero_point: float, saturation: float | None,
    gain: float | None, given: bool, options: CrowdedOptions, data: npt.NDArray[Any],
) -> Table:  # fmt: skip
    residual = image.data - sky
    _draw(residual, stars, psf, -1.0)
    light = image.data - sky - residual
    noisy = image._replace(variance=_with_photons(image.variance, light, gain))
    _, factor = _noise_factor(residual, noisy, psf, options)
    flags = fit.flags.copy()
    if stars.x.size:
        of_star = _at(factor, stars)
        others = np.maximum(_at(_filtered(light, psf), stars) - stars.flux, 0.0)
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
                "sky": _at(sky, stars) if stars.x.size else np.empty(0), "crowding": others / flux,
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
    residual: FloatArray, light: FloatArray, image: _Image, stars: _Stars, error: FloatArray, psf: _Psf
) -> float:
    """Error of the PSF as a part of the light: residual over model in the cores of the brightest stars, rms.

    The median of up to thirty stars of S/N above 100 (or the ten best), the noise of the pixels taken off.
    """
    inside = _inside(stars, residual.shape) & np.isfinite(error) & (stars.flux > 0)
    chosen = np.flatnonzero(inside)[np.argsort(-stars.flux[inside], kind="stable")]
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


def _hidden(stars: _Stars, psf: _Psf, options: CrowdedOptions) -> FloatArray:
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
    stars: _Stars, image: _Image, psf: _Psf, options: CrowdedOptions, data: npt.NDArray[Any], saturation: float | None
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
