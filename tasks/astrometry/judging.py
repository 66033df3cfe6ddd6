"""A head set against the sky, and which of several is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from astropy.wcs import WCS

from models.frame import PlateSolution
from models.settings import ScampSettings
from tasks.astrometry.headers import frame_geometry, head_cards
from tasks.astrometry.matching import Match, Reference
from tasks.astrometry.plate import Verification, match_radius, verify
from tasks.astrometry.sources import Sources

__all__ = ["REFUSED", "Candidate", "Found", "Sight", "believable_rms", "best_of", "judge"]

REFUSED = "SCAMP's head refused"
_MAX_DET_FACTOR = 1.1
_COARSE_PX = 0.4
_STRAY_SIGMA = 4.0
_MUCH_BETTER = 0.8
"""SCAMP's head, or a frame's own distortion, is taken only where it predicts the stars that much better than our fit of
the season."""


@dataclass(frozen=True)
class Sight:
    """A frame's sources, the catalogue's stars at its own epoch, its shape and the plate solution it came with."""

    sources: Sources
    stars: Reference
    shape: tuple[int, int]
    solution: PlateSolution


@dataclass(frozen=True)
class Candidate:
    """A head that may be used: what the frame's stars say of it (arcsec), the number of parameters fitted an axis."""

    text: str
    wcs: WCS
    rms: float
    median_offset: float
    n_matched: int
    parameters: float
    doubt: str

    @property
    def prediction(self) -> float:
        """Expected rms for stars that were not fitted (Akaike's final prediction error), arcsec.

        A frame's own fit has ten parameters an axis and looks better on the stars it was fitted to than it is.
        """
        n, p = self.n_matched, self.parameters
        return self.rms * float(np.sqrt((n + p) / (n - p))) if n > p else float("inf")


@dataclass(frozen=True)
class Found:
    """The heads of one frame: its plate solution, our fit of the season, SCAMP's (or why there is none)."""

    plate: Candidate
    joint: Candidate | None = None
    scamp: Candidate | None = None
    no_scamp: str = ""

    def of(self, source: Literal["scamp", "joint", "plate"]) -> Candidate:
        """The head of this source, which must be there."""
        chosen = {"scamp": self.scamp, "joint": self.joint, "plate": self.plate}[source]
        assert chosen is not None
        return chosen


def best_of(found: Found) -> tuple[Literal["scamp", "joint", "plate"] | None, str]:
    """The head that is expected to place unseen stars best, and why it is not SCAMP's; None where none is good.

    Our fit of the season is kept where it is about as good as another (within a fifth): SCAMP's answer for one frame
    changes with every other frame of the season, and a frame's own distortion is fitted to few stars.
    """
    named: dict[Literal["scamp", "joint", "plate"], Candidate | None] = {
        "scamp": found.scamp, "joint": found.joint, "plate": found.plate
    }  # fmt: skip
    good = {source: head for source, head in named.items() if head is not None and not head.doubt}
    refused = found.no_scamp or (f"{REFUSED}: {found.scamp.doubt}" if found.scamp else "")
    if not good:
        return None, f"{refused}; plate solution: {found.plate.doubt}"
    expected = {source: head.prediction for source, head in good.items()}
    if "joint" in expected and expected.get("scamp", 0.0) > _MUCH_BETTER * expected["joint"]:
        expected.pop("scamp", None)
    together = [value for source, value in expected.items() if source != "plate"]
    if together and expected.get("plate", 0.0) > _MUCH_BETTER * min(together):
        expected.pop("plate", None)
    best = min(expected, key=lambda source: expected[source])
    if best == "scamp":
        return best, ""
    if "scamp" not in good:
        return best, refused
    kept = "our fit of the season" if best == "joint" else "the plate solution"
    scamp, ours = 1000 * good["scamp"].prediction, 1000 * good[best].prediction
    if scamp >= ours:
        return best, f"SCAMP's head is no better ({scamp:.0f} mas expected) than {kept} ({ours:.0f} mas)"
    return best, f"SCAMP's head ({scamp:.0f} mas expected) is not better by a fifth than {kept} ({ours:.0f} mas)"


def judge(text: str, sight: Sight, parameters: float, settings: ScampSettings) -> Candidate:
    """Look at the catalogue's stars through a head; stars above ``snr_high`` count where there are enough.

    Parameters
    ----------
    text
        The head.
    sight
        The frame's own sources, and the stars at its mid-exposure.
    parameters
        Fitted an axis, for `Candidate.prediction`; 0 for a head that was not fitted to these stars.

    Raises
    ------
    StageError
        If the head cannot be read.
    """
    wcs = WCS(head_cards(text), naxis=2)
    sources, stars = sight.sources, sight.stars
    radius = match_radius(settings.crossid_arcsec, sight.solution.pixel_scale)
    bright = sources.take(sources.snr > settings.snr_high)
    found = verify(wcs, bright, stars, sight.shape, radius)
    if len(found.match) < settings.min_matched:
        found = verify(wcs, sources.take(sources.snr > settings.snr_low), stars, sight.shape, radius)
    # Knots of a galaxy pair with Gaia stars in its arms, arcseconds off: they say nothing of the head.
    found = replace(found, match=_without_strays(found.match))
    return Candidate(
        text, wcs, found.match.rms, _median_offset(found), len(found.match), parameters,
        _doubt(wcs, found, sight, settings),
    )  # fmt: skip


def believable_rms(scale: float, settings: ScampSettings) -> float:
    """Largest rms of a head that is believed, arcsec: coarse pixels cannot do better than a part of them."""
    return max(settings.max_offset_arcsec, _COARSE_PX * scale)


def _without_strays(match: Match) -> Match:
    """Pairs within 4 standard deviations of the bulk (from the median: that of a Rayleigh distribution is 1.18)."""
    if not len(match):
        return match
    return match.take(match.separation <= _STRAY_SIGMA * float(np.median(match.separation)) / 1.1774)


def _median_offset(found: Verification) -> float:
    if not len(found.match):
        return float("nan")
    return float(np.hypot(np.median(found.match.dx), np.median(found.match.dy)))


def _doubt(wcs: WCS, found: Verification, sight: Sight, settings: ScampSettings) -> str:
    """Why a head cannot be trusted; empty if it can."""
    against, solution = sight.stars.text, sight.solution
    limit = believable_rms(solution.pixel_scale, settings)
    n = len(found.match)
    if n < settings.min_matched:
        return f"{n} stars matched, {settings.min_matched} are needed"
    if found.doubt:
        return found.doubt
    if found.match.rms > limit:
        return f"rms {found.match.rms:.2f} arcsec against {against}, at most {limit:.2f}"
    if (offset := _median_offset(found)) > limit / 2:
        return f"shifted by {offset:.2f} arcsec against {against}"
    _, _, found_scale, _, parity = frame_geometry(wcs, sight.shape)
    if parity != solution.parity:
        return "mirrored"
    factor = (found_scale / solution.pixel_scale) ** 2
    if not 1 / _MAX_DET_FACTOR < factor < _MAX_DET_FACTOR:
        return f"pixels {factor:.2f} times as large as the plate solution's"
    return ""
