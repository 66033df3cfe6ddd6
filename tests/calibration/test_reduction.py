"""A science frame's reduction: truth recovered, mask, variance, header, damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from models.frame import MaskBit, MasterBias, MasterFlat
from models.settings import BiasSettings, FlatSettings, ReductionSettings
from tasks.calibration import make_master_bias, make_master_flat, read_reduced, reduce_frame
from tasks.core.errors import StageError
from tasks.core.files import is_current

from .conftest import GAIN, SHAPE, Bench

SETTINGS = ReductionSettings()
Masters = tuple[MasterBias, MasterFlat]


@pytest.fixture
def masters(bench: Bench) -> Masters:
    bias = make_master_bias(bench.biases(9), bench.roots, bench.telescope, BiasSettings())
    levels = [20000.0, 24000.0, 28000.0, 22000.0, 26000.0]
    return bias, make_master_flat(bench.flats(levels), bias, bench.roots, bench.telescope, FlatSettings())


def test_science_and_variance_are_true(bench: Bench, masters: Masters) -> None:
    truth, _, _ = bench.stars(3.2, np.geomspace(500, 60000, 25))
    raw = bench.write("M67_-0003r60.fits", bench.expose(truth * bench.response * GAIN), "science", 60.0, filter="r")
    reduced = reduce_frame(raw, *masters, bench.roots, bench.telescope, SETTINGS)
    assert reduced.file.path == "2025/BENCH/reduced/20250317/M67_-0003r60.fits"
    data, mask, variance, header = read_reduced(reduced, bench.roots)
    assert (data.dtype, mask.dtype, variance.dtype) == (np.float32, np.uint8, np.float32)
    assert np.array_equal(fits.getdata(bench.roots.of(reduced.file)), data)
    good = mask == 0
    pull = ((data - truth) / np.sqrt(variance))[good]
    assert abs(np.mean((data - truth)[good])) < 0.4
    assert np.std(pull) == pytest.approx(1.0, abs=0.03)
    assert np.isfinite(data).all()
    assert np.isfinite(variance).all()
    assert variance.min() > 0
    assert (mask[:, 50] & MaskBit.BAD_PIXEL).all()
    assert reduced.masked_fraction == pytest.approx(np.mean(mask != 0), abs=1e-6)
    assert reduced.notes == ()
    assert header["FLATCORR"] == "master_flat_2025_BENCH_2_r.fits"
    assert header["NCOMBINE"] == 9
    assert is_current(reduced.file, bench.roots)


def test_header_is_legal_true_and_without_a_raw_wcs(bench: Bench, masters: Masters) -> None:
    cards = {
        "OBJECT": "Nébuleuse  de la chouette", "FILTER": "r_Gunn", "IMAGETYP": "Light Frame", "OBJCTRA": "08 51 18",
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 10.0, "CD1_1": 1.0, "EQUINOX": 2000.0,
        "PHOTZP": 99.0, "QCFWHM": 1.0, "SWCREATE": "MaxIm DL Version 5.23", "EXPTIME": 1.0, "GAIN": 77.0,
    }  # fmt: skip
    cards["OBJECT"] = "Nebuleuse  de la chouette"
    raw = bench.write(
        "f.fits", bench.expose(np.full(SHAPE, 300.0)), "science", 60.0, filter="r", header=cards, object="Nébuleuse"
    )
    reduced = reduce_frame(raw, *masters, bench.roots, bench.telescope, SETTINGS)
    with fits.open(bench.roots.of(reduced.file), checksum=True) as hdus:
        hdus.verify("exception")
        header = hdus[0].header
    for keyword in ("CTYPE1", "CRVAL1", "CD1_1", "EQUINOX", "PHOTZP", "QCFWHM"):
        assert keyword not in header
    assert header["OBJECT"] == "Nebuleuse"
    assert (header["FILTER"], header["RAWFILT"], header["RAWTYPE"]) == ("r", "r_Gunn", "Light Frame")
    assert header["OBJCTRA"] == "08 51 18"
    assert (header["EXPTIME"], header["GAIN"]) == (60.0, GAIN)
    assert header["DATE-OBS"] == "2025-03-17T22:10:05.000"
    assert header["MJD-AVG"] == pytest.approx(raw.mid_exposure_mjd, abs=1e-7)
    assert [header[f"MSKBIT{i}"] for i in range(7)] == [bit.name for bit in MaskBit]
    WCS(header)


def test_what_was_not_done_is_said(bench: Bench) -> None:
    raw = bench.write("f.fits", bench.expose(np.full(SHAPE, 300.0)), "science", 60.0, filter="Ha")
    reduced = reduce_frame(
        raw, None, None, bench.roots, bench.telescope, SETTINGS.model_copy(update={"cosmic_rays": False})
    )
    said = "\n".join(reduced.notes)
    assert "no bias of 2025: none subtracted" in said
    assert "no flat in Ha: FLATCORR NONE" in said
    assert "cosmic rays not looked for" in said
    header = read_reduced(reduced, bench.roots)[3]
    assert (header["BIASCORR"], header["FLATCORR"], header["BIASQUAL"], header["NCOMBINE"]) == (
        "NONE",
        "NONE",
        "NONE",
        0,
    )


def test_bias_level_of_the_profile(bench: Bench) -> None:
    camera = bench.telescope.camera.model_copy(update={"bias_level_adu": 1000.0})
    telescope = bench.telescope.model_copy(update={"camera": camera})
    raw = bench.write("f.fits", bench.expose(np.full(SHAPE, 300.0)), "science", 60.0, filter="r")
    reduced = reduce_frame(raw, None, None, bench.roots, telescope, SETTINGS)
    assert "level of 1000 ADU subtracted" in reduced.notes[0]
    data, _, _, header = read_reduced(reduced, bench.roots)
    assert header["BIASCORR"] == "LEVEL"
    assert np.median(data) == pytest.approx(200, abs=3)


def test_saturation_and_bleeding(bench: Bench, masters: Masters) -> None:
    adu = bench.expose(np.full(SHAPE, 300.0))
    adu[70:76, 100:105] = 65535
    adu[50:70, 102] = 40000
    adu[76:90, 102] = 30000
    raw = bench.write("f.fits", adu, "science", 60.0, filter="r")
    mask = read_reduced(reduce_frame(raw, *masters, bench.roots, bench.telescope, SETTINGS), bench.roots)[1]
    assert (mask[70:76, 100:105] & MaskBit.SATURATED).all()
    assert (mask[50:70, 102] & MaskBit.BLEED).all()
    assert (mask[76:90, 102] & MaskBit.BLEED).all()
    assert not (mask[:, 110:] & (MaskBit.SATURATED | MaskBit.BLEED)).any()


def test_nan_pixels_are_masked_and_filled(bench: Bench, masters: Masters) -> None:
    adu = bench.expose(np.full(SHAPE, 300.0)).astype(np.float32)
    adu[10:14, 20:26] = np.nan
    raw = bench.write("f.fits", adu, "science", 60.0, filter="r")
    data, mask, variance, _ = read_reduced(
        reduce_frame(raw, *masters, bench.roots, bench.telescope, SETTINGS), bench.roots
    )
    assert (mask[10:14, 20:26] & MaskBit.NO_DATA).all()
    assert data[10:14, 20:26] == pytest.approx(200, abs=25)
    assert np.isfinite(variance).all()


def test_damaged_frames(bench: Bench, masters: Masters) -> None:
    good = bench.expose(np.full(SHAPE, 300.0))
    nan = np.full(SHAPE, np.nan, np.float32)
    torn = bench.write("torn.fits", good, "science", 60.0, filter="r")
    path = bench.roots.raw / "torn.fits"
    path.write_bytes(path.read_bytes()[:30000])
    (bench.roots.raw / "empty.fits").write_bytes(b"")
    (bench.roots.raw / "text.fits").write_text("not a FITS file at all\n" * 500)
    (bench.roots.raw / "table.fits").write_bytes(b"")
    fits.HDUList([fits.PrimaryHDU()]).writeto(bench.roots.raw / "table.fits", overwrite=True)
    half = good.astype(np.float32)
    half[:100] = np.nan
    cases = {
        "truncated": torn,
        "empty": bench.frame("empty.fits", "science", 60.0, filter="r"),
        "cannot be read": bench.frame("text.fits", "science", 60.0, filter="r"),
        "no HDU holds an image": bench.frame("table.fits", "science", 60.0, filter="r"),
        "192 x 100": bench.write("shape.fits", good[:100], "science", 60.0, filter="r"),
        "all are NaN": bench.write("nan.fits", nan, "science", 60.0, filter="r"),
        "NO_DATA": bench.write("half.fits", half, "science", 60.0, filter="r"),
    }
    for words, raw in cases.items():
        with pytest.raises(StageError, match=words) as caught:
            reduce_frame(raw, *masters, bench.roots, bench.telescope, SETTINGS)
        assert caught.value.remedy
        assert not caught.value.pending
        assert caught.value.record(raw.path).stage == "reduction"
    assert not list(bench.roots.data.glob("*/BENCH/reduced/**/*"))


def test_masters_that_do_not_fit(bench: Bench, masters: Masters) -> None:
    bias, flat = masters
    good = bench.expose(np.full(SHAPE, 300.0))
    raw = bench.write("f.fits", good, "science", 60.0, filter="r")
    other = bench.write("w.fits", good[:100], "science", 60.0, filter="r", shape=(100, SHAPE[1]))
    with pytest.raises(StageError, match="binning 1"):
        reduce_frame(raw.model_copy(update={"binning": 1}), bias, flat, bench.roots, bench.telescope, SETTINGS)
    with pytest.raises(StageError, match="master bias has"):
        reduce_frame(other, bias, None, bench.roots, bench.telescope, SETTINGS)
    with pytest.raises(StageError, match="master flat has"):
        reduce_frame(other, None, flat, bench.roots, bench.telescope, SETTINGS)
    with pytest.raises(StageError, match="master flat is r"):
        reduce_frame(raw.model_copy(update={"filter": "Ha"}), bias, flat, bench.roots, bench.telescope, SETTINGS)
    bench.roots.of(flat.file).write_bytes(b"SIMPLE  =")
    with pytest.raises(StageError, match="cannot be read"):
        reduce_frame(raw, bias, flat, bench.roots, bench.telescope, SETTINGS)


def test_same_bytes_and_raw_untouched(
    bench: Bench, masters: Masters, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    truth, _, _ = bench.stars(3.0, np.geomspace(500, 60000, 10))
    raw = bench.write("f.fits", bench.expose(truth * bench.response * GAIN), "science", 60.0, filter="r")
    before = snapshot(bench.roots.raw)
    first = reduce_frame(raw, *masters, bench.roots, bench.telescope, SETTINGS)
    one = bench.roots.of(first.file).read_bytes()
    second = reduce_frame(raw, *masters, bench.roots, bench.telescope, SETTINGS)
    assert first == second
    assert one == bench.roots.of(second.file).read_bytes()
    assert snapshot(bench.roots.raw) == before
