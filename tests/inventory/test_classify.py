"""Kinds of frames: what is believed when header, name and object disagree."""

from __future__ import annotations

import pytest

from models.inventory import Classification
from models.telescope import load_telescope
from tasks.inventory import classify

T120 = load_telescope("T120")
DAY, DUSK, NIGHT = "2023-03-14T15:00:00", "2023-03-14T18:06:00", "2023-03-14T22:07:00"


def found(
    path: str, imagetyp: str | None, obj: str, exptime: float | None, when: str, **cards: object
) -> Classification:
    header: dict[str, object] = {"DATE-OBS": when, "OBJECT": obj, "FILTER": "r"}
    if imagetyp is not None:
        header["IMAGETYP"] = imagetyp
    if exptime is not None:
        header["EXPTIME"] = exptime
    return classify(header | cards, path, T120)


@pytest.mark.parametrize(
    ("path", "imagetyp", "obj", "exptime", "when", "kind", "says"),
    [
        # everything agrees
        ("M67-0001r.fits", "Light Frame", "M67", 60.0, NIGHT, "science", "IMAGETYP 'Light Frame'"),
        ("Flat_R-001R.fit", "Flat Field", "Flat_R", 7.0, DUSK, "flat", "file name says 'flat'"),
        ("Bias-001.fit", "Bias Frame", "Bias", 0.0, DAY, "bias", "0 s"),
        ("Dark_30s-0001.fit", "Dark Frame", "Dark_30s", 30.0, NIGHT, "dark", "30 s"),
        # IMAGETYP lies
        ("flat-001_g.fits", "Light Frame", "flat", 8.0, NIGHT, "flat", "though IMAGETYP says 'Light Frame'"),
        ("PLU-001_g.fits", "Light Frame", "", 8.0, DUSK, "flat", "'plu'"),
        ("A10TwUC-001r.fits", "Flat Field", "A10TwUC", 15.0, NIGHT, "science", "named target under a dark sky"),
        ("0001.fits", "Flat Field", "M51", 300.0, NIGHT, "science", "named target under a dark sky"),
        ("M67-0001r.fits", "Light Frame", "M67", 0.0, NIGHT, "bias", "though IMAGETYP says 'Light Frame'"),
        ("dark-300s-01.fits", "Light Frame", "dark", 300.0, NIGHT, "dark", "though IMAGETYP says 'Light Frame'"),
        # flats under a target's name; OBJECT left over; OBJECT or folder alone
        ("M49-001R.fits", "Flat Field", "M49", 0.2, DAY, "flat", "IMAGETYP 'Flat Field'"),
        ("Cheval-001_Ha.fits", "Light Frame", "flat", 300.0, NIGHT, "science", "left over"),
        ("0001.fits", "Light Frame", "FF_r", 5.0, NIGHT, "flat", "OBJECT says 'ff'"),
        ("flats/R/0001.fits", "Light Frame", "", 5.0, NIGHT, "flat", "folder says 'flats'"),
        ("Autosave Image -001r.fits", "Light Frame", "Autosave Image", 2.0, DUSK, "flat", "bright sky"),
        # biases and what only has the name
        ("Offset-0001.fit", "Dark Frame", "Offset", 0.001, DAY, "bias", "'offset'"),
        ("OFFSET120/001.fit", None, "", 0.001, DAY, "bias", "'offset'"),
        ("bias-042.fits", "Light Frame", "bias", 10.0, DUSK, "flat", "though the file name says 'bias'"),
        ("bias-042.fits", "Light Frame", "bias", 10.0, NIGHT, "science", "an exposure to light in the dark"),
        ("bias-10s.fits", "Dark Frame", "bias", 10.0, NIGHT, "dark", "but a dark frame of 10 s"),
        ("biases/M67-0003r.fits", "Light Frame", "M67", 60.0, NIGHT, "science", "IMAGETYP"),
        ("flatdark-003.fits", "Light Frame", "flatdark", 5.0, DUSK, "dark", "5 s"),
        # nameless science, no IMAGETYP
        ("Autosave Image -001Ha.fit", "Light Frame", "Autosave Image", 300.0, NIGHT, "science", "its position decides"),
        ("HATP-32171220013343.FITS", None, "HATP-32", 60.0, NIGHT, "science", "no calibration frame"),
        ("M13-001r.fits", "Light Frame", "M13", 60.0, DAY, "science", "the clock was wrong"),
        # not raw, not for science
        ("M51-001r_processed.fits", "Light Frame", "M51", 60.0, NIGHT, "junk", "'processed'"),
        ("M51-001r_calibrated.fits", "Light Frame", "M51", 60.0, NIGHT, "junk", "'calibrated'"),
        ("master_flat_2018_R.fits", None, "", None, NIGHT, "junk", "made by a program"),
        ("x.fits", "Master Bias", "", 0.0, NIGHT, "junk", "'Master Bias'"),
        ("testNGC5557.fits", "Light Frame", "", 20.0, NIGHT, "junk", "named a test"),
        ("focus-003.fits", "Light Frame", "M67", 2.0, NIGHT, "junk", "focusing"),
        ("pointage.fits", "Light Frame", "M67", 2.0, NIGHT, "junk", "pointing"),
        ("Flat_Test-001R.fit", "Flat Field", "Flat_Test", 10.0, DUSK, "flat", "'flat'"),
        ("mystery.fits", None, "", None, NIGHT, "junk", "no exposure time"),
    ],
)  # fmt: skip
def test_rules(
    path: str, imagetyp: str | None, obj: str, exptime: float | None, when: str, kind: str, says: str
) -> None:
    answer = found(path, imagetyp, obj, exptime, when)
    assert (answer.kind, says in answer.why) == (kind, True), answer


@pytest.mark.parametrize(
    ("cards", "says"),
    [
        ({"CALSTAT": "BDF"}, "CALSTAT"), ({"SNAPSHOT": 5}, "combined from 5"), ({"NCOMBINE": 12}, "combined from 12"),
        ({"BIASCORR": "master_bias"}, "already reduced"), ({"PIPELINE": "ohp"}, "already reduced"),
    ],
)  # fmt: skip
def test_headers_of_processed_frames(cards: dict[str, object], says: str) -> None:
    answer = found("M51-001r.fits", "Light Frame", "M51", 60.0, NIGHT, **cards)
    assert (answer.kind, says in answer.why) == ("junk", True)
    plain = found("M51-001r.fits", "Light Frame", "M51", 60.0, NIGHT, CALSTAT="", SNAPSHOT=1)
    assert plain.kind == "science"


def test_without_a_date_the_sun_decides_nothing() -> None:
    header = {"IMAGETYP": "Flat Field", "OBJECT": "M49", "EXPTIME": 0.2, "FILTER": "R"}
    assert classify(header, "M49-001R.fits", T120).kind == "flat"


def test_an_astropy_header_will_do() -> None:
    from astropy.io import fits

    header = fits.Header({"IMAGETYP": "Bias Frame", "EXPTIME": 0.0, "DATE-OBS": DAY})
    assert classify(header, "Bias-001.fit", T120).kind == "bias"
