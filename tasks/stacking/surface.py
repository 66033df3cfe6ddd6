"""The sky of frames that share a field, as low-order surfaces that fit each other.

Frames of one field differ by their skies only: what is on the sky cancels in their differences, so each frame's
tilt against the others is known even under a galaxy that fills it. What all of them have in common comes from
the places where there is nothing but sky. Both are one linear least-squares problem: frame *i* in block *b* of
the grid is ``F = T + P``, with ``P`` the frame's polynomial and ``T`` what is on the sky, free in every block but
for a weak pull to 0 in the blocks without a source. ``T`` is eliminated, so the matrix is as small as the polynomials.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Blocks", "SkyFit", "darkest_mode", "evaluate", "fit_skies", "leverage", "n_terms", "terms"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_MAX_BLOCKS = 40_000
_MIN_SIDE_PX = 8
_ROUNDS = 6
_HUBER = 1.5
_PULL = 0.1
"""Weight of "there is nothing here" beside that of one frame: what flats left must not tear frames apart."""

_MODE_SHARE, _MODE_SIGMA = 0.3, 0.385
_SURELY_LIGHT = 4.0

_MODEL = 0.01
"""Flux scales and seeing differ from frame to frame: a block's light is the same in them to so much of itself."""


@dataclass(frozen=True)
class Blocks:
    """Square blocks of a grid of pixels; the last row and column reach over its edge.

    Attributes
    ----------
    shape
        Of the grid, pixels (ny, nx).
    side
        Of a block, px.
    """

    shape: tuple[int, int]
    side: int

    @classmethod
    def of(cls, shape: tuple[int, int]) -> Blocks:
        """Blocks of 8 px, or larger ones so that there are no more than 40 000."""
        return cls(shape, max(_MIN_SIDE_PX, int(np.ceil(np.sqrt(shape[0] * shape[1] / _MAX_BLOCKS)))))

    @property
    def count(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        return -(-self.shape[0] // self.side), -(-self.shape[1] // self.side)

    def cut(
        self, values: npt.NDArray[np.floating], x0: int = 0, y0: int = 0
    ) -> tuple[npt.NDArray[np.floating], tuple[slice, slice]]:
        """Pixels of each block, and the place of these blocks among all.

        Parameters
        ----------
        values
            Shape of the grid, or a piece of it, floating.
        x0, y0
            Grid pixel of the piece's first one; it may reach over the grid's edge.

        Returns
        -------
        pixels, place
            Shape (rows, columns, side * side), NaN where the piece has none; rows and columns in an array of shape
            `count`.
        """
        ny, nx = values.shape
        y, x = max(0, y0), max(0, x0)
        inside = values[y - y0 : max(min(ny, self.shape[0] - y0), 0), x - x0 : max(min(nx, self.shape[1] - x0), 0)]
        if not inside.size:
            return np.empty((0, 0, self.side**2), values.dtype), (slice(0, 0), slice(0, 0))
        row, column = y // self.side, x // self.side
        above, left = y - row * self.side, x - column * self.side
        height, width = -(-(above + inside.shape[0]) // self.side), -(-(left + inside.shape[1]) // self.side)
        padded = np.full((height * self.side, width * self.side), np.nan, values.dtype)
        padded[above : above + inside.shape[0], left : left + inside.shape[1]] = inside
        pixels = padded.reshape(height, self.side, width, self.side).swapaxes(1, 2)
        return pixels.reshape(height, width, -1), (slice(row, row + height), slice(column, column + width))

    def share(self, chosen: BoolArray) -> FloatArray:
        """Share of the pixels of a whole block that are chosen, shape `count`; `chosen` has the grid's shape."""
        pixels, _ = self.cut(chosen.astype(np.float32))
        return np.asarray(np.nansum(pixels, axis=2, dtype=float) / self.side**2)

    def spread(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """A value a block as a value a pixel."""
        return np.repeat(np.repeat(values, self.side, axis=0), self.side, axis=1)[: self.shape[0], : self.shape[1]]

    def coordinates(self) -> tuple[FloatArray, FloatArray]:
        """Centres of the blocks in the units of `terms`, each of shape `count`."""
        rows, columns = (np.arange(n) * self.side + (self.side - 1) / 2 for n in self.count)
        y, x = np.meshgrid(rows, columns, indexing="ij")
        return self.scaled(x, y)

    def scaled(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Zero-based pixels of the grid in units in which it reaches from -1 to 1 along its longer side."""
        half = max(self.shape) / 2.0
        return (x - (self.shape[1] - 1) / 2.0) / half, (y - (self.shape[0] - 1) / 2.0) / half


def n_terms(degree: int) -> int:
    """Terms of a polynomial in two variables."""
    return (degree + 1) * (degree + 2) // 2


def terms(x: FloatArray, y: FloatArray, degree: int) -> FloatArray:
    """Monomials up to a total degree, the constant first, shape (terms, *shape of x)."""
    return np.stack([x**i * y ** (total - i) for total in range(degree + 1) for i in range(total, -1, -1)])


def evaluate(blocks: Blocks, coefficients: FloatArray, x0: int, y0: int, shape: tuple[int, int]) -> FloatArray:
    """A surface on the pixels of a piece of the grid that begins at (`x0`, `y0`)."""
    degree = next(d for d in range(20) if n_terms(d) == len(coefficients))
    x, y = blocks.scaled(x0 + np.arange(shape[1], dtype=float), y0 + np.arange(shape[0], dtype=float))
    result = np.zeros(shape)
    place = 0
    for total in range(degree + 1):
        for i in range(total, -1, -1):
            result += coefficients[place] * np.outer(y ** (total - i), x**i)
            place += 1
    return result


@dataclass(frozen=True)
class SkyFit:
    """Skies of frames, and what is left when they are subtracted.

    Attributes
    ----------
    coefficients
        Of each frame's surface, shape (frames, terms).
    light
        What is on the sky in each block: the mean of the frames above their surfaces; NaN where no frame sees it.
    error
        Of `light`, from the frames' noise alone.
    """

    coefficients: FloatArray
    light: FloatArray
    error: FloatArray


def _huber(deviation: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        return np.minimum(1.0, _HUBER / np.abs(deviation))


def _spread(values: FloatArray) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values)))) if values.size else 0.0


def darkest_mode(values: FloatArray) -> tuple[float, float]:
    """Level and scatter of the sky among values of which the larger part may be a galaxy's.

    The shortest interval that holds 0.3 of the values lies about the commonest value; a Gaussian has it within 0.385
    sigma on either side.
    """
    ordered = np.sort(values)
    held = max(2, int(np.ceil(_MODE_SHARE * ordered.size)))
    widths = ordered[held - 1 :] - ordered[: ordered.size - held + 1]
    first = int(np.argmin(widths))
    return float(ordered[first] + ordered[first + held - 1]) / 2.0, float(widths[first]) / (2.0 * _MODE_SIGMA)


def fit_skies(
    values: FloatArray, variance: FloatArray, empty: BoolArray, blocks: Blocks, degree: int, slope: FloatArray
) -> SkyFit:
    """Fit all frames' skies at once.

    Parameters
    ----------
    values
        Mean of each frame in each block, all frames on one flux scale; NaN where a frame has none. Shape (frames,
        rows, columns).
    variance
        Of those means, from their pixels' noise.
    empty
        Blocks that show sky only, shape (rows, columns).
    blocks, degree
        Geometry; degree of the surfaces.
    slope
        How far each frame's sky may be expected to be from level (any term but the constant): decides where
        nothing else does.

    Returns
    -------
    SkyFit
    """
    n, count = len(values), n_terms(degree)
    basis = terms(*blocks.coordinates(), degree).reshape(count, -1)
    data, there = values.reshape(n, -1), np.isfinite(values.reshape(n, -1))
    flat_empty = empty.ravel()
    data = np.where(there, data, 0.0)
    noise = np.where(there, variance.reshape(n, -1), 1.0)
    light = np.zeros(data.shape[1])
    trust = there.astype(float)
    pull = flat_empty.astype(float)
    coefficients = np.zeros((n, count))
    total = np.zeros(data.shape[1])
    for _ in range(_ROUNDS):
        weight = trust / (noise + (_MODEL * light) ** 2)
        typical = weight[weight > 0]
        anchor = _PULL * pull * (float(np.median(typical)) if typical.size else 1.0)
        total = weight.sum(axis=0)
        whole = np.maximum(total + anchor, 1e-300)
        matrix = np.zeros((n, count, n, count))
        right = np.zeros((n, count))
        mean = (weight * data).sum(axis=0) / whole
        for k in range(count):
            right[:, k] = (weight * basis[k] * (data - mean)).sum(axis=1)
            for m in range(k + 1):
                product = basis[k] * basis[m]
                cross = -(weight * (product / whole)) @ weight.T
                cross[np.diag_indices(n)] += (weight * product).sum(axis=1)
                matrix[:, k, :, m] = cross
                matrix[:, m, :, k] = cross
        for k in range(1, count):
            matrix[np.arange(n), k, np.arange(n), k] += 1.0 / np.maximum(np.abs(slope), 1e-30) ** 2
        square = matrix.reshape(n * count, n * count)
        coefficients = np.asarray(np.linalg.lstsq(square, right.ravel(), rcond=1e-12)[0], np.float64).reshape(n, count)
        left = data - coefficients @ basis
        light = (weight * left).sum(axis=0) / whole
        deviation = (left - light) / np.sqrt(noise + (_MODEL * light) ** 2)
        scale = np.array([_spread(deviation[i, there[i]]) or 1.0 for i in range(n)])
        trust = there * _huber(deviation / scale[:, None])
        off = np.where(total > 0, (weight * left).sum(axis=0) / np.maximum(total, 1e-300), 0.0)
        ground = off[flat_empty & (total > 0)]
        if ground.size > count:
            level, scatter = darkest_mode(ground)
            above = (off - level) / (scatter or 1.0)
            pull = flat_empty * _huber(above) * (above < _SURELY_LIGHT)
    seen = total > 0
    weight = trust / (noise + (_MODEL * light) ** 2)
    total = weight.sum(axis=0)
    left = data - coefficients @ basis
    plain = np.where(seen, (weight * left).sum(axis=0) / np.maximum(total, 1e-300), np.nan)
    error = np.where(seen, 1.0 / np.sqrt(np.maximum(total, 1e-300)), np.nan)
    return SkyFit(coefficients, plain.reshape(empty.shape), error.reshape(empty.shape))


def leverage(empty: BoolArray, covered: BoolArray, blocks: Blocks, degree: int) -> float:
    """How badly the empty places carry a surface over the whole field.

    The largest variance of the surface in a covered block, in units of that of the mean of as many blocks: 7 in the
    corner of a field that is empty everywhere (degree 1), hundreds where all sky lies in one corner; infinite
    where it does not fix the surface.
    """
    basis = terms(*blocks.coordinates(), degree)
    inside = basis[:, empty]
    if inside.shape[1] < n_terms(degree):
        return float("inf")
    gram = inside @ inside.T / inside.shape[1]
    if np.linalg.cond(gram) > 1e10:
        return float("inf")
    there = basis[:, covered]
    return float(np.max(np.sum(there * np.linalg.solve(gram, there), axis=0)))
