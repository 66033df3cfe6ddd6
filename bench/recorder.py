"""Stacks a group in this process and keeps every command line of a tool with the folder as it was before.

python -m bench.recorder --root DIR --group M51 --to FOLDER

FOLDER/0000, 0001 ... are the scratch folders; FOLDER/commands.json says what ran in them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["main"]


def _record(to: Path) -> None:
    """Put a recorder in the place of `tasks.core.tools.run_tool`, wherever it was imported."""
    from tasks.core import tools

    commands: list[dict[str, Any]] = []
    run_tool, lock = tools.run_tool, threading.Lock()

    def _keep(label: str, arguments: Sequence[str], cwd: Path) -> None:
        folder = to / f"{len(commands):04d}"
        shutil.copytree(cwd, folder, symlinks=True)
        # Paths into the scratch folder become paths into the copy.
        own = [argument.replace(str(cwd), str(folder)) for argument in arguments]
        for path in folder.iterdir():
            if path.is_file() and path.suffix in {".conf", ".cfg"}:
                path.write_text(path.read_text(encoding="utf-8").replace(str(cwd), str(folder)), encoding="utf-8")
        commands.append({"tool": label, "command": [tools._resolve(label), *own], "folder": folder.name})
        (to / "commands.json").write_text(json.dumps(commands, indent=1), encoding="utf-8")

    def recorded(label: str, arguments: Sequence[str], **options: Any) -> str:
        if len(arguments) > 1:  # else it is asked for its version
            with lock:
                _keep(label, arguments, Path(options["cwd"]))
        return run_tool(label, arguments, **options)

    for module in list(sys.modules.values()):
        if getattr(module, "run_tool", None) is run_tool:
            module.run_tool = recorded  # type: ignore[attr-defined]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.recorder", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--to", type=Path, required=True)
    arguments = parser.parse_args()

    from flows._prefect import prepare
    from models.settings import Settings

    root = arguments.root.resolve()
    settings = Settings(data_root=root, raw_root=root / "raw", workers=1)
    prepare(settings)

    from flows._runner import run_all
    from flows.stack_target import stack_target
    from tasks.core.pool import work_here

    work_here()
    arguments.to.mkdir(parents=True)
    _record(arguments.to.resolve())
    return run_all(stack_target, [(arguments.group, "T120", settings)], settings)


if __name__ == "__main__":
    sys.exit(main())
