"""Our own fit of TAN plus a polynomial to matched stars, and the TAN-SIP world coordinates it makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS, Sip
from numpy.typing import NDArray

from tasks.astrometry.matching import Floats, gnomonic

__all__ = [
    "PolynomialFit",
    "fit_best_degree",
    "fit_polynomial",
    "monomials",
    "tan_sip",
    "tangent_point",
    "tukey_weights",
]

_INVERSE_DEGREE = 5
_TUKEY = 6.0


@dataclass(frozen=True)
class PolynomialFit:
    """A fit.

    Attributes
    ----------
    wcs
        TAN (degree 1) or TAN-SIP.
    degree
        Of the polynomial.
    weight
        Final weight of each star relative to its statistical one, 0 (an outlier) to 1; f8 (n,).
    prediction
        Weighted rms with which each star is predicted by the others (leave-one-out), arcsec.
    """

    wcs: WCS
    degree: int
    weight: Floats
    prediction: float


def monomials(degree: int, start: int = 0) -> list[tuple[int, int]]:
    """Exponents (p, q) with ``start <= p + q <= degree``, by rising order."""
    return [(order - q, q) for order in range(start, degree + 1) for q in range(order + 1)]


def _design(u: Floats, v: Floats, powers: list[tuple[int, int]]) -> Floats:
    return np.column_stack([u**p * v**q for p, q in powers])


def _robust_solve(design: Floats, target: Floats, sigma: Floats) -> tuple[Floats, Floats, float]:
    """Weighted least squares with Tukey's biweight on the two-dimensional residual.

    Returns the coefficients (terms, 2), the robustness weights and the leave-one-out rms.
    """
    scaled = np.max(np.abs(design), axis=0)
    weight = np.ones(len(sigma))
    coefficients = np.zeros((design.shape[1], 2))
    for _ in range(12):
        root = np.sqrt(weight) / sigma
        coefficients = np.linalg.lstsq(design / scaled * root[:, None], target * root[:, None], rcond=None)[0]
        residual = target - design / scaled @ coefficients
        new = tukey_weights(residual, sigma)
        settled = np.max(np.abs(new - weight)) < 1e-4
        weight = new
        if settled:
            break
    root = np.sqrt(weight) / sigma
    # Leverages: the diagonal of the hat matrix, by which one fit tells what all leave-one-out fits would give.
    q, _ = np.linalg.qr(design / scaled * root[:, None])
    leverage = np.clip(np.sum(q**2, axis=1), 0, 0.999)
    left_out = np.hypot(residual[:, 0], residual[:, 1]) / (1 - leverage)
    prediction = float(np.sqrt(np.sum((root * left_out) ** 2) / np.sum(root**2)))
    return coefficients / scaled[:, None], weight, prediction


def tukey_weights(residual: Floats, sigma: Floats) -> Floats:
    """Tukey's biweight of two-dimensional residuals (n, 2) at 6 sigma of their own scatter, 0 (an outlier) to 1."""
    distance = np.hypot(residual[:, 0], residual[:, 1]) / sigma
    # The median of a Rayleigh distribution is 1.1774; never below 1: formal errors are not to be undercut.
    spread = max(1.0, float(np.median(distance)) / 1.1774)
    return np.asarray(np.clip(1 - (distance / (_TUKEY * spread)) ** 2, 0, None) ** 2, dtype="f8")


def fit_polynomial(
    x: Floats, y: Floats, ra: Floats, dec: Floats, sigma: Floats, shape: tuple[int, int], degree: int, start: WCS
) -> PolynomialFit:
    """Fit standard coordinates as a polynomial of pixel position.

    Linear least squares, weighted by `sigma` and robust against wrong pairs; the reference point is the
    frame's centre, its sky position part of the fit. Written in the SIP convention (Shupe et al. 2005, ASP
    Conf. 347, 491) with the inverse polynomial fitted on a grid over the frame.

    Parameters
    ----------
    x, y
        1-based FITS pixels, f8 (n,).
    ra, dec
        deg, f8 (n,).
    sigma
        Expected error of a pair, one axis, arcsec, f8 (n,).
    shape
        (rows, columns) of the frame.
    degree
        1 to 3.
    start
        Where to put the first tangent point; any WCS within some degrees of the truth does.
    """
    crpix = np.array([(shape[1] + 1) / 2, (shape[0] + 1) / 2])
    u, v = x - crpix[0], y - crpix[1]
    powers = monomials(degree)
    design = _design(u, v, powers)
    ra0, dec0 = (float(value) for value in start.all_pix2world(*crpix, 1))
    for _ in range(4):
        target = np.column_stack(gnomonic(ra, dec, ra0, dec0)) * 3600
        coefficients, weight, prediction = _robust_solve(design, target, sigma)
        offset = coefficients[0] / 3600
        ra0, dec0 = tangent_point(offset, ra0, dec0)
        if np.hypot(*offset) < 1e-11:
            break
    cd = coefficients[1:3].T / 3600
    terms = np.asarray(np.linalg.solve(cd, coefficients[3:].T / 3600), dtype="f8")
    return PolynomialFit(tan_sip(crpix, (ra0, dec0), cd, terms, shape), degree, weight, prediction)


def tan_sip(crpix: Floats, crval: tuple[float, float], cd: Floats, terms: Floats, shape: tuple[int, int]) -> WCS:
    """World coordinates from a fit: TAN, with SIP polynomials where there are terms, their inverse with them.

    Parameters
    ----------
    crpix, crval
        Reference point, 1-based px and deg.
    cd
        Linear part, deg/px, (2, 2).
    terms
        Of both polynomials, px, in the order of ``monomials(degree, 2)``; f8 (2, n), n = 0 for none.
    shape
        (rows, columns) of the frame.
    """
    wcs = _tan(crpix, crval, cd)
    if terms.shape[1]:
        degree = next(d for d in range(2, 10) if len(monomials(d, 2)) == terms.shape[1])
        _add_sip(wcs, terms, degree, shape)
    return wcs


def tangent_point(offset: Floats, ra0: float, dec0: float) -> tuple[float, float]:
    """The place (deg) at an offset (east, north; deg on the tangent plane) from another."""
    plane = _tan(np.zeros(2), (ra0, dec0), np.eye(2))
    ra, dec = plane.wcs_pix2world([offset], 1)[0]
    return float(ra), float(dec)


def _tan(crpix: NDArray[np.float64], crval: tuple[float, float], cd: Floats) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crpix = crpix
    wcs.wcs.crval = crval
    wcs.wcs.cd = cd
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def _add_sip(wcs: WCS, terms: Floats, degree: int, shape: tuple[int, int]) -> None:
    """Attach the SIP polynomials; `terms` (2, n) in the order of ``monomials(degree, 2)``."""
    forward = np.zeros((2, degree + 1, degree + 1))
    powers = monomials(degree, 2)
    for axis in range(2):
        for (p, q), value in zip(powers, terms[axis], strict=True):
            forward[axis, p, q] = value
    crpix = wcs.wcs.crpix
    gx, gy = np.meshgrid(
        np.linspace(0.5, shape[1] + 0.5, 33) - crpix[0], np.linspace(0.5, shape[0] + 0.5, 33) - crpix[1]
    )
    u, v = gx.ravel(), gy.ravel()
    shift = _design(u, v, powers) @ terms.T
    inverse_powers = monomials(_INVERSE_DEGREE)
    half = max(shape) / 2
    bent = np.column_stack([u, v]) + shift
    design = _design(bent[:, 0] / half, bent[:, 1] / half, inverse_powers)
    solved = np.linalg.lstsq(design, -shift, rcond=None)[0]
    inverse = np.zeros((2, _INVERSE_DEGREE + 1, _INVERSE_DEGREE + 1))
    for (p, q), (first, second) in zip(inverse_powers, solved, strict=True):
        inverse[0, p, q] = first / half ** (p + q)
        inverse[1, p, q] = second / half ** (p + q)
    wcs.sip = Sip(forward[0], forward[1], inverse[0], inverse[1], crpix)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.wcs.set()


def fit_best_degree(
    x: Floats, y: Floats, ra: Floats, dec: Floats, sigma: Floats, shape: tuple[int, int], max_degree: int, start: WCS
) -> PolynomialFit:
    """The fit whose degree predicts left-out stars best, up to `max_degree` and to half as many terms as stars.

    A higher degree must predict 2 % better than a lower one to be worth its terms. Parameters as in
    `fit_polynomial`.
    """
    best = fit_polynomial(x, y, ra, dec, sigma, shape, 1, start)
    for degree in range(2, max_degree + 1):
        if len(x) < 2 * len(monomials(degree)):
            break
        fit = fit_polynomial(x, y, ra, dec, sigma, shape, degree, start)
        if fit.prediction < 0.98 * best.prediction:
            best = fit
    return best
