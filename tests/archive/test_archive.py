"""A small release for machines: provenance, ObsCore, MOCs; and the check of a copy, with damaged copies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import astropy.units as u
import jsonschema
import numpy as np
import pytest
from astropy.io import fits
from astropy.io.votable import parse_single_table
from astropy.table import Table
from mocpy import MOC

from models.base import Roots
from models.release import SCHEMAS, Release
from models.report import StackRow
from models.settings import Settings, SourceSettings
from tasks.archive import complete_release, verify_copy, write_sky
from tasks.core.errors import StageError, UserError
from tasks.core.ledger import Made, note_made
from tasks.core.records import _seal
from tasks.report import stack_rows, write_release
from tasks.sourcelists import make_source_list
from tests.demo import REPO
from tests.sourcelists.sky import TELESCOPE, place, stars

KEY = "source-list-" + "0" * 40


def row(filter: str, file: str) -> StackRow:
    return StackRow(
        group="X", filter=filter, file=file, n_combined=5, n_rejected=0, rejected=(), combine="WEIGHTED",
        fwhm_arcsec=2.6, depth_5sigma=None, status="OK", reason="",
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    field = place(tmp_path_factory.mktemp("release"), *stars(np.random.default_rng(5), 8))
    roots = field.roots
    listed = make_source_list(field.stacks, None, None, roots, TELESCOPE, SourceSettings())
    stack_rows(
        roots, TELESCOPE, "X", {"stack_all_report": [row(each.filter, each.image.path) for each in field.stacks]}
    )
    results = roots.data / ".cache" / "results"
    results.mkdir(parents=True)
    record = {"metadata": {}, "result": json.dumps({"__class__": "x", "data": listed.model_dump(mode="json")})}
    content = json.dumps(record).encode()
    (results / KEY).write_bytes(content + b"\n" + _seal(KEY, content) + b"\n")
    note_made(roots, Made(at="2026-01-02T03:04:05Z", stage="source-list", what="sources of X", key=KEY, outcome="made",
                          seconds=1.5, run="run-7"))  # fmt: skip
    write_sky(roots, TELESCOPE)
    write_release(roots, TELESCOPE, {})
    complete_release(roots, TELESCOPE, Settings(data_root=roots.data))
    return roots


@pytest.fixture
def copy(made: Roots, tmp_path: Path) -> Path:
    shutil.copytree(made.data / "stacks", tmp_path / "copy" / "stacks")
    return tmp_path / "copy"


def read(roots: Roots) -> Release:
    return Release.model_validate_json((roots.data / "stacks" / "release.json").read_bytes())


def test_every_file_is_listed_with_its_digest_and_what_made_it(made: Roots) -> None:
    told = json.loads((made.data / "stacks" / "release.json").read_bytes())
    jsonschema.validate(told, SCHEMAS["release"].model_json_schema(by_alias=True, mode="serialization"))
    provenance = read(made).provenance
    assert provenance is not None
    paths = {product.path for product in provenance.products}
    there = {path.relative_to(made.data).as_posix() for path in (made.data / "stacks").rglob("*") if path.is_file()}
    assert paths == there - {"stacks/release.json"}
    [activity] = provenance.activities
    assert (activity.id, activity.run, activity.ended) == (KEY, "run-7", "2026-01-02T03:04:05Z")
    assert activity.settings == ("sources",)
    assert provenance.settings["sources"]["detection_sigma"] == SourceSettings().detection_sigma
    of_path = {product.path: product for product in provenance.products}
    assert of_path["stacks/X/T120/X_cat.fits"].was_generated_by == KEY
    assert of_path["stacks/X/T120/X_cat.parquet"].was_generated_by == KEY
    agents = {agent.id for agent in provenance.agents}
    assert set(activity.was_associated_with) <= agents
    assert "ohp-pipeline" in agents


def test_obscore_has_a_row_a_stack_and_a_list(made: Roots) -> None:
    table = parse_single_table(made.data / "stacks" / "obscore.vot").to_table()
    assert sorted(table["obs_id"]) == ["X_R", "X_cat", "X_cat", "X_r"]
    image = table[table["obs_id"] == "X_r"][0]
    assert (image["s_ra"], image["s_dec"]) == (pytest.approx(150.0, abs=1e-3), pytest.approx(30.0, abs=1e-3))
    assert (image["calib_level"], image["dataproduct_type"]) == (3, "image")
    assert image["em_min"] < 617e-9 < image["em_max"]
    for url in table["access_url"]:
        assert (made.data / "stacks" / url).is_file()
    assert image["s_region"].startswith("POLYGON ICRS ")


def test_mocs_cover_what_has_data(made: Roots) -> None:
    folder = made.data / "stacks"
    whole, red = MOC.from_fits(folder / "T120_moc.fits"), MOC.from_fits(folder / "T120_Rc_moc.fits")
    assert MOC.from_fits(folder / "X" / "T120" / "X_moc.fits") == whole
    side = 420 * 0.77 / 60
    assert whole.sky_fraction * 41252.96 * 3600 == pytest.approx(side**2, rel=0.3)
    centre = ([150.0] * u.deg, [30.0] * u.deg)
    assert whole.contains_lonlat(*centre).all()
    assert red.contains_lonlat(*centre).all()
    # The corner without R: 190 pixels to the east and south.
    corner = ([150.0 + 190 * 0.77 / 3600 / np.cos(np.radians(30))] * u.deg, [30.0 - 190 * 0.77 / 3600] * u.deg)
    assert whole.contains_lonlat(*corner).all()
    assert not red.contains_lonlat(*corner).any()


def test_the_same_bytes_again(made: Roots) -> None:
    files = [*(made.data / "stacks").rglob("*_moc.fits"), made.data / "stacks" / "obscore.vot"]
    before = {path: path.read_bytes() for path in files}
    write_sky(made, TELESCOPE)
    assert {path: path.read_bytes() for path in files} == before


@pytest.mark.skipif(shutil.which("stilts") is None, reason="stilts is not installed: Debian package stilts")
def test_stilts_takes_the_release_as_it_is(made: Roots) -> None:
    folder = made.data / "stacks"

    def stilts(*arguments: str) -> str:
        done = subprocess.run(["stilts", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert stilts("votlint", "votable=obscore.vot").strip() == ""
    found = stilts(
        "tpipe", "in=obscore.vot", f"cmd=addcol IN 'inMoc(\"{folder}/T120_moc.fits\", s_ra, s_dec)'",
        "cmd=keepcols 'obs_id IN'", "ofmt=csv",
    )  # fmt: skip
    assert found.count("true") == 4
    sources = stilts("tpipe", "in=X/T120/X_cat.fits", "omode=meta")
    assert "MAG_PSF_r(Float)/mag" in sources
    assert f"Rows:    {len(Table.read(folder / 'X/T120/X_cat.fits', hdu='SOURCES'))}" in sources


@pytest.mark.skipif(shutil.which("fitsverify") is None, reason="fitsverify is not installed: Debian package fitsverify")
def test_fitsverify_finds_nothing(made: Roots) -> None:
    files = sorted(str(path) for path in (made.data / "stacks").rglob("*.fits"))
    done = subprocess.run(["fitsverify", "-q", *files], capture_output=True, text=True, check=False)
    assert done.stdout.count("verification OK") == len(files), done.stdout


def wrong(copy: Path) -> dict[str, str]:
    return {finding.file: finding.cause for finding in verify_copy(copy).findings}


def test_a_good_copy_is_good_from_wherever_it_is_given(copy: Path) -> None:
    for path in (copy, copy / "stacks", copy / "stacks" / "release.json"):
        checked = verify_copy(path)
        assert checked.findings == ()
        assert checked.n_files == len(list((copy / "stacks").rglob("*.*"))) - 1
        assert checked.n_fits == len(list(copy.rglob("*.fits")))


STACK = "stacks/X/T120/X_r.fits"


def relist(copy: Path) -> None:
    """Bring size and digest in release.json up to date: only the contents are left to tell."""
    import hashlib

    index = copy / "stacks" / "release.json"
    told = json.loads(index.read_bytes())
    for product in told["provenance"]["products"]:
        content = (copy / product["path"]).read_bytes()
        product |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    index.write_text(json.dumps(told))


def test_damage_is_named_file_by_file(copy: Path) -> None:
    path = copy / STACK
    content = bytearray(path.read_bytes())
    content[10_000] ^= 1
    path.write_bytes(content)
    (copy / "stacks/X/T120/X_R.fits").unlink()
    cut = copy / "stacks/X/T120/X_cat.parquet"
    cut.write_bytes(cut.read_bytes()[:-100])
    found = wrong(copy)
    assert found.keys() == {STACK, "stacks/X/T120/X_R.fits", "stacks/X/T120/X_cat.parquet"}
    assert "SHA-256" in found[STACK]
    assert "not there" in found["stacks/X/T120/X_R.fits"]
    assert "bytes" in found["stacks/X/T120/X_cat.parquet"]
    relist_without = copy / "stacks/X/T120/X_R.fits"
    relist_without.write_bytes(b"SIMPLE")
    relist(copy)
    found = wrong(copy)
    assert "hecksum" in found[STACK].lower() or "datasum" in found[STACK].lower()
    assert "no sound FITS" in found["stacks/X/T120/X_R.fits"]
    assert "Parquet" in found["stacks/X/T120/X_cat.parquet"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("CRVAL1", 151.0, "not on the grid"), ("FILTER", "g", "FILTER says"), ("NCOMBINE", 6, "n_frames is 5")],
)
def test_what_does_not_agree_is_found(copy: Path, key: str, value: object, said: str) -> None:
    fits.setval(copy / STACK, key, value=value)
    with fits.open(copy / STACK, mode="update") as hdus:
        hdus[0].add_checksum()
    relist(copy)
    causes = [finding.cause for finding in verify_copy(copy).findings]
    assert any(said in cause for cause in causes), causes


def test_rows_that_are_lost_and_files_too_many(copy: Path) -> None:
    path = copy / "stacks/X/T120/X_cat.fits"
    fits.setval(path, "NSOURCES", value=3)
    with fits.open(path, mode="update") as hdus:
        hdus[0].add_checksum()
    relist(copy)
    shutil.copy(copy / STACK, copy / "stacks/X/T120/X_i.fits")
    checked = verify_copy(copy)
    assert any("NSOURCES says 3" in finding.cause for finding in checked.findings)
    assert "X_i.fits" in checked.notes[0]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OHP_")}
    return subprocess.run(
        [sys.executable, "-m", "flows.verify_release", *arguments],
        cwd=REPO, env=clean, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_command_ends_as_the_contract_says(copy: Path, tmp_path: Path) -> None:
    good = command(str(copy))
    assert (good.returncode, "all as it should be" in good.stdout) == (0, True), good.stderr
    (copy / STACK).unlink()
    bad = command(str(copy))
    assert bad.returncode == 1
    assert f"WRONG {STACK}: is not there\n  -> download it" in bad.stdout
    none = command(str(tmp_path / "nowhere"))
    assert none.returncode == 2
    assert len(none.stderr.strip().splitlines()) == 1


def test_what_is_no_release_says_so(copy: Path, made: Roots) -> None:
    index = copy / "stacks" / "release.json"
    told = json.loads(index.read_bytes())
    index.write_text(json.dumps(told | {"provenance": None}))
    with pytest.raises(UserError, match="older version"):
        verify_copy(copy)
    index.write_text("{}")
    with pytest.raises(UserError, match="no release's table"):
        verify_copy(copy)


def test_a_release_that_cannot_be_completed_says_why(copy: Path) -> None:
    roots = Roots(data=copy, raw=copy / "raw")
    (copy / "stacks/X/T120/X_r.weight.fits").write_bytes(b"no FITS")
    with pytest.raises(StageError, match="cannot be read"):
        write_sky(roots, TELESCOPE)
    (copy / "stacks/release.json").write_text("{")
    with pytest.raises(StageError, match="cannot be read"):
        complete_release(roots, TELESCOPE, Settings(data_root=copy))
