from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

from models.base import Roots
from models.catalog import Cone
from tasks.catalogs.columns import GSPC, PS1, REFCAT2


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return Roots(data=tmp_path / "data", raw=tmp_path / "raw")


def gaia_table(cone: Cone, n: int = 200, seed: int = 1) -> Table:
    """Stars spread evenly over a cone; every tenth without proper motion."""
    rng = np.random.default_rng(seed)
    r = cone.radius * 0.999 * np.sqrt(rng.random(n))
    t = rng.random(n) * 2 * np.pi
    places = SkyCoord(cone.ra, cone.dec, unit="deg").directional_offset_by(t * u.rad, r * u.deg)
    table = Table()
    table["source_id"] = 604_697_520_872_028_160 + rng.permutation(n)
    table["ra"], table["dec"] = places.ra.deg, places.dec.deg
    table["pmra"], table["pmdec"] = rng.normal(0, 6, (2, n))
    table["pmra"][::10] = np.nan
    table["pmdec"][::10] = np.nan
    table["parallax"] = rng.random(n)
    table["ra_error"], table["dec_error"] = rng.uniform(0.01, 0.5, (2, n))
    table["phot_g_mean_mag"] = rng.uniform(10, 20, n)
    table["bp_rp"] = rng.uniform(0, 3, n)
    return table


def ps1_table(cone: Cone, n: int = 50, seed: int = 2) -> Table:
    gaia = gaia_table(cone, n, seed)
    table = Table()
    table["objID"] = 122_071_330_296_000_000 + np.arange(n)
    table["raMean"], table["decMean"] = gaia["ra"], gaia["dec"]
    table["nDetections"], table["qualityFlag"] = np.arange(n) % 40 + 2, 52
    for name in PS1.columns:
        if "Mag" in name:
            table[name] = 0.01 if name.endswith("Err") else 16.0 + np.arange(n) / 20
    return table


def refcat2_table(cone: Cone, n: int = 50, seed: int = 3) -> Table:
    gaia = gaia_table(cone, n, seed)
    table = Table()
    table["RA_ICRS"], table["DE_ICRS"] = gaia["ra"], gaia["dec"]
    table["pmRA"], table["pmDE"] = np.nan_to_num(gaia["pmra"]), np.nan_to_num(gaia["pmdec"])
    table["e_pmRA"], table["e_pmDE"] = 0.1, 0.1
    table["Gmag"], table["e_Gmag"] = gaia["phot_g_mean_mag"], 0.001
    for offset, band in zip((0.5, 0.1, -0.1, -0.2), "griz", strict=True):
        table[f"{band}mag"], table[f"e_{band}mag"] = gaia["phot_g_mean_mag"] + offset, 0.01
    return table[list(REFCAT2.columns)]


def gspc_table(cone: Cone, n: int = 50, seed: int = 4) -> Table:
    """Stars of g - r from 0.2 to 1.2, all with synthetic photometry."""
    gaia = gaia_table(cone, n, seed)
    rng = np.random.default_rng(seed)
    colour = rng.uniform(0.2, 1.2, n)
    table = gaia["source_id", "ra", "dec", "pmra", "pmdec", "phot_g_mean_mag"]
    table["c_star"] = rng.normal(0, 0.002, n)
    for factor, band in zip((0.6, -0.4, -0.8, -1.0), "griz", strict=True):
        table[f"{band}_sdss_mag"] = gaia["phot_g_mean_mag"] + factor * colour
        table[f"{band}_sdss_flux"] = 10 ** (-0.4 * (table[f"{band}_sdss_mag"] + 48.6 + 7.5))
        table[f"{band}_sdss_flux_error"] = table[f"{band}_sdss_flux"] * rng.uniform(0.001, 0.03, n)
        table[f"{band}_sdss_flag"] = 1
    return table[list(GSPC.columns)]
