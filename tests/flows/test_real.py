"""Real frames of two other telescopes, as docs/new_telescope.md does it: its files, its commands.

What can be calibrated is, what cannot is said.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from models.base import Roots
from models.frame import FrameRecord
from tasks.astrometry import read_head
from tasks.quality import read_sources
from tasks.report import read_years
from tests.flows.conftest import run, snapshot
from tests.profiles import install, write

pytestmark = [pytest.mark.shared, pytest.mark.tools]

HATP32 = (31.0428, 46.6878)
"""Position of HAT-P-32 (2MASS 02041028+4641162), deg."""

Answer = subprocess.CompletedProcess[str]


class Real(NamedTuple):
    """A data root, and what the commands said."""

    roots: Roots
    reduced: Answer
    stacked: Answer | None
    before: dict[str, tuple[str, int]]

    @property
    def n(self) -> int:
        """Of raw frames."""
        return len(self.before)

    def rows(self, report: str) -> list[dict]:
        return json.loads((self.roots.data / report).read_text(encoding="utf-8"))["rows"]


@pytest.fixture(scope="session")
def tycho2() -> Path:
    """Debian's Tycho-2 index files, where the package says they are."""
    if shutil.which("dpkg") is None:
        pytest.skip("no dpkg: where index files lie is asked of Debian")
    asked = subprocess.run(
        ["dpkg", "--search", "*/index-tycho2-*.fits"], capture_output=True, text=True, timeout=60, check=False
    )
    found = [Path(line.split(": ", 1)[1]) for line in asked.stdout.splitlines() if ": " in line]
    if not found:
        pytest.skip("astrometry-data-tycho2 is not installed")
    return found[0].parent


def _copied(frames: Path, pattern: str, raw: Path, every: int = 1) -> None:
    raw.mkdir(parents=True)
    for frame in sorted(frames.glob(pattern))[::every]:
        shutil.copyfile(frame, raw / frame.name)


@pytest.fixture(scope="module", params=[3, pytest.param(1, marks=pytest.mark.slow)], ids=["every third", "all"])
def hatp32(
    shared: Path,
    tycho2: Path,
    beside: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Real:
    """The night of HAT-P-32, a frame every 18 minutes, reduced and stacked (all 24: about two minutes)."""
    home, root = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("hatp32")
    _copied(shared / "real" / "hatp32", "*.FITS", root / "raw" / "hatp32", request.param)
    install("MICRO", root)
    write("pipeline.toml", root)
    write("targets.toml", root)
    before = snapshot(root / "raw")
    common = ("--root", str(root), "--telescope", "MICRO")
    given = beside | {"OHP_ASTROMETRY_INDEX_DIR": str(tycho2)}
    reduced = run("flows.reduce_year", "2017", *common, home=home, **given)
    stacked = run("flows.stack_target", "hat-p-32", *common, home=home, **given)
    return Real(Roots(data=root, raw=root / "raw"), reduced, stacked, before)


@pytest.fixture(scope="module")
def frames(hatp32: Real) -> list[FrameRecord]:
    """The frames' records, in the order of time."""
    telescope = install("MICRO", hatp32.roots.data)
    records = read_years(hatp32.roots, telescope)[2017]
    return sorted(records, key=lambda record: record.raw.date_obs)


def test_hatp32_runs_to_its_end(hatp32: Real) -> None:
    assert hatp32.stacked is not None
    for answer in (hatp32.reduced, hatp32.stacked):
        assert answer.returncode == 0, answer.stdout + answer.stderr
        assert "Traceback" not in answer.stdout + answer.stderr
    assert snapshot(hatp32.roots.raw) == hatp32.before


def test_hatp32_says_what_is_not_calibrated(hatp32: Real, frames: list[FrameRecord]) -> None:
    said = hatp32.reduced.stdout
    assert hatp32.n in (8, 24)
    assert f"{hatp32.n} of {hatp32.n} science frames (all without bias, all without flat)" in said
    assert f"{hatp32.n} NO_PS1_BAND" in said
    assert len(frames) == hatp32.n
    for record in frames:
        assert record.reduced is not None
        assert record.reduced.bias is None
        assert record.reduced.flat is None
        with fits.open(hatp32.roots.of(record.published or record.reduced.file)) as hdus:
            hdus.verify("exception")
            assert hdus[0].header["FLATCORR"] == "NONE"
            assert "PHOTZP" not in hdus[0].header
    for row in hatp32.rows("2017/MICRO/qc/frame_stats.json"):
        assert "no bias of 2017: none subtracted" in row["reason"]
        assert "no flat in Clear" in row["reason"]
    for row in hatp32.rows("2017/MICRO/photometry/phot_report.json"):
        assert (row["status"], row["zp"], row["zp_err"]) == ("NO_PS1_BAND", None, None)
        assert "Clear" in row["reason"]


def test_hatp32_is_found_on_every_frame(hatp32: Real, frames: list[FrameRecord]) -> None:
    rows = hatp32.rows("2017/MICRO/astrometry/astrom_report.json")
    assert [row["status"] for row in rows] == ["OK"] * hatp32.n
    assert all(row["group"] == "HAT-P-32" for row in rows)
    assert all(5.1 < row["pixel_scale"] < 5.25 for row in rows)
    assert all("Gaia not asked" in row["reason"] for row in rows)
    assert all(row["rms_arcsec"] < 5.17 for row in rows)
    half = np.array([650, 500]) / 2 * 5.16 / 60
    centres = np.array([[r.solved.solution.ra, r.solved.solution.dec] for r in frames if r.solved])
    away = (centres - HATP32) * [np.cos(np.radians(HATP32[1])) * 60, 60]
    assert (np.abs(away) < half).all(), "HAT-P-32 is on every frame"
    # The mount drifts west at an even pace, without jumps: less than 2.5' in 18 minutes.
    steps = np.diff(away, axis=0)
    assert (steps[:, 0] < 0).all()
    assert np.hypot(*steps.T).max() < 2.5 * 24 / hatp32.n
    turn = np.array([r.solved.solution.rotation_deg for r in frames if r.solved])
    assert (np.diff(turn) < 0.05).all()
    assert 0.5 < turn[0] - turn[-1] < 1.5


def test_hatp32_frames_agree_with_each_other(hatp32: Real, frames: list[FrameRecord]) -> None:
    """Through the `.head` files, one star is at one place on all frames."""
    east, north, owner = [], [], []
    for i, record in enumerate(frames):
        assert record.measured is not None
        table = read_sources(record.measured, hatp32.roots)
        table = table[(table["FLAGS"] == 0) & (table["SNR"] > 30)]
        head = hatp32.roots.data / "2017" / "MICRO" / "reduced" / record.raw.night / f"{record.raw.name}.head"
        ra, dec = read_head(head).all_pix2world(np.asarray(table["X"]), np.asarray(table["Y"]), 1)
        east.append((ra - HATP32[0]) * np.cos(np.radians(HATP32[1])) * 3600)
        north.append((dec - HATP32[1]) * 3600)
        owner.append(np.full(len(table), i))
    positions = [np.column_stack(pair) for pair in zip(east, north, strict=True)]
    middle = cKDTree(positions[hatp32.n // 2])
    for seen in positions:
        distance, star = middle.query(seen, distance_upper_bound=1.5 * 5.17)
        both = np.isfinite(distance)
        delta = (seen[both] - positions[hatp32.n // 2][star[both]]) / 5.17
        assert both.sum() > 100
        assert np.abs(np.median(delta, axis=0)).max() < 0.05
        assert np.sqrt(np.mean(delta**2, axis=0)).max() < 0.2


def test_hatp32_stack(hatp32: Real) -> None:
    folder = hatp32.roots.data / "stacks" / "HAT-P-32" / "MICRO"
    with fits.open(folder / "HAT-P-32_Clear.fits") as hdus:
        hdus.verify("exception")
        header, image = hdus[0].header, hdus[0].data
    assert header["NCOMBINE"] == hatp32.n
    assert header["PHOTCAL"] == "RELATIVE"
    assert "PHOTZP" not in header
    row = hatp32.rows("stacks/stack_all_report_MICRO.json")[0]
    assert (row["n_combined"], row["n_rejected"], row["depth_5sigma"]) == (hatp32.n, 0, None)
    assert "relative scale only" in row["reason"]
    assert "uniform weight, no flat: all frames" in row["reason"]
    check = hatp32.rows("stacks/phot_check_report_MICRO.json")[0]
    assert (check["validated"], check["zp_offset"]) == (False, None)
    # The star itself, by its catalogue position: it was not told to anyone as a star, only as a place to look.
    x, y = (int(np.rint(v)) for v in WCS(header).all_world2pix(*HATP32, 0))
    box = image[y - 4 : y + 5, x - 4 : x + 5]
    light = np.clip(box - np.median(box), 0, None)
    rows, columns = np.indices(box.shape)
    found = WCS(header).all_pix2world(
        (columns * light).sum() / light.sum() + x - 4, (rows * light).sum() / light.sum() + y - 4, 0
    )
    off = np.hypot((found[0] - HATP32[0]) * np.cos(np.radians(HATP32[1])), found[1] - HATP32[1]) * 3600
    assert off < 0.6 * 5.17
    assert box.max() > 50 * 1.4826 * np.median(np.abs(image[image != 0] - np.median(image[image != 0])))


def test_hatp32_stars_of_the_stack_are_as_round_as_on_the_frames(hatp32: Real, frames: list[FrameRecord]) -> None:
    widths = [record.psf.fwhm_arcsec for record in frames if record.psf]
    assert len(widths) == hatp32.n
    row = hatp32.rows("stacks/stack_psf_report_MICRO.json")[0]
    assert row["fwhm_arcsec"] < 1.15 * np.median(widths)
    if hatp32.n == 24:  # of eight frames, pixels of 5.2'' are seen in too few places within a star
        assert row["ellipticity"] < 0.15
        # Of some 500: the telescope drifts by 20', and only stars that most frames show count.
        assert row["n_stars"] > 50


def test_hatp32_page(hatp32: Real) -> None:
    assert hatp32.stacked is not None
    assert f"{hatp32.n} by common stars, without Gaia" in hatp32.stacked.stdout
    folder = hatp32.roots.data / "stacks" / "HAT-P-32" / "MICRO"
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert f"no SCAMP run; {hatp32.n} of {hatp32.n} frames fitted to" in page
    assert "PS1 has no band like Clear" in page
    assert (folder / "plots" / "HAT-P-32_Clear.png").stat().st_size > 10_000
    assert fits.getdata(folder / "HAT-P-32_Clear_psf.fits").sum() == pytest.approx(1, abs=1e-3)


@pytest.fixture(scope="module")
def m1(shared: Path, beside: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Real:
    """M1 in three filters, without any catalogue."""
    home, root = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("m1")
    _copied(shared / "real" / "m1", "*.fits", root / "raw" / "m1")
    install("PROMPT5", root)
    before = snapshot(root / "raw")
    answer = run("flows.reduce_year", "2019", "--root", str(root), "--telescope", "PROMPT5", home=home, **beside)
    return Real(Roots(data=root, raw=root / "raw"), answer, None, before)


def test_m1_waits_for_a_catalogue(m1: Real) -> None:
    assert m1.reduced.returncode == 75, m1.reduced.stdout + m1.reduced.stderr
    assert "Traceback" not in m1.reduced.stdout + m1.reduced.stderr
    assert "python -m flows.import_catalog gaia FILE" in m1.reduced.stdout
    assert snapshot(m1.roots.raw) == m1.before
    for report in ("astrometry/astrom_report.json", "photometry/phot_report.json", "psf/psf_report.json"):
        rows = m1.rows(f"2019/PROMPT5/{report}")
        assert [row["status"] for row in rows] == ["PENDING"] * 3
        assert all("no gaia cone" in row["reason"] and "import_catalog" in row["remedy"] for row in rows)


def test_m1_is_reduced_and_measured(m1: Real) -> None:
    rows = m1.rows("2019/PROMPT5/qc/frame_stats.json")
    assert sorted(row["filter"] for row in rows) == ["B", "V", "r"]
    for row in rows:
        assert 1.5 < row["fwhm_arcsec"] < 3.5
        assert row["elongation"] < 1.3
        assert row["n_sources"] > 30
        assert "no bias of 2019: none subtracted" in row["reason"]
        with fits.open(m1.roots.data / row["file"]) as hdus:
            hdus.verify("exception")
            raw = fits.getdata(m1.roots.raw / "m1" / Path(row["file"]).name).astype("f8")
            # Neither bias nor flat: the counts are the camera's.
            assert np.median(hdus[0].data - raw) == pytest.approx(0, abs=1e-3)
            assert hdus[0].header["FLATCORR"] == "NONE"
            assert (hdus["VAR"].data[hdus["MASK"].data == 0] > 0).all()
            assert "PHOTZP" not in hdus[0].header
