"""Figures of merit: errors of what is measured, the worst of many, several campaigns put together."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.truth import Figure, over_seeds
from tasks.truth.figure import median_error, robust, weighted_mean, width_error, worst_beyond


def test_errors_are_those_of_many_draws():
    draws = np.random.default_rng(3).normal(0.0, 2.0, (400, 150))
    assert np.mean([median_error(row) for row in draws]) == pytest.approx(np.std(np.median(draws, axis=1)), rel=0.1)
    widths = [robust(row, 0.0) for row in draws]
    assert np.mean([width_error(row) for row in draws]) == pytest.approx(np.std(widths), rel=0.1)
    mean, error = weighted_mean([(1.0, 0.1), (3.0, 0.2)])
    assert (mean, error) == (pytest.approx(1.4), pytest.approx(0.1 * np.sqrt(0.8)))


def test_the_worst_is_what_its_own_error_does_not_explain():
    values = {"noisy": (-12.0, 8.0), "sure": (3.0, 0.2), "good": (0.5, 0.2)}
    assert worst_beyond(values) == ("sure", pytest.approx(2.6))
    assert worst_beyond({"noisy": (-12.0, 8.0), "good": (0.5, 0.4)}) == ("noisy", 0.0)


def test_of_several_campaigns_the_worst_stands():
    def seen(name: str, *values: float, **more: object) -> float:
        campaigns = [[Figure(name=name, value=value, unit="", **more)] for value in values]  # type: ignore[arg-type]
        (figure,) = over_seeds(campaigns)
        assert figure.detail.startswith("seeds ")
        return figure.value

    assert seen("off", 1.0, -3.0, 2.0) == -3.0
    assert seen("solved", 99.0, 97.0, better="above", goal=98.0) == 97.0
    assert seen("width", 0.99, 0.85, 1.05, better="between", goal=1.1, least=0.9) == 0.85
    assert seen("width", 0.99, 0.85, 1.20, better="between", bound=1.1, least=0.9) == 1.20
