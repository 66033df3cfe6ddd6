from __future__ import annotations

import numpy as np
import pytest

from models.base import Roots
from models.settings import PhotometrySettings
from models.telescope import Telescope
from tasks.photometry import calibrate_frame
from tests.photometry.starfield import StarField

SETTINGS = PhotometrySettings()
FIELD = StarField(min_separation=25, n_stars=220)


@pytest.mark.parametrize(
    "field",
    [
        FIELD,
        FIELD.but(band="g", colour_term=0.045, zero_point=22.8, seed=3),
        FIELD.but(beta=2.6, fwhm=4.8, seed=4, masked=0.004),
        FIELD.but(exptime=300.0, seed=5, cosmic_rays=150),
    ],
    ids=["r", "g", "wide wings and bad pixels", "cosmic rays"],
)
def test_zero_point_is_the_truth_for_all_light_at_colour_zero(field: StarField, roots: Roots, t120: Telescope) -> None:
    solved, cone = field.make(roots, t120)
    zero_point = calibrate_frame(solved, cone, roots, t120, SETTINGS).zero_point
    assert zero_point.status == "OK"
    assert zero_point.n_stars >= 30
    assert zero_point.zp == pytest.approx(field.zero_point, abs=max(0.010, 2.5 * zero_point.zp_err))
    assert zero_point.zp_err < 0.015
    assert zero_point.colour_term == pytest.approx(field.colour_term, abs=0.02)
    assert zero_point.aperture_px == pytest.approx(3 * field.fwhm, rel=0.01)
    assert np.isfinite(zero_point.zp_rms)
