"""Width of stars from a fit of Moffat profiles to many small stamps at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tasks.core.fitsio import FloatImage

__all__ = ["fit_moffat", "stellar_width"]

Array = npt.NDArray[np.float64]

_BETAS = (2.0, 2.5, 3.0, 3.5, 4.5, 7.0)
_STARS_FOR_BETA = 40
_STARS = 150
_STEPS = 12
_PIXEL = float(np.sqrt(8.0 * np.log(2.0) / 12.0))
"""FWHM of a Gaussian of a pixel's variance (1/12 px^2)."""


def _stamps(image: FloatImage, x: Array, y: Array, reach: int) -> tuple[Array, Array, Array]:
    """Values and offsets from the centre of the pixels around each position: (stars, pixels) each."""
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    rows, columns = row[:, None] + dy.ravel(), column[:, None] + dx.ravel()
    return np.asarray(image[rows, columns], np.float64), columns - x[:, None], rows - y[:, None]


def fit_moffat(
    image: FloatImage, error: FloatImage, x: Array, y: Array, width: Array, reach: int, beta: float
) -> tuple[Array, Array]:
    """Fit ``background + amplitude (1 + r^2 / alpha^2)^-beta`` to every star, all at once.

    Levenberg-Marquardt on background, amplitude, centre and alpha of each star, vectorised over stars.

    Parameters
    ----------
    image, error
        Sky-subtracted frame and its sigma (ADU); error is infinite where a pixel is not to be used.
    x, y
        0-based centres, at least `reach` from the edge, shape (stars,).
    width
        First guess of the FWHM, px.
    reach
        Half the stamp's side, px.
    beta
        Exponent of the profile.

    Returns
    -------
    fwhm, chi2
        FWHM (px, NaN where the fit failed) and reduced chi^2, with 2 % of the profile added to the error since
        no star is a Moffat profile.
    """
    values, dx, dy = _stamps(image, x, y, reach)
    sigma, _, _ = _stamps(error, x, y, reach)
    shape = 2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0)
    peak = np.maximum(values[:, values.shape[1] // 2], 1e-3)
    weight = 1.0 / (sigma**2 + (0.02 * np.maximum(values, 0.0)) ** 2)
    parameters = np.stack([np.zeros_like(x), peak, np.zeros_like(x), np.zeros_like(x), np.log(width / shape)], axis=1)

    def model(p: Array) -> tuple[Array, Array]:
        u, v = dx - p[:, 2:3], dy - p[:, 3:4]
        alpha2 = np.exp(2.0 * p[:, 4:5])
        r2 = u**2 + v**2
        base = 1.0 + r2 / alpha2
        profile = base**-beta
        slope = 2.0 * beta * p[:, 1:2] * profile / base / alpha2
        return p[:, 0:1] + p[:, 1:2] * profile, np.stack(
            [np.ones_like(u), profile, slope * u, slope * v, slope * r2], axis=2
        )

    current, gradient = model(parameters)
    chi2 = np.sum(weight * (values - current) ** 2, axis=1)
    damping = np.full(x.size, 1e-2)
    unit = np.eye(5)
    for _ in range(_STEPS):
        weighted = gradient * weight[:, :, None]
        normal = np.einsum("spi,spj->sij", weighted, gradient, optimize=True)
        right = np.einsum("spi,sp->si", weighted, values - current, optimize=True)
        diagonal = np.einsum("sii->si", normal)
        step = np.linalg.solve(normal + (damping[:, None] * diagonal + 1e-12)[:, :, None] * unit, right[:, :, None])[
            :, :, 0
        ]
        trial = parameters + np.clip(step, [-np.inf, -np.inf, -1.0, -1.0, -0.5], [np.inf, np.inf, 1.0, 1.0, 0.5])
        trial[:, 4] = np.clip(trial[:, 4], -2.0, 4.0)
        trial_model, trial_gradient = model(trial)
        trial_chi2 = np.sum(weight * (values - trial_model) ** 2, axis=1)
        better = trial_chi2 < chi2
        parameters = np.where(better[:, None], trial, parameters)
        current = np.where(better[:, None], trial_model, current)
        gradient = np.where(better[:, None, None], trial_gradient, gradient)
        settled = bool(np.all(~better | (chi2 - trial_chi2 < 1e-4 * chi2)))
        chi2 = np.where(better, trial_chi2, chi2)
        damping = np.where(better, damping * 0.2, damping * 5.0)
        if settled and float(damping.max()) < 1e6:
            break
    fwhm = np.exp(parameters[:, 4]) * shape
    moved = np.hypot(parameters[:, 2], parameters[:, 3])
    failed = (parameters[:, 1] <= 0) | (moved > 0.5 * reach) | (fwhm < 0.3) | (fwhm > 2.0 * reach)
    freedom = np.maximum(np.count_nonzero(np.isfinite(sigma), axis=1) - 5, 1)
    return np.where(failed, np.nan, fwhm), chi2 / freedom


def stellar_width(
    image: FloatImage, error: FloatImage, x: Array, y: Array, guess: Array
) -> tuple[float | None, float | None, Array]:
    """FWHM of the stars of a frame: one exponent for all, a width for each, their median.

    ``2 x half-light radius`` runs 30 % high, since the wings hold light that a half-maximum does not see
    (tools.md); it only serves as the first guess.

    Parameters
    ----------
    image, error
        As in `fit_moffat`.
    x, y, guess
        0-based centres and first guesses (px) of clean stars, best first.

    Returns
    -------
    fwhm, beta, widths
        Median FWHM (px) of the light that falls on the pixels, their own width taken out in quadrature, and the
        exponent; None where no star could be fitted. The widths of the stars used.
    """
    if x.size == 0:
        return None, None, np.empty(0)
    typical = float(np.median(guess)) / 1.3
    reach = int(np.clip(np.ceil(2.0 * typical), 4, 20))
    height, width = image.shape
    inside = (x >= reach + 1) & (x < width - reach - 1) & (y >= reach + 1) & (y < height - reach - 1)
    x, y, guess = x[inside][:_STARS], y[inside][:_STARS], guess[inside][:_STARS]
    if x.size == 0:
        return None, None, np.empty(0)
    start = guess / 1.3
    some = slice(0, _STARS_FOR_BETA)
    trials = [fit_moffat(image, error, x[some], y[some], start[some], reach, beta) for beta in _BETAS]
    quality = [float(np.median(chi2)) for _, chi2 in trials]
    beta = _BETAS[int(np.argmin(quality))]
    fwhm, chi2 = fit_moffat(image, error, x, y, start, reach, beta)
    good = np.isfinite(fwhm) & (chi2 < max(3.0, 3.0 * min(quality)))
    if not good.any():
        return None, None, np.empty(0)
    widths = fwhm[good]
    for _ in range(3):
        centre = np.median(widths)
        scatter = max(1.4826 * float(np.median(np.abs(widths - centre))), 0.03 * float(centre))
        widths = widths[np.abs(widths - centre) <= 3.0 * scatter]
    widths = np.sqrt(np.maximum(widths**2 - _PIXEL**2, (0.5 * widths) ** 2))
    return float(np.median(widths)), beta, widths
