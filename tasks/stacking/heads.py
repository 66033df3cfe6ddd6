"""SCAMP's `.head` files: read tolerantly, written for SWarp with one FLXSCALE.

A `.head` is text in UTF-8 and no FITS header; SCAMP may leave out PV terms that are at their default and
SWarp takes the last of two equal cards where astropy takes the first.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS

from models.base import Roots
from models.stack import AlignedFrame
from tasks.core.errors import StageError

__all__ = ["frame_label", "head_header", "head_wcs", "outline", "swarp_head"]

FloatArray = npt.NDArray[np.float64]

_KEPT = re.compile(r"^(CTYPE[12]|CUNIT[12]|CRVAL[12]|CRPIX[12]|CD[12]_[12]|PV[12]_\d+|EQUINOX|RADESYS)$")
_NEEDED = ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")


def frame_label(aligned: AlignedFrame) -> str:
    """Name of a frame in headers and reports: unique over nights, ``{night}/{name}.fits``."""
    raw = aligned.frame.raw
    return f"{raw.night}/{raw.name}.fits"


def head_header(path: Path) -> fits.Header:
    """WCS cards of a `.head` file, and only those.

    Raises
    ------
    StageError
        If it cannot be read or a card of the WCS is missing or no finite number.
    """
    remedy = "align the group again; the .head file is remade"
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise StageError("stacking", f"{path.name} cannot be read: {error.strerror}", remedy) from error
    header = fits.Header()
    for line in text.splitlines():
        key, equals, rest = line[:8].strip(), line[8:9], line[9:]
        if key == "END":
            break
        if equals != "=" or not _KEPT.match(key):
            continue
        value = fits.Card.fromstring(line[:80].encode("ascii", "replace").decode().ljust(80)).value
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise StageError("stacking", f"{path.name}: {key} has no value: {rest.strip()!r}", remedy)
        header[key] = value
    missing = [key for key in _NEEDED if key not in header]
    if missing:
        raise StageError("stacking", f"{path.name} lacks {', '.join(missing)}", remedy)
    if not all(np.isfinite(header[key]) for key in header if key.startswith(("CR", "CD", "PV"))):
        raise StageError("stacking", f"{path.name} has a WCS value that is not finite", remedy)
    if "TPV" in header["CTYPE1"] or "TAN" in header["CTYPE1"]:
        _complete_distortion(header)
    header.setdefault("CUNIT1", "deg")
    header.setdefault("CUNIT2", "deg")
    header.setdefault("RADESYS", "ICRS")
    return header


def _complete_distortion(header: fits.Header) -> None:
    """State what SCAMP leaves to defaults: without PV terms it is TAN, with some the linear term is 1.

    wcslib reads a TPV without its linear terms hundreds of arcseconds off.
    """
    if not any(key.startswith("PV") for key in header):
        header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
        return
    header["CTYPE1"], header["CTYPE2"] = "RA---TPV", "DEC--TPV"
    for axis in (1, 2):
        header.setdefault(f"PV{axis}_0", 0.0)
        header.setdefault(f"PV{axis}_1", 1.0)


def head_wcs(aligned: AlignedFrame, roots: Roots) -> WCS:
    """The WCS of a frame through its `.head`.

    Raises
    ------
    StageError
        See `head_header`.
    """
    return WCS(head_header(roots.of(aligned.head)))


def swarp_head(aligned: AlignedFrame, flux_scale: float, roots: Roots) -> str:
    """Text of the `.head` file that SWarp gets: the frame's WCS and FLXSCALE exactly once."""
    header = head_header(roots.of(aligned.head))
    cards = [str(card).rstrip() for card in header.cards]
    scale = str(fits.Card("FLXSCALE", float(flux_scale))).rstrip()
    return "\n".join([*cards, scale, "END"]) + "\n"


def outline(shape: tuple[int, int], samples: int = 9) -> FloatArray:
    """Points on the outer edge of a frame, FITS pixels, shape (4 (samples - 1), 2), corners among them.

    A distorted frame may bulge between its corners.
    """
    ny, nx = shape
    x = np.linspace(0.5, nx + 0.5, samples)
    y = np.linspace(0.5, ny + 0.5, samples)
    sides = [
        np.column_stack([x[:-1], np.full(samples - 1, 0.5)]),
        np.column_stack([np.full(samples - 1, nx + 0.5), y[:-1]]),
        np.column_stack([x[:0:-1], np.full(samples - 1, ny + 0.5)]),
        np.column_stack([np.full(samples - 1, 0.5), y[:0:-1]]),
    ]
    return np.vstack(sides)
