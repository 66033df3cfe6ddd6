"""Readers of what strangers send, fed with anything: each answers, or refuses with the one kind of error it names.

Arbitrary bytes find what nobody thought of; a true header or answer with some of its bytes changed gets past the first
checks. `make test-faults` draws more of them.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import re
import tempfile
import warnings
from datetime import UTC, datetime
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.base import FileRef, Roots
from models.catalog import Cone, StoredCone
from models.frame import RawFrame
from models.stack import stack_paths
from models.target import NamedPlace, Target, TargetError, designations, find_target, load_targets, target_by_object
from models.telescope import TelescopeError, load_telescope
from tasks.calibration.header import carry_over
from tasks.catalogs.columns import PS1, normalise
from tasks.catalogs.failures import AnswerError
from tasks.catalogs.importing import read_catalog_file
from tasks.catalogs.names import known_names
from tasks.catalogs.services import parse_mast
from tasks.catalogs.store import find_cone
from tasks.catalogs.votable import parse_votable, unpack
from tasks.core.errors import StageError, UserError
from tasks.core.files import safe_name
from tasks.core.fitsio import open_raw
from tasks.inventory import classify, take_inventory
from tasks.inventory.headers import integer, number, parse_header, read_header, text
from tests.catalogs.archive import as_votable

LIMIT = 1 << 20
T120 = load_telescope("T120")


_TIMES = int(os.environ.get("EXAMPLES_TIMES", "1"))


def examples(number: int) -> settings:
    """So many examples, always the same; EXAMPLES_TIMES=20 draws twenty times as many, others each time."""
    return settings(
        max_examples=number * _TIMES, derandomize=_TIMES == 1, deadline=None, print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    )  # fmt: skip


def says_why(error: Exception) -> None:
    """An error of ours is in one line and of words, not Python's way to say it."""
    words = f"{error.reason} {error.remedy}" if isinstance(error, StageError) else str(error)
    assert len(words) > 10
    assert "Traceback" not in words
    assert not isinstance(error, StageError) or (error.reason and error.remedy)


@st.composite
def mutated(draw: st.DrawFn, originals: tuple[bytes, ...]) -> bytes:
    """A true one with some of it overwritten, cut out, put in twice, or its end cut off."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        if not content:
            break
        at = draw(st.integers(0, len(content) - 1))
        kind = draw(st.sampled_from(["bytes", "bit", "cut", "twice", "end", "words"]))
        if kind == "bytes":
            new = draw(st.binary(min_size=1, max_size=12))
            content[at : at + len(new)] = new
        elif kind == "bit":
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del content[at : at + draw(st.integers(1, 400))]
        elif kind == "twice":
            content[at:at] = content[at : at + draw(st.integers(1, 400))]
        elif kind == "end":
            del content[at:]
        else:
            new = draw(st.sampled_from(WORDS))
            content[at : at + len(new)] = new
    return bytes(content)


WORDS = (
    b"NaN", b"-inf", b"1e999", b"99999999999999999999", b"-1", b"0", b"2147483648", b"'", b'"', b"</TR>", b"<TD>",
    b"null", b"[[", b"{}", b"\\u0000", b"\xff\xfe", b"\0\0\0\0", b"T", b"BITPIX  = -7", b"NAXIS   = 999", b"END",
    b",,,", b"\r\n",
    b"CONTINUE", b"HIERARCH a b = 1", b"&#0;", b"<!ENTITY a 'b'>", b"arraysize='99999999*'", b"datatype='bit'",
)  # fmt: skip


# ---------------------------------------------------------------------------------------------- headers and pixels


@cache
def frames() -> tuple[bytes, ...]:
    """Small raw frames: as the camera writes them, with a table behind, and a primary header without pixels."""
    rng = np.random.default_rng(5)
    header = fits.Header(
        [("DATE-OBS", "2023-03-14T20:11:12.5"), ("EXPTIME", 60.0), ("FILTER", "g"), ("IMAGETYP", "Light Frame"),
         ("OBJECT", "M 67"), ("OBJCTRA", "08 51 18"), ("OBJCTDEC", "+11 48 00"), ("XBINNING", 2), ("YBINNING", 2),
         ("CCD-TEMP", -59.7), ("AIRMASS", 1.2), ("OBSERVER", "O'Neill"), ("COMMENT", "clear")]
    )  # fmt: skip
    image = fits.PrimaryHDU(rng.integers(0, 65535, (16, 16)).astype(np.uint16), header)
    more = fits.ImageHDU(np.ones((8, 8), np.float32))
    table = fits.BinTableHDU(Table({"a": np.arange(3)}))
    found = []
    for hdus in ([image], [image, table], [fits.PrimaryHDU(header=header), more]):
        sink = io.BytesIO()
        fits.HDUList(hdus).writeto(sink)
        found.append(sink.getvalue())
    return tuple(found)


@examples(300)
@given(
    st.one_of(st.binary(max_size=6000), st.builds(b"SIMPLE  =".__add__, st.binary(max_size=6000)), mutated(frames()))
)
def test_header_cards_are_values_without_control_characters(block):
    for key, value in parse_header(block).items():
        assert re.fullmatch(r"[A-Z0-9_-]{1,8}", key)
        assert value is None or isinstance(value, str | float | int | bool)
        if isinstance(value, str):
            assert value.strip() == value
            assert not re.search(r"[\x00-\x1f\x7f-\x9f]", value)


@examples(150)
@given(
    st.one_of(st.binary(max_size=6000), mutated(frames()), mutated(tuple(gzip.compress(f, mtime=0) for f in frames()))),
    st.sampled_from([".fits", ".fits.gz"]),
)
def test_a_file_has_a_header_or_a_reason(content, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(content)
        try:
            header, pixels = read_header(path)
        except StageError as error:
            says_why(error)
            return
        assert pixels >= 0
        for words in ((), *([key] for key in header)):
            assert isinstance(text(header, tuple(words)), str)
            value = number(header, tuple(words))
            assert value is None or isinstance(value, float)
        for key in header:
            assert isinstance(integer(header, key), int | None)
        verdict = classify(header, path.name, T120)
        assert verdict.kind in ("bias", "dark", "flat", "science", "junk")
        assert verdict.why


@examples(150)
@given(
    st.one_of(st.binary(max_size=6000), mutated(frames()), mutated(tuple(gzip.compress(f, mtime=0) for f in frames())))
)
def test_pixels_are_read_or_refused(content):
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        path = Path(folder) / "a.fits"
        path.write_bytes(content)
        try:
            image = open_raw(path, "reduction")
            rows = image.rows(0, 4)
            carry_over(image.header)
        except StageError as error:
            says_why(error)
            return
        assert rows.dtype == np.float32
        assert rows.shape[1] == image.shape[1]


@examples(40)
@given(st.lists(st.one_of(st.binary(max_size=3000), mutated(frames())), min_size=1, max_size=4), st.data())
def test_every_file_of_a_folder_is_in_the_inventory(contents, data):
    names = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=40)
    with tempfile.TemporaryDirectory() as folder:
        roots = Roots(data=Path(folder) / "data", raw=Path(folder) / "raw")
        night = roots.raw / "T120" / "20230314"
        night.mkdir(parents=True)
        written = set()
        for content in contents:
            path = night / f"{data.draw(names)}.fits"
            try:
                path.write_bytes(content)
            except (OSError, UnicodeEncodeError):  # no name for a file
                continue
            # bytes that are no UTF-8 are shown escaped
            written.add(os.fsencode(path.relative_to(roots.raw)).decode("utf-8", "backslashreplace"))
        inventory = take_inventory(roots, T120)
        assert {row.path for row in inventory.rows} == written
        assert all(row.why for row in inventory.rows)
        json.loads(inventory.model_dump_json())


# ------------------------------------------------------------------------------------------------- names and paths

ANY_TEXT = st.one_of(
    st.text(st.characters(exclude_categories=())),
    st.text("./\\-_ @$`'\"\n\r\t\0*?~é;|&<>", max_size=300),
    st.text("aA1.+-_", min_size=1, max_size=300),
)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@examples(300)
@given(ANY_TEXT)
@example("..")
@example("CON")
@example("a" * 300)
@example("\udce9.fits")
def test_any_text_becomes_one_name_inside_its_folder(word):
    name = safe_name(word)
    assert NAME.fullmatch(name)
    assert len(name) <= 100
    assert not name.endswith(".")
    assert PurePosixPath(name).name == name
    assert safe_name(name) == name
    raw = {"path": "a.fits", "digest": "0" * 64, "name": f"{name}-12", "kind": "science", "why": "test"}
    raw |= {"telescope": "T120", "night": "20230314", "date_obs": datetime(2023, 3, 14, tzinfo=UTC), "exptime": 1}
    assert RawFrame.model_validate(raw | {"binning": 2, "shape": (4, 4), "filter": "g", "object": word[:20]})


@examples(300)
@given(ANY_TEXT)
def test_a_product_lies_inside_the_data_root_or_is_none(word):
    try:
        path = FileRef(path=word, digest="0" * 64).path
    except ValidationError:
        return
    inside = Path("/data/root") / path
    assert ".." not in inside.parts
    assert inside.is_relative_to("/data/root")
    assert "\0" not in path


@examples(100)
@given(ANY_TEXT)
def test_a_group_by_any_name_is_a_folder_or_none(word):
    targets = load_targets()
    assert all(isinstance(each, str) and each for each in designations(word))
    known = target_by_object(word, targets)
    assert known is None or known.name in targets
    try:
        found = find_target(word, targets)
        assert found.name in targets
    except TargetError as error:
        says_why(error)
    try:
        target = Target(name=word, ra=1, dec=2)
    except ValidationError:
        return
    stack = stack_paths(target.name, "T120", "g", Roots(data=Path("/d"), raw=Path("/r"))).image
    assert stack.parent.parent.parent == Path("/d/stacks")


@examples(150)
@given(ANY_TEXT)
@example("../../etc/passwd")
@example("/etc/passwd")
@example("t120")
def test_a_telescope_by_any_name_is_a_shipped_one_or_none(word):
    try:
        assert load_telescope(word).name.lower() == word.lower()
    except TelescopeError as error:
        says_why(error)


# ------------------------------------------------------------------------------------------------------ catalogues


@cache
def votables() -> tuple[bytes, ...]:
    """Answers in each of VOTable's encodings."""
    rows = Table(
        {"source_id": np.arange(6) + (1 << 60), "ra": np.linspace(1, 2, 6), "name": ["a", "b", "", "d", "é", "f"]}
    )
    return tuple(as_votable(rows, "OK", form) for form in ("tabledata", "binary", "binary2"))


@examples(250)
@given(
    st.one_of(
        st.binary(max_size=2000),
        mutated(votables()),
        mutated(votables()).map(lambda content: gzip.compress(content, mtime=0)),
        mutated(tuple(gzip.compress(content, mtime=0) for content in votables())),
    )
)
@example(b'<?xml version="1.0" encoding="t"?>')
@example(b'<?xml version="1.0" encoding="idna"?><a>\xff</a>')
def test_a_votable_is_a_table_or_an_answer_that_is_none(content):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            table = parse_votable(content, LIMIT)
        except AnswerError as error:
            says_why(error)
            return
    assert isinstance(table, Table)


@examples(200)
@given(
    st.binary(max_size=3000), st.sampled_from([lambda c: c, gzip.compress, lambda c: gzip.compress(gzip.compress(c))])
)
def test_an_answer_is_unpacked_once_and_never_beyond_its_limit(content, pack):
    try:
        plain = unpack(pack(content), 1000)
    except AnswerError as error:
        says_why(error)
        return
    assert len(plain) <= max(1000, len(content))
    assert plain == content


@cache
def mast() -> tuple[bytes, ...]:
    """An answer of MAST with three rows."""
    info = [{"name": name} for name in PS1.columns]
    rows = [[(n + 1 if name in PS1.integers else 10.5 + n) for name in PS1.columns] for n in range(3)]
    return (
        json.dumps({"info": info, "data": rows}).encode(),
        json.dumps({"info": info, "data": []}, indent=1).encode(),
    )


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["info", "data", "name", "x"]), inner),
    max_leaves=20,
)


@examples(100)
@given(st.one_of(st.binary(max_size=500), mutated(mast()), JSON_VALUES.map(lambda value: json.dumps(value).encode())))
@example(b"[" * 100_000)
@example(b'{"info": [], "data": ' + b"9" * 5000 + b"}")
def test_an_answer_of_mast_is_a_table_or_none(content):
    try:
        table = parse_mast(content)
    except AnswerError as error:
        says_why(error)
        return
    assert table.colnames == list(PS1.columns)
    assert all(table[name].dtype == (np.int64 if name in PS1.integers else np.float64) for name in PS1.columns)
    plain = normalise("ps1", table)
    assert np.all(np.abs(plain["decMean"]) <= 90)


@examples(60)
@given(st.data())
def test_rows_of_mast_with_any_values_are_a_table_or_none(data):
    value = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({})
    )
    row = st.lists(value, min_size=len(PS1.columns), max_size=len(PS1.columns))
    info = [{"column_name": name} for name in PS1.columns]
    content = json.dumps({"info": info, "data": data.draw(st.lists(row, max_size=3))}).encode()
    try:
        assert len(parse_mast(content).colnames) == len(PS1.columns)
    except AnswerError as error:
        says_why(error)


@cache
def catalogue_files() -> tuple[tuple[str, bytes], ...]:
    """The same table as CSV, ECSV, FITS and VOTable."""
    rng = np.random.default_rng(3)
    table = Table({name: rng.uniform(0.1, 0.2, 80) for name in ("ra", "dec", "pmra", "pmdec", "phot_g_mean_mag")})
    table["source_id"] = np.arange(80) + 1
    found = []
    for name, form in (("a.csv", "ascii.csv"), ("a.ecsv", "ascii.ecsv"), ("a.fits", "fits"), ("a.vot", "votable")):
        with tempfile.TemporaryDirectory() as folder:
            table.write(Path(folder) / name, format=form)
            found.append((name, (Path(folder) / name).read_bytes()))
    return tuple(found)


@examples(60)
@given(st.data())
def test_a_catalogue_file_is_imported_or_refused(data):
    name, original = data.draw(st.sampled_from(catalogue_files()))
    content = data.draw(st.one_of(mutated((original,)), st.binary(max_size=1000)))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            found = read_catalog_file("gaia", path, Cone(ra=0.15, dec=0.15, radius=0.3))
        except UserError as error:
            says_why(error)
            return
    assert 0 < len(found.table) <= 200
    assert all(math.isfinite(value) for value in found.table["ra"])


@examples(60)
@given(st.one_of(st.binary(max_size=300), JSON_VALUES.map(lambda value: json.dumps(value).encode())))
def test_a_damaged_store_is_an_empty_one(content):
    with tempfile.TemporaryDirectory() as folder:
        roots = Roots(data=Path(folder), raw=Path(folder) / "raw")
        (roots.catalogs / "gaia").mkdir(parents=True)
        (roots.catalogs / "names.json").write_bytes(content)
        (roots.catalogs / "gaia" / "gaia_1.0000_+2.0000_0.500.json").write_bytes(content)
        (roots.catalogs / "gaia" / "gaia_1.0000_+2.0000_0.500.fits").write_bytes(content)
        assert all(isinstance(place, NamedPlace) for place in known_names(roots).values())
        found = find_cone("gaia", Cone(ra=1, dec=2, radius=0.1), roots)
        assert found is None or isinstance(found, StoredCone)


@pytest.mark.parametrize("original", range(3))
def test_what_is_not_changed_is_read(original):
    """The tests above would pass on readers that refuse everything."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.fits"
        path.write_bytes(frames()[original])
        assert text(read_header(path)[0], ("OBJECT",)) == "M 67"
        assert open_raw(path, "reduction").rows().size in (256, 64)
        for name, content in catalogue_files():
            (Path(folder) / name).write_bytes(content)
            assert len(read_catalog_file("gaia", Path(folder) / name, Cone(ra=0.15, dec=0.15, radius=0.3)).table) == 80
    assert len(parse_votable(votables()[original], LIMIT)) == 6
    assert len(parse_mast(mast()[0])) == 3
