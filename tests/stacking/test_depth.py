"""Depth of a stack from empty apertures, and the noise that its cards tell."""

from __future__ import annotations

import numpy as np
import pytest
import sep

from tasks.stacking import empty_aperture_sigma, measure_noise
from tests.stacking.sky import moffat


def test_empty_apertures_measure_correlated_noise():
    rng = np.random.default_rng(11)
    from scipy.ndimage import gaussian_filter

    white = rng.normal(0, 1, (600, 600))
    smooth = gaussian_filter(white, 1.0, mode="wrap").astype(np.float32)
    image = smooth.copy()
    for x, y in rng.uniform(20, 580, (60, 2)):
        image[int(y) - 15 : int(y) + 16, int(x) - 15 : int(x) + 16] += 50 * moffat((31, 31), 15, 15, 4.0)
    weight = np.ones((600, 600), np.float32)
    weight[:30] = 0
    sigma, count = empty_aperture_sigma(image, weight, 4.0)
    rows, columns = (axis.ravel().astype(float) for axis in np.mgrid[20:580:9, 20:580:9])
    truth = np.std(sep.sum_circle(np.ascontiguousarray(smooth), columns, rows, 4.0, subpix=0)[0])
    assert count > 200
    assert sigma == pytest.approx(truth, rel=0.1)
    assert sigma > 1.8 * np.std(smooth) * np.sqrt(np.pi * 16), "neighbours correlate"


def test_no_empty_sky_no_depth():
    assert empty_aperture_sigma(np.ones((50, 50), np.float32), np.zeros((50, 50), np.float32), 4.0) is None


@pytest.mark.parametrize(("calibrated", "scale"), [(True, 1.0), (False, 3.0)])
def test_the_noise_of_a_stack_is_what_its_cards_say(calibrated, scale):
    """Correlated noise, deeper on one half, sources all over: apertures elsewhere have the noise that is predicted."""
    rng = np.random.default_rng(12)
    from scipy.ndimage import gaussian_filter

    depth_map = np.where(np.arange(600)[None, :] < 300, 1.0, 0.6) * np.ones((600, 1))
    image = gaussian_filter(rng.normal(0, 1, (600, 600)), 0.6) * depth_map * scale
    empty = image.copy()
    for x, y in rng.uniform(20, 580, (80, 2)):
        image[int(y) - 15 : int(y) + 16, int(x) - 15 : int(x) + 16] += scale * 40 * moffat((31, 31), 15, 15, 4.0)
    weight = (7.0 / depth_map**2).astype(np.float32)
    noise = measure_noise(image.astype(np.float32), weight, 4.0, 0.77, calibrated)
    assert noise.inverse_variance * 7.0 == pytest.approx(1 / np.std(empty[:, :300]) ** 2, rel=0.06)
    rows, columns = (axis.ravel().astype(float) for axis in np.mgrid[15:585:11, 15:585:11])
    sums, _, _ = sep.sum_circle(np.ascontiguousarray(empty), columns, rows, 4.0, subpix=0)
    variance = np.ascontiguousarray(1.0 / (noise.inverse_variance * weight.astype(float)))
    white, _, _ = sep.sum_circle(variance, columns, rows, 4.0, subpix=0)
    assert np.std(sums / np.sqrt(white)) / noise.correlation == pytest.approx(1.0, abs=0.1)
    assert noise.correlation > 1.3
    in_one_arcsec = noise.aperture_sigma / np.sqrt(np.pi * (4.0 * 0.77) ** 2)
    expected = 30 - 2.5 * np.log10(in_one_arcsec) if calibrated else None
    assert noise.surface_brightness == (pytest.approx(expected) if calibrated else None)
