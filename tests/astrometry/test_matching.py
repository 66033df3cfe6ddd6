"""Matching, chance, fitting: where a wrong answer would be believed."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS

from tasks.astrometry.fitting import fit_best_degree, fit_polynomial, monomials
from tasks.astrometry.matching import Reference, chance_matches, gnomonic, match_stars
from tasks.astrometry.plate import verify
from tasks.astrometry.solver import spread_order
from tasks.astrometry.sources import Sources
from tests.astrometry.sky import SHAPE, Camera


def plain_wcs() -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 2.0], [512.5, 512.5]
    wcs.wcs.cd = np.array([[-2.14e-4, 0.0], [0.0, 2.14e-4]])
    return wcs


def stars(n: int, seed: int) -> Reference:
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(149.93, 150.07, n), rng.uniform(1.93, 2.07, n)
    return Reference(ra, dec, np.full(n, 0.01), rng.uniform(12, 18, n), "test")


def sources(x: np.ndarray, y: np.ndarray) -> Sources:
    one, yes = np.ones(len(x)), np.ones(len(x), dtype=bool)
    return Sources(x, y, one * 1e4, one * 50, one * 3.5, ~yes, yes, one * 0.05)


def test_gnomonic_is_wcslib_s() -> None:
    wcs = plain_wcs()
    reference = stars(50, 1)
    x, y = wcs.wcs_world2pix(reference.ra, reference.dec, 1)
    east, north = gnomonic(reference.ra, reference.dec, 150.0, 2.0)
    assert np.allclose(east, (x - 512.5) * -2.14e-4, atol=1e-12)
    assert np.allclose(north, (y - 512.5) * 2.14e-4, atol=1e-12)
    assert np.isnan(gnomonic(np.array([330.0]), np.array([-2.0]), 150.0, 2.0)[0][0])


def test_pairs_are_mutual_and_the_counts_of_chance_are_chance() -> None:
    wcs, reference = plain_wcs(), stars(400, 2)
    x, y = (np.asarray(axis) for axis in wcs.wcs_world2pix(reference.ra, reference.dec, 1))
    match = match_stars(wcs, x, y, reference, 2.0)
    assert np.array_equal(match.source, match.star)
    assert match.rms < 1e-6
    rng = np.random.default_rng(3)
    draws = [rng.uniform((x.min(), y.min()), (x.max(), y.max()), (400, 2)).T for _ in range(20)]
    by_chance = np.mean([len(match_stars(wcs, *draw, reference, 2.0)) for draw in draws])
    assert by_chance > 5
    assert abs(chance_matches(wcs, x, y, reference, 2.0) - by_chance) < 3
    assert len(match_stars(wcs, x[:0], y[:0], reference, 2.0)) == 0


def test_a_wrong_solution_is_doubted_and_a_right_one_is_not() -> None:
    wcs, reference = plain_wcs(), stars(300, 4)
    x, y = (np.asarray(axis) for axis in wcs.wcs_world2pix(reference.ra, reference.dec, 1))
    assert verify(wcs, sources(x, y), reference, SHAPE, 2.0).doubt == ""
    rng = np.random.default_rng(5)
    for _ in range(20):
        wrong = verify(wcs, sources(rng.uniform(1, 1024, 200), rng.uniform(1, 1024, 200)), reference, SHAPE, 2.0)
        assert wrong.doubt != ""


def test_chance_pairs_of_a_crowded_field_prove_nothing() -> None:
    """Forty pairs within 2 arcsec, all by chance: the number alone would pass."""
    wcs, reference = plain_wcs(), stars(4000, 6)
    rng = np.random.default_rng(7)
    found = verify(wcs, sources(rng.uniform(1, 1024, 300), rng.uniform(1, 1024, 300)), reference, SHAPE, 2.0)
    assert len(found.match) > 20
    assert "chance" in found.doubt


def field(n: int, seed: int, wrong: int = 0) -> tuple[Camera, tuple[np.ndarray, ...]]:
    camera, rng = Camera(), np.random.default_rng(seed)
    ra = camera.ra + rng.uniform(-0.1, 0.1, n) / np.cos(np.radians(camera.dec))
    dec = camera.dec + rng.uniform(-0.1, 0.1, n)
    x, y = camera.pixels(ra, dec)
    x, y = x + rng.normal(0, 0.03, n), y + rng.normal(0, 0.03, n)
    x[:wrong] += rng.uniform(-2.5, 2.5, wrong)
    y[:wrong] += rng.uniform(-2.5, 2.5, wrong)
    return camera, (x, y, ra, dec)


def rms_px(camera: Camera, wcs: WCS) -> float:
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(80, 944, 9), np.linspace(80, 944, 9)))
    back = camera.pixels(*wcs.all_pix2world(x, y, 1))
    return float(np.sqrt(np.mean((back[0] - x) ** 2 + (back[1] - y) ** 2)))


def start() -> WCS:
    wcs = plain_wcs()
    wcs.wcs.crval = [132.86, 11.8]
    return wcs


def test_wrong_pairs_do_not_pull_the_fit() -> None:
    camera, clean = field(150, 1)
    _, dirty = field(150, 1, wrong=25)
    sigma = np.full(150, 0.03)
    good = fit_polynomial(*clean, sigma, SHAPE, 3, start())
    robust = fit_polynomial(*dirty, sigma, SHAPE, 3, start())
    assert rms_px(camera, good.wcs) < 0.02
    assert rms_px(camera, robust.wcs) < 0.025
    assert np.median(robust.weight[:25]) < 0.2
    assert np.median(robust.weight[25:]) > 0.8


@pytest.mark.parametrize(("n", "degree"), [(5, 1), (11, 1), (200, 3)])
def test_the_degree_is_what_the_stars_can_bear(n: int, degree: int) -> None:
    _, data = field(n, 3)
    fit = fit_best_degree(*data, np.full(n, 0.03), SHAPE, 3, start())
    assert fit.degree == degree
    assert np.isfinite(fit.prediction)


def test_the_leave_one_out_estimate_is_honest() -> None:
    """The predicted rms of unseen stars is what unseen stars show, within a quarter."""
    camera, data = field(60, 8)
    fit = fit_polynomial(*data, np.full(60, 0.03), SHAPE, 3, start())
    _, (x, y, ra, dec) = field(2000, 9)
    found = fit.wcs.all_pix2world(x, y, 1)
    apart = np.hypot((found[0] - ra) * np.cos(np.radians(camera.dec)), found[1] - dec) * 3600
    assert fit.prediction == pytest.approx(float(np.sqrt(np.mean(apart**2))), rel=0.25)


def test_monomials() -> None:
    assert monomials(2) == [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)]
    assert len(monomials(3, 2)) == 7


def test_a_cluster_does_not_take_all_the_first_places() -> None:
    rng = np.random.default_rng(1)
    x = np.r_[rng.uniform(0, 100, 100), rng.uniform(0, 1024, 100)]
    y = np.r_[rng.uniform(0, 100, 100), rng.uniform(0, 1024, 100)]
    flux = np.r_[np.full(100, 1e6), np.linspace(1, 100, 100)]
    order = spread_order(x, y, flux, SHAPE)
    assert sorted(order) == list(range(200))
    assert np.sum(order[:25] < 100) <= 1
    assert order[0] < 100
