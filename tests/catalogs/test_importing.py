from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.table import MaskedColumn, Table

from flows.import_catalog import main
from models.catalog import Cone
from tasks.catalogs import at_epoch, find_cone, import_catalog, read_catalog_file, read_cone
from tasks.catalogs.cones import covers
from tasks.core.errors import UserError

from .conftest import gaia_table, ps1_table

M67 = Cone(ra=132.85, dec=11.81, radius=0.6)


@pytest.fixture
def rows():
    return gaia_table(M67, n=1500)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.csv", "ascii.csv"),
        ("a.ecsv", "ascii.ecsv"),
        ("a.fits", "fits"),
        ("a.vot", "votable"),
        ("a.xml", "votable"),
        ("strange.name", "votable"),
        ("a.txt", "ascii.basic"),
        ("table.dat", "fits"),
    ],
)
def test_formats(roots, rows, tmp_path, name, form):
    rows.write(tmp_path / "x", format=form)
    (tmp_path / "x").rename(tmp_path / name)
    stored = import_catalog("gaia", tmp_path / name, roots, M67)
    got = read_cone(stored, roots)
    rows.sort("source_id")
    for column in ("source_id", "ra", "pmra", "phot_g_mean_mag"):
        np.testing.assert_array_equal(got[column], rows[column])
    assert stored.service == "import"
    assert name in stored.query


@pytest.mark.parametrize("form", ["ascii.csv", "votable", "fits"])
def test_gzipped(roots, rows, tmp_path, form):
    rows.write(tmp_path / "x", format=form)
    ending = {"ascii.csv": "csv", "votable": "vot", "fits": "fits"}[form]
    path = tmp_path / f"a.{ending}.gz"
    path.write_bytes(gzip.compress((tmp_path / "x").read_bytes()))
    assert import_catalog("gaia", path, roots, M67).n_rows == 1500


def test_names_in_any_case_units_and_masks(roots, rows, tmp_path):
    rows["pmra"] = MaskedColumn(rows["pmra"] / 1000, unit=u.arcsec / u.yr, mask=np.arange(1500) == 5)
    rows.rename_columns(["ra", "source_id"], ["RA", "SOURCE_ID"])
    path = tmp_path / "a.fits"
    rows.write(path)
    got = read_cone(import_catalog("gaia", path, roots, M67), roots)
    rows.sort("SOURCE_ID")
    np.testing.assert_allclose(got["pmra"], np.ma.filled(rows["pmra"] * 1000, np.nan))


def test_coverage_never_exceeds_the_truth(rows, tmp_path):
    rows.write(tmp_path / "a.csv")
    cone = read_catalog_file("gaia", tmp_path / "a.csv").cone
    assert covers(M67, cone)
    assert cone.radius > 0.5


@pytest.mark.parametrize("ra0", [0.05, 200.0])
def test_coverage_of_a_rectangle(tmp_path, ra0):
    rng = np.random.default_rng(5)
    rows = gaia_table(Cone(ra=200, dec=40, radius=1), n=5000)
    rows["dec"] = 40 + rng.uniform(-0.5, 0.5, 5000)
    rows["ra"] = (ra0 + rng.uniform(-0.8, 0.8, 5000) / np.cos(np.radians(rows["dec"]))) % 360
    rows.write(tmp_path / "a.csv")
    cone = read_catalog_file("gaia", tmp_path / "a.csv").cone
    assert cone.radius > 0.4
    assert abs(cone.dec - 40) + cone.radius < 0.51


@pytest.mark.parametrize("n", [5, 59])
def test_too_few_rows_to_show_their_coverage(tmp_path, n):
    gaia_table(M67, n=n).write(tmp_path / "a.csv")
    with pytest.raises(UserError, match="--ra --dec --radius"):
        read_catalog_file("gaia", tmp_path / "a.csv")
    assert read_catalog_file("gaia", tmp_path / "a.csv", M67).cone == M67


def test_ps1(roots, tmp_path):
    rows = ps1_table(M67, n=800)
    rows.remove_columns(["qualityFlag", "zMeanKronMag"])
    rows["gMeanPSFMag"][0] = -999
    rows.write(tmp_path / "ps1.csv")
    found = read_catalog_file("ps1", tmp_path / "ps1.csv")
    assert found.filled == ("qualityFlag", "zMeanKronMag")
    got = read_cone(import_catalog("ps1", tmp_path / "ps1.csv", roots, M67), roots)
    assert np.isnan(got["zMeanKronMag"]).all()
    assert np.isnan(got["gMeanPSFMag"]).sum() == 1


BOMB = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><VOTABLE>&b;</VOTABLE>"""


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.csv", b"", "is empty"),
        ("page.csv", b"<!DOCTYPE html><html><body>502</body></html>", "web page"),
        ("noise.fits", b"SIMPLE  =                    T" + b"\x00" * 500, "cannot be read"),
        ("noise.bin", bytes(range(256)) * 40, "cannot be read|lacks"),
        ("cut.vot", b"<?xml version='1.0'?><VOTABLE><RESOURCE><TABLE>", "cut or not well formed"),
        ("bomb.vot", BOMB, "entities"),
        ("other.csv", b"a,b\n1,2\n", "lacks the gaia column.s. source_id, ra, dec, pmra.*it has a, b"),
        ("text.csv", b"source_id,ra,dec,pmra,pmdec,phot_g_mean_mag\nx,1,2,3,4,5\n", "does not hold numbers"),
        ("norows.csv", b"source_id,ra,dec,pmra,pmdec,phot_g_mean_mag\n", "no row"),
        (
            "dr2.csv",
            b"source_id,ra,dec,pmra,pmdec,phot_g_mean_mag,ref_epoch\n1,132.8,11.8,3,4,15,2015.5\n",
            "epoch 2015.5",
        ),
        ("elsewhere.csv", b"source_id,ra,dec,pmra,pmdec,phot_g_mean_mag\n1,12,11.8,3,4,15\n", "no row within"),
    ],
)
def test_files_that_are_no_catalogue(roots, tmp_path, capsys, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        import_catalog("gaia", path, roots, M67)
    command = ["gaia", str(path), "--root", str(roots.data), "--ra", "132.85", "--dec", "11.81", "--radius", "0.6"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert not (roots.data / "catalogs").exists()


def test_no_such_file(roots, tmp_path, capsys):
    assert main(["gaia", str(tmp_path / "none.csv"), "--root", str(roots.data)]) == 2
    assert "there is no file" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--ra", "10"], ["--ra", "400", "--dec", "0", "--radius", "1"]])
def test_half_a_circle(roots, rows, tmp_path, capsys, options):
    rows.write(tmp_path / "a.csv")
    assert main(["gaia", str(tmp_path / "a.csv"), "--root", str(roots.data), *options]) == 2
    assert "--radius" in capsys.readouterr().err


def test_command(roots, rows, tmp_path, capsys):
    rows.remove_columns(["ra_error", "parallax"])
    rows.write(tmp_path / "a.csv")
    command = ["gaia", str(tmp_path / "a.csv"), "--root", str(roots.data)]
    assert main([*command, "--dry-run"]) == 0
    assert "nothing was written" in capsys.readouterr().out
    assert not roots.data.exists()
    assert main(command) == 0
    said = capsys.readouterr().out
    stored = find_cone("gaia", Cone(ra=132.85, dec=11.81, radius=0.4), roots)
    assert str(roots.of(stored.file)) in said
    assert "missing in every row: parallax, ra_error" in said
    assert f"covers {stored.cone.radius:.3f} deg" in said
    assert f"{len(read_cone(stored, roots)) + 0} Gaia" in said


def test_stated_coverage_beyond_the_rows_is_remarked(roots, rows, tmp_path, capsys):
    rows.write(tmp_path / "a.csv")
    command = ["gaia", str(tmp_path / "a.csv"), "--root", str(roots.data)]
    assert main([*command, "--ra", "132.85", "--dec", "11.81", "--radius", "2"]) == 0
    assert "farthest row is only 0.5" in capsys.readouterr().out


@pytest.mark.shared
def test_the_real_m67(roots, shared, capsys):
    file = shared / "catalogs" / "gaia_edr3_m67.csv"
    assert main(["gaia", str(file), "--root", str(roots.data)]) == 0
    said = capsys.readouterr().out
    assert "missing in every row: ra_error, dec_error" in said
    stored = find_cone("gaia", Cone(ra=132.85, dec=11.81, radius=0.2), roots)
    rows = read_cone(stored, roots)
    original = Table.read(file)
    assert set(rows["source_id"]) <= set(original["source_id"])
    moved = at_epoch(rows, 2025.2)
    assert np.isfinite(moved["RA_ERR"]).all()
    # M67 moves by (-10.97, -2.92) mas/yr (Gaia Collaboration, Babusiaux et al. 2018).
    member = np.hypot(rows["pmra"] + 10.97, rows["pmdec"] + 2.92) < 1.0
    assert member.sum() > 300
    east = (moved["RA"] - rows["ra"]) * np.cos(np.radians(rows["dec"])) * 3.6e6 / 9.2
    assert np.median(east[member]) == pytest.approx(-10.97, abs=0.1)


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom flows.import_catalog import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'astropy', 'numpy', 'scipy', 'astroquery', 'prefect'} & set(sys.modules)\nassert not heavy, heavy"
    )
    repo = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=repo, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--radius" in done.stdout


def test_a_place_at_infinity_is_none(tmp_path):
    """A number that a flipped bit made infinite, as in 1e999."""
    rows = gaia_table(M67, n=100)
    rows["ra"][3], rows["phot_g_mean_mag"][4] = np.inf, -np.inf
    rows.write(tmp_path / "a.csv")
    found = read_catalog_file("gaia", tmp_path / "a.csv", M67)
    assert (len(found.table), found.dropped) == (99, 1)
    assert np.isnan(found.table["phot_g_mean_mag"]).sum() == 1


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_bomb_is_refused(tmp_path, monkeypatch, pack):
    monkeypatch.setattr("tasks.catalogs.importing._MAX_BYTES", 1 << 20)
    path = tmp_path / "bomb.csv"
    path.write_bytes(pack(b"source_id,ra,dec\n" + b"1,2,3\n" * 400_000))
    assert path.stat().st_size < 20_000
    with pytest.raises(UserError, match="more than 1 MB"):
        read_catalog_file("gaia", path, M67)
