"""What a raw file is, from its header, its path and what the observer called it, together.

None of them is to be believed alone: IMAGETYP stays at what it was for the frames before, OBJECT too, names
are typed by hand. What cannot lie comes first: an exposure of 0 s holds no light, and neither does one that
MaxIm DL took as a bias or dark frame (it kept the shutter shut). Light frames and flat fields are taken
alike: the file name tells them apart, then the Sun, for in the dark no twilight flat is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from models.frame import Kind
from models.inventory import Classification
from models.telescope import Telescope
from tasks.core.errors import StageError
from tasks.inventory.filters import canonical_filter, filter_in_name
from tasks.inventory.headers import number, text
from tasks.inventory.observing import start_of_exposure, sun_altitude
from tasks.inventory.words import Words, imagetyp_meaning, read_words

__all__ = ["classify"]

NO_LIGHT_S = 0.01
"""A shutter of this kind does not open for less; a frame called bias with this exposure is one, s."""
TWILIGHT_DEG = -12.0
"""With the Sun higher than this a frame whose IMAGETYP says flat is one whatever its name, deg."""
BRIGHT_DEG = -6.0
"""With the Sun higher than this (civil twilight) a light frame that names no target is a flat, deg."""
_OUR_KEYWORDS = ("PIPELINE", "BIASCORR", "FLATCORR", "COMBMETH", "COMBTYPE")
_CALIBRATED_LETTERS = set("BDF")


def _path_parts(path: str) -> tuple[str, list[str]]:
    parts = PurePosixPath(path)
    stem = parts.name
    for _ in range(2):
        if PurePosixPath(stem).suffix.lower() in (".gz", ".fit", ".fits", ".fts"):
            stem = PurePosixPath(stem).stem
    return stem, list(parts.parts[:-1])


def _filter(header: Mapping[str, Any], path: str, telescope: Telescope, kind: Kind) -> tuple[str | None, list[str]]:
    """The canonical filter, and what there is to say about it."""
    spelled = text(dict(header), telescope.header.filter)
    named = filter_in_name(path, telescope)
    if spelled:
        name = canonical_filter(spelled, telescope)
        if name is None and kind in ("flat", "science"):
            return None, [f"filter {spelled!r} is not known to the profile {telescope.name}"]
        # a capital for a small letter is a habit of typing, another letter is a contradiction
        if name and named and named.casefold() != name.casefold() and kind in ("flat", "science"):
            return name, [f"FILTER says {spelled!r}, the file name {named}: the header is believed"]
        return name, []
    if kind not in ("flat", "science"):
        return None, []
    if named is not None:
        return named, [f"FILTER is blank; filter {named} from the file name"]
    if telescope.unfiltered is not None:
        return telescope.unfiltered, [f"no filter named: {telescope.unfiltered}"]
    return None, ["no filter named in header or file name"]


class _Evidence:
    """All that is known about a file, gathered once."""

    def __init__(self, header: Mapping[str, Any], path: str, telescope: Telescope) -> None:
        cards = dict(header)
        keys = telescope.header
        stem, folders = _path_parts(path)
        self.path = path
        self.stem: Words = read_words(stem)
        self.object: Words = read_words(text(cards, keys.object))
        around = [read_words(name) for name in reversed(folders[-2:])]
        self.folder = next((words for words in around if words.calibration), Words())
        self.folder_made = next((words.made for words in around if words.made), "")
        self.folder_aside = around[0].aside if around else ""
        self.imagetyp_text = text(cards, keys.imagetyp)
        self.imagetyp = imagetyp_meaning(self.imagetyp_text)
        exposure = number(cards, keys.exptime)
        self.exptime = exposure
        self.filtered = bool(text(cards, keys.filter))
        self.calstat = text(cards, ("CALSTAT",)).upper()
        self.combined = max(number(cards, ("SNAPSHOT",)) or 1, number(cards, ("NCOMBINE",)) or 1)
        self.sun: float | None
        try:
            self.sun = sun_altitude(start_of_exposure(cards, keys.date_obs), telescope.site)
        except StageError:
            self.sun = None
        self.ours = next((key for key in _OUR_KEYWORDS if text(cards, (key,))), "")

    def sky(self) -> str:
        return f"the Sun at {self.sun:+.0f}°"


def classify(header: Mapping[str, Any], path: str, telescope: Telescope) -> Classification:
    """Decide what a raw file is.

    Parameters
    ----------
    header
        Cards of its primary header.
    path
        Relative to the raw root.
    telescope
        Profile: keywords, filters, site.

    Returns
    -------
    Kind, filter, and why in words. A file that is no raw frame is ``junk``.
    """
    evidence = _Evidence(header, path, telescope)
    kind, why = _kind(evidence)
    name, notes = _filter(header, path, telescope, kind)
    return Classification(kind=kind, why="; ".join([why, *notes]), filter=name)


def _kind(e: _Evidence) -> tuple[Kind, str]:
    if made := _made_by_a_program(e):
        return "junk", made
    if e.exptime is not None and e.exptime == 0:
        said = f", though IMAGETYP says {e.imagetyp_text!r}" if e.imagetyp not in ("bias", "none") else ""
        return "bias", f"exposure of 0 s{said}"
    for decide in (_closed_shutter, _flat):
        if found := decide(e):
            return found
    nameless = not (e.stem.names_something or e.object.names_something)
    aside = e.stem.aside or e.object.aside or (e.folder_aside if nameless else "")
    if aside:
        return "junk", f"named as {aside} frame" if aside != "a test" else "named a test"
    return _light(e)


def _made_by_a_program(e: _Evidence) -> str:
    if e.stem.made:
        return f"made by a program from raw frames: the file name says {e.stem.made!r}"
    if e.folder_made:
        return f"made by a program from raw frames: its folder says {e.folder_made!r}"
    if e.imagetyp == "master":
        return f"made by a program from raw frames: IMAGETYP {e.imagetyp_text!r}"
    if e.ours:
        return f"already reduced: its header has {e.ours}"
    if e.calstat and set(e.calstat) & _CALIBRATED_LETTERS and set(e.calstat) <= _CALIBRATED_LETTERS | set("CM "):
        return f"already calibrated: CALSTAT {e.calstat!r}"
    if e.combined > 1:
        return f"combined from {e.combined:.0f} exposures"
    return ""


def _closed_shutter(e: _Evidence) -> tuple[Kind, str] | None:
    """Bias and dark: by name or IMAGETYP, unless light fell on the detector."""
    named = e.stem.calibration or (None if e.stem.names_something else e.object.calibration or e.folder.calibration)
    word = e.stem.word or e.object.word or e.folder.word
    open_shutter = e.imagetyp in ("light", "flat")
    exposure = e.exptime if e.exptime is not None else 0.0
    if named == "bias":
        if exposure <= NO_LIGHT_S:
            return "bias", f"named {word!r}, exposure {exposure:g} s"
        if e.imagetyp == "dark":
            return "dark", f"named {word!r}, but a dark frame of {exposure:g} s"
        if e.imagetyp == "bias" or not (open_shutter and e.filtered):
            return "bias", f"named {word!r}; its exposure of {exposure:g} s is not what a bias has"
        return None  # light fell through a filter for some time: no bias, whatever its name
    if named == "dark":
        said = f", though IMAGETYP says {e.imagetyp_text!r}" if open_shutter else ""
        return "dark", f"named {word!r}, {exposure:g} s{said}"
    if e.imagetyp == "bias":
        return "bias", f"IMAGETYP {e.imagetyp_text!r}"
    if e.imagetyp == "dark":
        return "dark", f"IMAGETYP {e.imagetyp_text!r}, {exposure:g} s"
    return None


def _flat(e: _Evidence) -> tuple[Kind, str] | None:
    """Flat: by file name; by OBJECT, folder or IMAGETYP where nothing better contradicts."""
    lies = f", though IMAGETYP says {e.imagetyp_text!r}" if e.imagetyp == "light" else ""
    dark_sky = e.sun is not None and e.sun < TWILIGHT_DEG
    if e.stem.calibration == "flat":
        return "flat", f"file name says {e.stem.word!r}{lies}"
    target = e.stem if e.stem.names_something else e.object
    named = target.names_something and target.calibration is None
    if e.imagetyp == "flat":
        if not (named and dark_sky) or e.object.calibration == "flat":
            return "flat", f"IMAGETYP {e.imagetyp_text!r}"
        return None  # IMAGETYP stayed at 'flat': a named target under a dark sky
    for words, what in ((e.object, "OBJECT"), (e.folder, "folder")):
        if words.calibration == "flat" and not (named and (dark_sky or e.sun is None)):
            return "flat", f"{what} says {words.word!r}{lies}"
    if e.sun is not None and e.sun > BRIGHT_DEG and not named:
        misnamed = f", though the file name says {e.stem.word!r}" if e.stem.calibration else ""
        return "flat", f"a light frame of no target under a bright sky ({e.sky()}){misnamed}"
    return None


def _light(e: _Evidence) -> tuple[Kind, str]:
    if e.exptime is None and e.imagetyp == "none":
        return (
            "junk",
            "no IMAGETYP and no exposure time in the header: neither a raw frame of the camera nor to be calibrated",
        )
    doubts = []
    if e.imagetyp == "flat":
        doubts.append(f"IMAGETYP says {e.imagetyp_text!r}, but it is a named target under a dark sky ({e.sky()})")
    if e.object.calibration:
        doubts.append(f"OBJECT says {e.object.word!r}, left over from other frames")
    if e.stem.calibration:
        doubts.append(f"the file name says {e.stem.word!r}, but it is an exposure to light in the dark")
    if not (e.stem.names_something or e.object.names_something):
        doubts.append("names no target: its position decides")
    if e.sun is not None and e.sun > BRIGHT_DEG:
        doubts.append(f"{e.sky()} when it was taken: a bright sky, or the clock was wrong")
    how = f"IMAGETYP {e.imagetyp_text!r}" if e.imagetyp == "light" else "exposed, and no calibration frame"
    return "science", "; ".join([how, *doubts])
