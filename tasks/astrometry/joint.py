"""Our own fit of a season's frames to Gaia: each its linear terms, all one distortion.

A sparse frame has stars enough for its place, scale and turn and not for a cubic polynomial of its own, which goes
wild in corners without stars; the distortion is the camera's, and all frames of a season know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS

from tasks.astrometry.fitting import monomials, tan_sip, tangent_point, tukey_weights
from tasks.astrometry.matching import Floats, gnomonic

__all__ = ["JointFit", "Pairs", "fit_together"]

_ROUNDS = 3
_REWEIGHTINGS = 15
_MIN_PER_TERM = 4
"""Stars behind each term of the common distortion, at least; else a lower degree."""


@dataclass(frozen=True)
class Pairs:
    """A frame's sources and the stars they are.

    Attributes
    ----------
    wcs
        Where the frame is, within some arcseconds.
    shape
        (rows, columns); the same for all frames that are fitted together.
    x, y
        1-based FITS pixels, f8 (n,).
    ra, dec
        Of the stars at the frame's own epoch, deg, f8 (n,).
    sigma
        Expected error of a pair, one axis, arcsec, f8 (n,).
    """

    wcs: WCS
    shape: tuple[int, int]
    x: Floats
    y: Floats
    ra: Floats
    dec: Floats
    sigma: Floats


@dataclass(frozen=True)
class JointFit:
    """The frames' world coordinates.

    Attributes
    ----------
    wcses
        TAN-SIP (TAN with degree 1), one a frame.
    parameters
        Fitted numbers an axis that count against each frame: its own and its share of the common ones.
    """

    wcses: tuple[WCS, ...]
    parameters: tuple[float, ...]


@dataclass
class _Frame:
    """A frame's equations, in units of half the frame: place of the sources, where the stars say they should be."""

    u: Floats
    target: Floats
    linear: Floats
    common: Floats
    sigma: Floats
    weight: Floats


def fit_together(frames: Sequence[Pairs], degree: int) -> JointFit:
    """Fit standard coordinates as linear in undistorted pixels, the distortion common to all frames.

    Least squares over all frames at once, each frame's linear terms eliminated by projection (Frisch & Waugh 1933,
    Econometrica 1, 387), so that the cost grows with the number of stars alone; weighted by the expected errors and
    robust (Tukey's biweight at 6 sigma of the frame's own scatter). The reference point is each frame's centre.

    Parameters
    ----------
    frames
        At least one; each with at least three pairs.
    degree
        Of the common polynomial, lowered while there are fewer than four stars a term.

    Raises
    ------
    ValueError
        If the frames' shapes differ, or one has fewer than three pairs.
    """
    if len({pairs.shape for pairs in frames}) != 1:
        raise ValueError("frames of one shape are fitted together")
    if min(len(pairs.x) for pairs in frames) < 3:
        raise ValueError("a frame needs three stars for its linear terms")
    n = sum(len(pairs.x) for pairs in frames)
    free = n - 3 * len(frames)
    while degree > 1 and free < _MIN_PER_TERM * len(monomials(degree, 2)):
        degree -= 1
    wcses = [pairs.wcs for pairs in frames]
    for _ in range(_ROUNDS):
        wcses = _round(frames, wcses, degree)
    shared = len(monomials(degree, 2))
    parameters = tuple(3 + shared * len(pairs.x) / n for pairs in frames)
    return JointFit(tuple(wcses), parameters)


def _round(frames: Sequence[Pairs], wcses: Sequence[WCS], degree: int) -> list[WCS]:
    """One linearised fit about the present solutions."""
    shape = frames[0].shape
    half = max(shape) / 2
    crpix = np.array([(shape[1] + 1) / 2, (shape[0] + 1) / 2])
    powers = monomials(degree, 2)
    starts = []
    equations = []
    for pairs, wcs in zip(frames, wcses, strict=True):
        ra0, dec0 = (float(value) for value in wcs.all_pix2world(*crpix, 1))
        cd = np.asarray(wcs.pixel_scale_matrix)
        starts.append((ra0, dec0, cd))
        sky = np.column_stack(gnomonic(pairs.ra, pairs.dec, ra0, dec0))
        u = (np.column_stack([pairs.x, pairs.y]) - crpix) / half
        target = np.linalg.solve(cd, sky.T).T / half - u
        linear = np.column_stack([np.ones(len(u)), u])
        common = np.column_stack([u[:, 0] ** p * u[:, 1] ** q for p, q in powers]) if powers else np.empty((len(u), 0))
        scale = 3600 * np.sqrt(abs(np.linalg.det(cd)))
        equations.append(_Frame(u, target, linear, common, pairs.sigma / scale / half, np.ones(len(u))))
    terms, own = _robust(equations)
    to_pixels = np.array([half ** (1 - p - q) for p, q in powers])
    solved = []
    for (ra0, dec0, cd), coefficients in zip(starts, own, strict=True):
        turned = np.eye(2) + coefficients[1:].T
        crval = tangent_point(cd @ (half * coefficients[0]), ra0, dec0)
        bent = np.linalg.solve(turned, terms.T) * to_pixels
        solved.append(tan_sip(crpix, crval, cd @ turned, bent, shape))
    return solved


def _robust(frames: Sequence[_Frame]) -> tuple[Floats, list[Floats]]:
    """Common terms (terms, 2) and each frame's own (3, 2), iteratively reweighted."""
    n_common = frames[0].common.shape[1]
    for _ in range(_REWEIGHTINGS):
        normal, right = np.zeros((n_common, n_common)), np.zeros((n_common, 2))
        for frame in frames:
            root = (np.sqrt(frame.weight) / frame.sigma)[:, None]
            q, _ = np.linalg.qr(frame.linear * root)
            common, target = frame.common * root, frame.target * root
            common -= q @ (q.T @ common)
            target -= q @ (q.T @ target)
            normal += common.T @ common
            right += common.T @ target
        terms = np.asarray(np.linalg.lstsq(normal, right, rcond=None)[0], dtype="f8")
        own, moved = [], 0.0
        for frame in frames:
            root = (np.sqrt(frame.weight) / frame.sigma)[:, None]
            rest = frame.target - frame.common @ terms
            coefficients = np.linalg.lstsq(frame.linear * root, rest * root, rcond=None)[0]
            own.append(np.asarray(coefficients, dtype="f8"))
            weight = tukey_weights(rest - frame.linear @ coefficients, frame.sigma)
            moved = max(moved, float(np.max(np.abs(weight - frame.weight))))
            frame.weight = weight
        if moved < 1e-4:
            break
    return terms, own
