"""The other telescope, by its profile alone: flipped, 1536 x 1023, 0.484"/px, elongated stars, r'' and no filter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import sep
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from models.base import Roots
from models.catalog import Cone
from models.frame import ColourTerm
from models.simulation import SimulationOptions, Truth
from models.target import load_targets
from models.telescope import load_telescope
from tasks.astrometry import read_wcs
from tasks.catalogs import find_cone, read_cone, separation, store_cone
from tasks.simulation import at_epoch, read_stars, read_truth, simulate_campaign, to_sky
from tests.chain import Chain, stacked_frames
from tests.flows.conftest import run
from tests.report.markdown import tables

pytestmark = pytest.mark.tools

M67 = load_targets()["M67"]
REACH = 0.15


class Sky(NamedTuple):
    """A campaign of the T080 and its truth."""

    roots: Roots
    truth: Truth
    stars: Table


def magnitude_errors(stack: Path, stars: Table, band: str) -> np.ndarray:
    """Measured minus true magnitude in apertures of 3 FWHM about stars of 12.5 to 17 mag, neighbours inside counted."""
    with fits.open(stack) as hdus:
        image, header = hdus[0].data.astype("f4"), hdus[0].header
    here = stars[stars["kind"] == "star"]
    place = np.column_stack(
        WCS(header).all_world2pix(*at_epoch(here, 2000 + (header["MJD-OBS"] - 51544.5) / 365.25), 0)
    )
    flux, radius = 10 ** (-0.4 * np.asarray(here[f"{band}_nat"], float)), 3 * header["FWHM_PX"]
    tree = cKDTree(place)
    inner, middle, outer = (
        np.array([flux[at].sum() for at in tree.query_ball_point(place, radius * part)]) for part in (0.7, 1.0, 1.4)
    )
    bright = (flux > 10 ** (-0.4 * 17)) & (flux < 10 ** (-0.4 * 12.5))
    chosen = bright & (outer - inner < 0.02 * middle)
    # Frames are turned against the grid: its corners are empty.
    empty = (fits.getdata(stack.with_name(f"{stack.stem}.weight.fits")) == 0).astype("f4")
    chosen &= ((place > radius) & (place < np.array(image.shape[::-1]) - radius)).all(axis=1)
    chosen[chosen] = sep.sum_circle(empty, *place[chosen].T, radius)[0] == 0
    light, _, _ = sep.sum_circle(image, *place[chosen].T, radius)
    return -2.5 * np.log10(light) + header["PHOTZP"] + 2.5 * np.log10(middle[chosen])


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Sky:
    """Two frames of 900 x 599 px a filter, for the pure functions."""
    root = tmp_path_factory.mktemp("t080")
    options = SimulationOptions(
        seed=5, years=(2024,), fields=("M67",), filters=("r", "Clear"), frames=2, biases=3, flats=3, size=600,
        oddities=False, telescope="T080",
    )  # fmt: skip
    roots = Roots(data=root, raw=root / "raw")
    simulated = simulate_campaign(roots, options)
    # An index of a whole cone of stars takes 17 s; these frames lie within 5' of its middle.
    for catalogue in ("gaia", "ps1"):
        whole = find_cone(catalogue, Cone(ra=M67.ra, dec=M67.dec, radius=REACH), roots)
        table = read_cone(whole, roots)
        names = ("ra", "dec") if catalogue == "gaia" else ("raMean", "decMean")
        near = separation(*(np.asarray(table[name]) for name in names), M67.ra, M67.dec) < REACH
        shutil.rmtree(roots.catalogs / catalogue)
        store_cone(
            catalogue, Cone(ra=M67.ra, dec=M67.dec, radius=REACH), table[near], roots, "simulation", "a part of it"
        )
    return Sky(roots, simulated.truth, read_stars(root))


@pytest.fixture(scope="module")
def telescope(sky: Sky):
    whole = load_telescope("T080")
    rows, columns = sky.truth.options.shape
    small = whole.model_copy(update={"camera": whole.camera.model_copy(update={"shape": (rows, columns)})})
    # A year of frames would tell it; two of a small field do not.
    return small.with_colour_terms([ColourTerm(filter="r", term=sky.truth.filters["r"].c1, error=0.01, n_frames=2)])


@pytest.fixture(scope="module")
def chain(sky: Sky, telescope) -> Chain:
    return stacked_frames(sky.roots, telescope, M67, "r", REACH)


def test_filters_are_known_by_their_primes(sky: Sky, chain: Chain) -> None:
    spelt = {
        frame.filter: fits.getheader(sky.roots.raw / frame.path)["FILTER"]
        for frame in sky.truth.frames
        if frame.kind == "science"
    }
    assert spelt == {"r": "r''", "Clear": "CLEAR"}
    assert [record.raw.filter for record in chain.records] == ["r", "r"]
    assert all(record.raw.shape == (599, 900) for record in chain.records)


def test_frames_are_solved_in_their_parity(sky: Sky, chain: Chain) -> None:
    truth = {frame.path: frame for frame in sky.truth.frames}
    x, y = np.meshgrid(np.linspace(40, 860, 12), np.linspace(40, 560, 9))
    for record in chain.records:
        wcs = truth[record.raw.path].wcs
        solved = record.solved
        assert np.linalg.det(wcs.cd) > 0
        assert solved.solution.parity == 1
        assert solved.solution.pixel_scale == pytest.approx(0.484, abs=0.003)
        assert solved.solution.rotation_deg == pytest.approx(136, abs=2)
        ra, dec = read_wcs(solved, sky.roots).all_pix2world(x, y, 1)
        true_ra, true_dec = to_sky(wcs, x, y)
        off = np.hypot((ra - true_ra) * np.cos(np.radians(true_dec)), dec - true_dec) * 3600
        assert np.median(off) < 0.1


def test_elongated_stars_are_told_and_no_reason_to_lose_a_frame(sky: Sky, chain: Chain) -> None:
    truth = {frame.path: frame for frame in sky.truth.frames}
    for record in chain.records:
        e1, e2, _ = truth[record.raw.path].ellipticity
        assert 1.2 < record.quality.elongation < np.exp(np.hypot(e1, e2)) + 0.1
    assert (len(chain.selection.chosen), chain.selection.rejected) == (2, ())


def test_the_stack_has_the_true_magnitudes(sky: Sky, chain: Chain) -> None:
    path = sky.roots.of(chain.stack.image)
    assert path == sky.roots.data / "stacks" / "M67" / "T080" / "M67_r.fits"
    header = fits.getheader(path)
    assert (header["TELESCOP"], header["PIXSCALE"], header["NCOMBINE"]) == ("T080", 0.484, 2)
    assert header["CD1_1"] < 0 < header["CD2_2"]
    off = magnitude_errors(path, sky.stars, "r")
    assert off.size >= 5
    assert abs(np.median(off)) < 0.08, "not tied to PS1 yet, and the sky above the whole field's, not the local one"
    truth = {frame.path: frame for frame in sky.truth.frames}
    for record in chain.records:
        point = record.calibrated.zero_point
        assert (point.status, point.zp) == ("OK", pytest.approx(truth[record.raw.path].zero_point, abs=0.04))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Sky:
    """Frames of full size through the commands (two minutes on two idle cores)."""
    root, home = tmp_path_factory.mktemp("t080"), tmp_path_factory.mktemp("home")
    common = ("--root", str(root), "--telescope", "T080")
    few = ("--years", "2024", "--fields", "M67", "--biases", "5", "--flats", "4")
    simulated = run("flows.simulate_campaign", *common, *few, home=home)
    assert simulated.returncode == 0, simulated.stderr
    built = run("flows.build_release", *common, home=home, timeout=1800)
    assert built.returncode == 0, built.stdout + built.stderr
    return Sky(Roots(data=root, raw=root / "raw"), read_truth(root), read_stars(root))


def rows(whole: Sky, report: str) -> list[dict]:
    return json.loads((whole.roots.data / report).read_text(encoding="utf-8"))["rows"]


@pytest.mark.slow
def test_every_frame_is_calibrated(whole: Sky) -> None:
    solutions = rows(whole, "2024/T080/astrometry/astrom_report.json")
    assert [row["status"] for row in solutions] == ["OK"] * 9
    assert all(abs(row["pixel_scale"] - 0.484) < 0.003 and row["group"] == "M67" for row in solutions)
    points = [row["status"] for row in rows(whole, "2024/T080/photometry/phot_report.json")]
    assert sorted(points) == ["NO_PS1_BAND"] * 3 + ["OK"] * 6
    stats = rows(whole, "2024/T080/qc/frame_stats.json")
    assert sum("ELONGATED" in row["flags"] for row in stats) >= 5


@pytest.mark.slow
def test_stacks_are_where_they_belong_and_right(whole: Sky) -> None:
    folder = whole.roots.data / "stacks" / "M67" / "T080"
    assert {path.name for path in folder.glob("*.weight.fits")} == {
        f"M67_{band}.weight.fits" for band in ("g", "r", "Clear")
    }
    headers = [fits.getheader(folder / f"M67_{band}.fits") for band in ("g", "r", "Clear")]
    for keyword in ("NAXIS1", "NAXIS2", "CRPIX1", "CRVAL1", "CD1_1", "CD2_2"):
        assert len({header[keyword] for header in headers}) == 1
    assert [header["NCOMBINE"] for header in headers] == [3, 3, 3]
    assert headers[2]["PHOTCAL"] == "RELATIVE"
    for band in ("g", "r"):
        off = magnitude_errors(folder / f"M67_{band}.fits", whole.stars, band)
        assert off.size >= 20
        assert abs(np.median(off)) < 0.03
    checks = {row["filter"]: row for row in rows(whole, "stacks/phot_check_report_T080.json")}
    assert checks["g"]["validated"]
    assert checks["r"]["validated"]


@pytest.mark.slow
def test_the_tables_of_its_release(whole: Sky) -> None:
    found = tables((whole.roots.data / "stacks" / "release_T080.md").read_text(encoding="utf-8"))
    assert [(row["Target"], row["Filters"], row["N frames"]) for row in found["Full target list"]] == [
        ("M67", "g, r, Clear", "9")
    ]
    said = {row["Property"]: row["Value"] for row in found["Data Summary"]}
    assert said["Output pixel scale"] == "0.484 arcsec/px"
    assert said["CCD"] == "1536 x 1023 px at binning 2"
    assert (whole.roots.data / "stacks" / "T080_mean_psf.fits").is_file()
