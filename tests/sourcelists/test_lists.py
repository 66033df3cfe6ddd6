"""Source lists of small simulated stacks: what is found, how true fluxes and errors are, what the files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from defusedxml import ElementTree
from scipy.spatial import cKDTree

from models.base import Roots
from models.catalog import Cone, StoredCone
from models.settings import SourceSettings
from models.sourcelist import SourceFlag, SourceList
from models.stack import Stack
from tasks.catalogs import store_cone
from tasks.core.errors import StageError
from tasks.sourcelists import make_source_list
from tasks.sourcelists.images import zero_point_error
from tests.sourcelists.sky import SIZE, SMEAR, TELESCOPE, Place, place, stack, stamp, stars


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("sources"), *stars(np.random.default_rng(5)))


@pytest.fixture(scope="module")
def listed(field: Place) -> tuple[SourceList, Table]:
    made = make_source_list(field.stacks, None, None, field.roots, TELESCOPE, SourceSettings())
    return made, Table.read(field.roots.of(made.fits), hdu="SOURCES")


def true_rows(table: Table, field: Place) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the table and of the truth that are each other's nearest, within 1.2 px."""
    places = np.column_stack([table["X"] - 1, table["Y"] - 1])
    apart, star = cKDTree(np.column_stack([field.x, field.y])).query(places)
    rows = np.flatnonzero(apart < 1.2)
    return rows, star[rows]


def test_stars_are_found_and_little_else(field: Place, listed: tuple[SourceList, Table]) -> None:
    made, table = listed
    rows, star = true_rows(table, field)
    assert made.n_sources == len(table)
    assert len(table) - len(rows) <= 0.05 * len(table)
    assert np.isin(np.flatnonzero(field.mag < 19.5), star).mean() > 0.98
    offset = np.hypot(table["X"][rows] - 1 - field.x[star], table["Y"][rows] - 1 - field.y[star])
    assert np.median(offset[field.mag[star] < 18]) < 0.03


@pytest.mark.parametrize("kind", ["PSF", "AP1", "AP2", "AP3", "KRON"])
@pytest.mark.parametrize("band", ["r", "Rc"])
def test_fluxes_are_true_and_their_errors_hold(
    field: Place, listed: tuple[SourceList, Table], kind: str, band: str
) -> None:
    _, table = listed
    rows, star = true_rows(table, field)
    true = 10 ** (0.4 * (30.0 - field.mag[star]))
    flux, error = (np.asarray(table[f"{name}_{kind}_{band}"])[rows] for name in ("FLUX", "FLUXERR"))
    clean = np.asarray(table[f"FLAGS_{band}"])[rows] == 0
    good = clean & (field.mag[star] > 18.0) & (field.mag[star] < 20.5)
    bright = clean & (field.mag[star] < 17)
    assert np.count_nonzero(good) > 60
    # The aperture of 3 FWHM, which all are brought to, lacks a little of a star's light; the tie to PS1 adds it.
    assert abs(np.median(flux[bright] / true[bright]) - 1) < 0.03
    pull = (flux - true * np.median(flux[bright] / true[bright]))[good] / error[good]
    # A hundred stars tell a width to 12 %.
    assert 0.65 < 1.4826 * np.median(np.abs(pull)) < 1.35
    magnitude = np.asarray(table[f"MAG_{kind}_{band}"])[rows]
    assert magnitude[bright] == pytest.approx(30 - 2.5 * np.log10(flux[bright]), abs=1e-3)


def test_kinds_of_magnitudes_agree_for_stars(listed: tuple[SourceList, Table]) -> None:
    _, table = listed
    bright = np.asarray((table["MAG_AP3_r"] < 17.5) & (table["FLAGS_r"] == 0))
    for kind in ("PSF", "AP1", "AP2", "KRON"):
        assert abs(np.median(np.asarray(table[f"MAG_{kind}_r"] - table["MAG_AP3_r"])[bright])) < 0.004


def test_the_noise_that_pixels_share_is_in_the_errors(listed: tuple[SourceList, Table]) -> None:
    made, _ = listed
    correlated = float(SMEAR.sum() / np.sqrt(np.square(SMEAR).sum()))
    for band in made.bands:
        assert band.noise_factor[1] == pytest.approx(correlated, rel=0.2)


def test_a_part_without_data_is_flagged_and_empty(field: Place, listed: tuple[SourceList, Table]) -> None:
    _, table = listed
    corner = (table["X"] < 50) & (table["Y"] < 50)
    assert corner.any()
    assert ((table["FLAGS_Rc"][corner] & SourceFlag.NO_DATA) > 0).all()
    assert not ((table["FLAGS_r"][corner] & SourceFlag.NO_DATA) > 0).any()
    assert np.isnan(np.asarray(table["FLUX_PSF_Rc"][corner].filled(np.nan))).all()
    assert np.isfinite(np.asarray(table["FLUX_PSF_r"][corner])).all()


def test_columns_say_what_they_are(field: Place, listed: tuple[SourceList, Table]) -> None:
    made, _ = listed
    with fits.open(field.roots.of(made.fits), checksum=True) as hdus:
        head, columns = hdus["SOURCES"].header, hdus["SOURCES"].columns
        names = [column.name.lower() for column in columns]
        assert len(set(names)) == len(names)
        for number in range(1, len(columns) + 1):
            assert head[f"TUCD{number}"]
            assert head[f"TCOMM{number}"]
        assert hdus["BANDS"].data["FILTER"].tolist() == ["r", "R"] or set(hdus["BANDS"].data["FILTER"]) == {"r", "R"}
        comment = str(hdus[0].header["COMMENT"])
    assert "no Gaia identifiers" in comment
    assert "no PS1 identifiers" in comment
    assert made.n_gaia is None


def test_parquet_holds_the_same_with_units_and_ucds(field: Place, listed: tuple[SourceList, Table]) -> None:
    made, table = listed
    parquet = pq.read_table(field.roots.of(made.parquet))
    assert parquet.column_names == table.colnames
    assert parquet.num_rows == len(table)
    about = parquet.schema.field("MAG_PSF_r").metadata
    assert (about[b"unit"], about[b"ucd"]) == (b"mag", b"phot.mag;em.opt.R")
    assert parquet["GAIA_ID"].null_count == len(table)
    theirs = parquet["FLUX_AP2_r"].to_numpy()
    assert theirs == pytest.approx(np.asarray(table["FLUX_AP2_r"]), nan_ok=True)
    root = ElementTree.fromstring(parquet.schema.metadata[b"IVOA.VOTable-Parquet.content"])
    space = "{http://www.ivoa.net/xml/VOTable/v1.3}"
    fields = root.findall(f"{space}RESOURCE/{space}TABLE/{space}FIELD")
    assert [each.get("name") for each in fields] == table.colnames


def cone(catalogue: str, table: Table, roots: Roots) -> StoredCone:
    around = Cone(ra=150.0, dec=30.0, radius=0.2)
    return store_cone(catalogue, around, table, roots, "simulation", "made up")  # type: ignore[arg-type]


def test_identifiers_by_position(field: Place, listed: tuple[SourceList, Table]) -> None:
    _, table = listed
    some = table[:40]
    nothing = np.full(40, np.nan)
    moved = {"pmra": np.full(40, 100.0), "pmdec": np.zeros(40)}
    years = (59000.5 - 51544.5) / 365.25 + 2000.0 - 2016.0
    back = 100.0 * years / 3.6e6 / np.cos(np.radians(some["DEC"]))
    gaia = Table({
        "source_id": np.arange(1, 41) * 10**17, "ra": some["RA"] - back, "dec": some["DEC"], **moved,
        "parallax": nothing, "ra_error": nothing, "dec_error": nothing, "phot_g_mean_mag": np.full(40, 17.0),
        "bp_rp": nothing,
    })  # fmt: skip
    bands = {f"{band}{kind}": nothing for band in "grizy" for kind in ("MeanPSFMag", "MeanPSFMagErr", "MeanKronMag")}
    ps1 = Table({
        "objID": np.arange(1, 41) + 10**17, "raMean": some["RA"], "decMean": some["DEC"] + 0.2 / 3600,
        "nDetections": np.full(40, 9), "qualityFlag": np.full(40, 52), **bands,
    })  # fmt: skip
    made = make_source_list(
        field.stacks, cone("gaia", gaia, field.roots), cone("ps1", ps1, field.roots), field.roots, TELESCOPE,
        SourceSettings(),
    )  # fmt: skip
    assert made.notes == ()
    assert made.n_gaia == made.n_ps1 == 40
    found = Table.read(field.roots.of(made.fits), hdu="SOURCES")
    assert np.asarray(found["GAIA_ID"][:40]).tolist() == (np.arange(1, 41) * 10**17).tolist()
    assert float(np.max(found["GAIA_SEP"][:40])) < 0.03
    assert np.asarray(found["PS1_SEP"][:40]) == pytest.approx(0.2, abs=0.01)
    assert found["GAIA_ID"].mask[40:].all()


def test_the_same_bytes_again(field: Place, listed: tuple[SourceList, Table], tmp_path: Path) -> None:
    first = make_source_list(field.stacks[::-1], None, None, field.roots, TELESCOPE, SourceSettings())
    again = make_source_list(field.stacks, None, None, field.roots, TELESCOPE, SourceSettings())
    assert (first.fits.digest, first.parquet.digest) == (again.fits.digest, again.parquet.digest)
    assert json.loads(first.model_dump_json()) == json.loads(again.model_dump_json())


def test_without_a_psf_there_are_apertures(field: Place, tmp_path: Path) -> None:
    made = make_source_list(
        [field.stacks[0].model_copy(update={"psf": None})], None, None, field.roots, TELESCOPE, SourceSettings()
    )
    table = Table.read(field.roots.of(made.fits), hdu="SOURCES")
    assert "FLUX_PSF_r" not in table.colnames
    assert ((table["FLAGS_r"] & SourceFlag.NO_PSF) > 0).all()
    assert "no PSF fluxes in r: the stack has no PSF" in made.notes


def test_stars_of_a_crowded_part_are_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    share, angle = rng.uniform(0, 1, 400), rng.uniform(0, 2 * np.pi, 400)
    radius = 50.0 * np.sqrt(share / (1 - share))
    x, y = SIZE / 2 + radius * np.cos(angle), SIZE / 2 + radius * np.sin(angle)
    inside = (np.abs(x - SIZE / 2) < SIZE / 2 - 10) & (np.abs(y - SIZE / 2) < SIZE / 2 - 10)
    mag = 14.0 + 6.5 * rng.uniform(0, 1, 400) ** 0.5
    crowd = place(tmp_path, x[inside], y[inside], mag[inside])

    def run(density: float) -> tuple[SourceList, Table]:
        settings = SourceSettings(crowded_density=density)
        made = make_source_list(crowd.stacks[:1], None, None, crowd.roots, TELESCOPE, settings)
        return made, Table.read(crowd.roots.of(made.fits), hdu="SOURCES")

    def recovered(table: Table) -> float:
        rows, star = true_rows(table, crowd)
        core = np.hypot(crowd.x - SIZE / 2, crowd.y - SIZE / 2) < 50
        off = np.abs(np.asarray(table["MAG_PSF_r"])[rows] - crowd.mag[star])
        good = star[off < 0.2]
        return float(np.isin(np.flatnonzero(core & (crowd.mag < 18)), good).mean())

    plain, of_plain = run(1e3)
    made, table = run(SourceSettings().crowded_density)
    assert plain.n_crowded == 0
    assert made.n_crowded > 50
    assert ((table["FLAGS"] & SourceFlag.CROWDED) > 0).sum() == made.n_crowded
    assert recovered(table) > max(0.7, recovered(of_plain) + 0.15)


def test_what_the_header_tells_of_the_zero_point_is_in_the_errors() -> None:
    tied = fits.Header({"PHOTTIEE": 0.003, "PHOTOFF": 0.008})
    assert zero_point_error(tied) == pytest.approx(np.sqrt(3**2 + 4**2 + 5**2) / 1000)
    bent = fits.Header({**tied, "PHOTLIN": -0.020, "PHOTLINE": 0.012})
    assert zero_point_error(bent) == pytest.approx(np.hypot(zero_point_error(tied), 0.008))
    unsure = fits.Header({**tied, "PHOTLIN": 0.005, "PHOTLINE": 0.009})
    assert zero_point_error(unsure) == zero_point_error(tied)
    red = fits.Header({**tied, "PHOTCTE": 0.01})
    assert zero_point_error(red) == pytest.approx(np.hypot(zero_point_error(tied), 0.005))
    assert zero_point_error(fits.Header({"PHOTCTE": 0.0})) == pytest.approx(0.02)
    assert zero_point_error(fits.Header({"PHOTRMS": 0.02, "PHOTNSTR": 16})) == pytest.approx(0.005)


def test_a_star_that_some_frames_lack_is_flagged(field: Place, tmp_path: Path) -> None:
    roots = Roots(data=tmp_path, raw=tmp_path / "raw")
    shown = int(np.argmin(np.where((field.mag > 16) & (np.abs(field.x - 210) < 150), field.mag, 99)))
    x, y = round(float(field.x[shown])), round(float(field.y[shown]))
    image, weight = (fits.getdata(field.roots.of(part)) for part in (field.stacks[0].image, field.stacks[0].weight))
    rows = []
    for share in (1.0, 0.75):
        less = weight.copy()
        less[y - 6 : y + 7, x - 6 : x + 7] *= share
        made = make_source_list([stack(roots, "r", image, less, stamp("r"))], None, None, roots, TELESCOPE,
                                SourceSettings())  # fmt: skip
        table = Table.read(roots.of(made.fits), hdu="SOURCES")
        rows.append(table[int(np.argmin(np.hypot(table["X"] - 1 - x, table["Y"] - 1 - y)))])
    whole, lacking = rows
    assert not whole["FLAGS_r"] & SourceFlag.FEWER_FRAMES
    assert lacking["FLAGS_r"] & SourceFlag.FEWER_FRAMES
    for kind in ("PSF", "AP1", "AP2"):
        # It knows that the corrections of the others may be off for it; the largest aperture needs none.
        assert lacking[f"FLUXERR_{kind}_r"] > whole[f"FLUXERR_{kind}_r"]
        assert abs(lacking[f"FLUX_{kind}_r"] - whole[f"FLUX_{kind}_r"]) < 3 * lacking[f"FLUXERR_{kind}_r"]
    assert lacking["FLUX_AP3_r"] == pytest.approx(whole["FLUX_AP3_r"], rel=1e-6)


def refused(stacks: list[Stack], roots: Roots) -> StageError:
    with pytest.raises(StageError) as caught:
        make_source_list(stacks, None, None, roots, TELESCOPE, SourceSettings())
    return caught.value


def test_what_cannot_be_listed_says_why(field: Place, tmp_path: Path) -> None:
    roots = Roots(data=tmp_path, raw=tmp_path / "raw")
    noise = np.random.default_rng(1).normal(0, 100.0, (SIZE, SIZE))
    weight = np.full(noise.shape, 1e-4)
    empty = stack(roots, "r", noise, weight, stamp("r"))
    assert "no source" in refused([empty], roots).reason
    nothing = stack(roots, "r", noise, np.zeros_like(weight), stamp("r"))
    assert "no weight anywhere" in refused([nothing], roots).reason
    cut = stack(roots, "R", noise[:-3], weight[:-3], stamp("R"))
    whole = stack(roots, "r", noise, weight, stamp("r"))
    assert "have shapes" in refused([whole, cut], roots).reason
    roots.of(whole.image).write_bytes(b"no FITS")
    assert "cannot be read" in refused([whole], roots).reason
    assert "no stack" in refused([], roots).reason


def test_measurement_of_any_source_does_not_depend_on_faint_company(field: Place) -> None:
    """The same star, alone and with a neighbour of a quarter of its light at 2 FWHM: the PSF flux stays."""
    results: list[Any] = []
    for companion in (False, True):
        x, y, mag = np.array([200.0, 206.0]), np.array([200.0, 203.0]), np.array([16.0, 17.5])
        keep = slice(None) if companion else slice(0, 1)
        others = stars(np.random.default_rng(2), 10)
        far = np.hypot(others[0] - 200, others[1] - 200) > 40
        path = Path(field.roots.data) / f"pair{companion}"
        joined = [np.concatenate([mine[keep], theirs[far]]) for mine, theirs in zip((x, y, mag), others, strict=True)]
        pair = place(path, *joined)
        made = make_source_list(pair.stacks[:1], None, None, pair.roots, TELESCOPE, SourceSettings())
        table = Table.read(pair.roots.of(made.fits), hdu="SOURCES")
        row = int(np.argmin(np.hypot(table["X"] - 201, table["Y"] - 201)))
        results.append(table[row])
    alone, paired = results
    assert paired["FLAGS_r"] & SourceFlag.BLENDED
    assert abs(paired["MAG_PSF_r"] - alone["MAG_PSF_r"]) < 0.02
    assert alone["MAG_AP3_r"] - paired["MAG_AP3_r"] > 0.05
