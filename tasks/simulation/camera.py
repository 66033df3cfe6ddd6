"""The Andor camera of the T120: bias, response, dark current, cosmic rays, bleeding, conversion to numbers."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from models.simulation import Trail
from tasks.simulation.seeds import rng_for

__all__ = [
    "FULL_WELL_E", "GAIN", "READ_NOISE", "add_cosmic_rays", "add_trail", "bias_level", "bias_structure", "bleed",
    "dark_rate",
    "read_out", "response",
]  # fmt: skip

Array = NDArray[np.float64]

GAIN, READ_NOISE = 1.5, 8.0
FULL_WELL_E = 108_000.0
"""Above the converter's 65 535 ADU (98 300 e-): saturated stars are flat-topped first and bleed when brighter."""
_NONLINEAR_ADU = 60_000.0
_COSMIC_RATE = 0.12
"""Cosmic rays a second on 7 cm^2: one per cm^2 and minute, as for any unshielded CCD at 650 m."""


def bias_level(seed: int, year: int, night: str) -> float:
    """Mean level of a night's biases, ADU: a constant of the year and a drift from night to night."""
    return 420.0 + 60.0 * (year % 7) + float(rng_for(seed, "bias level", night).normal(0.0, 2.5))


@functools.lru_cache(maxsize=2)
def bias_structure(seed: int, size: int) -> Array:
    """Rows, columns and a gradient that every bias has, ADU."""
    rng = rng_for(seed, "bias structure", size)
    rows, columns = rng.normal(0.0, 0.6, size), rng.normal(0.0, 0.9, size)
    y, x = np.mgrid[0:size, 0:size] / size
    pattern: Array = rows[:, None] + columns[None, :] + 5.0 * (y - 0.5) + 2.0 * (x - 0.5) + 3.0 * np.exp(-y * 20)
    return pattern


@functools.lru_cache(maxsize=2)
def _pixels(seed: int, size: int) -> tuple[Array, Array]:
    # The chip's own response (1 %, a dead column from a row on, a hot one, dead and hot pixels) and its dark rate.
    rng = rng_for(seed, "chip", size)
    sensitivity = (
        1 + 0.01 * rng.normal(size=(size, size)) + 0.01 * gaussian_filter(rng.normal(size=(size, size)), 40) * 60
    )
    n = size * size // 8000
    dead, hot = rng.integers(0, size, (n, 2)), rng.integers(0, size, (n, 2))
    sensitivity[dead[:, 0], dead[:, 1]] *= rng.uniform(0.0, 0.4, n)
    sensitivity[hot[:, 0], hot[:, 1]] *= rng.uniform(1.7, 3.0, n)
    dark = np.full((size, size), 0.002)
    dark[hot[:, 0], hot[:, 1]] += rng.exponential(4.0, n)
    warm = rng.integers(0, size, (n, 2))
    dark[warm[:, 0], warm[:, 1]] += rng.exponential(1.5, n)
    dead_column, hot_column = int(0.29 * size), int(0.73 * size)
    sensitivity[int(0.18 * size) :, dead_column] *= 0.02
    sensitivity[int(0.41 * size) :, hot_column] *= 1.6
    dark[int(0.41 * size) :, hot_column] += 1.0
    return sensitivity, dark


def dark_rate(seed: int, size: int) -> Array:
    """Dark current in e-/s: almost nothing at -60 C but for hot pixels."""
    return _pixels(seed, size)[1]


def _add_dust(shade: Array, rng: np.random.Generator, n: int) -> None:
    # Out-of-focus specks: the shadow of a ring, the mirror's central obstruction in its middle.
    size = shade.shape[0]
    for _ in range(n):
        x0, y0 = rng.uniform(0, size, 2)
        outer, depth = rng.uniform(18, 42), rng.uniform(0.015, 0.06)
        reach = int(1.8 * outer) + 1
        box = tuple(slice(max(0, int(c) - reach), min(size, int(c) + reach + 1)) for c in (y0, x0))
        y, x = np.mgrid[box]
        r = np.hypot(x - x0, y - y0) / outer
        shade[box] *= 1 - depth * (expit((1 - r) * 18) - 0.75 * expit((0.45 - r) * 18))


@functools.lru_cache(maxsize=8)
def response(seed: int, size: int, year: int, band: str) -> Array:
    """What a flat of the year and filter sees, median 1: a star sees it divided by the relative pixel area.

    Vignetting and dust of the year (window), dust of the filter, and the chip's pixels.
    """
    rng = rng_for(seed, "flat", size, year)
    y, x = np.mgrid[0:size, 0:size].astype(float)
    cx, cy = size / 2 + rng.normal(0, 0.03 * size, 2)
    r2 = ((x - cx) ** 2 + (y - cy) ** 2) / (size / np.sqrt(2)) ** 2
    shade = 1 - 0.10 * r2 - 0.04 * r2**2
    _add_dust(shade, rng, 9)
    own = rng_for(seed, "flat", size, year, band)
    tilt = own.normal(0, 0.006, 2)
    shade *= 1 + tilt[0] * (x / size - 0.5) + tilt[1] * (y / size - 0.5)
    _add_dust(shade, own, 4)
    result: Array = shade * _pixels(seed, size)[0] * (1 + 0.002 * own.normal(size=(size, size)))
    return result / np.median(result)


def add_cosmic_rays(electrons: Array, exptime: float, rng: np.random.Generator) -> int:
    """Add hits of particles in place; the number of pixels that got more than 50 e-."""
    rows, columns = electrons.shape
    hits = rng.poisson((_COSMIC_RATE * exptime + 0.3) * rows * columns / 1024**2)
    touched: set[tuple[int, int]] = set()
    for _ in range(hits):
        x, y = rng.uniform(0, columns), rng.uniform(0, rows)
        length = min(rng.exponential(4.0), 40.0)
        angle = rng.uniform(0, np.pi)
        charge = rng.lognormal(np.log(900.0), 0.8)
        steps = max(1, int(length * 4))
        for step in range(steps):
            column, row = int(x + np.cos(angle) * step / 4), int(y + np.sin(angle) * step / 4)
            if 0 <= column < columns and 0 <= row < rows:
                electrons[row, column] += charge if steps == 1 else charge / 4 * rng.uniform(0.6, 1.4)
                touched.add((row, column))
    return len(touched)


def add_trail(electrons: Array, trail: Trail, fwhm_px: float) -> None:
    """Add a satellite's straight line, as wide as the seeing, in place."""
    rows, columns = electrons.shape
    y, x = np.mgrid[1 : rows + 1, 1 : columns + 1].astype(float)
    angle = np.deg2rad(trail.angle_deg)
    away = (x - trail.x) * np.sin(angle) - (y - trail.y) * np.cos(angle)
    sigma = fwhm_px / 2.355
    electrons += trail.electrons_per_px * np.exp(-(away**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)


def bleed(electrons: Array) -> None:
    """Let charge above full well spill along its column, half up, half down, in place. Charge is conserved inside."""
    over = electrons > FULL_WELL_E
    rows = electrons.shape[0]
    for column in np.flatnonzero(over.any(axis=0)):
        line = electrons[:, column]
        for row in np.flatnonzero(over[:, column]):
            excess = line[row] - FULL_WELL_E
            line[row] = FULL_WELL_E
            for step in (1, -1):
                rest, place = excess / 2, row + step
                while rest > 0 and 0 <= place < rows:
                    room = FULL_WELL_E - line[place]
                    if room > 0:
                        taken = min(room, rest)
                        line[place] += taken
                        rest -= taken
                    place += step


def read_out(
    electrons: Array, level: float, seed: int, rng: np.random.Generator, read_noise: float = READ_NOISE
) -> NDArray[np.uint16]:
    """Numbers in the file, from collected electrons (Poisson noise already in them)."""
    signal = electrons / GAIN
    bent = signal > _NONLINEAR_ADU
    signal[bent] = _NONLINEAR_ADU + 0.93 * (signal[bent] - _NONLINEAR_ADU)
    rows, columns = electrons.shape
    signal += level + bias_structure(seed, max(electrons.shape))[:rows, :columns]
    signal += rng.normal(0.0, read_noise / GAIN, electrons.shape)
    return np.clip(np.rint(signal), 0, 65535).astype(np.uint16)
