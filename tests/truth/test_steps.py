"""Widths of pulls in steps of magnitude: how much they tell where stars of a band share an error."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.truth.catalogue import _Step, independent
from tasks.truth.figure import robust, width_error_share


def test_stars_of_a_band_that_share_their_error_are_few():
    rng = np.random.default_rng(1)
    bands, stars, share = 6, 5, 0.9
    filter = np.repeat([f"band{k}" for k in range(bands)], stars)
    common = np.full(filter.size, share)
    number = independent(filter, common)
    assert bands < number < 0.5 * filter.size
    draws = (
        share * np.repeat(rng.normal(size=(20000, bands)), stars, axis=1)
        + np.sqrt(1 - share**2) * rng.normal(size=(20000, bands * stars))
    )  # fmt: skip
    seen = np.std(np.mean(np.square(draws), axis=1))
    assert seen == pytest.approx(np.sqrt(2.0 / number), rel=0.05)
    # The median's square root, of which the error is quoted, spreads as the mean's does, by its efficiency.
    widths = np.array([robust(row, 0.0) for row in draws[:4000]])
    assert np.std(np.log(widths)) == pytest.approx(width_error_share(number), rel=0.25)


def test_stars_that_share_nothing_count_each():
    filter = np.array(["g", "g", "r", "r"])
    assert independent(filter, np.zeros(4)) == pytest.approx(4.0)
    assert independent(filter, np.ones(4)) == pytest.approx(2.0)
    assert independent(np.empty(0, str), np.empty(0)) == 0.0


def test_a_step_is_judged_beyond_its_own_errors():
    few = _Step("M51", 14.0, 16.0, 28, 8.0, 2.3)
    assert 1.0 < few.beyond < 1.25
    many = few._replace(independent=400.0)
    assert many.beyond > 1.25
    narrow = many._replace(width=0.5)
    assert narrow.beyond < 0.8
    assert few._replace(width=1.1).beyond == 1.0
