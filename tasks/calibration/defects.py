"""Pixels of a frame that are not to be used: saturation and bleeding, cosmic rays; and what stands in for them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tasks.core.fitsio import FloatImage
from tasks.core.masks import grown

__all__ = ["bleeding", "cosmic_rays", "fill"]

Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]

_BLEED_FROM = 4
_BLEED_REACH = 60
_BLEED_CONTRAST = 8.0
_PRESELECT = 0.6
_GROW = 0.3
_SQUARE = np.ones((3, 3), bool)
_STAR_SIGMA = 20.0
_FEWEST_STARS = 5
_LEAST_ROUND = 0.2


def bleeding(data: FloatImage, saturated: Mask, noise: float) -> Mask:
    """Charge that spilled along columns out of saturated pixels.

    Each vertical run of at least four saturated pixels is followed up and down while the pixel stands more
    than eight times the noise above both pixels four columns away in its row; a star's round wings around
    the run are lower there than the spill is.

    Parameters
    ----------
    data
        Shape (rows, columns), ADU above the sky level or above any constant.
    saturated
        Saturated pixels.
    noise
        Of the sky, ADU.

    Returns
    -------
    mask
        The spill, without the saturated pixels themselves.
    """
    found = np.zeros_like(saturated)
    if not saturated.any():
        return found
    labels, number = ndimage.label(saturated, structure=[[0, 1, 0], [0, 1, 0], [0, 1, 0]])
    height, width = data.shape
    for box in ndimage.find_objects(labels, number):
        top, bottom, column = box[0].start, box[0].stop, box[1].start
        if bottom - top < _BLEED_FROM:
            continue
        sides = [c for c in (column - 4, column + 4) if 0 <= c < width]
        for rows in (
            range(top - 1, max(-1, top - _BLEED_REACH), -1),
            range(bottom, min(height, bottom + _BLEED_REACH)),
        ):
            for row in rows:
                if (
                    saturated[row, column]
                    or data[row, column] - max(data[row, c] for c in sides) < _BLEED_CONTRAST * noise
                ):
                    break
                found[row, column] = True
    return found


def _around(image: FloatImage, rows: Places, columns: Places, reach: int) -> FloatImage:
    """Square windows around pixels, flattened: shape (pixels, (2 reach + 1)^2)."""
    padded = np.pad(image, reach, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1))
    result: FloatImage = windows[rows, columns].reshape(rows.size, (2 * reach + 1) ** 2)
    return result


def _laplacian(image: FloatImage) -> FloatImage:
    """Laplacian of the image subsampled twice, negative values cut, binned back (van Dokkum 2001, eq. 7-9), halved.

    A subpixel shares two sides with its own pixel, so each corner sees ``2 v - side - side``.
    """
    padded = np.pad(image, 1, mode="edge")
    centre = 2.0 * image
    total = np.zeros_like(image)
    for side in (padded[1:-1, :-2], padded[1:-1, 2:]):
        for other in (padded[:-2, 1:-1], padded[2:, 1:-1]):
            total += np.maximum(centre - side - other, 0)
    return total * np.float32(1.0 / 8.0)


def _laplacian_at(image: FloatImage, rows: Places, columns: Places) -> FloatImage:
    """The same at some pixels only."""
    window = _around(image, rows, columns, 1)
    total = np.zeros(rows.size, np.float32)
    for side in (3, 5):
        for other in (1, 7):
            total += np.maximum(2.0 * window[:, 4] - window[:, side] - window[:, other], 0)
    return total * np.float32(1.0 / 8.0)


def _fine_structure(image: FloatImage, rows: Places, columns: Places) -> FloatImage:
    """3 x 3 median of the image minus its own 7 x 7 median, at some pixels (van Dokkum 2001, eq. 14)."""
    result = np.empty(rows.size, np.float32)
    for part in np.array_split(np.arange(rows.size), max(1, rows.size // 2000)):
        window = _around(image, rows[part], columns[part], 4).reshape(-1, 9, 9)
        threes = np.lib.stride_tricks.sliding_window_view(window, (3, 3), axis=(1, 2)).reshape(part.size, 49, 9)
        smooth = np.partition(threes, 4, axis=2)[:, :, 4]
        result[part] = smooth[:, 24] - np.partition(smooth, 24, axis=1)[:, 24]
    return result


def _roundness(image: FloatImage, rows: Places, columns: Places) -> FloatImage:
    """How much of a peak its weakest pair of opposite neighbours holds, above the median 3 px away.

    All four pairs of a star are bright; across a track, one pair sees only the sky.
    """
    window = _around(image, rows, columns, 3).reshape(-1, 7, 7)
    ring = np.concatenate([window[:, 0, :], window[:, 6, :], window[:, 1:6, 0], window[:, 1:6, 6]], axis=1)
    level = np.median(ring, axis=1)
    pairs = np.stack(
        [
            window[:, 3, 2] + window[:, 3, 4], window[:, 2, 3] + window[:, 4, 3],
            window[:, 2, 2] + window[:, 4, 4], window[:, 2, 4] + window[:, 4, 2],
        ]
    )  # fmt: skip
    height = np.maximum(window[:, 3, 3] - level, 1e-3)
    result: FloatImage = (0.5 * pairs.min(axis=0) - level) / height
    return result


def _star_roundness(image: FloatImage, noise: FloatImage, excluded: Mask) -> float:
    """Roundness of the frame's own stars: peaks of 20 sigma and more that are not candidates."""
    rows, columns = np.nonzero((image > _STAR_SIGMA * noise) & ~excluded)
    peaks = image[rows, columns] == _around(image, rows, columns, 1).max(axis=1, initial=-np.inf)
    rows, columns = rows[peaks], columns[peaks]
    if rows.size < _FEWEST_STARS:
        return _LEAST_ROUND
    return max(float(np.median(_roundness(image, rows, columns))), _LEAST_ROUND)


def _sharp(
    image: FloatImage, variance: FloatImage, significance: FloatImage, candidates: Mask, allowed: Mask, sigma: float,
    objlim: float,
) -> Mask:  # fmt: skip
    """One pass of L.A.Cosmic: seeds among the candidates, then their sharp neighbours."""

    def excess(at_rows: Places, at_columns: Places) -> tuple[FloatImage, FloatImage]:
        # Noise without the hit's own photons: the median of the variance around.
        around: FloatImage = np.sqrt(np.median(_around(variance, at_rows, at_columns, 2), axis=1)).astype(np.float32)
        sharp = _laplacian_at(image, at_rows, at_columns) / around
        sharp -= np.median(_around(significance, at_rows, at_columns, 2), axis=1)
        return sharp, around

    found = np.zeros(image.shape, bool)
    rows, columns = np.nonzero(candidates)
    if rows.size == 0:
        return found
    sharp, around = excess(rows, columns)
    keep = sharp > sigma
    rows, columns, sharp, around = rows[keep], columns[keep], sharp[keep], around[keep]
    seeds = sharp > objlim * np.maximum(_fine_structure(image, rows, columns) / around, 0.01)
    found[rows[seeds], columns[seeds]] = True
    for threshold in (sigma, _GROW * sigma):
        edge_rows, edge_columns = np.nonzero(grown(found) & ~found & allowed)
        grows = excess(edge_rows, edge_columns)[0] > threshold
        found[edge_rows[grows], edge_columns[grows]] = True
    return found


def cosmic_rays(data: FloatImage, variance: FloatImage, holes: Mask, bright: Mask, sigma: float, objlim: float) -> Mask:
    """Cosmic rays by L.A.Cosmic (van Dokkum 2001, PASP 113, 1420), two passes, with a look at the shape.

    The median filters of the method run only where its Laplacian is significant, at a fraction of the cost of
    running them everywhere. In good seeing (1.6 arcsec, 2 px) the method alone takes one star core in fifty for a
    hit; a found group whose peak is as round as the frame's stars is given back.

    Parameters
    ----------
    data
        Calibrated science, ADU, finite, sky still in it.
    variance
        ADU^2, shape of data.
    holes
        Pixels known to be bad: never reported, replaced by their surroundings before the search.
    bright
        Saturated, bled and trailed pixels: neither they nor what lies within 2 px of them is reported.
    sigma
        Laplacian significance.
    objlim
        Least ratio of Laplacian and fine structure.

    Returns
    -------
    mask
        Boolean, shape of data.
    """
    image = data
    if holes.any():
        image = data.copy()
        fill(image, holes)
    allowed = ~(holes | grown(bright, 2)) if bright.any() else ~holes
    noise: FloatImage = np.sqrt(variance)
    significance = _laplacian(image) / noise
    candidates = (significance > _PRESELECT * sigma) & allowed
    found = _sharp(image, variance, significance, candidates, allowed, sigma, objlim)
    if not found.any():
        return found
    # What stood beside a hit pixel looks sharp only once that one is gone.
    cleaned = image.copy()
    fill(cleaned, found)
    beside = grown(found, 2) & ~found & allowed
    found |= _sharp(cleaned, variance, significance, beside, beside, sigma, objlim)

    labels, _ = ndimage.label(found, _SQUARE)
    rows, columns = np.nonzero(found)
    order = np.lexsort((-image[rows, columns], labels[rows, columns]))
    _, first = np.unique(labels[rows, columns][order], return_index=True)
    rows, columns = rows[order][first], columns[order][first]
    level = np.float32(np.median(image[::4, ::4]))
    limit = 0.5 * _star_roundness(image - level, noise, found)
    is_star = np.concatenate([[False], _roundness(image, rows, columns) > limit])
    result: Mask = found & ~is_star[labels]
    return result


def fill(data: FloatImage, holes: Mask) -> None:
    """Put the median of the good pixels around into each hole, in place.

    Windows of 5 x 5, then 11 x 11, then 41 x 41 pixels with at least three good ones; the frame's median where
    none has. A finite, local value keeps resampling (LANCZOS3) from spreading a wild one; the mask still says
    that it is no measurement.
    """
    rows, columns = np.nonzero(holes)
    if rows.size == 0:
        return
    known = np.where(holes, np.float32(np.nan), data)
    values = np.full(rows.size, np.nan, np.float32)
    for reach in (2, 5, 20):
        left = np.flatnonzero(np.isnan(values))
        if left.size == 0:
            break
        padded = np.pad(known, reach, constant_values=np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1))
        for part in np.array_split(left, max(1, left.size * (2 * reach + 1) ** 2 // 4_000_000)):
            around = windows[rows[part], columns[part]].reshape(part.size, -1)
            enough = np.count_nonzero(np.isfinite(around), axis=1) >= 3
            values[part[enough]] = np.nanmedian(around[enough], axis=1)
    if np.isnan(values).any():
        values[np.isnan(values)] = np.nanmedian(known) if np.isfinite(known).any() else 0.0
    data[rows, columns] = values
