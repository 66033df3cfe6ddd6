from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from models.base import Roots
from models.frame import ZeroPoint
from models.settings import PhotometrySettings
from models.telescope import Telescope
from tasks.catalogs import read_cone, store_cone
from tasks.core.errors import StageError
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


def refused(field: StarField, roots: Roots, t120: Telescope, **changes: object) -> ZeroPoint:
    solved, cone = field.make(roots, t120)
    if changes:
        raw = solved.raw.model_copy(update=changes)
        reduced = solved.reduced.model_copy(update={"raw": raw})
        solved = solved.model_copy(update={"measured": solved.measured.model_copy(update={"reduced": reduced})})
    calibrated = calibrate_frame(solved, cone, roots, t120, SETTINGS)
    assert pickle.loads(pickle.dumps(calibrated)) == calibrated
    assert calibrated.zero_point.zp is None
    return calibrated.zero_point


SMALL = StarField(n_stars=25, n_galaxies=0, shape=(300, 300))


def test_bands_that_ps1_cannot_calibrate(roots: Roots, t120: Telescope) -> None:
    narrow = refused(SMALL, roots, t120, filter="Ha")
    assert (narrow.status, narrow.reason) == ("NO_PS1_BAND", "PS1 has no band like Ha")
    unknown = refused(SMALL, roots, t120, filter=None)
    assert unknown.status == "NO_PS1_BAND"
    assert "unknown" in unknown.reason
    foreign = refused(SMALL, roots, t120, filter="Strange")
    assert (foreign.status, "no filter 'Strange'" in foreign.reason) == ("NO_PS1_BAND", True)


def test_a_catalogue_that_was_not_asked_is_pending_not_empty(roots: Roots, t120: Telescope) -> None:
    solved, cone = SMALL.make(roots, t120)
    pending = calibrate_frame(solved, None, roots, t120, SETTINGS).zero_point
    assert pending.status == "PENDING"
    empty = store_cone("ps1", cone.cone, read_cone(cone, roots)[:0], roots, "simulation", "PS1 DR2")
    few = calibrate_frame(solved, empty, roots, t120, SETTINGS).zero_point
    assert few.status == "FEW_STARS"
    assert few.reason.startswith("0 stars, 5 are needed: 0 PS1 objects on the frame")


def test_saturated_and_faint_stars_are_no_stars(roots: Roots, t120: Telescope) -> None:
    saturated = refused(SMALL.but(saturation=700.0, faintest=17.0), roots, t120)
    assert saturated.status == "FEW_STARS"
    assert saturated.n_matched > 5
    assert "0 unsaturated" in saturated.reason
    faint = refused(SMALL.but(exptime=0.2), roots, t120)
    assert faint.status == "FEW_STARS"


def test_what_cannot_be_measured_says_so(roots: Roots, t120: Telescope) -> None:
    timeless = refused(SMALL, roots, t120, exptime=0.0)
    assert (timeless.status, "exposure time 0 s" in timeless.reason) == ("FAILED", True)
    solved, cone = SMALL.make(roots, t120, solved_fwhm=False)
    quality = solved.measured.quality.model_copy(update={"fwhm_px": None})
    solved = solved.model_copy(update={"measured": solved.measured.model_copy(update={"quality": quality})})
    widthless = calibrate_frame(solved, cone, roots, t120, SETTINGS).zero_point
    assert widthless.status == "FAILED"
    assert "width" in widthless.reason


def test_too_few_stars_for_a_colour_term_say_so(roots: Roots, t120: Telescope) -> None:
    field = StarField(n_stars=12, n_galaxies=0, min_separation=60, faintest=17.0, brightest=14.6, seed=11)
    solved, cone = field.make(roots, t120)
    zero_point = calibrate_frame(solved, cone, roots, t120, SETTINGS).zero_point
    assert zero_point.status == "OK"
    assert zero_point.colour_term == 0.0
    assert "no colour term" in zero_point.reason
    # What the neglected term costs: 0.035 mag times the stars' mean colour.
    assert zero_point.zp == pytest.approx(field.zero_point, abs=0.06)


def test_a_colour_term_of_the_profile_is_used(roots: Roots, t120: Telescope) -> None:
    bands = tuple(b.model_copy(update={"colour_term": -0.035}) if b.name == "r" else b for b in t120.bands)
    solved, cone = FIELD.make(roots, t120)
    zero_point = calibrate_frame(solved, cone, roots, t120.model_copy(update={"bands": bands}), SETTINGS).zero_point
    assert zero_point.colour_term == -0.035
    assert zero_point.zp == pytest.approx(FIELD.zero_point, abs=0.008)


def test_nan_pixels_and_odd_folders_do_not_matter(tmp_path: Path, t120: Telescope) -> None:
    roots = Roots(data=tmp_path / "a b,c" / ("x" * 120) / ("y" * 120), raw=tmp_path / "raw")
    solved, cone = FIELD.make(roots, t120)
    path = roots.of(solved.reduced.file)
    with fits.open(path, mode="update") as hdus:
        hdus[0].data[100:104, 200:210] = np.nan
    zero_point = calibrate_frame(solved, cone, roots, t120, SETTINGS).zero_point
    assert zero_point.zp == pytest.approx(FIELD.zero_point, abs=max(0.01, 2.5 * zero_point.zp_err))


def test_a_lost_frame_is_a_stage_error(roots: Roots, t120: Telescope) -> None:
    solved, cone = SMALL.make(roots, t120)
    roots.of(solved.reduced.file).unlink()
    with pytest.raises(StageError) as caught:
        calibrate_frame(solved, cone, roots, t120, SETTINGS)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
