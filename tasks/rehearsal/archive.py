"""Which files of the real archive are played, and what each of them shows."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from models.base import Record
from models.simulation import RehearsalOptions
from models.target import Target, TargetError, find_target
from models.telescope import Telescope
from tasks import inventory
from tasks.core.errors import UserError
from tasks.simulation import Exposure

__all__ = ["Sample", "choose_groups", "read_exposures", "sample"]

# Settled by hand for the archive's 2617 files, from path, OBJECT and header position together: (pattern of the path,
# pattern of OBJECT, group, place the observer meant where it is not the group's centre).
# The release's centres are the means of their members' places: that gives the border of Abell 1656, whose own place
# nobody wrote down.
_MEMBERSHIP: tuple[tuple[str, str, str, tuple[float, float] | None], ...] = (
    (r"/NGC5813-", r"M49|NGC5813", "NGC5813", None),  # fifteen of them with the OBJECT of the target before
    (r"", r"M49", "M49", None),
    (r"", r"(?i)ACO_?1656(V2)?|coma", "Coma", (194.9531, 27.9807)),
    (r"", r"Coma Cote", "Coma", (194.9531, 27.7975)),
    (r"", r"NGC4874", "Coma", (194.8988, 27.9593)),
    (r"", r"AWM7|J0254(_[BR])?", "AWM7", None),
    (r"", r"M48|NGC_2548(_\d+sec)?", "M48", None),
    (r"", r"M67_?|M67_40s|NGC_2682_\d+sec", "M67", None),
    (r"", r"NGC1912", "M38_group", None),
    (r"", r"NGC_?2539_", "NGC2539", None),
    (r"", r"M84", "Markarian", (186.2656, 12.8870)),
    (r"", r"M86", "Markarian", (186.5492, 12.9460)),
    (r"", r"M105", "M105_group", (161.9567, 12.5817)),
    (r"", r"NGC3384", "M105_group", (162.0704, 12.6293)),
    (r"", r"(M1|M51|M60|M63|M81|M82|M87|M104|M108|NGC2158|NGC4008|NGC4494|NGC5557)_?", "", None),
)
_TEXT = (("date_obs", "DATE-OBS"), ("object", "OBJECT"), ("imagetyp", "IMAGETYP"), ("filter", "FILTER"),
         ("objctra", "OBJCTRA"), ("objctdec", "OBJCTDEC"), ("instrume", "INSTRUME"))  # fmt: skip
_NUMBERS = (("exptime", "EXPTIME"), ("exptime", "EXPOSURE"), ("airmass", "AIRMASS"), ("ccd_temp", "CCD-TEMP"))
_COUNTS = (("xbinning", "XBINNING"), ("ybinning", "YBINNING"))
_FEWEST_CALIBRATIONS = 7


class Sample(Record):
    """What a rehearsal plays."""

    exposures: tuple[Exposure, ...]
    groups: tuple[str, ...]
    science_of_archive: int
    calibration_of_archive: int

    def count(self, kind: str) -> int:
        """Files of a kind, copies included."""
        return sum(exposure.kind == kind for exposure in self.exposures)


def _place(row: Mapping[str, str], targets: Mapping[str, Target]) -> tuple[str, tuple[float, float]] | None:
    """The group that a science frame shows and where it was meant to look, deg; None: none of them."""
    for path, word, group, place in _MEMBERSHIP:
        if re.search(path, row["path"]) and re.fullmatch(word, row["object"].strip()):
            target = targets[group or row["object"].strip().rstrip("_")]
            return target.name, place or (target.ra, target.dec)
    return None


def _cards(row: Mapping[str, str]) -> tuple[tuple[str, str | float | int | None], ...]:
    cards: list[tuple[str, str | float | int | None]] = []
    cards += [(key, row[column] or None) for column, key in _TEXT]
    cards += [(key, float(row[column]) if row[column] else None) for column, key in _NUMBERS]
    cards += [(key, int(row[column]) if row[column] else None) for column, key in _COUNTS]
    return tuple(cards)


def read_exposures(table: Path, telescope: Telescope, targets: Mapping[str, Target]) -> list[Exposure]:
    """The archive's biases and flats, and the science frames that show a group; copies after their originals.

    Kind and filter are the inventory's: `tests/inventory` holds it to a truth settled by hand for these very files.

    Parameters
    ----------
    table
        CSV of header values and paths.
    telescope
        Profile that reads them.
    targets
        The groups.

    Raises
    ------
    UserError
        If the table is missing or is no such table.
    """
    if not table.is_file():
        raise UserError(
            f"no table of the archive's headers: {table} is missing; the rehearsal plays the real archive and needs "
            "shared/archive/t120_headers.csv beside the checkout, or --archive FILE"
        )
    with open(table, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    wanted = {"path", "naxis1", "naxis2"} | {column for column, _ in (*_TEXT, *_NUMBERS, *_COUNTS)}
    if not rows or (lacking := wanted - set(rows[0])):
        said = f"lacks the columns {', '.join(sorted(lacking))}" if rows else "has no rows"
        raise UserError(f"{table} is no table of headers: it {said}")
    originals: dict[tuple[str, ...], str] = {}
    exposures = []
    for row in sorted(rows, key=lambda row: row["path"]):
        exposure = _exposure(row, telescope, targets)
        if exposure is None:
            continue
        values = tuple(value for key, value in row.items() if key != "path")
        original = originals.setdefault(values, exposure.path)
        if original != exposure.path:
            exposure = exposure.model_copy(update={"copy_of": original})
        exposures.append(exposure)
    return exposures


def _exposure(row: Mapping[str, str], telescope: Telescope, targets: Mapping[str, Target]) -> Exposure | None:
    cards = {key: value for key, value in _cards(row) if value is not None}
    side, full = int(row["naxis1"]), telescope.camera.shape[1] * telescope.camera.binning
    binning = int(row["xbinning"] or 0)
    if not row["date_obs"] or side * binning != full or row["naxis1"] != row["naxis2"]:
        return None
    found = inventory.classify(cards, row["path"], telescope)
    if found.kind not in ("bias", "flat", "science"):
        return None
    place = _place(row, targets) if found.kind == "science" else None
    if found.kind == "science" and place is None:
        return None
    start = datetime.fromisoformat(row["date_obs"]).replace(tzinfo=UTC)
    return Exposure(
        path=row["path"], kind=found.kind, night=inventory.night_of(start, telescope.site), start=start,
        exptime=float(row["exptime"] or 0), object=row["object"], filter=found.filter,
        temperature=float(row["ccd_temp"] or telescope.camera.temperature_c or -60), cards=_cards(row),
        binning=binning, group=place and place[0], aim=place and place[1],
    )  # fmt: skip


def choose_groups(exposures: Sequence[Exposure], options: RehearsalOptions, targets: Mapping[str, Target]) -> list[str]:
    """The groups that are played: those asked for, or whole groups until the fraction is reached.

    The smallest come first, so that a larger fraction holds every smaller one.

    Raises
    ------
    UserError
        If a group asked for has no frame in this archive.
    """
    frames = Counter(exposure.group for exposure in exposures if exposure.group and exposure.copy_of is None)
    if options.groups:
        try:
            names = [find_target(name, dict(targets)).name for name in options.groups]
        except TargetError as error:
            raise UserError(f"--groups: {error}") from error
        if absent := [name for name in names if name not in frames]:
            raise UserError(f"--groups: no frame of {', '.join(absent)} in this archive; there are {', '.join(frames)}")
        return names
    chosen: list[str] = []
    for name in sorted((name for name in frames if name), key=lambda name: (frames[name], name)):
        if sum(frames[group] for group in chosen) >= options.fraction * frames.total():
            break
        chosen.append(name)
    return chosen


def sample(exposures: Sequence[Exposure], options: RehearsalOptions, targets: Mapping[str, Target]) -> Sample:
    """What of the archive is played: whole groups, with the biases and flats of their years and filters.

    Of a part of the archive only a part of the calibration frames is taken, never fewer than seven of a kind.
    """
    groups = choose_groups(exposures, options, targets)
    science = [exposure for exposure in exposures if exposure.group in groups]
    n_all = sum(exposure.kind == "science" for exposure in exposures)
    part = len(science) / n_all
    years = {exposure.night[:4] for exposure in science}
    used = {(exposure.night[:4], exposure.filter, exposure.binning) for exposure in science}
    of_kind: dict[tuple[str, str, str | None, int], list[Exposure]] = defaultdict(list)
    for exposure in exposures:
        year = exposure.night[:4]
        if exposure.kind == "science" or year not in years:
            continue
        if part < 1 and exposure.kind == "flat" and (year, exposure.filter, exposure.binning) not in used:
            continue
        of_kind[exposure.kind, year, exposure.filter, exposure.binning].append(exposure)
    chosen = list(science)
    for several in of_kind.values():
        wanted = min(len(several), max(_FEWEST_CALIBRATIONS, round(part * len(several))))
        chosen += [several[k] for k in np.linspace(0, len(several) - 1, wanted).round().astype(int)]
    there = {exposure.path for exposure in chosen}
    kept = tuple(
        exposure for exposure in exposures
        if exposure.path in there and (exposure.copy_of is None or exposure.copy_of in there)
    )  # fmt: skip
    return Sample(
        exposures=kept, groups=tuple(groups), science_of_archive=n_all,
        calibration_of_archive=len(exposures) - n_all,
    )  # fmt: skip
