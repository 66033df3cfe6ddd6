"""A data root with a finished campaign, runs on it, and what really ran in them, told by three witnesses.

The ledger (`tasks.core.ledger`) is what the tests count by. It is not believed: each run in this process is also
counted where the pure functions are handed to the pool, and each product's inode tells whether its file was replaced.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.base import FileRef, Roots
from models.page import Picture
from models.run import RunSummary, Stage
from models.settings import Settings
from tasks.core import running
from tasks.core.errors import StageError
from tasks.core.ledger import Made, read_made, size
from tasks.core.records import NOTHING, Recording
from tests.demo import REPO

__all__ = ["GROUPS", "NOTHING_RAN", "YEAR", "Ran", "Site", "as_subprocess", "counted_bodies", "files_of"]

YEAR = 2023
GROUPS = ("M67", "M51")
NOTHING_RAN: dict[str, int] = {}

_STAGE_OF_FUNCTION = {
    "make_master_bias": "master-bias",
    "make_master_flat": "master-flat",
    "reduce_frame": "reduce",
    "measure_frame": "measure",
    "build_index": "build-index",
    "solve_frame": "solve",
    "calibrate_frame": "calibrate",
    "model_psf": "model-psf",
    "publish_frame": "publish",
    "align_frames": "align-group",
    "_scale_and_select": "select-frames",
    "common_grid": "grid",
    "combine": "combine",
    "stack_psf": "psf-of-stack",
    "_with_tie": "tie-to-ps1",
    "validate_stack": "validate",
    "_measure_and_plot": "validation-plot",
    "_measure_and_finish": "finish-stack",
    "plot_stack": "picture-of-stack",
    "plot_rgb": "colour-picture",
    "find_sources": "sources-of-group",
    "extend": "extend",
    "finish_extended": "finish-extended",
    "plot_extended": "picture-of-extended",
    "mean_psf": "mean-psf",
    "pictures_of_stack": "maps-of-stack",
    "_plots": "plots-of-stack",
    "group_pictures": "pictures-of-group",
    "night_picture": "timeline-of-night",
    "make_source_list": "source-list",
    "compress_image": "compressed-copy",
}


def pictures_in(made: Any) -> list[FileRef]:
    """Files of the pictures that a record of `models.page` holds."""
    return [value.file for _, value in made if isinstance(value, Picture)]


_PRODUCTS: dict[str, Callable[[Any], list[FileRef]]] = {
    "master-bias": lambda made: [made.file],
    "master-flat": lambda made: [made.file],
    "reduce": lambda made: [made.file],
    "measure": lambda made: [made.sources],
    "build-index": lambda made: list(made.files),
    "solve": lambda made: [made.solution.wcs],
    "model-psf": lambda made: [made.psf, made.catalogue],
    "publish": lambda made: [made],
    "align-group": lambda made: [frame.head for frame in made.aligned],
    "select-frames": lambda made: [],
    "combine": lambda made: [made.image, made.weight],
    "psf-of-stack": lambda made: [made.file],
    "tie-to-ps1": lambda made: [made.compared] if made.compared is not None else [],
    "validation-plot": lambda made: [made],
    "finish-stack": lambda made: [made.image, made.weight],
    "picture-of-stack": lambda made: [made],
    "colour-picture": lambda made: [made] if made is not None else [],
    "sources-of-group": lambda made: [made.map],
    "source-list": lambda made: [made.fits, made.parquet],
    "extend": lambda made: [made.file, made.sky],
    "finish-extended": lambda made: [made.file],
    "picture-of-extended": lambda made: [made] if made is not None else [],
    "mean-psf": lambda made: [made],
    "maps-of-stack": pictures_in,
    "plots-of-stack": pictures_in,
    "pictures-of-group": pictures_in,
    "timeline-of-night": lambda made: [made.file],
    "compressed-copy": lambda made: [made.file],
}
"""What each stage writes, by its result; stages that are not here write no file."""

_EVERY_RUN = re.compile(
    r"\d{4}/T120/(qc/frame_stats|astrometry/astrom_report|photometry/(phot_report|colour_terms)|psf/psf_report|frames|"
    r"masters|page)\.json|\d{4}/T120/index\.html|schemas/.*|stacks/[^/]*\.(json|html)|stacks/[^/]*/T120/[^/]*\.(json|html)|"
    r"stacks/[^/]*/T120/[^/]*_moc\.fits|\.cache/unchanged/coverage_[^/]*\.json"
)
"""Reports and pages: written by every run, which costs milliseconds and reads no pixel; and the coverage map, which is
drawn anew where a weight map is another one (`unless_unchanged`)."""

_OURS = re.compile(r"(raw|logs|\.prefect|\.cache/(results|scratch|matplotlib|locks|digests).*)(/|$)")


def files_of(roots: Roots) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every product."""
    found = {}
    for folder, names, files in os.walk(roots.data):
        below = Path(folder).relative_to(roots.data).as_posix()
        names[:] = [name for name in names if not _OURS.match(f"{below}/{name}".removeprefix("./"))]
        for name in files:
            relative = f"{below}/{name}".removeprefix("./")
            if not _OURS.match(relative):
                status = os.stat(Path(folder, name))
                found[relative] = (status.st_ino, status.st_mtime_ns)
    return found


_handed: list[str] = []


@contextlib.contextmanager
def counted_bodies() -> Iterator[None]:
    """Count what is handed to the pool, where it is handed over."""
    real = running.in_pool

    @functools.wraps(real)
    def in_pool(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            result = real(function, *args, **kwargs)
        except StageError:
            _handed.append(_STAGE_OF_FUNCTION[function.__name__])
            raise
        _handed.append(_STAGE_OF_FUNCTION[function.__name__])
        return result

    running.in_pool = in_pool
    try:
        yield
    finally:
        running.in_pool = real


@dataclass(frozen=True)
class Ran:
    """What really ran."""

    entries: list[Made]
    summaries: list[RunSummary] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Bodies by stage."""
        return dict(Counter(entry.stage for entry in self.entries))

    def of(self, *stages: str) -> set[str]:
        """Names of the runs of some stages."""
        return {entry.what for entry in self.entries if entry.stage in stages}

    @property
    def frames(self) -> set[str]:
        """Frames that anything ran for, such as ``'20230314 M67-0001g_60'``."""
        return {match.group() for entry in self.entries if (match := re.search(r"\d{8} \S+", entry.what))}


@dataclass(frozen=True)
class Site:
    """A data root of a test's own."""

    roots: Roots

    def settings(self, **given: Any) -> Settings:
        """Settings of a run here: `pipeline.toml` of the data root counts."""
        places = {"data_root": self.roots.data, "raw_root": self.roots.raw, "workers": 2, "catalog_mode": "offline"}
        return Settings(**(places | given))

    def run(self, refresh: tuple[Stage, ...] = (), groups: tuple[str, ...] = GROUPS, **given: Any) -> Ran:
        """`reduce_year` and `stack_target` in this process; the three witnesses must agree."""
        from flows.reduce_year import reduce_year
        from flows.stack_target import stack_target

        settings = self.settings(**given)
        before, start = files_of(self.roots), size(self.roots)
        _handed.clear()
        summaries = []
        for flow, subject in [(reduce_year, YEAR), *((stack_target, group) for group in groups)]:
            state = flow(subject, "T120", settings, refresh, return_state=True)
            summary = state.result(raise_on_failure=False)
            if not isinstance(summary, RunSummary):
                raise summary if isinstance(summary, BaseException) else AssertionError(str(state))
            summaries.append(summary)
        ran = Ran(read_made(self.roots, start), summaries)
        assert Counter(_handed) == Counter(ran.counts), "the ledger does not say what was handed to the pool"
        self._check_files(before, ran)
        return ran

    def _check_files(self, before: dict[str, tuple[int, int]], ran: Ran) -> None:
        after = files_of(self.roots)
        replaced = {
            name for name, status in after.items() if before.get(name) != status and not _EVERY_RUN.fullmatch(name)
        }
        made = set()
        for entry in ran.entries:
            result = Recording(self.roots).get(entry.key)
            if entry.outcome == "made" and entry.stage in _PRODUCTS:
                assert result is not NOTHING, f"{entry.what} ran and left no record that counts"
                made |= {product.path for product in _PRODUCTS[entry.stage](result)}
        odd = sorted(replaced ^ made)
        assert odd == [], f"the files that were replaced are not those of the bodies in the ledger: {odd}"

    def record(self, stage: str) -> Path:
        """The record that was made last of a stage."""
        last = [entry for entry in read_made(self.roots) if entry.stage == stage][-1]
        return Recording(self.roots).folder / last.key

    def product(self, pattern: str) -> Path:
        """The first file that a pattern below the data root finds."""
        found = sorted(self.roots.data.glob(pattern))
        assert found, f"no {pattern} under {self.roots.data}"
        return found[0]


def copied(site: Site, to: Path) -> Site:
    """The whole data root at another place, all times new."""
    shutil.copytree(site.roots.data, to, copy_function=shutil.copy, ignore=shutil.ignore_patterns(".prefect"))
    return Site(Roots(data=to, raw=to / "raw"))


def as_subprocess(*arguments: str, site: Site, api: str, cwd: Path = REPO, **environment: str) -> subprocess.Popen[str]:
    """One of our commands as a shell starts it, in a process group of its own, beside a running server."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OHP_", "PREFECT_"))}
    ours = {"HOME": str(site.roots.data), "OHP_CATALOG_MODE": "offline", "OHP_WORKERS": "2", "PREFECT_API_URL": api}
    return subprocess.Popen(
        [sys.executable, "-m", *arguments, "--root", str(site.roots.data), "--raw-root", str(site.roots.raw)],
        cwd=cwd,
        env=clean | ours | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
