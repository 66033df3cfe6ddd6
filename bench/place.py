"""Where a benchmark works: a folder of its own, the server beside it, the processes it measures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import Finished, Server, clean_environment, free_port, run
from bench.release import TELESCOPE, Plan, make_release
from models.base import Roots

__all__ = ["Place", "reset"]


@dataclass
class Place:
    """A folder to work in.

    Parameters
    ----------
    folder
        Everything is written below it.
    repeats
        How often a figure is taken.
    frames
        Science frames of the simulated release.
    """

    folder: Path
    repeats: int = 5
    frames: int = 3000
    say: Callable[[str], None] = print

    def release(self, name: str, plan: Plan) -> Roots:
        """A new simulated release under the folder (`bench.release`)."""
        root = self.folder / name
        if root.exists():
            shutil.rmtree(root)
        roots = Roots(data=root, raw=root / "raw")
        make_release(plan, roots)
        return roots

    def environment(self, server: Server | None) -> dict[str, str]:
        """Of a process that finds this server, or none and starts Prefect's embedded one."""
        if server is not None:
            return clean_environment(PREFECT_API_URL=server.url)
        return clean_environment(PREFECT_SERVER_API_PORT=str(free_port()))

    def child(
        self,
        roots: Roots,
        label: str,
        *options: str,
        telescope: str = TELESCOPE,
        server: Server | None = None,
        sample: Callable[[int], tuple[float, float]] | None = None,
    ) -> tuple[dict[str, Any], Finished]:
        """Run `bench.child` on a data root; what it says of itself, and how long the process took."""
        out = self.folder / "logs" / f"{label}.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        arguments = ["-m", "bench.child", "--root", str(roots.data), "--raw-root", str(roots.raw)]
        arguments += ["--telescope", telescope, "--out", str(out), *options]
        if server is not None:
            arguments += ["--server-pid", str(server.pid)]
        done = run(arguments, out.with_suffix(".log"), self.environment(server), sample)
        self.say(f"  {label}: {done.seconds:.1f} s")
        return json.loads(out.read_text(encoding="utf-8")), done


def reset(roots: Roots, keep: Sequence[str]) -> None:
    """Remove all products of a data root; of what is kept, only the folders named."""
    for path in roots.data.iterdir():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
