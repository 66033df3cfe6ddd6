"""Raw FITS headers: only their blocks are read, and cards that break the standard are taken as they are meant.

astropy's reader says a warning for each card that breaks the standard and takes ten times as long; an
archive of 3000 frames with the habits of three acquisition programs needs neither. Only what the inventory
asks for is understood here: fixed-value cards of the primary header, no CONTINUE, no HIERARCH.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from pathlib import Path
from typing import BinaryIO

from tasks.core.errors import StageError

__all__ = ["STAGE", "Header", "Value", "integer", "number", "parse_header", "read_header", "text"]

STAGE = "inventory"
_MAX_UNPACKED = 1 << 30

Value = str | float | int | bool | None
Header = dict[str, Value]

_BLOCK = 2880
_CARD = 80
_PRINTABLE = dict.fromkeys((*range(32), *range(127, 160)), " ")
"""Control characters, which no header may hold, are read as blanks: NULs at the end, what a terminal would obey."""
_LONGEST_HEADER = 400 * _BLOCK
_CARD_PATTERN = re.compile(
    r"""^(?P<key>[A-Z0-9_-]{1,8})\s*=\s*
        (?: '(?P<text>(?:[^']|'')*)'      # a string; '' is a quote
          | (?P<open>'.*)                 # a string that never ends
          | (?P<word>[^/'\s][^/]*?)       # anything else up to the comment
          | )
        \s*(?:/.*)?$""",
    re.VERBOSE,
)


def _value(word: str) -> Value:
    if word in ("T", "F"):
        return word == "T"
    try:
        return int(word)
    except ValueError:
        pass
    try:
        return float(word.upper().replace("D", "E"))
    except ValueError:
        return word


def parse_header(block: bytes) -> Header:
    """The valued cards of a primary header as a mapping; of a repeated keyword the first counts.

    Parameters
    ----------
    block
        The bytes of the header, from SIMPLE to END.
    """
    cards: Header = {}
    for start in range(0, len(block), _CARD):
        card = block[start : start + _CARD].decode("latin-1").translate(_PRINTABLE).rstrip()
        if card.rstrip() == "END":
            break
        match = _CARD_PATTERN.match(card)
        if match is None or match["key"] in cards:
            continue
        if match["text"] is not None:
            cards[match["key"]] = match["text"].replace("''", "'").strip()
        elif match["open"] is not None:
            cards[match["key"]] = match["open"][1:].strip()
        else:
            cards[match["key"]] = _value(match["word"].strip()) if match["word"] else None
    return cards


def _header_block(stream: BinaryIO) -> bytes:
    block = b""
    while len(block) < _LONGEST_HEADER:
        piece = stream.read(_BLOCK)
        if len(block) == 0 and not piece:
            raise StageError(STAGE, "the file is empty", "copy it again from the telescope's computer, or remove it")
        if len(block) == 0 and not re.match(rb"SIMPLE\s*=", piece):
            raise StageError(
                STAGE,
                f"not a FITS file: it starts with {piece[:16]!r}",
                "give it its right suffix, or remove it from the raw tree",
            )
        block += piece
        for start in range(len(block) - len(piece), len(block), _CARD):
            if block[start : start + _CARD].rstrip(b" \0") == b"END":
                return block
        if len(piece) < _BLOCK:
            break
    raise StageError(
        STAGE, "the FITS header has no END card", "the file was cut or damaged: copy it again, or remove it"
    )


def read_header(path: Path) -> tuple[Header, int]:
    """Read the primary header of a raw file, opened for reading only.

    Returns
    -------
    The cards, and how many bytes of pixels the file holds after them (of a compressed file: after unpacking, and not
    counted beyond 1 GiB: no camera's frame is larger, and a stream may have no end).

    Raises
    ------
    StageError
        If the file cannot be read, is empty, is no FITS file, or its header does not end.
    """
    try:
        with open(path, "rb") as raw:
            if path.suffix.lower() != ".gz":
                block = _header_block(raw)
                return parse_header(block), os.fstat(raw.fileno()).st_size - len(block)
            with gzip.GzipFile(fileobj=raw) as unpacked:
                block = _header_block(unpacked)  # type: ignore[arg-type]
                data = 0
                while data < _MAX_UNPACKED and (piece := unpacked.read(1 << 20)):
                    data += len(piece)
                return parse_header(block), data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise StageError(STAGE, f"the compressed file is damaged: {error}", "copy it again, or remove it") from error
    except OSError as error:
        raise StageError(
            STAGE, f"cannot be read: {error.strerror or error}", "check the disk and who may read the file"
        ) from error


def text(header: Header, keywords: tuple[str, ...]) -> str:
    """The first of the keywords that says something, as text; empty if none does."""
    for keyword in keywords:
        value = header.get(keyword)
        if value is not None and str(value).strip():
            return str(value).strip()
    return ""


def number(header: Header, keywords: tuple[str, ...]) -> float | None:
    """The first of the keywords that is there, as a number (NaN if it is none); None if none is there."""
    word = text(header, keywords)
    if not word:
        return None
    try:
        return float(word.replace(",", "."))
    except ValueError:
        return float("nan")


def integer(header: Header, keyword: str) -> int | None:
    """A keyword's whole number, also where it is written as ``1024.``; None if it is none."""
    value = header.get(keyword)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        return None
    return int(value)
