"""Cache keys: contents and code, not places, times or comments."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import textwrap
import time
from datetime import UTC, datetime

import pytest
from prefect import Task

from models.base import FileRef
from models.run import STAGES
from tasks.core import cache
from tasks.core.cache import code_digest
from tasks.core.records import products_in


def test_a_path_is_no_key():
    from pathlib import Path

    with pytest.raises(TypeError, match="pass a model, a FileRef"):
        cache._canonical(Path("/x"))


def test_a_file_counts_by_its_content():
    one = FileRef(path="a/x.fits", digest="1" * 64)
    moved = FileRef(path="b/y.fits", digest="1" * 64)
    other = FileRef(path="a/x.fits", digest="2" * 64)
    assert cache._canonical({"f": [one]}) == cache._canonical({"f": [moved]})
    assert cache._canonical({"f": [one]}) != cache._canonical({"f": [other]})
    assert cache._canonical(datetime(2025, 3, 17, tzinfo=UTC)) == "2025-03-17T00:00:00+00:00"


def test_products_are_found_wherever_they_are():
    one, two = FileRef(path="x", digest="1" * 64), FileRef(path="y", digest="2" * 64)
    assert list(products_in({"a": [one, (two, None)], "b": 3})) == [one, two]


def forget():
    cache._code_digest.cache_clear()
    cache._source_of.cache_clear()
    cache._digest_of.cache_clear()
    cache._handed_on.cache_clear()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module `tasks.invented` whose source a test can change."""
    source = tmp_path / "invented.py"
    real = importlib.util.find_spec

    def find_spec(name, *args):
        if name == "tasks.invented":
            return importlib.util.spec_from_file_location(name, source)
        return real(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.delitem(sys.modules, "tasks.invented", raising=False)

    def digest(text: str) -> str:
        source.write_text(text)
        forget()
        return code_digest("tasks.invented")

    yield digest
    forget()


def test_what_code_says_of_itself_is_not_what_it_does(module):
    plain = module("def f(x):\n    return x + 1\n")
    assert module('"""Doc."""\n\ndef f(x):\n    """Add."""\n    return x + 1  # one\n') == plain
    assert module("def f(x):\n    return x + 2\n") != plain


def test_code_that_it_imports_counts(module):
    alone = module("def f(x):\n    return x\n")
    with_units = module("from tasks.core.fitsio import write_fits\n\ndef f(x):\n    return x\n")
    assert alone != with_units


def test_who_reads_a_catalogue_does_not_depend_on_how_it_is_fetched(module):
    def modules(name: str) -> set[str]:
        seen, waiting = set(), [name]
        while waiting:
            each = waiting.pop()
            if each in seen or (source := cache._source_of(each)) is None:
                continue
            seen.add(each)
            waiting += [other for other in source[1] if other.startswith("tasks.")]
        return seen

    solving = modules("tasks.astrometry.plate")
    assert "tasks.catalogs.store" in solving
    assert "tasks.astrometry.fitting" in solving
    assert not solving & {"tasks.catalogs.services", "tasks.catalogs.fetch", "tasks.astrometry.alignment"}


def test_one_thread_parses_at_a_time(monkeypatch):
    """Python 3.11's parser fails in one of several threads now and then; Prefect then caches nothing."""
    from concurrent.futures import ThreadPoolExecutor

    at_once, most = 0, 0
    real = cache.ast.parse

    def parse(*args, **kwargs):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.002)
        at_once -= 1
        return real(*args, **kwargs)

    monkeypatch.setattr(cache.ast, "parse", parse)
    forget()
    modules = ["tasks.astrometry.plate", "tasks.stacking.combine", "tasks.photometry.calibrate", "tasks.psf.stack"]
    with ThreadPoolExecutor(8) as threads:
        digests = list(threads.map(code_digest, modules * 4))
    assert digests == digests[:4] * 4
    assert most == 1


def test_a_parser_that_another_thread_disturbed_is_asked_again(monkeypatch):
    real, asked = cache.ast.parse, []

    def parse(source):
        asked.append(source)
        if len(asked) % 3:
            raise SystemError("AST constructor recursion depth mismatch (before=78, after=89)")
        return real(source)

    forget()
    expected = code_digest("tasks.psf.stack")
    forget()
    monkeypatch.setattr(cache.ast, "parse", parse)
    assert code_digest("tasks.psf.stack") == expected
    assert len(asked) > 3


MODEL = """
from models.base import Record

class Raw(Record):
    start: float = 0.0

    @property
    def middle(self):
        return self.start + {number}
"""


def test_what_a_model_computes_counts_and_its_fields_do_not(monkeypatch, tmp_path):
    """The values of fields are in the key; what a property makes of them is not."""
    source = tmp_path / "invented.py"
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *args: importlib.util.spec_from_file_location(name, source) if "invented" in name else real(name),
    )

    def digest(text: str) -> str:
        source.write_text(text)
        forget()
        return code_digest("models.invented")

    plain = digest(MODEL.format(number=1))
    assert (
        digest(MODEL.format(number=1).replace("start: float = 0.0", 'start: float = Field(1.0, description="s")'))
        == plain
    )
    assert digest(MODEL.format(number=2)) != plain
    forget()


def cached_tasks():
    import importlib as imports

    subjects = (
        "archive", "astrometry", "calibration", "pages", "photometry", "psf", "quality", "report", "sourcelists",
        "stacking", "validation",
    )  # fmt: skip
    for subject in subjects:
        for value in vars(imports.import_module(f"tasks.{subject}.tasks")).values():
            if isinstance(value, Task) and isinstance(value.cache_policy, cache.ByContent):
                yield value


@pytest.mark.parametrize("task", list(cached_tasks()), ids=lambda task: task.name)
def test_the_function_that_a_task_runs_is_in_its_key(task):
    tree = ast.parse(textwrap.dedent(inspect.getsource(task.fn)))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    (run,) = [call for call in calls if call.func.id in ("settled", "made")]
    name = run.args[1 if run.func.id == "settled" else 0].id
    assert name in [function.__name__ for function in task.cache_policy.code]


def test_every_tool_that_a_stage_may_run_is_in_its_key():
    """Seen in the source: a module that calls `run_tool` is reached only by tasks that name its tool."""
    tools = {task.name: set(task.cache_policy.tools) for task in cached_tasks()}
    assert tools["solve"] == {"solve-field"}
    assert tools["align group"] == {"scamp"}
    assert tools["combine"] == {"SWarp"}
    assert tools["model PSF"] == tools["PSF of stack"] == {"source-extractor", "psfex"}
    assert {name for name, used in tools.items() if not used} >= {"reduce", "measure", "calibrate", "validate"}


def test_every_cached_task_can_be_refreshed():
    assert {task.name.lower().replace(" ", "-") for task in cached_tasks()} == set(STAGES)


def test_every_cached_task_can_be_refreshed_by_its_name():
    import importlib
    import pkgutil

    from prefect import Task

    import tasks
    from models.run import STAGES
    from tasks.core.records import stage_of

    names = []
    for package in pkgutil.iter_modules(tasks.__path__, "tasks."):
        if importlib.util.find_spec(f"{package.name}.tasks") is None:
            continue
        module = importlib.import_module(f"{package.name}.tasks")
        names += [
            stage_of(each.cache_policy.key(each.name, {}))
            for each in vars(module).values()
            if isinstance(each, Task) and isinstance(each.cache_policy, cache.ByContent)
        ]
    assert sorted(names) == sorted(STAGES)


def test_a_default_is_the_same_key_as_the_value_that_a_form_sends():
    from models.settings import FlatSettings

    sent = FlatSettings.model_validate_json(FlatSettings().model_dump_json())
    assert cache._canonical(sent) == cache._canonical(FlatSettings())
    assert repr(cache._canonical(sent)) == repr(cache._canonical(FlatSettings()))
