"""A field that PS1 does not reach, calibrated against what stands in for it."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from models.base import Roots
from models.catalog import Cone, StoredCone
from models.settings import PhotometrySettings, Settings
from models.telescope import Telescope
from tasks.catalogs import fetch_cone, photometric_reference, store_cone
from tasks.photometry import calibrate_frame
from tests.catalogs.archive import Archive
from tests.photometry import starfield
from tests.photometry.starfield import RA, StarField

FIELD = StarField(min_separation=25, n_stars=220)
SOUTH = -35.2


def as_refcat2(ps1: Table, n_stars: int) -> Table:
    out = Table({"RA_ICRS": ps1["raMean"], "DE_ICRS": ps1["decMean"]})
    for name in ("pmRA", "pmDE"):
        out[name], out[f"e_{name}"] = 0.0, np.where(np.arange(len(ps1)) < n_stars, 0.1, np.nan)
    out["Gmag"], out["e_Gmag"] = ps1["rMeanPSFMag"], 0.001
    for band in "griz":
        out[f"{band}mag"], out[f"e_{band}mag"] = ps1[f"{band}MeanPSFMag"], 0.01
    return out


def as_gspc(ps1: Table, n_stars: int) -> Table:
    """By PS1 -> SDSS of Tonry et al. 2012, table 6; stars to G of 17.65 have it, galaxies are no clean sources."""
    back = {
        "g": (0.013, 0.145, 0.019),
        "r": (-0.001, 0.004, 0.007),
        "i": (-0.005, 0.011, 0.010),
        "z": (0.013, -0.039, -0.012),
    }
    n = len(ps1)
    colour = np.asarray(ps1["gMeanPSFMag"] - ps1["rMeanPSFMag"])
    out = Table({"source_id": np.arange(n) + 10**18, "ra": ps1["raMean"], "dec": ps1["decMean"]})
    out["pmra"], out["pmdec"], out["phot_g_mean_mag"] = 0.0, 0.0, ps1["rMeanPSFMag"]
    bright = np.asarray(ps1["rMeanPSFMag"]) < 17.65
    out["c_star"] = np.where(np.arange(n) < n_stars, 0.001, 0.5)
    for band, (a0, a1, a2) in back.items():
        mag = ps1[f"{band}MeanPSFMag"] + a0 + a1 * colour + a2 * colour**2
        out[f"{band}_sdss_mag"] = np.where(bright, mag, np.nan)
        out[f"{band}_sdss_flux"], out[f"{band}_sdss_flux_error"] = 1.0, np.where(bright, 0.005, np.nan)
        out[f"{band}_sdss_flag"] = bright.astype(int)
    return out


@pytest.fixture
def south(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starfield, "DEC", SOUTH)


@pytest.mark.usefixtures("south")
@pytest.mark.parametrize(
    ("name", "convert", "within", "least"), [("refcat2", as_refcat2, 0.010, 30), ("gspc", as_gspc, 0.015, 15)]
)
@pytest.mark.parametrize("band", ["r", "g"])
def test_a_southern_zero_point_is_the_truth_and_says_on_what_it_rests(
    roots: Roots, t120: Telescope, name: str, convert, within: float, least: int, band: str
) -> None:
    field = FIELD.but(band=band, **({"colour_term": 0.045, "zero_point": 22.8} if band == "g" else {}))
    solved, cone = field.make(roots, t120)
    roots.of(cone.file).with_suffix(".json").unlink()  # the sky of PS1 ends north of here
    rows = convert(field.catalogue()[2], field.n_stars)
    asked = Cone(ra=RA, dec=SOUTH, radius=0.1)
    with Archive(rows) as archive:
        settings = Settings(
            data_root=roots.data,
            gaia_urls=(archive.tap + "/sync",),
            refcat2_urls=(archive.vizier,),
            ps1_urls=(archive.mast,),
            catalogs={"references": ("ps1", name), "interval_s": 0.0},
        )
        reference = photometric_reference(asked, roots, settings)
        stored = fetch_cone(reference, asked, roots, settings)
        assert len(archive.questions) == 1
    assert stored.catalogue == name
    assert stored.file.path.startswith(f"catalogs/{name}/{name}_")
    assert_truth(calibrate_frame(solved, stored, roots, t120, PhotometrySettings()).zero_point, field, within, least)


def assert_truth(point, field: StarField, within: float, least: int) -> None:
    assert point.status == "OK"
    assert point.n_stars >= least
    assert point.zp == pytest.approx(field.zero_point, abs=max(within, 2.5 * point.zp_err))
    assert "in place of PS1 (PS1 ends at declination -30 deg)" in point.reason
    assert point.catalogue.startswith(("ATLAS-REFCAT2", "Gaia DR3 GSPC"))


@pytest.mark.usefixtures("south")
def test_galaxies_of_a_stand_in_are_no_stars(roots: Roots, t120: Telescope) -> None:
    """Were they taken for stars, the fit would see 80 sources of half a magnitude off."""
    field = FIELD.but(n_stars=120, n_galaxies=80)
    solved, cone = field.make(roots, t120)
    rows = as_refcat2(field.catalogue()[2], field.n_stars)
    stored: StoredCone = store_cone("refcat2", cone.cone, rows, roots, "simulation", "ATLAS-REFCAT2")
    point = calibrate_frame(solved, stored, roots, t120, PhotometrySettings()).zero_point
    assert_truth(point, field, 0.012, 25)


def test_an_empty_answer_is_not_pending_and_said(roots: Roots, t120: Telescope) -> None:
    solved, cone = StarField(n_stars=25, n_galaxies=0, shape=(300, 300)).make(roots, t120)
    rows = as_refcat2(FIELD.catalogue()[2], 220)[:0]
    empty = store_cone("refcat2", cone.cone, rows, roots, "https://example.org", "ATLAS-REFCAT2")
    point = calibrate_frame(solved, empty, roots, t120, PhotometrySettings()).zero_point
    assert point.status == "FEW_STARS"
    assert point.reason.startswith("0 stars, 5 are needed: 0 PS1 objects on the frame")
    assert "ATLAS-REFCAT2 answered that it has nothing in 0.20 deg around the field" in point.reason
    assert point.catalogue == "ATLAS-REFCAT2"
