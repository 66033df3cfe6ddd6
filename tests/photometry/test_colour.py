"""Colour terms from many frames."""

from __future__ import annotations

import numpy as np
import pytest

from models.frame import CalibratedFrame, ColourFit, ColourTerm, ZeroPoint
from models.telescope import load_telescope
from tasks.photometry import catalogue_leverage, fit_colour, gather_colour_terms, natural_equation, vega_system


class _Frame:
    """As much of a calibrated frame as the function looks at."""

    def __init__(self, filter: str, zero_point: ZeroPoint, ra: float, night: str) -> None:
        self.raw = type("Raw", (), {"filter": filter, "night": night})()
        self.solved = type("Solved", (), {"solution": type("Solution", (), {"ra": ra, "dec": 47.2})()})()
        self.zero_point = zero_point


def frame(
    term: float | None,
    filter: str = "g",
    photon: float = 0.02,
    star: float = 0.0,
    status: str = "OK",
    ra: float = 202.47,
    night: str = "20250317",
) -> CalibratedFrame:
    own = None if term is None else ColourFit(term=term, photon_error=photon, star_error=star)
    point = ZeroPoint(status=status, zp=23.0, own_colour=own)
    return _Frame(filter, point, ra, night)  # type: ignore[return-value]


def test_the_error_holds_and_falls_with_the_number_of_frames():
    rng = np.random.default_rng(3)
    found = [gather_colour_terms([frame(0.08 + rng.normal(0, 0.02)) for _ in range(20)])[0] for _ in range(60)]
    pulls = np.array([(term.term - 0.08) / term.error for term in found])
    assert 0.6 < pulls.std() < 1.2
    assert all(0.004 < term.error < 0.009 for term in found)


def test_the_same_stars_on_every_frame_do_not_average_out():
    """Errors of the stars themselves are one for all frames of a field; another field's are its own."""
    rng = np.random.default_rng(4)
    pulls = []
    for _ in range(80):
        here, there = 0.08 + rng.normal(0, 0.01, 2)
        frames = [frame(here + rng.normal(0, 0.003), photon=0.003, star=0.01) for _ in range(20)]
        frames += [frame(there + rng.normal(0, 0.003), photon=0.003, star=0.01, ra=132.8) for _ in range(20)]
        (term,) = gather_colour_terms(frames)
        pulls.append((term.term - 0.08) / term.error)
        assert term.error > 0.006
    assert 0.6 < np.std(pulls) < 1.3


def test_a_frame_that_went_wrong_does_not_count():
    frames = [frame(0.08, photon=0.002), frame(0.082, photon=0.002), frame(0.079, photon=0.002)]
    (term,) = gather_colour_terms([*frames, frame(0.081, photon=0.002), frame(0.9, photon=0.002)])
    assert term.term == pytest.approx(0.08, abs=0.001)
    assert term.n_frames == 4


def test_a_poor_frame_counts_less():
    (term,) = gather_colour_terms([frame(0.10, photon=0.01)] * 3 + [frame(0.13, photon=0.1)] * 2)
    assert term.term == pytest.approx(0.10, abs=0.002)


def test_few_frames_and_frames_without_a_slope_give_none():
    assert gather_colour_terms([frame(0.08), frame(0.08)]) == ()
    assert gather_colour_terms([frame(None)] * 5) == ()
    assert gather_colour_terms([frame(0.08, status="FEW_STARS")] * 5) == ()


def test_it_says_on_which_nights_it_rests():
    nights = ("20250317", "20250317", "20250401", "20241230")
    (term,) = gather_colour_terms([frame(0.08, night=night) for night in nights])
    assert (term.date, term.n_nights, term.n_frames) == ("2025-04-01", 3, 4)


def test_a_changed_frame_hardly_ever_changes_the_term():
    rng = np.random.default_rng(5)
    values = 0.08 + rng.normal(0, 0.02, 20)
    first = gather_colour_terms([frame(value) for value in values])
    same = 0
    for seed in range(20):
        moved = values.copy()
        moved[seed] += np.random.default_rng(seed).normal(0, 0.002)  # a tenth of its error
        same += gather_colour_terms([frame(value) for value in moved]) == first
    assert same >= 18


def test_a_frames_own_slope_and_its_two_errors():
    rng = np.random.default_rng(6)
    colour = rng.uniform(0.2, 1.4, 150)
    pulls = []
    for _ in range(60):
        offset = 23.3 - 0.05 * colour + rng.normal(0, 0.01, 150) + rng.normal(0, 0.02, 150)
        fit = fit_colour(offset, np.full(150, 0.01), np.full(150, 0.02), colour)
        assert fit is not None
        assert fit.star_error == pytest.approx(2 * fit.photon_error, rel=0.4)
        pulls.append((fit.term - 0.05) / np.hypot(fit.photon_error, fit.star_error))
    assert 0.75 < np.std(pulls) < 1.3
    assert fit_colour(offset[:14], np.full(14, 0.01), np.full(14, 0.02), colour[:14]) is None


def test_terms_go_into_the_profile_where_it_has_none():
    telescope = load_telescope("T120")
    term = ColourTerm(filter="g", term=0.044, error=0.003, n_frames=9, date="2025-03-17")
    with_it = telescope.with_colour_terms([term])
    assert (with_it.band("g").colour_term, with_it.band("g").colour_term_error) == (0.044, 0.003)
    assert with_it.band("r") == telescope.band("r")
    other = with_it.with_colour_terms([term.model_copy(update={"term": 0.1})])
    assert other.band("g").colour_term == 0.044


def test_vega_magnitudes_are_those_of_tonry_et_al():
    """Their table 6, quadratic, for a star of g = 16.2, r = 15.5; whatever the filter's own colour term."""
    telescope = load_telescope("T120")
    g, r = 16.2, 15.5
    x = g - r
    tonry = {
        "B": g + 0.212 + 0.556 * x + 0.034 * x**2,
        "V": r + 0.005 + 0.462 * x + 0.013 * x**2,
        "R": r - 0.137 - 0.108 * x - 0.029 * x**2,
    }
    for name, expected in tonry.items():
        band = telescope.band(name)
        term = 0.31
        natural = {"g": g, "r": r}[band.ps1 or ""] + term * x + band.colour_curvature * x**2
        vega = vega_system(band, 22.0, term, "flux")
        assert vega is not None
        minus_log_flux = natural - 22.0
        assert minus_log_flux + vega.zp + vega.colour_term * x == pytest.approx(expected, abs=1e-9)
        assert len(vega.equation) <= 65
    assert vega_system(telescope.band("g"), 22.0, 0.05, "flux") is None
    assert natural_equation(telescope.band("B"), 0.611) == "m = g + 0.611 (g-r) + 0.034 (g-r)^2, PS1"
    assert natural_equation(telescope.band("i"), -0.02) == "m = i - 0.02 (g-i), PS1"


def test_an_error_of_the_catalogue_counts_as_often_as_its_magnitude_does():
    rng = np.random.default_rng(7)
    telescope = load_telescope("T120")
    g, r, i = rng.normal(0, 0.01, (3, 200_000))
    for name, term, predicted in (
        ("B", 0.6, g + 0.6 * (g - r)),
        ("V", -0.57, g - 0.57 * (g - r)),
        ("r", -0.03, r - 0.03 * (g - r)),
        ("i", 0.02, i + 0.02 * (g - i)),
    ):
        assert 0.01 * catalogue_leverage(telescope.band(name), term) == pytest.approx(predicted.std(), rel=0.01)
