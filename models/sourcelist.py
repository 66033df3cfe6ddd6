"""The source list of a group: one table of all sources in all bands."""

from __future__ import annotations

from enum import IntFlag
from pathlib import Path

from pydantic import Field

from models.base import FileRef, Record, Roots

__all__ = ["APERTURES_FWHM", "FLAG_WORDS", "SourceBand", "SourceFlag", "SourceList", "source_list_paths"]

APERTURES_FWHM = (1.0, 1.5, 3.0)
"""Radii of the circular apertures, FWHM of the band's PSF. The last is the one `PHOTZP` of a stack is tied in."""


class SourceFlag(IntFlag):
    """What is to be known of a source, or of its measurement in a band; 0: nothing is wrong."""

    MASKED = 1
    EDGE = 2
    SATURATED = 4
    BLENDED = 8
    CROWDED = 16
    LOW_WEIGHT = 32
    NO_DATA = 64
    NO_PSF = 128
    BAD_FIT = 256
    FEWER_FRAMES = 512


FLAG_WORDS = {
    SourceFlag.MASKED: "a pixel without a value within 1 FWHM",
    SourceFlag.EDGE: "the aperture of 1.5 FWHM reaches beyond the image or its covered part",
    SourceFlag.SATURATED: "a pixel above SATURATE within 1 FWHM",
    SourceFlag.BLENDED: "neighbours add more than 5 % to its light in the aperture of 1.5 FWHM",
    SourceFlag.CROWDED: "in a crowded part of the field: PSF flux from the fit of all stars there together",
    SourceFlag.LOW_WEIGHT: "less than half of the usual weight within 1 FWHM",
    SourceFlag.NO_DATA: "no pixel of the band within 1 FWHM: nothing was measured",
    SourceFlag.NO_PSF: "the band has no PSF: no PSF flux, small apertures without correction",
    SourceFlag.BAD_FIT: "the PSF fit did not work",
    SourceFlag.FEWER_FRAMES: "some frames lack pixels within 1 FWHM: with other seeing, as its fluxes and errors know",
}
"""The flags in words, as the tables say them."""


class SourceBand(Record):
    """A band of a source list."""

    filter: str
    column: str = Field(description="ending of its columns")
    zero_point: float | None = Field(description="mag; null: the scale is relative, there are no magnitudes")
    fwhm_px: float
    n_stars: int = Field(description="stars that the aperture corrections rest on")
    aperture_correction: tuple[float, ...] = Field(description="of each aperture to the largest, mag")
    psf_correction: float | None = Field(description="of the PSF magnitudes to the largest aperture, mag")
    noise_factor: tuple[float, ...] = Field(description="noise of each aperture over that of independent pixels")
    psf_noise_factor: float | None
    floor: tuple[float, ...] = Field(description="part of each aperture's error that does not fall with flux, mag")
    psf_floor: float | None
    n_measured: int


class SourceList(Record):
    """A group's source list, as files and in numbers."""

    group: str
    telescope: str
    fits: FileRef
    parquet: FileRef
    n_sources: int
    n_crowded: int
    detected_on: tuple[str, ...]
    bands: tuple[SourceBand, ...]
    n_gaia: int | None = Field(description="sources with a Gaia identifier; null: there was no catalogue")
    n_ps1: int | None
    notes: tuple[str, ...] = ()


def source_list_paths(group: str, telescope: str, roots: Roots) -> tuple[Path, Path]:
    """``stacks/{group}/{telescope}/{group}_cat.fits`` and ``.parquet``."""
    folder = roots.data / "stacks" / group / telescope
    return folder / f"{group}_cat.fits", folder / f"{group}_cat.parquet"
