"""Satellites and aeroplanes: straight lines that cross the whole frame.

A line is proposed by a Radon transform of the clipped, binned frame, and believed only after a look at
every piece of it at full resolution: the median along each piece forgets stars, the comparison with the strips
beside it forgets galaxies and sky, and a line has to go on evenly from edge to edge, which spikes and edge-on
galaxies do not. Slow objects whose trail ends inside the frame are left to the combination of frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.calibration.combine import centre_and_noise
from tasks.core.fitsio import FloatImage

__all__ = ["Line", "find_trails"]

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float64]

_BIN = 8
_BACKGROUND = 32
_CLIP = (-3.0, 6.0)
_BINNED_CLIP = 5.0
_ANGLES = 180
_SHORTEST = 0.25
_PROPOSALS = 6
_MOST_TRAILS = 4
_REACH = 24
_SIDE = (10, 18)
_CORE = 2
_PIECE = 32
_FEWEST_PIECES = 6
_PIECE_SIGMA = 2.5
_PIECES_SEEN = 0.75
_FEW_PIECES, _FEW_PIECES_SEEN = 16, 0.88
_EVEN = 3.0
_WIDEST = 12
_MASK_ABOVE = 0.25


@dataclass(frozen=True)
class Line:
    """``x cos(angle) + y sin(angle) = offset`` (0-based pixels) and what was seen along it."""

    angle: float
    offset: float
    half_width: float
    significance: float


def _residual(data: FloatImage, unusable: Mask) -> tuple[FloatImage, FloatImage]:
    """Frame minus medians of 32 x 32 px blocks, and the frame itself, in sigma of the sky; NaN where unusable."""
    height, width = data.shape
    high, wide = -(-height // _BACKGROUND), -(-width // _BACKGROUND)
    padded = np.full((high * _BACKGROUND, wide * _BACKGROUND), np.nan, np.float32)
    padded[:height, :width] = np.where(unusable, np.float32(np.nan), data)
    blocks = padded.reshape(high, _BACKGROUND, wide, _BACKGROUND)
    sample = blocks[:, ::2, :, ::2].transpose(0, 2, 1, 3).reshape(high, wide, -1)
    some = np.where(np.isfinite(sample), sample, np.float32(np.inf))
    ordered = np.sort(some, axis=2)
    count = np.isfinite(ordered).sum(axis=2)
    middle = np.take_along_axis(ordered, (np.maximum(count, 1) // 2)[:, :, None], axis=2)[:, :, 0]
    middle = np.where(count > 0, middle, np.float32(0))
    flat = (blocks - middle[:, None, :, None]).reshape(padded.shape)[:height, :width]
    _, noise = centre_and_noise(flat[::4, ::4])
    scale = np.float32(1.0 / max(noise, 1e-6))
    return flat * scale, padded[:height, :width] * scale


def _binned(residual: FloatImage) -> tuple[Array, Mask]:
    """Means of 8 x 8 px of the clipped residual in their own sigma, clipped again; where they have data."""
    high, wide = residual.shape[0] // _BIN, residual.shape[1] // _BIN
    cut = residual[: high * _BIN, : wide * _BIN].reshape(high, _BIN, wide, _BIN)
    known = np.isfinite(cut)
    number = known.sum(axis=(1, 3))
    total = np.where(known, np.clip(cut, *_CLIP), np.float32(0)).sum(axis=(1, 3))
    values = total / np.sqrt(np.maximum(number, 1))
    valid = number > _BIN * _BIN // 2
    if valid.sum() < 100:
        return np.zeros((high, wide)), np.zeros((high, wide), bool)
    centre = float(np.median(values[valid]))
    noise = max(1.4826 * float(np.median(np.abs(values[valid] - centre))), 1e-6)
    return np.clip((values - centre) / noise, -_BINNED_CLIP, _BINNED_CLIP), valid


def _radon(values: Array, valid: Mask) -> tuple[Array, Array]:
    """Significance of the sum along every line (angles, offsets) of the binned frame, and the offsets."""
    rows, columns = np.nonzero(valid)
    weight = values[rows, columns] - values[valid].mean()
    scatter = float(weight.std()) or 1.0
    reach = int(np.hypot(*values.shape)) + 2
    shortest = _SHORTEST * min(values.shape)
    table = np.full((_ANGLES, 2 * reach + 1), -np.inf)
    for number in range(_ANGLES):
        angle = np.pi * number / _ANGLES
        place = np.rint(columns * np.cos(angle) + rows * np.sin(angle)).astype(np.intp) + reach
        total = np.bincount(place, weight, 2 * reach + 1)
        count = np.bincount(place, minlength=2 * reach + 1)
        long = count >= shortest
        table[number, long] = total[long] / np.sqrt(count[long]) / scatter
    return table, np.arange(-reach, reach + 1, dtype=float)


def _pieces(image: FloatImage, angle: float, offset: float) -> tuple[Array, Array, float]:
    """Median profiles across the pieces of a line.

    Returns
    -------
    middles, profiles, chord
        Places of the pieces along the line (px); shape (pieces, 2 * _REACH + 1), NaN where too little is known;
        length of the line inside the frame.
    """
    height, width = image.shape
    cosine, sine = np.cos(angle), np.sin(angle)
    along = np.arange(-np.hypot(height, width), np.hypot(height, width))
    x, y = offset * cosine - along * sine, offset * sine + along * cosine
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    along = along[inside]
    number = along.size // _PIECE
    if number < 2:
        return np.empty(0), np.empty((0, 2 * _REACH + 1)), float(along.size)
    along = along[: number * _PIECE]
    across = np.arange(-_REACH, _REACH + 1)
    column = np.rint((offset + across)[None, :] * cosine - along[:, None] * sine).astype(np.intp)
    row = np.rint((offset + across)[None, :] * sine + along[:, None] * cosine).astype(np.intp)
    known = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    samples = np.where(known, image[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)], np.nan)
    pieces = np.sort(samples.reshape(number, _PIECE, across.size), axis=1)
    count = np.isfinite(pieces).sum(axis=1)
    middle = np.take_along_axis(pieces, (np.maximum(count, 1) // 2)[:, None, :], axis=1)[:, 0, :]
    profiles = np.where(count >= _PIECE // 3, middle, np.nan)
    return along.reshape(number, _PIECE).mean(axis=1), np.asarray(profiles, np.float64), float(number * _PIECE)


def _median_of(values: Array) -> Array:
    """Median along the last axis without NaN; NaN where nothing is left. Lower of two middles."""
    ordered = np.sort(values, axis=-1)
    count = np.isfinite(ordered).sum(axis=-1)
    middle: Array = np.take_along_axis(ordered, (np.maximum(count - 1, 0) // 2)[..., None], axis=-1)[..., 0]
    return middle


def _excess(profiles: Array, shifts: npt.NDArray[np.intp]) -> tuple[Array, Array]:
    """Core minus sidebands of each piece around shifted centres, and its error from the sidebands' scatter.

    Shapes (pieces, shifts); NaN where too little is known.
    """
    padded = np.pad(profiles, ((0, 0), (_REACH, _REACH)), constant_values=np.nan)
    centre = shifts + 2 * _REACH
    core_at = np.arange(-_CORE, _CORE + 1)
    side_at = np.concatenate([np.arange(-_SIDE[1], -_SIDE[0] + 1), np.arange(_SIDE[0], _SIDE[1] + 1)])
    core = padded[:, centre[:, None] + core_at]
    side = padded[:, centre[:, None] + side_at]
    known = np.isfinite(core)
    enough = (known.sum(axis=2) >= 3) & (np.isfinite(side).sum(axis=2) >= 5)
    level = _median_of(side)
    scatter = 1.4826 * _median_of(np.abs(side - level[:, :, None]))
    mean = np.where(known, core, 0.0).sum(axis=2) / np.maximum(known.sum(axis=2), 1)
    error = np.maximum(scatter, 1.2533 / np.sqrt(_PIECE)) / np.sqrt(2 * _CORE + 1)
    return np.where(enough, mean - level, np.nan), np.where(enough, error, np.nan)


def _refined(image: FloatImage, angle: float, offset: float) -> tuple[float, float]:
    """A line's angle and offset from the places of the highest core in its pieces."""
    for _ in range(3):
        middles, profiles, _ = _pieces(image, angle, offset)
        if middles.size < 3:
            break
        shifts = np.arange(-_REACH + _CORE, _REACH - _CORE + 1)
        smooth, _ = _excess(profiles, shifts)
        known = np.isfinite(smooth).any(axis=1)
        if known.sum() < 3:
            break
        middles = middles[known]
        scores = np.where(np.isfinite(smooth[known]), smooth[known], -np.inf)
        # The straight line through the pieces with the largest median height: robust against a star in some.
        slopes = np.linspace(-1, 1, 41) * (np.pi / _ANGLES)
        places = np.rint(middles[None, :, None] * slopes[:, None, None] + shifts[None, None, :]).astype(np.intp)
        places = np.clip(places + _REACH - _CORE, 0, shifts.size - 1)
        picked = np.take_along_axis(scores[None], places, axis=2)
        total = np.median(picked, axis=1)
        best = np.unravel_index(int(np.argmax(total)), total.shape)
        # offset(along) = offset + shift + slope * along: turning the normal by -slope.
        angle, offset = angle - float(slopes[best[0]]), offset + float(shifts[best[1]])
        if slopes[best[0]] == 0 and shifts[best[1]] == 0:
            break
    return angle, offset


def _thin(profiles: Array) -> bool:
    """Whether the pieces are one pixel wide: what stands beside their highest pixel is next to nothing."""
    complete = profiles[np.isfinite(profiles[:, _REACH - _SIDE[1] : _REACH + _SIDE[1] + 1]).all(axis=1)]
    if not len(complete):
        return False
    top = complete[:, _REACH - _CORE : _REACH + _CORE + 1].argmax(axis=1) + _REACH - _CORE
    row = np.arange(len(complete))
    level = np.median(complete, axis=1)
    beside = 0.5 * (complete[row, top - 1] + complete[row, top + 1]) - level
    return bool(np.median(beside / np.maximum(complete[row, top] - level, 1e-6)) < 0.25)


def _confirmed(image: FloatImage, angle: float, offset: float, sigma: float) -> Line | None:
    """The line, if it is there along most of its way from edge to edge."""
    angle, offset = _refined(image, angle, offset)
    middles, profiles, chord = _pieces(image, angle, offset)
    if chord < _SHORTEST * min(image.shape) or middles.size < _FEWEST_PIECES:
        return None
    heights, errors = _excess(profiles, np.zeros(1, np.intp))
    height, error = heights[:, 0], errors[:, 0]
    known = np.isfinite(height)
    if known.sum() < _FEWEST_PIECES:
        return None
    ratio = height[known] / error[known]
    seen = ratio > _PIECE_SIGMA
    thirds = np.array_split(seen, 3)
    # A few stars in a row can pass for a short line in a rich cluster: there, next to every piece must show it.
    needed = _PIECES_SEEN if seen.size >= _FEW_PIECES else _FEW_PIECES_SEEN
    if seen.mean() < needed or min(third.mean() for third in thirds) < 0.5:
        return None
    typical = float(np.median(height[known]))
    spare = 3.0 * float(np.median(error[known]))
    if np.percentile(height[known], 85) > _EVEN * typical + spare:
        return None
    significance = float(np.median(ratio) * np.sqrt(ratio.size))
    if significance < sigma:
        return None
    across = np.abs(np.arange(-_REACH, _REACH + 1))
    profiles = profiles[known]
    covered = np.isfinite(profiles).any(axis=0)
    profile = np.zeros(across.size)
    profile[covered] = np.nanmedian(profiles[:, covered], axis=0)
    profile[covered] -= np.median(profile[covered & (across >= _SIDE[0]) & (across <= _SIDE[1])])
    peak = float(profile[across <= _CORE].max())
    # A bad column is one pixel wide and exactly upright; a trail is as wide as the seeing.
    upright = min(abs(np.sin(angle)), abs(np.cos(angle))) * chord < 2 * _CORE + 1
    if upright and _thin(profiles):
        return None
    wide = _CORE
    while wide < _WIDEST and profile[across == wide + 1].max() > max(_MASK_ABOVE, 0.002 * peak):
        wide += 1
    return Line(angle, offset, wide + 1.0, significance)


def find_trails(data: FloatImage, unusable: Mask, sigma: float) -> tuple[Mask, tuple[Line, ...]]:
    """Pixels under straight trails that cross the frame.

    Parameters
    ----------
    data
        Calibrated science, ADU, finite.
    unusable
        Pixels known to be bad or saturated.
    sigma
        Significance that both the proposed line and its pieces together must reach.

    Returns
    -------
    mask, lines
        Boolean, shape of data; and the lines it covers.
    """
    mask = np.zeros(data.shape, bool)
    if min(data.shape) < 8 * _BIN:
        return mask, ()
    residual, image = _residual(data, unusable)
    values, valid = _binned(residual)
    if not valid.any():
        return mask, ()
    lines: list[Line] = []
    y, x = np.ogrid[: data.shape[0], : data.shape[1]]
    tried = 0
    table, offsets = _radon(values, valid)
    while tried < _PROPOSALS and len(lines) < _MOST_TRAILS:
        tried += 1
        best = np.unravel_index(int(np.argmax(table)), table.shape)
        if table[best] < sigma:
            break
        angle = np.pi * best[0] / _ANGLES
        middle = (_BIN - 1) / 2 * (np.cos(angle) + np.sin(angle))
        line = _confirmed(image, float(angle), float(offsets[best[1]] * _BIN + middle), sigma)
        if line is None:
            for turn in range(-4, 5):
                row = (best[0] + turn) % _ANGLES
                place = best[1] if 0 <= best[0] + turn < _ANGLES else table.shape[1] - 1 - best[1]
                table[row, max(0, place - 6) : place + 7] = -np.inf
            continue
        lines.append(line)
        under = np.abs(x * np.cos(line.angle) + y * np.sin(line.angle) - line.offset) <= line.half_width
        mask |= under
        residual[under] = np.nan
        image[under] = np.nan
        values, valid = _binned(residual)
        table, offsets = _radon(values, valid)
    return mask, tuple(lines)
