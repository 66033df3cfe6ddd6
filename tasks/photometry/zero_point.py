"""The zero point and, where the stars allow, the colour term that a set of stars gives."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.frame import ColourFit

__all__ = ["ZeroPointFit", "fit_colour", "fit_zero_point"]

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]

MIN_COLOUR_STARS = 15
MIN_COLOUR_SPREAD = 0.3
"""A colour term is fitted with this many stars over this range of colour (10th to 90th percentile, mag)."""

MAX_CLIPPED = 0.35
"""More than this share of the stars is never clipped away: they are no outliers then."""

_FLOOR_MAG = 0.003
_START_MAG = 0.02


class ZeroPointFit(NamedTuple):
    """``m_PS1 + colour_term * colour = m_inst + zp``.

    Attributes
    ----------
    zp, err, rms
        mag; `rms` is the robust scatter of the stars used, `err` the fit's error at colour zero (where the term was
        given: without that of the term, which moves `zp` by `colour_mean` times it).
    colour_term, colour_source
        The term that was used and whence: ``'given'``, ``'fitted'`` or ``'none'`` (0 was taken).
    used
        The stars that were not clipped, shape (N,).
    residual
        Of every star, ``m_inst + zp - colour_term * colour - m_PS1``, mag, shape (N,).
    colour_mean
        Weighted mean colour of the stars used, mag; 0 where none has a colour.
    intrinsic
        Scatter of the stars beyond their errors, mag.
    capped
        More stars disagree than may be clipped: the result is a guess.
    """

    zp: float
    err: float
    rms: float
    colour_term: float
    colour_source: str
    used: BoolArray
    residual: FloatArray
    colour_mean: float
    intrinsic: float
    capped: bool


def fit_zero_point(
    offset: FloatArray,
    error: FloatArray,
    colour: FloatArray,
    *,
    colour_term: float | None = None,
    clip_sigma: float = 2.5,
    iterations: int = 5,
) -> ZeroPointFit:
    """Clipped, weighted fit of a zero point at colour zero.

    Weights are ``1 / (error² + s²)``; the intrinsic scatter s (flat field, PSF variation, variable stars) is
    what makes 1.4826 MAD of the residuals over their expected errors 1. It starts from the fit of least
    absolute pulls, which no minority of blended stars can tilt, and clips at `clip_sigma` expected errors,
    as often as `iterations`, never more than 35 % of the stars.

    Parameters
    ----------
    offset
        m_PS1 - m_inst, mag, shape (N,), N >= 1.
    error
        Its error (photon noise and catalogue), mag.
    colour
        PS1 colour, mag; NaN where unknown. Such a star is used only where the colour plays no part.
    colour_term
        Where it is known; None: fitted with >= 15 stars spread over >= 0.3 mag of colour, else 0.
    clip_sigma, iterations
        Clipping.

    Raises
    ------
    ValueError
        If no star is left to fit.
    """
    known = np.isfinite(offset) & np.isfinite(error)
    coloured = known & np.isfinite(colour)
    fit_term = colour_term is None and _spread_enough(colour[coloured])
    if colour_term is not None:
        source, term = "given", colour_term
    else:
        source, term = ("fitted" if fit_term else "none"), 0.0
    usable = coloured if (fit_term or term != 0.0) else known
    if not usable.any():
        raise ValueError("no star with magnitude and colour to fit a zero point to")
    shade = np.where(np.isfinite(colour), colour, 0.0)
    design = np.column_stack([np.ones_like(shade), -shade]) if fit_term else np.ones((shade.size, 1))
    target = np.where(usable, offset + term * shade, 0.0)
    photon = np.where(usable, np.maximum(error, 1e-4), 1.0)

    used = usable.copy()
    solution = _least_absolute(design[usable], target[usable], photon[usable])
    least = int(np.ceil((1 - MAX_CLIPPED) * usable.sum()))
    intrinsic, capped = 0.0, False
    for _ in range(iterations):
        residual = target - design @ solution
        intrinsic = _intrinsic_scatter(residual[used], photon[used])
        expected = np.hypot(photon, intrinsic)
        pull = np.where(usable, np.abs(residual) / expected, np.inf)
        keep = usable & (pull <= clip_sigma)
        capped = bool(keep.sum() < least)
        if capped:
            keep = np.zeros_like(usable)
            keep[np.argsort(pull, kind="stable")[:least]] = True
        weight = 1.0 / expected[keep] ** 2
        normal = design[keep].T @ (design[keep] * weight[:, None])
        solution = np.linalg.solve(normal, design[keep].T @ (target[keep] * weight))
        settled = bool((keep == used).all())
        used = keep
        if settled:
            break
    residual = target - design @ solution
    expected = np.hypot(photon, intrinsic)
    weight = 1.0 / expected[used] ** 2
    covariance = np.linalg.inv(design[used].T @ (design[used] * weight[:, None]))
    freedom = max(1, int(used.sum()) - design.shape[1])
    chi2 = float((residual[used] ** 2 * weight).sum() / freedom)
    if fit_term:
        term = float(solution[1])
    return ZeroPointFit(
        zp=float(solution[0]),
        err=float(np.sqrt(covariance[0, 0] * max(1.0, chi2))),
        rms=_robust(residual[used]),
        colour_term=float(term),
        colour_source=source,
        used=used,
        residual=np.where(usable, -residual, np.nan),
        colour_mean=_mean_colour(colour[used], weight),
        intrinsic=intrinsic,
        capped=capped,
    )


def _mean_colour(colour: FloatArray, weight: FloatArray) -> float:
    known = np.isfinite(colour)
    return float(np.average(colour[known], weights=weight[known])) if known.any() else 0.0


def fit_colour(
    offset: FloatArray,
    noise: FloatArray,
    star_error: FloatArray,
    colour: FloatArray,
    *,
    clip_sigma: float = 2.5,
    iterations: int = 5,
) -> ColourFit | None:
    """Colour term of one frame's stars, its error parted into what is the frame's own and what its stars bring along.

    Frames of one field see the same stars: the second part does not fall with their number
    (`tasks.photometry.gather_colour_terms`). The intrinsic scatter counts with it.

    Parameters
    ----------
    offset, colour
        As for `fit_zero_point`.
    noise, star_error
        Errors of `offset` by the frame's photon noise and by the catalogue, mag, shape (N,).
    clip_sigma, iterations
        Clipping.

    Returns
    -------
    ColourFit or None
        None with fewer than 15 stars or less than 0.3 mag of colour.
    """
    known = np.isfinite(offset) & np.isfinite(noise) & np.isfinite(star_error) & np.isfinite(colour)
    if not _spread_enough(colour[known]):
        return None
    fit = fit_zero_point(offset, np.hypot(noise, star_error), colour, clip_sigma=clip_sigma, iterations=iterations)
    used = fit.used
    if fit.capped or not _spread_enough(colour[used]):
        return None
    beyond = fit.intrinsic**2 if fit.intrinsic > _FLOOR_MAG else 0.0  # the floor is no measurement
    own, carried = noise[used] ** 2, star_error[used] ** 2 + beyond
    weight = 1.0 / (own + carried)
    lever = weight * (colour[used] - fit.colour_mean)
    moment = float((lever * (colour[used] - fit.colour_mean)).sum())
    return ColourFit(
        term=fit.colour_term,
        photon_error=float(np.sqrt((lever**2 * own).sum()) / moment),
        star_error=float(np.sqrt((lever**2 * carried).sum()) / moment),
    )


def _least_absolute(design: FloatArray, target: FloatArray, error: FloatArray) -> FloatArray:
    """Least sum of absolute pulls, by iteratively reweighted least squares from the median."""
    # Errors of the brightest stars are too small to be true: 20 mmag keeps a single one from ruling.
    scale = np.hypot(error, _START_MAG)
    solution: FloatArray = np.zeros(design.shape[1])
    solution[0] = float(np.median(target))
    for _ in range(30):
        pull = np.abs(target - design @ solution) / scale
        weight = 1.0 / (scale**2 * np.maximum(pull, 0.05))
        step = np.linalg.solve(design.T @ (design * weight[:, None]), design.T @ (target * weight))
        moved = float(np.abs(step - solution).max())
        solution = step
        if moved < 1e-5:
            break
    return solution


def _intrinsic_scatter(residual: FloatArray, error: FloatArray) -> float:
    """Scatter beyond the errors, mag: makes the robust width of the pulls 1; at least 3 mmag."""

    def width(intrinsic: float) -> float:
        pull = np.abs(residual) / np.hypot(error, intrinsic)
        return float(1.4826 * np.median(pull))

    low, high = _FLOOR_MAG, max(1.0, float(np.abs(residual).max(initial=0.0)) * 2)
    if width(low) <= 1.0:
        return low
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if width(middle) > 1.0 else (low, middle)
    return high


def _spread_enough(colour: FloatArray) -> bool:
    if colour.size < MIN_COLOUR_STARS:
        return False
    low, high = np.percentile(colour, [10, 90])
    return bool(high - low >= MIN_COLOUR_SPREAD)


def _robust(values: FloatArray) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if values.size else 0.0
