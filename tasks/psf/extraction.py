"""SExtractor: one LDAC catalogue with star stamps, which serves PSFEx and SCAMP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sep
from astropy.io import fits
from pydantic import Field

from models.base import Record
from models.frame import MaskBit
from tasks.core.errors import StageError
from tasks.core.tools import run_tool

__all__ = ["ExtractionOptions", "extract_catalogue", "linear_header", "mesh_px", "read_objects", "sky_weight"]

FloatArray = npt.NDArray[np.floating[Any]]

_KERNEL = "CONV NORM\n1 2 1\n2 4 2\n1 2 1\n"
"""SExtractor's default detection filter (FWHM 2 px)."""

_COLUMNS = (
    "NUMBER", "X_IMAGE", "Y_IMAGE", "XWIN_IMAGE", "YWIN_IMAGE", "ERRAWIN_IMAGE", "ERRBWIN_IMAGE",
    "ERRTHETAWIN_IMAGE", "X_WORLD", "Y_WORLD", "FLUX_AUTO", "FLUXERR_AUTO", "MAG_AUTO", "MAGERR_AUTO",
    "FLUX_APER(1)", "FLUXERR_APER(1)", "FLUX_MAX", "FLUX_RADIUS", "FWHM_IMAGE", "ELONGATION", "SNR_WIN", "FLAGS",
    "FLAGS_WEIGHT", "FLAGS_WIN", "IMAFLAGS_ISO(1)", "NIMAFLAGS_ISO(1)",
)  # fmt: skip

_CLOCK_CARDS = {b"SEXDATE ": b"'01/01/2000'", b"SEXTIME ": b"'00:00:00'", b"SEXELAPS": b"0.00000000"}


class ExtractionOptions(Record):
    """What SExtractor is told; everything else is its default, no configuration file of anybody's is read."""

    threshold_sigma: float = Field(5.0, gt=0)
    min_area_px: int = Field(5, ge=1)
    back_size_px: int = Field(64, ge=8)
    aperture_px: float = Field(gt=0, description="diameter of FLUX_APER, px")
    vignet_px: int = Field(35, ge=1)
    saturation_adu: float = Field(gt=0, description="sky included")
    gain: float = Field(ge=0, description="e-/ADU; 0: no photon noise")
    seeing_arcsec: float = Field(gt=0)
    zero_point: float = 0.0
    timeout_s: float = Field(120.0, gt=0, description="wall-clock limit")

    def config(self) -> str:
        """The configuration file's text."""
        lines = {
            "CATALOG_NAME": "stars.cat",
            "CATALOG_TYPE": "FITS_LDAC",
            "PARAMETERS_NAME": "columns.param",
            "DETECT_TYPE": "CCD",
            "DETECT_MINAREA": self.min_area_px,
            "DETECT_THRESH": self.threshold_sigma,
            "ANALYSIS_THRESH": self.threshold_sigma,
            "FILTER": "Y",
            "FILTER_NAME": "detect.conv",
            "WEIGHT_TYPE": "MAP_WEIGHT",
            "WEIGHT_IMAGE": "weight.fits",
            # WEIGHT_THRESH stays unset (0): any value above the weights' scale zeroes all fluxes, with exit 0.
            "FLAG_IMAGE": "flag.fits",
            "FLAG_TYPE": "OR",
            "PHOT_APERTURES": f"{self.aperture_px:.3f}",
            "PHOT_AUTOPARAMS": "2.5,3.5",
            "SATUR_LEVEL": f"{self.saturation_adu:.1f}",
            "SATUR_KEY": "NONE",
            "GAIN": self.gain,
            "GAIN_KEY": "NONE",
            "MAG_ZEROPOINT": self.zero_point,
            "PIXEL_SCALE": 0,
            "SEEING_FWHM": f"{self.seeing_arcsec:.3f}",
            "BACK_TYPE": "AUTO",
            "BACK_SIZE": self.back_size_px,
            "BACK_FILTERSIZE": 3,
            "MEMORY_OBJSTACK": 20000,
            "MEMORY_PIXSTACK": 3000000,
            "HEADER_SUFFIX": ".none",
            "WRITE_XML": "N",
            "VERBOSE_TYPE": "QUIET",
            "NTHREADS": 1,
        }
        return "".join(f"{key:<16} {value}\n" for key, value in lines.items())

    def columns(self) -> str:
        """The parameter file's text."""
        return "\n".join((*_COLUMNS, f"VIGNET({self.vignet_px},{self.vignet_px})")) + "\n"


def linear_header(wcs: Any, shape: tuple[int, int]) -> fits.Header:
    """The TAN header without distortion that comes closest to a WCS over the whole chip.

    SExtractor writes X_WORLD, Y_WORLD and the header that SCAMP starts from with it. The linear part of a SIP
    fit is closest at its reference pixel only and leaves arcseconds at the corners of a distorted field; here
    the linear terms are fitted (least squares) to a 15 x 15 grid of pixels.

    Parameters
    ----------
    wcs
        astropy WCS with a gnomonic projection, distortions or none.
    shape
        (rows, columns).
    """
    ny, nx = shape
    crpix = np.array([(nx + 1) / 2, (ny + 1) / 2])
    centre = wcs.all_pix2world([crpix], 1)[0]
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(1, nx, 15), np.linspace(1, ny, 15)))
    xi, eta = _gnomonic(wcs.all_pix2world(np.column_stack([x, y]), 1), centre)
    design = np.column_stack([x - crpix[0], y - crpix[1], np.ones_like(x)])
    (a, b, dxi), (c, d, deta) = (np.linalg.lstsq(design, plane, rcond=None)[0] for plane in (xi, eta))
    # The fit's constant shifts the reference pixel, not the reference position.
    shift = np.linalg.solve([[a, b], [c, d]], [dxi, deta])
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CUNIT1"] = header["CUNIT2"] = "deg"
    header["CRPIX1"], header["CRPIX2"] = float(crpix[0] - shift[0]), float(crpix[1] - shift[1])
    header["CRVAL1"], header["CRVAL2"] = float(centre[0]), float(centre[1])
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = float(a), float(b), float(c), float(d)
    header["RADESYS"], header["EQUINOX"] = "ICRS", 2000.0
    return header


def _gnomonic(world: FloatArray, centre: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Standard coordinates, deg (e.g. Calabretta & Greisen 2002, A&A 395, 1077, eq. 12, 13 and 54)."""
    ra, dec = np.radians(world).T
    ra0, dec0 = np.radians(centre)
    cos_c = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(ra - ra0)
    xi = np.cos(dec) * np.sin(ra - ra0) / cos_c
    eta = (np.cos(dec0) * np.sin(dec) - np.sin(dec0) * np.cos(dec) * np.cos(ra - ra0)) / cos_c
    return np.degrees(xi), np.degrees(eta)


def sky_weight(var: FloatArray, bad: npt.NDArray[np.bool_], mesh_px: int) -> FloatArray:
    """Weight map for SExtractor: inverse variance of the *sky*, 0 where a pixel is not to be used.

    The stars' photon noise is left out of it (a smooth map of the variance is taken), since SExtractor adds
    it from the gain; with it in both, bright stars would be down-weighted twice.
    """
    good = ~bad & np.isfinite(var) & (var > 0)
    if not good.any():
        raise StageError("PSF", "no usable pixel: all are masked", "look at the frame and at its mask")
    sky = sep.Background(
        np.where(good, var, 0).astype(np.float32), mask=~good, bw=mesh_px, bh=mesh_px, fw=3, fh=3
    ).back(dtype=np.float32)
    floor = 0.1 * float(np.median(var[good]))
    return np.where(good, 1.0 / np.maximum(sky, floor), 0.0).astype(np.float32)


def extract_catalogue(
    folder: Path,
    data: FloatArray,
    weight: FloatArray,
    flags: npt.NDArray[np.uint8],
    header: fits.Header,
    options: ExtractionOptions,
    log: Path,
) -> Path:
    """Run SExtractor on an image; the catalogue is reproducible to the byte.

    Parameters
    ----------
    folder
        Scratch folder: a short path without spaces or commas.
    data
        Image, NaN where there is none.
    weight
        From `sky_weight`; 0: not to be used.
    flags
        Mask bits, which IMAFLAGS_ISO collects for each source.
    header
        Linear WCS and what SCAMP wants to know (EXPTIME, MJD-OBS, FILTER ...).
    options
        Settings.
    log
        Where its messages go if it fails.

    Returns
    -------
    Path
        ``folder/stars.cat``.

    Raises
    ------
    StageError
        If SExtractor fails or finds nothing.
    """
    finite = np.isfinite(data)
    level = float(np.median(data[finite])) if finite.any() else 0.0
    image = np.where(finite, data, level).astype(np.float32)
    fits.PrimaryHDU(image, header=header).writeto(folder / "image.fits", overwrite=True)
    fits.PrimaryHDU(np.where(finite, weight, 0).astype(np.float32)).writeto(folder / "weight.fits", overwrite=True)
    fits.PrimaryHDU(flags.astype(np.int16)).writeto(folder / "flag.fits", overwrite=True)
    (folder / "extract.conf").write_text(options.config())
    (folder / "columns.param").write_text(options.columns())
    (folder / "detect.conv").write_text(_KERNEL)
    catalogue = folder / "stars.cat"
    run_tool(
        "source-extractor", ["image.fits", "-c", "extract.conf"], cwd=folder, timeout_s=options.timeout_s,
        outputs=[catalogue], log=log,
    )  # fmt: skip
    _stop_clock(catalogue)
    return catalogue


def _stop_clock(catalogue: Path) -> None:
    """Overwrite SExtractor's date and durations in place: SCAMP segfaults on a header that was rebuilt."""
    content = bytearray(catalogue.read_bytes())
    for key, value in _CLOCK_CARDS.items():
        place = content.find(key + b"=")
        if place < 0:
            raise StageError("PSF", f"SExtractor's catalogue has no {key.decode()} card", "is its version 2.25?")
        slash = content.find(b"/", place + 10 + (len(value) if value.startswith(b"'") else 0), place + 80)
        field = bytes(value.ljust(20) if value.startswith(b"'") else value.rjust(20))
        content[place + 10 : slash] = field.ljust(slash - place - 10)[: slash - place - 10]
    catalogue.write_bytes(content)


def read_objects(catalogue: Path) -> fits.FITS_rec:
    """The sources of an LDAC catalogue."""
    with fits.open(catalogue, memmap=False) as hdus:
        return hdus["LDAC_OBJECTS"].data


def mesh_px(smallest: int, fwhm_px: float) -> int:
    """Side of the sky map's mesh: the setting's, and at least 16 FWHM.

    A star whose wings fill a good part of a mesh is taken for sky in part: at 7 px FWHM a mesh of 64 px makes
    the radius of 80 % encircled energy 11 % too small.
    """
    return max(smallest, round(16 * fwhm_px))


BLEMISH = int(MaskBit.SATURATED | MaskBit.BLEED | MaskBit.NO_DATA | MaskBit.TRAIL)
"""Mask bits that make a star useless for a PSF wherever they touch it; a bad pixel or a hit costs only itself."""
