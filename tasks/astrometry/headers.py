"""World coordinates as files: TAN-SIP headers of plate solutions, TPV `.head` files for SCAMP and SWarp."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from models.base import FileRef, Roots
from models.frame import PlateSolution, SolvedFrame
from tasks.astrometry.fitting import monomials
from tasks.astrometry.matching import Floats
from tasks.core.errors import StageError
from tasks.core.files import ref, writing

__all__ = [
    "TPV_TERMS",
    "frame_geometry",
    "head_cards",
    "read_head",
    "read_wcs",
    "sip_header",
    "tpv_head",
    "wcs_cards",
    "write_header",
]

_EXACT_ARCSEC = 1e-3

TPV_TERMS: dict[tuple[int, int], int] = dict(zip(monomials(3), (0, 1, 2, 4, 5, 6, 7, 8, 9, 10), strict=True))
"""Exponents (p, q) of the axis' own and the other coordinate -> m of ``PVi_m``, up to degree 3.

The order of the FITS registry's TPV: 0 constant, 1 own, 2 other, (3 radial,) 4 own^2, 5 own*other, 6 other^2,
7 own^3 ...
"""


def _linear_cards(wcs: WCS, projection: str | None = None) -> list[tuple[str, object, str]]:
    """Keyword, value and comment of a WCS without its distortion; in another projection, if one is named."""
    inner = wcs.wcs
    cards: list[tuple[str, object, str]] = [("WCSAXES", 2, "axes of the world coordinate system")]
    for axis in (1, 2):
        place = f"[deg] {('RA', 'Dec')[axis - 1]} at the reference pixel"
        cards += [
            (f"CTYPE{axis}", f"{('RA--', 'DEC-')[axis - 1]}-{projection}" if projection else inner.ctype[axis - 1], ""),
            (f"CUNIT{axis}", "deg", ""),
            (f"CRVAL{axis}", float(inner.crval[axis - 1]), place),
            (f"CRPIX{axis}", float(inner.crpix[axis - 1]), "[px] reference pixel"),
        ]
    cards += [(f"CD{i}_{j}", float(inner.cd[i - 1, j - 1]), "[deg/px]") for i in (1, 2) for j in (1, 2)]
    return [*cards, ("RADESYS", "ICRS", ""), ("EQUINOX", 2000.0, "[yr]")]


def sip_header(wcs: WCS) -> fits.Header:
    """Header cards of a TAN or TAN-SIP WCS, and nothing else. Same WCS, same bytes."""
    header = fits.Header()
    for keyword, value, comment in _linear_cards(wcs):
        header[keyword] = (value, comment)
    if wcs.sip is not None:
        for letter, values in (("A", wcs.sip.a), ("B", wcs.sip.b), ("AP", wcs.sip.ap), ("BP", wcs.sip.bp)):
            if values is None:
                continue
            order = values.shape[0] - 1
            header[f"{letter}_ORDER"] = (order, "SIP polynomial degree")
            start = 0 if letter.endswith("P") else 2
            for p, q in monomials(order, start):
                header[f"{letter}_{p}_{q}"] = float(values[p, q])
    return header


def write_header(header: fits.Header, path: Path, roots: Roots) -> FileRef:
    """Write a FITS file of nothing but this header."""
    with writing(path) as temporary:
        fits.PrimaryHDU(header=header).writeto(temporary, output_verify="exception")
    return ref(path, roots)


def wcs_cards(solution: PlateSolution, roots: Roots) -> fits.Header:
    """The WCS cards (TAN-SIP) of a plate solution, for the header of the published frame.

    Raises
    ------
    StageError
        If the solution's file cannot be read.
    """
    path = roots.of(solution.wcs)
    try:
        header = fits.getheader(path)
    except OSError as error:
        raise StageError(
            "plate solution",
            f"{solution.wcs.path} cannot be read: {error}",
            "remove it and reduce the frame's year again",
        ) from error
    for keyword in ("SIMPLE", "BITPIX", "NAXIS", "EXTEND"):
        header.remove(keyword, ignore_missing=True)
    return header


def read_wcs(solved_or_solution: SolvedFrame | PlateSolution, roots: Roots) -> WCS:
    """World coordinates (TAN-SIP) of a plate solution; of a solved frame, with its pixel shape.

    Raises
    ------
    StageError
        If the solution's file cannot be read.
    """
    solved = solved_or_solution if isinstance(solved_or_solution, SolvedFrame) else None
    solution = solved.solution if solved else solved_or_solution
    assert isinstance(solution, PlateSolution)
    wcs = WCS(wcs_cards(solution, roots), naxis=2)
    if solved is not None:
        wcs.pixel_shape = (solved.raw.shape[1], solved.raw.shape[0])
    return wcs


def frame_geometry(wcs: WCS, shape: tuple[int, int]) -> tuple[float, float, float, float, int]:
    """Centre (RA, Dec; deg), scale (arcsec/px), position angle of +y (deg, north through east) and parity.

    Measured at the frame's centre, distortion included: parity is the sign of the Jacobian's determinant.
    """
    x0, y0 = (shape[1] + 1) / 2, (shape[0] + 1) / 2
    step = 1.0
    ra, dec = wcs.all_pix2world([x0, x0 + step, x0 - step, x0, x0], [y0, y0, y0, y0 + step, y0 - step], 1)
    east = (((ra - ra[0]) + 180) % 360 - 180) * np.cos(np.radians(dec[0]))
    north = dec - dec[0]
    jacobian = np.array([[east[1] - east[2], east[3] - east[4]], [north[1] - north[2], north[3] - north[4]]]) / (
        2 * step
    )
    determinant = float(np.linalg.det(jacobian))
    angle = float(np.degrees(np.arctan2(jacobian[0, 1], jacobian[1, 1])))
    scale = float(np.sqrt(abs(determinant)) * 3600)
    return float(ra[0]) % 360, float(dec[0]), scale, angle, 1 if determinant > 0 else -1


def _tpv_coefficients(wcs: WCS, shape: tuple[int, int]) -> Floats:
    """(2, 10) coefficients of TPV in the order of ``monomials(3)`` with each axis' own coordinate first."""
    crpix, cd = wcs.wcs.crpix, wcs.wcs.cd
    gx, gy = np.meshgrid(np.linspace(0.5, shape[1] + 0.5, 21), np.linspace(0.5, shape[0] + 0.5, 21))
    pixels = np.column_stack([gx.ravel(), gy.ravel()])
    linear = (pixels - crpix) @ cd.T
    bent = (wcs.sip_pix2foc(pixels, 1) if wcs.sip is not None else pixels - crpix) @ cd.T
    half = float(np.max(np.abs(linear)))
    powers = monomials(3)
    result = np.zeros((2, len(powers)))
    for axis in range(2):
        own, other = linear[:, axis] / half, linear[:, 1 - axis] / half
        design = np.column_stack([own**p * other**q for p, q in powers])
        solved = np.linalg.lstsq(design, bent[:, axis], rcond=None)[0]
        left = float(np.max(np.abs(design @ solved - bent[:, axis]))) * 3600
        if left > _EXACT_ARCSEC:
            raise StageError(
                "plate solution",
                f"its distortion is no polynomial of degree 3: TPV would be off by {left:.4f} arcsec",
                "use a fit degree of at most 3",
            )
        result[axis] = solved / half ** np.array([p + q for p, q in powers])
    return result


def tpv_head(wcs: WCS, shape: tuple[int, int]) -> str:
    """A TAN-SIP WCS as the text of a `.head` file in the TPV projection, the only distortion SWarp reads.

    A polynomial in pixels is one of the same degree in intermediate world coordinates, so this is exact up to
    degree 3. All terms are written, zeros too: TPV without PV cards is read wrongly by wcslib.

    Parameters
    ----------
    wcs
        TAN or TAN-SIP.
    shape
        (rows, columns) of the frame.

    Raises
    ------
    StageError
        If the distortion is of a higher degree and TPV would be off by more than a milliarcsecond.
    """
    cards = _linear_cards(wcs, "TPV")
    coefficients = _tpv_coefficients(wcs, shape)
    for axis in (1, 2):
        for value, powers in zip(coefficients[axis - 1], monomials(3), strict=True):
            cards.append((f"PV{axis}_{TPV_TERMS[powers]}", float(value), ""))
    return _as_lines(fits.Card(*card) for card in cards)


_HEAD_KEYWORDS = ("WCSAXES", "EQUINOX", "RADESYS", "CTYPE", "CUNIT", "CRVAL", "CRPIX", "CD", "PV")


def head_text(header: fits.Header) -> str:
    """Cards as a `.head` file: one a line, END at the end."""
    return _as_lines(header.cards)


def _as_lines(cards: Iterable[fits.Card]) -> str:
    return "\n".join(card.image.rstrip() for card in cards) + "\nEND\n"


def head_cards(text: str) -> fits.Header:
    """The WCS cards of a `.head` text, made readable for astropy.

    SCAMP's comments (UTF-8, a date, its version), its photometry and its FLXSCALE (0 with SOLVE_PHOTOM N, which
    SWarp would take as 1) are left out. TPV without PV cards, which SCAMP writes at degree 1 or for few stars,
    is what it says: no distortion; it is spelled out, since wcslib reads it 330 arcsec off.

    Raises
    ------
    StageError
        If a card is missing or cannot be parsed.
    """
    header = fits.Header()
    for line in text.splitlines():
        keyword = line[:8].strip()
        if keyword == "END":
            break
        if not keyword.startswith(_HEAD_KEYWORDS) or keyword in header:
            continue
        try:
            card = fits.Card.fromstring(line.encode("ascii", "replace"))
            header[keyword] = card.value
        except (fits.VerifyError, ValueError) as error:
            raise StageError("SCAMP", f".head has a card that is none: {line[:80]!r}", "run the group again") from error
    missing = [
        keyword
        for keyword in ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")
        if keyword not in header
    ]
    if missing:
        raise StageError("SCAMP", f".head lacks {' '.join(missing)}", "run the group again")
    if header["CTYPE1"] == "RA---TPV":
        for axis in (1, 2):
            if not any(keyword.startswith(f"PV{axis}_") for keyword in header):
                header[f"PV{axis}_0"], header[f"PV{axis}_1"] = 0.0, 1.0
            elif f"PV{axis}_1" not in header:
                header[f"PV{axis}_1"] = 1.0
    return header


def read_head(path: Path) -> WCS:
    """World coordinates of a `.head` file.

    Raises
    ------
    StageError
        If it cannot be read or is incomplete.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise StageError("SCAMP", f"{path.name} cannot be read: {error.strerror}", "run the group again") from error
    return WCS(head_cards(text), naxis=2)
