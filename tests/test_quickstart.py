"""The examples of docs/data_release.md, run as they stand on the demo's stacks; what they find against the truth."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from tasks.core.tools import TOOLS
from tasks.simulation import at_epoch, read_stars
from tasks.truth import Scene, true_spiral

pytestmark = [pytest.mark.demo, pytest.mark.tools]

PAGE = Path(__file__).resolve().parents[1] / "docs" / "data_release.md"
EPOCH = 2022.0


def blocks(language: str) -> dict[str, list[str]]:
    """Code blocks of the page by the heading they stand under."""
    found: dict[str, list[str]] = {}
    heading = ""
    for match in re.finditer(r"^(#+ [^\n]*)$|^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        if match[1]:
            heading = match[1].lstrip("# ")
        elif match[2] == language:
            found.setdefault(heading, []).append(match[3])
    return found


PYTHON, BASH = blocks("python"), blocks("bash")


@pytest.fixture(scope="module")
def stacks(demo, tmp_path_factory) -> Path:
    """A folder like DATA_ROOT/stacks whose files are links to the demo's: examples may write beside them."""
    root = tmp_path_factory.mktemp("release")
    for source in [*demo.roots.data.glob("stacks/*/T120"), *demo.roots.data.glob("[0-9]*/T120/psf")]:
        target = root / source.relative_to(demo.roots.data)
        shutil.copytree(source, target, copy_function=lambda file, link: os.symlink(file, link))
    return root / "stacks"


@pytest.fixture
def example(stacks, monkeypatch):
    """Run an example of the page and give back its names."""

    def run(heading: str, number: int = 0) -> dict[str, Any]:
        matplotlib.use("Agg")
        monkeypatch.chdir(stacks)
        names: dict[str, Any] = {}
        exec(compile(PYTHON[heading][number], f"{PAGE.name}: {heading}", "exec"), names)
        return names

    return run


@pytest.fixture(scope="module")
def truth(demo) -> Table:
    """Stars of the simulation at an epoch in the middle of the campaign."""
    stars = read_stars(demo.roots.data)
    stars = stars[stars["kind"] == "star"]
    ra, dec = at_epoch(stars, EPOCH)
    stars["ra_now"], stars["dec_now"] = ra, dec
    return stars


def matched(header: fits.Header, x, y, mag, stars: Table, band: str, range_: tuple[float, float]):
    """Measured minus true magnitude of stars that stand alone (no neighbour of 2 % of their light within 15 px)."""
    place = np.column_stack(WCS(header).all_world2pix(stars["ra_now"], stars["dec_now"], 0))
    inside = (np.abs(place - np.array([header["NAXIS1"], header["NAXIS2"]]) / 2) < 1000).all(axis=1)
    place, true = place[inside], np.asarray(stars[f"{band}_nat"], float)[inside]
    tree = cKDTree(place)
    distance, at = tree.query(np.column_stack([x, y]), distance_upper_bound=1.5)
    differences = []
    for i in np.flatnonzero(np.isfinite(distance)):
        near = [j for j in tree.query_ball_point(place[at[i]], 15) if j != at[i]]
        alone = all(true[j] > true[at[i]] + 4.2 for j in near)
        if alone and range_[0] < true[at[i]] < range_[1]:
            differences.append(mag[i] - true[at[i]])
    return np.array(differences)


def test_every_example_is_tested():
    assert {heading: len(found) for heading, found in PYTHON.items()} == {
        "Reading a stack": 1,
        "From pixel values to magnitudes": 1,
        "The light of a large galaxy": 1,
        "Masking pixels without data": 1,
        "Aperture photometry with `sep`": 1,
        "A colour picture": 1,
        "The PSF for model fitting": 2,
        "Sky and pixel positions": 1,
        "The PSF model of a frame": 1,
    }
    assert {heading: len(found) for heading, found in BASH.items()} == {"SExtractor in dual-image mode": 1}


def test_reading(example, capsys):
    names = example("Reading a stack")
    assert names["data"].shape == (names["header"]["NAXIS2"], names["header"]["NAXIS1"])
    assert list(names["wcs"].wcs.ctype) == ["RA---TAN", "DEC--TAN"]
    said = capsys.readouterr().out
    assert said.startswith("M67 in r: ")
    assert "zero point checked against PS1: True" in said


def test_magnitudes(example):
    names = example("From pixel values to magnitudes")
    assert names["mag"] == pytest.approx(22.271, abs=1e-3)
    with np.errstate(all="ignore"):
        brightest = np.nanmin(names["sb"])
    assert 8 < brightest < 18
    assert np.isnan(names["sb"]).mean() < 0.75


def test_the_light_of_a_large_galaxy(example, demo):
    names = example("The light of a large galaxy")
    scene = Scene.of(demo.roots)
    stack = next(each for each in scene.stacks() if each.label == "M51 r")
    inside = (names["radius"] < 300) & (names["image"] != 0)
    true = true_spiral(stack, scene)[inside].sum()
    others = scene.here(stack)
    others = others[others["kind"] != "knot"]
    near = np.hypot(others["x"] - names["x"], others["y"] - names["y"]) * stack.header["PIXSCALE"] < 300
    true += np.nansum(10 ** (0.4 * (stack.header["PHOTZP"] - others["mag"][near])))
    assert abs(names["mag"] - (stack.header["PHOTZP"] - 2.5 * np.log10(true))) < 0.03


def test_mask(example):
    names = example("Masking pixels without data")
    assert 0.02 < names["mask"].mean() < 0.4
    assert (names["data"][names["mask"]] == 0).all()
    assert not names["mask"][names["mask"].shape[0] // 2, names["mask"].shape[1] // 2]


def test_sep_photometry_agrees_with_the_truth(example, truth):
    names = example("Aperture photometry with `sep`")
    off = matched(names["header"], names["x"], names["y"], names["mag"], truth, "r", (13.5, 17.5))
    assert off.size >= 30
    assert abs(np.median(off)) < 0.05
    assert 1.4826 * np.median(np.abs(off - np.median(off))) < 0.05


def test_colour_picture(example, stacks):
    names = example("A colour picture")
    rgb = names["rgb"]
    assert rgb.shape[2] == 3
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    assert all(np.count_nonzero(rgb[:, :, band] > 0.5) > 200 for band in range(3))
    assert (stacks / "M51_rgb.png").stat().st_size > 20_000


def test_psf(example):
    names = example("The PSF for model fitting")
    psf = names["psf"]
    assert psf.shape == (25, 25)
    assert psf.sum() == pytest.approx(1.0, abs=1e-4)
    assert np.unravel_index(psf.argmax(), psf.shape) == (12, 12)
    assert names["psf_header"]["SAMPLING"] == 1.0


def test_petrofit(example):
    try:
        importlib.import_module("petrofit")
    except ImportError as error:
        pytest.skip(f"PetroFit's example is not run ({error}); the PSF's loading is tested beside")
    image = example("The PSF for model fitting", 1)["model"](*np.mgrid[:101, :101][::-1])
    assert np.unravel_index(image.argmax(), image.shape) == (50, 50)


def test_positions(example):
    names = example("Sky and pixel positions")
    shape = fits.getdata("M51/T120/M51_r.fits").shape
    assert abs(names["x"] - shape[1] / 2) < 60
    assert abs(names["y"] - shape[0] / 2) < 60
    x, y = names["wcs"].world_to_pixel_values(names["ra"], names["dec"])
    assert (x, y) == (pytest.approx(100, abs=1e-6), pytest.approx(200, abs=1e-6))
    data = fits.getdata("M51/T120/M51_r.fits")
    core = data[round(float(names["y"])) - 3 :, round(float(names["x"])) - 3 :][:7, :7]
    assert core.max() > 20 * np.median(np.abs(data))


def test_frame_psf(example):
    names = example("The PSF model of a frame")
    psf = names["psf"]
    assert psf.shape == (25, 25)
    assert psf.sum() == pytest.approx(1.0)
    assert np.hypot(*(np.array(np.unravel_index(psf.argmax(), psf.shape)) - 12)) < 1.5
    assert len(names["terms"]) == names["components"].shape[0]


def test_sextractor_dual_image(stacks, tmp_path, truth):
    tool = next((path for name in TOOLS["source-extractor"].names if (path := shutil.which(name))), None)
    assert tool is not None, "SExtractor is not installed"
    (tmp_path / "source-extractor").symlink_to(tool)  # whatever the distribution calls it
    done = subprocess.run(
        ["bash", "-euc", BASH["SExtractor in dual-image mode"][0]],
        cwd=stacks,
        env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    r, g = (np.loadtxt(stacks / "M67" / "T120" / f"M67_{band}_dual.cat") for band in "rg")
    assert len(r) == len(g) > 300
    assert (r[:, :3] == g[:, :3]).all(), "the same rows in both"
    header = fits.getheader(stacks / "M67" / "T120" / "M67_r.fits")
    clean = (r[:, 5] == 0) & (g[:, 5] == 0) & (r[:, 3] < 18.0)
    colour = (g[:, 3] - r[:, 3])[clean]
    assert clean.sum() > 100
    assert np.mean((colour > 0) & (colour < 1.6)) > 0.9
    for catalogue, band in ((r, "r"), (g, "g")):
        off = matched(header, r[clean, 1] - 1, r[clean, 2] - 1, catalogue[clean, 3], truth, band, (13.5, 16.5))
        assert off.size >= 12
        assert abs(np.median(off)) < 0.05
