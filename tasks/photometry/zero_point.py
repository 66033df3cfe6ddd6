"""The zero point and, where the stars allow, the colour term that a set of stars gives."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["ZeroPointFit", "fit_zero_point"]

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]

MIN_COLOUR_STARS = 15
MIN_COLOUR_SPREAD = 0.3
"""A colour term is fitted with this many stars over this range of colour (10th to 90th percentile, mag)."""

MAX_CLIPPED = 0.35
"""More than this share of the stars is never clipped away: they are no outliers then."""

_FLOOR_MAG = 0.003


class ZeroPointFit(NamedTuple):
    """``m_PS1 + colour_term * colour = m_inst + zp``.

    Attributes
    ----------
    zp, err, rms
        mag; `rms` is the robust scatter of the stars used, `err` the fit's error at colour zero.
    colour_term, colour_source
        The term that was used and whence: ``'given'``, ``'fitted'`` or ``'none'`` (0 was taken).
    used
        The stars that were not clipped, shape (N,).
    residual
        Of every star, ``m_inst + zp - colour_term * colour - m_PS1``, mag, shape (N,).
    """

    zp: float
    err: float
    rms: float
    colour_term: float
    colour_source: str
    used: BoolArray
    residual: FloatArray


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
    what the robust scatter has beyond the stars' own errors. Clipping at `clip_sigma` x 1.4826 MAD of the
    residuals divided by their expected errors, as often as `iterations`, never of more than 35 %.

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
    solution: FloatArray = np.zeros(design.shape[1])
    solution[0] = float(np.median(target[usable]))
    least = int(np.ceil((1 - MAX_CLIPPED) * usable.sum()))
    intrinsic, scatter = 0.0, 0.0
    for _ in range(iterations + 1):
        # Clip first against the median (round one) or the last fit, then fit what is left.
        residual = target - design @ solution
        scatter = _robust(residual[used])
        intrinsic = np.sqrt(max(_FLOOR_MAG**2, scatter**2 - float(np.median(photon[used])) ** 2))
        expected = np.hypot(photon, intrinsic)
        pull = np.where(usable, np.abs(residual) / expected, np.inf)
        limit = clip_sigma * max(1.0, _robust((residual / expected)[used]))
        keep = usable & (pull <= limit)
        if keep.sum() < least:
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
    )


def _spread_enough(colour: FloatArray) -> bool:
    if colour.size < MIN_COLOUR_STARS:
        return False
    low, high = np.percentile(colour, [10, 90])
    return bool(high - low >= MIN_COLOUR_SPREAD)


def _robust(values: FloatArray) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if values.size else 0.0
