"""What can be asked of the simulator, and the truth it keeps about what it drew."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from models.base import Record, RelativePath

__all__ = [
    "ArchiveFrame",
    "ArchiveTruth",
    "RehearsalOptions",
    "SIMULATED",
    "SimulationOptions",
    "Trail",
    "TrueFilter",
    "TrueFrame",
    "TrueWcs",
    "Truth",
]

SIMULATED = ("T120", "T080")
"""Telescopes that the simulator knows."""
FieldName = Literal["M51", "M67", "M13"]
FilterName = Literal["B", "V", "R", "g", "r", "i", "Ha", "Clear"]


class SimulationOptions(Record):
    """A simulated campaign. The defaults are the demonstration's."""

    seed: int = Field(1, ge=0, le=2**31, description="same seed, same bytes")
    years: tuple[int, ...] = Field((2019, 2023, 2025), description="years observed")
    fields: tuple[FieldName, ...] = Field(
        ("M51", "M67"), description="fields observed: M51, M67, M13 (a globular cluster)"
    )
    filters: tuple[FilterName, ...] = Field(
        (),
        description="filters, used every year: B V R g r i Ha (default: what each year used); Ha on M51 only; "
        "Clear: no filter, T080 and M67 only",
    )
    frames: int = Field(3, ge=1, le=200, description="frames of each field, filter and year")
    biases: int = Field(7, ge=0, le=100, description="biases a year")
    flats: int = Field(5, ge=0, le=100, description="flats of each filter and year")
    size: int = Field(1024, ge=256, le=4096, description="side of the frames, px; the T080's are 1.5 times as wide")
    oddities: bool = Field(True, description="mislabelled, underexposed and warm calibration frames among the others")
    real_m67: str | None = Field(
        None, description="file of Gaia's stars of M67 (CSV) to use in place of statistical ones"
    )

    telescope: Literal["T120", "T080"] = Field(
        "T120", description="whose frames", json_schema_extra={"option": "common"}
    )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a frame."""
        return (
            (self.size, self.size) if self.telescope == "T120" else (round(self.size * 1023 / 1024), self.size * 3 // 2)
        )

    @field_validator("years", mode="before")
    @classmethod
    def _years(cls, value: object) -> object:
        if not isinstance(value, list | tuple):
            return value
        if not all(str(item).strip().isdecimal() for item in value):
            raise ValueError("years are numbers such as 2019,2023")
        return tuple(int(item) for item in value)

    @field_validator("years")
    @classmethod
    def _sensible(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or any(not 2000 <= year <= 2099 for year in value):
            raise ValueError("years lie between 2000 and 2099, at least one of them")
        return value

    @field_validator("years", "fields", "filters")
    @classmethod
    def _distinct(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each only once")
        return value

    @field_validator("fields")
    @classmethod
    def _some(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        if not value:
            raise ValueError("at least one field")
        return value


class TrueWcs(Record):
    """TAN-SIP: pixel (1-based) to ICRS. ``A_3_0 = A_1_2 = B_0_3 = B_2_1 = k``: a purely radial distortion about CRPIX.

    With ``u = x - CRPIX1``, ``v = y - CRPIX2`` and ``s = 1 + k (u^2 + v^2)`` the plane coordinates in degrees
    are ``CD . (s u, s v)``, deprojected gnomonically about CRVAL.
    """

    crval: tuple[float, float]
    crpix: tuple[float, float]
    cd: tuple[tuple[float, float], tuple[float, float]]
    k: float = Field(description="px^-2")
    shape: tuple[int, int]


class Trail(Record):
    """A satellite's trail: a line through the whole frame."""

    x: float = Field(description="a point on it, 1-based px")
    y: float
    angle_deg: float = Field(description="counter-clockwise from +x")
    electrons_per_px: float = Field(description="along its length")


class TrueFilter(Record):
    """A filter's natural system: ``m_nat = PS1[ps1] + c1 x + c2 x^2``, ``x = PS1[colour[0]] - PS1[colour[1]]``.

    Anchored to PS1: a star of colour 0 has its PS1 magnitude.
    """

    ps1: str
    colour: tuple[str, str]
    c1: float
    c2: float
    extinction: float = Field(description="mag per airmass")


class TrueFrame(Record):
    """What a raw file really holds."""

    path: RelativePath
    sha256: str
    kind: Literal["bias", "flat", "science"]
    night: str
    date_obs: str
    exptime: float
    oddity: str | None = None
    bias_level_adu: float
    level_adu: float | None = Field(None, description="of a flat: median above the bias, ADU")
    filter: str | None = None
    field: str | None = None
    mid_mjd: float | None = None
    mid_jyear: float | None = None
    wcs: TrueWcs | None = None
    zero_point: float | None = Field(
        None,
        description="m_nat = -2.5 log10(ADU/exptime) + zero_point, all of a star's light, at the optical axis (CRPIX)",
    )
    seeing_arcsec: float | None = Field(None, description="FWHM of the PSF drawn (geometric mean of its axes)")
    moffat_beta: float | None = None
    ellipticity: tuple[float, float, float] | None = Field(
        None, description="e1, e2 constant over the frame; e radial, at the corners of a 1024 px frame"
    )
    airmass: float | None = None
    transparency: float | None = None
    sky_adu: float | None = Field(None, description="sky at the optical axis, ADU")
    header_offset_deg: float | None = Field(None, description="how far the header's pointing is from the true one")
    cosmic_ray_pixels: int = 0
    saturated_pixels: int = 0
    n_stars: int | None = Field(None, description="stars drawn whose centre lies on the frame")
    trails: tuple[Trail, ...] = ()


class Truth(Record):
    """Everything that went into a campaign."""

    schema_: int = Field(1, alias="schema", serialization_alias="schema")
    simulator: int = Field(description="version of the simulator")
    definitions: dict[str, str]
    options: SimulationOptions
    gain: float
    read_noise: float
    filters: dict[str, TrueFilter]
    stars: RelativePath = Field(description="FITS table of all stars and galaxies near the frames")
    frames: tuple[TrueFrame, ...]


Damage = Literal["dome closed", "thick cloud", "wrong field"]


class RehearsalOptions(Record):
    """A rehearsal of the release: how much of the archive, and what it is made to look like."""

    archive: str | None = Field(
        None, description="CSV of the archive's headers (default: ../shared/archive/t120_headers.csv of the checkout)"
    )
    fraction: float = Field(1.0, gt=0, le=1, description="part of the science frames; groups are taken whole")
    groups: tuple[str, ...] = Field((), description="these groups alone, in place of a fraction")
    size: int = Field(
        1024, ge=256, le=1024, description="side of the frames, px; smaller ones see less sky at the same scale"
    )
    seed: int = Field(1, ge=0, le=2**31, description="same seed, same sky and same bytes")
    damaged: float = Field(
        0.03, ge=0, le=0.5, description="part of the science frames spoilt: dome closed, thick cloud, wrong field"
    )


class ArchiveFrame(Record):
    """A file of the archive as it was played, and what it really shows."""

    path: RelativePath
    kind: Literal["bias", "flat", "science"]
    group: str | None = Field(None, description="the group whose sky it shows")
    filter: str | None = None
    damage: Damage | None = None
    copy_of: RelativePath | None = Field(None, description="the file whose bytes it has")
    frame: TrueFrame | None = Field(None, description="what was drawn; null: a copy")


class ArchiveTruth(Record):
    """Everything that was played."""

    schema_: int = Field(1, alias="schema", serialization_alias="schema")
    options: RehearsalOptions
    seconds: dict[str, float] = Field(description="processor seconds of a frame played, by kind")
    frames: tuple[ArchiveFrame, ...]
