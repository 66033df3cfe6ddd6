"""Relative zero points of overlapping frames: robust least squares over the stars they share.

Each star s on each frame f gives ``m = -2.5 log10(flux / exptime) = M_s - ZP_f``. The stars' magnitudes are
eliminated, what is left is one dense system as large as the number of frames. The method is that of Padmanabhan
et al. (2008, ApJ 674, 1217), with Huber weights in place of clipping.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["RelativeSolution", "huber_location", "link_frames", "solve_relative"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_HUBER = 1.345
_FLOOR_MAG = 0.004
"""Error that no star's aperture flux beats on these frames (flat field, PSF changes over the field), mag."""

_PRIOR_FREEDOM, _MAX_PULL = 3.0, 6.0


@dataclass(frozen=True)
class RelativeSolution:
    """Zero points up to one constant.

    Attributes
    ----------
    zp
        Of each frame, mag, mean 0, shape (n_frames,).
    zp_err
        Their errors, mag.
    magnitude
        Of each star on the same scale (``M_s``), shape (n_stars,); NaN for stars without observation.
    magnitude_err
        Their errors, mag.
    rms
        Robust scatter of the residuals, mag.
    """

    zp: FloatArray
    zp_err: FloatArray
    magnitude: FloatArray
    magnitude_err: FloatArray
    rms: float


def link_frames(frame: IntArray, star: IntArray, n_frames: int, min_common: int) -> IntArray:
    """Which frames hang together: label of each frame's connected set, shape (n_frames,).

    Two frames are linked by at least `min_common` stars.
    """
    n_stars = int(star.max()) + 1 if len(star) else 0
    seen = coo_array((np.ones(len(frame)), (frame, star)), shape=(n_frames, n_stars)).tocsr()
    seen.data[:] = 1.0
    common = (seen @ seen.T).toarray() >= min_common
    _, labels = connected_components(coo_array(common), directed=False)
    numbers: IntArray = labels.astype(np.int64)
    return numbers


def solve_relative(frame: IntArray, star: IntArray, m: FloatArray, sigma: FloatArray) -> RelativeSolution:
    """Zero points of frames and magnitudes of stars from all observations of one connected set.

    Parameters
    ----------
    frame, star
        Index of frame and star of each observation, 0-based and without gaps, shape (n,).
    m, sigma
        Instrumental magnitude ``-2.5 log10(flux / exptime)`` and its error, mag.
    """
    n_frames, n_stars = int(frame.max()) + 1, int(star.max()) + 1
    sigma = np.hypot(sigma, _FLOOR_MAG)
    weight = 1.0 / sigma**2
    zp, magnitude, normal = _least_squares(frame, star, m, weight, n_frames, n_stars)
    scale = 1.0
    for _ in range(30):
        pull = (m - magnitude[star] + zp[frame]) / sigma
        scale = max(1.0, 1.4826 * float(np.median(np.abs(pull))))
        unsteady = _unsteadiness(star, pull / scale, n_stars)[star]
        weight = np.minimum(1.0, _HUBER * scale / np.maximum(np.abs(pull), 1e-12)) / (sigma * unsteady) ** 2
        previous = zp
        zp, magnitude, normal = _least_squares(frame, star, m, weight, n_frames, n_stars)
        if np.abs(zp - previous).max() < 1e-6:
            break
    residual = m - magnitude[star] + zp[frame]
    return RelativeSolution(
        zp=zp,
        zp_err=scale * np.sqrt(np.maximum(np.diag(np.linalg.pinv(normal, hermitian=True)), 0.0)),
        magnitude=magnitude,
        magnitude_err=scale / np.sqrt(np.bincount(star, weight, n_stars)),
        rms=1.4826 * float(np.median(np.abs(residual - np.median(residual)))),
    )


def _unsteadiness(star: IntArray, pull: FloatArray, n_stars: int) -> FloatArray:
    """Factor by which each star's errors are too small: variable, or on a ground whose share follows the seeing.

    Root of the reduced chi squared of its observations with a prior of 1 that counts as three of them; at least 1.
    """
    of_star = np.bincount(star, np.minimum(np.abs(pull), _MAX_PULL) ** 2, n_stars)
    freedom = np.bincount(star, minlength=n_stars) - 1.0
    return np.sqrt(np.maximum(1.0, (of_star + _PRIOR_FREEDOM) / (freedom + _PRIOR_FREEDOM)))


def _least_squares(
    frame: IntArray, star: IntArray, m: FloatArray, weight: FloatArray, n_frames: int, n_stars: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """One weighted solution with mean zero point 0, the stars eliminated (Schur complement)."""
    shape = (n_frames, n_stars)
    cross = coo_array((weight, (frame, star)), shape=shape).tocsr()
    of_star = np.bincount(star, weight, n_stars)
    of_frame = np.bincount(frame, weight, n_frames)
    star_sum = np.bincount(star, weight * m, n_stars)
    frame_sum = np.bincount(frame, weight * m, n_frames)
    normal = np.diag(of_frame) - (cross.multiply(1.0 / of_star[None, :]) @ cross.T).toarray()
    right = -(frame_sum - cross @ (star_sum / of_star))
    zp = np.linalg.pinv(normal, hermitian=True) @ right  # the constant is free: minimum norm sets the mean to 0
    magnitude = (star_sum + cross.T @ zp) / of_star
    return zp, magnitude, normal


def huber_location(values: FloatArray, errors: FloatArray) -> tuple[float, float]:
    """Weighted mean that outliers do not move, and its error.

    Huber weights from the median outwards; what is then further off than 5 (scaled) errors does not count at all.
    """
    centre, scale = float(np.median(values)), 1.0
    for _ in range(50):
        pull = (values - centre) / errors
        scale = max(1.0, 1.4826 * float(np.median(np.abs(pull))))
        weight = np.minimum(1.0, _HUBER * scale / np.maximum(np.abs(pull), 1e-12)) / errors**2
        previous, centre = centre, float(np.sum(weight * values) / np.sum(weight))
        if abs(centre - previous) < 1e-7:
            break
    near = np.abs(values - centre) <= 5.0 * scale * errors
    weight = np.where(near, 1.0 / errors**2, 0.0)
    return float(np.sum(weight * values) / np.sum(weight)), float(scale / np.sqrt(np.sum(weight)))
