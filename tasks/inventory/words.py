"""The words that observers use for what a frame is, in French and English."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

__all__ = ["Meaning", "Words", "imagetyp_meaning", "read_words", "says_a_name"]

Meaning = Literal["bias", "dark", "flat", "light", "master", "none"]

_CALIBRATION: dict[str, tuple[str, ...]] = {
    "flat": ("flat", "flats", "flatfield", "ff", "plu", "plage", "plages", "skyflat", "skyflats", "domeflat",
             "domeflats", "twiflat", "twilightflat", "uniforme", "plat", "plats", "dome", "ecran", "twilight",
             "crepuscule", "cielplat", "champplat"),
    "bias": ("bias", "biases", "biais", "offset", "offsets", "zero", "zeros", "precharge"),
    "dark": ("dark", "darks", "noir", "noirs", "obscurite", "thermique", "thermiques", "darkflat", "flatdark"),
}  # fmt: skip
# Glued to a filter as in 'flatR', 'FlatHa', 'biasr'; with other letters they are other words ('biased').
_GLUED = {
    "flat": re.compile(
        r"flats?(?:[ubvrigz]|ha|halpha|o|oiii|s|sii|md|sky|ciel|dome|soir|matin|am|pm|aube)"
        r"|plu(?:[bvr]|ha|halpha|oiii|sii|ciel|soir|matin)"
    ),
    "bias": re.compile(r"(?:bias|offset)(?:[ubvrigz]|ha|oiii|sii)"),
}
_MADE = ("processed", "calibrated", "calib", "reduced", "reduit", "traite", "pretraite", "calibre", "corrige", "aligne",
         "empile", "stacked", "stack", "stacking", "coadd", "coadded", "combined", "combine", "aligned", "registered",
         "master", "masterbias", "masterflat", "masterdark", "mbias", "moffset", "mflat", "mplu", "mdark", "superbias",
         "superflat", "superdark", "mean", "median", "mediane", "moyenne", "somme", "empilement", "drizzle", "wcs",
         "solved", "norm", "normalise", "normalised", "normalized", "cal", "final", "pp")  # fmt: skip
# Only at the end of a name do these say that a program made the file.
_MADE_ONLY_LAST = ("calib", "cal", "mean", "median", "mediane", "moyenne", "somme", "wcs", "combine", "stack", "solved",
                   "aligned", "final", "corrige", "calibre", "norm", "normalise", "normalised",
                   "normalized")  # fmt: skip
# Beside a calibration word these do, wherever they stand: 'PLU moyenne R', 'median_flat_V'.
_MADE_OF_CALIBRATION = ("mean", "median", "mediane", "moyenne", "moyen", "somme", "norm", "normalise", "normalised",
                        "normalized", "combine")  # fmt: skip
# What follows 'dark' in names of the sky.
_DARK_SKY = ("neb", "gal", "cloud", "horse", "shark", "doodad", "lane", "matter", "molecul")
_PHRASES = re.compile(r"mise ?au ?point", re.IGNORECASE)
_ASIDE: dict[str, tuple[str, ...]] = {
    "focusing": ("miseaupoint", "focus", "focusing", "foc", "focalisation", "hartmann", "bahtinov", "focustest"),
    "pointing": ("pointage", "pointing", "centrage", "centering", "recentrage", "guidage", "guiding"),
    "a test": ("essai", "essais", "tst"),
}
# What programs write where nobody typed a name, and what stands in a name beside the target's.
_NO_NAME = re.compile(
    r"autosave|image|img|ccd|frame|light|lights|untitled|new|raw|brut|pose|calibration|calib|bin|bin\d(?:x\d)?|\d+x\d+|nuit\d*|night\d*"
    r"|\d+(?:s|sec|secs|m|min|mn)|0\d+[a-z]{0,6}\d{0,4}s?|[a-z]|u|ha|h|halpha|alpha|oiii|sii|o3|s2|md|cousins|gunn"
)


@dataclass(frozen=True)
class Words:
    """What a name says.

    Attributes
    ----------
    calibration
        Kind of calibration frame it names, if any, and with which word.
    made
        The word that says that a program made the file out of raw ones.
    aside
        What else the frame was taken for ('focusing', 'pointing', 'a test').
    names_something
        Whether anything is left that may name a target.
    """

    calibration: Meaning | None = None
    word: str = ""
    made: str = ""
    aside: str = ""
    names_something: bool = False


def _tokens(name: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = _PHRASES.sub(lambda found: found[0].replace(" ", ""), re.sub(r"[_-]", " ", plain))
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain)
    return [token.lower() for token in re.findall(r"[A-Za-z]+", split)]


def _names_something(name: str) -> bool:
    """Whether a name holds anything but calibration words, numbers, filters and exposure times."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    parts = re.findall(r"[a-z0-9]+", plain)
    for position, part in enumerate(parts):
        if part.isdigit():  # '2726 -001R' is an asteroid's frame, '001_R' and 'Bias-001' name nothing
            if position == 0 and len(parts) > 1 and not part.startswith("0"):
                return True
            continue
        letters = re.findall(r"[a-z]+", part)
        if not _NO_NAME.fullmatch(part) and not all(_calibration(word) or _aside(word) for word in letters):
            return True
    return False


def says_a_name(word: str) -> bool:
    """Whether an OBJECT may name something on the sky: not what a program or a calibration frame puts there."""
    said = read_words(word)
    return said.names_something and said.calibration is None and not said.aside


def read_words(name: str) -> Words:
    """Understand a file's stem, an OBJECT or a folder's name."""
    tokens = _tokens(name)
    calibration: Meaning | None = None
    word = made = aside = ""
    for position, token in enumerate(tokens):
        after = tokens[position + 1] if position + 1 < len(tokens) else ""
        kind = _calibration(token)
        if kind and not after.startswith(_DARK_SKY):
            # 'dark flat' and 'flat dark' are darks; otherwise the first word counts
            if calibration is None or {calibration, kind} == {"flat", "dark"}:
                calibration = "dark" if calibration in ("flat", "dark") else kind
                word = f"{word} {token}".strip()
        elif (stem := _made(token)) and (
            stem not in _MADE_ONLY_LAST
            or (position == len(tokens) - 1 and position > 0)
            or (stem in _MADE_OF_CALIBRATION and any(map(_calibration, tokens)))
        ):
            made = made or token
        else:
            aside = aside or _aside(token)
    return Words(calibration, word, made, aside, _names_something(name))


def _calibration(token: str) -> Meaning | None:
    for kind, words in _CALIBRATION.items():
        if token in words:
            return kind  # type: ignore[return-value]
    for kind, pattern in _GLUED.items():
        if pattern.fullmatch(token):
            return kind  # type: ignore[return-value]
    return None


def _made(token: str) -> str:
    """The word of `_MADE` that a token is, whatever its gender and number in French; empty if it is none."""
    return next((stem for stem in (token, re.sub(r"e?s?$", "", token), re.sub(r"s$", "", token)) if stem in _MADE), "")


def _aside(token: str) -> str:
    if token.startswith("test") or (token.endswith("test") and len(token) <= 8):
        return "a test"
    return next((purpose for purpose, words in _ASIDE.items() if token in words), "")


def imagetyp_meaning(imagetyp: str) -> Meaning:
    """What IMAGETYP says; programs write it in many ways (``'Light Frame'``, ``'FLAT'``, ``'zero'``, ``'object'``)."""
    tokens = _tokens(imagetyp)
    if "master" in tokens or any(token.startswith("master") for token in tokens):
        return "master"
    said = read_words(imagetyp).calibration
    if said is not None:
        return said
    if {"light", "object", "science", "sci", "lumiere", "objet", "ciel", "sky", "tricolor"} & set(tokens):
        return "light"
    return "none"
