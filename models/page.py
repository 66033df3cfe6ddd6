"""What the release's pages show: pictures with their words, frames as their tables tell them, cards for the index."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from models.base import FileRef, Record

__all__ = [
    "AstrometricCheck",
    "CompressedDownload",
    "Download",
    "FilterCard",
    "GroupCard",
    "GroupPictures",
    "PageFrame",
    "Picture",
    "StackPictures",
    "StackPlots",
    "YearCard",
]


class Picture(Record):
    """A picture of a page, and what it says to somebody who does not see it."""

    file: FileRef
    alt: str = Field(min_length=1, description="what it shows, in words")
    width: int = Field(ge=1, description="as it is laid out, CSS px")
    height: int = Field(ge=1)


class AstrometricCheck(Record):
    """Positions on a stack against Gaia at the epoch of its frames."""

    n_stars: int
    epoch: float = Field(description="Julian year Gaia was moved to: the frames' mean, by exposure time")
    rms_mas: float | None = Field(description="robust scatter an axis about the median, mas; null: too few stars")
    offset_ra_mas: float | None = Field(description="median of stack - Gaia, on the sky")
    offset_dec_mas: float | None


class StackPictures(Record):
    """A stack, its weight and its depth over the field."""

    view: Picture
    weight: Picture
    depth: Picture | None = Field(description="null: no depth is known (a relative scale, or no empty sky)")
    depth_quartiles: tuple[float, float, float] | None = Field(
        None, description="25, 50 and 75 % of the covered field are at least as deep as this, deepest first; mag"
    )


class StackPlots(Record):
    """What was measured on a stack, as plots."""

    psf: Picture | None
    photometry: Picture | None
    astrometry: Picture | None
    positions: AstrometricCheck | None = None
    remarks: tuple[str, ...] = Field((), description="why one of them is missing")


class GroupPictures(Record):
    """Of all filters of a group."""

    colour: Picture | None = Field(description="Lupton et al. (2004); null: nothing is covered in all its bands")
    bands: tuple[str, ...] = Field((), description="red, green, blue; two bands: green is their mean; one: grey")
    field_arcsec: tuple[float, float] | None = Field(None, description="width and height of the colour picture")
    overlay: Picture | None = Field(None, description="line emission, transparent elsewhere; the same pixels")
    overlay_says: str = Field("", description="how the overlay was made, or why there is none")
    thumbnail: Picture | None = None
    frames: Picture | None = Field(None, description="seeing and zero point of each frame against time")


class PageFrame(Record):
    """A frame in a page's table or timeline."""

    # In the tables alone: no picture is drawn anew for them.
    outside_keys: ClassVar[frozenset[str]] = frozenset({"group", "object", "reason", "remedy", "stage"})

    label: str
    night: str
    start: str = Field(description="UTC, ISO, to the second")
    mjd: float = Field(description="mid-exposure")
    filter: str
    object: str
    exptime_s: float
    airmass: float | None
    seeing_arcsec: float | None
    zp: float | None
    zp_err: float | None
    rms_mas: float | None = Field(description="of the plate solution")
    flags: tuple[str, ...]
    status: Literal["used", "reduced", "left out", "pending", "failed"] = Field(
        description="used: in a stack; reduced: solved and measured (a year's page does not ask for stacks)"
    )
    stage: str = ""
    reason: str = ""
    remedy: str = ""
    group: str = ""


class CompressedDownload(Record):
    """The tile-compressed copy of a file that a page links to."""

    path: str = Field(description="relative to the page")
    bytes: int
    sha256: str
    loss_rms: float | None = Field(description="rms of copy - image, over the image's noise; null: it loses nothing")


class Download(Record):
    """A file that a page links to."""

    name: str
    path: str = Field(description="relative to the page")
    what: str
    bytes: int
    sha256: str
    compressed: CompressedDownload | None = Field(None, description="its tile-compressed copy")


class FilterCard(Record):
    """A stack in a line."""

    filter: str
    n_frames: int
    exptime_s: float
    fwhm_arcsec: float | None
    depth_5sigma: float | None
    validated: bool


class GroupCard(Record):
    """What the index tells of a group; ``page.json`` beside its page."""

    schema_version: Literal[1] = 1
    group: str
    telescope: str
    type: str
    members: tuple[str, ...]
    ra: float
    dec: float
    filters: tuple[FilterCard, ...]
    years: tuple[int, ...]
    n_left_out: int
    n_pending: int
    not_made: tuple[str, ...] = Field(description="filters without a stack")
    thumbnail: Picture | None


class YearCard(Record):
    """What the index tells of a year; ``page.json`` beside its page."""

    schema_version: Literal[1] = 1
    year: int
    telescope: str
    n_nights: int
    n_frames: int
    n_calibrated: int
    n_pending: int
    n_failed: int
