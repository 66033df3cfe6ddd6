"""A telescope as its profile file describes it: what its camera is and how its files speak."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from models.base import Record
from models.frame import ColourTerm

__all__ = ["Band", "Camera", "Header", "Site", "Telescope", "TelescopeError", "load_telescope", "telescope_names"]

PS1Band = Literal["g", "r", "i", "z", "y"]


class TelescopeError(ValueError):
    """No profile of that name, or a profile that cannot be read."""


class Site(Record):
    """Where the telescope stands (WGS 84)."""

    latitude_deg: float = Field(ge=-90, le=90)
    longitude_deg: float = Field(ge=-180, le=180, description="east positive")
    elevation_m: float = 0.0


class Camera(Record):
    """The detector at the binning of its science frames."""

    shape: tuple[int, int] = Field(description="(NAXIS2, NAXIS1): rows, columns")
    binning: int = Field(1, ge=1)
    pixel_scale: float = Field(gt=0, description="nominal scale, arcsec/px")
    output_scale: float | None = Field(None, gt=0, description="scale of the stacks, arcsec/px; nominal when absent")
    parity: Literal[-1, 1, 0] = Field(0, description="sign of det(CD); 0 when unknown")
    rotation_deg: float | None = Field(None, description="position angle of the +y axis, deg; None when it varies")
    saturation_adu: float = 65535.0
    nonlinear_adu: float | None = Field(None, description="level above which the response bends, ADU")
    gain: float = Field(gt=0, description="e-/ADU")
    read_noise: float = Field(ge=0, description="e-")
    temperature_c: float | None = Field(None, description="set point; None: not checked")
    temperature_tolerance_c: float = 5.0
    bias_level_adu: float | None = Field(
        None,
        description="constant subtracted where a year has no bias frame; None: nothing is subtracted, and said so",
    )

    def scale_at(self, binning: int) -> float:
        """Nominal scale of a frame that is binned otherwise, arcsec/px."""
        return self.pixel_scale * binning / self.binning

    @property
    def grid_scale(self) -> float:
        """Scale of the stacks, arcsec/px."""
        return self.output_scale or self.pixel_scale


class Header(Record):
    """Which header keyword says what, first found wins."""

    date_obs: tuple[str, ...] = ("DATE-OBS",)
    exptime: tuple[str, ...] = ("EXPTIME", "EXPOSURE")
    filter: tuple[str, ...] = ("FILTER",)
    object: tuple[str, ...] = ("OBJECT",)
    imagetyp: tuple[str, ...] = ("IMAGETYP",)
    ra: tuple[str, ...] = ("OBJCTRA",)
    dec: tuple[str, ...] = ("OBJCTDEC",)
    ra_unit: Literal["hourangle", "deg"] = "hourangle"
    temperature: tuple[str, ...] = ("CCD-TEMP",)
    temperature_unit: Literal["C", "K"] = "C"
    binning: tuple[str, ...] = ("XBINNING",)
    gain: tuple[str, ...] = ()
    read_noise: tuple[str, ...] = ()
    airmass: tuple[str, ...] = ("AIRMASS",)


class Band(Record):
    """A filter: its canonical name, how people spell it, and what calibrates it.

    The natural magnitude is ``m = PS1[ps1] + colour_term * c + colour_curvature * c**2`` with
    ``c = PS1[colour[0]] - PS1[colour[1]]``; in Johnson-Cousins' Vega system it is
    ``PS1[ps1] + vega[0] + vega[1] * c + colour_curvature * c**2``.
    """

    outside_keys: ClassVar[frozenset[str]] = frozenset({"spellings"})

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$", description="canonical, as it stands in file names")
    spellings: tuple[str, ...] = Field(
        (), description="matched after folding case-insensitively only where unambiguous"
    )
    ps1: PS1Band | None = Field(None, description="PS1 band of the zero point; None: cannot be calibrated")
    colour: tuple[PS1Band, PS1Band] | None = None
    colour_term: float | None = Field(None, description="None: fitted by the pipeline or ignored, said in the header")
    colour_term_error: float = Field(0.0, ge=0, description="of `colour_term`, as far as it is known")
    colour_curvature: float = Field(0.0, description="coefficient of the colour's square: fixed, never fitted")
    vega: tuple[float, float] | None = Field(
        None, description="zero point and colour term of the standard Vega system against PS1 (B V R)"
    )
    narrow: bool = False
    continuum: str | None = Field(None, description="broad band whose stars scale a narrow one")


class Telescope(Record):
    """The profile of a telescope."""

    # How files are found and read: what comes of it is in each `RawFrame`.
    outside_keys: ClassVar[frozenset[str]] = frozenset(
        {"description", "header", "path_hints", "site", "suffixes", "unfiltered"}
    )

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    description: str = ""
    site: Site
    camera: Camera
    header: Header = Header()
    bands: tuple[Band, ...]
    unfiltered: str | None = Field(None, description="canonical name where the header names no filter; None: unknown")
    path_hints: tuple[str, ...] = Field((), description="words in a raw path that name this telescope")
    suffixes: tuple[str, ...] = (".fit", ".fits", ".fts")

    @model_validator(mode="after")
    def _bands_are_distinct(self) -> Telescope:
        names = [band.name for band in self.bands]
        if len(set(names)) != len(names):
            raise ValueError("two bands of one name")
        return self

    def with_colour_terms(self, terms: Iterable[ColourTerm]) -> Telescope:
        """The same profile with measured colour terms where it gives none of its own."""
        known = {term.filter: {"colour_term": term.term, "colour_term_error": term.error} for term in terms}
        bands = tuple(
            band.model_copy(update=known[band.name]) if band.colour_term is None and band.name in known else band
            for band in self.bands
        )
        return self if bands == self.bands else self.model_copy(update={"bands": bands})

    def band(self, name: str) -> Band:
        """The band of a canonical name.

        Raises
        ------
        KeyError
            If the profile has none of that name.
        """
        for band in self.bands:
            if band.name == name:
                return band
        raise KeyError(f"{self.name} has no filter {name!r}; its filters: {' '.join(b.name for b in self.bands)}")


_SHIPPED = Path(__file__).parent / "profiles"


def _profiles(data_root: Path | None) -> dict[str, Path]:
    folders = [_SHIPPED] + ([data_root / "telescopes"] if data_root else [])
    return {
        p.stem: p for folder in folders if folder.is_dir() for p in sorted(folder.glob("*.toml")) if p.stem != "targets"
    }


def telescope_names(data_root: Path | None = None) -> list[str]:
    """Names of the profiles at hand: shipped ones and those under ``data_root/telescopes``."""
    return sorted(_profiles(data_root))


def load_telescope(name: str, data_root: Path | None = None) -> Telescope:
    """Read a profile; one under ``data_root/telescopes`` goes before a shipped one of the same name.

    Raises
    ------
    TelescopeError
        With the names there are, or with the file and the entry that is wrong.
    """
    found = {stem.lower(): path for stem, path in _profiles(data_root).items()}
    path = found.get(name.lower())
    if path is None:
        there = ", ".join(telescope_names(data_root))
        raise TelescopeError(
            f"no telescope profile {name!r}; there are: {there}; "
            f"to add one: DATA_ROOT/telescopes/{name}.toml, see docs/new_telescope.md"
        )
    try:
        return Telescope.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TelescopeError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "profile"
        raise TelescopeError(f"{path}: {where}: {first['msg']}") from error
