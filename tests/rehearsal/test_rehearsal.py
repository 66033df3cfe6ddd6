"""The rehearsal: what is played, what is said of the outcome, and a short one from end to end."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from models.base import Roots
from models.settings import SelectionSettings
from models.simulation import ArchiveFrame, ArchiveTruth, RehearsalOptions, TrueFrame
from models.target import load_targets
from models.telescope import load_telescope
from scripts import rehearsal as command
from tasks.core.errors import UserError
from tasks.inventory import take_inventory
from tasks.rehearsal import page, read_exposures, sample
from tasks.rehearsal.compare import Comparison, GroupResult, RejectedFrame, _Judge
from tasks.simulation import Exposure, play_archive

T120, TARGETS = load_telescope("T120"), load_targets()
SMALL = T120.model_copy(update={"camera": T120.camera.model_copy(update={"shape": (256, 256)})})


def row(path: str, imagetyp: str = "Light Frame", **values: object) -> dict[str, str]:
    known = {
        "path": path, "telescope": "T120", "date_obs": "2023-03-17T23:10:00.25", "object": "M51", "imagetyp": imagetyp,
        "filter": "Halpha", "exptime": "60.0", "objctra": "", "objctdec": "", "airmass": "", "naxis1": "1024",
        "naxis2": "1024", "xbinning": "2", "ybinning": "2", "ccd_temp": "-59.5", "instrume": "Andor Tech",
    }  # fmt: skip
    return known | {key: str(value) for key, value in values.items()}


ROWS = [
    row("2023/T120/Première nuit/M51 bis-001.fits", objctra="13 29 00", objctdec="+47 20 00"),
    row("2023/T120/Première nuit/copie/M51 bis-001.fits", objctra="13 29 00", objctdec="+47 20 00"),
    row("2023/T120/NGC5813-001r.fits", object="M49", filter="r_Gunn", date_obs="2023-03-17T02:10:00.25"),
    row("2023/T120/ceres-001r.fits", object="ceres", filter="r"),
    row("2023/T120/bias-001.fits", "Bias Frame", object="M51", exptime="0.0", filter="",
        date_obs="2023-03-17T16:10:00.25"),
    row("2023/T120/flat-001_Ha.fits", object="flat", exptime="8.0", date_obs="2023-03-17T18:00:00.25"),
    row("2023/T120/flat-001_Ha_4.fits", object="flat", exptime="8.0", date_obs="2023-03-17T18:01:00.25",
        naxis1=512, naxis2=512, xbinning=4, ybinning=4),
    row("2023/T120/odd.fits", naxis1=1076, naxis2=1077),
]  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("headers") / "headers.csv"
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    return path


@pytest.fixture(scope="module")
def exposures(table: Path) -> list[Exposure]:
    return read_exposures(table, T120, TARGETS)


OPTIONS = RehearsalOptions(size=256, damaged=0.0)


@pytest.fixture(scope="module")
def played(exposures: list[Exposure], tmp_path_factory: pytest.TempPathFactory) -> tuple[Roots, ArchiveTruth]:
    root = tmp_path_factory.mktemp("played")
    roots = Roots(data=root, raw=root / "raw")
    return roots, play_archive(exposures, roots, OPTIONS, TARGETS)


def test_what_is_played(exposures: list[Exposure]) -> None:
    found = {exposure.path.rpartition("/")[2]: exposure for exposure in exposures if exposure.copy_of is None}
    assert set(found) == {
        "M51 bis-001.fits", "NGC5813-001r.fits", "bias-001.fits", "flat-001_Ha.fits", "flat-001_Ha_4.fits",
    }  # fmt: skip
    assert found["NGC5813-001r.fits"].group == "NGC5813"  # the name of the file, not the OBJECT left over
    assert (found["M51 bis-001.fits"].group, found["M51 bis-001.fits"].filter) == ("M51", "Ha")
    assert [exposure.copy_of for exposure in exposures if exposure.copy_of] == [
        "2023/T120/Première nuit/M51 bis-001.fits"
    ]


def test_headers_are_the_files_own_and_copies_have_the_same_bytes(played: tuple[Roots, ArchiveTruth]) -> None:
    roots, truth = played
    assert sorted(path.relative_to(roots.raw).as_posix() for path in roots.raw.rglob("*.fits")) == sorted(
        frame.path for frame in truth.frames
    )
    original = roots.raw / "2023/T120/Première nuit/M51 bis-001.fits"
    copy = roots.raw / "2023/T120/Première nuit/copie/M51 bis-001.fits"
    assert original.read_bytes() == copy.read_bytes()
    header = fits.getheader(original)
    wanted = {"OBJECT": "M51", "FILTER": "Halpha", "EXPTIME": 60.0, "OBJCTRA": "13 29 00", "OBJCTDEC": "+47 20 00",
              "DATE-OBS": "2023-03-17T23:10:00.25", "IMAGETYP": "Light Frame", "CCD-TEMP": -59.5}  # fmt: skip
    assert {key: header[key] for key in wanted} == wanted
    assert "AIRMASS" not in header
    assert "OBJCTRA" not in fits.getheader(roots.raw / "2023/T120/NGC5813-001r.fits")
    assert fits.getdata(roots.raw / "2023/T120/flat-001_Ha_4.fits").shape == (128, 128)
    inventory = take_inventory(roots, SMALL)
    assert Counter(frame.kind for frame in inventory.frames) == {"science": 2, "flat": 2, "bias": 1}


def test_frames_point_at_the_true_place_and_not_where_the_header_says(played: tuple[Roots, ArchiveTruth]) -> None:
    _, truth = played
    centres = {frame.group: frame.frame.wcs.crval for frame in truth.frames if frame.frame and frame.frame.wcs}
    for group, (ra, dec) in centres.items():
        assert group is not None
        away = np.hypot((ra - TARGETS[group].ra) * np.cos(np.deg2rad(dec)), dec - TARGETS[group].dec)
        assert away * 60 < 3.0, group
    assert abs(202.25 - centres["M51"][0]) > 0.15  # the header's word


def test_what_is_made_is_not_made_again(played: tuple[Roots, ArchiveTruth], exposures: list[Exposure]) -> None:
    roots, truth = played
    times = {path: path.stat().st_mtime_ns for path in roots.data.rglob("*.fits")}
    gone = roots.raw / "2023/T120/bias-001.fits"
    content = gone.read_bytes()
    gone.unlink()
    again = play_archive(exposures, roots, OPTIONS, TARGETS)
    assert again.frames == truth.frames
    assert gone.read_bytes() == content
    assert {path for path, time in times.items() if path.stat().st_mtime_ns != time} == {gone}


def test_another_rehearsal_or_other_files_are_not_overwritten(
    played: tuple[Roots, ArchiveTruth], exposures: list[Exposure], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"holds a rehearsal made with --seed 1 --size 256 --damaged 0\.0"):
        play_archive(exposures, played[0], RehearsalOptions(size=256, seed=2), TARGETS)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "mine.fits").write_bytes(b"mine")
    with pytest.raises(UserError, match="holds files that no rehearsal made"):
        play_archive(exposures, Roots(data=tmp_path, raw=tmp_path / "raw"), OPTIONS, TARGETS)


def test_damage_is_what_it_says(exposures: list[Exposure], tmp_path: Path) -> None:
    science = [exposure for exposure in exposures if exposure.group == "NGC5813"]
    many = [
        exposure.model_copy(update={"path": f"2023/T120/NGC5813-{n:03d}r.fits"})
        for exposure in science
        for n in range(1, 13)
    ]
    roots = Roots(data=tmp_path, raw=tmp_path / "raw")
    truth = play_archive(many, roots, RehearsalOptions(size=256, damaged=0.5), TARGETS)
    good = [f.frame for f in truth.frames if f.damage is None]
    assert {frame.damage for frame in truth.frames} > {None, "thick cloud"}
    usual = np.median([frame.zero_point for frame in good if frame])
    for played_frame in truth.frames:
        frame = played_frame.frame
        assert frame
        assert frame.zero_point is not None
        assert frame.wcs
        low = {"thick cloud": 1.2, "dome closed": 10.0}.get(str(played_frame.damage), -0.5)
        assert usual - frame.zero_point > low, played_frame
        away = frame.wcs.crval[1] - TARGETS["NGC5813"].dec, frame.wcs.crval[0] - TARGETS["NGC5813"].ra
        assert (np.hypot(*away) > 0.5) == (played_frame.damage == "wrong field")


def test_a_fraction_takes_whole_groups_and_the_calibration_of_their_years(exposures: list[Exposure]) -> None:
    part = sample(exposures, RehearsalOptions(groups=("ngc5813",)), TARGETS)
    assert part.groups == ("NGC5813",)
    assert (part.count("science"), part.count("bias"), part.count("flat")) == (1, 1, 0)  # no flat in r
    whole = sample(exposures, RehearsalOptions(), TARGETS)
    assert set(whole.groups) == {"M51", "NGC5813"}
    assert len(whole.exposures) == len(exposures)
    with pytest.raises(UserError, match="no frame of Coma in this archive; there are"):
        sample(exposures, RehearsalOptions(groups=("Coma",)), TARGETS)
    with pytest.raises(UserError, match="did you mean M51"):
        sample(exposures, RehearsalOptions(groups=("M511",)), TARGETS)


def test_without_the_archive_it_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--archive", str(tmp_path / "none.csv"), "--root", str(tmp_path / "r")]) == 2
    said = capsys.readouterr().err
    assert "none.csv is missing" in said
    assert "Traceback" not in said
    assert not (tmp_path / "r").exists()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert command.main(["--archive", str(tmp_path / "other.csv"), "--root", str(tmp_path / "r")]) == 2
    assert "lacks the columns" in capsys.readouterr().err


def test_what_was_played_before_stays_in_the_comparison(
    table: Path, played: tuple[Roots, ArchiveTruth], capsys: pytest.CaptureFixture[str]
) -> None:
    roots, _ = played
    at = ["--archive", str(table), "--root", str(roots.data), "--size", "256", "--damaged", "0"]
    assert command.main([*at, "--groups", "M51", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "2 groups: M51 NGC5813" in said
    assert "3 science frames, 2 flats, 1 biases of 256 px" in said
    assert command.main([*at, "--compare"]) == 2
    assert "nothing to compare: " in capsys.readouterr().err


def _truth(**damage: str | None) -> ArchiveTruth:
    frames = []
    for name, what in damage.items():
        zero_point = 21.0 if what == "thick cloud" else 11.0 if what == "dome closed" else 23.0
        true = TrueFrame(
            path=f"{name}.fits", sha256="", kind="science", night="20230317", date_obs="", exptime=60,
            bias_level_adu=300, zero_point=zero_point,
        )  # fmt: skip
        frames.append(
            ArchiveFrame(path=f"{name}.fits", kind="science", group="M51", filter="r", damage=what, frame=true)
        )
    return ArchiveTruth(schema=1, options=OPTIONS, seconds={}, frames=tuple(frames))


@pytest.mark.parametrize(
    ("damage", "reason", "right"),
    [
        ("wrong field", "OBJECT says M51, the field is at 203.0000 +47.0000", True),
        ("wrong field", "its centre is 40.0 arcmin from the target, more than 4.0", True),
        (None, "its centre is 4.2 arcmin from the target, more than 4.0", False),
        ("thick cloud", "zero point 21.000, -2.00 mag from its filter's median, more than 0.30", True),
        (None, "zero point 22.500, -0.50 mag from its filter's median, more than 0.30", False),
        ("dome closed", "plate solution: too few sources", True),
        (None, "not stacked: 1 usable of 3 frames in r, 2 needed", False),
        ("thick cloud", "in no stack and in no list: no reason is given", False),
    ],
)  # fmt: skip
def test_a_reason_is_right_if_it_names_what_is_wrong(damage: str | None, reason: str, right: bool) -> None:
    truth = _truth(a=None, b=None, c=None, odd=damage)
    judge = _Judge(truth)
    assert judge.right(truth.frames[-1], reason, SelectionSettings()) is right
    assert judge.wrong_with(truth.frames[-1]) == damage


def test_a_frame_dimmed_by_a_passing_cloud_is_no_good_frame() -> None:
    truth = _truth(a=None, b=None, c=None, d=None)
    true = truth.frames[-1].frame
    assert true
    dim = true.model_copy(update={"zero_point": 22.7})
    frames = (*truth.frames[:-1], truth.frames[-1].model_copy(update={"frame": dim}))
    judge = _Judge(truth.model_copy(update={"frames": frames}))
    assert [judge.wrong_with(frame) is None for frame in frames] == [True, True, True, False]
    assert judge.right(frames[-1], "zero point 22.70, -0.30 mag from its filter's median", SelectionSettings())


def test_the_page_and_the_problems_say_what_fell_short() -> None:
    group = GroupResult(
        group="M51", filters_true=("Ha", "r"), filters_stacked=("r",), filters_possible=("Ha", "r"), frames=8, good=7,
        good_used=6, good_assigned=7, damaged=1, damaged_used=0, strangers=("x.fits",),
    )  # fmt: skip
    wrong = RejectedFrame(path="y.fits", group="M51", filter="r", damage=None, reason="zero point 2.5 off", right=False)
    outcome = Comparison(
        groups=(group,), rejected=(wrong,), unexpected_groups=("M1",), not_science=(), false_science=()
    )
    assert len(outcome.problems) == 5
    text = page(outcome, "Here.", [("a frame", "1 s")])
    assert text.count("**no**") == 5
    assert "6 of 7: 85.7 %" in text
    assert "`y.fits`" in text
    clean = outcome.model_copy(
        update={
            "groups": (group.model_copy(update={"filters_stacked": ("Ha", "r"), "good_used": 7, "strangers": ()}),),
            "rejected": (), "unexpected_groups": (),
        }
    )  # fmt: skip
    assert clean.problems == []
    assert "**no**" not in page(clean, "Here.", [])


@pytest.mark.shared
def test_the_archive(shared: Path) -> None:
    found = read_exposures(shared / "archive" / "t120_headers.csv", T120, TARGETS)
    with open(shared / "reference" / "targets.csv", encoding="utf-8", newline="") as stream:
        known = {line["group"]: line for line in csv.DictReader(stream)}
    science = [exposure for exposure in found if exposure.kind == "science"]
    assert {exposure.group for exposure in science} <= set(known)
    assert Counter(exposure.group for exposure in science)["Coma"] == 149
    assert (len(science), len({exposure.group for exposure in science})) == (723, 23)
    assert all(exposure.filter for exposure in science)
    for exposure in science:
        line = known[str(exposure.group)]
        assert exposure.aim
        away = np.hypot(
            (exposure.aim[0] - float(line["ra_deg"])) * np.cos(np.deg2rad(exposure.aim[1])),
            exposure.aim[1] - float(line["dec_deg"]),
        )
        assert away < 0.2, exposure.path
    smaller = sample(found, RehearsalOptions(fraction=0.05), TARGETS)
    larger = sample(found, RehearsalOptions(fraction=0.2), TARGETS)
    assert set(smaller.groups) < set(larger.groups)
    assert 0.05 * 723 <= smaller.count("science") <= 0.1 * 723


def _short_archive(path: Path) -> None:
    """Six frames of a cluster in two filters, two without a position; calibration frames named after another."""
    times = iter(f"2023-03-17T{hour:02d}:{minute:02d}:30.00" for hour in (20, 21) for minute in range(0, 60, 3))
    dawn = iter(f"2023-03-17T16:{minute:02d}:{second:02d}.00" for minute in range(60) for second in (0, 20, 40))
    rows = [row(f"T120/Bias-{n:03d}.fit", "Bias Frame", object="Bias", exptime=0.0, filter="", date_obs=next(dawn))
            for n in range(7)]  # fmt: skip
    rows += [row(f"T120/flat-{n:03d}_{band}.fit", object="M48", exptime=3.0, filter=f"{band}_Gunn", date_obs=next(dawn))
             for band in "gr" for n in range(7)]  # fmt: skip
    rows += [row(f"T120/M67-{n:03d}{band}.fit", object="M67", exptime=40.0, filter=f"{band}_Gunn", date_obs=next(times),
                 objctra="08 50 30" if n else "", objctdec="+11 40 00" if n else "")
             for band in "gr" for n in range(3)]  # fmt: skip
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.slow
@pytest.mark.tools
def test_a_short_rehearsal(tmp_path: Path) -> None:
    """Few frames, and small ones, from headers to the page: needs nothing beside the checkout."""
    table, root = tmp_path / "headers.csv", tmp_path / "root"
    _short_archive(table)
    done = subprocess.run(
        [sys.executable, "-m", "scripts.rehearsal", "--size", "512", "--root", str(root), "--archive", str(table),
         "--damaged", "0", "--workers", "2", "--write", str(tmp_path / "page.md")],
        cwd=Path(command.__file__).parents[1], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    (group,) = json.loads((root / "rehearsal_outcome.json").read_text())["groups"]
    assert (group["group"], group["filters_stacked"], group["good_used"], group["good"]) == ("M67", ["g", "r"], 6, 6)
    assert "**no**" not in (tmp_path / "page.md").read_text()
