"""Words of observers, French and English, known and new."""

from __future__ import annotations

import pytest

from tasks.inventory.words import imagetyp_meaning, read_words


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Flat-001R", "flat"), ("FF_R_-001", "flat"), ("flats", "flat"), ("PLU_V-003", "flat"), ("plage_R_001", "flat"),
        ("FlatHa-002", "flat"), ("flatr-001", "flat"), ("SkyFlat_B_0001", "flat"), ("twilight flat", "flat"),
        ("Calib_Flat_R-0004", "flat"), ("Champ plat R-2", "flat"), ("écran_V-003", "flat"), ("domeflats-0004g",
        "flat"), ("Plages de lumière", "flat"),
        ("Bias-001R", "bias"), ("BIAS-0001", "bias"), ("offset-001", "bias"), ("OFFSET120-nuit1", "bias"),
        ("biais_0003", "bias"), ("Bias8Test-001", "bias"), ("Zero_005", "bias"), ("offsets", "bias"),
        ("Dark_30s-0001", "dark"), ("darks", "dark"), ("noir-120s_02", "dark"), ("darkflat-01", "dark"),
        ("Flat dark 003", "dark"), ("Obscurité-300s", "dark"),
        ("M67_-0003r60", None), ("Coma Cote-0017G", None), ("Black_Eye-001", None), ("dark nebula B33", None),
        ("darkness", None), ("EFF_1", None), ("2023_EO_-003", None), ("Superflatgalaxy", None), ("biased", None),
        ("NGC2539_-001B20", None), ("IC434", None), ("M101-offsetless", None), ("", None),
    ],
)  # fmt: skip
def test_calibration_words(name: str, kind: str | None) -> None:
    assert read_words(name).calibration == kind


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("M67_-0003r60", True), ("2726 -001R", True), ("c8zjy22_15s (1)", True), ("scax010-001_r", True),
        ("Cheval-001_Ha", True), ("29P-0003R", True), ("U81876", True), ("Nébuleuse", True),
        ("0001", False), ("001_R", False), ("Autosave Image -003R", False), ("CCD Image 5", False),
        ("Flat-001R", False), ("Bias8Test-001", False), ("R_60s-0002", False), ("Light_Ha_300s_0001", False),
        ("FF_bin4x4-001r", False), ("", False), ("2023", False), ("Dark_30s-0001", False),
    ],
)  # fmt: skip
def test_whether_a_name_names_something(name: str, named: bool) -> None:
    assert read_words(name).names_something is named


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("M51-001R_processed", "processed"), ("M51-001R_calibrated", "calibrated"), ("master_bias_1024", "master"),
        ("MasterFlat_R", "master"), ("M51-001R_calibré", "calibre"), ("pp_M51_0003", "pp"), ("M51-001_cal", "cal"),
        ("M51_stacked", "stacked"), ("M51-R-stack", "stack"), ("superbias", "superbias"),
        ("M67_median", "median"), ("Calib_Flat_R-001", ""), ("Median_field-001", ""), ("M51-001R", ""),
        ("Stack_test-001", ""), ("Calabash-001", ""), ("calibre-001", ""),
    ],
)  # fmt: skip
def test_files_made_by_a_program(name: str, made: str) -> None:
    assert read_words(name).made == made


@pytest.mark.parametrize(
    ("name", "aside"),
    [
        ("testIMAGE", "a test"), ("testastro", "a test"), ("IC10_Test-001R", "a test"), ("essai 3", "a test"),
        ("focus-002", "focusing"), ("Foc_1200", "focusing"), ("pointage-01", "pointing"), ("M67-001", ""),
        ("protest", "a test"), ("contesting", ""),
    ],
)  # fmt: skip
def test_what_else_a_frame_was_for(name: str, aside: str) -> None:
    assert read_words(name).aside == aside


@pytest.mark.parametrize(
    ("imagetyp", "meaning"),
    [
        ("Light Frame", "light"), ("LIGHT", "light"), ("object", "light"), ("Flat Field", "flat"), ("Flat Frame",
        "flat"),
        ("SKYFLAT", "flat"), ("Bias Frame", "bias"), ("zero", "bias"), ("Dark Frame", "dark"), ("DARK", "dark"),
        ("Master Dark", "master"), ("MASTERFLAT", "master"), ("", "none"), ("whatever", "none"),
    ],
)  # fmt: skip
def test_imagetyp(imagetyp: str, meaning: str) -> None:
    assert imagetyp_meaning(imagetyp) == meaning
