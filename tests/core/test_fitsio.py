"""Raw images as they come: compressed, cut, scaled by nonsense."""

from __future__ import annotations

import gzip
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
