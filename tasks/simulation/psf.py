"""Stars on pixels: elliptical Moffat profiles, integrated over each pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.base import Record

__all__ = ["Psf", "draw_stars", "kernel"]

Array = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(5)
_SIZES_FWHM = (6.0, 9.0, 14.0, 22.0, 40.0)
_CORE_FWHM = 2.0


class Psf(Record):
    """A Moffat profile whose ellipticity changes over the field.

    The axes are ``FWHM exp(+-e/2)``; e is the vector sum of a constant (e1, e2) and a radial one that grows
    with the square of the distance from the optical axis, as coma and astigmatism make it.
    """

    fwhm_px: float
    beta: float
    e1: float
    e2: float
    radial: float
    axis: tuple[float, float]

    def shapes(self, x: Array, y: Array) -> tuple[Array, Array, Array]:
        """Elements xx, xy, yy of A in ``q = (dx, dy) A (dx, dy)``, profile ``(1 + q)^-beta``; positions 1-based."""
        u, v = x - self.axis[0], y - self.axis[1]
        grow = self.radial * (u**2 + v**2) / 724.0**2
        angle = 2 * np.arctan2(v, u)
        e1, e2 = self.e1 + grow * np.cos(angle), self.e2 + grow * np.sin(angle)
        e = np.hypot(e1, e2)
        phi = 0.5 * np.arctan2(e2, e1)
        alpha2 = (self.fwhm_px / 2) ** 2 / (2 ** (1 / self.beta) - 1)
        major, minor = np.exp(-e) / alpha2, np.exp(e) / alpha2
        c, s = np.cos(phi), np.sin(phi)
        return c * c * major + s * s * minor, c * s * (major - minor), s * s * major + c * c * minor


def _moffat(dx: Array, dy: Array, shape: tuple[Array, Array, Array], beta: float) -> Array:
    q = shape[0] * dx * dx + 2 * shape[1] * dx * dy + shape[2] * dy * dy
    return np.exp(-beta * np.log1p(q))


def _wings(dx: Array, dy: Array, shape: tuple[Array, Array, Array], beta: float) -> Array:
    # The mean over a pixel to second order: f + laplacian / 24.
    gx, gy = shape[0] * dx + shape[1] * dy, shape[1] * dx + shape[2] * dy
    p = 1 + dx * gx + dy * gy
    f = np.exp(-beta * np.log(p))
    laplacian = (4 * beta * (beta + 1) * (gx * gx + gy * gy) / p - 2 * beta * (shape[0] + shape[2])) * f / p
    return f + laplacian / 24


def _stamps(fx: Array, fy: Array, shape: tuple[Array, Array, Array], beta: float, half: int, core: int) -> Array:
    # Pixel-integrated profiles, (n, 2 half + 1, 2 half + 1), of stars at (fx, fy) from the central pixel's centre.
    def column(a: Array) -> Array:
        return a[:, None, None]

    elements = (column(shape[0]), column(shape[1]), column(shape[2]))
    grid = np.arange(-half, half + 1, dtype=float)
    stamp = _wings(grid[None, None, :] - column(fx), grid[None, :, None] - column(fy), elements, beta)
    inner = np.arange(-core, core + 1, dtype=float)
    total = np.zeros((len(fx), 2 * core + 1, 2 * core + 1))
    for nx, wx in zip(_NODES, _WEIGHTS, strict=True):
        for ny, wy in zip(_NODES, _WEIGHTS, strict=True):
            dx = inner[None, None, :] + nx / 2 - column(fx)
            dy = inner[None, :, None] + ny / 2 - column(fy)
            total += wx * wy / 4 * _moffat(dx, dy, elements, beta)
    stamp[:, half - core : half + core + 1, half - core : half + core + 1] = total
    norm = (beta - 1) / np.pi * np.sqrt(shape[0] * shape[2] - shape[1] ** 2)
    return stamp * column(norm)


def draw_stars(image: Array, x: Array, y: Array, flux: Array, psf: Psf, floor: float) -> None:
    """Add stars to `image` in place.

    Normalised to all of the profile's light to infinity. A stamp ends where the profile falls below `floor`,
    never within 6 FWHM: what is cut off is less than 1e-3 of a faint star and far less of a bright one.

    Parameters
    ----------
    image
        Units of `flux` per pixel.
    x, y
        Centres, 1-based px; stars beyond the edges lend their wings.
    flux
        Total fluxes.
    psf
        The frame's profile.
    floor
        Surface brightness not worth drawing, per px.
    """
    rows, columns = image.shape
    alpha = psf.fwhm_px / 2 / np.sqrt(2 ** (1 / psf.beta) - 1)
    peak = flux * (psf.beta - 1) / np.pi / alpha**2
    reach = alpha * np.sqrt(np.maximum((np.maximum(peak, 1e-30) / floor) ** (1 / psf.beta) - 1, 0.0))
    sizes = np.array([int(np.ceil(s * psf.fwhm_px)) for s in _SIZES_FWHM])
    which = np.minimum(np.searchsorted(sizes, reach), len(sizes) - 1)
    core = int(np.ceil(_CORE_FWHM * psf.fwhm_px)) + 1
    shapes = psf.shapes(x, y)
    for size in np.unique(which):
        half = int(sizes[size])
        near = (which == size) & (x > -half) & (x < columns + half) & (y > -half) & (y < rows + half)
        chosen = np.flatnonzero(near)
        chunk = max(1, 2_000_000 // (2 * half + 1) ** 2)
        for start in range(0, len(chosen), chunk):
            part = chosen[start : start + chunk]
            ix, iy = np.rint(x[part]).astype(int), np.rint(y[part]).astype(int)
            elements = (shapes[0][part], shapes[1][part], shapes[2][part])
            stamps = _stamps(x[part] - ix, y[part] - iy, elements, psf.beta, half, core) * flux[part, None, None]
            for stamp, column, row in zip(stamps, ix - 1, iy - 1, strict=True):
                y0, y1 = max(0, row - half), min(rows, row + half + 1)
                x0, x1 = max(0, column - half), min(columns, column + half + 1)
                if y0 < y1 and x0 < x1:
                    image[y0:y1, x0:x1] += stamp[
                        y0 - row + half : y1 - row + half, x0 - column + half : x1 - column + half
                    ]


def kernel(psf: Psf) -> Array:
    """The pixel-integrated profile at the optical axis, to convolve extended light with; sums to 1."""
    half = int(np.ceil(9 * psf.fwhm_px))
    zero = np.zeros(1)
    shapes = psf.shapes(zero + psf.axis[0], zero + psf.axis[1])
    core = int(np.ceil(_CORE_FWHM * psf.fwhm_px)) + 1
    stamp = _stamps(zero, zero, shapes, psf.beta, half, core)[0]
    normalised: Array = stamp / stamp.sum()
    return normalised
