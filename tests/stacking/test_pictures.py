"""Quick-look pictures: bands, bytes, what they show."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from matplotlib.image import imread

from models.stack import Stack, stack_paths
from tasks.core.files import ref
from tasks.core.fitsio import write_fits
from tasks.stacking import lupton, plot_rgb, plot_stack
from tasks.stacking.pictures import rgb_bands
from tests.stacking.sky import make_roots, moffat


def make_stack(roots, name, star_flux, seed=0, calibrated=True, side=220):
    rng = np.random.default_rng(seed)
    data = rng.normal(0, 10, (side, side)).astype(np.float32)
    data += (star_flux * moffat((side, side), 80, 140, 4.0)).astype(np.float32)
    weight = np.ones_like(data)
    weight[:20] = data[:20] = 0
    paths = stack_paths("M51", "T120", name, roots)
    header = fits.Header([("PIXSCALE", 0.77)])
    write_fits(paths.image, [fits.PrimaryHDU(data, header)])
    write_fits(paths.weight, [fits.PrimaryHDU(weight)])
    return Stack(
        group="M51", filter=name, telescope="T120", image=ref(paths.image, roots), weight=ref(paths.weight, roots),
        n_combined=5, inputs=("a",), combine="MEDIAN", exptime_s=300, calibrated=calibrated, depth_5sigma=21.3,
    )  # fmt: skip


@pytest.fixture
def roots(tmp_path):
    return make_roots(tmp_path)


@pytest.mark.parametrize(
    ("filters", "bands"),
    [
        (["B", "V", "g", "r", "i"], ("i", "r", "B")),
        (["B", "V", "r", "Ha"], ("r", "V", "B")),
        (["g", "r", "Ha"], ("Ha", "r", "g")),
        (["B", "Ha", "OIII"], ("Ha", "OIII", "B")),
        (["g", "r"], None),
        (["g", "r", "C"], None),
    ],
)
def test_bands_of_the_colour_picture(filters, bands):
    assert rgb_bands(filters) == bands
    assert rgb_bands(filters[::-1]) == bands


def test_picture_shows_star_sky_and_border(roots):
    stack = make_stack(roots, "r", 20000)
    made = plot_stack(stack, roots)
    assert made.path == "stacks/M51/T120/plots/M51_r.png"
    picture = imread(roots.of(made))[..., :3].mean(axis=2)
    height, width = picture.shape
    scale = width / 220
    top = height - width

    def at(x, y):
        row, column = round(top + (219 - y) * scale), round(x * scale)
        return picture[row - 4 : row + 5, column - 4 : column + 5].mean()

    assert at(80, 140) > 0.8, "the star is white"
    assert 0.1 < at(150, 100) < 0.4, "the sky is dark grey"
    assert at(110, 8) < 0.02, "no data is black"


def test_pictures_have_the_same_bytes_again(roots):
    stacks = [make_stack(roots, name, 20000, seed) for seed, name in enumerate("gri")]
    assert plot_stack(stacks[0], roots) == plot_stack(stacks[0], roots)
    first = plot_rgb(stacks, roots)
    assert first is not None
    assert first == plot_rgb(stacks[::-1], roots)
    assert first.path == "stacks/M51/T120/plots/M51_rgb.png"


def test_a_star_of_ordinary_colour_is_white(roots):
    stacks = [
        make_stack(roots, name, flux, seed) for seed, (name, flux) in enumerate([("g", 9e3), ("r", 2e4), ("i", 3e4)])
    ]
    picture = imread(roots.of(plot_rgb(stacks, roots)))[..., :3]
    height, width, _ = picture.shape
    row, column = round(height - width + (219 - 140) * width / 220), round(80 * width / 220)
    core = picture[row - 3 : row + 4, column - 3 : column + 4].mean(axis=(0, 1))
    assert np.ptp(core) < 0.15
    assert core.min() > 0.4


def test_two_bands_make_no_colour_picture(roots):
    assert plot_rgb([make_stack(roots, name, 1e4) for name in "gr"], roots) is None


def test_a_gap_inside_of_the_field_is_filled_for_the_page_and_black_else(roots):
    stacks = [make_stack(roots, name, 20000, seed) for seed, name in enumerate("gr")]
    for stack in stacks:
        path = roots.of(stack.weight)
        weight = fits.getdata(path).copy()
        weight[138:143, 78:83] = 0
        write_fits(path, [fits.PrimaryHDU(weight)])
    black, filled = lupton(stacks, roots), lupton(stacks, roots, filled=True)
    assert black.bands == filled.bands == ("r", "g")
    assert black.image[140, 80].max() == 0
    assert filled.image[140, 80].min() > 100
    assert filled.image[5, 5].max() == 0, "outside of the frames there is nothing"
