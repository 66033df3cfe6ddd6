"""Raw images as they come: compressed, cut, scaled by nonsense."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from tasks.core.errors import StageError
from tasks.core.fitsio import open_raw, read_raw


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    values = np.random.default_rng(1).integers(500, 60000, (60, 50)).astype(np.uint16)
    path = tmp_path / "raw.fits"
    fits.PrimaryHDU(values).writeto(path)
    return path


def changed(raw: Path, keyword: str, value: object) -> Path:
    with fits.open(raw, do_not_scale_image_data=True) as hdus:
        hdus[0].header[keyword] = value
        hdus.writeto(raw.with_name("changed.fits"), output_verify="ignore")
    return raw.with_name("changed.fits")


def test_a_compressed_file_has_the_same_pixels(raw):
    packed = raw.with_name("raw.fits.gz")
    packed.write_bytes(gzip.compress(raw.read_bytes()))
    np.testing.assert_array_equal(read_raw(packed, "test")[0], fits.getdata(raw).astype("f4"))
    np.testing.assert_array_equal(open_raw(packed, "test").rows(20, 30), fits.getdata(raw)[20:30].astype("f4"))
    endless = raw.with_name("endless.fits.gz")
    endless.write_bytes(gzip.compress(raw.read_bytes() + bytes(50_000_000)))
    np.testing.assert_array_equal(read_raw(endless, "test")[0], fits.getdata(raw).astype("f4"))


def test_what_lies_behind_the_image_is_not_searched(raw, monkeypatch):
    """For a header that has no end: astropy reads on for it, even to close the file."""
    monkeypatch.setattr("tasks.core.fitsio._BEGINNING", 28800)
    packed = raw.with_name("endless.fits.gz")
    packed.write_bytes(gzip.compress(raw.read_bytes() + b" " * 50_000_000))
    tracemalloc.start()
    try:
        np.testing.assert_array_equal(read_raw(packed, "test")[0], fits.getdata(raw).astype("f4"))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"BZh9", b"\xfd7zXZ\x00", b"SIMPLY"])
def test_other_kinds_of_files_are_refused(tmp_path, start):
    path = tmp_path / "a.fits"
    path.write_bytes(start + bytes(6000))
    with pytest.raises(StageError, match="it starts with"):
        open_raw(path, "test")


def test_what_no_pixel_can_be_is_none(tmp_path):
    path = tmp_path / "flipped.fits"
    values = np.full((8, 8), 1000.0, np.float32)
    values[1, 2], values[3, 4] = 1.7e38, -2e11
    fits.PrimaryHDU(values).writeto(path)
    read = read_raw(path, "test")[0]
    assert np.argwhere(np.isnan(read)).tolist() == [[1, 2], [3, 4]]
    assert np.nanmax(np.abs(read)) == 1000.0


@pytest.mark.parametrize("cut", [0.9, 0.5])
def test_half_a_compressed_file_is_refused(raw, cut):
    packed = raw.with_name("half.fits.gz")
    whole = gzip.compress(raw.read_bytes())
    packed.write_bytes(whole[: int(cut * len(whole))])
    with pytest.raises(StageError, match=r"truncated|cannot be read"):
        read_raw(packed, "test")


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("BZERO", 1e300), ("BZERO", 1e39), ("BZERO", "zero"), ("BSCALE", 0), ("BSCALE", 1e300), ("BSCALE", 1e-300),
     ("BSCALE", "one"), ("BSCALE", True)],
)  # fmt: skip
def test_a_scaling_that_makes_no_pixel_values_is_refused(raw, keyword, value):
    with pytest.raises(StageError, match=f"{keyword} = .* makes no pixel values"):
        read_raw(changed(raw, keyword, value), "test")
