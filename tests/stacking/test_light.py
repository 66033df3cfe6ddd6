"""Faint stars of a stack against bright ones, by the mean of the same frames."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.stacking.light import Beside, linearity
from tests.stacking.sky import moffat

SIGMA = 10.0


def images(bright_loss, n=100):
    """The mean, and a stack that dims stars of S/N above 250 by so many magnitudes and has some noise of its own."""
    rng = np.random.default_rng(2)
    mean, stack = (rng.normal(0, scale * SIGMA, (420, 420)) for scale in (1.0, 0.3))
    stack += mean
    noise = SIGMA * np.sqrt(np.pi) * 1.25 * 3.5
    places = [(30 + 40 * i, 30 + 40 * j) for i in range(10) for j in range(10)][:n]
    for (x, y), snr in zip(places, rng.permutation(np.geomspace(25, 2000, 100)), strict=False):
        star = snr * noise * moffat((29, 29), 14 + rng.uniform(-0.5, 0.5), 14, 3.5)
        box = slice(y - 14, y + 15), slice(x - 14, x + 15)
        mean[box] += star
        stack[box] += star * 10 ** (-0.4 * (bright_loss if snr > 250 else 0.0))
    return stack.astype(np.float32), mean.astype(np.float32), np.zeros(mean.shape, bool)


@pytest.mark.parametrize("loss", [0.0, 0.025, -0.025])
def test_a_loss_of_bright_stars_is_seen_and_flagged(loss):
    found = linearity(Beside(*images(loss)), 3.5, 1e9)
    assert found.magnitude == pytest.approx(-loss, abs=max(3 * found.error, 1e-4))
    assert found.error < 0.004
    assert found.bent == (abs(loss) > 0.01)
    assert found.n_bright > 20
    assert found.n_faint > 10


def test_few_stars_tell_nothing():
    assert linearity(Beside(*images(0.02, n=8)), 3.5, 1e9) is None
