"""Which head of a frame is kept, and what is said of SCAMP's."""

from __future__ import annotations

import pytest
from astropy.wcs import WCS

from tasks.astrometry.judging import Candidate, Found, best_of

SKY = WCS(naxis=2)


def head(mas: float, doubt: str = "", n_matched: int = 1000, parameters: float = 3) -> Candidate:
    return Candidate("", SKY, mas / 1000, mas / 5000, n_matched, parameters, doubt)


def test_scamp_is_taken_where_it_is_better_by_more_than_a_fifth():
    assert best_of(Found(plate=head(60), joint=head(50), scamp=head(39))) == ("scamp", "")
    assert best_of(Found(plate=head(60), scamp=head(59))) == ("scamp", "")


@pytest.mark.parametrize(
    ("scamp", "said"),
    [
        (head(45), "SCAMP's head (45 mas expected) is not better by a fifth than our fit of the season (50 mas)"),
        (head(80), "SCAMP's head is no better (80 mas expected) than our fit of the season (50 mas)"),
        (head(5, doubt="mirrored"), "SCAMP's head refused: mirrored"),
    ],
)
def test_our_fit_of_the_season_stays_where_it_is_about_as_good(scamp: Candidate, said: str):
    assert best_of(Found(plate=head(60), joint=head(50), scamp=scamp)) == ("joint", said)


def test_the_plate_solution_is_taken_where_a_fit_of_all_frames_does_not_suit_this_one():
    source, said = best_of(Found(plate=head(30), joint=head(50), scamp=head(55)))
    assert source == "plate"
    assert said == "SCAMP's head is no better (55 mas expected) than the plate solution (30 mas)"
    assert best_of(Found(plate=head(45), joint=head(50), no_scamp="SCAMP failed: killed"))[0] == "joint"


def test_few_stars_do_not_bear_a_fit_of_many_terms():
    plate = head(30, n_matched=14, parameters=10)
    assert plate.prediction == pytest.approx(0.030 * (24 / 4) ** 0.5)
    assert best_of(Found(plate=plate, joint=head(50, n_matched=14), no_scamp="SCAMP failed: killed"))[0] == "joint"
    assert head(30, n_matched=10, parameters=10).prediction == float("inf")


def test_no_good_head_says_what_is_wrong_with_each():
    found = Found(plate=head(900, doubt="2 stars matched, 10 are needed"), scamp=head(700, doubt="mirrored"))
    assert best_of(found) == (
        None,
        "SCAMP's head refused: mirrored; plate solution: 2 stars matched, 10 are needed",
    )
