"""What a tired student at 4 a.m. feeds it: everything good is made, everything bad is a record, no traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from astropy.io import fits

from tests.flows.conftest import run, snapshot

pytestmark = [pytest.mark.tools]


class Night(NamedTuple):
    """A data root and what a command said about it."""

    root: Path
    answer: object
    good: set[str]
    before: dict


def rows(root: Path, name: str) -> list[dict]:
    return json.loads((root / name).read_text())["rows"]


def _copy(frame: Path, to: Path, **cards: object) -> None:
    """A raw frame with other header values; a value of None removes the card."""
    with fits.open(frame, memmap=False, do_not_scale_image_data=True) as hdus:
        for keyword, value in cards.items():
            if value is None:
                hdus[0].header.remove(keyword.replace("_", "-"))
            else:
                hdus[0].header[keyword.replace("_", "-")] = value
        hdus.writeto(to, output_verify="ignore")


def science(raw: Path) -> list[Path]:
    return sorted(path for path in raw.rglob("M67*.fits"))


@pytest.fixture(scope="module")
def night(campaign, tmp_path_factory):
    """A good little campaign with every kind of bad file among its frames, reduced."""
    root = tmp_path_factory.mktemp("bad") / "data"
    shutil.copytree(campaign.roots.raw, root / "raw")
    shutil.copytree(campaign.roots.catalogs, root / "catalogs")
    good = {path.name for path in science(root / "raw")}
    frame = science(root / "raw")[0]
    folder = frame.parent
    whole = frame.read_bytes()
    (folder / "M67-truncated.fits").write_bytes(whole[: int(len(whole) * 0.6)])
    (folder / "M67-empty.fits").write_bytes(b"")
    (folder / "M67-text.fits").write_text("Seeing was bad, went to bed.\n")
    _copy(frame, folder / "M67-filter.fits", FILTER="Zeta 500", OBJECT="M67")
    _copy(frame, folder / "M67-undated.fits", DATE_OBS=None)
    header = fits.getheader(frame)
    for name, data in (
        ("M67-shape.fits", np.full((600, 700), 1000, np.uint16)),
        ("M67-allnan.fits", np.full((1024, 1024), np.nan, np.float32)),
    ):  # another time than the good frame's: else they would be copies of it
        hdu = fits.PrimaryHDU(data)
        for keyword in ("DATE-OBS", "EXPTIME", "FILTER", "OBJECT", "IMAGETYP", "XBINNING", "YBINNING", "CCD-TEMP"):
            hdu.header[keyword] = header[keyword]
        hdu.header["DATE-OBS"] = header["DATE-OBS"][:-1] + "7"
        hdu.writeto(folder / name)
    pixels = fits.getdata(frame).astype(np.float32)
    pixels[200:260, 300:420] = np.nan
    hdu = fits.PrimaryHDU(pixels)
    for keyword in ("EXPTIME", "FILTER", "OBJECT", "IMAGETYP", "XBINNING", "YBINNING", "CCD-TEMP"):
        hdu.header[keyword] = header[keyword]
    hdu.header["DATE-OBS"] = header["DATE-OBS"][:-1] + "9"
    hdu.writeto(folder / "M67-somenan.fits")
    before = snapshot(root / "raw")
    answer = run("flows.reduce_year", "2023", "--root", str(root), home=tmp_path_factory.mktemp("home"))
    return Night(root, answer, good, before)


def test_it_ends_well_without_a_traceback(night):
    assert night.answer.returncode == 0, night.answer.stderr
    assert "Traceback" not in night.answer.stdout + night.answer.stderr


def test_every_good_frame_is_made(night):
    solved = {
        Path(row["file"]).name
        for row in rows(night.root, "2023/T120/astrometry/astrom_report.json")
        if row["status"] == "OK"
    }
    assert len([name for name in solved if name not in ("M67-somenan.fits",)]) == len(night.good)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("M67-truncated.fits", "truncated|shorter|ends before"),
        ("M67-empty.fits", "empty"),
        ("M67-text.fits", "not a FITS|no FITS|FITS"),
        ("M67-filter.fits", "unknown filter|Zeta 500"),
        ("M67-undated.fits", "DATE-OBS"),
        ("M67-shape.fits", "700|600"),
        ("M67-allnan.fits", "NaN"),
    ],
)
def test_every_bad_file_is_named_with_reason_and_remedy(night, name, why):
    import re

    said = night.answer.stdout
    assert name in said, f"{name} is not in the summary:\n{said}"
    place = said.index(name)
    assert re.search(why, said[place : place + 600]), said[place : place + 600]
    assert "->" in said[place : place + 600]


def test_a_frame_with_some_nan_pixels_is_used_and_they_are_masked(night):
    (path,) = night.root.glob("2023/T120/reduced/*/M67-somenan.fits")
    with fits.open(path) as hdus:
        assert np.isfinite(hdus[0].data).all()
        assert np.all(hdus["MASK"].data[210:250, 310:410] & 32)


def test_not_one_byte_of_the_raw_tree_changed(night):
    assert snapshot(night.root / "raw") == night.before


@pytest.fixture(scope="module")
def poor(campaign, beside, tmp_path_factory):
    """No bias, one g frame, two r frames, no catalogue; then the catalogues arrive."""
    root, home = tmp_path_factory.mktemp("poor") / "data", tmp_path_factory.mktemp("home")
    shutil.copytree(campaign.roots.raw, root / "raw")
    kept = {"g": 1, "r": 2}
    for path in sorted((root / "raw").rglob("*.fit*")):
        header = fits.getheader(path)
        if header["EXPTIME"] == 0:
            path.unlink()
        elif path.name.startswith("M67"):
            filter = "g" if "g" in str(header["FILTER"]).lower() else "r"
            if kept[filter] == 0:
                path.unlink()
            else:
                kept[filter] -= 1
    first = run("flows.reduce_year", "2023", "--root", str(root), home=home, **beside)
    early = rows(root, "2023/T120/astrometry/astrom_report.json")
    shutil.copytree(campaign.roots.catalogs, root / "catalogs", dirs_exist_ok=True)
    second = run("flows.reduce_year", "2023", "--root", str(root), home=home, **beside)
    stacked = run("flows.stack_target", "M67", "--root", str(root), home=home, **beside)
    return root, home, first, early, second, stacked


def test_without_catalogues_frames_are_pending_not_failed(poor):
    _, _, first, early, _, _ = poor
    assert first.returncode == 75, first.stdout + first.stderr
    assert {row["status"] for row in early} == {"PENDING"}
    assert "pending" in first.stdout
    assert "flows.import_catalog" in first.stdout
    assert "Traceback" not in first.stdout + first.stderr


def test_when_they_arrive_the_same_command_finishes_the_rest(poor):
    root, _, _, _, second, _ = poor
    assert second.returncode == 0, second.stdout + second.stderr
    assert {row["status"] for row in rows(root, "2023/T120/astrometry/astrom_report.json")} == {"OK"}


def test_a_year_without_bias_is_reduced_and_says_so(poor):
    root = poor[0]
    for row in rows(root, "2023/T120/qc/frame_stats.json"):
        assert row["status"] == "OK"
        assert "bias" in row["reason"]
    for path in root.glob("2023/T120/reduced/*/*.fits"):
        assert fits.getheader(path)["BIASCORR"] == "NONE"


def test_a_filter_with_one_frame_is_not_stacked_and_the_other_is(poor):
    root, _, _, _, _, stacked = poor
    assert stacked.returncode == 0, stacked.stdout + stacked.stderr
    by_filter = {row["filter"]: row for row in rows(root, "stacks/stack_all_report.json")}
    assert by_filter["g"]["status"] == "TOO_FEW_FRAMES"
    assert "1" in by_filter["g"]["reason"]
    assert by_filter["r"]["status"] == "OK"
    assert "M67_g" in stacked.stdout


def test_a_group_without_frames_is_one_clear_line(poor, beside):
    root, home = poor[:2]
    answer = run("flows.stack_target", "M13", "--root", str(root), home=home, **beside)
    assert answer.returncode == 2
    assert "no frame of M13 in 2023; frames show M67 (3)" in answer.stderr


def test_a_year_without_frames_names_the_years_there_are(poor, beside):
    root, home = poor[:2]
    answer = run("flows.reduce_year", "2024", "--root", str(root), home=home, **beside)
    assert answer.returncode == 2
    assert "no raw frames of 2024" in answer.stderr
    assert "2023" in answer.stderr


def test_stacking_before_reducing_says_what_comes_first(tmp_path):
    answer = run("flows.stack_target", "M67", "--root", str(tmp_path), home=tmp_path)
    assert answer.returncode == 2
    assert "first: python -m flows.reduce_year YEAR" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_swarp_that_dies_is_a_record_and_not_the_end(poor, beside, tmp_path):
    """Status 1, since the only stack could not be made; the report and the page say why."""
    import os

    root, home = poor[:2]
    fake = tmp_path / "bin" / "SWarp"
    fake.parent.mkdir()
    fake.write_text('#!/bin/bash\n[ "$1" = --version ] && { echo "SWarp version 9.9.9"; exit 0; }\nkill -SEGV $$\n')
    fake.chmod(0o755)
    answer = run(
        "flows.stack_target", "M67", "--root", str(root), home=home, **beside,
        PATH=f"{fake.parent}:{os.environ['PATH']}",
    )  # fmt: skip
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert "died of SIGSEGV" in answer.stdout
    assert "Traceback" not in answer.stdout + answer.stderr
    by_filter = {row["filter"]: row for row in rows(root, "stacks/stack_all_report.json")}
    assert by_filter["r"]["status"] == "FAILED"
    assert "SIGSEGV" in by_filter["r"]["reason"]
    assert "SIGSEGV" in (root / "stacks" / "M67" / "T120" / "index.html").read_text()
