from __future__ import annotations

import numpy as np
import pytest
import sep
from scipy.optimize import brentq

from tasks.photometry import StarImage, prepare_image
from tasks.psf import centred, encircled_energy, fit_moffat, measure_growth
from tests.photometry.starfield import moffat_field


def radius_of(goal: float, *profiles: tuple[float, float]) -> float:
    """Radius of the circle that holds a share of a star's light, in the mean over where in a pixel it stands.

    The star is the mean of Moffat profiles (FWHM, beta).
    """
    rng = np.random.default_rng(0)
    n, step = 36, int(24 * max(fwhm for fwhm, _ in profiles)) + 8
    x = step * (np.arange(n) + 0.5) + rng.uniform(-0.5, 0.5, n)
    y = step / 2 + rng.uniform(-0.5, 0.5, n)
    row = np.mean([moffat_field((step, n * step), x, y, np.ones(n), *profile) for profile in profiles], axis=0)
    return float(brentq(lambda r: sep.sum_circle(row, x, y, r, subpix=0)[0].mean() - goal, 0.3, step / 4))


@pytest.mark.parametrize(("fwhm", "beta"), [(3.5, 3.0), (3.0, 4.0), (7.0, 2.8)])
def test_stamp_alone_counts_the_wings_beyond_it(fwhm: float, beta: float) -> None:
    image = centred(moffat_field((25, 25), np.array([12.0]), np.array([12.0]), np.array([1.0]), fwhm, beta), fwhm)
    large = moffat_field((201, 201), np.array([100.0]), np.array([100.0]), np.array([1.0]), fwhm, beta)
    assert image[5:20, 5:20].sum() - large[93:108, 93:108].sum() > 1e-4  # what the stamp lost, its sum hides
    energy = encircled_energy(image, fit_moffat(image))
    assert energy.ee50_px == pytest.approx(radius_of(0.5, (fwhm, beta)), rel=0.02)
    assert energy.ee80_px == pytest.approx(radius_of(0.8, (fwhm, beta)), rel=0.04)


def stars(fwhm: float, beta: float, n: int = 16, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A field with a star every 60 px: image with sky and noise, positions."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(n)))
    grid = np.indices((side, side)).reshape(2, -1)[:, :n]
    x, y = 50 + 60.0 * grid + rng.uniform(-0.5, 0.5, (2, n))
    shape = (100 + 60 * (side - 1),) * 2
    image = moffat_field(shape, x, y, 10 ** rng.uniform(4.5, 6.0, n), fwhm, beta)
    return image + 30 + rng.normal(0, 6, shape), x, y


def prepared(image: np.ndarray) -> StarImage:
    return prepare_image(image.astype(np.float32), np.zeros(image.shape, np.uint8), np.full(image.shape, 36.0))


@pytest.mark.parametrize(("fwhm", "beta"), [(3.2, 3.0), (3.2, 4.0), (4.5, 2.6)])
def test_growth_gives_the_radii_back(fwhm: float, beta: float) -> None:
    image, x, y = stars(fwhm, beta)
    growth = measure_growth(prepared(image), x, y, 1.05 * fwhm)
    assert growth is not None
    assert growth.n_stars == 16
    assert growth.radius_of(0.5) == pytest.approx(radius_of(0.5, (fwhm, beta)), rel=0.01)
    assert growth.radius_of(0.8) == pytest.approx(radius_of(0.8, (fwhm, beta)), rel=0.015)
    energy = encircled_energy(np.zeros((25, 25)), fit_moffat(image[38:63, 38:63]), growth)
    assert energy == (growth.radius_of(0.5), growth.radius_of(0.8))


def test_growth_is_that_of_no_moffat_where_the_stars_are_none() -> None:
    narrow, x, y = stars(2.2, 3.0)
    wide, _, _ = stars(6.0, 3.0)
    both = (narrow + wide) / 2  # two seeings, half of the light each
    growth = measure_growth(prepared(both), x, y, 3.0)
    assert growth is not None

    for goal in (0.5, 0.8):
        assert growth.radius_of(goal) == pytest.approx(radius_of(goal, (2.2, 3.0), (6.0, 3.0)), rel=0.02)


def test_faint_neighbours_and_knots_do_not_make_wings() -> None:
    fwhm, beta = 3.2, 3.2
    image, x, y = stars(fwhm, beta)
    clean = measure_growth(prepared(image), x, y, fwhm)
    rng = np.random.default_rng(5)
    n = 9 * x.size
    angle, far = rng.uniform(0, 2 * np.pi, n), rng.uniform(2.0, 3.4, n) * fwhm
    around = np.repeat(np.arange(x.size), 9)
    crowd = moffat_field(
        image.shape,
        x[around] + far * np.cos(angle),
        y[around] + far * np.sin(angle),
        rng.uniform(50, 400, n),
        fwhm,
        beta,
    )
    crowd += moffat_field(image.shape, x[:3], y[:3], np.full(3, 3e5), 2.5 * fwhm, beta)  # three are no stars
    growth = measure_growth(prepared(image + crowd), x, y, fwhm)
    assert clean is not None
    assert growth is not None
    for goal, tolerance in ((0.5, 0.01), (0.8, 0.02)):
        assert growth.radius_of(goal) == pytest.approx(clean.radius_of(goal), rel=tolerance)


def test_four_stars_are_no_growth_curve() -> None:
    image, x, y = stars(3.2, 3.0)
    assert measure_growth(prepared(image), x[:4], y[:4], 3.2) is None
    hidden = image.copy()
    hidden[:100] = np.nan
    usable = measure_growth(
        prepare_image(hidden.astype(np.float32), np.isnan(hidden), np.ones(hidden.shape)), x, y, 3.2
    )
    assert usable is not None
    assert usable.n_stars < 16
