"""A campaign that never was: other programs, other words, other folders. The rules must hold where no list does."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.base import Roots
from models.telescope import load_telescope
from tasks.inventory import canonical_filter, classify, take_inventory

from .raw_files import LIGHT, write_raw

T120 = load_telescope("T120")
DAY, DUSK, DAWN, NIGHT = "2021-03-14T15:00:00", "2021-03-14T18:06:00", "2021-03-15T05:20:00", "2021-03-14T22:07:00"


@pytest.mark.parametrize(
    ("path", "imagetyp", "word", "exptime", "when", "kind"),
    [
        # flats: French and English, glued, in folders, at dawn, under a target's folder
        ("nuit du 14 mars/PLU/R/PLU_R_0001.fits", "Light Frame", "", 3.0, DUSK, "flat"),
        ("14mars/Flats ciel/0001.fits", "Light Frame", "", 3.0, DUSK, "flat"),
        ("cielplat-001R.fits", "Light Frame", "", 3.0, DUSK, "flat"),
        ("flatciel_R-001.fits", "Light Frame", "", 3.0, DUSK, "flat"),
        ("FlatSoir-001R.fits", "Light Frame", "", 3.0, DUSK, "flat"),
        ("Sky Flat R 001.fits", "Light Frame", "", 3.0, DUSK, "flat"),
        ("éclairement uniforme/0003.fits", "Light Frame", "", 3.0, DUSK, "flat"),
        ("domeflat/df_001.fits", "Dome Flat", "", 3.0, DAY, "flat"),
        ("M101 fin de nuit/flat matin R 001.fits", "Light Frame", "M101", 3.0, DAWN, "flat"),
        ("M101/flat/R-001.fits", "Light Frame", "M101", 3.0, DUSK, "flat"),
        # biases and darks
        ("calib/offsets/0001.fit", "Bias Frame", "", 0.0, DAY, "bias"),
        ("calibration/Offset/0001.fit", "Light Frame", "", 0.0, DAY, "bias"),
        ("Précharge-004.fit", "Dark Frame", "", 0.001, DAY, "bias"),
        ("zero_0001.fits", "zero", "", 0.0, DAY, "bias"),
        ("M101/bias/001.fits", "Light Frame", "M101", 0.0, DUSK, "bias"),
        ("noirs/300s/noir_001.fits", "Dark Frame", "", 300.0, NIGHT, "dark"),
        ("D300_001.fits", "Dark Frame", "", 300.0, NIGHT, "dark"),
        # science, in folders of any name; what sounds like calibration and is a target
        ("M 101/R/M101_001.fits", "Light Frame", "M 101", 300.0, NIGHT, "science"),
        ("M101/bruts/M101_R_001.fits", "object", "M101", 300.0, NIGHT, "science"),
        ("flats/M101-001.fits", "Light Frame", "M101", 300.0, NIGHT, "science"),
        ("Offsetneb/NGC7000-001.fits", "Light Frame", "NGC7000", 60.0, NIGHT, "science"),
        ("NGC 2023/x_001.fits", "Light Frame", "Dark horse", 60.0, NIGHT, "science"),
        ("Barnard33/dark_horse-001.fits", "Light Frame", "Barnard 33", 60.0, NIGHT, "science"),
        ("SCAX_new_-001_r.fits", "Light Frame", "SCAX_new_", 60.0, NIGHT, "science"),
        ("Median_field-001.fits", "Light Frame", "Median field", 60.0, NIGHT, "science"),
        ("M51 plus court-003R.fits", "Light Frame", "M51 plus court", 60.0, NIGHT, "science"),
        ("coma final-003R.fits", "Light Frame", "coma final", 60.0, NIGHT, "science"),
        # made by programs: by name, by folder, in French with its genders and numbers
        ("M101/traitées/M101_R_001.fits", "object", "M101", 300.0, NIGHT, "junk"),
        ("M101/prétraités/M101_R_001.fits", "object", "M101", 300.0, NIGHT, "junk"),
        ("M101/reduced/M101_R_001.fits", "object", "M101", 300.0, NIGHT, "junk"),
        ("M101_R_001_processed.fits", "object", "M101", 300.0, NIGHT, "junk"),
        ("images alignées-004.fits", "object", "M101", 300.0, NIGHT, "junk"),
        ("masters/PLU_R.fits", "Flat Field", "", 3.0, DUSK, "junk"),
        ("PLU moyenne R.fits", "Flat Field", "", 3.0, DUSK, "junk"),
        ("median_flat_V.fits", "Flat Field", "", 3.0, DUSK, "junk"),
        ("flat_norm_R.fits", "Flat Field", "", 3.0, DUSK, "junk"),
        # not for science
        ("mise au point/001.fits", "Light Frame", "", 3.0, NIGHT, "junk"),
        ("Mise_au_point-003.fits", "Light Frame", "M101", 3.0, NIGHT, "junk"),
        ("focus/0004.fits", "Light Frame", "", 3.0, NIGHT, "junk"),
        ("focus/M101-0004.fits", "Light Frame", "M101", 60.0, NIGHT, "science"),
        ("Test pointage.fits", "Light Frame", "", 3.0, NIGHT, "junk"),
    ],
)  # fmt: skip
def test_kinds(path: str, imagetyp: str, word: str, exptime: float, when: str, kind: str) -> None:
    header = {"DATE-OBS": when, "OBJECT": word, "FILTER": "R", "IMAGETYP": imagetyp, "EXPTIME": exptime}
    answer = classify(header, f"202103OHP/T120/{path}", T120)
    assert answer.kind == kind, answer
    assert answer.why


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("Halpha 656.3", "Ha"), ("H-alpha_3nm", "Ha"), ("Hα 6563 Å", "Ha"), ("H_alpha OHP 6563", "Ha"), ("H-a", "Ha"),
        ("OIII_5007", "OIII"), ("[O III] 500.7", "OIII"), ("O3", "OIII"), ("O3 OHP", "OIII"), ("[SII]_6716", "SII"),
        ("S2", "SII"), ("g prime", "g"), ("SDSS-g", "g"), ("r_SLOAN", "r"), ("i_prime", "i"), ("GUNN R", "r"),
        ("Gunn G", "g"), ("V (Johnson)", "V"), ("R Kron-Cousins", "R"), ("R_c", "R"), ("R_J", "R"),
        ("V_cousins_OHP", "V"),
        ("U_Johnson", "U"), ("MD_6648", "MD6648"), ("6691MD", "MD6691"), ("Sans filtre", None), ("Vide", None),
        ("I_c", None), ("Rouge", None), ("S3", None), ("O2", None),
    ],
)  # fmt: skip
def test_filters(spelled: str, name: str | None) -> None:
    assert canonical_filter(spelled, T120) == name


def test_copies_are_seen_and_nothing_is_lost(tmp_path: Path) -> None:
    """Same content, saved again under another name, processed: of each exposure one file is used, the camera's."""
    raw = tmp_path / "raw"
    small = T120.model_copy(update={"camera": T120.camera.model_copy(update={"shape": (16, 16)})})
    shape, n = (16, 16), iter(range(100))

    def frame(path: str, second: int, pixels: int | None = None, bitpix: int = 16) -> None:
        cards = LIGHT | {"DATE-OBS": f"2021-03-14T22:28:{second:02d}"}
        content = (1000 + next(n) if pixels is None else pixels).to_bytes(4, "big")
        write_raw(raw / path, cards, shape, pixels=content, bitpix=bitpix)

    frame("M67-0001R.fits", 1, 1)
    frame("M67-0001R (copie).fits", 1, 1)  # first by name, not by right
    frame("sauvegarde/M67-0001R.fits", 1, 1)
    frame("M67-0002R.fits", 2)
    frame("M67-0002R_copy2.fits", 2)  # another header
    frame("M67-0003R (1).fits", 3)  # the only one there is
    frame("M67-0004R.fits", 4)
    frame("M67-0004R_processed.fits", 4, bitpix=-32)
    frame("M67-0005R_processed.fits", 5, bitpix=-32)
    frame("other night/M67-0004R.fits", 6)  # the same name, another exposure
    frame("M67-0007R.fits", 7, bitpix=-32)  # a real-number file beside the camera's own, whose name is marked
    frame("M67-0007R - Copy.fits", 7)
    found = take_inventory(Roots(data=tmp_path / "data", raw=raw), small)
    used = sorted(frame.path for frame in found.frames)
    assert used == ["M67-0001R.fits", "M67-0002R.fits", "M67-0003R (1).fits", "M67-0004R.fits", "M67-0007R - Copy.fits",
                    "other night/M67-0004R.fits"]  # fmt: skip
    why = {row.path: row.why for row in found.rows if row.path not in used}
    assert why["M67-0001R (copie).fits"].startswith("copy of M67-0001R.fits")
    assert why["sauvegarde/M67-0001R.fits"] == "copy of M67-0001R.fits (same content)"
    assert why["M67-0002R_copy2.fits"] == "copy of M67-0002R.fits (the same exposure, saved again under another name)"
    assert "'processed'" in why["M67-0004R_processed.fits"]
    assert "'processed'" in why["M67-0005R_processed.fits"]
    assert why["M67-0007R.fits"].startswith("processed copy of M67-0007R - Copy.fits")
    names = [(frame.night, frame.name) for frame in found.frames]
    assert len(set(names)) == len(names)
