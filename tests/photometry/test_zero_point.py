from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.photometry import fit_zero_point

ZP, TERM = 23.3, -0.04


def stars(n: int, seed: int = 1, intrinsic: float = 0.012) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    colour = rng.uniform(0.2, 1.4, n)
    error = rng.uniform(0.005, 0.06, n)
    return ZP - TERM * colour + rng.normal(0, np.hypot(error, intrinsic)), error, colour


def test_zero_point_and_colour_term_come_back() -> None:
    fit = fit_zero_point(*stars(120))
    assert fit.colour_source == "fitted"
    assert fit.zp == pytest.approx(ZP, abs=3 * fit.err)
    assert fit.err < 0.01
    assert fit.colour_term == pytest.approx(TERM, abs=0.02)


def test_stated_error_is_the_scatter_of_many_fits() -> None:
    fits = [fit_zero_point(*stars(60, seed)) for seed in range(150)]
    pulls = np.array([(fit.zp - ZP) / fit.err for fit in fits])
    assert 0.7 < np.std(pulls) < 1.4
    assert abs(np.mean(pulls)) < 0.3


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_outliers_of_one_colour_do_not_tilt_the_fit(share: float) -> None:
    offset, error, colour = stars(80, 3)
    blue = np.argsort(colour)[: int(share * 80)]
    offset[blue] += np.random.default_rng(4).uniform(0.15, 0.6, blue.size)
    fit = fit_zero_point(offset, error, colour)
    assert not fit.used[blue].all()
    assert fit.zp == pytest.approx(ZP, abs=max(0.02, 3 * fit.err))


def test_never_clips_more_than_a_third() -> None:
    rng = np.random.default_rng(9)
    offset = ZP + rng.choice([-0.4, 0.4], 40) + rng.normal(0, 0.001, 40)
    fit = fit_zero_point(offset, np.full(40, 0.002), np.full(40, np.nan))
    assert fit.used.sum() >= 26
    assert not fit_zero_point(*stars(60)).capped


def test_too_many_that_disagree_are_no_zero_point() -> None:
    """Ten stars at one place and nine at nine others: the ten are not clipped to."""
    offset = np.concatenate([np.full(10, ZP), ZP + 0.2 + 0.1 * np.arange(9)])
    fit = fit_zero_point(offset, np.full(19, 0.01), np.full(19, np.nan))
    assert fit.capped
    assert fit.used.sum() == 13


def test_few_stars_or_one_colour_give_no_term() -> None:
    offset, error, colour = stars(12)
    assert fit_zero_point(offset, error, colour).colour_source == "none"
    offset, error, colour = stars(60)
    same = 0.7 + 0.1 * (colour - 0.8)
    fit = fit_zero_point(offset, error, same)
    assert (fit.colour_source, fit.colour_term) == ("none", 0.0)


def test_a_given_term_is_used_not_fitted() -> None:
    offset, error, colour = stars(8)
    fit = fit_zero_point(offset, error, colour, colour_term=TERM)
    assert (fit.colour_source, fit.colour_term) == ("given", TERM)
    assert fit.zp == pytest.approx(ZP, abs=0.03)


def test_stars_without_colour_count_only_without_a_term() -> None:
    offset, error, colour = stars(30)
    colour[:10] = np.nan
    fit = fit_zero_point(offset, error, colour)
    assert not fit.used[:10].any()
    assert np.isnan(fit.residual[:10]).all()
    flat = fit_zero_point(offset + TERM * np.nan_to_num(colour), error, np.full(30, np.nan))
    assert flat.used.sum() > 20


def test_nothing_to_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="no star"):
        fit_zero_point(np.array([np.nan]), np.array([0.01]), np.array([0.5]))
    with pytest.raises(ValueError, match="no star"):
        fit_zero_point(np.array([23.0]), np.array([0.01]), np.array([np.nan]), colour_term=0.1)


@settings(max_examples=40, deadline=None)
@given(
    shift=st.floats(-5, 5),
    n=st.integers(5, 40),
    seed=st.integers(0, 1000),
)
def test_a_shift_of_all_stars_shifts_the_zero_point(shift: float, n: int, seed: int) -> None:
    offset, error, colour = stars(n, seed)
    one, other = fit_zero_point(offset, error, colour), fit_zero_point(offset + shift, error, colour)
    assert other.zp - one.zp == pytest.approx(shift, abs=2e-3)
    assert (one.used == other.used).mean() > 0.9
