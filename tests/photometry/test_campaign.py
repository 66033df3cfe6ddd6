"""Simulated raw frames, reduced and solved by the real stages: what is measured on them against the truth."""

from __future__ import annotations

import pytest

from models.base import Roots
from models.catalog import Cone
from models.frame import CalibratedFrame
from models.settings import (
    AstrometrySettings,
    BiasSettings,
    FlatSettings,
    PhotometrySettings,
    PsfSettings,
    QualitySettings,
    ReductionSettings,
)
from models.simulation import TrueFrame
from models.telescope import Telescope
from tasks.astrometry import build_index, solve_frame
from tasks.calibration import make_master_bias, make_master_flat, reduce_frame
from tasks.catalogs import find_cone
from tasks.inventory import take_inventory
from tasks.photometry import calibrate_frame
from tasks.psf import model_psf
from tasks.quality import measure_frame
from tests.conftest import Campaign

pytestmark = pytest.mark.tools


def one_frame(campaign: Campaign, roots: Roots, t120: Telescope, band: str) -> tuple[CalibratedFrame, TrueFrame]:
    frames = take_inventory(roots, t120).frames
    bias = make_master_bias([f for f in frames if f.kind == "bias"], roots, t120, BiasSettings())
    flats = [f for f in frames if f.kind == "flat" and f.filter == band]
    flat = make_master_flat(flats, bias, roots, t120, FlatSettings())
    raw = next(f for f in frames if f.kind == "science" and f.filter == band)
    truth = next(f for f in campaign.truth.frames if f.path == raw.path)
    assert truth.wcs is not None
    ra, dec = truth.wcs.crval
    hint = Cone(ra=ra, dec=dec, radius=0.3)
    gaia, ps1 = find_cone("gaia", hint, roots), find_cone("ps1", Cone(ra=ra, dec=dec, radius=0.2), roots)
    assert gaia is not None
    reduced = reduce_frame(raw, bias, flat, roots, t120, ReductionSettings())
    measured = measure_frame(reduced, roots, t120, QualitySettings())
    index = build_index(gaia, roots, t120)
    solved = solve_frame(measured, hint, index, gaia, roots, t120, AstrometrySettings())
    return calibrate_frame(solved, ps1, roots, t120, PhotometrySettings()), truth


@pytest.mark.parametrize("band", ["r"])
def test_zero_point_and_psf_of_a_simulated_frame(
    band: str, campaign: Campaign, campaign_roots: Roots, t120: Telescope
) -> None:
    calibrated, truth = one_frame(campaign, campaign_roots, t120, band)
    zero_point = calibrated.zero_point
    assert zero_point.status == "OK", zero_point.reason
    assert zero_point.n_stars >= 50
    assert zero_point.zp == pytest.approx(truth.zero_point, abs=0.02)
    assert zero_point.zp_err < 0.02
    assert zero_point.colour_term == pytest.approx(campaign.truth.filters[band].c1, abs=0.04)

    psf = model_psf(calibrated, campaign_roots, t120, PsfSettings())
    assert truth.seeing_arcsec is not None
    # A pixel widens the profile that was drawn by 1 to 5 %.
    assert 1.0 < psf.fwhm_arcsec / truth.seeing_arcsec < 1.07
    assert psf.n_stars_accepted > 50
    assert 0.7 < psf.chi2 < 1.4
