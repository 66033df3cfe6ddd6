"""Growing masks: as scipy's dilation does it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tasks.core.masks import grown


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
