"""Growing masks: as scipy's dilation does it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from tasks.core.masks import grown, highest, opened


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_it_is_scipys_dilation(times: int, diagonal: bool) -> None:
    mask = np.random.default_rng(3).random((37, 52)) > 0.97
    mask[0, 0] = mask[-1, 20] = True
    before = mask.copy()
    structure = ndimage.generate_binary_structure(2, 2 if diagonal else 1)
    assert np.array_equal(
        grown(mask, times, diagonal=diagonal), ndimage.binary_dilation(mask, structure, iterations=times)
    )
    assert np.array_equal(mask, before)


@pytest.mark.parametrize("reach", [1, 2, 3, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_the_highest_value_around_is_what_scipy_says(reach: int, dtype: type[np.number[Any]]) -> None:
    image = np.random.default_rng(reach).integers(0, 1000, (23, 41)).astype(dtype)
    found = highest(image, reach)
    assert np.array_equal(found, ndimage.maximum_filter(image, size=2 * reach + 1))
    assert found.dtype == dtype


def test_an_opening_is_scipys() -> None:
    mask = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(41, 33)), 1.0) > 0.05
    mask[:3] = mask[:, -2:] = True
    found = opened(mask)
    assert np.array_equal(found, ndimage.binary_opening(mask))
    assert 0 < found.sum() < mask.sum()
