"""A frame on its way: raw, reduced, solved, calibrated. Each stage accepts only what the one before it makes."""

from __future__ import annotations

from datetime import datetime
from enum import IntFlag
from typing import Any, Literal

from pydantic import Field, model_validator

from models.base import FileRef, Record, RelativePath

__all__ = [
    "AstrometryStatus",
    "CalibratedFrame",
    "ColourFit",
    "ColourTerm",
    "FrameFailure",
    "FramePsf",
    "FrameRecord",
    "Kind",
    "MaskBit",
    "MasterBias",
    "MasterFlat",
    "MeasuredFrame",
    "PhotometryStatus",
    "PlateSolution",
    "Quality",
    "RawFrame",
    "ReducedFrame",
    "Rejected",
    "SearchStep",
    "SolvedFrame",
    "ZeroPoint",
]

Kind = Literal["bias", "dark", "flat", "science", "junk"]
AstrometryStatus = Literal["OK", "HIGH_RMS", "FAILED", "PENDING"]
PhotometryStatus = Literal["OK", "NO_PS1_BAND", "FEW_STARS", "FAILED", "PENDING"]


class MaskBit(IntFlag):
    """Meaning of the bits of a frame's mask (uint8). A pixel is used only where the mask is 0."""

    BAD_PIXEL = 1
    SATURATED = 2
    BLEED = 4
    COSMIC_RAY = 8
    TRAIL = 16
    NO_DATA = 32
    LOW_RESPONSE = 64


class Rejected(Record):
    """A file left out, and why."""

    file: str
    reason: str


class FrameFailure(Record):
    """What stopped a frame: data, not an exception that crosses a flow."""

    file: str = Field(description="raw path, relative to the raw root")
    stage: str
    reason: str
    remedy: str
    pending: bool = Field(False, description="true: worth trying again later (a service was down)")


class RawFrame(Record):
    """A raw file, classified."""

    path: RelativePath = Field(description="relative to the raw root")
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file")
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$",
        max_length=120,
        description="stem of its products, unique in its night",
    )
    kind: Kind
    why: str = Field(description="how the kind was decided")
    telescope: str
    night: str = Field(pattern=r"^\d{8}$", description="local noon to noon, date of the evening")
    date_obs: datetime = Field(description="start of the exposure, UTC")
    exptime: float = Field(ge=0, description="s")
    binning: int = Field(ge=1)
    shape: tuple[int, int]
    filter: str | None = Field(None, description="canonical")
    object: str = ""
    ra: float | None = Field(None, description="the mount's word, deg, ICRS; may be off or absent")
    dec: float | None = None
    ccd_temp: float | None = Field(None, description="deg C")
    gain: float | None = Field(None, description="e-/ADU, where the header says it")
    read_noise: float | None = Field(None, description="e-, where the header says it")
    airmass: float | None = None

    @property
    def label(self) -> str:
        """Name of its reduced frame in headers and reports, unique over nights: ``{night}/{name}.fits``."""
        return f"{self.night}/{self.name}.fits"

    @property
    def year(self) -> int:
        """Year of the night."""
        return int(self.night[:4])

    @property
    def mid_exposure_mjd(self) -> float:
        """Middle of the exposure, MJD (UTC)."""
        return self.date_obs.timestamp() / 86400.0 + 40587.0 + self.exptime / 2 / 86400.0

    @property
    def mid_exposure_jyear(self) -> float:
        """Middle of the exposure as a Julian year."""
        return 2000.0 + (self.mid_exposure_mjd - 51544.5) / 365.25


class MasterBias(Record):
    """The mean, clipped bias of a year."""

    file: FileRef
    telescope: str
    year: int
    binning: int
    n_combined: int = Field(ge=1)
    level_adu: float
    read_noise_e: float | None = Field(None, description="measured from pairs of biases, e-")
    rejected: tuple[Rejected, ...] = ()


class MasterFlat(Record):
    """The normalised flat of a year and filter. Its file carries the bad-pixel mask as its second HDU."""

    file: FileRef
    telescope: str
    year: int
    binning: int
    filter: str
    n_combined: int = Field(ge=1)
    level_adu: float = Field(description="median level of the flats that went in, ADU")
    rejected: tuple[Rejected, ...] = ()


class ReducedFrame(Record):
    """Science, mask and variance on disk."""

    raw: RawFrame
    file: FileRef
    bias: str | None = Field(description="digest of the master bias, None: no bias of that year")
    flat: str | None = Field(description="digest of the master flat, None: FLATCORR NONE")
    gain: float = Field(gt=0, description="e-/ADU used for the variance")
    read_noise: float = Field(ge=0, description="e- used for the variance")
    masked_fraction: float
    notes: tuple[str, ...] = Field((), description="what was not done, in words")


class Quality(Record):
    """What `sep` measured on a reduced frame."""

    fwhm_px: float | None
    fwhm_arcsec: float | None
    elongation: float | None
    sky_adu: float
    sky_sigma: float
    saturated_fraction: float
    n_sources: int
    flags: tuple[str, ...] = ()


class MeasuredFrame(Record):
    """A reduced frame with its quality and its source list (FITS table, see `tasks.quality`)."""

    reduced: ReducedFrame
    quality: Quality
    sources: FileRef

    @property
    def raw(self) -> RawFrame:
        """The raw frame."""
        return self.reduced.raw


class PlateSolution(Record):
    """Where a frame looks: a TAN-SIP solution and how well it is known."""

    wcs: FileRef = Field(description="FITS header (TAN-SIP) of the solution, no data")
    ra: float = Field(description="of the frame's centre, deg, ICRS")
    dec: float
    pixel_scale: float = Field(description="arcsec/px")
    rotation_deg: float = Field(description="position angle of +y, deg, north through east")
    parity: Literal[-1, 1]
    rms_arcsec: float
    n_matched: int
    reference: str = Field(description="what it was verified against and at which epoch")


class SolvedFrame(Record):
    """A measured frame with a verified plate solution."""

    measured: MeasuredFrame
    solution: PlateSolution
    status: Literal["OK", "HIGH_RMS"]
    fwhm_arcsec: float | None = Field(None, description="of sources matched to the reference: cosmic rays do not count")

    @property
    def raw(self) -> RawFrame:
        """The raw frame."""
        return self.measured.raw

    @property
    def reduced(self) -> ReducedFrame:
        """The reduced frame."""
        return self.measured.reduced


class ColourFit(Record):
    """Slope of ``m_PS1 - m_inst`` against colour as one frame's stars give it, whatever term its zero point used."""

    term: float
    photon_error: float = Field(ge=0, description="from noise of this frame alone")
    star_error: float = Field(ge=0, description="from what the same stars carry to every frame: the catalogue's errors")


class ZeroPoint(Record):
    """``m = -2.5 log10(flux / exptime) + zp`` with flux in ADU, for stars of PS1 colour 0 at the frame's centre."""

    status: PhotometryStatus
    reason: str = ""
    zp: float | None = None
    zp_err: float | None = None
    zp_rms: float | None = None
    n_stars: int = 0
    n_matched: int = 0
    colour_term: float | None = None
    colour_term_err: float | None = Field(None, description="its part of `zp_err` is this times `colour_mean`")
    colour_mean: float | None = Field(None, description="of the stars used, weighted; mag")
    own_colour: ColourFit | None = Field(None, description="None: too few stars or too small a range of colour")
    colour_curvature: float | None = Field(None, description="coefficient of the colour's square, given by the profile")
    equation: str = Field("", description="the natural magnitude in terms of PS1's")
    vega_zp: float | None = Field(None, description="with `vega_colour_term`: the standard Vega system, B V R")
    vega_colour_term: float | None = None
    vega_equation: str = ""
    aperture_px: float | None = None
    catalogue: str | None = None


class ColourTerm(Record):
    """Colour term of a filter, from many frames: ``m_PS1 + term * colour (+ curvature * colour^2) = m_inst + zp``."""

    filter: str
    term: float
    error: float = Field(ge=0)
    n_frames: int = Field(ge=1)
    n_nights: int = Field(1, ge=1)
    date: str = Field("", description="last night it was fitted on, YYYY-MM-DD")


class CalibratedFrame(Record):
    """A solved frame whose zero point was asked for; `zero_point.status` says what came of it."""

    solved: SolvedFrame
    zero_point: ZeroPoint

    @property
    def raw(self) -> RawFrame:
        """The raw frame."""
        return self.solved.raw

    @property
    def reduced(self) -> ReducedFrame:
        """The reduced frame."""
        return self.solved.reduced


class FramePsf(Record):
    """The PSFEx model of a frame and the catalogue it was made from (which SCAMP reads, too)."""

    psf: FileRef
    catalogue: FileRef = Field(description="SExtractor's LDAC catalogue")
    fwhm_px: float
    fwhm_arcsec: float
    ellipticity: float
    chi2: float
    n_stars_accepted: int


class SearchStep(Record):
    """Where a frame was looked for, how long at most, and what came of it."""

    step: Literal["header", "name", "known fields", "blind"] = Field(
        description="near the header's position, near what OBJECT names, in all known fields, over every index file"
    )
    where: str
    limit_s: float = Field(description="CPU time allowed, s")
    found: bool
    reason: str = Field("", description="why it was not found there")


class FrameRecord(Record):
    """All that is known of one science frame after `reduce_year`: how far it came, and what stopped it."""

    raw: RawFrame
    reduced: ReducedFrame | None = None
    measured: MeasuredFrame | None = None
    quality: Quality | None = None
    solved: SolvedFrame | None = None
    calibrated: CalibratedFrame | None = None
    colour_term: ColourTerm | None = Field(None, description="of its filter and year; None: the profile's, or none")
    psf: FramePsf | None = None
    published: FileRef | None = Field(None, description="the reduced FITS file with all keywords")
    failures: tuple[FrameFailure, ...] = ()
    search: tuple[SearchStep, ...] = Field((), description="of its plate solution, in order")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_furthest(cls, given: Any) -> Any:
        """A later product holds the earlier ones: what is not given is taken from it."""
        if not isinstance(given, dict):
            return given
        filled = dict(given)
        for later, earlier in (
            ("calibrated", "solved"),
            ("solved", "measured"),
            ("measured", "reduced"),
            ("measured", "quality"),
            ("reduced", "raw"),
        ):
            product = filled.get(later)
            if product is not None and filled.get(earlier) is None:
                filled[earlier] = product[earlier] if isinstance(product, dict) else getattr(product, earlier)
        return filled

    @property
    def pending(self) -> bool:
        """Whether something this frame needs may come later."""
        zero_point = self.calibrated.zero_point if self.calibrated else None
        return any(failure.pending for failure in self.failures) or (
            zero_point is not None and zero_point.status == "PENDING"
        )

    def compact(self) -> dict[str, Any]:
        """JSON values without the products that a later one holds; `model_validate` gives the record back."""
        chain = ["raw", "reduced", "measured", "solved", "calibrated"]
        furthest = max(index for index, name in enumerate(chain) if getattr(self, name) is not None)
        redundant = set(chain[:furthest]) | ({"quality"} if self.measured is not None else set())
        return self.model_dump(mode="json", exclude=redundant)
