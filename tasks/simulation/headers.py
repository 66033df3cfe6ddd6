"""FITS files as MaxIm DL writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from tasks.core.files import writing
from tasks.simulation.plan import Shot, altitude_azimuth
from tasks.simulation.seeds import rng_for

__all__ = ["maxim_header", "write_raw"]


def sexagesimal(value: float, signed: bool) -> str:
    """MaxIm's ``'07 37 45'`` and ``'+44 31 51'``."""
    total = round(abs(value) * 3600)
    text = f"{total // 3600:02d} {total // 60 % 60:02d} {total % 60:02d}"
    return f"{'-' if value < 0 else '+'}{text}" if signed else text


def maxim_header(shot: Shot, shape: tuple[int, int], seed: int) -> fits.Header:
    """The header of a raw frame, in MaxIm DL's order and spelling."""
    start = f"{shot.start:%Y-%m-%dT%H:%M:%S}.{shot.start.microsecond // 10000:02d}"
    # The controller reports its temperature in steps of 0.649 C, as the archive's values show.
    step = round(float(rng_for(seed, "temperature", shot.path).normal(0.0, 0.8)))
    temperature = round(shot.temperature / 0.649) * 0.649 + 0.649 * step
    cards: list[tuple[str, object, str]] = [
        ("DATE-OBS", start, "YYYY-MM-DDThh:mm:ss observation, UT"),
        ("EXPTIME", shot.exptime, "Exposure time in seconds"),
        ("EXPOSURE", shot.exptime, "Exposure time in seconds"),
        ("SET-TEMP", -60.0, "CCD temperature setpoint in C"),
        ("CCD-TEMP", float(np.float32(temperature)), "CCD temperature at start of exposure in C"),
        ("XPIXSZ", 26.0, "Pixel Width in microns (after binning)"),
        ("YPIXSZ", 26.0, "Pixel Height in microns (after binning)"),
        ("XBINNING", 2, "Binning factor in width"),
        ("YBINNING", 2, "Binning factor in height"),
        ("XORGSUBF", 0, "Subframe X position in binned pixels"),
        ("YORGSUBF", 0, "Subframe Y position in binned pixels"),
    ]
    if shot.filter_name:
        cards.append(("FILTER", shot.filter_name, "Filter used when taking image"))
    if shot.imagetyp is not None:
        cards.append(("IMAGETYP", shot.imagetyp, "Type of image"))
    cards.append(("SITELAT", "43 55 54", "Latitude of the imaging location"))
    cards.append(("SITELONG", "05 42 48", "Longitude of the imaging location"))
    jd = shot.start.timestamp() / 86400.0 + 2440587.5
    cards.append(("JD", jd, "Julian Date at start of exposure"))
    if shot.pointing is not None:
        ra, dec = shot.pointing
        altitude, azimuth, hour = altitude_azimuth(ra, dec, shot.start)
        cards += [
            ("OBJCTRA", sexagesimal(ra / 15.0 % 24, False), "Nominal Right Ascension of center of image"),
            ("OBJCTDEC", sexagesimal(dec, True), "Nominal Declination of center of image"),
            ("OBJCTALT", f"{altitude:.4f}", "Nominal altitude of center of image"),
            ("OBJCTAZ", f"{azimuth:.4f}", "Nominal azimuth of center of image"),
            ("OBJCTHA", f"{hour / 15:.4f}", "Nominal hour angle of center of image"),
            ("PIERSIDE", "EAST", "Side of pier telescope is on"),
        ]
    if shot.header_airmass is not None:
        cards.append(("AIRMASS", shot.header_airmass, "Relative optical path length through atmosphere"))
    cards += [
        ("FOCALLEN", 7200.0, "Focal length of telescope in mm"),
        ("APTDIA", 1200.0, "Aperture diameter of telescope in mm"),
        ("APTAREA", 1130973.355, "Aperture area of telescope in mm^2"),
        ("SWCREATE", shot.software, "Name of software"),
        ("SBSTDVER", "SBFITSEXT Version 1.0", "Version of SBFITSEXT standard in effect"),
        ("OBJECT", shot.object, ""),
        ("TELESCOP", "", "telescope used to acquire this image"),
        ("INSTRUME", "Andor Tech", "instrument or camera used"),
        ("OBSERVER", "", ""),
        ("NOTES", "", ""),
        ("ROWORDER", "TOP-DOWN", "Image write order, BOTTOM-UP or TOP-DOWN"),
        ("FLIPSTAT", "", ""),
        ("SWOWNER", "Observatoire de Haute-Provence", "Licensed owner of software"),
    ]
    header = fits.Header()
    header["SIMPLE"] = True
    header["BITPIX"] = (16, "8 unsigned int, 16 & 32 int, -32 & -64 real")
    header["NAXIS"] = (2, "number of axes")
    header["NAXIS1"] = (shape[1], "fastest changing axis")
    header["NAXIS2"] = (shape[0], "next to fastest changing axis")
    header["BSCALE"] = (1.0, "physical = BZERO + BSCALE*array_value")
    header["BZERO"] = (32768.0, "physical = BZERO + BSCALE*array_value")
    for keyword, value, comment in cards:
        header[keyword] = (value, comment)
    for keyword, said in shot.cards:  # as a real file says it; None: it does not
        if said is None:
            header.remove(keyword, ignore_missing=True)
        else:
            header[keyword] = said
    return header


def write_raw(path: Path, data: NDArray[np.uint16], header: fits.Header) -> None:
    """Write 16-bit unsigned numbers the way cameras do: signed, with BZERO 32768."""
    stored = (data.astype(np.int32) - 32768).astype(">i2").tobytes()
    with writing(path) as temporary, open(temporary, "wb") as stream:
        stream.write(header.tostring(sep="", endcard=True, padding=True).encode("ascii"))
        stream.write(stored)
        stream.write(b"\0" * (-len(stored) % 2880))
