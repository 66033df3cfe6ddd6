"""The 2617 real headers of the archive as files: every one understood, none disputed beyond the truth below."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from models.base import Roots
from models.inventory import Inventory
from models.telescope import load_telescope
from tasks.inventory import take_inventory

from .raw_files import read_archive, write_archive_row

pytestmark = pytest.mark.shared

# Settled by hand from header, name, neighbours in time and the Sun's altitude: (pattern of path, kind, reason).
# First match wins; 'copy' files have the header values, to the hundredth of a second, of another file.
TRUTH = [
    (r"/master_(bias|flat)_", "junk", "masters made with other software"),
    (r"/CHAMP4R\.fits$", "junk", "1076 x 1077 px, exposure 0, no IMAGETYP: registered and combined frames"),
    (r"/(IC10_Test|testIMAGE|testimage|testNGC|testastro)", "junk", "the observer calls them tests"),
    (r"(?i)/bias8test-", "bias", "a bias of 0 s like those after it"),
    (r"20230314/bias-\S*\.fits$", None, "41 biases of 0 s; then 5 Halpha flats of 10 s with the name left over"),
    (r"/(Bias|BIAS|offset|Offset)-", "bias", "0 s, or 0.001 s with the shutter closed"),
    (r"/Dark_\d0s-", "dark", "IMAGETYP, name and exposure agree"),
    (r"(?i)/(calib_)?flat[-_]", "flat", "named flat; half of them with IMAGETYP 'Light Frame'"),
    (r"/FF_", "flat", "FF: flat field"),
    (r"20250318/M49-\S*[BGRV]\.fits$", "flat", "0.1-0.4 s in full daylight, IMAGETYP 'Flat Field', copied as Flat-*"),
    (r"", "science", "a light frame of the night"),
]
CANONICAL = {
    "R": "R", "R_Cousins": "R", "R Cousins": "R", "r": "r", "r_Gunn": "r", "g": "g", "G": "g", "g_Gunn": "g",
    "B": "B", "B_Cousins": "B", "B_cousins": "B", "B Cousins": "B", "V": "V", "V_Cousins": "V", "V_cousins": "V",
    "v_Gunn": "V", "i_Gunn": "i", "i Gunn": "i", "Halpha": "Ha", "H_alpha": "Ha", "H alpha OHP": "Ha",
    "Halpha_OHP": "Ha", "OIII": "OIII", "SII": "SII", "6648_MD": "MD6648", "6691_MD": "MD6691", "": None,
}  # fmt: skip


def true_kind(row: dict[str, str]) -> str:
    for pattern, kind, _ in TRUTH:
        if re.search(pattern, row["path"]):
            return kind or ("bias" if row["exptime"] == "0.0" else "flat")
    raise AssertionError(row["path"])


def true_night(row: dict[str, str]) -> str | None:
    """By the folder's own reckoning, from the UT clock: before noon UT belongs to the evening before."""
    if not row["date_obs"]:
        return None
    start = datetime.fromisoformat(row["date_obs"][:19])
    return (start - timedelta(hours=12) + timedelta(minutes=23)).strftime("%Y%m%d")


@pytest.fixture(scope="module")
def archive(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, str]], Inventory, Roots]:
    rows = read_archive(shared / "archive" / "t120_headers.csv")
    base = tmp_path_factory.mktemp("archive")
    numbers: dict[tuple[str, ...], int] = {}
    for row in rows:
        values = tuple(value for key, value in row.items() if key != "path")
        write_archive_row(base / "raw", row, numbers.setdefault(values, len(numbers)))
    used = int(os.popen(f"du -sm {base}").read().split()[0])
    assert used < 100, f"the archive of holes takes {used} MB"
    roots = Roots(data=base / "data", raw=base / "raw")
    return rows, take_inventory(roots, load_telescope("T120")), roots


def test_every_file_has_its_row(archive) -> None:
    rows, inventory, _ = archive
    assert sorted(row.path for row in inventory.rows) == sorted(row["path"] for row in rows)
    assert all(row.why for row in inventory.rows)
    assert [failure.file.rpartition("/")[2] for failure in inventory.unusable] == ["CHAMP4R.fits"]


def test_kinds(archive) -> None:
    rows, inventory, _ = archive
    found = {row.path: row for row in inventory.rows}
    wrong = []
    copies = 0
    for row in rows:
        answer = found[row["path"]]
        if answer.why.startswith("copy of"):
            copies += 1
            original = found[re.fullmatch(r"copy of (.*) \(same content\)", answer.why)[1]]
            assert original.kind == true_kind(row), answer
            continue
        if answer.kind != true_kind(row):
            wrong.append((row["path"], answer.kind, answer.why))
    same_values = Counter(tuple(v for k, v in row.items() if k != "path") for row in rows if row["date_obs"])
    assert copies == sum(count - 1 for count in same_values.values()) > 60
    assert not wrong


def test_filters(archive) -> None:
    rows, inventory, _ = archive
    found = {row.path: row for row in inventory.rows}
    for row in rows:
        assert found[row["path"]].filter == CANONICAL[row["filter"]] or not row["filter"], row["path"]
    assert all(frame.filter for frame in inventory.frames if frame.kind in ("science", "flat"))


def test_nights_binning_and_positions(archive) -> None:
    rows, inventory, _ = archive
    found = {row.path: row for row in inventory.rows}
    for row in rows:
        answer = found[row["path"]]
        assert answer.night == true_night(row), row["path"]
        assert answer.object == row["object"].strip()
        if row["xbinning"]:
            assert answer.binning == int(row["xbinning"])
        if row["exptime"]:
            assert answer.exptime == float(row["exptime"])
        assert (answer.ra is None) == (not row["objctra"])
        if row["objctra"]:
            hours, minutes, seconds = map(float, row["objctra"].split())
            assert answer.ra == pytest.approx(15 * (hours + minutes / 60 + seconds / 3600), abs=1e-9)
            degrees, minutes, seconds = map(float, row["objctdec"][1:].split())
            sign = -1 if row["objctdec"][0] == "-" else 1
            assert answer.dec == pytest.approx(sign * (degrees + minutes / 60 + seconds / 3600), abs=1e-9)
    by_binning = Counter(frame.binning for frame in inventory.frames)
    assert by_binning[4] == 15
    assert all(frame.shape[0] * frame.binning == 2048 for frame in inventory.frames)


def test_names_are_unique_in_a_night(archive) -> None:
    _, inventory, _ = archive
    names = Counter((frame.night, frame.name) for frame in inventory.frames)
    assert names.most_common(1)[0][1] == 1
    assert len(inventory.frames) > 2500


def test_one_year_and_quickly(archive) -> None:
    _, inventory, roots = archive
    began = time.perf_counter()
    found = take_inventory(roots, load_telescope("T120"), years={2020})
    seconds = time.perf_counter() - began
    # Measured: 0.2 ms a header, digests known from the first time; the bound is for a busy machine.
    assert seconds < 0.004 * len(inventory.rows), f"{seconds:.1f} s"
    assert found.frames == tuple(frame for frame in inventory.frames if frame.year == 2020)
    assert {row.path for row in found.rows} == {
        row.path for row in inventory.rows if (row.night or "2018")[:4] == "2020"
    }
