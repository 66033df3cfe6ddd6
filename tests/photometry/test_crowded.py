"""Crowded photometry on a cluster like a globular one, made with the simulator's own stars."""

from __future__ import annotations

import pickle
import time
from typing import NamedTuple

import numpy as np
import pytest
from astropy.table import Table
from scipy.ndimage import convolve
from scipy.spatial import cKDTree

from tasks.core.errors import StageError
from tasks.photometry import CrowdedFlag, CrowdedOptions, crowded_photometry
from tasks.photometry.crowded_scene import Image, noise_factor, psf_of
from tasks.simulation.psf import Psf, draw_stars, kernel

FWHM_PX = 2.5 / 0.77
GAIN = 2.0


class Cluster(NamedTuple):
    image: np.ndarray
    weight: np.ndarray
    psf: np.ndarray
    x: np.ndarray
    y: np.ndarray
    mag: np.ndarray
    from_centre: np.ndarray


def stamp(fwhm: float = FWHM_PX, beta: float = 3.2) -> np.ndarray:
    whole = kernel(Psf(fwhm_px=fwhm, beta=beta, e1=0.02, e2=-0.01, radial=0.0, axis=(1.0, 1.0)))
    half = whole.shape[0] // 2
    cut = whole[half - 12 : half + 13, half - 12 : half + 13]
    return np.asarray(cut / cut.sum())


def cluster(seed: int, size: int = 360, n: int = 3000, core: float = 90.0) -> Cluster:
    """A Plummer sphere of stars of 12.5 to 24 mag on a stack of depth 22, whose pixels are correlated."""
    rng = np.random.default_rng(seed)
    share, angle = rng.uniform(0, 1, n), rng.uniform(0, 2 * np.pi, n)
    radius = core * np.sqrt(share / (1 - share))
    middle = (size - 1) / 2
    x, y = middle + radius * np.cos(angle), middle + radius * np.sin(angle)
    grid = np.linspace(12.5, 24.0, 500)
    number = np.cumsum(np.where(grid < 18, 10 ** (0.30 * (grid - 18)), 1.6 * 10 ** (0.22 * (grid - 18))))
    mag = np.interp(rng.uniform(0, 1, n), number / number[-1], grid)
    image = np.zeros((size, size))
    profile = Psf(fwhm_px=FWHM_PX, beta=3.2, e1=0.02, e2=-0.01, radial=0.0, axis=(middle, middle))
    draw_stars(image, x + 1, y + 1, 10 ** (0.4 * (30 - mag)), profile, 1.0)
    sigma = 10 ** (0.4 * (30 - 22.0)) / 5 / np.sqrt(np.pi * FWHM_PX**2) / 2
    noise = rng.normal(0, 1, (size, size)) * np.sqrt(sigma**2 + np.maximum(image, 0) / GAIN)
    smear = np.array([[0.06, 0.25, 0.06], [0.25, 1.0, 0.25], [0.06, 0.25, 0.06]])
    image += convolve(noise, smear / np.sqrt(np.square(smear).sum()))
    weight = np.full((size, size), sigma**-2)
    return Cluster(image, weight, stamp(), x, y, mag, np.hypot(x - middle, y - middle))


def matched(table: Table, truth: Cluster) -> np.ndarray:
    """Number of the true star of each found one (the brightest within 1.2 px, each once); -1: none."""
    found = np.full(len(table), -1)
    taken: set[int] = set()
    near = cKDTree(np.column_stack([truth.x, truth.y])).query_ball_point(np.column_stack([table["x"], table["y"]]), 1.2)
    for i, stars in enumerate(near):
        free = [j for j in stars if j not in taken]
        if free:
            found[i] = free[int(np.argmin(truth.mag[free]))]
            taken.add(int(found[i]))
    return found


def mad(values: np.ndarray) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def test_core_of_a_cluster() -> None:
    truth = cluster(1, size=200, n=1500)
    table = crowded_photometry(truth.image, truth.weight, truth.psf, gain=GAIN, options=CrowdedOptions(rounds=3))
    which = matched(table, truth)
    assert np.mean(which < 0) < 0.06
    wanted = np.flatnonzero((truth.mag < 18.5) & (truth.from_centre < 90))
    assert np.isin(wanted, which).mean() > 0.9
    chosen = (which >= 0) & np.isin(which, wanted) & (truth.mag[which] > 15.5)
    off = np.asarray(table["mag"])[chosen] - truth.mag[which[chosen]]
    assert np.count_nonzero(chosen) > 15
    assert mad(off) < 0.035
    assert abs(np.median(off)) < 0.012
    assert 0.6 < mad(off / np.asarray(table["mag_err"])[chosen]) < 1.6
    assert 1.7 < table.meta["noise_factor"] < 4.5  # the pixels' correlation alone makes 2
    assert np.all(np.diff(table["flux"]) <= 0)


def lone(mag: float, positions: list[tuple[float, float]], seed: int = 2) -> Cluster:
    base = cluster(seed, size=96, n=0)
    image = base.image.copy()
    x, y = np.array(positions).T
    profile = Psf(fwhm_px=FWHM_PX, beta=3.2, e1=0.02, e2=-0.01, radial=0.0, axis=(1.0, 1.0))
    draw_stars(image, x + 1, y + 1, np.full(x.size, 10 ** (0.4 * (30 - mag))), profile, 1.0)
    return base._replace(image=image, x=x, y=y, mag=np.full(x.size, mag))


def test_given_stars_keep_their_rows_and_their_places() -> None:
    positions = [(30.3, 40.2), (33.5, 42.0), (60.8, 60.1), (300.0, 10.0)]
    truth = lone(17.0, positions)
    table = crowded_photometry(truth.image, truth.weight, truth.psf, x=truth.x, y=truth.y, fixed=True, gain=GAIN)
    assert len(table) == 4
    assert np.asarray(table["x"]) == pytest.approx(truth.x)
    assert np.asarray(table["mag"])[:3] == pytest.approx(17.0, abs=0.012)
    assert list(table["n_group"][:3]) == [2, 2, 1]
    assert table["flags"][3] & CrowdedFlag.NOT_FITTED
    assert np.isnan(table["flux"][3])
    moved = crowded_photometry(
        truth.image, truth.weight, truth.psf, x=truth.x[:3] + 0.4, y=truth.y[:3] - 0.3, gain=GAIN
    )
    assert np.hypot(moved["x"] - truth.x[:3], moved["y"] - truth.y[:3]).max() < 0.05
    assert np.asarray(moved["mag"]) == pytest.approx(17.0, abs=0.012)


def test_groups_are_fitted_with_the_psf_of_this_call() -> None:
    truth = lone(16.0, [(40.0, 40.0), (44.0, 40.0)])
    for psf, close in ((stamp(1.4 * FWHM_PX), False), (truth.psf, True), (stamp(0.7 * FWHM_PX), False)):
        table = crowded_photometry(truth.image, truth.weight, psf, x=truth.x, y=truth.y)
        assert list(table["n_group"]) == [2, 2]
        assert (np.abs(np.asarray(table["mag"]) - 16.0).max() < 0.02) == close


def test_flux_is_all_of_the_light_on_any_scale_of_the_weight() -> None:
    truth = lone(16.0, [(48.2, 47.7)])
    one = crowded_photometry(truth.image + 500.0, truth.weight, 7.0 * truth.psf)
    other = crowded_photometry(truth.image, 1e-4 * truth.weight, truth.psf)
    for table in (one, other):
        assert len(table) >= 1
        assert table["mag"][0] == pytest.approx(16.0, abs=0.008)
    assert other["flux_err"][0] == pytest.approx(one["flux_err"][0], rel=0.25)
    assert one.meta["stamp_share"] < 0.9995


def test_saturated_core_is_measured_on_its_wings_and_flagged() -> None:
    truth = lone(13.0, [(48.2, 47.7), (59.0, 47.7)])
    ceiling = 0.5 * truth.image.max()
    flat = np.minimum(truth.image, ceiling)
    table = crowded_photometry(flat, truth.weight, truth.psf, x=truth.x, y=truth.y, saturation=0.9 * ceiling, gain=GAIN)
    assert all(table["flags"] & CrowdedFlag.SATURATED)
    assert np.asarray(table["mag"]) == pytest.approx(13.0, abs=0.05)


def test_no_star_and_no_data() -> None:
    empty = cluster(4, size=96, n=0)
    table = crowded_photometry(empty.image, empty.weight, empty.psf)
    assert len(table) == 0
    assert "mag_err" in table.colnames
    hole = lone(16.0, [(20.0, 48.0), (70.0, 48.0)])
    weight = hole.weight.copy()
    weight[:, :40] = 0.0
    found = crowded_photometry(np.where(weight > 0, hole.image, np.nan), weight, hole.psf, gain=GAIN)
    assert len(found) == 1
    assert found["x"][0] == pytest.approx(70.0, abs=0.05)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weight": np.zeros((96, 96))}, "no pixel"),
        ({"weight": np.ones((90, 96))}, "do not fit"),
        ({"psf": np.zeros((25, 25))}, "no PSF"),
        ({"psf": np.ones((24, 24))}, "no PSF"),
        ({"psf": np.roll(stamp(), 5, axis=0)}, "not centred"),
        ({"x": np.array([3.0])}, "both"),
        ({"fixed": True}, "both"),
        ({"x": np.array([np.nan]), "y": np.array([3.0])}, "no positions"),
    ],
)
def test_wrong_input_is_a_stage_error(change: dict[str, object], reason: str) -> None:
    good: dict[str, object] = {"data": np.zeros((96, 96)), "weight": np.ones((96, 96)), "psf": stamp()}
    with pytest.raises(StageError, match=reason) as caught:
        crowded_photometry(**{**good, **change})  # type: ignore[arg-type]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.slow
def test_core_of_a_globular_cluster_to_a_fortieth_of_a_magnitude() -> None:
    """Four clusters: MAD at 16-18 mag within the core radius <= 0.025 mag, pulls 0.8-1.25."""
    off, pull = [], []
    for seed in (4, 5, 6, 7):
        truth = cluster(seed)
        table = crowded_photometry(truth.image, truth.weight, truth.psf, gain=GAIN)
        which = matched(table, truth)
        mag = truth.mag[which]
        chosen = (which >= 0) & (mag > 16) & (mag < 18) & (truth.from_centre[which] < 90)
        off.append(np.asarray(table["mag"])[chosen] - mag[chosen])
        pull.append(off[-1] / np.asarray(table["mag_err"])[chosen])
    assert mad(np.concatenate(off)) <= 0.025
    assert abs(np.median(np.concatenate(off))) < 0.01
    assert 0.7 < mad(np.concatenate(pull)) < 1.25


@pytest.mark.slow
def test_three_thousand_stars_in_minutes() -> None:
    truth = cluster(9, size=1000, n=24000, core=250.0)
    start = time.process_time()
    table = crowded_photometry(truth.image, truth.weight, truth.psf, gain=GAIN)
    assert len(table) > 3000
    assert max(table["n_group"]) <= CrowdedOptions().max_group
    assert time.process_time() - start < 600


def test_noise_of_most_places_is_not_that_of_the_few_that_bright_stars_leave() -> None:
    rng = np.random.default_rng(7)
    options = CrowdedOptions(noise_share=0.683)
    psf = psf_of(stamp(), options)
    image = Image(np.zeros((160, 160)), np.zeros((160, 160), bool), np.full((160, 160), 4.0))
    residual = rng.normal(0, 2.0 * np.where(np.arange(160) < 80, 1.0, 3.0)[None, :], (160, 160))
    _, share = noise_factor(residual, image, psf, options)
    _, squares = noise_factor(residual, image, psf, CrowdedOptions())
    assert np.median(share[40:120, 20:40]) == pytest.approx(1.0, rel=0.12)
    assert np.median(share[40:120, 120:140]) == pytest.approx(3.0, rel=0.12)
    assert np.median(share / squares) == pytest.approx(1.0, rel=0.08)
    residual[::40, ::40] += 400.0
    _, share = noise_factor(residual, image, psf, options)
    _, squares = noise_factor(residual, image, psf, CrowdedOptions())
    assert np.median(squares[40:120, 20:40]) > 2.0
    assert np.median(share[40:120, 20:40]) < 1.4
