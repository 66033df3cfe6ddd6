"""Writes raw files for the tests: true header values, pixels that take no disk space.

``python -m tests.inventory.raw_files t120_headers.csv FOLDER`` writes the whole archive; ``python -m flows.inventory
--raw-root FOLDER --json inventory.json`` then says what each file is.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Mapping
from pathlib import Path

BLOCK = 2880


def card(keyword: str, value: object) -> str:
    """One header card; a str in quotes, a number as it is."""
    if isinstance(value, bool):
        text = f"{'T' if value else 'F':>20}"
    elif isinstance(value, str):
        text = "'" + f"{value.replace(chr(39), chr(39) * 2):8}" + "'"
    else:
        text = f"{value!s:>20}"
    return f"{keyword:8}= {text}"[:80].ljust(80)


def header_bytes(cards: Mapping[str, object], shape: tuple[int, int] = (1024, 1024), bitpix: int = 16) -> bytes:
    """A primary header as MaxIm DL begins it, then the cards given (which win)."""
    first: dict[str, object] = {"SIMPLE": True, "BITPIX": bitpix, "NAXIS": 2, "NAXIS1": shape[1], "NAXIS2": shape[0]}
    first |= {"BSCALE": 1, "BZERO": 32768} | dict(cards)
    text = "".join(card(key, value) for key, value in first.items() if value is not None) + "END".ljust(80)
    raw = text.encode("latin-1", "replace")
    return raw.ljust(-(-len(raw) // BLOCK) * BLOCK)


def write_raw(
    path: Path,
    cards: Mapping[str, object],
    shape: tuple[int, int] = (1024, 1024),
    pixels: bytes = b"",
    size: int | None = None,
    bitpix: int = 16,
) -> Path:
    """A raw file whose pixels start with `pixels` and are a hole in the file after them.

    `size` is the size of the data in bytes where it is not what the header says (a file cut off).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    head = header_bytes(cards, shape, bitpix)
    data = -(-shape[0] * shape[1] * (abs(bitpix) // 8) // BLOCK) * BLOCK if size is None else size
    with open(path, "wb") as stream:
        stream.write(head + pixels[:data])
        stream.truncate(len(head) + data)
    return path


LIGHT: dict[str, object] = {
    "DATE-OBS": "2025-03-17T22:28:01.52",
    "EXPTIME": 60.0,
    "EXPOSURE": 60.0,
    "CCD-TEMP": -59.777000427246094,
    "XBINNING": 2,
    "YBINNING": 2,
    "FILTER": "R",
    "IMAGETYP": "Light Frame",
    "OBJECT": "M67",
    "OBJCTRA": "08 50 48",
    "OBJCTDEC": "+11 49 27",
    "INSTRUME": "Andor Tech",
}


def read_archive(table: Path) -> list[dict[str, str]]:
    """The rows of the real archive's header table."""
    with open(table, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def write_archive_row(root: Path, row: Mapping[str, str], number: int) -> Path:
    """One real file: its true path and header values, its number as the only pixels that are not zero.

    Files with the same header values get the same number from the caller, as copies have the same pixels.
    Pixels are bytes: the camera writes 16 bits, but every file is read whole once for its digest.
    """
    words = (("date_obs", "DATE-OBS"), ("object", "OBJECT"), ("imagetyp", "IMAGETYP"), ("filter", "FILTER"),
             ("objctra", "OBJCTRA"), ("objctdec", "OBJCTDEC"), ("instrume", "INSTRUME"))  # fmt: skip
    numbers = (("exptime", "EXPTIME"), ("airmass", "AIRMASS"), ("xbinning", "XBINNING"), ("ybinning", "YBINNING"),
               ("ccd_temp", "CCD-TEMP"))  # fmt: skip
    cards: dict[str, object] = {key: row[column] for column, key in words if row[column]}
    cards |= {key: float(row[column]) for column, key in numbers[:2] if row[column]}
    cards |= {key: int(row[column]) for column, key in numbers[2:4] if row[column]}
    cards |= {key: float(row[column]) for column, key in numbers[4:] if row[column]}
    shape = (int(row["naxis2"]), int(row["naxis1"]))
    return write_raw(root / row["path"], cards, shape, pixels=number.to_bytes(4, "big"), bitpix=8)


def write_archive(table: Path, root: Path) -> list[dict[str, str]]:
    """All files of the real archive: true paths with their spaces and accents, copies with the same pixels."""
    rows = read_archive(table)
    numbers: dict[tuple[str, ...], int] = {}
    for row in rows:
        values = tuple(value for key, value in row.items() if key != "path")
        write_archive_row(root, row, numbers.setdefault(values, len(numbers)))
    return rows


def snapshot(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Size, times and content of every file below a folder."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content = Path(path).read_bytes() if os.path.isfile(path) else b""
            found[path] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, content)
    return found


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m tests.inventory.raw_files t120_headers.csv FOLDER")
    print(f"{len(write_archive(Path(sys.argv[1]), Path(sys.argv[2])))} files under {sys.argv[2]}")
