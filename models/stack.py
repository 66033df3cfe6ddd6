"""Stacks: one group, one filter, and what went into it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from models.base import FileRef, Record, Roots
from models.frame import CalibratedFrame, Rejected

__all__ = [
    "ZERO_POINT",
    "AlignedFrame",
    "ExtendedStack",
    "Grid",
    "GroupSources",
    "ScaledFrame",
    "Scaling",
    "Selection",
    "Stack",
    "StackLinearity",
    "StackNoise",
    "StackColour",
    "StackPaths",
    "StackPsf",
    "StackTie",
    "StackValidation",
    "stack_paths",
]


ZERO_POINT = 30.0
"""Zero point of every calibrated stack, mag: ``m = -2.5 log10(flux) + 30``. People's scripts depend on it."""


class StackPaths(Record):
    """Where the files of a stack lie, absolute.

    `stacking.combine` writes ``work_image`` and ``work_weight``, which later stages read; `finish_stack`
    publishes them as ``image`` and ``weight`` once PSF and validation are known.
    """

    image: Path
    weight: Path
    psf: Path
    extended: Path = Field(description="image for extended targets; the weight is that of `image`")
    plots: Path = Field(description="folder")
    rejected: Path = Field(description="map of the frames left out, on request")
    coverage: Path = Field(description="map of the frames combined, on request")
    work_image: Path
    work_weight: Path
    work_rejected: Path
    work_coverage: Path
    work_compared: Path


def stack_paths(group: str, telescope: str, filter: str, roots: Roots) -> StackPaths:
    """Names of the files of a stack: ``stacks/{group}/{telescope}/{group}_{filter}.fits`` and those beside it."""
    folder = roots.data / "stacks" / group / telescope
    work = roots.data / ".cache" / "stacks" / group / telescope
    stem = f"{group}_{filter}"
    return StackPaths(
        image=folder / f"{stem}.fits",
        weight=folder / f"{stem}.weight.fits",
        psf=folder / f"{stem}_psf.fits",
        extended=folder / f"{stem}_ext.fits",
        plots=folder / "plots",
        rejected=folder / f"{stem}_nrej.fits",
        coverage=folder / f"{stem}_ncov.fits",
        work_image=work / f"{stem}.fits",
        work_weight=work / f"{stem}.weight.fits",
        work_rejected=work / f"{stem}_nrej.fits",
        work_coverage=work / f"{stem}_ncov.fits",
        work_compared=work / f"{stem}_ps1.npz",
    )


class AlignedFrame(Record):
    """A calibrated frame with a validated `.head`."""

    # Only told: the joint solution says them anew for every frame when one frame of the group changes.
    outside_keys: ClassVar[frozenset[str]] = frozenset({"reason", "rms_arcsec", "n_matched"})

    frame: CalibratedFrame
    head: FileRef = Field(description="SWarp/SCAMP external header (TPV), without FLXSCALE")
    source: Literal["scamp", "joint", "plate", "common"] = Field(
        description="joint: our own fit of the season's frames to Gaia is better than SCAMP's; "
        "plate: both were refused, or the frame's own plate solution is much better; "
        "common: no Gaia, fitted to the stars that the group's frames have in common"
    )
    reason: str = ""
    rms_arcsec: float = Field(description="of the frame's stars against the reference through this head")
    n_matched: int
    ra: float
    dec: float


class ScaledFrame(Record):
    """An aligned frame whose flux scale to the stack's zero point is known."""

    aligned: AlignedFrame
    zero_point: float | None = Field(description="mag for 1 ADU/s; None: only the relative scale is known")
    flux_scale: float = Field(gt=0, description="SWarp's FLXSCALE: ADU of the frame to ADU of the stack")
    scale_source: str = Field(description="'PS1', 'common stars', ...")
    weight: FileRef | None = None


class StackColour(Record):
    """The natural system of a stack's magnitudes in terms of PS1."""

    term: float
    error: float = Field(ge=0)
    curvature: float = 0.0
    date: str = Field("", description="last night the term was fitted on, YYYY-MM-DD; empty: given by the profile")
    equation: str = Field(description="in words")
    vega_zp: float | None = Field(None, description="with `vega_term`: the standard Vega system, B V R")
    vega_term: float | None = None
    vega_equation: str = ""


class Scaling(Record):
    """The frames of one filter with their flux scale, and those whose scale nothing tells."""

    scaled: tuple[ScaledFrame, ...]
    rejected: tuple[Rejected, ...] = ()
    n_common_stars: int = Field(0, description="stars that tie the frames together")
    colour: StackColour | None = Field(None, description="of a narrow band, from its continuum stars")
    notes: tuple[str, ...] = ()


class Selection(Record):
    """The frames of one filter that enter the stack, and those that do not."""

    group: str
    filter: str
    chosen: tuple[ScaledFrame, ...] = Field(description="empty: the filter is not stacked, `reason` says why")
    rejected: tuple[Rejected, ...] = ()
    status: Literal["OK", "TOO_FEW_FRAMES"] = "OK"
    reason: str = ""
    colour: StackColour | None = Field(None, description="of a narrow band, from its continuum stars")
    notes: tuple[str, ...] = ()


class Grid(Record):
    """The grid all filters of a group share: TAN, north up."""

    ra: float = Field(description="CRVAL1, deg")
    dec: float = Field(description="CRVAL2, deg")
    pixel_scale: float = Field(gt=0, description="arcsec/px")
    nx: int = Field(ge=1)
    ny: int = Field(ge=1)


class StackPsf(Record):
    """PSF of a stack."""

    file: FileRef
    fwhm_px: float
    fwhm_arcsec: float
    ee50_arcsec: float
    ee80_arcsec: float
    ellipticity: float
    n_stars: int
    chi2: float
    method: str = "PSFEx"


class StackValidation(Record):
    """A stack against PS1."""

    validated: bool
    reason: str
    zp_offset: float | None = None
    zp_err: float | None = None
    zp_rms: float | None = None
    n_stars: int = 0
    release_offset: float | None = Field(None, description="the same by the release's method, for comparison")
    release_rms: float | None = None
    release_n_stars: int | None = None


class StackTie(Record):
    """How far a combined image was from PS1: combining by the median dims stars where the seeing is mixed."""

    offset: float = Field(description="mag that its magnitudes were too faint by; its flux is raised by as much")
    err: float
    n_stars: int
    half_offset: float = Field(description="the same from every second star; the others validate against it")


class GroupSources(Record):
    """Where the stacks of a group show anything but sky."""

    group: str
    map: FileRef = Field(description="uint8 on the group's grid: 1 compact sources, 2 isophotes of larger objects")
    diameter_px: float = Field(description="of the circle of the largest object's area; 0: there is none")
    filter: str = Field(description="in which it is that large; empty: there is none")
    filters: tuple[str, ...] = Field(description="looked at")


class ExtendedStack(Record):
    """A stack for extended targets, made or not."""

    file: FileRef | None
    reason: str = Field(description="how it was made, or why not")
    sky: FileRef | None = Field(None, description="uint8 on the grid: 1 where the sky was fitted")
    sky_fraction: float | None = Field(None, description="share of the field that the sky was fitted on")
    degree: int | None = Field(None, description="of each frame's sky")
    sky_limit: float | None = Field(None, description="scatter of the sky over the field, mag/arcsec2")


class StackLinearity(Record):
    """Whether faint stars of a stack are on the scale of bright ones."""

    limit: ClassVar[float] = 0.010

    magnitude: float = Field(description="faint minus bright stars, against the mean of the same frames, mag")
    error: float
    n_bright: int
    n_faint: int

    @property
    def bent(self) -> bool:
        """Whether magnitudes depend on brightness by more than 10 mmag, and not by chance (2 sigma)."""
        return abs(self.magnitude) > max(self.limit, 2.0 * self.error)


class StackNoise(Record):
    """Noise of a stack in its own empty sky."""

    inverse_variance: float = Field(description="1 / variance of a pixel is this times the weight map")
    correlation: float = Field(
        description="noise of an aperture of 2 FWHM diameter over that of as many independent pixels"
    )
    aperture_sigma: float = Field(description="noise of such an aperture's sum, units of the stack")
    aperture_px: float = Field(description="its radius, px")
    n_apertures: int
    surface_brightness: float | None = Field(None, description="1 sigma in 1 arcsec2, mag/arcsec2")


class Stack(Record):
    """A coadded image with its weight map."""

    # Made from a finished stack, and said with it: nothing that is made of the stack depends on it. And what is
    # measured on its pixels: who reads that has all it was measured from in its own key.
    outside_keys: ClassVar[frozenset[str]] = frozenset({"extended", "compared"})

    group: str
    filter: str
    telescope: str
    image: FileRef
    weight: FileRef
    n_combined: int
    inputs: tuple[str, ...] = Field(description="names of the frames combined")
    rejected: tuple[Rejected, ...] = ()
    combine: str
    exptime_s: float = Field(description="summed, s")
    calibrated: bool = Field(description="false: PHOTZP is unknown, the scale is relative")
    psf: StackPsf | None = None
    tie: StackTie | None = Field(None, description="applied to the published image; None: the frames' scale stands")
    compared: FileRef | None = Field(None, description="PS1 stars as measured on the combined image, before the tie")
    validation: StackValidation | None = None
    colour: StackColour | None = Field(None, description="natural system of its magnitudes; None: colours play no part")
    scale_source: str = Field("", description="how the flux scale is known, as in the header's PHOTCAL")
    depth_5sigma: float | None = Field(None, description="5 sigma point source in an aperture of 2 FWHM diameter, mag")
    extended: ExtendedStack | None = Field(None, description="its companion for extended targets")

    linearity: StackLinearity | None = Field(None, description="None: too few stars to see it")
    noise: StackNoise | None = Field(None, description="None: no empty sky to measure it in")
    rejected_map: FileRef | None = Field(None, description="frames left out of each pixel; on request")
    coverage_map: FileRef | None = Field(None, description="frames combined in each pixel; on request")
    notes: tuple[str, ...] = ()
