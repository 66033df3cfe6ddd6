"""Reports: what a person or a script reads after a run. Keys are a contract."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import ConfigDict, Field

from models.base import Record
from models.frame import AstrometryStatus, Kind, PhotometryStatus, Rejected, SearchStep

__all__ = [
    "AstrometryRow",
    "FrameStatsRow",
    "GroupRow",
    "InventoryRow",
    "PhotometryCheckRow",
    "PhotometryRow",
    "PsfRow",
    "REPORTS",
    "Report",
    "StackPsfRow",
    "StackRow",
]


class InventoryRow(Record):
    """One raw file."""

    path: str
    kind: Kind
    why: str
    telescope: str | None
    night: str | None
    filter: str | None
    exptime: float | None
    binning: int | None
    object: str
    ra: float | None
    dec: float | None


class FrameStatsRow(Record):
    """Quality of a reduced frame."""

    file: str
    night: str
    object: str
    filter: str
    fwhm_px: float | None
    fwhm_arcsec: float | None
    elongation: float | None
    sky_adu: float | None
    sky_sigma: float | None
    saturated_fraction: float | None
    n_sources: int | None
    flags: tuple[str, ...]
    status: Literal["OK", "FAILED"] = "OK"
    reason: str = ""
    remedy: str = ""


class AstrometryRow(Record):
    """Plate solution of a frame."""

    file: str
    status: AstrometryStatus
    reason: str
    rms_arcsec: float | None
    n_matched: int | None
    ra: float | None
    dec: float | None
    pixel_scale: float | None
    rotation_deg: float | None
    group: str | None
    remedy: str = ""
    note: str = Field("", description="where OBJECT or the header's position and the sky disagree, in plain words")
    search: tuple[SearchStep, ...] = Field((), description="where it was looked for, in order")
    moving: str = Field("", description="why it is taken for a frame of a moving target; empty: it is not")


class GroupRow(Record):
    """A group that the solved frames of all years show."""

    telescope: str
    group: str
    ra: float
    dec: float
    named_by: Literal["table", "resolver", "position"]
    type: str
    words: tuple[str, ...] = Field(description="what OBJECT says, the commonest first")
    nights: tuple[str, ...]
    filters: tuple[str, ...]
    n_frames: int
    n_disagree: int = Field(description="frames whose OBJECT or header position says another place")
    patches: int = Field(description="heaps of frames that overlap within and not among each other")
    moving: str
    notes: tuple[str, ...] = Field(description="where the sky and the table of targets differ")


class PhotometryRow(Record):
    """Zero point of a frame."""

    file: str
    status: PhotometryStatus
    reason: str
    zp: float | None
    zp_err: float | None
    zp_rms: float | None
    n_stars: int | None
    n_matched: int | None
    colour_term: float | None
    aperture_px: float | None
    catalogue: str | None = None
    remedy: str = ""


class PsfRow(Record):
    """PSF of a frame."""

    file: str
    fwhm_px: float | None
    fwhm_arcsec: float | None
    ellipticity: float | None
    chi2: float | None
    n_stars_accepted: int | None
    status: Literal["OK", "FAILED", "PENDING"] = "OK"
    reason: str = ""
    remedy: str = ""


class StackRow(Record):
    """A stack of a group and filter, made or not."""

    group: str
    filter: str
    file: str | None
    n_combined: int
    n_rejected: int
    rejected: tuple[Rejected, ...]
    combine: str
    fwhm_arcsec: float | None
    depth_5sigma: float | None
    status: Literal["OK", "FAILED", "TOO_FEW_FRAMES", "PENDING"]
    reason: str
    extended: str | None = Field(None, description="the file for extended targets; null: not made")
    extended_reason: str = Field("", description="how that was made, or why not")


class PhotometryCheckRow(Record):
    """A stack against PS1: ours (isolated stars, colour term, stars that the tie did not use) and the release's way."""

    group: str
    filter: str
    validated: bool
    reason: str
    zp_offset: float | None
    zp_err: float | None
    zp_rms: float | None
    n_stars: int | None
    release_offset: float | None = Field(None, description="zp_offset by the release's method: no cuts, no colour term")
    release_rms: float | None = None
    release_n_stars: int | None = None


class StackPsfRow(Record):
    """PSF of a stack."""

    group: str
    filter: str
    fwhm_px: float | None
    fwhm_arcsec: float | None
    ee50_arcsec: float | None
    ee80_arcsec: float | None
    ellipticity: float | None
    n_stars: int | None
    chi2: float | None


RowT = TypeVar("RowT", bound=Record)


class Report(Record, Generic[RowT]):
    """A report file."""

    schema_version: Literal[1] = Field(1, alias="schema")
    made: str = Field(description="ISO time, UTC")
    software: dict[str, str] = Field(description="versions of what made it")
    rows: tuple[RowT, ...]

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, ser_json_inf_nan="null")


REPORTS: dict[str, type[Report[Any]]] = {
    "inventory": Report[InventoryRow],
    "frame_stats": Report[FrameStatsRow],
    "astrom_report": Report[AstrometryRow],
    "groups_report": Report[GroupRow],
    "phot_report": Report[PhotometryRow],
    "psf_report": Report[PsfRow],
    "stack_all_report": Report[StackRow],
    "phot_check_report": Report[PhotometryCheckRow],
    "stack_psf_report": Report[StackPsfRow],
}
