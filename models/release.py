"""The release's own tables: what a data release document says of itself, gathered from the products."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from models.base import FileRef, Record, RelativePath
from models.provenance import Provenance
from models.report import REPORTS, Report

__all__ = [
    "COMPRESSED",
    "SCHEMAS",
    "CompressedImage",
    "FilterCount",
    "Release",
    "ReleaseCompressed",
    "ReleaseFact",
    "ReleaseFigure",
    "ReleaseFilter",
    "ReleaseGroup",
    "ReleaseKeyword",
    "ReleaseReason",
    "ReleaseSources",
    "ReleaseStack",
    "ReleaseSummary",
    "ReleaseYear",
]


COMPRESSED = "compressed"
"""Folder of the tile-compressed copy, beside ``stacks``."""


class CompressedImage(Record):
    """The tile-compressed copy of an image."""

    file: FileRef
    source: RelativePath


class FilterCount(Record):
    """How many frames a group's stack of a filter holds."""

    filter: str
    n_frames: int


class ReleaseGroup(Record):
    """A row of the target catalogue."""

    group: str
    ra: float | None = Field(description="of the stacks' common grid, deg; of the table of targets without a stack")
    dec: float | None
    members: tuple[str, ...] = Field(description="fields merged into the group; empty: a single target")
    type: str
    filters: tuple[FilterCount, ...] = Field(description="stacked, in the profile's order")
    n_frames: int = Field(description="combined, over all filters")
    n_left_out: int
    years: tuple[int, ...]
    remark: str = Field(description="what was not made, and why; 'none': all was made")


class ReleaseFilter(Record):
    """A row of the filter inventory."""

    filter: str
    n_stacks: int
    n_frames: int
    exptime_s: float
    ps1_band: str | None
    narrow: bool
    calibration: str = Field(description="the band in words, or what stands in for it")


class ReleaseStack(Record):
    """A stack, made or not: what its own header says."""

    group: str
    filter: str
    status: Literal["OK", "FAILED", "TOO_FEW_FRAMES", "PENDING", "MISSING"] = Field(
        description="MISSING: the report names a file that is not there, or cannot be read"
    )
    file: RelativePath | None
    n_frames: int
    n_left_out: int
    exptime_s: float | None
    years: tuple[int, ...]
    combine: str | None
    calibration: str | None = Field(description="PS1, CONTINUUM or RELATIVE")
    fwhm_arcsec: float | None
    depth_5sigma: float | None
    sb_limit_1sigma: float | None = Field(description="mag/arcsec2")
    validated: bool | None = Field(description="null: was not asked")
    zp_offset: float | None
    zp_rms: float | None
    n_stars: int | None
    release_rms: float | None = Field(description="zp_rms by the release's method (phot_check_report)")
    extended: bool = Field(description="there is a second image for extended targets")
    remark: str = Field(description="why it was not made, not validated or not measured; 'none'")


class ReleaseFigure(Record):
    """A figure of quality."""

    section: Literal["photometry", "astrometry", "seeing", "depth", "frames"]
    key: str
    metric: str = Field(description="in words")
    value: float | None
    unit: str
    n: int = Field(description="what it was taken over")
    remark: str = Field(description="of what; where there is no value, why not")


class ReleaseSummary(Record):
    """The release in numbers."""

    telescope: str
    description: str
    camera: str
    n_groups: int = Field(description="with at least one stack")
    n_stacks: int
    n_broadband: int
    n_narrowband: int
    n_frames_combined: int
    n_frames_reduced: int
    n_frames_observed: int = Field(description="science frames of the years reduced")
    exptime_s: float = Field(description="of all stacks")
    years: tuple[int, ...] = Field(description="with science frames")
    years_without: tuple[int, ...] = Field(description="between the first and the last of them")
    first: str | None = Field(description="start of the first exposure combined, UTC")
    last: str | None = Field(description="end of the last one")
    zero_points: tuple[float, ...] = Field(description="PHOTZP of the stacks that have one")
    pixel_scales: tuple[float, ...] = Field(description="arcsec/px")
    projections: tuple[str, ...]
    coordinate_systems: tuple[str, ...]
    combine: tuple[str, ...]
    resampling: tuple[str, ...]
    n_images: int
    n_weights: int
    n_psfs: int
    n_extended: int
    n_mean_psf_frames: int | None = Field(description="PSF models in the mean PSF; null: there is none")
    bytes: int = Field(description="of all these files")
    other_telescopes: tuple[str, ...] = Field(description="that have stacks under the same root")


class ReleaseKeyword(Record):
    """A keyword of a kind of product, as its files have it."""

    product: Literal["image", "weight", "psf"]
    keyword: str = Field(description="INPnnnn stands for INP0001, INP0002 ...")
    description: str = Field(description="the card's own comment")
    value: str = Field(description="that all files share; else the range of numbers, or the texts")
    n: int = Field(description="files that have it")
    of: int = Field(description="files of that kind that could be read")


class ReleaseYear(Record):
    """How far the science frames of a year came, and the calibration frames in its masters."""

    year: int
    n_nights: int
    n_science: int
    n_reduced: int
    n_solved: int
    n_zero_points: int
    n_psf: int
    fwhm_arcsec: float | None = Field(description="median of the frames' PSFs")
    n_biases: int = Field(description="combined in master biases")
    n_flats: int = Field(description="combined in master flats")
    n_master_flats: int


class ReleaseSources(Record):
    """The source list of a group, by its own header and columns."""

    group: str
    file: RelativePath
    n_sources: int
    n_crowded: int = Field(description="in crowded parts of the field")
    filters: str = Field(description="bands")
    n_gaia: int = Field(description="with an identifier of Gaia")
    n_ps1: int = Field(description="with an identifier of PS1")


class ReleaseCompressed(Record):
    """A tile-compressed copy of an image, by its own header: what it lost, in units of the image's noise."""

    group: str
    file: RelativePath
    source: RelativePath = Field(description="the image")
    bytes: int
    source_bytes: int
    lossless: bool
    quantize_level: float | None = Field(description="steps a sigma of a row's noise; null: lossless, as all below")
    noise: float | None = Field(description="of the image's background, its unit")
    loss_rms: float | None = Field(description="rms of copy - image, over the noise")
    loss_largest: float | None = Field(description="of a pixel, over the noise")
    n_stars: int | None = Field(description="whose flux within 1.5 FWHM was compared")
    loss_flux: float | None = Field(description="rms change of their flux, over the sky's noise in the aperture")
    loss_mag: float | None = Field(description="largest change of a star, mag")


class ReleaseReason(Record):
    """Why frames of the groups are in no stack."""

    reason: str = Field(description="without its numbers")
    n_frames: int


class ReleaseFact(Record):
    """Something that the products say of themselves, in words for the document."""

    section: Literal["psf", "alignment", "stages", "frame_psf", "files"]
    key: str
    name: str
    value: str


class Release(Report[ReleaseGroup]):
    """The release's tables. ``rows`` is the target catalogue."""

    summary: ReleaseSummary
    filters: tuple[ReleaseFilter, ...]
    stacks: tuple[ReleaseStack, ...]
    quality: tuple[ReleaseFigure, ...]
    keywords: tuple[ReleaseKeyword, ...] = ()
    years: tuple[ReleaseYear, ...] = ()
    reasons: tuple[ReleaseReason, ...] = ()
    sources: tuple[ReleaseSources, ...] = ()
    compressed: tuple[ReleaseCompressed, ...] = Field((), description="empty: no compressed copy was asked for")
    facts: tuple[ReleaseFact, ...] = ()
    limitations: tuple[str, ...] = Field((), description="what a user should know of these very products")
    provenance: Provenance | None = Field(None, description="every file of the release, and where it comes from")


SCHEMAS: dict[str, type[Report[Any]]] = {**REPORTS, "release": Release}
"""Every report that has a JSON Schema."""
