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


def test_the_zero_point_does_not_depend_on_the_aperture(roots: Roots, t120: Telescope) -> None:
    solved, cone = FIELD.but(n_stars=260, shape=(800, 800), faintest=18.5).make(roots, t120)
    bands = tuple(b.model_copy(update={"colour_term": -0.035}) if b.name == "r" else b for b in t120.bands)
    telescope = t120.model_copy(update={"bands": bands})
    points = [
        calibrate_frame(solved, cone, roots, telescope, PhotometrySettings(aperture_fwhm=radius)).zero_point.zp
        for radius in (2.0, 3.0, 4.0)
    ]
    assert np.ptp([point for point in points if point is not None]) < 0.003


def test_a_curved_colour_relation_is_no_bias(roots: Roots, t120: Telescope) -> None:
    """B against g and g - r: a straight line through what is curved is off at colour zero."""
    field = FIELD.but(band="B", colour_term=0.6, curvature=0.034, zero_point=22.8, colour_range=(0.3, 1.3), seed=8)
    solved, cone = field.make(roots, t120)
    point = calibrate_frame(solved, cone, roots, t120, SETTINGS).zero_point
    assert point.zp == pytest.approx(22.8, abs=2.5 * point.zp_err)
    straight = tuple(b.model_copy(update={"colour_curvature": 0.0}) for b in t120.bands)
    other = calibrate_frame(solved, cone, roots, t120.model_copy(update={"bands": straight}), SETTINGS).zero_point
    assert other.zp - point.zp == pytest.approx(0.018, abs=0.008)
    assert (point.colour_curvature, point.vega_zp) == (0.034, pytest.approx(point.zp + 0.212))


def test_the_error_of_the_colour_term_is_in_that_of_the_zero_point(roots: Roots, t120: Telescope) -> None:
    solved, cone = FIELD.make(roots, t120)

    def error(of_term: float) -> ZeroPoint:
        update = {"colour_term": -0.035, "colour_term_error": of_term}
        bands = tuple(b.model_copy(update=update) if b.name == "r" else b for b in t120.bands)
        return calibrate_frame(solved, cone, roots, t120.model_copy(update={"bands": bands}), SETTINGS).zero_point

    sure, unsure = error(0.0), error(0.02)
    assert unsure.zp_err == pytest.approx(np.hypot(sure.zp_err, 0.02 * sure.colour_mean), rel=1e-6)
    assert 0.5 < sure.colour_mean < 1.1


def test_flux_is_brought_to_the_pixel_at_the_centre(roots: Roots, t120: Telescope) -> None:
    """On a flat-fielded frame a star towards the edge has fewer ADU, by the area of its pixel."""
    wide = FIELD.but(shape=(1000, 1000), n_stars=300, n_galaxies=0, distortion=2e-8)
    solved, cone = wide.make(roots, t120)
    flat = solved.reduced.model_copy(update={"flat": "0" * 64})
    flattened = solved.model_copy(update={"measured": solved.measured.model_copy(update={"reduced": flat})})
    counts = calibrate_frame(solved, cone, roots, t120, SETTINGS).zero_point
    brought = calibrate_frame(flattened, cone, roots, t120, SETTINGS).zero_point
    # Mean of 4 k r^2 over the square, 1.0857 of it in mag; the stars here were drawn without the loss.
    assert brought.zp - counts.zp == pytest.approx(1.0857 * 4 * 2e-8 * 1000**2 / 6, rel=0.15)


def test_stars_that_do_not_agree_give_no_guess(roots: Roots, t120: Telescope) -> None:
    field = StarField(n_stars=7, n_galaxies=0, min_separation=60, faintest=17.0, brightest=14.6, seed=11)
    solved, cone = field.make(roots, t120)
    table = read_cone(cone, roots)
    good = calibrate_frame(solved, cone, roots, t120, SETTINGS).zero_point
    assert good.status == "OK"
    assert good.n_stars >= 5
    for column in ("rMeanPSFMag", "rMeanKronMag"):
        table[column][:3] += np.array([0.5, 0.9, 1.3])
    spoiled = store_cone("ps1", cone.cone, table, roots, "simulation", "PS1 DR2")
    few = calibrate_frame(solved, spoiled, roots, t120, SETTINGS).zero_point
    assert (few.status, few.zp) == ("FEW_STARS", None)
    assert "mag only, more than 0.1" in few.reason


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
