from __future__ import annotations

import json
import logging
import threading
import time

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from models.base import Roots
from models.catalog import Cone
from tasks.catalogs import find_cone, read_cone, store_cone, stored_cones
from tasks.core.errors import StageError
from tasks.core.files import ref

from .conftest import gaia_table, ps1_table

M67 = Cone(ra=132.85, dec=11.81, radius=0.6)


def put(roots: Roots, cone: Cone = M67, **options):
    return store_cone(
        "gaia", cone, gaia_table(cone), roots, **{"service": "simulation", "release": "Gaia DR3"} | options
    )


def test_what_is_stored_is_what_is_read(roots):
    given = gaia_table(M67)
    stored = store_cone("gaia", M67, given, roots, "simulation", "Gaia DR3", "the query")
    assert stored.file.path == "catalogs/gaia/gaia_132.8500_+11.8100_0.600.fits"
    assert stored.n_rows == len(given)
    assert stored.query == "the query"
    got = read_cone(stored, roots)
    given.sort("source_id")
    assert got.colnames == given.colnames
    for name in given.colnames:
        np.testing.assert_array_equal(got[name], given[name])
        assert got[name].dtype.isnative
    assert got["source_id"].dtype == np.int64
    assert got.meta["EPOCH"] == 2016.0
    assert not got.has_masked_columns


def test_ps1_and_its_missing_values(roots):
    given = ps1_table(M67)
    given["gMeanPSFMag"][3] = -999.0
    given["iMeanKronMag"] = MaskedColumn(given["iMeanKronMag"], mask=np.arange(len(given)) == 4)
    got = read_cone(store_cone("ps1", M67, given, roots, "simulation", "PS1 DR2"), roots)
    assert np.flatnonzero(np.isnan(got["gMeanPSFMag"])).tolist() == [3]
    assert np.flatnonzero(np.isnan(got["iMeanKronMag"])).tolist() == [4]
    assert got["nDetections"].dtype == np.int64


def test_same_rows_same_bytes_whatever_their_order(roots, tmp_path):
    rows = gaia_table(M67)
    other = Roots(data=tmp_path / "other", raw=tmp_path)
    one = store_cone("gaia", M67, rows, roots, "simulation", "Gaia DR3")
    two = store_cone("gaia", M67, rows[::-1], other, "simulation", "Gaia DR3")
    assert one == two
    assert roots.of(one.file).read_bytes() == other.of(two.file).read_bytes()
    assert roots.of(one.file).with_suffix(".json").read_bytes() == other.of(two.file).with_suffix(".json").read_bytes()


def test_storing_the_same_again_keeps_the_entry(roots):
    first = put(roots, service="import")
    path = roots.of(first.file).with_suffix(".json")
    path.write_text(path.read_text().replace(first.fetched, "2020-01-01T00:00:00+00:00"))
    assert put(roots, service="import").fetched == "2020-01-01T00:00:00+00:00"
    assert put(roots, service="import", query="another").fetched > "2026"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (M67, True),
        (Cone(ra=132.85, dec=11.81, radius=0.600001), True),
        (Cone(ra=132.85, dec=11.81, radius=0.6001), False),
        (Cone(ra=132.85, dec=12.11, radius=0.3), True),
        (Cone(ra=132.85, dec=12.12, radius=0.3), False),
        (Cone(ra=133.15, dec=11.81, radius=0.3), True),  # 0.3 deg of RA are 0.294 deg on the sky
        (Cone(ra=312.85, dec=-11.81, radius=0.1), False),
    ],
)
def test_covering(roots, asked, found):
    stored = put(roots)
    assert find_cone("gaia", asked, roots) == (stored if found else None)
    assert find_cone("ps1", asked, roots) is None


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (Cone(ra=359.9, dec=0, radius=0.5), Cone(ra=0.2, dec=0, radius=0.1)),
        (Cone(ra=10, dec=89.9, radius=0.5), Cone(ra=190, dec=89.9, radius=0.2)),
    ],
)
def test_covering_across_0h_and_the_pole(roots, outer, inner):
    stored = store_cone("gaia", outer, gaia_table(inner), roots, "simulation", "Gaia DR3")
    assert stored.n_rows == 200
    assert find_cone("gaia", inner, roots) == stored


def test_smallest_then_newest(roots):
    put(roots, Cone(ra=132.85, dec=11.81, radius=2.0))
    put(roots, Cone(ra=132.85, dec=11.82, radius=0.6))
    newest = put(roots, service="import")  # the others are "of 1970"
    assert find_cone("gaia", Cone(ra=132.85, dec=11.81, radius=0.2), roots) == newest


def test_too_shallow_a_cone_is_no_answer(roots):
    stored = put(roots, limit=18.0)
    assert find_cone("gaia", M67, roots) == stored
    assert find_cone("gaia", M67, roots, limit=18.0) == stored
    assert find_cone("gaia", M67, roots, limit=20.0) is None
    everything = put(roots)
    assert find_cone("gaia", M67, roots, limit=20.0) == everything


def test_an_empty_answer_is_a_cone(roots):
    stored = store_cone("gaia", M67, gaia_table(M67)[:0], roots, "import", "Gaia DR3")
    assert stored.n_rows == 0
    assert find_cone("gaia", M67, roots) == stored
    assert len(read_cone(stored, roots)) == 0


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-2000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage", ["flip", "cut", "gone", "json cut", "json of another", "json points outside", "no json"]
)
def test_a_damaged_cone_is_not_used_and_said(roots, caplog, damage):
    stored = put(roots)
    larger = put(roots, Cone(ra=132.85, dec=11.81, radius=1.0))
    table = roots.of(stored.file)
    description = table.with_suffix(".json")
    content = json.loads(description.read_text())
    if damage == "flip":
        _flip(table)
    elif damage == "cut":
        table.write_bytes(table.read_bytes()[:5000])
    elif damage == "gone":
        table.unlink()
    elif damage == "json cut":
        description.write_text(description.read_text()[:100])
    elif damage == "json of another":
        content["file"]["path"] = larger.file.path
        description.write_text(json.dumps(content))
    elif damage == "json points outside":
        content["file"]["path"] = "../../etc/passwd"
        description.write_text(json.dumps(content))
    else:
        description.unlink()
    with caplog.at_level(logging.WARNING, "ohp.catalogs"):
        assert find_cone("gaia", M67, roots) == larger
    assert bool(caplog.records) == (damage != "no json")
    assert all("is not used" in record.message for record in caplog.records)
    if damage in {"flip", "cut", "gone"}:
        with pytest.raises(StageError, match="not the table that was stored"):
            read_cone(stored, roots)
    assert put(roots) == stored  # storing it again mends it
    assert find_cone("gaia", M67, roots) == stored


def test_killed_between_table_and_description(roots, monkeypatch):
    stored = put(roots)
    monkeypatch.setattr("tasks.catalogs.store.ref", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        put(roots, service="import")
    monkeypatch.undo()
    assert find_cone("gaia", M67, roots) is None
    assert not list(roots.of(stored.file).parent.glob("*.tmp"))


def test_two_writers_leave_one_whole_cone(roots, monkeypatch):
    from tasks.catalogs import store

    between, calls = threading.Event(), []

    def slow_ref(path, given_roots):
        made = ref(path, given_roots)
        calls.append(path)
        if len(calls) == 1:  # the first writer rests between its table and its description
            between.set()
            time.sleep(0.5)
        return made

    monkeypatch.setattr(store, "ref", slow_ref)

    def work(seed):
        store_cone("gaia", M67, gaia_table(M67, seed=seed), roots, "import", "Gaia DR3")

    first, second = (threading.Thread(target=work, args=(seed,)) for seed in (1, 2))
    first.start()
    assert between.wait(10)
    second.start()
    first.join()
    second.join()
    assert len(stored_cones("gaia", roots)) == 1
    found = find_cone("gaia", M67, roots)
    assert found is not None
    assert len(read_cone(found, roots)) == 200


def test_reading_a_part(roots):
    stored = put(roots)
    part = Cone(ra=132.9, dec=11.9, radius=0.2)
    got = read_cone(stored, roots, within=part)
    assert 0 < len(got) < stored.n_rows
    with pytest.raises(StageError, match="does not cover"):
        read_cone(stored, roots, within=Cone(ra=132.9, dec=11.9, radius=0.6))


def test_rows_outside_twice_or_nowhere_are_left_out(roots):
    rows = gaia_table(M67)
    rows["dec"][0] = 14.0
    rows["ra"][1] = np.nan
    rows["source_id"][2] = rows["source_id"][3]
    assert store_cone("gaia", M67, rows, roots, "import", "Gaia DR3").n_rows == len(rows) - 3


def test_identifiers_keep_all_their_digits(roots):
    rows = gaia_table(M67)
    as_text = rows.copy()
    as_text["source_id"] = as_text["source_id"].astype(str)
    one = store_cone("gaia", M67, rows, roots, "import", "Gaia DR3")
    assert store_cone("gaia", M67, as_text, roots, "import", "Gaia DR3").file == one.file
    rows["source_id"] = rows["source_id"].astype(float)
    with pytest.raises(StageError, match="last digits are lost"):
        store_cone("gaia", M67, rows, roots, "import", "Gaia DR3")


def test_a_table_that_is_no_catalogue_is_refused(roots):
    with pytest.raises(StageError, match="lacks source_id, ra"):
        store_cone("gaia", M67, Table({"x": [1]}), roots, "import", "Gaia DR3")
    rows = gaia_table(M67)
    rows.replace_column("pmra", ["fast"] * len(rows))
    with pytest.raises(StageError, match=r"pmra .* does not hold numbers"):
        store_cone("gaia", M67, rows, roots, "import", "Gaia DR3")
    assert not (roots.catalogs / "gaia").exists()


def test_any_fits_reader_can_read_it(roots):
    stored = put(roots)
    with fits.open(roots.of(stored.file)) as hdus:
        hdus.verify("exception")
        assert hdus[1].columns["pmra"].unit == "mas / yr"
        assert not {"DATE", "DATE-OBS"} & set(hdus[0].header)
