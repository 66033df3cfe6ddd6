"""``python -m flows.inventory`` as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.report import InventoryRow, Report
from tests.conftest import REPO

from .raw_files import LIGHT, write_raw


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OHP_")}
    return subprocess.run(
        [sys.executable, "-m", "flows.inventory", *map(str, arguments)],
        cwd=REPO, capture_output=True, text=True, timeout=60, check=False, env=clean | environment,
    )  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    raw = tmp_path / "raw"
    shape = (1024, 1024)
    write_raw(raw / "20250317" / "M67_-0001r60.fits", LIGHT | {"FILTER": "r"}, shape, b"1")
    write_raw(raw / "20250317" / "M67_-0002B.fits", LIGHT | {"FILTER": "B"}, shape, b"2")
    write_raw(raw / "20250317" / "M67_-0003.fits", LIGHT | {"FILTER": "Slot 9"}, shape, b"3")
    flat = {"IMAGETYP": "Light Frame", "OBJECT": "flat", "DATE-OBS": "2024-03-17T18:00:00", "EXPTIME": 5.0}
    write_raw(raw / "20240317" / "flat-0001R.fits", LIGHT | flat, shape, b"4")
    for number in range(20):
        (raw / f"broken{number:02d}\x1b[31m\n.fits").write_bytes(b"no FITS")
    return tmp_path


def test_summary_and_report(root: Path, tmp_path: Path) -> None:
    report = tmp_path / "out" / "inv.json"
    done = run("--root", root, "--json", report)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    night = next(line.split() for line in lines if line.startswith("20250317"))
    assert night[:6] == ["20250317", "3", "·", "·", "·", "·"]
    assert "B 1" in " ".join(night)
    assert "? 1" in " ".join(night)
    assert "Cannot be used (20):" in done.stdout
    assert "and 8 more" in done.stdout
    assert "'Slot 9' is not known" in " ".join(done.stdout.split())
    assert "\x1b" not in done.stdout
    assert str(report) in done.stdout
    assert done.stderr == ""

    content = json.loads(report.read_text(encoding="utf-8"))
    assert list(content) == ["schema", "made", "software", "rows"]
    assert list(content["rows"][0]) == [
        "path", "kind", "why", "telescope", "night", "filter", "exptime", "binning", "object", "ra", "dec",
    ]  # fmt: skip
    checked = Report[InventoryRow].model_validate(content)
    assert len(checked.rows) == 24
    assert {"ohp-pipeline", "python", "numpy", "astropy"} <= set(checked.software)


def test_one_year(root: Path, tmp_path: Path) -> None:
    done = run("2024", "--root", root, "--json", tmp_path / "inv.json")
    assert done.returncode == 0
    assert "20250317" not in done.stdout
    rows = json.loads((tmp_path / "inv.json").read_text(encoding="utf-8"))["rows"]
    assert {row["night"] for row in rows} == {"20240317", None}


def test_the_environment_names_the_roots(root: Path, tmp_path: Path) -> None:
    done = run(OHP_DATA_ROOT=str(tmp_path / "else"), OHP_RAW_ROOT=str(root / "raw"))
    assert done.returncode == 0
    assert "20250317" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--root", "{}/nowhere"], "is not a folder"),
        (["--root", "{}/empty"], "no raw frames under"),
        (["1999", "--root", "{}/noyear"], "no raw frames of 1999"),
        (["--root", "{}/empty", "--telescope", "T999"], "no telescope profile 'T999'"),
        (["lastyear", "--root", "{}/empty"], "is no year between"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "empty" / "raw").mkdir(parents=True)
    write_raw(tmp_path / "noyear" / "raw" / "M67-0001.fits", LIGHT, (1024, 1024))
    done = run(*(argument.format(tmp_path) for argument in arguments))
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_the_report_goes_where_it_can(root: Path) -> None:
    done = run("--root", root, "--json", root / "raw" / "inv.json")
    assert (done.returncode, "nothing is ever written" in done.stderr) == (2, True)
    (root / "file").write_bytes(b"")
    done = run("--root", root, "--json", root / "file" / "inv.json")
    assert (done.returncode, "cannot be written" in done.stderr) == (2, True)
    assert not (root / "raw" / "inv.json").exists()


def test_help_is_quick() -> None:
    import time

    began = time.perf_counter()
    done = run("--help")
    assert done.returncode == 0
    assert "--json" in done.stdout
    assert time.perf_counter() - began < 5  # 1 s on a quiet machine
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "flows.inventory", "--help"],
        cwd=REPO, capture_output=True, text=True, timeout=60, check=True,
    ).stderr  # fmt: skip
    for heavy in ("astropy", "prefect", "numpy", "rich.table"):
        assert f" {heavy}\n" not in loaded
