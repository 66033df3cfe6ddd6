"""Trails: found whatever their direction, and nothing else taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.calibration.trails import find_trails

SIZE, SKY, GAIN = 512, 300.0, 1.5
Y, X = np.mgrid[:SIZE, :SIZE].astype(np.float32)
NOTHING = np.zeros((SIZE, SIZE), bool)


def noisy(image: np.ndarray, seed: int = 7) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.poisson(image * GAIN) / GAIN + rng.normal(0, 5.3, image.shape)).astype(np.float32)


def stars(number: int, seed: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.full((SIZE, SIZE), SKY)
    for x, y, flux in zip(
        rng.uniform(0, SIZE, number), rng.uniform(0, SIZE, number), 10 ** rng.uniform(2, 5, number), strict=True
    ):
        box = np.s_[max(0, int(y) - 40) : int(y) + 40, max(0, int(x) - 40) : int(x) + 40]
        image[box] += flux / 15 * (1 + ((X[box] - x) ** 2 + (Y[box] - y) ** 2) / 10) ** -3
    return image


def distance(angle_deg: float, x: float, y: float) -> np.ndarray:
    angle = np.deg2rad(angle_deg)
    return np.abs((X - x) * np.sin(angle) - (Y - y) * np.cos(angle))


@pytest.mark.parametrize("angle", [0.0, 17.3, 45.0, 90.0, 134.4, 179.5])
@pytest.mark.parametrize("electrons", [600, 6000])
def test_finds_a_trail_among_stars(angle: float, electrons: float) -> None:
    away = distance(angle, 260, 230)
    image = stars(500) + electrons / GAIN / 3.4 * np.exp(-(away**2) / 3.7)
    mask, lines = find_trails(noisy(image), NOTHING, 5.0)
    assert len(lines) == 1
    assert mask[away < 2.5].mean() > 0.97
    assert not mask[away > 13].any()


def test_two_trails() -> None:
    image = stars(300)
    for angle, x in ((30.0, 250), (100.0, 150)):
        image += 400 * np.exp(-(distance(angle, x, 256) ** 2) / 3.7)
    assert len(find_trails(noisy(image), NOTHING, 5.0)[1]) == 2


@pytest.mark.parametrize("number", [0, 300, 3000])
def test_star_fields_have_none(number: int) -> None:
    for seed in range(3):
        assert find_trails(noisy(stars(number, seed), seed), NOTHING, 5.0)[1] == ()


def test_edge_on_galaxy_bright_star_and_columns_are_no_trails() -> None:
    turned = np.deg2rad(30)
    u, v = (
        (X - 256) * np.cos(turned) + (Y - 256) * np.sin(turned),
        (Y - 256) * np.cos(turned) - (X - 256) * np.sin(turned),
    )
    galaxy = 1500 * np.exp(-np.abs(u) / 60 - np.abs(v) / 6)
    spikes = 3000 * (
        np.exp(-np.abs(X - 100) / 60 - np.abs(Y - 380) / 1.5) + np.exp(-np.abs(Y - 380) / 60 - np.abs(X - 100) / 1.5)
    )
    image = stars(300) + galaxy + spikes
    image[:, 400] += 300
    image[120, :] += 300
    saturated = NOTHING.copy()
    saturated[:, 330:333] = True
    image[saturated] = 60000
    assert find_trails(noisy(image), saturated, 5.0)[1] == ()


def test_nothing_to_look_at() -> None:
    assert find_trails(noisy(stars(10)), ~NOTHING, 5.0)[1] == ()
    assert find_trails(np.zeros((40, 30), np.float32), NOTHING[:40, :30], 5.0)[1] == ()
