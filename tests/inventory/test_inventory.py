"""Taking the inventory of a tree: bad files, odd names, links, copies, several telescopes, nothing touched."""

from __future__ import annotations

import math
import os
import re
import warnings
from pathlib import Path

import pytest

from models.base import Roots
from models.inventory import Inventory
from models.telescope import load_telescope
from tasks.core.errors import UserError
from tasks.inventory import count_raw_files, take_inventory
from tests.privileges import reading_only_what_it_may
from tests.profiles import install

from .raw_files import LIGHT, header_bytes, snapshot, write_raw

T120 = load_telescope("T120")
SMALL = T120.model_copy(update={"camera": T120.camera.model_copy(update={"shape": (64, 64)})})
SHAPE = (64, 64)


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    (tmp_path / "raw").mkdir()
    return Roots(data=tmp_path / "data", raw=tmp_path / "raw")


def light(
    roots: Roots, path: str, pixels: bytes | None = None, shape: tuple[int, int] = SHAPE, **cards: object
) -> Path:
    """A science frame; its path is its content where nothing else is given."""
    content = path.encode("utf-8", "surrogateescape") if pixels is None else pixels
    named = {key.replace("_", "-"): value for key, value in cards.items()}
    return write_raw(roots.raw / path, LIGHT | named, shape, content)


def rows(inventory: Inventory) -> dict[str, tuple[str, str]]:
    return {row.path: (row.kind, row.why) for row in inventory.rows}


def test_a_frame_is_described(roots: Roots) -> None:
    light(roots, "2025/T120/20250317/M67_-0003r60.fits", FILTER="", AIRMASS=1.25)
    (frame,) = take_inventory(roots, SMALL).frames
    assert (frame.kind, frame.telescope, frame.night, frame.filter) == ("science", "T120", "20250317", "r")
    assert (frame.name, frame.binning, frame.shape, frame.exptime) == ("M67_-0003r60", 2, (64, 64), 60.0)
    assert frame.date_obs.isoformat() == "2025-03-17T22:28:01.520000+00:00"
    assert (frame.ra, frame.dec) == (pytest.approx(132.7), pytest.approx(11 + 49 / 60 + 27 / 3600))
    assert (frame.ccd_temp, frame.airmass, frame.gain) == (pytest.approx(-59.777), 1.25, None)
    from tasks.core.files import digest_file

    assert frame.digest == digest_file(roots.raw / frame.path)


def test_any_depth_and_suffix(roots: Roots) -> None:
    for path in ("a.fits", "b/c/d/e/f/b.FIT", "b/c.Fits", "g.fts", "x.txt", "fits", "b/fits.jpg", "y.fits.bak"):
        light(roots, path)
    found = take_inventory(roots, SMALL)
    assert [row.path for row in found.rows] == ["a.fits", "b/c.Fits", "b/c/d/e/f/b.FIT", "g.fts"]
    assert len(found.frames) == 4 == count_raw_files(roots, SMALL)


def test_compressed_frames(roots: Roots) -> None:
    import gzip

    plain = light(roots, "M67-0001.fits")
    (roots.raw / "M67-0002.fits.gz").write_bytes(gzip.compress(plain.read_bytes() + b"x"))
    (roots.raw / "M67-0003.fits.gz").write_bytes(gzip.compress(plain.read_bytes()[:5000]))
    found = take_inventory(roots, SMALL)
    assert [frame.name for frame in found.frames] == ["M67-0001", "M67-0002"]
    assert "cut off" in found.unusable[0].reason


BAD = {
    "empty.fits": (b"", "empty"),
    "text.fits": (b"notes of the night\n" * 200, "not a FITS file"),
    "noend.fits": (header_bytes(LIGHT, SHAPE)[:800], "no END"),
    "cut.fits": (header_bytes(LIGHT, SHAPE) + bytes(5000), "cut off: 5000 of 8192 bytes"),
    "onebyte.fits": (header_bytes(LIGHT, SHAPE) + bytes(8191), "cut off: 8191 of 8192 bytes"),
    "nodata.fits": (header_bytes(LIGHT, SHAPE), "cut off: 0 of 8192 bytes"),
    "noimage.fits": (header_bytes(LIGHT | {"NAXIS": 0, "NAXIS1": None, "NAXIS2": None}), "no image"),
    "onedim.fits": (header_bytes(LIGHT | {"NAXIS": 1, "NAXIS2": None}, SHAPE) + bytes(9000), "no image"),
    "cube.fits": (header_bytes(LIGHT | {"NAXIS": 3, "NAXIS3": 3}, SHAPE) + bytes(90000), "not a two-dimensional image"),
    "bits.fits": (header_bytes(LIGHT | {"BITPIX": 17}, SHAPE) + bytes(9000), "BITPIX '17'"),
    "nan.fits": (header_bytes(LIGHT | {"EXPTIME": "NaN"}, SHAPE) + bytes(9000), "'NaN' is no exposure time"),
    "negative.fits": (header_bytes(LIGHT | {"EXPTIME": -5.0}, SHAPE) + bytes(9000), "'-5.0' is no exposure time"),
    "words.fits": (header_bytes(LIGHT | {"EXPTIME": "long"}, SHAPE) + bytes(9000), "'long' is no exposure time"),
    "noexp.fits": (header_bytes(LIGHT | {"EXPTIME": None, "EXPOSURE": None}, SHAPE) + bytes(9000), "no EXPTIME"),
    "nodate.fits": (header_bytes(LIGHT | {"DATE-OBS": None}, SHAPE) + bytes(9000), "no DATE-OBS"),
    "baddate.fits": (header_bytes(LIGHT | {"DATE-OBS": "yesterday"}, SHAPE) + bytes(9000), "not a date"),
    "small.fits": (header_bytes(LIGHT, (32, 32)) + bytes(2048), "not the whole chip (64 × 64 px)"),
    "odd.fits": (header_bytes(LIGHT | {"XBINNING": None}, (50, 70)) + bytes(9000), "fit no binning"),
    "oblong.fits": (header_bytes(LIGHT | {"YBINNING": 4}, SHAPE) + bytes(9000), "not square"),
    "bad.fits.gz": (b"not gzip at all", "damaged"),
}


def test_bad_files_become_records(roots: Roots) -> None:
    for name, (content, _) in BAD.items():
        (roots.raw / name).write_bytes(content)
    light(roots, "good.fits")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = take_inventory(roots, SMALL)
    failures = {failure.file: failure for failure in found.unusable}
    assert set(failures) == set(BAD)
    for name, (_, says) in BAD.items():
        assert says in failures[name].reason, (name, failures[name].reason)
        assert failures[name].remedy
        assert failures[name].stage == "inventory"
        kind, why = rows(found)[name]
        assert kind == "junk"
        assert says in why
    assert [frame.name for frame in found.frames] == ["good"]


def test_a_bias_needs_no_exposure_time_and_padding_may_be_missing(roots: Roots) -> None:
    cards = LIGHT | {"IMAGETYP": "Bias Frame", "OBJECT": "Bias", "EXPTIME": None, "EXPOSURE": None, "FILTER": None}
    write_raw(roots.raw / "Bias-001.fit", cards, SHAPE, size=8192)
    (frame,) = take_inventory(roots, SMALL).frames
    assert (frame.kind, frame.exptime, frame.filter) == ("bias", 0.0, None)


def test_other_binnings_are_kept_apart(roots: Roots) -> None:
    light(roots, "a.fits")
    light(roots, "b.fits", shape=(32, 32), XBINNING=4, YBINNING=4)
    light(roots, "c.fits", shape=(128, 128), XBINNING=1, YBINNING=1)
    light(roots, "d.fits", shape=(128, 128), XBINNING=None, YBINNING=None)
    found = take_inventory(roots, SMALL)
    assert {frame.name: (frame.binning, frame.shape) for frame in found.frames} == {
        "a": (2, (64, 64)), "b": (4, (32, 32)), "c": (1, (128, 128)), "d": (1, (128, 128)),
    }  # fmt: skip


ODD_NAMES = [
    "-rf *.fits", "new\nline.fits", "quo'te\".fits", "..fits.fits", "...fits", "a..b.fits",
    "ünïcödé Première nuit.fits",
    "\u202eright.fits", "tab\t.fits", " .fits", "$(touch x).fits", "%s%n.fits", "é" * 100 + ".fits", ".hidden.fits",
    "🌟.fits",
]  # fmt: skip


def test_odd_names(roots: Roots) -> None:
    for name in ODD_NAMES:
        light(roots, f"Deuxième nuit/{name}", DATE_OBS=None if name == "🌟.fits" else LIGHT["DATE-OBS"])
    found = take_inventory(roots, SMALL)
    assert {row.path for row in found.rows} == {f"Deuxième nuit/{name}" for name in ODD_NAMES}
    assert len(found.frames) == len(ODD_NAMES) - 1
    names = [frame.name for frame in found.frames]
    assert len(set(names)) == len(names)
    for frame in found.frames:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", frame.name)
        assert (roots.raw / frame.path).is_file()


def test_a_name_that_is_no_utf8(roots: Roots) -> None:
    folder = os.fsencode(roots.raw) + b"/Premi\xe8re nuit"
    os.mkdir(folder)
    with open(folder + b"/M67\xff.fits", "wb") as stream:
        stream.write(header_bytes(LIGHT, SHAPE) + bytes(9000))
    light(roots, "good.fits")
    found = take_inventory(roots, SMALL)
    assert [frame.name for frame in found.frames] == ["good"]
    (failure,) = found.unusable
    assert failure.file == "Premi\\xe8re nuit/M67\\xff.fits"
    assert "convmv" in failure.remedy
    assert found.model_dump_json().encode("utf-8")


def test_links(roots: Roots, tmp_path: Path) -> None:
    inside = light(roots, "night/M67-0001.fits")
    outside = write_raw(tmp_path / "elsewhere" / "secret.fits", LIGHT, SHAPE, b"secret")
    (roots.raw / "night" / "loop").symlink_to(roots.raw, target_is_directory=True)
    (roots.raw / "self").symlink_to("self")
    (roots.raw / "self.fits").symlink_to("self.fits")
    (roots.raw / "again.fits").symlink_to(inside)
    (roots.raw / "out.fits").symlink_to(outside)
    (roots.raw / "outside").symlink_to(outside.parent, target_is_directory=True)
    (roots.raw / "gone.fits").symlink_to(roots.raw / "nothing.fits")
    found = take_inventory(roots, SMALL)
    assert [frame.path for frame in found.frames] == ["night/M67-0001.fits"]
    said = rows(found)
    assert "leads out of the raw root" in said["out.fits"][1]
    assert "leads out of the raw root" in said["outside"][1]
    assert "listed at its own place" in said["again.fits"][1]
    assert "link to nothing" in said["gone.fits"][1]
    assert {failure.file for failure in found.unusable} == {"out.fits", "outside", "gone.fits", "self.fits"}


def test_a_linked_raw_root_is_the_raw_root(roots: Roots, tmp_path: Path) -> None:
    light(roots, "M67-0001.fits")
    (tmp_path / "archive").symlink_to(roots.raw, target_is_directory=True)
    found = take_inventory(Roots(data=roots.data, raw=tmp_path / "archive"), SMALL)
    assert len(found.frames) == 1


def test_a_very_deep_tree(roots: Roots) -> None:
    folders = [roots.raw]
    for _ in range(1200):
        folders.append(folders[-1] / "d")
        folders[-1].mkdir()
    deep = write_raw(folders[-1] / "deep.fits", LIGHT, SHAPE)
    try:
        assert [frame.name for frame in take_inventory(roots, SMALL).frames] == ["deep"]
    finally:  # what tidies up after tests gives up at this depth
        deep.unlink()
        for folder in reversed(folders[1:]):
            folder.rmdir()


def test_pipes_folders_and_companions(roots: Roots) -> None:
    os.mkfifo(roots.raw / "pipe.fits")
    (roots.raw / "folder.fits").mkdir()
    (roots.raw / "._M67-0001.fits").write_bytes(b"\0\5\x16\7")
    light(roots, "folder.fits/M67-0001.fits")
    found = take_inventory(roots, SMALL)
    assert [frame.path for frame in found.frames] == ["folder.fits/M67-0001.fits"]
    assert [(failure.file, failure.reason) for failure in found.unusable] == [("pipe.fits", "not a regular file")]
    assert "macOS" in rows(found)["._M67-0001.fits"][1]


def test_unreadable_file_and_folder(roots: Roots) -> None:
    light(roots, "shut.fits").chmod(0)
    light(roots, "shut/M67-0001.fits")
    light(roots, "good.fits")
    (roots.raw / "shut").chmod(0)
    try:
        with reading_only_what_it_may():
            found = take_inventory(roots, SMALL)
    finally:
        (roots.raw / "shut").chmod(0o755)
    assert [frame.name for frame in found.frames] == ["good"]
    assert {failure.file for failure in found.unusable} == {"shut", "shut.fits"}
    assert all("ermission denied" in failure.reason for failure in found.unusable)
    assert all("who may read" in failure.remedy and not failure.pending for failure in found.unusable)


def test_copies_are_set_aside(roots: Roots) -> None:
    light(roots, "20250317/M67-0001.fits", b"pixels")
    light(roots, "20250317/sorted/by name/M67-0001.fits", b"pixels")
    light(roots, "20250317/sorted/M67 (copie).fits", b"pixels")
    light(roots, "20250317/M67-0001_processed.fits", b"other")
    found = take_inventory(roots, SMALL)
    assert [frame.path for frame in found.frames] == ["20250317/M67-0001.fits"]
    said = rows(found)
    for copy in ("20250317/sorted/by name/M67-0001.fits", "20250317/sorted/M67 (copie).fits"):
        assert said[copy] == ("junk", "copy of 20250317/M67-0001.fits (same content)")
    assert said["20250317/M67-0001_processed.fits"][0] == "junk"
    assert not found.unusable


def test_a_processed_copy_without_the_word(roots: Roots) -> None:
    light(roots, "night/M67-0001.fits")
    floats = LIGHT | {"BITPIX": -32, "BZERO": None, "BSCALE": None}
    write_raw(roots.raw / "night/mine.fits", floats, SHAPE, size=4 * 4096)
    write_raw(roots.raw / "night/other.fits", floats | {"DATE-OBS": "2025-03-17T23:00:00"}, SHAPE, size=4 * 4096)
    found = take_inventory(roots, SMALL)
    # Alone, a frame in real numbers may well be a camera's raw frame.
    assert [frame.path for frame in found.frames] == ["night/M67-0001.fits", "night/other.fits"]
    assert "processed copy of night/M67-0001.fits" in rows(found)["night/mine.fits"][1]


def test_names_are_unique_in_a_night(roots: Roots) -> None:
    light(roots, "b/M67-0001.fits", DATE_OBS="2025-03-17T22:00:00")
    light(roots, "a/M67-0001.fits", DATE_OBS="2025-03-17T23:00:00")
    light(roots, "c/M67-0001.FIT", DATE_OBS="2025-03-17T23:30:00")
    light(roots, "d/M67-0001-2.fits", DATE_OBS="2025-03-17T23:15:00")
    light(roots, "e/M67-0001.fits", DATE_OBS="2025-03-18T22:00:00")
    found = {frame.path: (frame.night, frame.name) for frame in take_inventory(roots, SMALL).frames}
    assert found == {
        "b/M67-0001.fits": ("20250317", "M67-0001"),
        "a/M67-0001.fits": ("20250317", "M67-0001-2"),
        "d/M67-0001-2.fits": ("20250317", "M67-0001-2-2"),
        "c/M67-0001.FIT": ("20250317", "M67-0001-3"),
        "e/M67-0001.fits": ("20250318", "M67-0001"),
    }
    assert [frame.path for frame in take_inventory(roots, SMALL).frames] == list(found)


def test_years_are_years_of_nights(roots: Roots) -> None:
    light(roots, "a.fits", DATE_OBS="2025-01-01T02:00:00")  # the night of 31 December
    light(roots, "b.fits", DATE_OBS="2025-03-17T22:00:00")
    light(roots, "2025/nodate.fits", DATE_OBS=None)
    light(roots, "nodate.fits", DATE_OBS=None)
    found = take_inventory(roots, SMALL, years={2024})
    assert [row.path for row in found.rows] == ["a.fits", "nodate.fits"]
    assert [failure.file for failure in found.unusable] == ["nodate.fits"]
    found = take_inventory(roots, SMALL, years=[2025])
    assert [row.path for row in found.rows] == ["2025/nodate.fits", "b.fits", "nodate.fits"]
    assert len(take_inventory(roots, SMALL).rows) == 4


def test_a_date_to_come_is_listed_where_the_path_says(roots: Roots) -> None:
    light(roots, "202503OHP/20250317/wrong.fits", DATE_OBS="2093-03-17T22:28:01")
    light(roots, "202503OHP/20250317/right.fits")
    inventory = take_inventory(roots, SMALL, {2025})
    assert [frame.name for frame in inventory.frames] == ["right"]
    (failure,) = inventory.unusable
    assert failure.file == "202503OHP/20250317/wrong.fits"
    assert "2093-03-17, a day yet to come" in failure.reason
    assert failure.remedy
    assert take_inventory(roots, SMALL, {2093}).rows == ()


def test_several_telescopes_in_one_tree(roots: Roots) -> None:
    light(roots, "OHP_T120_20250317/M67-0001.fits")
    light(roots, "20250317_T080/M67-0001.fits")
    light(roots, "T120/copied to T080/M67-0001.fits")
    light(roots, "night/M67-0001.fits")
    light(roots, "night/M67-0002.fits", TELESCOP="OHP T80")
    light(roots, "T1200/M67-0001.fits")
    found = take_inventory(roots, SMALL)
    assert {frame.path for frame in found.frames} == {
        "OHP_T120_20250317/M67-0001.fits", "night/M67-0001.fits", "T1200/M67-0001.fits",
    }  # fmt: skip
    telescopes = {row.path: row.telescope for row in found.rows}
    assert telescopes["20250317_T080/M67-0001.fits"] == telescopes["T120/copied to T080/M67-0001.fits"] == "T080"
    assert "as its path says" in rows(found)["20250317_T080/M67-0001.fits"][1]
    assert "as TELESCOP says" in rows(found)["night/M67-0002.fits"][1]
    assert not found.unusable


def test_products_below_the_raw_root_are_not_raw(tmp_path: Path) -> None:
    roots = Roots(data=tmp_path / "archive" / "data", raw=tmp_path / "archive")
    light(roots, "M67-0001.fits")
    light(roots, "data/2025/T120/reduced/20250317/M67-0001.fits", b"reduced")
    light(roots, "elsewhere/M67-0001.fits", b"reduced", BIASCORR="master_bias_2025_T120_2.fits")
    found = take_inventory(roots, SMALL)
    assert [row.path for row in found.rows] == ["M67-0001.fits", "elsewhere/M67-0001.fits"]
    assert "already reduced" in rows(found)["elsewhere/M67-0001.fits"][1]


def test_not_one_byte_of_the_raw_tree_changes(roots: Roots) -> None:
    for name, (content, _) in BAD.items():
        (roots.raw / name).write_bytes(content)
    light(roots, "night/M67-0001.fits")
    light(roots, "night/copy.fits", b"night/M67-0001.fits")
    before = snapshot(roots.raw)
    for path in roots.raw.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    roots.raw.chmod(0o555)
    permissions = snapshot(roots.raw)
    take_inventory(roots, SMALL)
    assert snapshot(roots.raw) == permissions
    assert {path: (entry[0], entry[1], entry[3]) for path, entry in before.items()} == {
        path: (entry[0], entry[1], entry[3]) for path, entry in permissions.items()
    }
    roots.raw.chmod(0o755)


def test_same_tree_same_inventory(roots: Roots) -> None:
    for number in range(5):
        light(roots, f"n{number}/M67-0001.fits", DATE_OBS="2025-03-17T22:00:00")
    assert take_inventory(roots, SMALL) == take_inventory(roots, SMALL)


def test_progress_and_empty_and_missing(roots: Roots, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    light(roots, "a.fits")
    light(roots, "b.fits")
    take_inventory(roots, SMALL, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    (tmp_path / "empty").mkdir()
    assert take_inventory(Roots(data=tmp_path / "d", raw=tmp_path / "empty"), SMALL).rows == ()
    for wrong in (tmp_path / "nowhere", roots.raw / "a.fits"):
        with pytest.raises(UserError, match="is not a folder"):
            take_inventory(Roots(data=tmp_path / "d", raw=wrong), SMALL)


def test_without_a_place_to_remember_digests(roots: Roots) -> None:
    light(roots, "a.fits")
    roots.data.write_bytes(b"a file where the data root should be")
    assert len(take_inventory(roots, SMALL).frames) == 1


@pytest.mark.parametrize(
    ("cards", "ra", "dec"),
    [
        ({"OBJCTRA": "00 00 00", "OBJCTDEC": "+00 00 00"}, None, None),
        ({"OBJCTRA": "25 00 00", "OBJCTDEC": "+10 00 00"}, None, None),
        ({"OBJCTRA": "08 00 00", "OBJCTDEC": "+95 00 00"}, None, None),
        ({"OBJCTRA": "08 00 00", "OBJCTDEC": None}, None, None),
        ({"OBJCTRA": "08 00 00", "OBJCTDEC": "-00 30 00"}, 120.0, -0.5),
        ({"OBJCTRA": "8.5", "OBJCTDEC": "10.5"}, 127.5, 10.5),
    ],
)
def test_the_mount_s_word(roots: Roots, cards: dict[str, object], ra: float | None, dec: float | None) -> None:
    light(roots, "a.fits", **cards)
    (frame,) = take_inventory(roots, SMALL).frames
    assert (frame.ra, frame.dec) == (ra, dec)


@pytest.mark.shared
def test_real_frames_of_microobservatory(shared: Path, tmp_path: Path) -> None:
    micro = install("MICRO", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = take_inventory(Roots(data=tmp_path, raw=shared / "real" / "hatp32"), micro)
    assert not found.unusable
    assert len(found.frames) == 24
    for frame in found.frames:
        assert (frame.kind, frame.night, frame.filter, frame.binning) == ("science", "20171219", "Clear", 1)
        assert frame.shape == (500, 650)
        assert frame.ra == pytest.approx(31.0, abs=1.0)
        assert frame.dec == pytest.approx(46.7, abs=1.0)
        assert frame.ccd_temp == pytest.approx(-2.0, abs=5.0)
    first = found.frames[0]
    assert first.date_obs.isoformat() == "2017-12-20T01:33:43.317000+00:00"  # the header's own UT-OBS
    # The header's MJD-OBS is of the start, to a thousandth of a day.
    assert first.mid_exposure_mjd - 30 / 86400 == pytest.approx(58107.065, abs=6e-4)


@pytest.mark.shared
def test_real_frames_of_prompt5(shared: Path, tmp_path: Path) -> None:
    prompt = install("PROMPT5", tmp_path)
    found = take_inventory(Roots(data=tmp_path, raw=shared / "real" / "m1"), prompt)
    assert not found.unusable
    assert {frame.name: (frame.filter, frame.exptime, frame.night) for frame in found.frames} == {
        "m1_r": ("r", 36.6, "20190217"), "m1_V": ("V", 36.6, "20190217"), "m1_B": ("B", 54.9, "20190217"),
    }  # fmt: skip
    for frame in found.frames:
        assert math.isclose(frame.ra or 0, 83.633, abs_tol=0.01)
        assert math.isclose(frame.dec or 0, 22.0145, abs_tol=0.01)
        assert (frame.gain, frame.read_noise) == (pytest.approx(1.35, abs=0.01), pytest.approx(9.44, abs=0.01))
        assert frame.airmass == pytest.approx(1.88, abs=0.02)
