"""A record of results is plain JSON of our own models: whoever can write one can make no code run."""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path

import pytest
from prefect.results import ResultRecord, ResultRecordMetadata
from prefect.serializers import CompressedSerializer, JSONSerializer, PickleSerializer, Serializer

from models.base import FileRef, Roots
from models.target import Target
from tasks.core.records import NOTHING, Recording, _Folder, _seal

KEY = "reduce-0123"


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def here(tmp_path: Path) -> Recording:
    recording = Recording(Roots(data=tmp_path, raw=tmp_path / "raw"))
    recording.folder.mkdir(parents=True)
    return recording


def put(here: Recording, serializer: dict, result: str) -> None:
    """A record with a right seal: it is no secret."""
    content = json.dumps({"metadata": {"storage_key": KEY, "serializer": serializer}, "result": result}).encode()
    (here.folder / KEY).write_bytes(content + _seal(KEY, content))


def refused(here: Recording, caplog: pytest.LogCaptureFixture) -> None:
    assert here.get(KEY) is NOTHING
    assert "does not count" in caplog.text
    with pytest.raises(ValueError, match="plain JSON"):  # what Prefect itself reads through
        _Folder(basepath=str(here.folder)).read_path(KEY)


@pytest.mark.parametrize("kind", [PickleSerializer, CompressedSerializer])
def test_a_pickle_in_the_place_of_a_record_is_never_loaded(here, tmp_path, caplog, kind):
    mark = tmp_path / "it-ran"
    serializer: Serializer = PickleSerializer(picklelib="pickle")
    blob = base64.encodebytes(pickle.dumps(Evil(mark)))
    if kind is CompressedSerializer:
        serializer = CompressedSerializer(serializer=serializer, compressionlib="zlib")
        import zlib

        blob = base64.encodebytes(zlib.compress(blob))
    put(here, serializer.model_dump(mode="json", serialize_as_any=True), blob.decode())
    refused(here, caplog)
    assert not mark.exists()

    # The same bytes, read as Prefect reads a record by itself: the test knows what it is afraid of.
    content = (here.folder / KEY).read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[0]
    ResultRecord.deserialize(content)
    assert mark.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"object_decoder": "os.system"},
        {"jsonlib": "tests.security.no_such_module"},
        {"loads_kwargs": {"parse_float": "x"}},
        {"type": "unheard of"},
    ],
)
def test_a_record_that_names_another_reader_does_not_count(here, caplog, change):
    put(here, JSONSerializer().model_dump(mode="json") | change, "{}")
    refused(here, caplog)


@pytest.mark.parametrize(
    "value",
    [
        {"__class__": "subprocess.Popen", "data": ["touch", "x"]},
        {"__class__": "this.Zen", "data": {}},  # importing `this` prints a poem
        {"__class__": "models.base.Path", "data": "/etc/passwd"},
        {"__class__": "models.target.load_targets", "data": {}},
        {"__class__": "FileRef", "data": {}},
        {"__exc_type__": "builtins.SystemExit", "message": "1"},
        {"__class__": "models.base.FileRef", "data": {"path": "../../x", "digest": "0" * 64}},
        {"__class__": "models.base.FileRef", "data": {"path": "/etc/passwd", "digest": "0" * 64}},
        {"__class__": "models.base.FileRef"},
        [[{"a": {"__class__": "os.system", "data": "true"}}]],
    ],
)
def test_a_record_of_anything_but_our_models_does_not_count(here, caplog, capsys, value):
    put(here, JSONSerializer().model_dump(mode="json"), json.dumps(value))
    assert here.get(KEY) is NOTHING
    assert "does not count" in caplog.text
    assert capsys.readouterr().out == ""


def test_a_damaged_or_endlessly_nested_record_does_not_count(here, caplog):
    put(here, JSONSerializer().model_dump(mode="json"), "[" * 100_000)
    assert here.get(KEY) is NOTHING
    (here.folder / KEY).write_bytes(b"[]" + _seal(KEY, b"[]"))
    assert here.get(KEY) is NOTHING


@pytest.mark.parametrize(
    "result", [None, 3, [1.5, "a"], Target(name="M67", ra=1, dec=2), {"b": [FileRef(path="x", digest="a" * 64)]}]
)
def test_what_prefect_writes_is_read_back(tmp_path, result):
    """Through Prefect's own writing; a product that is not there makes the record one of nothing, as ever."""
    here = Recording(Roots(data=tmp_path, raw=tmp_path / "raw"))
    here.folder.mkdir(parents=True)
    record = ResultRecord(result=result, metadata=ResultRecordMetadata(storage_key=KEY, serializer=JSONSerializer()))
    _Folder(basepath=str(here.folder)).write_path(KEY, record.serialize())
    if isinstance(result, dict):
        assert here.get(KEY) is NOTHING
    else:
        assert here.get(KEY) == result
        assert type(here.get(KEY)) is type(result)
