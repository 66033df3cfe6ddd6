"""The contract with the archives: what each kind of answer leads to, in every protocol, with the real client code.

One row a case; nothing but an answer that says it is complete ever enters the store.
"""

from __future__ import annotations

import pickle
from typing import NamedTuple

import numpy as np
import pytest

from models.catalog import Cone
from models.settings import CatalogSettings, Settings
from tasks.catalogs import DownError, MalformedError, TruncatedError, fetch_cone, find_cone, read_cone
from tasks.catalogs.columns import schema_of
from tasks.catalogs.cones import contains
from tasks.catalogs.services import TapService
from tasks.core.errors import StageError, TransientError

from .archive import Archive
from .conftest import gaia_table, gspc_table, ps1_table, refcat2_table

FIELD = Cone(ra=132.85, dec=11.81, radius=0.4)
SKY = Cone(ra=132.85, dec=11.81, radius=1.2)
TABLES = {"gaia": gaia_table(SKY, 2000), "ps1": ps1_table(SKY, 2000), "refcat2": refcat2_table(SKY, 2000)}
TABLES["gspc"] = gspc_table(SKY, 2000)

PROTOCOLS = {  # name: catalogue, address
    "tap async": ("gaia", lambda archive: archive.tap),
    "tap sync": ("gaia", lambda archive: archive.tap + "/sync"),
    "gspc async": ("gspc", lambda archive: archive.tap),
    "gspc sync": ("gspc", lambda archive: archive.tap + "/sync"),
    "mast": ("ps1", lambda archive: archive.mast),
    "vizier": ("ps1", lambda archive: archive.vizier),
    "vizier refcat2": ("refcat2", lambda archive: archive.vizier),
}
ALL = tuple(PROTOCOLS)
ASYNC = ("tap async", "gspc async")
TAP = (*ASYNC, "tap sync", "gspc sync")
VIZIER = ("vizier", "vizier refcat2")
VOTABLE = TAP + VIZIER
MAST = ("mast",)


class Case(NamedTuple):
    """A row: an answer, who gives it, how often one service is asked, what comes of it, what the record says."""

    answer: str
    who: tuple[str, ...]
    asked: int
    outcome: str
    says: str = ""
    pauses: tuple[float, ...] | None = None


# Outcomes. "pending": tried again here, then the next service, then Prefect's rounds. "malformed": the next service at
# once, then Prefect's rounds. "refused": the next service at once, no rounds. All three are pending in the reports.
# "truncated": an error for good.
CASES = [
    #    answer                who      asked  outcome      the record says
    Case("answer",             ALL,     1,     "stored"),
    Case("empty",              ALL,     1,     "empty"),
    Case("stall",              ALL,     3,     "pending",   "no answer within 0.3 s"),
    Case("drop",               ALL,     3,     "pending",   "connection lost"),
    Case("lost in the middle", ALL,     3,     "pending",   "connection lost"),
    Case("chunks lost",        ALL,     3,     "pending",   "connection lost"),
    Case("429",                ALL,     3,     "pending",   "HTTP 429", (7.0, 7.0)),   # Retry-After: 7
    Case("429 long",           ALL,     1,     "pending",   "HTTP 429", ()),           # Retry-After: a day
    Case("500",                ALL,     3,     "pending",   "HTTP 500"),
    Case("502",                ALL,     3,     "pending",   "HTTP 502"),
    Case("503",                ALL,     3,     "pending",   "HTTP 503"),
    Case("no database",        VOTABLE, 3,     "pending",   "not currently reachable"),
    Case("job for ever",       ASYNC,   3,     "pending",   "still EXECUTING after 0.6 s"),
    Case("403",                ALL,     1,     "refused",   "HTTP 403"),
    Case("404",                ALL,     1,     "refused",   "HTTP 404"),
    Case("error info",         VOTABLE, 1,     "refused",   "Column pmra does not exist"),
    Case("error after rows",   VOTABLE, 1,     "refused",   "reports an error"),
    Case("job error",          ASYNC,   1,     "refused",   "Column pmra does not exist"),
    Case("html",               VOTABLE, 1,     "malformed", "a web page came"),
    Case("html",               MAST,    1,     "malformed", "not the JSON of a table"),
    Case("cut",                VOTABLE, 1,     "malformed", "cut or not well formed|gzipped answer is damaged"),
    Case("cut",                MAST,    1,     "malformed", "not the JSON of a table"),
    Case("nothing",            VOTABLE, 1,     "malformed", "not well formed"),
    Case("nothing",            MAST,    1,     "malformed", "not the JSON of a table"),
    Case("huge",               ALL,     1,     "malformed", "longer than"),
    Case("bad gzip",           VOTABLE, 1,     "malformed", "gzipped answer is damaged"),
    Case("bad gzip",           MAST,    1,     "malformed", "the gzipped answer is damaged"),
    Case("gzip bomb",          VOTABLE, 1,     "malformed", "unpacks to more than"),
    Case("gzip bomb",          MAST,    1,     "malformed", "unpacks to more than"),
    Case("bomb",               VOTABLE, 1,     "malformed", "declares XML entities"),
    Case("external",           VOTABLE, 1,     "malformed", "declares XML entities"),
    Case("no status",          TAP,     1,     "malformed", "QUERY_STATUS"),
    Case("lacks a column",     ALL,     1,     "malformed", "lacks"),
    Case("elsewhere",          ALL,     1,     "malformed", "lies in the cone"),
    Case("short row",          MAST,    1,     "malformed", "rows cannot be read"),
    Case("no data",            MAST,    1,     "malformed", "not the JSON of a table"),
    Case("overflow",           VOTABLE, 1,     "truncated", "OVERFLOW"),
    Case("too many rows",      VOTABLE, 1,     "truncated", "more than 900 rows"),
    Case("too many rows",      MAST,    10,    "truncated", "more than 900 rows"),      # in tiles
    Case("full pages",         MAST,    3,     "stored"),
    Case("same page",          MAST,    2,     "truncated", "repeats the rows"),
]  # fmt: skip
SLOW = ("stall", "job for ever")
ERRORS = {"pending": TransientError, "refused": DownError, "malformed": MalformedError, "truncated": TruncatedError}
ROWS = [(case, who) for case in CASES for who in case.who]


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """No waiting between tries; what the waits would have been."""
    made: list[float] = []
    monkeypatch.setattr("tasks.catalogs.fetch._rest", made.append)
    monkeypatch.setattr(TapService, "_POLL_S", (0.01, 0.05))
    return made


def settings_for(roots, case: Case, *urls: str) -> Settings:
    limits = {"timeout_s": 5.0, "job_timeout_s": 60.0, "retries": 2, "max_rows": 900, "interval_s": 0.0}
    if case.answer in SLOW:
        limits |= {"timeout_s": 0.3, "job_timeout_s": 0.6}
    places = {f"{name}_urls": urls for name in ("gaia", "ps1", "refcat2")}
    return Settings(data_root=roots.data, catalogs=CatalogSettings(**limits), **places)


def assert_truth(stored, catalogue: str, who: str, roots) -> None:
    schema = schema_of(catalogue)
    truth = TABLES[catalogue]
    truth = truth[contains(FIELD, truth[schema.ra], truth[schema.dec])]
    if who == "vizier":
        truth = truth[truth["nDetections"] > 2]  # its table has no others
    truth.sort(schema.identifier or [schema.dec, schema.ra])
    rows = read_cone(stored, roots)
    assert stored.n_rows == len(rows) == len(truth) > 150
    for name in rows.colnames:
        np.testing.assert_array_equal(rows[name], truth[name], err_msg=name)


@pytest.mark.parametrize(("case", "who"), ROWS, ids=[f"{case.answer}-{who}" for case, who in ROWS])
def test_what_comes_of_an_answer(roots, case, who, pauses, monkeypatch, caplog):
    catalogue, address = PROTOCOLS[who]
    cone = SKY if case.answer == "too many rows" else FIELD
    if case.answer in ("full pages", "same page"):
        monkeypatch.setattr("tasks.catalogs.services._MAST_PAGE", 100)
    with Archive(TABLES[catalogue]) as archive:
        archive.moods = [case.answer]
        settings = settings_for(roots, case, address(archive))
        if case.outcome in ("stored", "empty"):
            stored = fetch_cone(catalogue, cone, roots, settings)
            assert stored.service == address(archive)
            assert "132.85" in stored.query
            assert stored.release.startswith(schema_of(catalogue).release)
            if case.outcome == "empty":
                assert stored.n_rows == 0
                assert any("has nothing in" in record.message for record in caplog.records)
            else:
                assert_truth(stored, catalogue, who, roots)
            # From the store from now on, the empty sky too.
            assert fetch_cone(catalogue, cone, roots, settings) == find_cone(catalogue, cone, roots) == stored
            assert len(archive.questions) == case.asked
            return

        with pytest.raises(StageError, match=case.says) as caught:
            fetch_cone(catalogue, cone, roots, settings)
        error = caught.value
        assert isinstance(error, ERRORS[case.outcome])
        assert case.outcome != "pending" or not isinstance(error, MalformedError | DownError)
        assert len(archive.questions) == case.asked
        assert len(pauses) == case.asked - 1 or case.outcome == "truncated"
        assert case.pauses is None or tuple(pauses) == case.pauses
        assert error.record("x.fits").pending == (case.outcome != "truncated")
        assert "127.0.0.1" in error.reason
        assert "unexpected answer" not in error.reason  # each has a name of its own
        assert str(pickle.loads(pickle.dumps(error))) == str(error)

        # No failure is ever stored or taken for an empty sky.
        assert not [path for path in (roots.data / "catalogs").rglob("*") if path.suffix in (".fits", ".json")]
        assert find_cone(catalogue, cone, roots) is None

        if case.outcome != "truncated" and case.answer not in SLOW:
            with Archive(TABLES[catalogue]) as mirror:
                both = settings_for(roots, case._replace(answer="answer"), address(archive), address(mirror))
                assert fetch_cone(catalogue, cone, roots, both).service == address(mirror)


@pytest.mark.parametrize("who", ALL)
def test_it_is_asked_again_when_it_is_mended(roots, who):
    catalogue, address = PROTOCOLS[who]
    case = Case("drop", ALL, 3, "pending")
    with Archive(TABLES[catalogue]) as archive:
        archive.moods = ["503", "503", "503", "drop", "answer"]
        settings = settings_for(roots, case, address(archive))
        with pytest.raises(TransientError):
            fetch_cone(catalogue, FIELD, roots, settings)
        assert_truth(fetch_cone(catalogue, FIELD, roots, settings), catalogue, who, roots)
        assert len(archive.questions) == 5


@pytest.mark.shared
@pytest.mark.parametrize("who", ALL)
def test_no_recorded_answer_to_another_question_is_believed(roots, shared, who):
    """Everything the archives were ever recorded to say, given as the answer to ours, through the real client."""
    catalogue, address = PROTOCOLS[who]
    recorded = sorted(path for path in (shared / "recorded").rglob("*.*") if path.stat().st_size < 100_000)
    assert len(recorded) > 50
    with Archive(TABLES[catalogue]) as archive:
        settings = settings_for(roots, Case("", ALL, 1, ""), address(archive))
        settings = settings.model_copy(update={"catalogs": settings.catalogs.model_copy(update={"patience_s": 1e6})})
        for path in recorded:
            archive.bytes, archive.moods = path.read_bytes(), ["bytes"]
            with pytest.raises(StageError) as caught:
                fetch_cone(catalogue, FIELD, roots, settings)
            assert "unexpected answer" not in caught.value.reason, path
    assert not list((roots.data / "catalogs").rglob("*.json"))
