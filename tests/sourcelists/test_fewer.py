"""Stars that some frames lack: what their own growth curve is worth, and errors that hold for them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from tasks.sourcelists.corrections import Correction
from tasks.sourcelists.fewer import Fewer, spread_of, with_loss, with_own_growth

SPREAD, SHARE = 0.12, 0.75
SMALL, RING = 300.0, 900.0
"""Noise of the small aperture, and of the ring that the largest adds."""


class Sky(NamedTuple):
    true: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    large: np.ndarray
    large_error: np.ndarray
    step: Correction


def sky(n: int = 4000, seed: int = 1, faintest: float = 1e4) -> Sky:
    """Stars whose small aperture holds 75 % of their light, more or less by 12 %; corrected for the 75 %."""
    rng = np.random.default_rng(seed)
    true = 10 ** rng.uniform(np.log10(faintest), 7, n)
    share = SHARE * (1 + rng.normal(0, SPREAD / 1.0857, n))
    small = true * share + rng.normal(0, SMALL, n)
    large = small + true * (1 - share) + rng.normal(0, RING, n)
    at = np.full(n, 2.5 * np.log10(SHARE))
    step = Correction(at, float(at[0]), 0.0, n)
    return Sky(true, small / SHARE, np.full(n, SMALL / SHARE), large, np.full(n, np.hypot(SMALL, RING)), step)


def fewer(made: Sky, **given: np.ndarray) -> Fewer:
    every = np.ones(made.true.size, bool)
    values = {"all": every, "stars": made.true > 1e6, "near": np.zeros(made.true.size)} | given
    return Fewer(**values)


def mended(made: Sky, which: Fewer, typical: float = 0.05) -> tuple[np.ndarray, np.ndarray, float]:
    return with_own_growth(made.flux, made.error, made.step, made.large, made.large_error, which, typical)


def width(pulls: np.ndarray) -> float:
    return 1.4826 * float(np.median(np.abs(pulls)))


def test_errors_hold_from_the_brightest_to_the_faintest() -> None:
    made = sky()
    flux, error, spread = mended(made, fewer(made))
    assert spread == pytest.approx(SPREAD, rel=0.1)
    before = (made.flux - made.true) / made.error
    for low, high in ((1e4, 3e4), (3e4, 1e5), (1e5, 1e6), (1e6, 1e7)):
        step = (made.true >= low) & (made.true < high)
        assert width(((flux - made.true) / error)[step]) == pytest.approx(1.0, abs=0.12)
        assert width(before[step]) > 1.5
        # Never worse than either alone.
        own = width((flux - made.true)[step])
        assert own < 1.05 * width((made.large - made.true)[step])
        assert own < 1.05 * width((made.flux - made.true)[step])


def test_others_stay_as_they_are() -> None:
    made = sky(400)
    some = np.arange(400) % 3 == 0
    flux, error, _ = mended(made, fewer(made, all=some))
    assert np.array_equal(flux[~some], made.flux[~some])
    assert np.array_equal(error[~some], made.error[~some])
    assert (flux[some] != made.flux[some]).mean() > 0.9


def test_a_neighbour_s_light_in_the_largest_aperture_is_not_taken_for_the_star_s() -> None:
    made = sky(faintest=1e6)
    near = 0.2 * made.true
    crowded = made._replace(large=made.large + near)
    flux, error, _ = mended(crowded, fewer(made, near=near, stars=np.zeros(made.true.size, bool)), typical=SPREAD)
    ignorant, _, _ = mended(crowded, fewer(made, stars=np.zeros(made.true.size, bool)), typical=SPREAD)
    assert abs(np.median(flux / made.true) - 1) < 0.06 < np.median(ignorant / made.true) - 1
    assert width((flux - made.true) / error) < 1.25


def test_light_that_saturated_cores_lose_is_in_the_errors_of_every_aperture() -> None:
    rng = np.random.default_rng(5)
    true, core = np.full(3000, 1e6), 0.75
    # Of the core's light a part went with the sharp frames; the ring around it is that of all.
    part = rng.normal(0.06, 0.03, true.size)
    small, large = true * core * (1 - part), true * (1 - core * part)
    at = np.full(true.size, 2.5 * np.log10(core))
    step, every = Correction(at, float(at[0]), 0.0, 50), np.ones(true.size, bool)
    which = Fewer(every, every, np.zeros(true.size))
    noise = np.full(true.size, 1e3)
    flux, error, spread = with_own_growth(small / core, noise, step, large, 1.5 * noise, which, 0.05)
    assert width((flux - true) / error) > 20
    # Where cores alone lose, the sum lacks 3 S: the worst case, of which seeing alone, without loss, is the other end.
    known = with_loss(flux, error, which, spread)
    assert 1.0 < width((flux - true) / known) < 0.25 * width((flux - true) / error)
    assert np.sqrt(np.square(known) - np.square(error)) == pytest.approx(0.7 * spread / 1.0857 * flux, rel=0.01)
    others = which._replace(all=~every)
    assert np.array_equal(with_loss(flux, error, others, spread), error)


def test_a_galaxy_keeps_its_flux_with_the_error_of_what_is_lacking() -> None:
    made = sky(400)
    wide = np.arange(400) < 40
    flux, error, spread = mended(
        made._replace(large=np.where(wide, 3 * made.true, made.large)), fewer(made, stars=~wide & (made.true > 1e6))
    )
    bright = wide & (made.true > 3e4)
    assert np.array_equal(flux[bright], made.flux[bright])
    assert error[bright] == pytest.approx(np.hypot(made.error, spread / 1.0857 * made.flux)[bright])


def test_too_few_stars_leave_what_is_typical_and_one_that_is_none_does_not_count() -> None:
    off, noise = np.array([0.1, -0.1, 0.1, -0.1, 3.0]), np.full(5, 1e-3)
    every = np.ones(5, bool)
    assert spread_of(off, noise, every, 0.05) == pytest.approx(0.1, rel=0.01)
    assert spread_of(off, noise, np.arange(5) < 2, 0.05) == 0.05
    assert spread_of(np.full(5, np.nan), noise, every, 0.05) == 0.05


def test_what_was_not_measured_stays_so() -> None:
    made = sky(60)
    lost = made._replace(large=np.where(np.arange(60) < 9, np.nan, made.large))
    flux, error, _ = mended(lost, fewer(made))
    assert np.array_equal(flux[:9], made.flux[:9])
    assert np.isfinite(error[:9]).all()
    none = made._replace(flux=np.where(np.arange(60) < 9, np.nan, made.flux))
    assert np.isnan(mended(none, fewer(made))[0][:9]).all()
