from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from models.telescope import Band
from tasks.photometry import PS1Stars, match_and_select, on_image, ps1_stars
from tests.photometry.starfield import DEC, RA, sip_wcs

R = Band(name="r", ps1="r", colour=("g", "r"))


def table(n: int = 4) -> Table:
    t = Table()
    t["raMean"], t["decMean"] = np.full(n, RA), np.full(n, DEC)
    for band in "gr":
        t[f"{band}MeanPSFMag"] = np.full(n, 17.0 if band == "r" else 17.6)
        t[f"{band}MeanPSFMagErr"] = np.full(n, 0.01)
        t[f"{band}MeanKronMag"] = np.full(n, 17.0)
    return t


def test_ps1_stars_tells_stars_from_galaxies_and_gaps() -> None:
    t = table()
    t["rMeanPSFMag"][1] = 17.4  # a galaxy: its Kron magnitude is brighter
    t["rMeanPSFMag"][2] = -999.0
    t["gMeanPSFMag"][3] = np.nan
    found = ps1_stars(t, R, 0.05)
    assert found.star.tolist() == [True, False, False, True]
    assert np.isnan(found.mag[2])
    assert found.colour[0] == pytest.approx(0.6)
    assert np.isnan(found.colour[3])
    with pytest.raises(ValueError, match="no PS1 band"):
        ps1_stars(t, Band(name="Ha"), 0.05)


def test_on_image_keeps_what_falls_on_it_and_near() -> None:
    wcs, shape = sip_wcs((400, 400)), (400, 400)
    pixel = np.array([[10.0, 20.0], [390.0, 200.0], [-8.0, 50.0], [-40.0, 50.0], [4000.0, 50.0]])
    world = wcs.all_pix2world(pixel[:4], 0)
    world = np.vstack([world, [RA + 90, DEC - 60]])  # far off: behind the tangent plane
    stars = PS1Stars(*world.T, *(np.full(5, v) for v in (17.0, 0.01, 0.5)), np.ones(5, bool))
    near, where = on_image(stars, wcs, shape, margin_px=10)
    assert where == pytest.approx(pixel[:3], abs=0.01)
    assert near.mag.shape == (3,)
    none, nowhere = on_image(stars.take(np.array([4])), wcs, shape, margin_px=10)
    assert none.mag.shape == (0,)
    assert nowhere.shape == (0, 2)


def select(pixel: np.ndarray, mag: np.ndarray, x: np.ndarray, y: np.ndarray, star: np.ndarray | None = None):
    n = len(pixel)
    stars = PS1Stars(
        np.zeros(n), np.zeros(n), mag, np.full(n, 0.01), np.full(n, 0.5), np.ones(n, bool) if star is None else star
    )
    return match_and_select(
        stars, pixel, x, y, match_px=2.0, isolation_px=14.0, aperture_px=10.0, mag_range=(14.5, 20.0)
    )


def test_matches_are_mutual() -> None:
    # Two catalogue stars by one detection: only the nearer one is it.
    pixel = np.array([[50.0, 50.0], [51.2, 50.0], [150.0, 50.0]])
    found = select(pixel, np.array([16.0, 20.5, 17.0]), np.array([50.1, 150.5]), np.array([50.0, 50.0]))
    assert found.catalogue.tolist() == [0, 2]
    assert found.detection.tolist() == [0, 1]
    assert found.n_matched == 2


def test_cuts_leave_isolated_stars_of_the_right_brightness() -> None:
    pixel = np.array([[50.0, 50], [100, 50], [150, 50], [200, 50], [212, 50], [300, 50], [305, 50], [400, 50]])
    mag = np.array([14.0, 20.5, 16.0, 16.0, 17.0, 16.0, 19.0, 18.0])
    star = np.array([1, 1, 1, 1, 1, 1, 1, 0], bool)
    found = select(pixel, mag, pixel[:, 0], pixel[:, 1], star)
    # 0 too bright, 1 too faint, 3 and 4 too near each other, 5 has 6 % of its light in its aperture
    # from 6, 6 is drowned by 5, 7 a galaxy.
    assert found.catalogue.tolist() == [2]
    assert found.n_matched == 8
    assert found.counts[-1] == "1 isolated"


@pytest.mark.parametrize(("n_catalogue", "n_detected"), [(0, 5), (5, 0), (0, 0)])
def test_nothing_to_match_is_told_not_raised(n_catalogue: int, n_detected: int) -> None:
    pixel = np.random.default_rng(1).uniform(0, 100, (n_catalogue, 2))
    found = select(pixel, np.full(n_catalogue, 16.0), np.zeros(n_detected), np.zeros(n_detected))
    assert found.catalogue.size == 0
    assert found.counts == (f"{n_catalogue} PS1 objects on the frame", f"{n_detected} detections")
