"""The reader of raw headers: as astropy reads them, but quiet, quick, and without a fall."""

from __future__ import annotations

import gzip
import math
import pickle
import warnings
from pathlib import Path

import pytest
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from hypothesis import given, strategies

from tasks.core.errors import StageError
from tasks.inventory import read_header
from tasks.inventory.headers import number, parse_header, text

from .raw_files import LIGHT, header_bytes, write_raw


def lines(*cards: str) -> bytes:
    return "".join(card.ljust(80) for card in (*cards, "END")).encode("latin-1").ljust(2880)


def test_cards_as_programs_write_them() -> None:
    header = parse_header(
        lines(
            "SIMPLE  =                    T / standard", "NAXIS1  =                 1024", "EXPTIME = 060.00 / seconds",
            "TELALT  = +62.592 / Altitude", "OBJECT  = 'O''Neil''s /object' / who", "EQUINOX = 2000.0 / Epoch",
            "EMPTY   =",
            "COMMENT   This = not a card / at all", "NOEND   = 'never closed", "D       = 1.5D3", "FLAG    = F",
            "NAXIS1  = 7",
            "WORD    = North / direction", "BLANK   = '        '", "HISTORY = 3", "lower   = 3", "", "KEY-1_A = -3",
        )
    )  # fmt: skip
    assert header["SIMPLE"] is True
    assert header["FLAG"] is False
    assert (header["NAXIS1"], header["EXPTIME"], header["TELALT"], header["EQUINOX"]) == (1024, 60.0, 62.592, 2000.0)
    assert (header["OBJECT"], header["BLANK"], header["NOEND"]) == ("O'Neil's /object", "", "never closed")
    assert (header["D"], header["EMPTY"], header["WORD"], header["KEY-1_A"]) == (1500.0, None, "North", -3)
    assert "COMMENT" not in header
    assert "lower" not in header


@pytest.mark.shared
def test_the_real_headers_as_astropy_reads_them(shared: Path) -> None:
    paths = [*sorted((shared / "real" / "m1").glob("*")), *sorted((shared / "real" / "hatp32").glob("*"))]
    assert len(paths) == 27
    compared = 0
    for path in paths:
        header, data_bytes = read_header(path)
        assert data_bytes >= abs(header["BITPIX"]) // 8 * header["NAXIS1"] * header["NAXIS2"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VerifyWarning)  # the cards of MicroObservatory
            expected = fits.getheader(path)
            for key, value in header.items():
                if isinstance(expected[key], fits.card.Undefined):
                    continue
                compared += 1
                answer = expected[key].strip() if isinstance(expected[key], str) else expected[key]
                if isinstance(answer, float):
                    assert math.isclose(float(value), answer), (path.name, key)
                else:
                    assert value == answer or str(value) == str(answer), (path.name, key)
    assert compared > 27 * 30


def test_it_says_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_raw(tmp_path / "a.fits", LIGHT, (64, 64))
    read_header(path)
    assert not list(recwarn)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"Dear observer,\nthis is no FITS file\n", "not a FITS file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(5000), "not a FITS file"),
        (header_bytes(LIGHT)[:1000], "no END"),
        (b"SIMPLE  =                    T".ljust(80) + b" " * (400 * 2880), "no END"),
        (bytes(2880 * 4), "not a FITS file"),
    ],
)
def test_what_is_no_header(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x.fits"
    path.write_bytes(content)
    with pytest.raises(StageError, match=says) as caught:
        read_header(path)
    assert caught.value.remedy
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.reason, again.remedy) == (caught.value.reason, caught.value.remedy)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="cannot be read"):
        read_header(tmp_path / "gone.fits")
    with pytest.raises(StageError, match="cannot be read"):
        read_header(tmp_path)


def test_compressed(tmp_path: Path) -> None:
    plain = write_raw(tmp_path / "a.fits", LIGHT, (64, 64))
    packed = tmp_path / "a.fits.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_header(packed) == read_header(plain)
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StageError, match="damaged"):
        read_header(packed)
    packed.write_bytes(plain.read_bytes())
    with pytest.raises(StageError, match="damaged"):
        read_header(packed)


def test_words_and_numbers() -> None:
    header = {"A": "  ", "B": "1,5", "C": "x", "D": 2, "E": None}
    assert text(header, ("E", "A", "C")) == "x"
    assert number(header, ("A", "B")) == 1.5
    assert number(header, ("D",)) == 2.0
    assert number(header, ("A", "NONE")) is None
    assert math.isnan(number(header, ("C",)) or 0.0)


@given(strategies.binary(max_size=400))
def test_no_bytes_break_the_parser(noise: bytes) -> None:
    parse_header(b"SIMPLE  =                    T".ljust(80) + noise)
