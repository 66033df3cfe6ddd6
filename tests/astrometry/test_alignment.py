"""Alignment of a group: the real SCAMP on catalogues of made-up images, and a SCAMP that fails or lies."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from models.base import Roots
from models.frame import CalibratedFrame, FrameFailure, FramePsf, FrameRecord, ZeroPoint
from models.settings import ScampSettings
from tasks.astrometry import align_frames, read_head, solve_frame, wcs_cards
from tasks.astrometry.alignment import seasons
from tasks.astrometry.headers import write_header
from tasks.core.files import ref
from tasks.core.tools import run_tool, scratch
from tests.astrometry.conftest import DEC, RA, Field
from tests.astrometry.sky import Camera, measured_frame, raw_frame, source_table

pytestmark = pytest.mark.tools

SKY, NOISE = 500.0, 12.0
COLUMNS = """NUMBER XWIN_IMAGE YWIN_IMAGE ERRAWIN_IMAGE ERRBWIN_IMAGE ERRTHETAWIN_IMAGE X_WORLD Y_WORLD FLUX_AUTO
FLUXERR_AUTO MAG_AUTO MAGERR_AUTO FLUX_RADIUS FWHM_IMAGE ELONGATION SNR_WIN FLAGS FLAGS_WEIGHT IMAFLAGS_ISO(1)"""


def draw(table: Table, shape: tuple[int, int], seed: int) -> np.ndarray:
    """An image of round Gaussian stars at the sources' places."""
    image = np.random.default_rng(seed).normal(SKY, NOISE, shape)
    sigma = 3.5 / 2.355
    for x, y, flux in zip(table["X"], table["Y"], table["FLUX"], strict=True):
        i, j = round(y) - 1, round(x) - 1
        rows, columns = slice(max(0, i - 9), min(shape[0], i + 10)), slice(max(0, j - 9), min(shape[1], j + 10))
        gy, gx = np.mgrid[rows, columns]
        gauss = np.exp(-0.5 * ((gx + 1 - x) ** 2 + (gy + 1 - y) ** 2) / sigma**2)
        image[rows, columns] += flux / (2 * np.pi * sigma**2) * gauss
    return image.astype("f4")


def ldac(image: np.ndarray, name: str, band: str, roots: Roots) -> Path:
    """SExtractor's catalogue of an image whose header has a wrong WCS: SCAMP must take ours."""
    header = fits.Header(
        {"FILTER": band, "EXPTIME": 60.0, "MJD-OBS": 60000.0, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}
    )
    header.update({"CRVAL1": 10.0, "CRVAL2": 0.0, "CRPIX1": 1.0, "CRPIX2": 1.0, "CD1_1": 1e-4, "CD2_2": 1e-4})
    target = roots.data / ".cache" / "ldac" / f"{name}.cat"
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch(roots.scratch, "sex") as folder:
        fits.PrimaryHDU(image, header).writeto(folder / "image.fits")
        fits.PrimaryHDU(np.zeros(image.shape, "i2")).writeto(folder / "flag.fits")
        (folder / "p.param").write_text("\n".join(COLUMNS.split()) + "\n")
        (folder / "k.conv").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
        (folder / "s.conf").write_text(
            "CATALOG_NAME out.cat\nCATALOG_TYPE FITS_LDAC\nPARAMETERS_NAME p.param\nFILTER_NAME k.conv\n"
            "DETECT_THRESH 5\nANALYSIS_THRESH 5\nFLAG_IMAGE flag.fits\nGAIN 1.5\nSATUR_LEVEL 60000\n"
            "VERBOSE_TYPE QUIET\n"
        )
        run_tool("source-extractor", ["image.fits", "-c", "s.conf"], cwd=folder, timeout_s=60)
        shutil.copy(folder / "out.cat", target)
    return target


@dataclass(frozen=True)
class Group:
    """Frames of a group, ready to be aligned, and their truth."""

    field: Field
    records: tuple[FrameRecord, ...]
    cameras: dict[str, Camera]

    def align(self, records: tuple[FrameRecord, ...] | None = None, **options: float):
        field = self.field
        frames = self.records if records is None else records
        return align_frames(frames, field.cone, "M67", field.roots, field.telescope, ScampSettings(**options))


PLAN = [("a_r1", 2020.20, "r"), ("a_g1", 2020.20, "g"), ("b_r1", 2023.40, "r"), ("b_r2", 2023.41, "r"),
        ("b_g1", 2023.40, "g"), ("b_ha", 2023.41, "Ha")]  # fmt: skip


@pytest.fixture(scope="module")
def group(field: Field) -> Group:
    """Two seasons, three filters; the camera was turned and its optics adjusted in between."""
    rng = np.random.default_rng(5)
    records, cameras = [], {}
    for number, (name, jyear, band) in enumerate(PLAN):
        late = jyear > 2021
        camera = Camera(
            ra=RA + rng.uniform(-0.01, 0.01), dec=DEC + rng.uniform(-0.01, 0.01), angle=-89.6 if late else -90.3,
            scale=0.7705 if late else 0.7695, radial=4e-9 if late else 2e-9,
        )  # fmt: skip
        table, _ = source_table(field.gaia, camera, jyear, number, limit=18.2 if band == "Ha" else 20.0)
        measured = measured_frame(raw_frame(name, jyear, band=band), table, field.roots)
        solved = solve_frame(
            measured, field.hint, field.index, field.cone, field.roots, field.telescope, field.settings
        )
        catalogue = ref(ldac(draw(table, camera.shape, number), name, band, field.roots), field.roots)
        psf = FramePsf(
            psf=catalogue, catalogue=catalogue, fwhm_px=3.5, fwhm_arcsec=2.7, ellipticity=0.0, chi2=1.0,
            n_stars_accepted=20,
        )  # fmt: skip
        calibrated = CalibratedFrame(solved=solved, zero_point=ZeroPoint(status="FEW_STARS"))
        records.append(FrameRecord(raw=measured.raw, solved=solved, calibrated=calibrated, psf=psf))
        cameras[name] = camera
    return Group(field, tuple(records), cameras)


def error_mas(camera: Camera, wcs: WCS) -> np.ndarray:
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(30, 994, 15), np.linspace(30, 994, 15)))
    back_x, back_y = camera.pixels(*wcs.all_pix2world(x, y, 1))
    return np.column_stack([back_x - x, back_y - y]) * camera.scale * 1000


def fake_scamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put another scamp first on the path; ``$REAL`` is the true one."""
    real = shutil.which("scamp")
    tool = tmp_path / "bin" / "scamp"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(f"#!/bin/sh\nREAL={real}\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")


def test_frames_of_all_filters_agree_with_the_truth(group: Group) -> None:
    result = group.align()
    assert not result.rejected
    assert [frame.frame.raw.name for frame in result.aligned] == [name for name, *_ in PLAN]
    late = [frame.source for frame in result.aligned if frame.frame.raw.year == 2023]
    assert set(late) <= {"scamp", "joint"}
    assert len(result.notes) == 2
    assert "season 2020.20 (2 frames, g r): against Gaia" in result.notes[0]
    everywhere: list[np.ndarray] = []
    by_filter: dict[str, list[np.ndarray]] = {}
    for frame in result.aligned:
        name = frame.frame.raw.name
        error = error_mas(group.cameras[name], read_head(group.field.roots.of(frame.head)))
        everywhere.append(error)
        assert frame.n_matched >= 10
        assert frame.rms_arcsec < 0.3
        assert (frame.ra, frame.dec) == (pytest.approx(RA, abs=0.02), pytest.approx(DEC, abs=0.02))
        if frame.frame.raw.year == 2023:
            by_filter.setdefault(frame.frame.raw.filter or "", []).append(error)
    assert np.sqrt(np.mean(np.sum(np.array(everywhere) ** 2, axis=2))) < 60
    means = {band: np.mean(errors, axis=0) for band, errors in by_filter.items()}
    for first in means:
        for second in means:
            assert np.sqrt(np.mean(np.sum((means[first] - means[second]) ** 2, axis=1))) < 40


def test_the_heads_lie_where_the_contract_says_and_carry_no_flux_scale(group: Group) -> None:
    for frame in group.align().aligned:
        raw = frame.frame.raw
        assert frame.head.path == f"{raw.year}/T120/reduced/{raw.night}/{raw.name}.head"
        text = group.field.roots.of(frame.head).read_text("ascii")
        assert text.endswith("\nEND\n")
        assert text.count("END\n") == 1
        assert "FLXSCALE" not in text
        assert "HISTORY" not in text


def test_same_frames_same_heads_and_never_appended_to(group: Group) -> None:
    first = group.align()
    before = [group.field.roots.of(frame.head).read_bytes() for frame in first.aligned]
    assert group.align() == first
    assert [group.field.roots.of(frame.head).read_bytes() for frame in first.aligned] == before


@pytest.mark.parametrize(
    ("script", "limit", "word"),
    [
        ("kill -SEGV $$", 60.0, "SIGSEGV"),
        ("sleep 30", 0.5, "longer than"),
        ("exit 1", 60.0, "exited with status 1"),
        ("exit 0", 60.0, "did not write scamp.xml"),
        ("echo '<a>' > scamp.xml", 60.0, "XML"),
    ],
)
def test_when_scamp_fails_our_own_solutions_remain(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, limit: float, word: str
) -> None:
    fake_scamp(tmp_path, monkeypatch, script)
    result = group.align(timeout_s=limit)
    assert not result.rejected
    assert {frame.source for frame in result.aligned} <= {"joint", "plate"}
    assert all(word in frame.reason for frame in result.aligned)
    assert all(word in note for note in result.notes)
    if "XML" not in word:
        assert list((group.field.roots.logs / "scamp").glob("M67_2023*.log"))
    for frame in result.aligned:
        error = error_mas(group.cameras[frame.frame.raw.name], read_head(group.field.roots.of(frame.head)))
        assert np.sqrt(np.mean(np.sum(error**2, axis=1))) < 150


@pytest.mark.parametrize(
    ("lie", "word"),
    [
        ("sed -i 's/^CRPIX1.*/CRPIX1  = 516.5/' *.head", "shifted|rms|should be|matched"),
        ("sed -i 's/^CD1_2 .*/CD1_2   = 1.0E-04/' *.head", "matched|rms|chance|pixels"),
        ("sed -i '/^CD1_1/d' *.head", "lacks CD1_1"),
        ("for f in *.head; do head -c 300 $f > t; mv t $f; done", "lacks|none"),
    ],
)
def test_a_head_that_is_wrong_is_refused(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str, word: str
) -> None:
    """SCAMP exits with 0 and writes a head: that proves nothing."""
    fake_scamp(tmp_path, monkeypatch, f'$REAL "$@"\n{lie}')
    result = group.align()
    assert {frame.source for frame in result.aligned} <= {"joint", "plate"}
    assert all(re.search(word, frame.reason) for frame in result.aligned), [f.reason for f in result.aligned]


def scaled_cards(**factors: float) -> str:
    """Shell that multiplies cards of every head by a number."""
    cards = " ".join(
        f'/^{name} *=/ {{ printf "%-8s= %20.12E\\n", "{name}", {by!r} * substr($0, 11, 20); next }}'
        for name, by in factors.items()
    )
    return f"for f in *.head; do awk '{cards} {{ print }}' $f > t; mv t $f; done"


@pytest.mark.parametrize(
    ("lie", "word"),
    [
        ("sed -i 's/^CRVAL2.*/CRVAL2  = 45.0/' *.head", "0 stars matched"),
        ("sed -i 's/^CRVAL2.*/CRVAL2  = 12.3/' *.head", "stars matched|chance"),
        (scaled_cards(CD1_1=-1.0, CD2_1=-1.0), "mirrored|stars matched|chance"),
        (scaled_cards(CD1_1=2.0, CD1_2=2.0, CD2_1=2.0, CD2_2=2.0), "times as large|stars matched|chance"),
        ("sed -i 's/^CD/XX/' *.head", "lacks CD1_1"),
        ("sed -i 's/^CRPIX1.*/CRPIX1  = NaN/' *.head", "."),
    ],
    ids=["another sky", "a field beside", "mirrored", "twice the scale", "no matrix", "not a number"],
)
def test_scamp_converged_on_nonsense(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str, word: str
) -> None:
    """Whatever it says of itself: our own check against Gaia refuses it, and the frames keep their places."""
    fake_scamp(tmp_path, monkeypatch, f'$REAL "$@"\n{lie}')
    result = group.align()
    assert not result.rejected
    assert {frame.source for frame in result.aligned} <= {"joint", "plate"}
    assert all(re.search(word, frame.reason) for frame in result.aligned), [f.reason for f in result.aligned]
    for frame in result.aligned:
        error = error_mas(group.cameras[frame.frame.raw.name], read_head(group.field.roots.of(frame.head)))
        assert np.sqrt(np.mean(np.sum(error**2, axis=1))) < 150


def test_with_too_few_stars_no_head_is_believed_and_the_frame_is_out(group: Group) -> None:
    result = group.align(min_matched=100_000)
    assert result.aligned == ()
    assert len(result.rejected) == len(PLAN)
    assert all("100000 are needed" in each.reason for each in result.rejected), [e.reason for e in result.rejected]


def test_a_head_that_is_missing(group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_scamp(tmp_path, monkeypatch, '$REAL "$@"\nrm -f f00001.head')
    result = group.align()
    missing = [frame.frame.raw.name for frame in result.aligned if "wrote no head" in frame.reason]
    assert missing == ["a_g1", "b_g1"]
    assert all(frame.source == "joint" for frame in result.aligned if frame.frame.raw.name in missing)


def test_without_gaia_the_frames_common_stars_are_used_and_it_is_said(group: Group) -> None:
    field = group.field
    result = align_frames(group.records, None, "M67", field.roots, field.telescope, ScampSettings())
    assert {frame.source for frame in result.aligned} <= {"common", "plate"}
    assert len(result.aligned) == len(group.records)
    assert max(frame.rms_arcsec for frame in result.aligned) < 0.15
    assert "no SCAMP" in result.notes[0]
    assert all("no Gaia cone" in frame.reason for frame in result.aligned)


def test_without_gaia_a_frame_that_agrees_with_none_is_rejected(group: Group) -> None:
    """Its stars jump about by 0.7 px, as on a frame whose telescope was kicked."""
    field, record = group.field, group.records[3]
    assert record.calibrated is not None
    solved = record.calibrated.solved
    table = Table.read(field.roots.of(solved.measured.sources), hdu=1)
    rng = np.random.default_rng(4)
    for axis in ("X", "Y"):
        table[axis] += rng.normal(0, 0.7, len(table))
    measured = measured_frame(raw_frame("kicked", 2023.41), table, field.roots)
    kicked = record.calibrated.model_copy(update={"solved": solved.model_copy(update={"measured": measured})})
    bad = record.model_copy(update={"calibrated": kicked})
    frames = (*group.records[:3], bad, *group.records[4:])
    result = align_frames(frames, None, "M67", field.roots, field.telescope, ScampSettings())
    assert [item.file for item in result.rejected] == [record.raw.label]
    assert "not where the other frames have them" in result.rejected[0].reason
    assert "plate solution: rms" in result.rejected[0].reason
    assert len(result.aligned) == len(frames) - 1


def test_a_frame_without_catalogue_and_one_without_calibration(group: Group) -> None:
    failure = FrameFailure(file="x", stage="plate solution", reason="no match", remedy="look")
    odd = (
        group.records[2].model_copy(update={"psf": None}),
        group.records[3].model_copy(update={"calibrated": None, "failures": (failure,)}),
        *group.records[4:],
    )
    result = group.align(odd)
    assert [frame.frame.raw.name for frame in result.aligned] == ["b_r1", "b_g1", "b_ha"]
    assert result.aligned[0].source == "joint"
    assert "no SExtractor catalogue" in result.aligned[0].reason
    assert [(item.file, item.reason) for item in result.rejected] == [
        (group.records[3].raw.label, "plate solution: no match")
    ]


def test_a_frame_that_neither_can_place_is_rejected(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its plate solution is off by 4 px and SCAMP is not there to mend it."""
    fake_scamp(tmp_path, monkeypatch, "exit 3")
    record = group.records[2]
    assert record.calibrated is not None
    solved = record.calibrated.solved
    header = wcs_cards(solved.solution, group.field.roots)
    header["CRPIX1"] += 4.0
    file = write_header(header, group.field.roots.data / ".cache" / "wcs" / "shifted.fits", group.field.roots)
    wrong = solved.model_copy(update={"solution": solved.solution.model_copy(update={"wcs": file})})
    bad = record.model_copy(update={"calibrated": record.calibrated.model_copy(update={"solved": wrong})})
    result = group.align((bad, *group.records[3:]))
    assert [item.file for item in result.rejected] == [record.raw.label]
    assert "SCAMP failed" in result.rejected[0].reason
    assert "plate solution" in result.rejected[0].reason
    assert len(result.aligned) == 3


def test_seasons() -> None:
    assert seasons([2020.0, 2023.4, 2020.1, 2023.3], 60) == [[0, 2], [3, 1]]
    assert seasons([], 60) == []
    assert seasons([2020.0, 2020.1], 10) == [[0], [1]]


def test_knots_of_a_galaxy_do_not_condemn_a_frame(group: Group, tmp_path: Path) -> None:
    """A fifth of the bright pairs an arcsecond off, as in a spiral's arms: the frame keeps its place."""
    record = group.records[3]
    assert record.calibrated is not None
    solved = record.calibrated.solved
    table = Table.read(group.field.roots.of(solved.measured.sources), hdu=1)
    table["X"][2:22:5] += 1.4
    measured = measured_frame(raw_frame("knots", 2023.41), table, group.field.roots)
    mixed = solved.model_copy(update={"measured": measured})
    bad = record.model_copy(update={"calibrated": record.calibrated.model_copy(update={"solved": mixed})})
    result = group.align((bad,))
    assert not result.rejected
    assert result.aligned[0].rms_arcsec < 0.15
