"""The PSF of a frame, and the catalogue it and SCAMP are made from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from astropy.io import fits

from models.base import Roots
from models.frame import CalibratedFrame, FramePsf
from models.settings import PsfSettings
from models.telescope import Telescope
from tasks.astrometry import read_wcs
from tasks.calibration import read_reduced
from tasks.core.files import ref, writing
from tasks.core.tools import scratch
from tasks.photometry import frame_fwhm_px
from tasks.psf.extraction import (
    BLEMISH,
    ExtractionOptions,
    extract_catalogue,
    linear_header,
    mesh_px,
    read_objects,
    sky_weight,
)
from tasks.psf.psfex import PsfexOptions, run_psfex_by_degree

__all__ = ["candidates", "fwhm_range", "keep", "model_psf"]

SATURATION_MARGIN = 0.9
"""Share of the camera's linear range above which a star is saturated for the PSF."""

_WIDTH_UNKNOWN_PX = (1.5, 15.0)
_APERTURE_FWHM = 4.0


def model_psf(calibrated: CalibratedFrame, roots: Roots, telescope: Telescope, settings: PsfSettings) -> FramePsf:
    """Extract a frame's stars with SExtractor and model its PSF with PSFEx.

    The PSF is sampled at the frame's own pixels and varies over the field as a polynomial of degree
    `settings.degree`, lowered where there are too few stars (60 for degree 2, 20 for 1, 4 for 0; the
    ``POLDEG1`` card of the ``.psf`` file says which it became). The catalogue serves SCAMP, too: its header
    has the plate solution without distortion, the exposure time and the date.

    Parameters
    ----------
    calibrated
        The frame, whether or not it has a zero point.
    roots, telescope, settings
        Folders, camera, numbers.

    Returns
    -------
    FramePsf
        ``{year}/{telescope}/psf/{night}/{name}.psf``, ``.cache/ldac/{year}/{telescope}/{night}/{name}.cat``, and
        the width (FWHM_Mean of PSFEx's XML), ellipticity, reduced chi-square and number of stars.

    Raises
    ------
    StageError
        If fewer than four stars are usable, or a tool fails.
    """
    raw, scale = calibrated.raw, calibrated.solved.solution.pixel_scale
    data, mask, var, reduced_header = read_reduced(calibrated.reduced, roots)
    bad = (mask != 0) | ~np.isfinite(data) | ~np.isfinite(var)
    header = linear_header(read_wcs(calibrated.solved, roots), data.shape)
    header["EXPTIME"] = raw.exptime
    header["DATE-OBS"] = raw.date_obs.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    header["MJD-OBS"] = raw.mid_exposure_mjd - raw.exptime / 2 / 86400.0
    header["FILTER"] = raw.filter or "unknown"
    if raw.airmass is not None:
        header["AIRMASS"] = raw.airmass
    ceiling = reduced_header.get("SATURATE", telescope.camera.nonlinear_adu or telescope.camera.saturation_adu)
    width = frame_fwhm_px(calibrated.solved)
    options = ExtractionOptions(
        threshold_sigma=settings.threshold_sigma,
        back_size_px=mesh_px(settings.back_size_px, width or 4.0),
        aperture_px=_APERTURE_FWHM * (width or 4.0),
        vignet_px=settings.vignet_px,
        saturation_adu=SATURATION_MARGIN * float(ceiling),
        gain=calibrated.reduced.gain,
        seeing_arcsec=(width or 4.0) * scale,
        timeout_s=settings.timeout_s,
    )
    place = f"{raw.telescope}/{raw.night}/{raw.name}"
    logs = roots.logs / "psf"
    with scratch(roots.scratch, "psf") as folder:
        catalogue = extract_catalogue(
            folder, data, sky_weight(var, bad, settings.back_size_px), mask, header, options,
            logs / f"{raw.year}_{place.replace('/', '_')}_extraction.log",
        )  # fmt: skip
        result = run_psfex_by_degree(
            catalogue,
            PsfexOptions(
                size_px=settings.size_px,
                degree=settings.degree,
                min_snr=settings.min_snr,
                max_ellipticity=settings.max_ellipticity,
                fwhm_range_px=fwhm_range(width),
                flag_mask=BLEMISH,
                timeout_s=settings.timeout_s,
            ),
            candidates(read_objects(catalogue), settings),
            logs / f"{raw.year}_{place.replace('/', '_')}_psfex.log",
        )
        psf = keep(result.file, roots.data / f"{raw.year}/{raw.telescope}/psf/{raw.night}/{raw.name}.psf")
        stars = keep(catalogue, roots.data / f".cache/ldac/{raw.year}/{raw.telescope}/{raw.night}/{raw.name}.cat")
    return FramePsf(
        psf=ref(psf, roots),
        catalogue=ref(stars, roots),
        fwhm_px=result.fwhm_px,
        fwhm_arcsec=result.fwhm_px * scale,
        ellipticity=result.ellipticity,
        chi2=result.chi2,
        n_stars_accepted=result.n_accepted,
    )


def fwhm_range(width_px: float | None) -> tuple[float, float]:
    """Widths (SExtractor's 2 x half-light radius, 10 to 30 % above the FWHM) among which PSFEx looks for stars, px."""
    return _WIDTH_UNKNOWN_PX if width_px is None else (max(1.0, 0.6 * width_px), 2.0 * width_px)


def candidates(objects: fits.FITS_rec, settings: PsfSettings) -> int:
    """Number of sources bright, round and clean enough for a PSF."""
    ratio = np.asarray(objects["ELONGATION"], dtype=float)
    good = (
        (objects["SNR_WIN"] > settings.min_snr)
        & ((ratio - 1) / (ratio + 1) < settings.max_ellipticity)
        & ((objects["FLAGS"] & 0xFE) == 0)
        & ((objects["IMAFLAGS_ISO"] & BLEMISH) == 0)
    )
    return int(np.count_nonzero(good))


def keep(made: Path, product: Path) -> Path:
    """Copy a tool's output from its scratch folder to where it belongs, whole or not at all."""
    with writing(product) as temporary:
        shutil.copyfile(made, temporary)
    return product
