"""Every number of the pipeline that a person may want to change, in one place.

One section a stage; a stage gets its own section and nothing else, so that a changed number reruns only
the stages that use it. Order of precedence: command line, environment (``OHP_SECTION__NAME``),
``$OHP_DATA_ROOT/pipeline.toml``, the defaults here, which are those of the data release unless said.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from models.base import Record, Roots
from models.catalog import Reference

__all__ = [
    "AstrometrySettings",
    "BiasSettings",
    "CatalogSettings",
    "FlatSettings",
    "PhotometrySettings",
    "PsfSettings",
    "QualitySettings",
    "ReductionSettings",
    "ReleaseSettings",
    "ScampSettings",
    "SelectionSettings",
    "Settings",
    "SourceSettings",
    "StackSettings",
    "ValidationSettings",
]


class BiasSettings(Record):
    """Master bias."""

    clip_sigma: float = Field(3.0, gt=0, description="clipping of each pixel's stack of values, sigma")
    level_sigma: float = Field(
        3.0, gt=0, description="a bias whose level is further from the group's median is left out, robust sigma"
    )
    level_floor_adu: float = Field(
        3.0, ge=0, description="never leave a bias out for a level difference below this, ADU"
    )


class FlatSettings(Record):
    """Master flats."""

    min_adu: float = Field(10_000, description="darkest median level of a usable flat, ADU above bias")
    max_adu: float = Field(55_000, description="brightest median level of a usable flat, ADU")
    max_quadrant_ratio: float = Field(1.15, gt=1, description="largest ratio between the quadrants' medians")
    level_sigma: float = Field(
        3.0, gt=0, description="a normalised flat that differs more from the others is left out, robust sigma"
    )
    dead_below: float = Field(0.5, description="response below which a pixel is bad, relative to its surroundings")
    hot_above: float = Field(1.5, description="response above which a pixel is bad, relative to its surroundings")


class ReductionSettings(Record):
    """From a raw to a reduced frame."""

    cosmic_rays: bool = Field(True, description="find cosmic rays (L.A.Cosmic)")
    cosmic_sigma: float = Field(5.0, gt=0, description="Laplacian significance of a cosmic ray, sigma")
    cosmic_objlim: float = Field(
        8.0, gt=0, description="contrast between Laplacian and fine structure that spares stars"
    )
    trails: bool = Field(True, description="find satellite and aeroplane trails")
    trail_sigma: float = Field(5.0, gt=0, description="significance of a straight line in the blurred frame, sigma")
    max_bad_fraction: float = Field(0.5, gt=0, le=1, description="a frame with more unusable pixels is rejected")


class QualitySettings(Record):
    """Frame quality (sep)."""

    threshold_sigma: float = Field(3.0, gt=0, description="detection threshold, sigma of the sky")
    min_area_px: int = Field(5, ge=1, description="connected pixels of a source")
    back_size_px: int = Field(64, ge=8, description="mesh of the sky map, px")
    min_fwhm_px: float = Field(2.0, gt=0, description="narrowest source that counts as a star, px")
    max_fwhm_px: float = Field(15.0, gt=0, description="widest source that counts as a star, px")
    low_sources: int = Field(5, ge=0, description="fewer sources raise LOW_SOURCES")
    bad_seeing_arcsec: float = Field(6.0, gt=0, description="a wider FWHM raises BAD_SEEING")
    elongated: float = Field(1.3, gt=1, description="a larger a/b raises ELONGATED")
    saturated_fraction: float = Field(0.01, gt=0, description="more pixels above 90 % of saturation raise SATURATED")


class AstrometrySettings(Record):
    """Plate solution and its check against Gaia."""

    # Of the search, whose stage gets it by itself; what ran into a time limit is not recorded.
    outside_keys: ClassVar[frozenset[str]] = frozenset({"blind_limit_s", "timeout_s"})

    reference: Literal["gaia", "index"] = Field(
        "gaia",
        description="what a plate solution is verified against: Gaia, or the index's own stars where there is no Gaia",
    )
    scale_low: float = Field(0.6, gt=0, description="smallest scale tried, times the nominal")
    scale_high: float = Field(1.4, gt=0, description="largest scale tried, times the nominal")
    cpu_limit_s: float = Field(30.0, gt=0, description="solve-field's CPU limit for one try, s")
    timeout_s: float = Field(360.0, gt=0, description="wall-clock limit of one run of solve-field, s")
    blind_limit_s: float = Field(
        60.0, ge=0, description="the same for the search in all known fields and for the blind one; 0: neither, s"
    )
    search_radius_deg: float = Field(1.0, gt=0, description="search around the position hint, deg")
    cone_margin_deg: float = Field(0.3, ge=0, description="what the header's pointing may be off by, deg")
    n_sources: int = Field(200, ge=10, description="brightest sources handed to the solver and matched to Gaia")
    fit_degree: int = Field(3, ge=1, le=3, description="polynomial degree of our own fit to Gaia (written as SIP)")
    gaia_limit: float = Field(18.0, description="faintest Gaia star matched, G")
    gaia_limit_sparse: float = Field(20.0, description="the same where fewer than 20 stars are brighter, G")
    match_arcsec: float = Field(2.0, gt=0, description="match radius of the verification, arcsec")
    ok_arcsec: float = Field(3.0, gt=0, description="largest sky rms for OK, arcsec")
    high_rms_arcsec: float = Field(10.0, gt=0, description="largest sky rms for HIGH_RMS; beyond it FAILED, arcsec")
    min_matched: int = Field(6, ge=3, description="fewer matched stars make a solution FAILED")


class PhotometrySettings(Record):
    """Zero point of a frame against PS1."""

    aperture_fwhm: float = Field(3.0, gt=0, description="aperture radius, FWHM")
    match_arcsec: float = Field(1.5, gt=0, description="match radius, arcsec")
    bright_mag: float = Field(14.5, description="brightest PS1 star used (brighter ones saturate in PS1)")
    faint_mag: float = Field(20.0, description="faintest PS1 star used")
    max_psf_kron: float = Field(0.05, gt=0, description="largest PSF - Kron magnitude of a star")
    isolation_fwhm: float = Field(4.0, ge=0, description="no neighbour brighter than a tenth of it within this, FWHM")
    min_stars: int = Field(5, ge=3, description="fewer stars give FEW_STARS")
    clip_sigma: float = Field(2.5, gt=0, description="clipping about the median, robust sigma")
    clip_iterations: int = Field(5, ge=1, description="rounds of clipping")
    min_snr: float = Field(10.0, gt=0, description="faintest star used, signal to noise")
    max_zp_err: float = Field(0.1, gt=0, description="a less certain zero point is FEW_STARS, mag")


class PsfSettings(Record):
    """Per-frame PSF (SExtractor and PSFEx)."""

    outside_keys: ClassVar[frozenset[str]] = frozenset({"timeout_s"})

    size_px: int = Field(25, ge=9, description="side of the PSF stamp, px")
    degree: int = Field(2, ge=0, le=4, description="polynomial degree of the PSF's variation over the field")
    min_snr: float = Field(20.0, gt=0, description="faintest star used, signal to noise")
    max_ellipticity: float = Field(0.3, gt=0, description="most elongated star used")
    threshold_sigma: float = Field(5.0, gt=0, description="detection threshold, sigma of the sky")
    back_size_px: int = Field(64, ge=8, description="mesh of SExtractor's sky map, px")
    vignet_px: int = Field(35, ge=15, description="side of the stamps cut around each star, px")
    timeout_s: float = Field(120.0, gt=0, description="wall-clock limit of one run of SExtractor or PSFEx, s")


class ScampSettings(Record):
    """Joint astrometric solution of a group."""

    degree: int = Field(3, ge=1, le=5, description="distortion degree (release: 1)")
    crossid_arcsec: float = Field(3.0, gt=0, description="cross-identification radius, arcsec")
    snr_low: float = Field(5.0, gt=0, description="faintest detection used, signal to noise")
    snr_high: float = Field(20.0, gt=0, description="the same for the high-S/N statistics")
    mag_bright: float = Field(10.0, description="brightest Gaia star used, G")
    mag_faint: float = Field(19.0, description="faintest Gaia star used, G")
    season_gap_days: float = Field(
        60.0, gt=0, description="a longer gap between nights starts a new season (one SCAMP run each)"
    )
    max_offset_arcsec: float = Field(
        0.3, gt=0, description="a .head whose stars are off Gaia by more (rms) is refused, arcsec"
    )
    min_matched: int = Field(6, ge=3, description="a .head with fewer Gaia matches is refused")
    timeout_s: float = Field(600.0, gt=0, description="wall-clock limit of one run, s")


class SelectionSettings(Record):
    """Which frames belong to a group and enter its stacks."""

    # What gathers frames into groups: which ones came out of it is in the keys.
    outside_keys: ClassVar[frozenset[str]] = frozenset({"min_overlap", "moving", "moving_arcmin"})

    radius_arcmin: float = Field(
        4.0, gt=0, description="largest distance of a frame's centre from a single target, arcmin"
    )
    merged_radius_deg: float = Field(0.5, gt=0, description="the same for merged groups, deg")
    min_overlap: float = Field(
        0.25, gt=0, le=1, description="share of a frame that must overlap another for the two to be in one group"
    )
    moving: bool = Field(False, description="stack the fields of moving targets, too")
    moving_arcmin: float = Field(
        4.0,
        gt=0,
        description="an OBJECT whose field goes further on a line from night to night is a moving target, arcmin",
    )
    max_det_ratio: float = Field(10.0, gt=1, description="largest factor between abs(det CD) and its median")
    zp_sigma: float = Field(
        2.0, gt=0, description="zero points further from their filter's median are left out, robust sigma"
    )
    zp_floor_mag: float = Field(0.3, ge=0, description="never left out for less than this, mag")
    min_frames: int = Field(2, ge=1, description="frames a filter needs to be stacked")
    exclude_flags: tuple[str, ...] = Field((), description="quality flags that keep a frame out")
    max_seeing_arcsec: float | None = Field(None, description="frames with a wider FWHM are left out")


class StackSettings(Record):
    """SWarp, and our own weighted mean."""

    # Those of the product beside the default one, whose stages get them one by one.
    outside_keys: ClassVar[frozenset[str]] = frozenset({"extended", "extended_degree", "extended_min_sky"})

    combine: Literal["median", "weighted", "clipped"] = Field(
        "median",
        description="combination of the frames: median, SWarp's clipped mean, or weighted mean without outliers",
        json_schema_extra={"flag": "--combine"},
    )
    clip_sigma: float = Field(
        5.0, gt=0, description="the weighted mean leaves out what is off the frames' median by more, sigma"
    )
    maps: bool = Field(
        False,
        description="write how many frames each pixel has and lacks (_ncov.fits, _nrej.fits)",
        json_schema_extra={"flag": "--maps"},
    )
    restore_light: bool = Field(
        True,
        description="bring stars, of which a median or a clipped mean loses light when seeing varies, to the flux "
        "of the weighted mean of the same frames",
    )
    resampling: Literal["LANCZOS3", "LANCZOS4", "BILINEAR", "LANCZOS2"] = Field(
        "LANCZOS3", description="resampling kernel"
    )
    back_size_px: int = Field(256, ge=16, description="mesh of the background that is subtracted, px")
    extended: Literal["auto", "always", "never"] = Field(
        "auto",
        description="a second stack for extended targets (`*_ext.fits`), its sky a low-order surface a frame; auto: "
        "where an object is larger than the background mesh",
        json_schema_extra={"flag": "--extended"},
    )
    extended_degree: int = Field(
        1, ge=0, le=3, description="degree of each frame's sky in the stack for extended targets"
    )
    extended_min_sky: float = Field(
        0.05, gt=0, lt=1, description="least share of the field that must be empty sky for that stack to be made"
    )
    padding_px: int = Field(40, ge=0, description="margin around all corners, px")
    timeout_s: float = Field(1800.0, gt=0, description="wall-clock limit of one SWarp run, s")
    memory_mb: int = Field(2048, ge=256, description="memory that combining may use, MB")


class ValidationSettings(Record):
    """Check of a stack against PS1."""

    aperture_fwhm: float = Field(3.0, gt=0, description="aperture radius, FWHM")
    match_arcsec: float = Field(1.5, gt=0, description="match radius, arcsec")
    min_stars: int = Field(5, ge=3, description="fewer stars leave a stack unvalidated")
    tie: bool = Field(
        True, description="tie each stack to PS1; half of its stars is validated against a tie from the other half"
    )
    max_offset_mag: float = Field(0.1, gt=0, description="a stack further from its zero point is not validated, mag")


class SourceSettings(Record):
    """The source list of a group."""

    detection_sigma: float = Field(
        4.0, gt=0, description="detection on the chi-square image: as rare in noise as so many sigma are"
    )
    min_area_px: int = Field(5, ge=1, description="connected pixels of a source on that image")
    deblend_contrast: float = Field(
        0.002, gt=0, lt=1, description="least share of its light that a part of a source has"
    )
    match_arcsec: float = Field(1.5, gt=0, description="match radius to Gaia and PS1, arcsec")
    crowded_density: float = Field(
        0.04, gt=0, description="maxima of light a square FWHM above which stars are found and fitted together"
    )


class ReleaseSettings(Record):
    """What a release has besides."""

    compressed: bool = Field(
        False,
        description="a tile-compressed copy of the stacks under compressed/: images in Rice code, quantised with "
        "dither; weights, maps and PSFs without loss",
        json_schema_extra={"flag": "--compressed"},
    )
    quantize_level: float = Field(
        4.0, ge=1, le=1000, description="steps a sigma of noise that images of that copy are quantised in"
    )


class CatalogSettings(Record):
    """Catalogue queries."""

    timeout_s: float = Field(60.0, gt=0, description="longest silence of a service within one request, s")
    job_timeout_s: float = Field(600.0, gt=0, description="limit of one asynchronous query, from asking to its end, s")
    retries: int = Field(2, ge=0, description="further tries of a service after a passing failure, at each of 3 rounds")
    patience_s: float = Field(
        75.0, gt=0, description="a service that gives nothing but failures for so long is given up for the run, s"
    )
    interval_s: float = Field(1.0, ge=0, description="least time between two requests to one host, s")
    max_rows: int = Field(200_000, ge=1, description="rows at which an answer counts as truncated")
    gaia_limit: float = Field(20.5, description="faintest Gaia star asked for, G")
    references: Annotated[tuple[Reference, ...], NoDecode] = Field(
        ("ps1", "refcat2", "gspc"),
        min_length=1,
        description="photometric references in order of preference; the first that has sky in the whole field is used",
    )

    @field_validator("references", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return _words(value)


def _words(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


_DEFAULT_GAIA = ("https://gea.esac.esa.int/tap-server/tap", "https://gaia.ari.uni-heidelberg.de/tap")
_DEFAULT_PS1 = ("https://catalogs.mast.stsci.edu/api/v0.1/panstarrs", "https://vizier.cds.unistra.fr/viz-bin/votable")
_DEFAULT_REFCAT2 = ("https://vizier.cds.unistra.fr/viz-bin/votable", "https://vizier.cfa.harvard.edu/viz-bin/votable")
_DEFAULT_SIMBAD = ("https://simbad.cds.unistra.fr/simbad/sim-tap", "https://simbad.harvard.edu/simbad/sim-tap")


class Settings(BaseSettings):
    """All settings of a run."""

    model_config = SettingsConfigDict(
        env_prefix="OHP_", env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    data_root: Path = Field(Path("data"), description="where products go (OHP_DATA_ROOT)")
    raw_root: Path | None = Field(None, description="raw frames, never written to (default: DATA_ROOT/raw)")
    catalog_mode: Literal["online", "offline"] = Field("online", description="offline: local catalogue store only")
    gaia_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        _DEFAULT_GAIA, description="Gaia services in order of preference"
    )
    ps1_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        _DEFAULT_PS1, description="PS1 services in order of preference"
    )
    refcat2_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        _DEFAULT_REFCAT2, description="ATLAS-REFCAT2 services in order of preference"
    )
    simbad_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        _DEFAULT_SIMBAD, description="SIMBAD services that know names, in order of preference; empty: none is asked"
    )
    astrometry_index_dir: Path | None = Field(None, description="astrometry.net index files (default: built from Gaia)")
    workers: int = Field(
        default_factory=lambda: len(os.sched_getaffinity(0)), ge=1, description="processes (default: all cores)"
    )

    dask_scheduler: str | None = Field(
        None,
        description="address of a Dask scheduler whose workers do the work (OHP_DASK_SCHEDULER; default: this machine)",
    )

    bias: BiasSettings = BiasSettings()
    flat: FlatSettings = FlatSettings()
    reduction: ReductionSettings = ReductionSettings()
    quality: QualitySettings = QualitySettings()
    astrometry: AstrometrySettings = AstrometrySettings()
    photometry: PhotometrySettings = PhotometrySettings()
    psf: PsfSettings = PsfSettings()
    scamp: ScampSettings = ScampSettings()
    selection: SelectionSettings = SelectionSettings()
    stack: StackSettings = StackSettings()
    validation: ValidationSettings = ValidationSettings()
    sources: SourceSettings = SourceSettings()
    release: ReleaseSettings = ReleaseSettings()
    catalogs: CatalogSettings = CatalogSettings()

    @field_validator("gaia_urls", "ps1_urls", "refcat2_urls", "simbad_urls", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return _words(value)

    @property
    def roots(self) -> Roots:
        """The folders of this run, absolute."""
        data = self.data_root.expanduser().absolute()
        raw = self.raw_root.expanduser().absolute() if self.raw_root else data / "raw"
        return Roots(data=data, raw=raw)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, environment, pipeline.toml; the file is found through the two before it."""
        given = init_settings().get("data_root") or os.environ.get("OHP_DATA_ROOT") or "data"
        toml = TomlConfigSettingsSource(settings_cls, Path(str(given)).expanduser() / "pipeline.toml")
        return init_settings, env_settings, toml
