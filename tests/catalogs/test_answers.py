"""Answers that archives really gave, and answers that none should."""

from __future__ import annotations

import gzip
import json
import time

import numpy as np
import pytest
from astropy.table import Table

from tasks.catalogs.columns import PS1
from tasks.catalogs.failures import (
    AnswerError,
    BusyError,
    MalformedAnswerError,
    RefusedError,
    TruncatedAnswerError,
)
from tasks.catalogs.services import parse_mast
from tasks.catalogs.transport import _retry_after, plain_text
from tasks.catalogs.votable import parse_votable

from .archive import BOMB, ERROR_INFO, EXTERNAL, HTML, NO_DATABASE, as_votable

LIMIT = 1_000_000
ROWS = Table({"a": np.arange(50), "b": np.linspace(0, 1, 50)})


@pytest.mark.parametrize("form", ["binary2", "binary", "tabledata"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_votables(form, pack):
    got = parse_votable(pack(as_votable(ROWS, "OK", form)), LIMIT)
    np.testing.assert_array_equal(got["b"], ROWS["b"])


@pytest.mark.parametrize("form", ["binary2", "tabledata"])
def test_a_votable_cut_anywhere_is_malformed(form):
    whole = as_votable(ROWS, "OK", form)
    for end in range(0, len(whole) - 12, 37):
        with pytest.raises(MalformedAnswerError):
            parse_votable(whole[:end], LIMIT)


def test_a_votable_with_any_byte_flipped_is_read_or_refused():
    whole = gzip.compress(as_votable(ROWS, "OK", "binary2"), mtime=0)
    for at in range(10, len(whole), 29):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        with pytest.raises(AnswerError):  # gzip has a checksum
            parse_votable(bytes(damaged), LIMIT)


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (BOMB, MalformedAnswerError, "entities"),
        (EXTERNAL, MalformedAnswerError, "entities"),
        (HTML, MalformedAnswerError, "web page"),
        (b'<?xml version="1.0"?><html xmlns="x"><body/></html>', MalformedAnswerError, "web page"),
        (b"", MalformedAnswerError, "not well formed"),
        (b"\x00\x01\x02", MalformedAnswerError, "not well formed"),
        (b'{"error": "none"}', MalformedAnswerError, "not well formed"),
        (b"<VOTABLE></VOTABLE>", MalformedAnswerError, "does not say that the query went well"),
        (ERROR_INFO, RefusedError, "Column pmra does not exist"),
        (NO_DATABASE, BusyError, "not currently reachable"),
        (as_votable(ROWS, "OVERFLOW", "tabledata"), TruncatedAnswerError, "OVERFLOW"),
        (as_votable(ROWS, "OK", "tabledata", "OVERFLOW"), TruncatedAnswerError, "OVERFLOW"),
        (as_votable(ROWS, "OK", "tabledata", "ERROR"), RefusedError, "reports an error"),
        (as_votable(ROWS, None, "tabledata"), MalformedAnswerError, "does not say"),
        (gzip.compress(b" " * 2 * LIMIT), MalformedAnswerError, "unpacks to more"),
    ],
)
def test_what_is_no_answer(content, error, said):
    with pytest.raises(error, match=said):
        parse_votable(content, LIMIT)


def test_vizier_without_a_table_is_no_empty_sky():
    nothing = b'<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"></VOTABLE>'
    with pytest.raises(MalformedAnswerError, match="0 tables"):
        parse_votable(nothing, LIMIT, need_status=False)


def test_a_bomb_costs_no_time():
    bomb = BOMB.replace(
        b'<!ENTITY c "', b"".join(b'<!ENTITY z%d "&b;&b;&b;">' % i for i in range(1000)) + b'<!ENTITY c "'
    )
    start = time.monotonic()
    with pytest.raises(MalformedAnswerError):
        parse_votable(bomb, LIMIT)
    assert time.monotonic() - start < 1.0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"info": [], "data": 3}',
        b'{"info": 5, "data": []}',
        b"\xff\xfe",
        b"[" * 100_000,
        HTML,
    ],
)
def test_what_is_no_mast_answer(content):
    with pytest.raises(MalformedAnswerError):
        parse_mast(content)


@pytest.mark.parametrize("bad", ["x", [], {}, True])
def test_a_mast_row_with_a_wrong_value(bad):
    info = [{"name": name, "type": "float"} for name in PS1.columns]
    row = [1.0] * len(info)
    answer = {"info": info, "data": [["123", *row[1:]], ["124", *row[1:-1], bad]]}
    if bad is True:
        assert len(parse_mast(json.dumps(answer).encode())) == 2  # JSON's true is a number to everybody
        return
    with pytest.raises(MalformedAnswerError, match="rows cannot be read"):
        parse_mast(json.dumps(answer).encode())


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("12", 12.0), ("-3", 0.0), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)],
)
def test_retry_after(value, seconds):
    assert _retry_after(value) == seconds


def test_messages_are_one_short_plain_line():
    assert plain_text(b"<html><style>x{}</style><h1>Out of\n  order</h1></html>") == "Out of order"
    assert len(plain_text(b"word " * 1000)) <= 200


@pytest.mark.shared
def test_recorded_gaia(shared):
    folder = shared / "recorded"
    esa = (folder / "gaia/tests/data/1710099405832VAL-result.vot").read_bytes()
    got = parse_votable(esa, LIMIT)
    got.rename_columns(got.colnames, [name.lower() for name in got.colnames])
    assert set(got["source_id"]) == {4583627001381815936, 5348723816842275584}
    assert got["ref_epoch"][0] == 2016.0
    assert len(parse_votable((folder / "utils/tap/tests/data/job_1.vot").read_bytes(), LIMIT)) == 3
    # Real Gaia rows with BINARY2 and many kinds of columns.
    more = parse_votable((folder / "utils/tap/xmlparser/tests/data/1714556098855O-result.vot").read_bytes(), LIMIT)
    assert len(more) > 0


@pytest.mark.shared
def test_recorded_vizier(shared):
    folder = shared / "recorded/vizier/tests/data"
    with pytest.raises(BusyError, match="not currently reachable"):
        parse_votable((folder / "no_server_error.xml").read_bytes(), LIMIT, need_status=False)
    with pytest.raises(MalformedAnswerError, match="tables instead of one"):
        parse_votable((folder / "viz.xml").read_bytes(), LIMIT, need_status=False)
    assert len(parse_votable((folder / "kang2010.xml").read_bytes(), LIMIT, need_status=False)) == 50


@pytest.mark.shared
def test_recorded_mast(shared):
    folder = shared / "recorded/mast/tests/data"
    with pytest.raises(MalformedAnswerError, match="lacks raMean"):
        parse_mast((folder / "panstarrs.json").read_bytes())
    known = {column["column_name"] for column in json.loads((folder / "panstarrs_columns.json").read_text())}
    assert set(PS1.columns) <= known
