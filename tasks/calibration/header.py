"""The header of a reduced frame: what the camera said that is legal and true, and what the reduction did."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, timedelta
from typing import Any

from astropy.io import fits
from astropy.io.fits.verify import VerifyError

from models.frame import MaskBit, RawFrame
from tasks.core.files import annotation_keywords
from tasks.core.fitsio import quiet_fits

__all__ = ["carry_over", "plain", "science_header"]

_STRUCTURE = re.compile(
    r"^(SIMPLE|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|BZERO|BSCALE|BLANK|BUNIT|DATAM(IN|AX)|XTENSION|EXT(NAME|VER|LEVEL)|"
    r"TFIELDS|END|CONTINUE|HIERARCH|DATE|FILENAME|CBLACK|CWHITE|PEDESTAL|CSTRETCH)$"
)
_POSITION = re.compile(
    r"^(WCS[A-Z]*\d?|C(TYPE|UNIT|RPIX|RVAL|DELT|ROTA|RDER|SYER)\d[A-Z]?|(CD|PC|PV|PS)\d+_\d+[A-Z]?|LONPOLE|LATPOLE|"
    r"RADE?C?SYS|EQUINOX|EPOCH|[AB]P?_(ORDER|DMAX|\d+_\d+)|PLTSOLVD|PA|OBJCTROT)$"
)
_OURS = {
    "OBJECT",
    "FILTER",
    "EXPTIME",
    "EXPOSURE",
    "GAIN",
    "EGAIN",
    "RDNOISE",
    "AIRMASS",
    "XBINNING",
    "YBINNING",
    "CCD-TEMP",
}
_RENAMED = {"OBJECT": "RAWOBJ", "FILTER": "RAWFILT", "DATE-OBS": "RAWDATE", "IMAGETYP": "RAWTYPE", "TELESCOP": "RAWTEL"}
_TIMES = {
    "DATE-OBS",
    "DATE-END",
    "DATE-AVG",
    "DATE-BEG",
    "MJD-OBS",
    "MJD-AVG",
    "MJD-END",
    "MJD-BEG",
    "TIMESYS",
    "TIME-OBS",
}
_LEGAL = re.compile(r"^[A-Z0-9_-]{1,8}$")


def plain(text: str, limit: int = 68) -> str:
    """Printable ASCII of any text, accents dropped, blanks single, cut to what one card holds."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "replace").decode()
    ascii_text = re.sub(r"\?+(?=[a-zA-Z])", "", ascii_text) if "?" not in text else ascii_text
    cleaned = re.sub(r"\s+", " ", "".join(c if 32 <= ord(c) < 127 else " " for c in ascii_text)).strip()
    while len(cleaned.replace("'", "''")) > limit:
        cleaned = cleaned[:-1]
    return cleaned.rstrip()


def _legal_value(value: Any) -> Any | None:
    if isinstance(value, str):
        return plain(value) or None
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if abs(value) < 1e300 else None
    return None


def _comment(value: Any, comment: str) -> str:
    """As much of a comment as fits behind the value."""
    length = max(20, len(value.replace("'", "''")) + 2) if isinstance(value, str) else max(20, len(str(value)) + 4)
    return plain(comment, max(0, 80 - 10 - length - 3))


def carry_over(raw: fits.Header) -> fits.Header:
    """The cards of a raw header that a reduced frame may keep.

    Left out: structure, illegal or unreadable cards, comments, any world coordinates (the mount's or the
    acquisition program's word is no solution) and every keyword that a later stage writes. What the reduction
    restates in its own words is kept under another name (``RAWOBJ RAWFILT RAWDATE RAWTYPE RAWTEL``).
    """
    kept = fits.Header()
    with quiet_fits():
        for card in raw.cards:
            try:
                keyword, value, comment = card.keyword.upper(), card.value, card.comment
            except (VerifyError, ValueError, UnicodeError):
                continue
            if not _LEGAL.match(keyword) or _STRUCTURE.match(keyword) or _POSITION.match(keyword):
                continue
            if annotation_keywords.match(keyword):
                continue
            if keyword in _RENAMED:
                keyword = _RENAMED[keyword]
            elif keyword in _OURS or keyword in _TIMES:
                continue
            value = _legal_value(value)
            if value is None or keyword in kept:
                continue
            kept[keyword] = (value, _comment(value, comment or ""))
    return kept


def science_header(raw: RawFrame, original: fits.Header, telescope_name: str) -> fits.Header:
    """Header of the science image, before what the reduction itself adds.

    Times are UTC: ``DATE-OBS`` and ``MJD-OBS`` the start, ``DATE-AVG`` and ``MJD-AVG`` the middle of the
    exposure (FITS paper IV; readers of WCS refuse an MJD-OBS that is not DATE-OBS).
    """
    header = fits.Header()
    start = raw.date_obs.astimezone(UTC)
    middle = start + timedelta(seconds=raw.exptime / 2)
    header["OBJECT"] = (plain(raw.object), "what the observer typed")
    header["TELESCOP"] = (telescope_name, "telescope profile")
    header["FILTER"] = (raw.filter or "", "filter, canonical name")
    header["EXPTIME"] = (raw.exptime, "[s] exposure time")
    header["DATE-OBS"] = (start.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3], "start of the exposure, UTC")
    header["MJD-OBS"] = (round(raw.mid_exposure_mjd - raw.exptime / 2 / 86400.0, 8), "[d] start of the exposure, UTC")
    header["DATE-AVG"] = (middle.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3], "middle of the exposure, UTC")
    header["MJD-AVG"] = (round(raw.mid_exposure_mjd, 8), "[d] middle of the exposure, UTC")
    header["TIMESYS"] = ("UTC", "time scale")
    header["NIGHT"] = (raw.night, "local noon to noon, date of the evening")
    header["XBINNING"] = (raw.binning, "[px] binning along x")
    header["YBINNING"] = (raw.binning, "[px] binning along y")
    if raw.airmass is not None:
        header["AIRMASS"] = (raw.airmass, "airmass")
    if raw.ccd_temp is not None:
        header["CCD-TEMP"] = (raw.ccd_temp, "[deg C] temperature of the CCD")
    header["RAWFILE"] = (plain(raw.path.rsplit("/", 1)[-1]), "raw file")
    header["RAWSHA"] = (raw.digest, "SHA-256 of the raw file")
    for card in carry_over(original).cards:
        if card.keyword not in header:
            header.append(card)
    for number, bit in enumerate(MaskBit):
        header[f"MSKBIT{number}"] = (bit.name, f"name of bit {number} (value {int(bit)}) of extension MASK")
    return header
