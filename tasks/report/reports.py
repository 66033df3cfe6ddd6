"""Report files: rows from frame and stack records, written whole, each with a JSON Schema from its model."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from astropy.time import Time
from pydantic import ValidationError

from models.base import Record, Roots
from models.frame import FrameFailure, FrameRecord
from models.release import SCHEMAS
from models.report import (
    REPORTS,
    AstrometryRow,
    FrameStatsRow,
    GroupRow,
    PhotometryCheckRow,
    PhotometryRow,
    PsfRow,
    Report,
    StackPsfRow,
    StackRow,
)
from models.telescope import Telescope
from tasks.core.errors import StageError
from tasks.core.files import write_json
from tasks.report.versions import software_versions

__all__ = [
    "FRAMES_FILE",
    "gathered_report",
    "groups_on_record",
    "read_report",
    "read_years",
    "stack_rows",
    "versions",
    "write_frames",
    "write_report",
    "write_schemas",
    "year_rows",
]

_log = logging.getLogger("ohp.report")

FRAMES_FILE = "frames.json"
"""All that is known of each science frame of a year, for the programs that follow: list of `FrameRecord`."""

_NOTHING: Mapping[str, str] = MappingProxyType({})
_TOOLS = ("solve-field", "source-extractor", "scamp", "SWarp", "psfex")


@functools.cache
def versions() -> dict[str, str]:
    """Of all that makes a product, looked up once: a release writes hundreds of reports."""
    return software_versions(_TOOLS)


def write_report(path: Path, kind: str, rows: Sequence[Record]) -> bool:
    """Write a report; one that is there with the same rows and versions stays, with the time it was made.

    Parameters
    ----------
    path
        The report file.
    kind
        A key of `models.report.REPORTS`.
    rows
        Rows of the kind's model.

    Returns
    -------
    bool
        Whether it was written.
    """
    report = REPORTS[kind].model_validate(
        {
            "schema": 1,
            "made": Time.now().utc.isot[:19] + "Z",
            "software": versions(),
            "rows": tuple(rows),
        }
    )
    content = report.model_dump(mode="json", by_alias=True)
    try:
        before = json.loads(path.read_bytes())
    except (OSError, ValueError):  # not there, or not whole
        before = None
    if isinstance(before, dict) and before | {"made": content["made"]} == content:
        return False
    write_json(path, content)
    return True


def read_report(path: Path, kind: str) -> Report[Any]:
    """Read a report back.

    Raises
    ------
    StageError
        If the file is missing or is no report of that kind.
    """
    try:
        return SCHEMAS[kind].model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise StageError("report", f"{path} cannot be read: {error}", "run the command that makes it again") from error


def write_schemas(folder: Path) -> None:
    """Write the JSON Schema of every report, generated from its model; one that is there as it should be stays."""
    for kind in SCHEMAS:
        path, schema = folder / f"{kind}.schema.json", _schema(kind)
        try:
            if json.loads(path.read_bytes()) == schema:
                continue
        except (OSError, ValueError):  # not there, or not whole
            pass
        write_json(path, schema)


@functools.cache
def _schema(kind: str) -> dict[str, Any]:
    return SCHEMAS[kind].model_json_schema(mode="serialization")


def write_frames(records: Sequence[FrameRecord], folder: Path) -> None:
    """Write the records of a year's science frames for the stacks to come."""
    write_json(folder / FRAMES_FILE, [record.compact() for record in records])


@functools.lru_cache(maxsize=32)
def _frames(path: Path, identity: tuple[int, ...]) -> tuple[FrameRecord, ...]:
    """Records of one file; a release of forty groups reads it once."""
    return tuple(FrameRecord.model_validate(entry) for entry in json.loads(path.read_text(encoding="utf-8")))


def read_years(roots: Roots, telescope: Telescope) -> dict[int, tuple[FrameRecord, ...]]:
    """Records of every year that was reduced for a telescope.

    Raises
    ------
    StageError
        If a year's file cannot be read, naming it.
    """
    years: dict[int, tuple[FrameRecord, ...]] = {}
    for path in sorted(roots.data.glob(f"[0-9][0-9][0-9][0-9]/{telescope.name}/{FRAMES_FILE}")):
        year = int(path.parent.parent.name)
        try:
            status = path.stat()
            years[year] = _frames(path, (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        except (OSError, ValueError, ValidationError) as error:
            raise StageError(
                "report", f"{path} cannot be read: {error}", f"run python -m flows.reduce_year {year} again"
            ) from error
    return years


def groups_on_record(roots: Roots, telescope: Telescope) -> list[GroupRow]:
    """The groups that the frames reduced so far show; none where no year was reduced."""
    path = roots.data / "stacks" / f"{telescope.name}_groups_report.json"
    rows = read_report(path, "groups_report").rows if path.is_file() else ()
    return [row for row in rows if isinstance(row, GroupRow)]


def _file(record: FrameRecord) -> str:
    if record.reduced is not None:
        return record.reduced.file.path
    return f"raw:{record.raw.path}"


def _stopped_by(record: FrameRecord, stages: Iterable[str] = ()) -> FrameFailure:
    """What kept a frame from a stage: the last failure, or a plain statement that there is none."""
    wanted = set(stages)
    for failure in record.failures:
        if not wanted or failure.stage in wanted:
            return failure
    if record.failures:
        return record.failures[-1]
    return FrameFailure(file=record.raw.path, stage="pipeline", reason="not reached", remedy="run the command again")


def _reason(failure: FrameFailure) -> str:
    return f"{failure.stage}: {failure.reason}"


def year_rows(
    records: Sequence[FrameRecord],
    group_of: Mapping[str, str],
    notes: Mapping[str, str] = _NOTHING,
    moving: Mapping[str, str] = _NOTHING,
) -> dict[str, list[Record]]:
    """Rows of a year's four reports: every science frame is in each, with what stopped it where it did.

    Parameters
    ----------
    records
        The year's science frames.
    group_of, notes, moving
        By the frames' labels: the group that each shows, what there is to say about its OBJECT, and why it is taken
        for a frame of a moving target (`tasks.fields.group_frames`).
    """
    rows: dict[str, list[Record]] = {"frame_stats": [], "astrom_report": [], "phot_report": [], "psf_report": []}
    for record in records:
        rows["frame_stats"].append(_stats_row(record))
        rows["astrom_report"].append(_astrometry_row(record, group_of, notes, moving))
        rows["phot_report"].append(_photometry_row(record))
        rows["psf_report"].append(_psf_row(record))
    return rows


def _stats_row(record: FrameRecord) -> FrameStatsRow:
    quality, raw = record.quality, record.raw
    failure = None if quality else _stopped_by(record)
    return FrameStatsRow(
        file=_file(record),
        night=raw.night,
        object=raw.object,
        filter=raw.filter or "",
        fwhm_px=quality.fwhm_px if quality else None,
        fwhm_arcsec=quality.fwhm_arcsec if quality else None,
        elongation=quality.elongation if quality else None,
        sky_adu=quality.sky_adu if quality else None,
        sky_sigma=quality.sky_sigma if quality else None,
        saturated_fraction=quality.saturated_fraction if quality else None,
        n_sources=quality.n_sources if quality else None,
        flags=quality.flags if quality else (),
        status="FAILED" if failure else "OK",
        reason=_reason(failure) if failure else "; ".join(record.reduced.notes if record.reduced else ()),
        remedy=failure.remedy if failure else "",
    )


def _astrometry_row(
    record: FrameRecord, group_of: Mapping[str, str], notes: Mapping[str, str], moving: Mapping[str, str]
) -> AstrometryRow:
    solved = record.solved
    if solved is None:
        failure = _stopped_by(record, ["plate solution", "catalogues"])
        return AstrometryRow(
            file=_file(record),
            status="PENDING" if failure.pending else "FAILED",
            reason=_reason(failure),
            rms_arcsec=None,
            n_matched=None,
            ra=None,
            dec=None,
            pixel_scale=None,
            rotation_deg=None,
            group=None,
            remedy=failure.remedy,
            search=record.search,
        )
    solution = solved.solution
    return AstrometryRow(
        file=_file(record),
        status=solved.status,
        reason=f"verified against {solution.reference}",
        rms_arcsec=solution.rms_arcsec,
        n_matched=solution.n_matched,
        ra=solution.ra,
        dec=solution.dec,
        pixel_scale=solution.pixel_scale,
        rotation_deg=solution.rotation_deg,
        group=group_of.get(record.raw.label),
        note=notes.get(record.raw.label, ""),
        search=record.search,
        moving=moving.get(record.raw.label, ""),
    )


def _photometry_row(record: FrameRecord) -> PhotometryRow:
    if record.calibrated is None:
        failure = _stopped_by(record, ["photometry", "plate solution", "catalogues"])
        return PhotometryRow(
            file=_file(record),
            status="PENDING" if failure.pending else "FAILED",
            reason=_reason(failure),
            zp=None,
            zp_err=None,
            zp_rms=None,
            n_stars=None,
            n_matched=None,
            colour_term=None,
            aperture_px=None,
            remedy=failure.remedy,
        )
    point = record.calibrated.zero_point
    return PhotometryRow(
        file=_file(record),
        status=point.status,
        reason=point.reason,
        zp=point.zp,
        zp_err=point.zp_err,
        zp_rms=point.zp_rms,
        n_stars=point.n_stars,
        n_matched=point.n_matched,
        colour_term=point.colour_term,
        aperture_px=point.aperture_px,
        catalogue=point.catalogue,
        remedy=_REMEDIES.get(point.status, ""),
    )


_REMEDIES: dict[str, str] = {
    "FAILED": "look at the frame: was it in focus, is its exposure time right?",
    "FEW_STARS": "none needed for a stack: there the stars that the frames share give its scale",
    "NO_PS1_BAND": "none needed for a stack: there a broad band's stars give its scale",
    "PENDING": "run python -m flows.retry_queries when the archive answers",
}


def _psf_row(record: FrameRecord) -> PsfRow:
    psf = record.psf
    failure = None if psf else _stopped_by(record, ["PSF", "psf"])
    status: Literal["OK", "FAILED", "PENDING"] = "OK"
    if failure is not None:
        status = "PENDING" if failure.pending else "FAILED"
    return PsfRow(
        file=_file(record),
        fwhm_px=psf.fwhm_px if psf else None,
        fwhm_arcsec=psf.fwhm_arcsec if psf else None,
        ellipticity=psf.ellipticity if psf else None,
        chi2=psf.chi2 if psf else None,
        n_stars_accepted=psf.n_stars_accepted if psf else None,
        status=status,
        reason=_reason(failure) if failure else "",
        remedy=failure.remedy if failure else "",
    )


_STACK_KINDS: dict[str, type[Record]] = {
    "stack_all_report": StackRow,
    "phot_check_report": PhotometryCheckRow,
    "stack_psf_report": StackPsfRow,
}


def gathered_report(roots: Roots, telescope: Telescope, kind: str) -> Path:
    """A report over all groups of a telescope: ``stacks/{kind}.json`` of the T120, ``{kind}_{telescope}`` of others."""
    suffix = "" if telescope.name == "T120" else f"_{telescope.name}"
    return roots.data / "stacks" / f"{kind}{suffix}.json"


def stack_rows(roots: Roots, telescope: Telescope, group: str, new: Mapping[str, Sequence[Record]]) -> None:
    """Write a group's rows and gather the rows of all groups into the three reports under ``stacks/``.

    Each group keeps its own files beside its stacks and the common ones are gathered from those, so that two
    groups made at once never lose each other's rows.

    Raises
    ------
    StageError
        If another group's rows cannot be read.
    """
    folder = roots.data / "stacks"
    for kind, rows in new.items():
        write_report(folder / group / telescope.name / f"{kind}.json", kind, rows)
    for kind in _STACK_KINDS:
        gathered: list[Record] = []
        for path in sorted(folder.glob(f"*/{telescope.name}/{kind}.json")):
            gathered += read_report(path, kind).rows
        write_report(gathered_report(roots, telescope, kind), kind, gathered)
