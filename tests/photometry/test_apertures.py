from __future__ import annotations

import numpy as np
import pytest

from tasks.photometry import (
    ApertureFlag,
    aperture_photometry,
    core_peak,
    fill_masked,
    fit_growth_curve,
    moffat_enclosed,
    source_mask,
)
from tests.photometry.starfield import moffat_field

SHAPE = (160, 160)
FWHM, BETA, SKY = 3.5, 3.0, 500.0
X, Y = np.array([80.3]), np.array([79.6])


def star(flux: float = 1e5, noise: float = 0.0, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = moffat_field(SHAPE, X, Y, np.array([flux]), FWHM, BETA) + SKY + noise * rng.standard_normal(SHAPE)
    return image.astype(np.float32)


def nothing() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(SHAPE, np.uint8), np.full(SHAPE, 400.0, np.float32)


def test_flux_is_the_light_inside_the_aperture() -> None:
    mask, var = nothing()
    found = aperture_photometry(star(), mask, var, X, Y, 3 * FWHM)
    expected = 1e5 * float(moffat_enclosed(3 * FWHM, FWHM, BETA))
    assert found.flux[0] == pytest.approx(expected, rel=0.003)
    assert found.flag[0] == 0
    # 346 px of 20 ADU noise each.
    assert found.err[0] == pytest.approx(20 * np.sqrt(np.pi) * 3 * FWHM, rel=0.02)


def test_error_is_the_scatter_of_repeated_measurements() -> None:
    mask, var = nothing()
    fluxes, errors = [], []
    for seed in range(60):
        found = aperture_photometry(star(2e4, noise=20.0, seed=seed), mask, var, X, Y, 3 * FWHM)
        fluxes.append(found.flux[0])
        errors.append(found.err[0])
    assert np.std(fluxes) == pytest.approx(np.median(errors), rel=0.3)


def test_neighbours_in_the_annulus_do_not_pull_the_sky() -> None:
    mask, var = nothing()
    alone = star(noise=3.0)
    angles = np.arange(6) * np.pi / 3
    x, y = 80.3 + 17 * np.cos(angles), 79.6 + 17 * np.sin(angles)
    crowded = alone + moffat_field(SHAPE, x, y, np.full(6, 8e3), FWHM, BETA).astype(np.float32)
    area = np.pi * (3 * FWHM) ** 2
    one, many = (aperture_photometry(image, mask, var, X, Y, 3 * FWHM) for image in (alone, crowded))
    ring = np.hypot(*(np.indices(SHAPE)[::-1] - np.array([80.3, 79.6])[:, None, None]))
    ring = (ring > 4 * FWHM) & (ring < 6 * FWHM)
    pull_of_a_mean = area * (crowded[ring].mean() - alone[ring].mean())
    assert pull_of_a_mean > 5e3
    # What is left is the neighbours' light in the aperture itself and their far wings.
    assert abs(many.sky[0] - one.sky[0]) * area < 0.1 * pull_of_a_mean


def test_masked_pixels_in_the_wings_are_filled() -> None:
    mask, var = nothing()
    clean = aperture_photometry(star(), mask, var, X, Y, 3 * FWHM).flux[0]
    image = star()
    for dy, dx in ((0, 6), (6, 0), (-5, -4), (8, 3)):
        mask[80 + dy, 80 + dx] = 8
        image[80 + dy, 80 + dx] = 40000
    found = aperture_photometry(image, mask, var, X, Y, 3 * FWHM)
    assert found.flag[0] == 0
    assert found.flux[0] == pytest.approx(clean, rel=0.003)


def test_nan_counts_as_masked() -> None:
    mask, var = nothing()
    image = star()
    image[86, 80] = np.nan
    found = aperture_photometry(image, mask, var, X, Y, 3 * FWHM)
    assert found.flag[0] == 0
    assert np.isfinite(found.flux[0])


def test_flags_say_what_is_wrong() -> None:
    mask, var = nothing()
    mask[80, 81] = 2
    core = aperture_photometry(star(), mask, var, X, Y, 3 * FWHM)
    assert core.flag[0] & ApertureFlag.CORE_MASKED
    mask, var = nothing()
    mask[:, 84:] = 32
    half = aperture_photometry(star(), mask, var, X, Y, 3 * FWHM)
    assert half.flag[0] & ApertureFlag.MUCH_MASKED
    edge = aperture_photometry(star(), *nothing(), np.array([4.0]), np.array([80.0]), 3 * FWHM)
    assert edge.flag[0] & ApertureFlag.EDGE
    all_masked = aperture_photometry(star(), np.ones(SHAPE, np.uint8), var, X, Y, 3 * FWHM)
    assert all_masked.flag[0] & ApertureFlag.NO_SKY
    assert np.isfinite(all_masked.flux[0])


def test_no_stars_give_no_fluxes() -> None:
    found = aperture_photometry(star(), *nothing(), np.zeros(0), np.zeros(0), 10.0)
    assert found.flux.shape == (0,)


def test_a_pixel_without_neighbours_stays_unknown() -> None:
    image, bad = np.ones((20, 20), np.float32), np.zeros((20, 20), bool)
    bad[5:14, 5:14] = True
    filled = fill_masked(image, bad)
    assert np.isnan(filled[9, 9])
    assert filled[5, 9] == pytest.approx(1.0)


def test_core_peak_sees_the_highest_pixel_of_the_core() -> None:
    assert core_peak(star(), X, Y)[0] == pytest.approx(star().max())


def test_sources_are_masked_and_sky_is_not() -> None:
    lit = source_mask(star(noise=3.0), np.zeros(SHAPE, bool))
    assert lit[80, 80]
    assert lit.mean() < 0.15


@pytest.mark.parametrize("beta", [2.6, 3.0, 4.2])
def test_growth_curve_finds_the_wings(beta: float) -> None:
    rng = np.random.default_rng(5)
    shape = (700, 700)
    grid = np.arange(60, 700, 97.3)
    x, y = (v.ravel() + rng.uniform(-3, 3, grid.size**2) for v in np.meshgrid(grid, grid))
    image = moffat_field(shape, x, y, rng.uniform(4e4, 4e5, x.size), FWHM, beta) + SKY
    image += rng.normal(0, 15, shape)
    var = np.full(shape, 225.0, np.float32)
    curve = fit_growth_curve(image.astype(np.float32), np.zeros(shape, np.uint8), var, x, y, 1.1 * FWHM)
    assert curve.n_stars > 30
    for r in (2 * FWHM, 3 * FWHM):
        assert float(curve.enclosed(r)) == pytest.approx(float(moffat_enclosed(r, FWHM, beta)), abs=0.004)
    assert curve.measured_share(3 * FWHM) < float(curve.enclosed(3 * FWHM))


def test_growth_curve_of_too_few_stars_is_the_default() -> None:
    mask, var = nothing()
    curve = fit_growth_curve(star(), mask, var, X, Y, FWHM)
    assert (curve.n_stars, curve.fwhm_px, curve.beta) == (0, FWHM, 3.0)
