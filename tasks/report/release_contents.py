"""What the release's document says beside its tables of groups, filters and stacks: headers, PSFs, years."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from models.base import Roots
from models.frame import FrameRecord, MasterBias, MasterFlat
from models.release import ReleaseFact, ReleaseKeyword, ReleaseReason, ReleaseStack, ReleaseYear
from models.report import StackRow
from models.telescope import Telescope
from tasks.core.errors import StageError
from tasks.core.fitsio import quiet_fits

__all__ = [
    "alignment_facts",
    "frame_psf_facts",
    "keywords",
    "limitations",
    "masters_of",
    "psf_facts",
    "reasons_left_out",
    "stage_facts",
    "year_rows",
]

_STRUCTURE = {"SIMPLE", "BITPIX", "NAXIS", "EXTEND", "CHECKSUM", "DATASUM", "COMMENT", "HISTORY", ""}
_GRID = ("NAXIS1", "NAXIS2", "CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")
_STANDARD = {"NAXIS1": "columns", "NAXIS2": "rows"}
"""Cards of the FITS standard, which have no comment of ours."""
_SHOWN = 4
"""So many different texts of a keyword are listed; of more, their number."""

Master = MasterBias | MasterFlat


def _header(path: Path) -> fits.Header | None:
    try:
        with quiet_fits():
            return fits.getheader(path)
    except OSError:
        return None


def _number(value: float) -> str:
    return f"{value:.8g}"


def _said(values: Sequence[Any]) -> str:
    """The values of a keyword in all files: the one they share, the range of numbers, the texts or how many."""
    different = list(dict.fromkeys(values))
    numbers = [value for value in different if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(different) > 1:
        return f"{_number(min(numbers))} to {_number(max(numbers))}"
    if len(different) > _SHOWN:
        return f"{len(different)} different"
    counted = Counter(values)
    words = ["T" if each is True else "F" if each is False else _number(each) if each in numbers else str(each)
             for each in different]  # fmt: skip
    if len(different) == 1:
        return words[0]
    return ", ".join(f"{word} ({counted[each]})" for word, each in zip(words, different, strict=True))


def keywords(files: Mapping[str, Sequence[Path]]) -> tuple[ReleaseKeyword, ...]:
    """Keywords of each kind of product, with what its files say: the comment of the card, the value or its range.

    Cards that are numbered (``INP0001`` ...) are one row, which holds how many of them the files have.

    Parameters
    ----------
    files
        Files by kind: ``image``, ``weight``, ``psf``.
    """
    rows = []
    for product, paths in files.items():
        headers = [header for header in map(_header, paths) if header is not None]
        comments: dict[str, str] = {}
        values: dict[str, list[Any]] = defaultdict(list)
        for header in headers:
            numbered: Counter[str] = Counter()
            for card in header.cards:
                if card.keyword in _STRUCTURE:
                    continue
                if match := re.fullmatch(r"([A-Z]+)\d{4}", card.keyword):
                    numbered[f"{match[1]}nnnn"] += 1
                    comments.setdefault(f"{match[1]}nnnn", card.comment)
                    continue
                comments.setdefault(card.keyword, card.comment)
                values[card.keyword].append(card.value)
            for name, number in numbered.items():
                values[name].append(number)
        for name, comment in comments.items():
            told = _said(values[name])
            rows.append(
                ReleaseKeyword(
                    product=product,
                    keyword=name,
                    description=_STANDARD.get(name, comment),
                    value=f"{told} of them" if name.endswith("nnnn") else told,
                    n=len(values[name]),
                    of=len(headers),
                )
            )
    return tuple(rows)


def _range(values: Sequence[float | None], unit: str, digits: int, of: str) -> str:
    """Median and range of what is known, and of how many; nothing known is said."""
    known = [value for value in values if value is not None]
    if not known:
        return f"unknown: none of {len(values)} {of} has a value"
    some = f"{len(known)} of {len(values)} {of}"
    middle, low, high = (f"{value:.{digits}f}" for value in (statistics.median(known), min(known), max(known)))
    return f"{middle}{unit} ({some})" if low == high else f"{middle}{unit} (range {low} to {high}{unit}; {some})"


def psf_facts(files: Sequence[Path], mean: Path) -> tuple[ReleaseFact, ...]:
    """The stacks' PSF images, by their headers and pixels, and the mean PSF.

    Parameters
    ----------
    files
        PSF images of the stacks.
    mean
        The telescope's mean PSF; may be absent.
    """
    headers, sums = [], []
    unreadable: list[str] = []
    for path in files:
        try:
            with quiet_fits():
                data, header = fits.getdata(path, header=True)
        except OSError:
            unreadable.append(path.name)
            continue
        headers.append(header)
        sums.append(float(np.sum(data, dtype=np.float64)))

    def of(keyword: str) -> list[float | None]:
        return [None if (value := header.get(keyword)) is None else float(value) for header in headers]

    def fact(key: str, name: str, value: str) -> ReleaseFact:
        return ReleaseFact(section="psf", key=key, name=name, value=value)

    said = "PSF images"
    methods = Counter(str(header.get("METHOD", "not said")) for header in headers)
    total = " to ".join(dict.fromkeys(f"{value:.6f}" for value in (min(sums), max(sums)))) if sums else "unknown"
    facts = [
        fact("size", "Array size", _said([f"{h['NAXIS1']} x {h['NAXIS2']} pixels" for h in headers]) or "unknown"),
        fact("scale", "Pixel scale", _range(of("PIXSCALE"), " arcsec/px", 3, said)),
        fact("sampling", "Samples", _range(of("SAMPLING"), " stack pixels per PSF pixel", 2, said)),
        fact("sum", "Normalisation", f"Sum = {total}"),
        fact("method", "Made by", ", ".join(f"{name} ({n})" for name, n in sorted(methods.items())) or "unknown"),
        fact("place", "Spatial variation", "none in the image: it holds for the middle of the covered field"),
        fact("fwhm", "Median FWHM across stacks", _range(of("FWHM_AS"), " arcsec", 2, said)),
        fact("ee50", "Median EE50 radius", _range(of("EE50_AS"), " arcsec", 2, said)),
        fact("ee80", "Median EE80 radius", _range(of("EE80_AS"), " arcsec", 2, said)),
        fact("ellipticity", "Median ellipticity", _range(of("ELLIPT"), "", 3, said)),
        fact("stars", "Stars of a model", _range(of("NSTARS"), "", 0, said)),
    ]
    header = _header(mean)
    told = "there is none"
    if (combined := _header(mean)) is not None:
        how, number, width = (combined.get(key) for key in ("COMBTYPE", "NCOMBINE", "FWHM_AS"))
        told = "its header does not say how it was made"
        if how is not None and number is not None and width is not None:
            told = f"{str(how).lower()} of {number} frames' PSFs, FWHM {width:.2f} arcsec"
    if unreadable:
        facts.append(fact("unreadable", "PSF images that cannot be read", ", ".join(unreadable)))
    facts.append(fact("mean", f"Mean PSF, {mean.name}", told))
    return tuple(facts)


def alignment_facts(headers: Mapping[str, Sequence[fits.Header]]) -> tuple[ReleaseFact, ...]:
    """Whether the stacks of a group lie on one grid, and how large the grids are.

    Parameters
    ----------
    headers
        Of the stacks of each group.
    """
    grids = {group: {tuple(header.get(key) for key in _GRID) for header in mine} for group, mine in headers.items()}
    apart = sorted(group for group, found in grids.items() if len(found) != 1)
    sizes = sorted((header["NAXIS1"] * header["NAXIS2"], header["NAXIS1"], header["NAXIS2"])
                   for mine in headers.values() for header in mine)  # fmt: skip
    one = f"{len(grids) - len(apart)} of {len(grids)}" + (f"; not {', '.join(apart)}" if apart else "")
    named = (
        "unknown: no stack"
        if not sizes
        else " to ".join(dict.fromkeys(f"{x} x {y} px" for _, x, y in (sizes[0], sizes[-1])))
    )
    return (
        ReleaseFact(section="alignment", key="one_grid", name=f"Groups with one {', '.join(_GRID[:2])} ...", value=one),
        ReleaseFact(section="alignment", key="size", name="Size of the images", value=named),
    )


def masters_of(roots: Roots, telescope: Telescope, years: Iterable[int]) -> dict[int, list[Master]]:
    """Master biases and flats of each year.

    Raises
    ------
    StageError
        If a year's ``masters.json`` is damaged.
    """
    found: dict[int, list[Master]] = {}
    for year in years:
        path = roots.data / str(year) / telescope.name / "masters.json"
        if not path.is_file():
            continue
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            found[year] = [(MasterFlat if "filter" in row else MasterBias).model_validate(row) for row in rows]
        except (OSError, ValueError, TypeError) as error:
            raise StageError("release tables", f"{path} cannot be read: {error}", f"reduce {year} again") from error
    return found


def year_rows(
    records: Mapping[int, Sequence[FrameRecord]], masters: Mapping[int, Sequence[Master]]
) -> tuple[ReleaseYear, ...]:
    """How far the frames of each year came."""
    rows = []
    for year, mine in sorted(records.items()):
        widths = [record.psf.fwhm_arcsec for record in mine if record.psf]
        made = masters.get(year, ())
        rows.append(
            ReleaseYear(
                year=year,
                n_nights=len({record.raw.night for record in mine}),
                n_science=len(mine),
                n_reduced=sum(record.reduced is not None for record in mine),
                n_solved=sum(bool(record.solved and record.solved.status in ("OK", "HIGH_RMS")) for record in mine),
                n_zero_points=sum(bool(r.calibrated and r.calibrated.zero_point.status == "OK") for r in mine),
                n_psf=len(widths),
                fwhm_arcsec=round(statistics.median(widths), 3) if widths else None,
                n_biases=sum(each.n_combined for each in made if isinstance(each, MasterBias)),
                n_flats=sum(each.n_combined for each in made if isinstance(each, MasterFlat)),
                n_master_flats=sum(isinstance(each, MasterFlat) for each in made),
            )
        )
    return tuple(rows)


def _counts(values: Iterable[str]) -> str:
    return ", ".join(f"{value} {n}" for value, n in sorted(Counter(values).items())) or "none"


def stage_facts(
    records: Sequence[FrameRecord], masters: Mapping[int, Sequence[Master]], headers: Sequence[fits.Header]
) -> tuple[ReleaseFact, ...]:
    """What each stage did, in numbers that its products hold."""
    every = [each for mine in masters.values() for each in mine]
    biases = [each for each in every if isinstance(each, MasterBias)]
    flats = [each for each in every if isinstance(each, MasterFlat)]
    reduced = [record.reduced for record in records if record.reduced]
    solved = [record.solved for record in records if record.solved]
    points = [record.calibrated.zero_point for record in records if record.calibrated]
    good = [point for point in points if point.status == "OK"]
    psfs = [record.psf for record in records if record.psf]

    def fact(key: str, name: str, value: str) -> ReleaseFact:
        return ReleaseFact(section="stages", key=key, name=name, value=value)

    def of(pick: Callable[[fits.Header], Any]) -> list[float | None]:
        return [None if (value := pick(header)) is None else float(value) for header in headers]

    def combined(made: Sequence[Master]) -> str:
        left = sum(len(each.rejected) for each in made)
        return f"{_range([each.n_combined for each in made], '', 0, 'masters')}; {left} left out"

    return (
        fact("bias", "Master biases: frames in each", combined(biases)),
        fact("read_noise", "Read noise", _range([each.read_noise_e for each in biases], " e-", 2, "master biases")),
        fact("flat", "Master flats: frames in each", combined(flats)),
        fact("no_bias", "Frames without a master bias", f"{sum(not each.bias for each in reduced)} of {len(reduced)}"),
        fact("no_flat", "Frames without a master flat", f"{sum(not each.flat for each in reduced)} of {len(reduced)}"),
        fact("masked", "Masked pixels of a frame",
             _range([100 * each.masked_fraction for each in reduced], " %", 2, "frames")),
        fact("flags", "Quality flags (they exclude nothing by themselves)",
             _counts(flag for record in records if record.quality for flag in record.quality.flags)),
        fact("solution", "Plate solutions", _counts(each.status for each in solved)),
        fact("matched", "Stars of a plate solution",
             _range([each.solution.n_matched for each in solved], "", 0, "solutions")),
        fact("reference", "Positions rest on",
             _counts(re.sub(r", epoch.*", "", each.solution.reference) for each in solved)),
        fact("zero_point", "Zero points", _counts(point.status for point in points)),
        fact("zp_stars", "Stars of a zero point", _range([point.n_stars for point in good], "", 0, "zero points")),
        fact("catalogue", "Zero points rest on", _counts(point.catalogue or "not said" for point in good)),
        fact("psf", "PSF models of frames", f"{len(psfs)} of {len(records)} frames"),
        fact("n_combined", "Frames of a stack", _range(of(lambda h: h.get("NCOMBINE")), "", 0, "stacks")),
        fact("mesh", "Background mesh of a stack", _range(of(lambda h: h.get("BACKSIZE")), " px", 0, "stacks")),
        fact("tie", "Last step to PS1 (PHOTTIE)", _range(of(lambda h: h.get("PHOTTIE")), " mag", 4, "stacks")),
        fact("light", "Star light restored (LIGHTCOR)", _range(of(lambda h: h.get("LIGHTCOR")), " mag", 4, "stacks")),
        fact("noise", "True inverse variance over the weight map (INVVAR)",
             _range(of(lambda h: h.get("INVVAR")), "", 2, "stacks")),
    )  # fmt: skip


def frame_psf_facts(records: Sequence[FrameRecord]) -> tuple[ReleaseFact, ...]:
    """The frames' own PSF models, by the keys of ``psf_report.json``."""
    psfs = [record.psf for record in records if record.psf]
    columns: dict[str, tuple[list[float], str, int]] = {
        "fwhm_px": ([psf.fwhm_px for psf in psfs], " px", 2),
        "fwhm_arcsec": ([psf.fwhm_arcsec for psf in psfs], " arcsec", 2),
        "ellipticity": ([psf.ellipticity for psf in psfs], "", 3),
        "chi2": ([psf.chi2 for psf in psfs], "", 2),
        "n_stars_accepted": ([psf.n_stars_accepted for psf in psfs], "", 0),
    }
    return tuple(
        ReleaseFact(section="frame_psf", key=key, name=key, value=_range(values, unit, digits, "models"))
        for key, (values, unit, digits) in columns.items()
    )


def limitations(
    stacks: Sequence[ReleaseStack], headers: Mapping[tuple[str, str], fits.Header], others: Sequence[str]
) -> tuple[str, ...]:
    """What these very products lack, each with the stacks it is true of; nothing where all is well.

    Parameters
    ----------
    stacks
        All on record.
    headers
        Of the stacks that were made, by group and filter.
    others
        Telescopes whose stacks lie beside.
    """
    made = [stack for stack in stacks if stack.status == "OK"]
    name = {(stack.group, stack.filter): f"{stack.group} {stack.filter}" for stack in stacks}

    def listed(which: Iterable[ReleaseStack]) -> str:
        return ", ".join(name[stack.group, stack.filter] for stack in which)

    said = []
    if missing := [stack for stack in stacks if stack.status != "OK"]:
        said.append(f"Not made ({len(missing)}; reasons below): {listed(missing)}.")
    if relative := [stack for stack in made if stack.calibration == "RELATIVE"]:
        said.append(f"Relative scale only, no zero point ({len(relative)}): {listed(relative)}.")
    if narrow := [stack for stack in made if stack.calibration == "CONTINUUM"]:
        said.append(
            f"Narrow band, on the scale of continuum stars and not validated against a catalogue ({len(narrow)}): "
            f"{listed(narrow)}."
        )
    if unsure := [stack for stack in made if not stack.validated and stack.calibration == "PS1"]:
        said.append(f"Calibrated against PS1 but not validated ({len(unsure)}; see the remarks): {listed(unsure)}.")
    offsets = [stack for stack in made if stack.zp_offset is not None]
    if offsets:
        worst = max(offsets, key=lambda stack: abs(stack.zp_offset or 0.0))
        said.append(f"Largest offset from PS1 in the check: {listed([worst])}, {worst.zp_offset:+.3f} mag.")
    bent = [key for key, header in headers.items() if header.get("PHOTLINF") is True]
    if bent:
        told = ", ".join(f"{name[key]} {headers[key]['PHOTLIN']:+.3f}" for key in bent)
        said.append(
            f"Faint stars against bright ones are off by more than 0.01 mag (PHOTLIN, {len(bent)}): {told} mag."
        )
    raised = {key: float(header["LIGHTCOR"]) for key, header in headers.items() if "LIGHTCOR" in header}
    if raised:
        most = max(raised, key=lambda key: abs(raised[key]))
        said.append(
            f"Star light that the combination lost was restored in {len(raised)} of {len(made)} stacks, so smooth "
            f"extended light is brighter by as much; most in {name[most]}, {raised[most]:.3f} mag (LIGHTCOR)."
        )
    if shapeless := [stack for stack in made if stack.fwhm_arcsec is None]:
        said.append(f"PSF not measured ({len(shapeless)}): {listed(shapeless)}.")
    if bottomless := [stack for stack in made if stack.depth_5sigma is None]:
        said.append(f"Depth not measured ({len(bottomless)}): {listed(bottomless)}.")
    if others:
        said.append(f"Stacks of other telescopes under the same root are not in this document: {', '.join(others)}.")
    return tuple(said)


def _kind_of(reason: str) -> str:
    """A reason without what is the frame's own: numbers, names, where it was looked for."""
    reason = re.sub(r"^(plate solution): .*: (?=[^:]*$)", r"\1: ", reason)
    reason = re.sub(r"^OBJECT says .*", "OBJECT says …, the field lies elsewhere", reason)
    return re.sub(r"[+-]?\d[\d.]*", "…", reason)


def reasons_left_out(rows: Sequence[StackRow]) -> tuple[ReleaseReason, ...]:
    """Why frames of the groups are in no stack, and how often; the most frequent first."""
    reasons = Counter(_kind_of(rejected.reason) for row in rows for rejected in row.rejected)
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return tuple(ReleaseReason(reason=reason, n_frames=n) for reason, n in ordered)
