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
_SETTLED = 1e-4
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
    """A frame's equations about a start, in units of half the frame: its sources, and where the stars say they are."""

    start: WCS
    shape: tuple[int, int]
    target: Floats
    linear: Floats
    common: Floats
    sigma: Floats
    weight: Floats
    own: Floats

    @classmethod
    def about(cls, pairs: Pairs, wcs: WCS, powers: list[tuple[int, int]]) -> _Frame:
        crpix, half = _middle(pairs.shape)
        ra0, dec0 = (float(value) for value in wcs.all_pix2world(*crpix, 1))
        cd = np.asarray(wcs.pixel_scale_matrix)
        sky = np.column_stack(gnomonic(pairs.ra, pairs.dec, ra0, dec0))
        u = (np.column_stack([pairs.x, pairs.y]) - crpix) / half
        scale = 3600 * np.sqrt(abs(np.linalg.det(cd)))
        return cls(
            start=wcs,
            shape=pairs.shape,
            target=np.linalg.solve(cd, sky.T).T / half - u,
            linear=np.column_stack([np.ones(len(u)), u]),
            common=np.column_stack([u[:, 0] ** p * u[:, 1] ** q for p, q in powers] or [np.empty((len(u), 0))]),
            sigma=pairs.sigma / scale / half,
            weight=np.ones(len(u)),
            own=np.zeros((3, 2)),
        )

    def fit(self, terms: Floats) -> float:
        """Its linear terms with the common ones given, and new weights; returns the largest change of a weight."""
        root = (np.sqrt(self.weight) / self.sigma)[:, None]
        rest = self.target - self.common @ terms
        self.own = np.asarray(np.linalg.lstsq(self.linear * root, rest * root, rcond=None)[0], dtype="f8")
        weight = tukey_weights(rest - self.linear @ self.own, self.sigma)
        moved = float(np.max(np.abs(weight - self.weight)))
        self.weight = weight
        return moved

    def solved(self, terms: Floats, powers: list[tuple[int, int]]) -> WCS:
        """The world coordinates that the terms make."""
        crpix, half = _middle(self.shape)
        ra0, dec0 = (float(value) for value in self.start.all_pix2world(*crpix, 1))
        cd, turned = np.asarray(self.start.pixel_scale_matrix), np.eye(2) + self.own[1:].T
        to_pixels = np.array([half ** (1 - p - q) for p, q in powers])
        bent = np.linalg.solve(turned, terms.T) * to_pixels
        return tan_sip(crpix, tangent_point(cd @ (half * self.own[0]), ra0, dec0), cd @ turned, bent, self.shape)


def _middle(shape: tuple[int, int]) -> tuple[Floats, float]:
    """Reference pixel (1-based) and the unit of the equations, px."""
    return np.array([(shape[1] + 1) / 2, (shape[0] + 1) / 2]), max(shape) / 2


def fit_together(frames: Sequence[Pairs], degree: int) -> JointFit:
    """Fit standard coordinates as linear in undistorted pixels, the distortion common to all frames.

    Least squares over all frames at once, each frame's linear terms eliminated by projection (Frisch & Waugh 1933,
    Econometrica 1, 387), so that the cost grows with the number of stars alone; weighted by the expected errors and
    robust (Tukey's biweight at 6 sigma of the frame's own scatter). The reference point is each frame's centre.

    The distortion is rounded to about its error, then each frame is placed by its own stars alone: a frame that is
    added or replaced seldom changes the world coordinates of the others, which would make all their stacks stale.

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
    wcses, terms = [pairs.wcs for pairs in frames], np.empty((0, 2))
    for _ in range(_ROUNDS):
        wcses, terms = _round(frames, wcses, degree)
    shared = len(monomials(degree, 2))
    parameters = tuple(3 + shared * len(pairs.x) / n for pairs in frames)
    return JointFit(tuple(_placed(pairs, terms, degree) for pairs in frames), parameters)


def _round(frames: Sequence[Pairs], wcses: Sequence[WCS], degree: int) -> tuple[list[WCS], Floats]:
    """One linearised fit about the present solutions: where the frames are, and the common terms, rounded."""
    powers = monomials(degree, 2)
    equations = [_Frame.about(pairs, wcs, powers) for pairs, wcs in zip(frames, wcses, strict=True)]
    terms, errors = _common(equations)
    return [frame.solved(terms, powers) for frame in equations], _rounded(terms, errors)


def _placed(pairs: Pairs, terms: Floats, degree: int) -> WCS:
    """A frame's place by its own stars, the distortion given."""
    powers, wcs = monomials(degree, 2), pairs.wcs
    for _ in range(_ROUNDS):
        frame = _Frame.about(pairs, wcs, powers)
        for _ in range(_REWEIGHTINGS):
            if frame.fit(terms) < _SETTLED:
                break
        wcs = frame.solved(terms, powers)
    return wcs


def _rounded(terms: Floats, errors: Floats) -> Floats:
    """To a power of two below each term's error: one frame more or less seldom moves the others' distortion."""
    step = 2.0 ** np.floor(np.log2(np.maximum(errors, 1e-12)))[:, None]
    return np.asarray(np.rint(terms / step) * step, dtype="f8")


def _common(frames: Sequence[_Frame]) -> tuple[Floats, Floats]:
    """Common terms (terms, 2) and their errors (terms,), iteratively reweighted; the frames' own on the way."""
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
        if max([frame.fit(terms) for frame in frames]) < _SETTLED:
            break
    return terms, np.asarray(np.sqrt(np.diag(np.linalg.pinv(normal, hermitian=True))), dtype="f8")
