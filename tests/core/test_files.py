"""Files appear whole or not at all; digests see contents and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from models.base import FileRef, Roots
from tasks.core import files
from tasks.core.files import digest_file, digest_pixels, is_current, ref, safe_name, torn, write_json, writing
from tasks.core.fitsio import write_fits

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return Roots(data=tmp_path / "data", raw=tmp_path / "raw")


def test_a_failed_writer_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "product.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), writing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError("the disk is full")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["product.txt"]


def test_a_process_that_ends_in_the_middle_of_writing_takes_its_unfinished_file_along(tmp_path):
    program = """
import pathlib, sys, threading, time
from tasks.core.files import writing
begun = threading.Event()
def write():
    with writing(pathlib.Path(sys.argv[1])) as temporary:
        temporary.write_text("half")
        print(temporary.name, temporary.exists())
        begun.set()
        time.sleep(60)
threading.Thread(target=write, daemon=True).start()
begun.wait()
"""
    said = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "new.json"], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert said.stdout.endswith(".tmp True\n")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "product.txt"
    path.write_text("old")
    with writing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_json_refuses_what_json_cannot_say(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"zp": float("nan")})
    assert not list(tmp_path.iterdir())


def test_json_of_the_same_content_stays_with_its_times(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"zp": 22.5})
    before = path.stat()
    write_json(path, {"zp": 22.5})
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    write_json(path, {"zp": 23.5})
    assert json.loads(path.read_bytes()) == {"zp": 23.5}
    assert [each.name for each in tmp_path.iterdir()] == ["x.json"]


@given(st.text())
def test_any_text_becomes_a_harmless_name(text):
    name = safe_name(text)
    assert name
    assert len(name) <= 100
    assert name[0].isalnum()
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-")
    assert Path(name).name == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("M67_-0003r60", "M67_-0003r60"),
        ("Coma Cote-0017G", "Coma_Cote-0017G"),
        ("../../etc/passwd", "etc_passwd"),
        ("Nébuleuse de la chouette", "Nebuleuse_de_la_chouette"),
        ("-rf", "rf"),
        ("\x00", "unnamed"),
    ],
)
def test_names_stay_readable(text, name):
    assert safe_name(text) == name


def test_a_digest_follows_contents_not_times(roots):
    path = roots.data / "a.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"one")
    first = digest_file(path, roots)
    os.utime(path, (1, 1))
    assert digest_file(path, roots) == first
    path.write_bytes(b"two")
    os.utime(path, (1, 1))
    assert digest_file(path, roots) != first


def _frame(path: Path, value: float = 1.0, **cards: object) -> None:
    hdu = fits.PrimaryHDU(np.full((4, 4), value, np.float32))
    for keyword, card in cards.items():
        hdu.header[keyword] = card
    write_fits(path, [hdu, fits.ImageHDU(np.zeros((4, 4), np.uint8), name="MASK")])


def test_later_keywords_leave_the_pixel_digest_alone(roots):
    path = roots.data / "frame.fits"
    _frame(path, EXPTIME=60.0)
    before = digest_pixels(path)
    _frame(path, EXPTIME=60.0, PHOTZP=23.1, CRVAL1=12.0, A_2_0=1e-7, QCFLAG="OK", PROCDATE="2025-01-01")
    assert digest_pixels(path) == before


@pytest.mark.parametrize("changed", [{"value": 2.0}, {"EXPTIME": 61.0}, {"BIASCORR": "NONE"}])
def test_a_pixel_or_a_card_of_the_reduction_changes_it(roots, changed):
    path = roots.data / "frame.fits"
    _frame(path, EXPTIME=60.0)
    before = digest_pixels(path)
    _frame(path, **({"EXPTIME": 60.0} | changed))
    assert digest_pixels(path) != before


def test_the_undated_digest_forgets_dates_only(roots):
    path = roots.data / "frame.fits"
    _frame(path, PROCDATE="2025-01-01", PHOTZP=23.0)
    before = ref(path, roots, scope="undated")
    _frame(path, PROCDATE="2026-01-01", PHOTZP=23.0)
    assert ref(path, roots, scope="undated") == before
    _frame(path, PROCDATE="2026-01-01", PHOTZP=23.1)
    assert not is_current(before, roots)


def test_a_product_is_current_while_its_content_is(roots):
    path = roots.data / "a.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"content")
    product = ref(path, roots)
    assert is_current(product, roots)
    path.write_bytes(b"Content")
    assert not is_current(product, roots)
    path.unlink()
    assert not is_current(product, roots)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../b", "", "a\0b"])
def test_a_product_lies_inside_its_root(path):
    with pytest.raises(ValueError, match="not a path inside its root"):
        FileRef(path=path, digest="0" * 64)


@pytest.mark.parametrize("damage", ["torn", "a folder", "garbage after"])
def test_the_memo_of_digests_is_worth_nothing_when_damaged_and_costs_nothing(roots, tmp_path, damage):
    roots.data.mkdir()
    file = roots.data / "x"
    file.write_bytes(b"abc")
    right = digest_file(file)
    database = roots.data / ".cache" / "digests.sqlite"
    database.parent.mkdir()
    if damage == "a folder":
        database.mkdir()
    elif damage == "torn":
        database.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 20)
    else:
        assert digest_file(file, roots) == right
        files._memos.clear()
        content = bytearray(database.read_bytes())
        content[100:] = os.urandom(len(content) - 100)
        database.write_bytes(content)
    for _ in range(3):
        assert digest_file(file, roots) == right
    file.write_bytes(b"abcd")
    assert digest_file(file, roots) != right


def test_without_locks_there_is_no_memo_and_no_waiting(tmp_path):
    program = (
        "import sys, pathlib; from models.base import Roots; from tasks.core.files import digest_file;"
        "data = pathlib.Path(sys.argv[1]); (data / 'x').write_bytes(b'abc');"
        "print(digest_file(data / 'x', Roots(data=data, raw=data)))"
    )
    lockless = [sys.executable, "-m", "tests.faults.lockless", sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(lockless, cwd=REPO, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest_file(tmp_path / "x")
    assert "no locks on this file system" in done.stderr


def test_a_line_of_the_ledger_that_was_cut_costs_no_other(roots):
    from tasks.core.ledger import Made, note_made, now, read_made

    def note(what: str) -> None:
        note_made(roots, Made(at=now(), stage="reduce", what=what, key="k", outcome="made", seconds=1.0, run=""))

    note("one")
    with (roots.logs / "made.jsonl").open("a") as stream:
        stream.write('{"at": "2026-')
    note("two")
    note("three")
    assert [each.what for each in read_made(roots)] == ["one", "two", "three"]


def test_a_ledger_that_cannot_be_written_costs_no_result(roots):
    from tasks.core.ledger import Made, note_made, now

    (roots.logs / "made.jsonl").mkdir(parents=True)
    note_made(roots, Made(at=now(), stage="reduce", what="x", key="k", outcome="made", seconds=1.0, run=""))


@pytest.mark.parametrize("tables", [0, 1, 2])
def test_a_fits_file_cut_anywhere_is_torn(tmp_path, tables):
    hdus = [fits.PrimaryHDU(np.ones((30, 40), "i2") if tables == 0 else None)]
    hdus += [
        fits.BinTableHDU.from_columns([fits.Column("V", "PE()", array=[[1.0, 2.0], [3.0]])]) for _ in range(tables)
    ]
    path = tmp_path / "x.fits"
    fits.HDUList(hdus).writeto(path)
    whole = path.read_bytes()
    assert torn(path) == ""
    ends = {0, *(hdu.fileinfo()["datLoc"] + hdu.fileinfo()["datSpan"] for hdu in fits.open(path))}
    for length in {*range(100, len(whole), 997), len(whole) - 1, len(whole) // 2}:
        path.write_bytes(whole[:length])
        assert bool(torn(path)) == (length not in ends)
