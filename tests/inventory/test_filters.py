"""Filter spellings: those of the archive and those that will come."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.telescope import Telescope, load_telescope
from tasks.inventory import canonical_filter, filter_in_name
from tasks.inventory.classify import classify

T120 = load_telescope("T120")


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        # seen in the archive
        ("R", "R"), ("r", "r"), ("r_Gunn", "r"), ("R Cousins", "R"), ("R_Cousins", "R"), ("G", "g"), ("g_Gunn", "g"),
        ("B_cousins", "B"), ("v_Gunn", "V"), ("Ha", "Ha"), ("Halpha_OHP", "Ha"), ("H alpha OHP", "Ha"), ("O III",
        "OIII"),
        ("SII", "SII"), ("6648_MD", "MD6648"), ("6691_MD", "MD6691"), ("U''_Cousins", "U"),
        # not seen: other cases, separators, systems, widths, French
        ("R_COUSINS", "R"), ("rcousins", "R"), ("R-Bessel", "R"), ("Bessell R", "R"), ("Rc", "R"), ("Johnson V", "V"),
        ("v", "V"), ("b", "B"), ("r_sdss", "r"), ("SDSS_r'", "r"), ("Sloan r", "r"), ("r′", "r"), ("i'", "i"), ("gp",
        "g"),
        ("HALPHA", "Ha"), ("H-alpha", "Ha"), ("Hα", "Ha"), ("Ha 7nm", "Ha"), ("Halpha656", "Ha"),
        ("filtre R Cousins", "R"),
        ("Filter Ha", "Ha"), ("[OIII]", "OIII"), ("oiii", "OIII"), ("OIII 5007A", "OIII"), ("s ii", "SII"), ("  B  ",
        "B"),
        # named, but nothing of this telescope
        ("I_Cousins", None), ("Clear", None), ("Luminance", None), ("None", None), ("Filter 3", None), ("z_Gunn", None),
        ("Y", None), ("?", None), ("", None), ("RGB", None),
    ],
)  # fmt: skip
def test_spellings(spelled: str, name: str | None) -> None:
    assert canonical_filter(spelled, T120) == name


def test_folding_is_used_only_where_one_band_fits() -> None:
    profile = T120.model_dump()
    profile["bands"] = [{"name": "R", "spellings": ["Red"]}, {"name": "r", "spellings": ["rED"]}]
    telescope = Telescope.model_validate(profile)
    assert canonical_filter("Red", telescope) == "R"
    assert canonical_filter("rED", telescope) == "r"
    assert canonical_filter("RED", telescope) is None


def test_the_other_profile() -> None:
    t080 = load_telescope("T080")
    assert [canonical_filter(word, t080) for word in ("r''", "CLEAR", "clear", "g''", "B Cousins")] == [
        "r", "Clear", "Clear", "g", "B",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("20250317/M67_-0003r60.fits", "r"), ("M1-0002_Ha.fits", "Ha"), ("Coma Cote-0017G.fits", "g"),
        ("IC10-001R.fit", "R"),
        ("M51-0002_OIII_300s.fits", "OIII"), ("NGC2539_-0004B120.fits", "B"), ("Flat_R-001.fit", "R"),
        ("M67_60s_V.fits", "V"),
        ("M67_R_60s.fits", "R"), ("flat-0003O3.FIT.GZ", None), ("Autosave Image -003SII.fit", "SII"),
        ("FF_I_-002.fit", "i"),
        ("M67-0001.fits", None), ("C2019_R1.fits", None), ("NGC_2548.fits", None), ("M67.fits", None),
        ("Dark_30s-0001.fit", None),
        ("r/M67-0001.fits", None),
    ],
)  # fmt: skip
def test_filter_in_the_file_name(path: str, name: str | None) -> None:
    assert filter_in_name(path, T120) == name


def light(**cards: object) -> dict[str, object]:
    return {"IMAGETYP": "Light Frame", "EXPTIME": 60.0, "OBJECT": "M67", "DATE-OBS": "2025-03-17T22:28:01"} | cards


def test_a_blank_filter_comes_from_the_name_and_is_said() -> None:
    found = classify(light(FILTER="  "), "M67_-0003r60.fits", T120)
    assert found.filter == "r"
    assert "FILTER is blank" in found.why


def test_an_unknown_filter_is_null_and_said() -> None:
    found = classify(light(FILTER="Filter 7"), "M67-0003r.fits", T120)
    assert (found.kind, found.filter) == ("science", None)
    assert "'Filter 7' is not known" in found.why


def test_header_and_name_that_contradict_are_said() -> None:
    found = classify(light(FILTER="g"), "flat-0003r.fits", T120)
    assert (found.kind, found.filter) == ("flat", "g")
    assert "the file name r: the header is believed" in found.why
    assert "believed" not in classify(light(FILTER="r_Gunn"), "M67-0003R.fits", T120).why


def test_a_telescope_without_filter_wheel() -> None:
    from tests.profiles import profile

    micro = profile("MICRO")
    assert canonical_filter("Clear", micro) == "Clear"
    bare = micro.model_copy(update={"unfiltered": "Clear"})
    found = classify(light(), str(Path("x") / "M67-0001.fits"), bare)
    assert found.filter == "Clear"
    assert "no filter named" in found.why
    assert classify(light(), "M67-0001.fits", micro).filter is None
