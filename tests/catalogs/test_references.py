"""What stands in for PS1, and when."""

from __future__ import annotations

import numpy as np
import pytest

from models.catalog import Cone
from models.settings import CatalogSettings, Settings
from tasks.catalogs import photometric_reference, read_cone, reference_note, reference_table, store_cone
from tasks.catalogs.columns import PS1
from tasks.catalogs.services import adql
from tasks.core.errors import StageError

from .conftest import gaia_table, gspc_table, ps1_table, refcat2_table

NORTH, EDGE, SOUTH = (Cone(ra=132.85, dec=dec, radius=0.5) for dec in (11.81, -29.8, -31.0))


def settings_with(roots, *references: str) -> Settings:
    return Settings(data_root=roots.data, catalogs=CatalogSettings(references=references))


@pytest.mark.parametrize(
    ("order", "north", "edge", "south"),
    [
        (("ps1", "refcat2", "gspc"), "ps1", "refcat2", "refcat2"),
        (("ps1", "gspc", "refcat2"), "ps1", "gspc", "gspc"),
        (("gspc", "ps1"), "gspc", "gspc", "gspc"),
        (("ps1",), "ps1", "ps1", None),
    ],
)
def test_the_first_that_has_sky(roots, order, north, edge, south):
    settings = settings_with(roots, *order)
    assert photometric_reference(NORTH, roots, settings) == north
    assert photometric_reference(EDGE, roots, settings) == edge
    if south is not None:
        assert photometric_reference(SOUTH, roots, settings) == south
        return
    with pytest.raises(StageError, match=r"ps1 .* has sky at Dec -31.0000: PS1 ends at declination -30") as caught:
        photometric_reference(SOUTH, roots, settings)
    assert not caught.value.pending
    assert "refcat2" in caught.value.remedy


def test_what_somebody_imported_counts_as_sky(roots):
    settings = Settings(data_root=roots.data)
    store_cone("ps1", SOUTH, ps1_table(SOUTH), roots, "import", "SkyMapper on PS1's system")
    assert photometric_reference(SOUTH, roots, settings) == "ps1"


def test_the_note_says_which_and_why(roots):
    def note(catalogue, cone, rows, service="simulation"):
        release = {"ps1": "PS1 DR2", "refcat2": "ATLAS-REFCAT2"}[catalogue]
        return reference_note(store_cone(catalogue, cone, rows, roots, service, release))

    assert note("ps1", NORTH, ps1_table(NORTH)) == ""
    assert note("refcat2", SOUTH, refcat2_table(SOUTH)) == (
        "ATLAS-REFCAT2 in place of PS1 (PS1 ends at declination -30 deg)"
    )
    assert note("refcat2", NORTH, refcat2_table(NORTH)) == "ATLAS-REFCAT2 in place of PS1 (by catalogs.references)"
    assert "the south of the field has no reference" in note("ps1", EDGE, ps1_table(EDGE))
    assert note("ps1", SOUTH, ps1_table(SOUTH), "import") == ""
    assert (
        note("ps1", NORTH, ps1_table(NORTH)[:0]) == "PS1 DR2 answered that it has nothing in 0.50 deg around the field"
    )


def test_ps1_is_read_as_it_is(roots):
    stored = store_cone("ps1", NORTH, ps1_table(NORTH), roots, "simulation", "PS1 DR2")
    left, right = reference_table(stored, roots), read_cone(stored, roots)
    for name in PS1.columns:
        np.testing.assert_array_equal(left[name], right[name])


def test_gaia_is_no_reference(roots):
    stored = store_cone("gaia", NORTH, gaia_table(NORTH), roots, "simulation", "Gaia DR3")
    with pytest.raises(StageError, match="no photometric reference"):
        reference_table(stored, roots)


def test_refcat2_is_on_ps1s_system(roots):
    rows = refcat2_table(NORTH, n=100)
    rows["e_pmRA"][7], rows["gmag"][8], rows["e_rmag"][9] = 0.0, 0.0, 0.0
    got = reference_table(store_cone("refcat2", NORTH, rows, roots, "simulation", "ATLAS-REFCAT2"), roots)
    assert got.colnames == list(PS1.columns)
    order = np.lexsort([rows["RA_ICRS"], rows["DE_ICRS"]])
    galaxy, no_g, no_error = (int(np.flatnonzero(order == row)[0]) for row in (7, 8, 9))
    np.testing.assert_array_equal(got["raMean"], rows["RA_ICRS"][order])
    np.testing.assert_array_equal(got["rMeanPSFMag"], rows["rmag"][order])
    assert len(set(got["objID"])) == 100
    shape = np.asarray(got["rMeanPSFMag"] - got["rMeanKronMag"])
    assert np.flatnonzero(shape != 0).tolist() == [galaxy]
    assert np.flatnonzero(np.isnan(got["gMeanPSFMag"])).tolist() == [no_g]
    assert np.flatnonzero(np.isnan(got["rMeanPSFMagErr"])).tolist() == [no_error]
    assert np.isnan(got["yMeanPSFMag"]).all()


@pytest.mark.parametrize(
    ("band", "back", "scatter"),
    # The other direction of the same table: m_SDSS - m_PS1 of (g-r)_PS1, fitted independently by its authors.
    [("g", (0.013, 0.145, 0.019), 0.006), ("r", (-0.001, 0.004, 0.007), 0.002), ("i", (-0.005, 0.011, 0.010), 0.003),
     ("z", (0.013, -0.039, -0.012), 0.009)],
)  # fmt: skip
def test_gspc_is_brought_to_ps1s_system(roots, band, back, scatter):
    rows = gspc_table(NORTH, n=300)
    got = reference_table(store_cone("gspc", NORTH, rows, roots, "simulation", "Gaia DR3 GSPC"), roots)
    rows.sort("source_id")
    colour = np.asarray(got["gMeanPSFMag"] - got["rMeanPSFMag"])
    again = got[f"{band}MeanPSFMag"] + back[0] + back[1] * colour + back[2] * colour**2
    assert np.abs(again - rows[f"{band}_sdss_mag"]).max() < 0.01
    assert np.abs(np.median(again - rows[f"{band}_sdss_mag"])) < 0.004
    relative = np.asarray(rows[f"{band}_sdss_flux_error"] / rows[f"{band}_sdss_flux"])
    np.testing.assert_allclose(got[f"{band}MeanPSFMagErr"], np.hypot(1.0857362 * relative, scatter), rtol=1e-6)
    np.testing.assert_array_equal(got[f"{band}MeanKronMag"], got[f"{band}MeanPSFMag"])
    np.testing.assert_array_equal(got["objID"], rows["source_id"])


def test_gspc_stars_are_clean_and_validated_and_the_rest_are_neighbours(roots):
    rows = gspc_table(NORTH, n=40)
    rows.sort("source_id")
    rows["c_star"][3] = 0.2
    rows["r_sdss_flag"][5] = 0
    for name in rows.colnames:
        if name == "c_star" or "_sdss_" in name:
            rows[name][11] = 0 if name.endswith("flag") else np.nan
    got = reference_table(store_cone("gspc", NORTH, rows, roots, "simulation", "Gaia DR3 GSPC"), roots)
    shape = np.asarray(got["rMeanPSFMag"] - got["rMeanKronMag"])
    assert np.flatnonzero(shape != 0).tolist() == [3, 5, 11]
    assert np.flatnonzero(np.isnan(got["rMeanPSFMagErr"])).tolist() == [5, 11]
    assert got["rMeanPSFMag"][11] == rows["phot_g_mean_mag"][11]
    assert np.flatnonzero(np.isnan(got["iMeanPSFMagErr"])).tolist() == [5, 11]  # its colour is not known either


def test_the_question_for_gspc_keeps_the_neighbours():
    query = adql("gspc", NORTH, 20.5, 900)
    assert "LEFT OUTER JOIN gaiadr3.synthetic_photometry_gspc AS s ON g.source_id = s.source_id" in query
    assert query.startswith("SELECT TOP 901 g.source_id, g.ra, g.dec,")
    assert "s.c_star" in query
    assert "s.g_sdss_flux_error" in query
    assert query.endswith("ORDER BY 1")
