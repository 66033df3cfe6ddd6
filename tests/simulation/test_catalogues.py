"""The catalogues look like the archives' answers, flaws included."""

from __future__ import annotations

import numpy as np
import pytest

from models.catalog import Cone
from tasks.catalogs import find_cone, read_cone
from tasks.simulation import at_epoch
from tests.conftest import Campaign


@pytest.fixture(scope="module")
def gaia(campaign: Campaign):
    stored = find_cone("gaia", Cone(ra=132.85, dec=11.8, radius=0.5), campaign.roots)
    assert stored is not None
    assert stored.service == "simulation"
    return read_cone(stored, campaign.roots)


@pytest.fixture(scope="module")
def ps1(campaign: Campaign):
    stored = find_cone("ps1", Cone(ra=132.85, dec=11.8, radius=0.5), campaign.roots)
    assert stored is not None
    return read_cone(stored, campaign.roots)


def matched(campaign: Campaign, table, ra: str, dec: str, jyear: float):
    """Pairs (row of `table`, row of the truth) of stars whose next neighbour is far."""
    from scipy.spatial import cKDTree

    stars = campaign.stars[np.asarray(campaign.stars["kind"]).astype(str) == "star"]
    true_ra, true_dec = at_epoch(stars, jyear)
    c = np.cos(np.deg2rad(11.8))
    truth = np.column_stack([true_ra * c, true_dec])
    tree = cKDTree(truth)
    second = tree.query(truth, 2)[0][:, 1]
    distance, index = tree.query(np.column_stack([np.asarray(table[ra]) * c, np.asarray(table[dec])]))
    good = (distance < 0.5 / 3600) & (second[index] > 6 / 3600)
    return np.flatnonzero(good), index[good], stars


def test_gaia_columns_epoch_and_errors(campaign: Campaign, gaia) -> None:
    assert " ".join(gaia.colnames) == ("source_id ra dec pmra pmdec parallax ra_error dec_error phot_g_mean_mag bp_rp")
    rows, index, stars = matched(campaign, gaia, "ra", "dec", 2016.0)
    east = (np.asarray(gaia["ra"])[rows] - np.asarray(stars["ra"])[index]) * np.cos(np.deg2rad(11.8)) * 3.6e6
    pull = east / np.asarray(gaia["ra_error"])[rows]
    assert np.std(pull) == pytest.approx(1.0, abs=0.06)
    motion = np.asarray(gaia["pmra"])[rows] - np.asarray(stars["pmra"])[index]
    assert np.nanmedian(np.abs(motion)) < 0.5
    assert np.asarray(gaia["phot_g_mean_mag"]).max() < 20.6
    assert len(np.unique(gaia["source_id"])) == len(gaia)


def test_gaia_stars_without_motion(gaia) -> None:
    none = np.isnan(np.asarray(gaia["pmra"]))
    assert 0.03 < none.mean() < 0.14
    assert (none == np.isnan(np.asarray(gaia["pmdec"]))).all()
    assert (none == np.isnan(np.asarray(gaia["parallax"]))).all()
    assert np.isfinite(np.asarray(gaia["ra"])).all()
    assert np.median(gaia["ra_error"][none]) > np.median(gaia["ra_error"][~none])


def test_ps1_magnitudes_and_flaws(campaign: Campaign, ps1) -> None:
    for band in "grizy":
        for name in (f"{band}MeanPSFMag", f"{band}MeanPSFMagErr", f"{band}MeanKronMag"):
            assert name in ps1.colnames
    rows, index, stars = matched(campaign, ps1, "raMean", "decMean", 2013.0)
    for band in "gri":
        true = np.asarray(stars[band])[index]
        psf = np.asarray(ps1[f"{band}MeanPSFMag"])[rows]
        kron = np.asarray(ps1[f"{band}MeanKronMag"])[rows]
        error = np.asarray(ps1[f"{band}MeanPSFMagErr"])[rows]
        clean = (true > 14.5) & (true < 20) & np.isfinite(psf)
        assert abs(np.median((psf - true)[clean])) < 0.002
        assert np.std(((psf - true) / error)[clean]) == pytest.approx(1.0, abs=0.12)
        assert 0.008 < np.nanstd((psf - kron)[clean & (true < 18)]) < 0.03
        bright = true < 13.3
        assert np.nanmedian((psf - true)[bright]) > 0.1  # saturated
        assert np.isnan(np.asarray(ps1[f"{band}MeanPSFMag"])).mean() > 0.003
    flags = np.asarray(ps1["qualityFlag"])[rows]
    assert ((flags & 16) == 0)[np.asarray(stars["r"])[index] < 13].all()


def test_ps1_has_galaxies(ps1) -> None:
    gap = np.asarray(ps1["rMeanPSFMag"]) - np.asarray(ps1["rMeanKronMag"])
    extended = (np.asarray(ps1["qualityFlag"]) & 1) == 1
    assert extended.sum() > 100
    assert np.nanpercentile(gap[extended], 5) > 0.05


def test_proper_motion_matters(campaign: Campaign) -> None:
    """Between Gaia's and PS1's epochs the cluster moves: what uses the wrong one is caught."""
    cluster = campaign.stars[np.abs(np.asarray(campaign.stars["pmra"]) + 10.97) < 0.8]
    assert len(cluster) > 300
    ra, _ = at_epoch(cluster, 2023.2)
    moved = (ra - np.asarray(cluster["ra"])) * np.cos(np.deg2rad(np.asarray(cluster["dec"]))) * 3.6e6
    assert np.median(moved) == pytest.approx(-10.97 * 7.2, abs=3)
