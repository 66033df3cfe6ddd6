"""The release's own tables, gathered from the products: stack headers, reports, the years' frames."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS

from models.base import Record, Roots
from models.frame import FrameRecord
from models.release import (
    FilterCount,
    Release,
    ReleaseFigure,
    ReleaseFilter,
    ReleaseGroup,
    ReleaseStack,
    ReleaseSummary,
)
from models.report import PhotometryCheckRow, StackRow
from models.stack import stack_paths
from models.target import Target
from models.telescope import Telescope
from tasks.core.fitsio import quiet_fits
from tasks.report.release_contents import (
    alignment_facts,
    frame_psf_facts,
    keywords,
    limitations,
    masters_of,
    psf_facts,
    reasons_left_out,
    stage_facts,
    year_rows,
)
from tasks.report.release_files import compressed_rows, file_facts, source_rows
from tasks.report.reports import gathered_report, groups_on_record, read_report, read_years, versions

__all__ = ["gather_release"]

NONE = "none"
"""What a cell says that has nothing to say: never blank."""

T = TypeVar("T")
RowT = TypeVar("RowT", bound=Record)


@dataclass(frozen=True)
class _Product:
    """A stack's row in the report and, if its file is there, the header."""

    row: StackRow
    check: PhotometryCheckRow | None
    header: fits.Header | None
    problem: str

    def get(self, keyword: str, kind: Callable[..., T]) -> T | None:
        """A card's value; None where it is absent."""
        value = None if self.header is None else self.header.get(keyword)
        return None if value is None or isinstance(value, fits.card.Undefined) else kind(value)

    @property
    def years(self) -> tuple[int, ...]:
        """Of the nights of its frames, which their names begin with."""
        if self.header is None:
            return ()
        return tuple(sorted({int(str(value)[:4]) for value in self.header["INP*"].values()}))


def _rows(roots: Roots, telescope: Telescope, kind: str, model: type[RowT]) -> list[RowT]:
    path = gathered_report(roots, telescope, kind)
    rows = read_report(path, kind).rows if path.is_file() else ()
    return [row for row in rows if isinstance(row, model)]


def _product(row: StackRow, check: PhotometryCheckRow | None, roots: Roots) -> _Product:
    if row.status != "OK" or row.file is None:
        return _Product(row, check, None, "")
    try:
        with quiet_fits():
            header = fits.getheader(roots.data / row.file)
    except OSError as error:
        missing = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        return _Product(row, check, None, f"{row.file} {missing}; stack the group again")
    return _Product(row, check, header, "")


def _remark(product: _Product) -> str:
    if product.header is None:
        return product.problem or product.row.reason or "no reason on record"
    said = []
    if not product.header.get("PHOTCHK", False):
        why = product.get("PHOTWHY", str) or (product.check.reason if product.check else "") or "no reason on record"
        said.append(f"not validated: {why}")
    if product.get("FWHM_AS", float) is None:
        said.append("PSF not measured")
    if product.get("DEPTH5S", float) is None:
        relative = product.get("PHOTZP", float) is None
        said.append("no depth: " + ("the scale is relative" if relative else "no empty sky to measure it in"))
    return "; ".join(said) or NONE


def _stack(product: _Product) -> ReleaseStack:
    row = product.row
    made = product.header is not None
    return ReleaseStack(
        group=row.group,
        filter=row.filter,
        status="MISSING" if product.problem else row.status,
        file=row.file if made else None,
        n_frames=product.get("NCOMBINE", int) or 0,
        n_left_out=row.n_rejected,
        exptime_s=product.get("EXPTOTAL", float),
        years=product.years,
        combine=product.get("COMBTYPE", str),
        calibration=product.get("PHOTCAL", str),
        fwhm_arcsec=product.get("FWHM_AS", float),
        depth_5sigma=product.get("DEPTH5S", float),
        sb_limit_1sigma=product.get("SBLIM1", float),
        validated=product.get("PHOTCHK", bool),
        zp_offset=product.get("PHOTOFF", float),
        zp_rms=product.get("PHOTRMS", float),
        n_stars=product.get("PHOTNSTR", int),
        release_rms=product.check.release_rms if product.check and made else None,
        extended=bool(made and row.extended),
        remark=_remark(product),
    )


def _order(telescope: Telescope) -> Callable[[str], tuple[int, str]]:
    """Filters as the profile lists them, unknown ones last."""
    known = {band.name: number for number, band in enumerate(telescope.bands)}
    return lambda name: (known.get(name, len(known)), name)


def _centre(products: Iterable[_Product], target: Target | None) -> tuple[float | None, float | None]:
    for product in products:
        if product.header is not None:
            grid = WCS(product.header)
            x, y = ((product.header[f"NAXIS{axis}"] - 1) / 2 for axis in (1, 2))
            ra, dec = grid.all_pix2world(x, y, 0)
            return round(float(ra), 5), round(float(dec), 5)
    return (target.ra, target.dec) if target is not None else (None, None)


def _group(
    name: str, products: Sequence[_Product], target: Target | None, resolved: str, telescope: Telescope
) -> ReleaseGroup:
    """A row of the catalogue; `resolved`: the type that a resolver of names gave a group the table does not know."""
    stacks = sorted((_stack(product) for product in products), key=lambda stack: _order(telescope)(stack.filter))
    made = [stack for stack in stacks if stack.status == "OK"]
    ra, dec = _centre(products, target)
    remarks = [f"{stack.filter}: {stack.remark}" for stack in stacks if stack.status != "OK"]
    return ReleaseGroup(
        group=name,
        ra=ra,
        dec=dec,
        members=target.members if target is not None and target.merged else (),
        type=(target.type or "not said in the table of targets")
        if target
        else resolved or "not in the table of targets",
        filters=tuple(FilterCount(filter=stack.filter, n_frames=stack.n_frames) for stack in made),
        n_frames=sum(stack.n_frames for stack in made),
        n_left_out=sum(stack.n_left_out for stack in stacks),
        years=tuple(sorted({year for stack in made for year in stack.years})),
        remark="; ".join(remarks) or NONE,
    )


def _calibration(name: str, telescope: Telescope) -> tuple[str | None, bool, str]:
    """PS1 band, whether it is a narrow filter, and the calibration in words."""
    band = next((band for band in telescope.bands if band.name == name), None)
    if band is None:
        return None, False, f"not in the profile of {telescope.name}"
    if band.ps1 is not None:
        return band.ps1, band.narrow, f"{band.ps1}mag"
    if band.continuum is not None:
        return None, band.narrow, f"none; scaled to continuum stars in {band.continuum}"
    return None, band.narrow, "none; relative scale"


def _filters(stacks: Sequence[ReleaseStack], telescope: Telescope) -> tuple[ReleaseFilter, ...]:
    rows = []
    for name in sorted({stack.filter for stack in stacks}, key=_order(telescope)):
        made = [stack for stack in stacks if stack.filter == name and stack.status == "OK"]
        ps1, narrow, words = _calibration(name, telescope)
        rows.append(
            ReleaseFilter(
                filter=name,
                n_stacks=len(made),
                n_frames=sum(stack.n_frames for stack in made),
                exptime_s=round(sum(stack.exptime_s or 0.0 for stack in made), 3),
                ps1_band=ps1,
                narrow=narrow,
                calibration=words,
            )
        )
    return tuple(rows)


Section = Literal["photometry", "astrometry", "seeing", "depth", "frames"]


def _figure(
    section: Section, key: str, metric: str, unit: str, values: Sequence[float | None],
    how: Callable[[list[float]], float], of: str, digits: int = 3, least: int = 1,
) -> ReleaseFigure:  # fmt: skip
    """A statistic of the values that are known; too few of them is said."""
    known = [value for value in values if value is not None]
    if len(known) < least:
        some = f"only {len(known)}" if known else "none"
        return ReleaseFigure(
            section=section, key=key, metric=metric, value=None, unit=unit, n=len(known),
            remark=f"{some} of {len(values)} {of} {'has' if len(known) < 2 else 'have'} a value",
        )  # fmt: skip
    value = round(float(how(known)), digits)
    remark = f"{len(known)} of {len(values)} {of}"
    return ReleaseFigure(section=section, key=key, metric=metric, value=value, unit=unit, n=len(known), remark=remark)


def _count(section: Section, key: str, metric: str, flags: Sequence[bool], of: str) -> ReleaseFigure:
    return ReleaseFigure(
        section=section, key=key, metric=metric, value=float(sum(flags)), unit="", n=len(flags),
        remark=f"of {len(flags)} {of}",
    )  # fmt: skip


def _stack_quality(stacks: Sequence[ReleaseStack], telescope: Telescope) -> list[ReleaseFigure]:
    made = [stack for stack in stacks if stack.status == "OK"]
    native = {band.name for band in telescope.bands if band.ps1 is not None and band.name in ("g", "r", "i", "z", "y")}
    broad = [stack for stack in made if _calibration(stack.filter, telescope)[0] is not None]
    in_native = [stack for stack in broad if stack.filter in native]
    offsets, rms = [stack.zp_offset for stack in broad], [stack.zp_rms for stack in broad]
    said, names = "stacks with a PS1 band", ", ".join(sorted(native)) or NONE
    widths, depths = [stack.fwhm_arcsec for stack in made], [stack.depth_5sigma for stack in made]
    surface = [stack.sb_limit_1sigma for stack in made]
    median = statistics.median
    return [
        _count("photometry", "n_validated", "Stacks validated", [bool(stack.validated) for stack in broad], said),
        _figure("photometry", "zp_offset", "Median ZP offset", "mag", offsets, median, said),
        _figure("photometry", "zp_spread", "Standard deviation of offsets", "mag", offsets, statistics.stdev, said,
                least=2),
        _figure("photometry", "zp_rms", "Median internal RMS", "mag", rms, median, said),
        _figure("photometry", "zp_rms_native", f"Median internal RMS in {names}", "mag",
                [stack.zp_rms for stack in in_native], median, f"stacks in {names}"),
        _figure("photometry", "release_rms", "Median RMS by the method of the 2018–2025 release", "mag",
                [stack.release_rms for stack in broad], median, said),
        _figure("seeing", "fwhm_median", "Median stack FWHM", "arcsec", widths, median, "stacks", 2),
        _figure("seeing", "fwhm_best", "Best seeing", "arcsec", widths, min, "stacks", 2),
        _figure("seeing", "fwhm_worst", "Worst seeing", "arcsec", widths, max, "stacks", 2),
        _figure("depth", "depth_median", "Median 5 sigma depth", "mag", depths, median, "stacks", 2),
        _figure("depth", "depth_deepest", "Deepest", "mag", depths, max, "stacks", 2),
        _figure("depth", "depth_shallowest", "Shallowest", "mag", depths, min, "stacks", 2),
        _figure("depth", "sb_limit", "Median surface brightness limit, 1 sigma in 1 arcsec²", "mag/arcsec²", surface,
                median, "stacks", 2),
        _figure("depth", "sb_limit_deep", "The same of g and r stacks of more than 10 frames", "mag/arcsec²",
                [stack.sb_limit_1sigma for stack in made if stack.filter in ("g", "r") and stack.n_frames > 10],
                median, "such stacks", 2),
    ]  # fmt: skip


def _left_out(stacks: Sequence[ReleaseStack]) -> ReleaseFigure:
    n, asked = sum(stack.n_left_out for stack in stacks), sum(stack.n_left_out + stack.n_frames for stack in stacks)
    return ReleaseFigure(
        section="frames", key="n_left_out", metric="Frames left out of their group's stack", value=float(n), unit="",
        n=asked, remark=f"of {asked} frames of the groups; each with its reason in stack_all_report.json",
    )  # fmt: skip


def _frame_quality(records: Sequence[FrameRecord]) -> list[ReleaseFigure]:
    statuses = Counter(record.solved.status if record.solved else "unsolved" for record in records)
    points = [record.calibrated.zero_point for record in records if record.calibrated]
    asked = [point for point in points if point.status != "NO_PS1_BAND"]
    rms = [record.solved.solution.rms_arcsec for record in records if record.solved]
    return [
        _count("frames", "n_reduced", "Frames reduced", [record.reduced is not None for record in records], "frames"),
        _count("frames", "n_pending", "Frames that wait for a catalogue", [r.pending for r in records], "frames"),
        _count("astrometry", "n_ok", "Plate solutions OK",
               [bool(record.solved and record.solved.status == "OK") for record in records], "frames"),
        _count("astrometry", "n_high_rms", "Plate solutions HIGH_RMS",
               [bool(record.solved and record.solved.status == "HIGH_RMS") for record in records],
               f"frames; {statuses['unsolved']} have no solution"),
        _figure("astrometry", "rms", "Median rms of the plate solutions", "arcsec", rms, statistics.median,
                "solutions"),
        _count("photometry", "n_frame_zp", "Frames with a zero point", [p.status == "OK" for p in asked],
               "solved frames in a band of PS1"),
        _figure("photometry", "frame_zp_err", "Median error of a frame's zero point", "mag",
                [point.zp_err for point in asked if point.status == "OK"], statistics.median, "frames", 4),
        _figure("seeing", "frame_fwhm", "Median FWHM of the frames' PSFs", "arcsec",
                [record.psf.fwhm_arcsec if record.psf else None for record in records], statistics.median, "frames", 2),
    ]  # fmt: skip


def _unique(values: Iterable[T | None]) -> tuple[T, ...]:
    return tuple(sorted({value for value in values if value is not None}))  # type: ignore[type-var]


def _summary(
    products: Sequence[_Product], stacks: Sequence[ReleaseStack], records: Sequence[FrameRecord],
    roots: Roots, telescope: Telescope,
) -> ReleaseSummary:  # fmt: skip
    made = [stack for stack in stacks if stack.status == "OK"]
    there = [product for product in products if product.header is not None]
    paths = [stack_paths(stack.group, telescope.name, stack.filter, roots) for stack in made]
    kinds = {
        "n_images": [path.image for path in paths],
        "n_weights": [path.weight for path in paths],
        "n_psfs": [path.psf for path in paths],
        "n_extended": [path.extended for path, stack in zip(paths, made, strict=True) if stack.extended],
    }
    files = {kind: [path for path in found if path.is_file()] for kind, found in kinds.items()}
    mean = roots.data / "stacks" / f"{telescope.name}_mean_psf.fits"
    narrow = sum(_calibration(stack.filter, telescope)[1] for stack in made)
    years = sorted({record.raw.year for record in records})
    rows, columns = telescope.camera.shape
    return ReleaseSummary(
        telescope=telescope.name,
        description=telescope.description or telescope.name,
        camera=f"{columns} x {rows} px at binning {telescope.camera.binning}",
        n_groups=len({stack.group for stack in made}),
        n_stacks=len(made),
        n_broadband=len(made) - narrow,
        n_narrowband=narrow,
        n_frames_combined=sum(stack.n_frames for stack in made),
        n_frames_reduced=sum(record.reduced is not None for record in records),
        n_frames_observed=len(records),
        exptime_s=round(sum(stack.exptime_s or 0.0 for stack in made), 3),
        years=tuple(years),
        years_without=tuple(sorted(set(range(years[0], years[-1])) - set(years))) if years else (),
        first=min((value for p in there if (value := p.get("DATE-OBS", str))), default=None),
        last=max((value for p in there if (value := p.get("DATE-END", str))), default=None),
        zero_points=_unique(product.get("PHOTZP", float) for product in there),
        pixel_scales=_unique(product.get("PIXSCALE", float) for product in there),
        projections=_unique(product.get("CTYPE1", str) for product in there),
        coordinate_systems=_unique(product.get("RADESYS", str) for product in there),
        combine=_unique(product.get("COMBTYPE", str) for product in there),
        resampling=_unique(product.get("RESAMPLE", str) for product in there),
        **{kind: len(found) for kind, found in files.items()},
        n_mean_psf_frames=_n_combined(mean),
        bytes=sum(path.stat().st_size for found in files.values() for path in found) + _size(mean),
        other_telescopes=_others(roots, telescope),
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _n_combined(path: Path) -> int | None:
    try:
        with quiet_fits():
            return int(fits.getval(path, "NCOMBINE"))
    except (OSError, KeyError):
        return None


def _others(roots: Roots, telescope: Telescope) -> tuple[str, ...]:
    folders = {path.parent.name for path in (roots.data / "stacks").glob("*/*/stack_all_report.json")}
    return tuple(sorted(folders - {telescope.name}))


def gather_release(roots: Roots, telescope: Telescope, targets: Mapping[str, Target]) -> Release:
    """What the products under a data root say of themselves, as a data release tells it.

    Numbers of a stack come from its own header; what was not made, and why, from ``stack_all_report.json``; the
    release's way of validating from ``phot_check_report.json``; of the frames, from each year's ``frames.json``.

    Parameters
    ----------
    roots, telescope
        Whose stacks.
    targets
        Tells the members and the type of a group; its place comes from the stacks.

    Raises
    ------
    StageError
        If a report or a year's ``frames.json`` cannot be read. A stack that cannot be is listed as ``MISSING``.
    """
    checks = {(row.group, row.filter): row for row in _rows(roots, telescope, "phot_check_report", PhotometryCheckRow)}
    order = _order(telescope)
    reported = _rows(roots, telescope, "stack_all_report", StackRow)
    products = [
        _product(row, checks.get((row.group, row.filter)), roots)
        for row in sorted(reported, key=lambda row: (row.group.casefold(), row.group, order(row.filter)))
    ]
    by_year = read_years(roots, telescope)
    records = [record for year in by_year.values() for record in year]
    stacks = [_stack(product) for product in products]
    types = {row.group: row.type for row in groups_on_record(roots, telescope)}
    of_group: dict[str, list[_Product]] = defaultdict(list)
    for product in products:
        of_group[product.row.group].append(product)
    summary = _summary(products, stacks, records, roots, telescope)
    headers = {(each.row.group, each.row.filter): each.header for each in products if each.header is not None}
    grids: dict[str, list[fits.Header]] = defaultdict(list)
    for (group, _), header in headers.items():
        grids[group].append(header)
    paths = [stack_paths(group, telescope.name, name, roots) for group, name in headers]
    masters = masters_of(roots, telescope, by_year)
    return Release(
        schema_version=1,
        made=Time.now().utc.isot[:19] + "Z",
        software=versions(),
        rows=tuple(
            _group(name, mine, targets.get(name), types.get(name, ""), telescope) for name, mine in of_group.items()
        ),
        summary=summary,
        filters=_filters(stacks, telescope),
        stacks=tuple(stacks),
        quality=tuple(_stack_quality(stacks, telescope) + _frame_quality(records) + [_left_out(stacks)]),
        keywords=keywords(
            {
                "image": [each.image for each in paths],
                "weight": [each.weight for each in paths],
                "psf": [each.psf for each in paths],
            }
        ),
        years=year_rows(by_year, masters),
        reasons=reasons_left_out(reported),
        sources=source_rows(of_group, roots, telescope),
        compressed=compressed_rows(roots, telescope),
        facts=(
            *psf_facts([each.psf for each in paths], roots.data / "stacks" / f"{telescope.name}_mean_psf.fits"),
            *alignment_facts(grids),
            *stage_facts(records, masters, list(headers.values())),
            *frame_psf_facts(records),
            *file_facts(stacks, roots, telescope),
        ),
        limitations=limitations(stacks, headers, summary.other_telescopes),
    )
