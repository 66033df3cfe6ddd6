"""Plate solutions against a made-up truth, by the real solve-field."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from astropy.wcs import WCS

from models.frame import SolvedFrame
from models.settings import AstrometrySettings
from tasks.astrometry import read_wcs, solve_frame
from tasks.astrometry.plate import check_geometry
from tasks.core.errors import StageError, TransientError
from tests.astrometry.conftest import DEC, RA, Field
from tests.astrometry.sky import (
    Camera,
    gaia_table,
    make_roots,
    measured_frame,
    raw_frame,
    replace,
    source_table,
    stored,
)

pytestmark = pytest.mark.tools


def solve(field: Field, camera: Camera, name: str, seed: int = 1, **options: float) -> SolvedFrame:
    jyear = options.pop("jyear", 2023.4)
    table, _ = source_table(field.gaia, camera, jyear, seed, **options)
    measured = measured_frame(raw_frame(name, jyear), table, field.roots)
    return solve_frame(measured, field.hint, field.index, field.cone, field.roots, field.telescope, field.settings)


def offsets_mas(solved: SolvedFrame, camera: Camera, field: Field) -> np.ndarray:
    """Distance between the solution and the truth on a grid over the chip."""
    east, north = (axis.ravel() / 3600 for axis in np.meshgrid(np.linspace(-500, 500, 21), np.linspace(-500, 500, 21)))
    ra, dec = camera.ra + east / np.cos(np.radians(camera.dec)), camera.dec + north
    x, y = camera.pixels(ra, dec)
    inside = (x > 1) & (x < camera.shape[1]) & (y > 1) & (y < camera.shape[0])
    found_ra, found_dec = read_wcs(solved, field.roots).all_pix2world(x[inside], y[inside], 1)
    return np.hypot((found_ra - ra[inside]) * np.cos(np.radians(camera.dec)), found_dec - dec[inside]) * 3.6e6


@pytest.mark.parametrize("seed", range(3))
def test_the_solution_is_the_truth(field: Field, seed: int) -> None:
    camera = Camera(ra=RA + 0.03 * seed, dec=DEC - 0.02, angle=-90.0 + 0.4 * seed)
    solved = solve(field, camera, f"good_{seed}", seed, jyear=2018.5 + 3 * seed, limit=20.0)
    error = offsets_mas(solved, camera, field)
    assert np.sqrt(np.mean(error**2)) < 60
    assert solved.status == "OK"
    assert solved.solution.pixel_scale == pytest.approx(0.77, rel=1e-3)
    assert solved.solution.rotation_deg == pytest.approx(camera.angle, abs=0.02)
    assert solved.solution.parity == -1
    assert solved.solution.n_matched >= 15
    assert f"epoch {2018.5 + 3 * seed:.2f}"[:-1] in solved.solution.reference


def test_seeing_is_that_of_stars_not_of_cosmic_rays(field: Field) -> None:
    solved = solve(field, Camera(), "seeing", spurious=120, limit=20.0)
    assert solved.fwhm_arcsec == pytest.approx(3.5 * 0.77, rel=0.01)


def test_same_frame_same_bytes(field: Field) -> None:
    first = solve(field, Camera(), "twice")
    path = field.roots.of(first.solution.wcs)
    before = path.read_bytes()
    path.unlink()
    assert solve(field, Camera(), "twice") == first
    assert path.read_bytes() == before
    assert str(field.roots.data).encode() not in before


def test_a_mirrored_frame_is_refused(field: Field) -> None:
    with pytest.raises(StageError, match="parity negative"):
        solve(field, Camera(parity=1), "mirrored")


def test_another_field_is_refused(field: Field, tmp_path: Path) -> None:
    elsewhere = gaia_table(1500, 200.0, 40.0, 0.5, seed=9)
    table, _ = source_table(elsewhere, Camera(ra=200.0, dec=40.0), 2023.4, 3)
    measured = measured_frame(raw_frame("elsewhere", 2023.4), table, field.roots)
    with pytest.raises(StageError, match="no match") as failure:
        solve_frame(measured, field.hint, field.index, field.cone, field.roots, field.telescope, field.settings)
    again = pickle.loads(pickle.dumps(failure.value))
    assert (again.stage, again.reason, again.remedy) == ("plate solution", failure.value.reason, failure.value.remedy)


def test_a_solution_that_gaia_does_not_bear_out_is_refused(field: Field, tmp_path: Path) -> None:
    """The index knows the field, the Gaia cone is another sky at the same place: a wrong solution must not pass."""
    roots = make_roots(tmp_path / "other")
    other = stored(gaia_table(1500, RA, DEC, 0.5, seed=77), RA, DEC, 0.5, roots)
    (tmp_path / "other" / "astrometry_index").symlink_to(field.roots.data / "astrometry_index")
    table, _ = source_table(field.gaia, Camera(), 2023.4, 3)
    measured = measured_frame(raw_frame("wrong", 2023.4), table, roots)
    with pytest.raises(StageError, match="plate solution"):
        solve_frame(measured, field.hint, field.index, other, roots, field.telescope, field.settings)


def test_too_few_sources(field: Field) -> None:
    with pytest.raises(StageError, match="2 starlike sources, at least 6"):
        solve(field, Camera(), "few", limit=14.2, spurious=90)


def test_the_status_is_that_of_the_rms(field: Field) -> None:
    table, _ = source_table(field.gaia, Camera(), 2023.4, 1)
    measured = measured_frame(raw_frame("rms", 2023.4), table, field.roots)
    arguments = (measured, field.hint, field.index, field.cone, field.roots, field.telescope)
    assert solve_frame(*arguments, AstrometrySettings(ok_arcsec=0.001)).status == "HIGH_RMS"
    with pytest.raises(StageError, match="rms 0"):
        solve_frame(*arguments, AstrometrySettings(ok_arcsec=0.001, high_rms_arcsec=0.002))
    with pytest.raises(StageError, match="stars matched, at least 50"):
        solve_frame(*arguments, AstrometrySettings(min_matched=50, gaia_limit_sparse=16.0))


@pytest.mark.parametrize(
    ("change", "word"),
    [({"scale": 1.3}, "outside"), ({"parity": 1}, "mirrored"), ({"stretch": 1.2}, "longer than wide")],
)
def test_a_solution_of_the_wrong_shape_is_refused(field: Field, change: dict[str, float], word: str) -> None:
    """Whatever the solver was told: the fit itself must be a picture this camera can take."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [RA, DEC], [512.5, 512.5]
    scale = change.get("scale", 0.77) / 3600
    wcs.wcs.cd = np.diag([change.get("parity", -1) * scale, scale * change.get("stretch", 1.0)])
    with pytest.raises(StageError, match=word):
        check_geometry(wcs, (1024, 1024), 2, field.telescope, field.settings)


def test_without_gaia_the_frame_waits(field: Field) -> None:
    table, _ = source_table(field.gaia, Camera(), 2023.4, 1)
    measured = measured_frame(raw_frame("pending", 2023.4), table, field.roots)
    with pytest.raises(TransientError, match="pending"):
        solve_frame(measured, field.hint, field.index, None, field.roots, field.telescope, field.settings)


def test_the_index_can_stand_in_for_gaia_and_the_solution_says_so(field: Field) -> None:
    table, _ = source_table(field.gaia, Camera(), 2023.4, 1, limit=20.0)
    measured = measured_frame(raw_frame("index", 2023.4), table, field.roots)
    settings = AstrometrySettings(reference="index")
    solved = solve_frame(measured, field.hint, field.index, None, field.roots, field.telescope, settings)
    assert "Gaia not asked" in solved.solution.reference
    assert solved.solution.rms_arcsec < 1.0


def test_a_camera_of_unknown_parity(field: Field) -> None:
    camera = field.telescope.camera.model_copy(update={"parity": 0})
    free = replace(field, telescope=field.telescope.model_copy(update={"camera": camera}))
    assert solve(free, Camera(parity=1, angle=30.0), "free").solution.parity == 1
