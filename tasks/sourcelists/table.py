"""The columns of a source list: what they hold, their units, UCDs and descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.coordinates import SkyCoord

from models.sourcelist import APERTURES_FWHM, FLAG_WORDS
from tasks.sourcelists.detect import Detection
from tasks.sourcelists.images import FloatArray
from tasks.sourcelists.match import Matches
from tasks.sourcelists.measure import Measured

__all__ = ["Column", "columns_of"]

_OPTICAL = {"U": "U", "B": "B", "g": "B", "V": "V", "R": "R", "r": "R", "i": "I", "I": "I", "z": "I", "y": "I",
            "Ha": "R", "SII": "R", "OIII": "B"}  # fmt: skip
"""IVOA's UCD words for wavelengths, by filter (UCD1+ 1.5): B 400-500 nm, V 500-600, R 600-750, I 750-1000."""


class Column(NamedTuple):
    """A column. Floats are unknown where NaN, identifiers where 0."""

    name: str
    values: npt.NDArray[Any]
    unit: str
    ucd: str
    description: str
    identifier: bool = False


def _optical(filter: str) -> str:
    word = _OPTICAL.get(filter)
    return f"em.opt.{word}" if word else "em.opt"


def _names(ra: FloatArray, dec: FloatArray, telescope: str) -> npt.NDArray[np.str_]:
    """Designations after the IAU's rules: cut, not rounded."""
    place = SkyCoord(ra, dec, unit="deg")
    # `to_string` rounds: half a unit of the last digit less cuts.
    hours = np.floor(place.ra.hour * 3600 * 100 + 1e-6).astype(np.int64)
    arcsec = np.floor(np.abs(place.dec.deg) * 3600 * 10 + 1e-6).astype(np.int64)
    return np.array(
        [
            f"OHP-{telescope} J{h // 360000:02d}{h // 6000 % 60:02d}{h // 100 % 60:02d}.{h % 100:02d}"
            f"{'-' if south else '+'}{d // 36000:02d}{d // 600 % 60:02d}{d // 10 % 60:02d}.{d % 10}"
            for h, d, south in zip(hours.tolist(), arcsec.tolist(), (np.asarray(dec) < 0).tolist(), strict=True)
        ]
    )


def _magnitude(flux: FloatArray, error: FloatArray, zero_point: float) -> tuple[FloatArray, FloatArray]:
    with np.errstate(divide="ignore", invalid="ignore"):
        mag = np.where(flux > 0, zero_point - 2.5 * np.log10(flux), np.nan)
        return mag, np.where(flux > 0, 2.5 / np.log(10.0) * error / flux, np.nan)


def _f4(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.asarray(values, np.float32)


def _measure(band: Measured, kind: str, flux: FloatArray, error: FloatArray, what: str) -> list[Column]:
    token, optical = band.band.column, _optical(band.band.filter)
    unit = "adu" if band.band.zero_point is not None else "adu/s"
    columns = [
        Column(f"FLUX_{kind}_{token}", _f4(flux), unit, f"phot.count;{optical}", f"{band.band.filter} flux, {what}"),
        Column(f"FLUXERR_{kind}_{token}", _f4(error), unit, f"stat.error;phot.count;{optical}",
               f"error of FLUX_{kind}_{token}"),
    ]  # fmt: skip
    if band.band.zero_point is not None:
        mag, mag_error = _magnitude(flux, error, band.band.zero_point)
        columns += [
            Column(f"MAG_{kind}_{token}", _f4(mag), "mag", f"phot.mag;{optical}", f"{band.band.filter}, {what}"),
            Column(f"MAGERR_{kind}_{token}", _f4(mag_error), "mag", f"stat.error;phot.mag;{optical}",
                   f"error of MAG_{kind}_{token}"),
        ]  # fmt: skip
    return columns


def _flag_text() -> str:
    return "; ".join(f"{int(flag)} {flag.name}" for flag in FLAG_WORDS)


def columns_of(
    seen: Detection, ra: FloatArray, dec: FloatArray, place_error: FloatArray, flags: npt.NDArray[np.int32],
    bands: Sequence[Measured], gaia: Matches | None, ps1: Matches | None, telescope: str,
) -> list[Column]:  # fmt: skip
    """The columns of a source list, in order.

    Parameters
    ----------
    seen
        The detection.
    ra, dec, place_error
        deg; arcsec an axis.
    flags
        Those of any band.
    bands
        The measurements.
    gaia, ps1
        Identifiers; None: there was no catalogue, and the columns are all 0.
    telescope
        Part of the designation.
    """
    n = ra.size
    none = Matches(np.zeros(n, np.int64), np.full(n, np.nan), np.full(n, np.nan))
    of_gaia, of_ps1 = gaia or none, ps1 or none
    columns = [
        Column("NUMBER", np.arange(1, n + 1, dtype=np.int32), "", "meta.id;meta.main", "number in this table"),
        Column("NAME", _names(ra, dec, telescope), "", "meta.id", "designation"),
        Column("RA", ra, "deg", "pos.eq.ra;meta.main", "right ascension, ICRS, at the stacks' mean epoch"),
        Column("DEC", dec, "deg", "pos.eq.dec;meta.main", "declination, ICRS, at the stacks' mean epoch"),
        Column("POS_ERR", _f4(place_error), "arcsec", "stat.error;pos.eq", "error of the position, each axis"),
        Column("X", _f4(seen.x + 1), "pix", "pos.cartesian.x;instr.det", "on the grid, FITS convention"),
        Column("Y", _f4(seen.y + 1), "pix", "pos.cartesian.y;instr.det", "on the grid, FITS convention"),
        Column("SNR", _f4(seen.significance), "", "stat.snr",
               "peak on the chi-square image in units of the threshold's sigma; unknown: found by the crowded fit"),
        Column("A", _f4(seen.a), "pix", "phys.angSize.smajAxis", "rms along the major axis, all bands"),
        Column("B", _f4(seen.b), "pix", "phys.angSize.sminAxis", "rms along the minor axis, all bands"),
        Column("THETA", _f4(np.degrees(seen.theta)), "deg", "pos.posAng", "of the major axis, from +X to +Y"),
        Column("KRON_RADIUS", _f4(seen.kron), "", "phys.angSize;arith.factor", "in units of A and B"),
        Column("FLAGS", flags.astype(np.int32), "", "meta.code.qual", f"of any band: {_flag_text()}"),
        Column("GAIA_ID", of_gaia.identifier, "", "meta.id.cross", "source_id in Gaia DR3", True),
        Column("GAIA_SEP", _f4(of_gaia.arcsec), "arcsec", "pos.angDistance", "distance, Gaia at the stacks' epoch"),
        Column("GAIA_G", _f4(of_gaia.mag), "mag", "phot.mag;em.opt", "Gaia G"),
        Column("PS1_ID", of_ps1.identifier, "", "meta.id.cross", "objID in Pan-STARRS1 DR2", True),
        Column("PS1_SEP", _f4(of_ps1.arcsec), "arcsec", "pos.angDistance", "distance"),
    ]  # fmt: skip
    for band in bands:
        columns += _of_band(band)
    return columns


def _of_band(band: Measured) -> list[Column]:
    token, filter = band.band.column, band.band.filter
    columns: list[Column] = []
    if band.band.psf is not None:
        what = "PSF fitted, corrected to the aperture of 3 FWHM"
        columns += _measure(band, "PSF", band.psf, band.psf_err, what)
        columns.append(
            Column(f"CHI2_PSF_{token}", _f4(band.chi2), "", "stat.fit.chi2", f"{filter}, reduced, of the PSF fit")
        )
    for k, radius in enumerate(APERTURES_FWHM):
        corrected = f", corrected to {APERTURES_FWHM[-1]:g}" if radius != APERTURES_FWHM[-1] else ""
        what = f"circle of radius {radius:g} FWHM{corrected}"
        columns += _measure(band, f"AP{k + 1}", band.aperture[:, k], band.aperture_err[:, k], what)
    what = "ellipse of 2.5 Kron radii, plus a point source's light beyond"
    columns += _measure(band, "KRON", band.kron, band.kron_err, what)
    unit = "adu/pix" if band.band.zero_point is not None else "adu/s/pix"
    columns.append(
        Column(f"SKY_{token}", _f4(band.sky), unit, "instr.background", f"{filter}, local, above the smooth sky")
    )
    columns.append(
        Column(f"FLAGS_{token}", band.flags.astype(np.int32), "", "meta.code.qual", f"{filter}: bits as FLAGS")
    )
    return columns
