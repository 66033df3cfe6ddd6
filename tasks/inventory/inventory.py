"""The inventory of a raw tree: what each file is, which night and filter, and which are usable frames."""

from __future__ import annotations

import math
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import PurePosixPath

from models.base import Record, Roots
from models.frame import FrameFailure, RawFrame
from models.inventory import Classification, Inventory
from models.report import InventoryRow
from models.telescope import Telescope, TelescopeError, load_telescope, telescope_names
from tasks.core.errors import StageError, UserError
from tasks.core.files import digest_file, safe_name
from tasks.inventory.classify import classify
from tasks.inventory.headers import STAGE, Header, integer, number, read_header, text
from tasks.inventory.observing import night_of, sexagesimal, start_of_exposure
from tasks.inventory.scan import Found, scan

__all__ = ["of_years", "take_inventory"]

_KELVIN = 273.15
_DAY_S = 86400.0


class _Facts(Record):
    """What a header says, before it is known whether the frame can be used."""

    exptime: float | None = None
    binning: int | None = None
    shape: tuple[int, int] | None = None
    start: datetime | None = None
    night: str | None = None
    object: str = ""
    ra: float | None = None
    dec: float | None = None


class _File:
    """A file on its way through the inventory."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self.header: Header = {}
        self.facts = _Facts()
        self.telescope: str | None = None
        self.verdict = Classification(kind="junk", why="")
        self.failure: FrameFailure | None = None

    def junk(self, why: str) -> None:
        self.verdict = Classification(kind="junk", why=why, filter=self.verdict.filter)

    def fail(self, reason: str, remedy: str) -> None:
        self.failure = FrameFailure(file=self.found.relative, stage=STAGE, reason=reason, remedy=remedy)
        self.junk(f"cannot be used: {reason}")

    def row(self) -> InventoryRow:
        facts = self.facts
        return InventoryRow(
            path=self.found.relative, kind=self.verdict.kind, why=self.verdict.why, telescope=self.telescope,
            night=facts.night, filter=self.verdict.filter, exptime=facts.exptime, binning=facts.binning,
            object=facts.object, ra=facts.ra, dec=facts.dec,
        )  # fmt: skip


def take_inventory(
    roots: Roots,
    telescope: Telescope,
    years: Collection[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Inventory:
    """Classify every raw file of a telescope.

    Parameters
    ----------
    roots
        Raw and data root; raw files are opened for reading only.
    telescope
        The profile whose frames are wanted; files of the other telescopes at hand are told from the path.
    years
        Only nights of these years; None: all. A file whose night is not known is listed where its path names
        one of them or no year at all.
    progress
        Called with (files done, files in all).

    Raises
    ------
    UserError
        If the raw root is missing or no folder.
    """
    if not roots.raw.is_dir():
        raise UserError(f"no raw frames: {roots.raw} is not a folder; give --raw-root or OHP_RAW_ROOT")
    files = [_File(found) for found in scan(roots, telescope.suffixes)]
    others = _path_hints(roots, telescope)
    for file in files:
        _examine(file, telescope, others)
    if years is not None:
        files = [file for file in files if _belongs(file.facts.night, file.found.relative, years)]
    usable = sorted((file for file in files if file.verdict.kind != "junk"), key=_order)
    frames = _frames(usable, roots, telescope, progress)
    return Inventory(
        frames=tuple(frames),
        rows=tuple(file.row() for file in sorted(files, key=lambda file: file.found.relative)),
        unusable=tuple(file.failure for file in files if file.failure is not None),
    )


def _named_years(path: str) -> set[int]:
    return {int(year) for year in re.findall(r"(?<!\d)((?:19|20)\d\d)", path)}


def _belongs(night: str | None, path: str, years: Collection[int]) -> bool:
    """Whether to list a file among these years; without a date the years in its path tell, if there are any."""
    if night is not None:
        return int(night[:4]) in years
    named = _named_years(path)
    return not named or not named.isdisjoint(years)


def of_years(inventory: Inventory, years: Collection[int]) -> Inventory:
    """The part of an inventory that `take_inventory` gives for these years alone."""
    rows = tuple(row for row in inventory.rows if _belongs(row.night, row.path, years))
    here = {row.path for row in rows}
    return Inventory(
        frames=tuple(frame for frame in inventory.frames if frame.path in here),
        rows=rows,
        unusable=tuple(failure for failure in inventory.unusable if failure.file in here),
    )


def _order(file: _File) -> tuple[datetime, str]:
    assert file.facts.start is not None
    return file.facts.start, file.found.relative


def _path_hints(roots: Roots, telescope: Telescope) -> dict[str, str]:
    """Pattern of the words in a path that name a telescope, by telescope: this one and all others at hand."""
    profiles = {telescope.name: telescope}
    for name in telescope_names(roots.data):
        try:
            profile = load_telescope(name, roots.data)
        except TelescopeError:
            continue  # another telescope's broken profile must not stop this one; loading it says what is wrong
        profiles.setdefault(profile.name, profile)
    return {
        name: rf"(?<![A-Za-z0-9])(?:{'|'.join(re.escape(hint) for hint in profile.path_hints)})(?![A-Za-z0-9])"
        for name, profile in profiles.items()
        if profile.path_hints
    }


def _telescope_of(words: str, hints: dict[str, str]) -> str | None:
    """The telescope that a path names last (deepest); None where it names none."""
    found = {
        name: max((match.end() for match in re.finditer(pattern, words, re.IGNORECASE)), default=-1)
        for name, pattern in hints.items()
    }
    name = max(found, key=lambda name: found[name], default="")
    return name if name and found[name] >= 0 else None


def _examine(file: _File, telescope: Telescope, hints: dict[str, str]) -> None:
    found = file.found
    if found.ignored:
        file.junk(found.ignored)
        return
    if found.problem:
        file.fail(found.problem, found.remedy)
        return
    file.telescope = _telescope_of(found.relative, hints)
    try:
        file.header, data_bytes = read_header(found.path)
    except StageError as error:
        file.telescope = file.telescope or telescope.name
        file.fail(error.reason, error.remedy)
        return
    by_path = file.telescope is not None
    owner = file.telescope or _telescope_of(text(file.header, ("TELESCOP",)), hints) or telescope.name
    file.telescope = owner
    file.facts = _plain_facts(file.header, telescope)
    file.verdict = classify(file.header, found.relative, telescope)
    if owner != telescope.name:
        file.facts = file.facts.model_copy(update=_when(file, telescope))
        file.junk(f"of the telescope {owner}, as {'its path' if by_path else 'TELESCOP'} says")
        return
    if file.verdict.kind == "junk":
        file.facts = file.facts.model_copy(update=_when(file, telescope))
        return
    try:
        _check_data(file, data_bytes)
        _check_exposure(file, telescope)
        start = _start(file, telescope)
        file.facts = file.facts.model_copy(update={"start": start, "night": night_of(start, telescope.site)})
    except StageError as error:
        file.facts = file.facts.model_copy(update=_when(file, telescope))
        file.fail(error.reason, error.remedy)
        return
    if why := _misfit(file.header, file.facts, telescope):
        file.fail(why, "leave it out; if another camera took it, give that telescope's profile with --telescope")


def _start(file: _File, telescope: Telescope) -> datetime:
    """Start of the exposure.

    Raises
    ------
    StageError
        If the header does not tell, or tells a time that has not come yet: neither by this machine's clock nor by
        that of the one which wrote the file.
    """
    start = start_of_exposure(file.header, telescope.header.date_obs)
    if start.timestamp() > max(time.time(), file.found.path.lstat().st_mtime) + _DAY_S:
        raise StageError(
            STAGE,
            f"{telescope.header.date_obs[0]} says {start:%Y-%m-%d}, a day yet to come: the camera's clock was wrong",
            "write the right date into a copy of the file, or leave the file out",
        )
    return start


def _when(file: _File, telescope: Telescope) -> dict[str, object]:
    """Start and night of a frame that is left out; nothing where its header does not tell."""
    try:
        start = _start(file, telescope)
    except StageError:
        return {}
    return {"start": start, "night": night_of(start, telescope.site)}


def _plain_facts(header: Header, telescope: Telescope) -> _Facts:
    keys = telescope.header
    exptime = number(header, keys.exptime)
    rows, columns = integer(header, "NAXIS2"), integer(header, "NAXIS1")
    shape = (rows, columns) if rows is not None and columns is not None else None
    ra, dec = _position(header, telescope)
    return _Facts(
        exptime=exptime if exptime is not None and math.isfinite(exptime) else None,
        binning=_binning(header, shape, telescope),
        shape=shape,
        object=text(header, keys.object),
        ra=ra,
        dec=dec,
    )


def _position(header: Header, telescope: Telescope) -> tuple[float | None, float | None]:
    """The mount's word, deg; None where it says nothing or nothing possible."""
    keys = telescope.header
    words = text(header, keys.ra), text(header, keys.dec)
    ra, dec = sexagesimal(words[0]), sexagesimal(words[1])
    if ra is None or dec is None or (ra == 0 and dec == 0):  # all zeros: the mount was not asked
        return None, None
    if keys.ra_unit == "hourangle" or not re.fullmatch(r"[+-]?[0-9.]+(?:[eE][+-]?\d+)?", words[0]):
        ra *= 15.0  # an RA with minutes is in hours whatever the profile says of plain numbers
    if not (0 <= ra < 360 and -90 <= dec <= 90):
        return None, None
    return ra, dec


def _full_chip(telescope: Telescope) -> tuple[int, int]:
    camera = telescope.camera
    return camera.shape[0] * camera.binning, camera.shape[1] * camera.binning


def _fits_chip(shape: tuple[int, int], binning: int, telescope: Telescope) -> bool:
    # Rows that do not fill a binned pixel are dropped: the chip is known only to that precision.
    slack = max(binning, telescope.camera.binning)
    return all(abs(side * binning - full) <= slack for side, full in zip(shape, _full_chip(telescope), strict=True))


def _binning(header: Header, shape: tuple[int, int] | None, telescope: Telescope) -> int | None:
    """Binning from the header, or the one at which the shape is the whole chip; None if neither tells."""
    said = number(header, telescope.header.binning)
    if said is not None and said >= 1 and said == int(said):
        return int(said)
    if shape is None:
        return None
    return next((binning for binning in range(1, 9) if _fits_chip(shape, binning, telescope)), None)


def _check_data(file: _File, data_bytes: int) -> None:
    header, shape = file.header, file.facts.shape
    axes = integer(header, "NAXIS")
    if not axes or shape is None or min(shape) < 1:
        raise StageError(
            STAGE, "no image in the primary HDU", "if the image is in an extension, copy it into a plain FITS file"
        )
    if axes < 2 or any(integer(header, f"NAXIS{axis}") != 1 for axis in range(3, axes + 1)):
        raise StageError(STAGE, f"not a two-dimensional image: NAXIS = {axes}", "save each plane as a file of its own")
    bits = integer(header, "BITPIX")
    if bits not in (8, 16, 32, 64, -32, -64):
        said = text(header, ("BITPIX",))
        raise StageError(STAGE, f"BITPIX {said!r} is no FITS pixel type", "the header is damaged: copy the file again")
    wanted = shape[0] * shape[1] * abs(bits) // 8
    if data_bytes < wanted:
        raise StageError(
            STAGE,
            f"cut off: {data_bytes} of {wanted} bytes of pixels are there ({100.0 * data_bytes / wanted:.0f} %)",
            "copy the file again from the telescope's computer; what is there is not used",
        )


def _check_exposure(file: _File, telescope: Telescope) -> None:
    exptime = number(file.header, telescope.header.exptime)
    keyword = telescope.header.exptime[0]
    if exptime is None and file.verdict.kind == "bias":
        return
    if exptime is None:
        raise StageError(
            STAGE, f"no {keyword} in the header", f"write {keyword} into a copy of the file, or leave it out"
        )
    if not math.isfinite(exptime) or exptime < 0:
        said = text(file.header, telescope.header.exptime)
        raise StageError(
            STAGE,
            f"{keyword} {said!r} is no exposure time",
            f"correct {keyword} in a copy of the file, or leave it out",
        )


def _misfit(header: Header, facts: _Facts, telescope: Telescope) -> str:
    """Why the frame's shape is not one of the camera; empty if it is."""
    full = _full_chip(telescope)
    assert facts.shape is not None
    size = f"{facts.shape[1]} × {facts.shape[0]} px"
    if facts.binning is None:
        return f"{size} fit no binning of the camera ({full[1]} × {full[0]} px unbinned): no raw frame of it"
    second = integer(header, "YBINNING")
    if second is not None and second != facts.binning:
        return f"binned {facts.binning} × {second}: its pixels are not square"
    if not _fits_chip(facts.shape, facts.binning, telescope):
        return (
            f"{size} at binning {facts.binning} are not the whole chip "
            f"({full[1] // facts.binning} × {full[0] // facts.binning} px): a subframe, or not of this camera"
        )
    return ""


def _frames(
    usable: list[_File], roots: Roots, telescope: Telescope, progress: Callable[[int, int], None] | None
) -> list[RawFrame]:
    """Digest the files in the order of time, set copies aside, give each frame its name."""
    memo = roots if _can_keep_digests(roots) else None
    integers = {
        (file.facts.start, file.facts.exptime): file.found.relative
        for file in reversed(usable)
        if (integer(file.header, "BITPIX") or 0) > 0
    }
    first: dict[str, str] = {}
    unmarked = {_exposure(file): file for file in reversed(usable) if not _marked(file)}
    taken: dict[str, set[str]] = defaultdict(set)
    frames = []
    for done, file in enumerate(usable, start=1):
        try:
            digest = digest_file(file.found.path, memo)
        except OSError as error:
            file.fail(f"cannot be read: {error.strerror or error}", "check the disk and who may read the file")
            continue
        finally:
            if progress is not None:
                progress(done, len(usable))
        raw = integers.get((file.facts.start, file.facts.exptime))
        if raw is not None and (integer(file.header, "BITPIX") or 0) < 0:
            file.junk(f"processed copy of {raw}: the same exposure, in real numbers instead of the camera's integers")
            continue
        camera = unmarked.get(_exposure(file)) if _marked(file) else None
        if camera is not None:
            file.junk(f"copy of {camera.found.relative} (the same exposure, saved again under another name)")
            continue
        original = first.setdefault(digest, file.found.relative)
        if original != file.found.relative:
            file.junk(f"copy of {original} (same content)")
            continue
        assert file.facts.night is not None
        frames.append(_frame(file, digest, _name(file, taken[file.facts.night]), telescope))
    return frames


_SAVED_AGAIN = re.compile(
    r"[\s_.-]*(?:\(?cop(?:ie|y)\)?(?:[\s_.-]*\(?\d+\)?)?|backup|bak|sauvegarde|new|~|\(\d+\))$",
    re.IGNORECASE,
)


def _exposure(file: _File) -> tuple[object, ...]:
    """What two files of one exposure share: its start, its length, the camera's shape, and the name but for a mark."""
    real = (integer(file.header, "BITPIX") or 0) < 0
    return file.facts.start, file.facts.exptime, file.facts.shape, real, _SAVED_AGAIN.sub("", _stem(file))


def _marked(file: _File) -> bool:
    return bool(_SAVED_AGAIN.search(_stem(file)))


def _stem(file: _File) -> str:
    return re.sub(r"\.[^.]+(?:\.gz)?$", "", PurePosixPath(file.found.relative).name, flags=re.IGNORECASE)


def _can_keep_digests(roots: Roots) -> bool:
    """Whether digests can be remembered under the data root; an inventory is possible without."""
    try:
        (roots.data / ".cache").mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(roots.data / ".cache", os.W_OK | os.X_OK)


def _name(file: _File, taken: set[str]) -> str:
    stem = safe_name(_stem(file))
    candidate, count = stem, 1
    while candidate in taken:
        count += 1
        candidate = f"{stem}-{count}"
    taken.add(candidate)
    return candidate


def _frame(file: _File, digest: str, name: str, telescope: Telescope) -> RawFrame:
    facts, header, keys = file.facts, file.header, telescope.header
    assert facts.start is not None
    assert facts.night is not None
    assert facts.binning is not None
    assert facts.shape is not None
    temperature = number(header, keys.temperature)
    if temperature is not None and keys.temperature_unit == "K":
        temperature = temperature - _KELVIN if temperature > 0 else None  # 0 and below stand for 'no sensor'
    return RawFrame(
        path=file.found.relative, digest=digest, name=name, kind=file.verdict.kind, why=file.verdict.why,
        telescope=telescope.name, night=facts.night, date_obs=facts.start, exptime=facts.exptime or 0.0,
        binning=facts.binning, shape=facts.shape, filter=file.verdict.filter, object=facts.object,
        ra=facts.ra, dec=facts.dec, ccd_temp=_finite(temperature),
        gain=_within(number(header, keys.gain), 0.01, 1000.0),
        read_noise=_within(number(header, keys.read_noise), 0.01, 1000.0),
        airmass=_within(number(header, keys.airmass), 1.0, 40.0),
    )  # fmt: skip


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _within(value: float | None, low: float, high: float) -> float | None:
    return value if value is not None and low <= value <= high else None
