"""FITS in and out: raw frames read tolerantly and never touched, products written with the same bytes every time."""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.io.fits.verify import VerifyError, VerifyWarning
from astropy.utils.exceptions import AstropyUserWarning

from tasks.core.errors import StageError
from tasks.core.files import writing

__all__ = ["FloatImage", "RawImage", "open_raw", "quiet_fits", "read_raw", "write_fits"]

FloatImage = npt.NDArray[np.float32]

_GZIP, _SIMPLE = b"\x1f\x8b", b"SIMPLE"
_BEGINNING = 16 << 20
"""Bytes in which the header of the image must end."""
_SMALLEST_SCALE, _LARGEST_SCALE = 1e-6, 1e9
"""Of BSCALE and BZERO: 16-bit cameras have 1 and 32768, images in electrons or normalised ones other small numbers."""
_LARGEST_PIXEL = 1e10
"""ADU; more than 32 bits hold. A flipped bit of an exponent makes a value of up to 1e38, whose square is none."""
_DTYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_CHECKSUM_COMMENT = "HDU checksum"
_DATASUM_COMMENT = "data unit checksum"


@contextmanager
def quiet_fits() -> Iterator[None]:
    """Silence astropy's remarks on odd cards and file lengths: what matters of them is checked here and raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VerifyWarning)
        warnings.simplefilter("ignore", AstropyUserWarning)
        yield


@dataclass(frozen=True)
class RawImage:
    """Where the pixels of a raw file lie; read in strips of rows so that many frames never fill the memory."""

    path: Path
    header: fits.Header
    shape: tuple[int, int]
    offset: int
    bitpix: int
    bzero: float
    bscale: float
    blank: int | None
    stage: str
    gzipped: bool

    def rows(self, start: int = 0, stop: int | None = None) -> FloatImage:
        """Physical values of the rows ``start:stop``, float32 ADU; NaN where the file says BLANK or what none can be.

        Raises
        ------
        StageError
            If the file ends before its pixels do.
        """
        stop = self.shape[0] if stop is None else min(stop, self.shape[0])
        width = self.shape[1]
        dtype = np.dtype(_DTYPES[self.bitpix])
        count = (stop - start) * width
        try:
            # Of a compressed file just what the header announces is unpacked: a stream without end costs nothing.
            with gzip.open(self.path) if self.gzipped else open(self.path, "rb") as stream:
                stream.seek(self.offset + start * width * dtype.itemsize)
                read = stream.read(count * dtype.itemsize)
            stored = np.frombuffer(read[: len(read) // dtype.itemsize * dtype.itemsize], dtype)
        except EOFError as error:
            raise _truncated(self.stage, self.path) from error
        except (OSError, ValueError, zlib.error) as error:
            raise _unreadable(self.stage, self.path, str(error)) from error
        if stored.size != count:
            raise _truncated(self.stage, self.path)
        values: FloatImage = stored.astype(np.float32).reshape(stop - start, width)
        if self.blank is not None and self.bitpix > 0:
            values[stored.reshape(values.shape) == self.blank] = np.nan
        if self.bscale != 1.0:
            values *= np.float32(self.bscale)
        if self.bzero != 0.0:
            values += np.float32(self.bzero)
        if self.bitpix not in (8, 16) or self.bscale != 1.0:
            values[np.abs(values) > _LARGEST_PIXEL] = np.nan
        return values


def _truncated(stage: str, path: Path) -> StageError:
    return StageError(
        stage, f"{path.name} is truncated: it ends before its last pixel", "copy the file again from the camera's disk"
    )


def _unreadable(stage: str, path: Path, why: str) -> StageError:
    return StageError(
        stage,
        f"{path.name} cannot be read as FITS: {why}",
        "copy the file again from the camera's disk, or take it out of the raw tree",
    )


def _scaling(header: fits.Header, keyword: str, default: float, stage: str, path: Path) -> float:
    """BZERO or BSCALE.

    Raises
    ------
    StageError
        If it is no number that a camera's pixels can have been scaled with.
    """
    value = header.get(keyword, default)
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
    low = _SMALLEST_SCALE if keyword == "BSCALE" else 0.0
    if not low <= abs(number) <= _LARGEST_SCALE:
        raise _unreadable(stage, path, f"{keyword} = {value!r} makes no pixel values of its numbers")
    return number


def open_raw(path: Path, stage: str, shape: tuple[int, int] | None = None) -> RawImage:
    """Find the image of a raw file: the first HDU with pixels. The file is opened for reading only.

    Parameters
    ----------
    path
        A FITS file as a camera wrote it: odd or illegal cards are tolerated.
    stage
        Named in errors.
    shape
        (rows, columns) the image must have.

    Raises
    ------
    StageError
        Empty, no FITS, truncated, without an image, of another shape; says which.
    """
    try:
        size = path.stat().st_size
        if size == 0:
            raise _unreadable(stage, path, "the file is empty")
        with open(path, "rb") as raw:
            start = raw.read(len(_SIMPLE))
        gzipped = start.startswith(_GZIP)
        if not gzipped and start != _SIMPLE:
            # Astropy would unpack zip, bzip2 and the like, each with errors of its own.
            raise _unreadable(stage, path, f"it starts with {start!r} instead of {_SIMPLE!r}")
        # Of the beginning only: a stream without end may follow, which astropy would search for another header. Even
        # to close its list it reads all of them.
        with gzip.open(path) if gzipped else open(path, "rb") as stream:
            beginning = io.BytesIO(stream.read(_BEGINNING))
        with quiet_fits():
            for hdu in fits.open(beginning, mode="readonly", do_not_scale_image_data=True):
                if isinstance(hdu, fits.CompImageHDU):
                    raise _unreadable(stage, path, "its image is compressed; unpack it with funpack")
                if hdu.is_image and hdu.header.get("NAXIS", 0) >= 2:
                    break
            else:
                raise _unreadable(stage, path, "no HDU holds an image")
            header: fits.Header = hdu.header.copy()
            offset = int(hdu.fileinfo()["datLoc"])
            axes = [int(header[f"NAXIS{axis}"]) for axis in range(int(header["NAXIS"]), 0, -1)]
            bitpix = int(header["BITPIX"])
            blank = header.get("BLANK")
    except StageError:
        raise
    except FileNotFoundError as error:
        raise StageError(stage, f"{path.name} is not there any more", "take the inventory again") from error
    except EOFError as error:
        raise _truncated(stage, path) from error
    except (OSError, zlib.error, VerifyError, ValueError, TypeError, KeyError, IndexError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _unreadable(stage, path, first) from error
    while len(axes) > 2 and axes[0] == 1:
        axes = axes[1:]
    if len(axes) != 2 or min(axes) < 1 or bitpix not in _DTYPES:
        raise _unreadable(stage, path, f"its image has the axes {axes} and BITPIX {bitpix}; one plane is needed")
    found = (axes[0], axes[1])
    if shape is not None and found != tuple(shape):
        raise StageError(
            stage,
            f"{path.name} has {found[1]} x {found[0]} pixels, {shape[1]} x {shape[0]} are expected",
            "frames of one binning and one window belong together; check how it was taken",
        )
    if not gzipped and size < offset + found[0] * found[1] * abs(bitpix) // 8:
        raise _truncated(stage, path)
    return RawImage(
        path, header, found, offset, bitpix,
        _scaling(header, "BZERO", 0.0, stage, path), _scaling(header, "BSCALE", 1.0, stage, path),
        int(blank) if isinstance(blank, int) and not isinstance(blank, bool) else None, stage, gzipped,
    )  # fmt: skip


def read_raw(path: Path, stage: str, shape: tuple[int, int] | None = None) -> tuple[FloatImage, fits.Header]:
    """All pixels of a raw file as float32 ADU (may hold NaN, never only NaN) and its header.

    Raises
    ------
    StageError
        As `open_raw`, and if no pixel has a value.
    """
    image = open_raw(path, stage, shape)
    data = image.rows()
    if not np.isfinite(data).any():
        raise StageError(stage, f"{path.name} has no pixel with a value: all are NaN", "take it out of the raw tree")
    return data, image.header


def _shorten_comments(header: fits.Header) -> None:
    """Cut comments to what their card holds beside the value, which astropy would do with a warning."""
    for card in header.cards:
        if card.keyword in ("", "COMMENT", "HISTORY", "CONTINUE") or not card.comment:
            continue
        bare = fits.Card(card.keyword, card.value).image.rstrip()
        room = 80 - max(len(bare), 30) - len(" / ")
        if len(bare) <= 80 and len(card.comment) > room:
            card.comment = card.comment[: max(room, 0)].rstrip()


def write_fits(path: Path, hdus: Sequence[fits.PrimaryHDU | fits.ImageHDU | fits.BinTableHDU]) -> None:
    """Write HDUs with CHECKSUM and DATASUM, whole or not at all; the same HDUs give the same bytes.

    Astropy's own comments on the two cards hold the time of writing; these are fixed.
    """
    for number, hdu in enumerate(hdus):
        _shorten_comments(hdu.header)
        if number == 0:
            hdu.header.set("EXTEND", True, after=f"NAXIS{hdu.header['NAXIS']}" if hdu.header["NAXIS"] else "NAXIS")
        hdu.add_datasum(when=_DATASUM_COMMENT)
        hdu.add_checksum(when=_CHECKSUM_COMMENT, override_datasum=True)
    with writing(path) as temporary:
        fits.HDUList(list(hdus)).writeto(temporary, output_verify="exception", overwrite=True)
