"""Cosmic rays: found, and no star taken for one, down to two pixels of seeing."""

from __future__ import annotations

import astroscrappy
import numpy as np
import pytest
from scipy import ndimage

from tasks.calibration.defects import cosmic_rays, fill

SIZE, GAIN, READ_NOISE = 400, 1.5, 8.0


def exposed(fwhm: float, number: int, sky: float, seed: int = 4) -> tuple[np.ndarray, ...]:
    """A pixel-integrated star field with hits: frame (ADU), variance, pixels hit at > 5 sigma, star positions."""
    rng = np.random.default_rng(seed)
    beta, fine = 3.3, np.array([-0.4, -0.2, 0.0, 0.2, 0.4])
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    image = np.full((SIZE, SIZE), sky)
    x, y, flux = rng.uniform(8, SIZE - 8, number), rng.uniform(8, SIZE - 8, number), 10 ** rng.uniform(2.4, 5.2, number)
    grid = np.mgrid[-25:26, -25:26]
    for x0, y0, total in zip(x, y, flux, strict=True):
        row, column = round(y0), round(x0)
        rows, columns = grid[0] + row, grid[1] + column
        inside = (rows >= 0) & (rows < SIZE) & (columns >= 0) & (columns < SIZE)
        rows, columns = rows[inside], columns[inside]
        r2 = (rows[:, None, None] + fine[:, None] - y0) ** 2 + (columns[:, None, None] + fine - x0) ** 2
        image[rows, columns] += total * (beta - 1) / np.pi / alpha**2 * ((1 + r2 / alpha**2) ** -beta).mean(axis=(1, 2))
    hits = np.zeros((SIZE, SIZE))
    for _ in range(60):
        x0, y0, angle = rng.uniform(0, SIZE), rng.uniform(0, SIZE), rng.uniform(0, np.pi)
        for step in range(1 + int(rng.exponential(16))):
            row, column = int(y0 + np.sin(angle) * step / 4), int(x0 + np.cos(angle) * step / 4)
            if 0 <= row < SIZE and 0 <= column < SIZE:
                hits[row, column] += 400 * rng.uniform(0.6, 1.4)
    electrons = rng.poisson(image * GAIN) + hits + rng.normal(0, READ_NOISE, image.shape)
    noise = np.sqrt(image * GAIN + READ_NOISE**2)
    frame = (electrons / GAIN).astype(np.float32)
    variance = (np.maximum(frame, 0) / GAIN + (READ_NOISE / GAIN) ** 2).astype(np.float32)
    return frame, variance, hits > 5 * noise, x, y, hits > 0


@pytest.mark.parametrize(
    ("fwhm", "number", "sky"), [(2.1, 400, 200.0), (2.1, 200, 1600.0), (3.2, 250, 300.0), (5.2, 150, 300.0)]
)
def test_hits_found_and_stars_spared(fwhm: float, number: int, sky: float) -> None:
    frame, variance, strong, x, y, touched = exposed(fwhm, number, sky)
    mask = cosmic_rays(frame, variance, np.zeros(frame.shape, bool), np.zeros(frame.shape, bool), 5.0, 8.0)
    labels, events = ndimage.label(strong, np.ones((3, 3)))
    assert np.mean(ndimage.maximum(mask, labels, np.arange(1, events + 1))) > 0.88
    near = ndimage.binary_dilation(touched, np.ones((3, 3)), iterations=2)
    core = ndimage.maximum_filter(mask & ~near, size=3)
    assert not core[np.rint(y).astype(int), np.rint(x).astype(int)].any()
    assert np.count_nonzero(mask & ~near) < 10


def test_agrees_with_astroscrappy_where_stars_are_resolved() -> None:
    frame, variance, strong, *_ = exposed(4.0, 150, 300.0)
    ours = cosmic_rays(frame, variance, np.zeros(frame.shape, bool), np.zeros(frame.shape, bool), 5.0, 8.0)
    theirs, _ = astroscrappy.detect_cosmics(
        frame, gain=GAIN, readnoise=READ_NOISE, sigclip=5.0, objlim=8.0, sigfrac=0.3, niter=4, satlevel=60000.0
    )
    assert np.mean(ours[strong]) > np.mean(theirs[strong]) - 0.05
    assert np.mean(ours == theirs) > 0.998


def test_ignored_pixels_are_not_reported_and_hide_nothing() -> None:
    frame, variance, *_ = exposed(3.0, 100, 300.0)
    ignore = np.zeros(frame.shape, bool)
    ignore[:, 200] = True
    frame[:, 200] = 30000
    mask = cosmic_rays(frame, variance, ignore, np.zeros(frame.shape, bool), 5.0, 8.0)
    assert not mask[:, 200].any()
    assert mask[:, 198:203].sum() < 12


def test_the_rim_of_a_saturated_star_is_no_hit() -> None:
    y, x = np.mgrid[:120, :120]
    star = np.minimum(4e6 / 12 * (1 + ((x - 60) ** 2 + (y - 60) ** 2) / 6) ** -3 + 200, 60000).astype(np.float32)
    star[20:100, 60] = 60000
    saturated = star >= 60000
    mask = cosmic_rays(star, star / 1.5, np.zeros(star.shape, bool), saturated, 5.0, 8.0)
    assert not mask.any()


def test_an_empty_frame() -> None:
    flat = np.full((50, 60), 100, np.float32)
    assert not cosmic_rays(flat, flat, np.zeros(flat.shape, bool), np.zeros(flat.shape, bool), 5.0, 8.0).any()


def test_fill_takes_local_values() -> None:
    y, x = np.mgrid[:100, :120].astype(np.float32)
    truth = 500 + 3 * x + y
    data, holes = truth.copy(), np.zeros(truth.shape, bool)
    holes[20:23, 30:33], holes[:, 70], holes[50:70, 80:100] = True, True, True
    data[holes] = 1e9
    fill(data, holes)
    assert np.abs(data - truth)[holes & (x < 75)].max() < 8
    assert np.abs(data - truth)[holes].max() < 45
    everything = np.full((5, 5), np.nan, np.float32)
    fill(everything, np.ones((5, 5), bool))
    assert (everything == 0).all()
