"""Versions of what made a product, for the reports."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tasks.core.errors import StageError
from tasks.core.tools import tool_version

__all__ = ["software_versions"]

_PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
_UNKNOWN = "unknown"


@functools.cache
def _our_version() -> tuple[str, str]:
    try:
        project = tomllib.loads(_PYPROJECT.read_text(encoding="utf-8"))["project"]
    except (OSError, tomllib.TOMLDecodeError, KeyError):  # run from somewhere without the checkout
        return "ohp-pipeline", _UNKNOWN
    return str(project["name"]), str(project["version"])


def software_versions(tools: Sequence[str] = ()) -> dict[str, str]:
    """Name and version of Python, the libraries that make numbers, ourselves and the tools asked for.

    Parameters
    ----------
    tools
        Labels of `tasks.core.tools.TOOLS`; one that is not installed is listed as such.
    """
    name, version = _our_version()
    versions = {name: version, "python": platform.python_version()}
    for package in ("numpy", "scipy", "astropy", "sep", "photutils", "pydantic", "prefect"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    for label in tools:
        try:
            versions[label] = tool_version(label).removeprefix(f"{label} ")
        except StageError as error:
            versions[label] = error.reason
    return versions
