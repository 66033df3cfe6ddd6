"""Versions of what made a product."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

from tasks.core.tools import ToolFailedError, ToolMissingError, tool_version

__all__ = ["software_versions"]

_PACKAGES = ("numpy", "scipy", "astropy", "sep", "photutils", "pydantic", "prefect")


@cache
def _ours() -> str:
    with (Path(__file__).resolve().parents[2] / "pyproject.toml").open("rb") as stream:
        return str(tomllib.load(stream)["project"]["version"])


def software_versions(tools: Sequence[str] = ()) -> dict[str, str]:
    """Versions of this pipeline, Python, the packages that touch pixels and the external tools asked for.

    A tool that is not installed is listed as ``'missing'``: a report is written all the same.
    """
    versions = {"ohp-pipeline": _ours(), "python": platform.python_version()}
    versions |= {package: version(package) for package in _PACKAGES}
    for tool in tools:
        try:
            versions[tool] = tool_version(tool).removeprefix(f"{tool} ")
        except (ToolMissingError, ToolFailedError):
            versions[tool] = "missing"
    return versions
