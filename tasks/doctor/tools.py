"""The external tools: there, and not older than those this project was measured with."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor

from tasks.core.errors import StageError
from tasks.core.tools import TOOLS, ToolMissingError, tool_version
from tasks.doctor.check import Check

__all__ = ["check_tools"]

# Debian 12's; settings and traps were measured with these (docs/pipeline_description.md).
_MEASURED = {
    "source-extractor": (2, 25),
    "scamp": (2, 10),
    "SWarp": (2, 41),
    "psfex": (3, 21),
    "solve-field": (0, 93),
    "build-astrometry-index": (0, 93),
}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.rpartition(" ")[2]))


def _check(label: str) -> Check:
    package = TOOLS[label].package
    try:
        version = tool_version(label)
    except StageError as error:
        again = "" if isinstance(error, ToolMissingError) else "--reinstall "
        return Check(
            subject="tools", name=label, state="missing", found=error.reason, mend=f"apt-get install {again}{package}"
        )
    path = next(found for name in TOOLS[label].names if (found := shutil.which(name)))
    found = f"{version.rpartition(' ')[2]} ({path})"
    if _numbers(version) < _MEASURED[label]:
        least = ".".join(map(str, _MEASURED[label]))
        return Check(
            subject="tools", name=label, state="note", found=f"{found}; all was measured with {least} or newer",
            mend=f"apt-get install {package} on Debian 12 or newer",
        )  # fmt: skip
    return Check(subject="tools", name=label, state="ok", found=found)


def check_tools() -> list[Check]:
    """Every tool that `tasks.core.tools` knows, asked for its version."""
    with ThreadPoolExecutor(len(TOOLS)) as threads:
        return list(threads.map(_check, TOOLS))
