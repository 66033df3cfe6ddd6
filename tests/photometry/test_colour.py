"""Colour terms from many frames."""

from __future__ import annotations

import numpy as np
import pytest

from models.frame import CalibratedFrame, ZeroPoint
from tasks.photometry import gather_colour_terms


class _Frame:
    """As much of a calibrated frame as the function looks at."""

    def __init__(self, filter: str, zero_point: ZeroPoint) -> None:
        self.raw = type("Raw", (), {"filter": filter})()
        self.zero_point = zero_point


def frame(term: float | None, filter: str = "g", rms: float = 0.02, n: int = 60, status: str = "OK") -> CalibratedFrame:
    point = ZeroPoint(status=status, zp=23.0, zp_rms=rms, n_stars=n, colour_term=term)
    return _Frame(filter, point)  # type: ignore[return-value]


def test_the_mean_is_closer_to_the_truth_than_a_frame():
    rng = np.random.default_rng(3)
    (term,) = gather_colour_terms([frame(0.08 + rng.normal(0, 0.02)) for _ in range(20)])
    assert term.filter == "g"
    assert term.n_frames >= 15
    assert term.term == pytest.approx(0.08, abs=0.0101)
    assert 0.002 < term.error < 0.008


def test_a_frame_that_went_wrong_does_not_count():
    frames = [frame(0.08), frame(0.082), frame(0.079), frame(0.081), frame(0.9)]
    (term,) = gather_colour_terms(frames)
    assert term.term == pytest.approx(0.08)
    assert term.n_frames == 4


def test_a_poor_frame_counts_less():
    (term,) = gather_colour_terms([frame(0.10, rms=0.01)] * 3 + [frame(0.20, rms=0.1)] * 2)
    assert term.term == pytest.approx(0.10)


def test_few_frames_and_frames_without_a_term_give_none():
    assert gather_colour_terms([frame(0.08), frame(0.08)]) == ()
    assert gather_colour_terms([frame(0.0)] * 5 + [frame(None)] * 5) == ()
    assert gather_colour_terms([frame(0.08, status="FEW_STARS")] * 5) == ()
