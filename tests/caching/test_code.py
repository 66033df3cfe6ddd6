"""A function of one stage changed, or a tool's version: that stage runs again, and what depends on it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tasks.core.ledger import read_made, size
from tests.caching.site import NOTHING_RAN, YEAR, Ran, as_subprocess
from tests.demo import REPO

pytestmark = [pytest.mark.tools]

CHANGES = {
    "validation, a number that decides nothing here": (
        "tasks/validation/validate.py",
        "",
        "\n\ndef _never_called() -> int:\n    return 7\n",
        {
            "tie-to-ps1": 2,
            "validate": 2,
            "validation-plot": 2,
            "plots-of-stack": 2,
            # Drawn by modules that import the plots'.
            "maps-of-stack": 2,
            "pictures-of-group": 1,
            "timeline-of-night": 2,
        },
    ),
    "a docstring and a comment": ("tasks/quality/measure.py", '"""', '"""Other words. ', NOTHING_RAN),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_function_of_one_stage_changed(site, api, tmp_path, change):
    """For real: another source tree, in which one file differs, runs on the data root."""
    file, old, new, expected = CHANGES[change]
    tree = tmp_path / "source"
    for part in ("flows", "tasks", "models"):
        shutil.copytree(REPO / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "pyproject.toml", tree)
    text = (tree / file).read_text()
    (tree / file).write_text(text.replace(old, new, 1) if old else text + new)
    start = size(site.roots)
    for command in (["flows.reduce_year", str(YEAR)], ["flows.stack_target", "M67"]):
        output, errors = (process := as_subprocess(*command, site=site, api=api, cwd=tree)).communicate(timeout=400)
        assert process.returncode == 0, output + errors
    assert Ran(read_made(site.roots, start)).counts == expected


TOOLS = {
    "scamp": ({"align-group": 1}, "--version"),
    "psfex": ({"model-psf": 8, "psf-of-stack": 2}, "--version"),
    "source-extractor": ({"model-psf": 8, "psf-of-stack": 2}, "--version"),
    "solve-field": ({"solve": 8}, "--help"),
}


def another_version(tool: str, question: str, folder: Path) -> None:
    """A stand-in that says another version and else is the tool."""
    real = shutil.which(tool)
    assert real is not None
    folder.mkdir()
    stand_in = folder / tool
    stand_in.write_text(
        f'#!/bin/sh\nif [ "$1" = "{question}" ]; then echo "{tool} version 99.9"; else exec {real} "$@"; fi\n'
    )
    stand_in.chmod(0o755)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_of_another_version(site, tmp_path, monkeypatch, tool):
    """The stages that call it run; what they make is the same, so that nothing follows."""
    expected, question = TOOLS[tool]
    another_version(tool, question, tmp_path / "bin")
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path / "bin"), prepend=":")
        assert site.run(groups=("M67",)).counts == expected
    assert site.run(groups=("M67",)).counts == NOTHING_RAN


@pytest.mark.slow  # a minute: everything on the stacks runs again, in a process of its own
def test_another_swarp(site, api, tmp_path):
    """Its version stands in the stacks' headers: they are other files, and what is measured on them runs again."""
    another_version("SWarp", "--version", tmp_path / "bin")
    start = size(site.roots)
    paths = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    process = as_subprocess("flows.stack_target", "M67", site=site, api=api, PATH=paths)
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, output + errors
    stages = (
        "combine",
        "psf-of-stack",
        "tie-to-ps1",
        "validate",
        "validation-plot",
        "finish-stack",
        "picture-of-stack",
        "maps-of-stack",
        "plots-of-stack",
    )
    assert Ran(read_made(site.roots, start)).counts == dict.fromkeys(stages, 2) | {
        "colour-picture": 1,
        "pictures-of-group": 1,
        "sources-of-group": 1,
        "source-list": 1,
    }
