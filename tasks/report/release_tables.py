"""The release's tables as files: JSON for programs, ECSV for tables, Markdown for people."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from astropy.table import Table
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from models.base import Roots
from models.release import Release, ReleaseFigure
from models.target import Target
from models.telescope import Telescope
from tasks.core.files import write_json, writing
from tasks.core.shown import in_markdown
from tasks.report.release import NONE, gather_release
from tasks.report.reports import gathered_report

__all__ = ["write_release"]

UNKNOWN = "unknown"
"""What a cell says whose value is not known; the row's remark says why."""

_TABLES = ("filters", "targets", "stacks", "quality")


def _cell(text: object) -> str:
    """Text for a cell of a Markdown table: shown as it reads, never blank."""
    return in_markdown(text) or NONE


def _figure(value: float | None, digits: int) -> str:
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def _value(figure: ReleaseFigure) -> str:
    if figure.value is None:
        return f"{UNKNOWN}: {figure.remark}"
    return f"{figure.value:g}{f' {figure.unit}' if figure.unit else ''} ({figure.remark})"


def _metrics(figures: Sequence[ReleaseFigure]) -> str:
    rows = [f"| {_cell(figure.metric)} | {_cell(_value(figure))} |" for figure in figures]
    return "\n".join(["| Metric | Value |", "|--------|-------|", *rows])


def _keyword_table(release: Release, product: str) -> str:
    """Keywords of a kind of product; of those that some files lack, how many have them."""
    rows = [row for row in release.keywords if row.product == product]
    lines = ["| Keyword | Description | Value |", "|---------|-------------|-------|"]
    for row in rows:
        some = "" if row.n == row.of else f" ({row.n} of {row.of} files)"
        value = f"{row.value or NONE}{some}"
        lines.append(f"| {_cell(row.keyword)} | {_cell(row.description)} | {_cell(value)} |")
    return "\n".join(lines if rows else [*lines, f"| {NONE} | no such file | {UNKNOWN} |"])


def _facts(release: Release, section: str, name: str, value: str) -> str:
    rows = [fact for fact in release.facts if fact.section == section]
    lines = [f"| {name} | {value} |", f"|{'-' * (len(name) + 2)}|{'-' * (len(value) + 2)}|"]
    return "\n".join([*lines, *(f"| {_cell(fact.name)} | {_cell(fact.value)} |" for fact in rows)])


def _listed(values: Sequence[object], unit: str = "") -> str:
    return (", ".join(str(value) for value in values) + (f" {unit}" if unit else "")) if values else UNKNOWN


def _years(release: Release) -> tuple[int, ...]:
    return tuple(sorted({year for row in release.rows for year in row.years}))


def _properties(release: Release) -> list[tuple[str, str]]:
    """Rows of the data summary."""
    s = release.summary
    zero = _listed([f"{value:g}" for value in s.zero_points], "mag") if s.zero_points else NONE
    n_relative = sum(stack.status == "OK" and stack.calibration == "RELATIVE" for stack in release.stacks)
    zero += f"; {n_relative} on a relative scale" if n_relative else ""
    mean = f"1 mean PSF of {s.n_mean_psf_frames} frames" if s.n_mean_psf_frames is not None else "no mean PSF"
    observed = f"{s.first} to {s.last} UTC" if s.first and s.last else UNKNOWN
    return [
        ("Telescope", _cell(s.description)),
        ("CCD", s.camera),
        ("Output pixel scale", _listed([f"{scale:.3f}" for scale in s.pixel_scales], "arcsec/px")),
        ("Projection", _listed(s.projections)),
        ("Coordinate system", _listed(s.coordinate_systems)),
        ("Photometric zero point", zero),
        ("Number of target groups", str(s.n_groups)),
        ("Number of stacks", f"{s.n_stacks} ({s.n_broadband} broadband + {s.n_narrowband} narrowband)"),
        (
            "Total input frames",
            f"{s.n_frames_combined} (from {s.n_frames_reduced} reduced of {s.n_frames_observed} {s.telescope} frames)",
        ),
        ("Total exposure time", f"{s.exptime_s:.0f} s"),
        ("Observing years", _listed(s.years)),
        ("Years without frames", _listed(s.years_without) if s.years_without else NONE),
        ("Exposures combined", observed),
        ("Combination method", _listed([name.capitalize() for name in s.combine])),
        ("Resampling", _listed([name.capitalize() for name in s.resampling])),
        (
            "Total data volume",
            f"{s.n_images} science images + {s.n_weights} weight maps + {s.n_psfs} PSF models + {mean} + "
            f"{s.n_extended} images for extended targets: {s.bytes / 1e6:.1f} MB",
        ),
        ("Other telescopes with stacks", ", ".join(s.other_telescopes) or NONE),
    ]


def _compressed(release: Release) -> list[list[str]]:
    """A row a group of the compressed copy: how much, and the worst of what was lost."""

    def worst(values: Iterable[float | None], digits: int) -> str:
        return _figure(max((value for value in values if value is not None), default=None), digits)

    rows = []
    for group, found in itertools.groupby(release.compressed, key=lambda row: row.group):
        every = list(found)
        lossy = [row for row in every if not row.lossless]
        rows.append(
            [
                _cell(group),
                str(len(lossy)),
                _listed(sorted({row.quantize_level for row in lossy if row.quantize_level is not None})),
                str(len(every) - len(lossy)),
                f"{sum(row.bytes for row in every) / 1e6:.1f}",
                f"{sum(row.source_bytes for row in every) / 1e6:.1f}",
                worst((row.loss_rms for row in lossy), 4),
                str(sum(row.n_stars or 0 for row in lossy)),
                worst((row.loss_flux for row in lossy), 4),
                worst((row.loss_mag for row in lossy), 5),
            ]
        )
    return rows


def _markdown(release: Release, names: Mapping[str, str]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # noqa: S701 (Markdown, not HTML; cells are escaped by `_cell`)  # nosec B701
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": _cell, "figure": _figure}
    years = _years(release)
    span = f"{years[0]}–{years[-1]}" if len(years) > 1 else str(years[0]) if years else UNKNOWN
    return environment.get_template("release.md").render(
        release=release,
        s=release.summary,
        names=names,
        years=years,
        span=span,
        plural=lambda number: "" if number == 1 else "s",
        properties=_properties(release),
        compressed=_compressed(release),
        software=", ".join(f"{name} {_cell(version)}" for name, version in release.software.items()),
        keyword_table=lambda product: _keyword_table(release, product),
        facts=lambda section, name, value: _facts(release, section, name, value),
        metrics=lambda section: _metrics([figure for figure in release.quality if figure.section == section]),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _columns(release: Release) -> dict[str, tuple[list[str], list[tuple[Any, ...]]]]:
    """Names and rows of each ECSV table."""
    return {
        "filters": (
            ["filter", "n_stacks", "n_frames", "exptime_s", "ps1_band", "narrow", "calibration"],
            [
                (row.filter, row.n_stacks, row.n_frames, row.exptime_s, row.ps1_band or NONE, row.narrow,
                 row.calibration)
                for row in release.filters
            ],
        ),
        "targets": (
            ["group", "ra", "dec", "members", "filters", "n_frames", "n_left_out", "years", "type", "remark"],
            [
                (
                    row.group, _number(row.ra), _number(row.dec), " ".join(row.members) or NONE,
                    " ".join(f"{each.filter}:{each.n_frames}" for each in row.filters) or NONE,
                    row.n_frames, row.n_left_out, " ".join(map(str, row.years)) or NONE, row.type, row.remark,
                )
                for row in release.rows
            ],
        ),
        "stacks": (
            ["group", "filter", "status", "file", "n_frames", "n_left_out", "exptime_s", "years", "combine",
             "calibration", "fwhm_arcsec", "depth_5sigma", "sb_limit_1sigma", "validated", "zp_offset", "zp_rms",
             "n_stars", "release_rms", "extended", "remark"],
            [
                (
                    row.group, row.filter, row.status, row.file or NONE, row.n_frames, row.n_left_out,
                    _number(row.exptime_s), " ".join(map(str, row.years)) or NONE, row.combine or NONE,
                    row.calibration or NONE, _number(row.fwhm_arcsec), _number(row.depth_5sigma),
                    _number(row.sb_limit_1sigma), bool(row.validated), _number(row.zp_offset), _number(row.zp_rms),
                    row.n_stars or 0, _number(row.release_rms), row.extended, row.remark,
                )
                for row in release.stacks
            ],
        ),
        "quality": (
            ["section", "key", "metric", "value", "unit", "n", "remark"],
            [
                (row.section, row.key, row.metric, _number(row.value), row.unit or NONE, row.n, row.remark)
                for row in release.quality
            ],
        ),
    }  # fmt: skip


def write_release(roots: Roots, telescope: Telescope, targets: Mapping[str, Target]) -> tuple[Path, ...]:
    """Write ``stacks/release.json``, ``.md`` and an ECSV a table (``release_T080.json`` ... of other telescopes).

    The same products give the same bytes, but for the date in JSON and Markdown. What is not known is null in JSON,
    NaN or ``none`` in ECSV, said in words in Markdown; the row's ``remark`` says why.

    Parameters
    ----------
    roots, telescope, targets
        As for `gather_release`.

    Returns
    -------
    tuple of Path
        The Markdown first.

    Raises
    ------
    StageError
        If a report cannot be read.
    """
    release = gather_release(roots, telescope, targets)
    json = gathered_report(roots, telescope, "release")
    paths = {name: gathered_report(roots, telescope, f"release_{name}").with_suffix(".ecsv") for name in _TABLES}
    text = _markdown(release, {"json": json.name, **{name: path.name for name, path in paths.items()}})
    write_json(json, release.model_dump(mode="json", by_alias=True))
    for name, (columns, rows) in _columns(release).items():
        table = Table(rows=rows, names=columns) if rows else Table(names=columns, dtype=[str] * len(columns))
        table.meta = {"telescope": telescope.name, "missing": f"nan or {NONE!r}; the remark says why"}
        with writing(paths[name]) as temporary:
            table.write(temporary, format="ascii.ecsv")
    page = json.with_suffix(".md")
    with writing(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return (page, json, *paths.values())
