"""Which filter: from what people type to the canonical name."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

from models.telescope import Telescope

__all__ = ["canonical_filter", "filter_in_name"]

_GREEK = {"α": "alpha", "β": "beta", "′": "'", "’": "'", "″": "''"}
_NOISE = re.compile(r"filter|filtre|band[e]?|ohp")
_ION = re.compile(r"^([ons])([23])(?=$|ohp|\d{3,4})")  # 'O3', 'S2': the ion's stage in Arabic figures
# A letter and a photometric system make a filter: Johnson-Cousins letters are capitals, Gunn-Sloan ones are not.
_CAPITAL_SYSTEM = re.compile(
    r"^(?:johnsoncousins|kroncousins|johnson|cousins|bessell?|kron)?([ubvri])(?:johnsoncousins|kroncousins|johnson|cousins|bessell?|kron|c|j)?$"
)
_SMALL_SYSTEM = re.compile(r"^(?:sloan|sdss|gunn)?([ugriz])(?:sloan|sdss|gunn|prime|p)?$")
_WIDTH = re.compile(r"(?<=[a-z])\d+(?:nm|a)?$")
# Where a file name names the filter: after the program's sequence number (-0003r60, -0017G, -001_Ha,
# -0002_OIII_300s), before it (Flat_R-001), or at the end (M67_60s_R, M67_R_60s).
_IN_NAME = (
    re.compile(r"[-_ ]\d{2,}[-_ ]?([A-Za-z][A-Za-z']*(?:_[A-Za-z]+)?)(?:[-_ ]?\d+s?)?$"),
    re.compile(r"[-_ ]([A-Za-z][A-Za-z0-9']*)_?[-_ ]\d{2,}$"),
    re.compile(r"[-_ ]([A-Za-z][A-Za-z0-9']*)$"),
    re.compile(r"[-_ ]([A-Za-z][A-Za-z']*)[-_ ]\d+s$"),
)


def _plain(word: str) -> str:
    for greek, latin in _GREEK.items():
        word = word.replace(greek, latin)
    return unicodedata.normalize("NFKD", word).encode("ascii", "ignore").decode()


def _fold(word: str) -> str:
    kept = re.sub(r"[^a-z0-9']", "", _plain(word).casefold())
    kept = _ION.sub(lambda found: found[1] + "i" * int(found[2]), kept)
    return _NOISE.sub("", kept).replace("''", "'").replace("'", "prime") or kept


def canonical_filter(word: str, telescope: Telescope) -> str | None:
    """The canonical name of a filter as somebody spelled it; None if no band of the profile is meant for sure.

    First the exact spellings (``R`` and ``r`` are two filters), then the spellings whatever their case and
    separators where only one band fits, then a letter with the name of its photometric system, then the same
    without a trailing wavelength or width (``Ha 7nm``).
    """
    word = word.strip()
    for band in telescope.bands:
        if word == band.name or word in band.spellings:
            return band.name
    folded = _fold(word)
    if not folded:
        return None
    for attempt in dict.fromkeys((folded, _WIDTH.sub("", folded))):
        fits = {band.name for band in telescope.bands if attempt in {_fold(s) for s in (band.name, *band.spellings)}}
        if len(fits) == 1:
            return fits.pop()
        names = {band.name for band in telescope.bands}
        capital, small = _CAPITAL_SYSTEM.match(attempt), _SMALL_SYSTEM.match(attempt)
        if len(attempt) > 1:  # a bare letter has no system to go by
            if capital and capital[1].upper() in names:
                return capital[1].upper()
            if small and small[1] in names:
                return small[1]
    return None


def filter_in_name(path: str, telescope: Telescope) -> str | None:
    """The filter that a file name ends with, as the acquisition program writes it; None if it names none.

    ``M67_-0003r60.fits`` and ``Coma Cote-0017G.fits`` name one after the sequence number, ``M1-0002_Ha.fits``
    after an underscore, ``Flat_R-001.fit`` before the number; an exposure time may follow.
    """
    stem = PurePosixPath(path).name
    stem = re.sub(r"\.[A-Za-z]{2,4}(?:\.gz)?$", "", stem, flags=re.IGNORECASE)
    for pattern in _IN_NAME:
        match = pattern.search(stem)
        if match and (name := canonical_filter(match[1], telescope)):
            return name
    return None
