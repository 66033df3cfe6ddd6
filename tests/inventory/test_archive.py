"""The 2617 real headers of the archive as files: every one understood, none disputed beyond the truth below."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from models.base import Roots
from models.inventory import Inventory
from models.telescope import load_telescope
from tasks.inventory import take_inventory
from tests.conftest import REPO

from .raw_files import write_archive

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
    (
        r"20230314/A10TwUC-\S*\.fits$",
        "science",
        "50 of 15 s on a minor planet, Sun at -21 to -24 deg; IMAGETYP still 'Flat Field'",
    ),
    (
        r"20230315/(2023_EO_|Kirik_)-\S*Uprim\.fits$",
        "science",
        "15-30 s on minor planets, Sun at -16 to -19 deg, after flats in U: IMAGETYP still 'Flat Field'",
    ),
    (
        r"20230315/(McCracken|scax010)-\S*_r\.fits$",
        "science",
        "15 and 120 s, Sun at -25 to -31 deg: no twilight; IMAGETYP still 'Flat Field'",
    ),
    (
        r"20230316/Cheval-\S*_Ha\.fits$",
        "science",
        "300 s in H alpha at 05h40m -02d28', the Horsehead; Sun at -20 deg; OBJECT still 'flat'",
    ),
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


_PLAIN = (("flat", "flat"), ("ff_", "flat"), ("bias", "bias"), ("offset", "bias"), ("dark", "dark"),
          ("master", "junk"), ("test", "junk"), ("processed", "junk"))  # fmt: skip


def voices(row: dict[str, str]) -> set[str]:
    """What header, file name and OBJECT say, each read in the plainest way."""
    said = set()
    if row["exptime"] == "0.0":
        said.add("bias")
    for text in (row["imagetyp"], row["path"].rpartition("/")[2], row["object"]):
        low = text.lower()
        found = {kind for word, kind in _PLAIN if word in low}
        said |= found or ({"science"} if low else {"nothing"})
    return said


def true_night(row: dict[str, str]) -> str | None:
    """By the folder's own reckoning, from the UT clock: before noon UT belongs to the evening before."""
    if not row["date_obs"]:
        return None
    start = datetime.fromisoformat(row["date_obs"][:19])
    return (start - timedelta(hours=12) + timedelta(minutes=23)).strftime("%Y%m%d")


@pytest.fixture(scope="module")
def archive(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, str]], Inventory, Roots]:
    base = tmp_path_factory.mktemp("archive")
    rows = write_archive(shared / "archive" / "t120_headers.csv", base / "raw")
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


def test_every_disputed_file_is_settled_by_hand(archive) -> None:
    """Where header, name and OBJECT do not say one thing, a row of TRUTH other than the last one gives the reason."""
    rows, _, _ = archive
    disputed = [row for row in rows if len(voices(row) - {"nothing"}) != 1 or "nothing" in voices(row)]
    settled = Counter(
        next(k for k, (pattern, _, _) in enumerate(TRUTH) if re.search(pattern, row["path"])) for row in disputed
    )
    unnamed = [row for row in disputed if voices(row) == {"science", "nothing"}]  # say nothing else than that
    assert len(disputed) - len(unnamed) > 500
    assert settled[len(TRUTH) - 1] == len(unnamed)
    assert {k for k in range(len(TRUTH)) if not any(re.search(TRUTH[k][0], row["path"]) for row in rows)} == set()


def test_the_command_says_it_without_a_warning(archive, tmp_path: Path) -> None:
    rows, inventory, roots = archive
    report = tmp_path / "inventory.json"
    done = subprocess.run(
        [sys.executable, "-W", "always", "-m", "flows.inventory", "--root", str(roots.data),
         "--raw-root", str(roots.raw), "--json", str(report)],
        cwd=REPO, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) < 100
    told = json.loads(report.read_text(encoding="utf-8"))["rows"]
    assert told == [row.model_dump(mode="json") for row in inventory.rows]
    assert [row["path"] for row in told] == sorted(row["path"] for row in rows)
    used = {frame.path for frame in inventory.frames}
    assert all(row["why"] for row in told if row["path"] not in used)


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
