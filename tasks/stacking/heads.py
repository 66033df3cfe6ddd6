"""A frame's `.head` file: its WCS, its outline on the sky, and the copy that SWarp gets."""

from __future__ import annotations

import functools
import threading

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS

from models.base import Roots
from models.stack import AlignedFrame
from tasks.astrometry import head_cards
from tasks.core.errors import StageError

__all__ = ["frame_label", "head_header", "head_wcs", "outline", "swarp_head"]

FloatArray = npt.NDArray[np.float64]


def frame_label(aligned: AlignedFrame) -> str:
    """Name of a frame in headers and reports: unique over nights, ``{night}/{name}.fits``."""
    return aligned.frame.raw.label


def head_header(aligned: AlignedFrame, roots: Roots) -> fits.Header:
    """WCS cards of a frame's `.head`.

    Raises
    ------
    StageError
        If it cannot be read, or a card of the WCS is missing or no finite number.
    """
    return _of_text(_text(aligned, roots), aligned.head.path, threading.get_ident())[0].copy()


def head_wcs(aligned: AlignedFrame, roots: Roots) -> WCS:
    """The WCS of a frame through its `.head`; one object for all who ask in this thread, which nobody may change.

    Raises
    ------
    StageError
        See `head_header`.
    """
    return _of_text(_text(aligned, roots), aligned.head.path, threading.get_ident())[1]


_REMEDY = "align the group again; the .head file is remade"


def _text(aligned: AlignedFrame, roots: Roots) -> str:
    path = roots.of(aligned.head)
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise StageError("stacking", f"{path.name} cannot be read: {error.strerror}", _REMEDY) from error


@functools.lru_cache(maxsize=256)
def _of_text(text: str, path: str, _thread: int) -> tuple[fits.Header, WCS]:
    """Header and WCS, of which a stack asks each frame four times. wcslib's objects are of one thread."""
    header: fits.Header = head_cards(text)
    for key, value in header.items():
        number = key.startswith(("CR", "CD", "PV"))
        if number and (isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value)):
            name = path.rpartition("/")[2]
            raise StageError("stacking", f"{name}: {key} is no finite number: {value!r}", _REMEDY)
    return header, WCS(header)


def swarp_head(aligned: AlignedFrame, flux_scale: float, roots: Roots) -> str:
    """Text of the `.head` file that SWarp gets: the frame's WCS and FLXSCALE exactly once."""
    header = head_header(aligned, roots)
    cards = [str(card).rstrip() for card in header.cards]
    scale = str(fits.Card("FLXSCALE", float(flux_scale))).rstrip()
    return "\n".join([*cards, scale, "END"]) + "\n"


def outline(shape: tuple[int, int], samples: int = 9, inset: float = 0.0) -> FloatArray:
    """Points on the outer edge of a frame or `inset` px inside it, FITS pixels, shape (4 (samples - 1), 2), in turn.

    A distorted frame may bulge between its corners.
    """
    ny, nx = shape
    x = np.linspace(0.5 + inset, nx + 0.5 - inset, samples)
    y = np.linspace(0.5 + inset, ny + 0.5 - inset, samples)
    sides = [
        np.column_stack([x[:-1], np.full(samples - 1, y[0])]),
        np.column_stack([np.full(samples - 1, x[-1]), y[:-1]]),
        np.column_stack([x[:0:-1], np.full(samples - 1, y[-1])]),
        np.column_stack([np.full(samples - 1, x[0]), y[:0:-1]]),
    ]
    return np.vstack(sides)
