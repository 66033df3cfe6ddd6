from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time

from models.catalog import Cone
from tasks.catalogs import at_epoch, separation
from tasks.core.errors import StageError

from .conftest import gaia_table


def star(ra, dec, pmra, pmdec, g=15.0):
    return Table(
        {
            "source_id": [1], "ra": [ra], "dec": [dec], "pmra": [pmra], "pmdec": [pmdec], "parallax": [1.0],
            "ra_error": [0.1], "dec_error": [0.2], "phot_g_mean_mag": [g], "bp_rp": [1.0],
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ra", "dec"),
    [
        (132.85, 11.81),
        (0.000001, 40.0),
        (359.999999, -20.0),
        (77.0, 89.9999),
        (200.0, -89.99999),
        (10.0, 90.0),
        (266.4, -29),
    ],
)
def test_against_astropy(ra, dec):
    pmra, pmdec = 812.0, -1340.0
    moved = at_epoch(star(ra, dec, pmra, pmdec), 2025.4)
    start = SkyCoord(
        ra * u.deg, dec * u.deg, pm_ra_cosdec=pmra * u.mas / u.yr, pm_dec=pmdec * u.mas / u.yr,
        # At rest along the line of sight: no perspective.
        distance=100 * u.pc, radial_velocity=0 * u.km / u.s, obstime=Time(2016.0, format="jyear", scale="tcb"),
    )  # fmt: skip
    truth = start.apply_space_motion(new_obstime=Time(2025.4, format="jyear", scale="tcb"))
    off = separation(moved["RA"][0], moved["DEC"][0], truth.ra.deg, truth.dec.deg)
    assert off * 3.6e6 < 0.01  # mas
    assert 0 <= moved["RA"][0] < 360


def test_cos_dec_is_in_pmra():
    moved = at_epoch(star(100.0, 60.0, 1000.0, 0.0), 2026.0)
    assert (moved["RA"][0] - 100.0) * 3600 == pytest.approx(20.0, abs=1e-3)
    assert moved["RA_ERR"][0] * 3.6e6 == pytest.approx(0.1)


def test_to_the_other_side_of_0h():
    assert at_epoch(star(359.9999999, 0.0, 1000.0, 0.0), 2026.0)["RA"][0] == pytest.approx(10 / 3600, abs=1e-6)
    assert at_epoch(star(0.0, 0.0, -1e-12, 0.0), 2026.0)["RA"][0] < 360


def test_at_2016_nothing_changes():
    rows = gaia_table(Cone(ra=132.85, dec=11.81, radius=0.5))
    out = at_epoch(rows, 2016.0)
    np.testing.assert_allclose(out["RA"], rows["ra"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(out["DEC"], rows["dec"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(out["RA_ERR"] * 3.6e6, rows["ra_error"])
    np.testing.assert_array_equal(out["SOURCE_ID"], rows["source_id"])


def test_stars_without_proper_motion_carry_the_spread_of_their_like():
    rows = gaia_table(Cone(ra=132.85, dec=11.81, radius=0.5), n=4000)  # 6 mas/yr rms
    out = at_epoch(rows, 2026.0)
    lone = ~np.asarray(out["HAS_PM"])
    assert lone.sum() == 400
    np.testing.assert_allclose(out["RA"][lone], rows["ra"][lone], rtol=0, atol=1e-12)
    assert np.median(out["RA_ERR"][lone]) * 3.6e6 == pytest.approx(60.0, rel=0.1)
    assert np.median(out["DEC_ERR"][lone]) * 3.6e6 == pytest.approx(60.0, rel=0.1)
    np.testing.assert_allclose(out["DEC_ERR"][~lone] * 3.6e6, rows["dec_error"][~lone])
    np.testing.assert_allclose(at_epoch(rows, 2006.0)["RA_ERR"], out["RA_ERR"])


def test_one_star_without_proper_motion_alone():
    out = at_epoch(star(10.0, 10.0, np.nan, 3.0, g=12.0), 2018.0)
    assert not out["HAS_PM"][0]
    assert out["DEC"][0] == pytest.approx(10.0, abs=1e-12)
    assert out["RA_ERR"][0] * 3.6e6 == pytest.approx(28.0, rel=0.01)


def test_errors_the_table_lacks_are_the_releases():
    rows = star(10.0, 10.0, 1.0, 3.0, g=20.0)
    rows["ra_error"] = np.nan
    rows.remove_column("dec_error")
    rows["bp_rp"] = np.nan
    out = at_epoch(rows, 2018.0)
    assert out["RA_ERR"][0] * 3.6e6 == pytest.approx(0.4)
    assert out["DEC_ERR"][0] * 3.6e6 == pytest.approx(0.4)
    assert np.isnan(out["BP_RP"][0])


def test_no_stars():
    out = at_epoch(star(10.0, 10.0, 1.0, 3.0)[:0], 2018.0)
    assert len(out) == 0
    assert out.colnames == ["SOURCE_ID", "RA", "DEC", "RA_ERR", "DEC_ERR", "G", "BP_RP", "HAS_PM"]


@pytest.mark.parametrize("year", [np.nan, 58000.0, -1.0])
def test_a_year_that_is_none(year):
    with pytest.raises(StageError, match="not an epoch"):
        at_epoch(star(10.0, 10.0, 1.0, 3.0), year)
