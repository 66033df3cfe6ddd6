"""Raw frames of the simulator to a stack, with every real tool, against what the simulator put in."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from models.base import Roots
from models.target import load_targets
from models.telescope import load_telescope
from tasks.photometry import aperture_photometry
from tests.chain import stacked_frames

T120 = load_telescope("T120")
M67 = load_targets()["M67"]

pytestmark = pytest.mark.tools


@pytest.fixture(scope="module")
def stacked(campaign, tmp_path_factory):
    """The r frames of the campaign, stacked; with the simulator's truth."""
    data = tmp_path_factory.mktemp("chain")
    shutil.copytree(campaign.roots.catalogs, data / "catalogs")
    roots = Roots(data=data, raw=campaign.roots.raw)
    chain = stacked_frames(roots, T120, M67, "r")
    return roots, chain.scaling, chain.selection, chain.stack


def true_frames(campaign):
    return {frame.path: frame for frame in campaign.truth.frames}


def test_relative_zero_points_agree_with_the_simulator(campaign, stacked):
    """Between frames to 5 mmag, faint-star noise and PSF variation included; as a whole to 15 mmag."""
    _, scaling, _, _ = stacked
    truth = true_frames(campaign)
    assert len(scaling.scaled) == 3
    error = np.array([item.zero_point - truth[item.aligned.frame.raw.path].zero_point for item in scaling.scaled])
    assert np.ptp(error) < 0.005
    assert np.abs(error).max() < 0.015


def test_stack_has_the_true_magnitudes(campaign, stacked):
    """Isolated stars of 14 to 17 mag, as a user measures them: aperture of 3 FWHM, zero point 30."""
    roots, _, _, stack = stacked
    with fits.open(roots.of(stack.image)) as hdus:
        image, header = np.asarray(hdus[0].data, np.float32), hdus[0].header
    weight = fits.getdata(roots.of(stack.weight))
    stars = campaign.stars
    years = (header["MJD-OBS"] - 51544.5) / 365.25 + 2000.0 - 2016.0
    dec0 = np.asarray(stars["dec"], float)
    motion = [np.nan_to_num(np.ma.filled(stars[key], 0.0)) * years / 3.6e6 for key in ("pmra", "pmdec")]
    x, y = WCS(header).all_world2pix(
        np.asarray(stars["ra"], float) + motion[0] / np.cos(np.deg2rad(dec0)), dec0 + motion[1], 0
    )
    mag = np.asarray(stars["r_nat"], float)
    radius = 3.0 * header["FWHM_PX"]
    near = cKDTree(np.column_stack([x, y])).query_ball_point(np.column_stack([x, y]), 2.5 * radius)
    added = np.array([np.sum(10 ** (-0.4 * (mag[at] - mag[i]))) - 1.0 for i, at in enumerate(near)])
    inside = (x > 30) & (x < header["NAXIS1"] - 30) & (y > 30) & (y < header["NAXIS2"] - 30)
    chosen = inside & (np.char.strip(np.asarray(stars["kind"]).astype(str)) == "star") & (added < 0.01)
    chosen &= (mag > 14) & (mag < 17)
    full = np.median(weight[weight > 0])
    rows, columns = np.rint(y[chosen]).astype(int), np.rint(x[chosen]).astype(int)
    deep = weight[rows, columns] > 0.5 * full
    noise = np.full(image.shape, np.var(image[np.abs(image) < np.percentile(np.abs(image), 80)]), np.float32)
    found = aperture_photometry(image, (weight <= 0).astype(np.uint8), noise, x[chosen], y[chosen], radius)
    good = deep & (found.flag == 0)
    assert np.count_nonzero(good) >= 15
    error = 30 - 2.5 * np.log10(found.flux[good]) - mag[chosen][good]
    assert abs(np.median(error)) < 0.015
    assert 1.4826 * np.median(np.abs(error - np.median(error))) < 0.03


def test_stack_names_its_frames_and_knows_its_depth(stacked):
    roots, _, selection, stack = stacked
    header = fits.getheader(roots.of(stack.image))
    names = [header[f"INP{i:04d}"] for i in range(1, header["NCOMBINE"] + 1)]
    assert tuple(names) == stack.inputs == tuple(item.aligned.frame.raw.label for item in selection.chosen)
    assert all(re.fullmatch(r"2023\d{4}/M67.*\.fits", name) for name in names)
    assert 19.0 < header["DEPTH5S"] < 23.0
    assert abs(header["LIGHTCOR"]) < 0.05
    assert not [note for note in stack.notes if "weight" in note and "uniform" in note], "every frame's flat was found"
