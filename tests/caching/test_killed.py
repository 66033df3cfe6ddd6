"""`kill -9` of the whole process group in the middle: nothing half-written, nothing done twice, the same products."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
from astropy.io import fits

from models.base import Roots
from tasks.core.ledger import read_made, size
from tasks.core.records import NOTHING, Recording
from tests.caching.site import GROUPS, NOTHING_RAN, YEAR, Site, as_subprocess

pytestmark = [pytest.mark.tools]

_DATED = re.compile(
    # Pages give the digests of files that have a date inside.
    rb"(PROCDATE|CHECKSUM)=.{70}|[0-9a-f]{64}|\"made\": \"[^\"]*\"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?( UTC|Z)?"
)
_PNG_END = b"IEND\xaeB`\x82"


def half_written(site: Site) -> list[str]:
    """Files under their own names that are not whole; every product, report and record is opened."""
    found = []
    for path in sorted(site.roots.data.rglob("*")):
        below = path.relative_to(site.roots.data).as_posix()
        if not path.is_file() or below.startswith((".cache/scratch/", ".cache/matplotlib/", ".prefect/")):
            continue
        if path.name.endswith(".tmp"):
            continue
        try:
            if path.suffix in (".fits", ".psf", ".cat"):
                with warnings.catch_warnings(), fits.open(path, memmap=False, checksum=path.suffix == ".fits") as hdus:
                    warnings.simplefilter("error")
                    assert path.stat().st_size % 2880 == 0
                    for hdu in hdus:
                        hdu.data  # noqa: B018 (reads it)
            elif path.suffix in (".json", ".jsonl"):
                text = path.read_text(encoding="utf-8")
                for part in text.splitlines() if path.suffix == ".jsonl" else [text]:
                    json.loads(part)
            elif path.suffix == ".png":
                assert path.read_bytes().endswith(_PNG_END)
            elif path.suffix == ".html":
                assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
            elif path.suffix == ".head":
                assert path.read_text().rstrip().endswith("END")
            elif path.suffix == ".sqlite":
                with contextlib.closing(sqlite3.connect(path)) as database:
                    assert database.execute("pragma integrity_check").fetchone() == ("ok",)
            elif below.startswith(".cache/results/"):
                json.loads(json.loads(path.read_text().splitlines()[0])["result"])
        except (AssertionError, OSError, ValueError, IndexError, Warning) as error:
            found.append(f"{below}: {error}")
    return found


def on_record(site: Site) -> set[str]:
    """Keys of the records that count now."""
    here = Recording(site.roots)
    if not here.folder.is_dir():
        return set()
    return {path.name for path in here.folder.iterdir() if path.suffix != ".tmp" and here.get(path.name) is not NOTHING}


def undated(site: Site, years: Sequence[str] = (f"{YEAR}",)) -> dict[str, bytes]:
    """Every product and report by name, without dates."""
    folders = [*years, "stacks", "astrometry_index", ".cache/ldac", ".cache/sources", ".cache/wcs", ".cache/stacks"]
    return {
        path.relative_to(site.roots.data).as_posix(): _DATED.sub(b"", path.read_bytes())
        for folder in folders
        for path in sorted((site.roots.data / folder).rglob("*"))
        # A year's page links to the groups' pages that are there when it is written.
        if path.is_file() and not (path.name == "index.html" and folder in years)
    }


def fresh(finished: Site, to: Path) -> Site:
    """The campaign without any product."""
    to.mkdir()
    for name in ("raw", "catalogs", "telescopes"):
        shutil.copytree(finished.roots.data / name, to / name)
    return Site(Roots(data=to, raw=to / "raw"))


def killed(process: subprocess.Popen[str], site: Site, bodies: int, then_s: float) -> bool:
    """Kill the process group once so many bodies have run; False if it ended before."""
    end = time.monotonic() + 400
    while process.poll() is None and time.monotonic() < end:
        if len(read_made(site.roots)) >= bodies:
            time.sleep(then_s)
            break
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    output, errors = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL), output + errors
    return process.returncode != 0


@pytest.mark.parametrize("moments", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_in_the_middle(finished, api, tmp_path, moments):
    """One kill after the other on one data root, over all the work of `reduce_year` and `stack_target`."""
    drawn = random.Random(moments)
    site = fresh(finished, tmp_path / "data")
    complete = len({entry.key for entry in read_made(finished.roots)})
    waiting = sorted(drawn.sample(range(1, complete - 2), moments))
    kills: list[tuple[int, set[str]]] = []
    for command in (["flows.reduce_year", str(YEAR)], ["flows.stack_target", *GROUPS]):
        while waiting:
            bodies = max(waiting[0], len(read_made(site.roots)) + 1)
            process = as_subprocess(*command, site=site, api=api)
            if not killed(process, site, bodies, drawn.uniform(0.0, 0.3)):
                break
            waiting.pop(0)
            assert half_written(site) == []
            kills.append((size(site.roots), on_record(site)))
        else:
            process = as_subprocess(*command, site=site, api=api)
            output, errors = process.communicate(timeout=400)
            assert process.returncode == 0, output + errors
    assert len(kills) == moments
    for offset, kept in kills:
        again = {entry.key for entry in read_made(site.roots, offset)} & kept
        assert not again, "ran again although it was on record when the run was killed"
    assert len({entry.key for entry in read_made(site.roots)}) == complete
    assert half_written(site) == []
    assert not list(site.roots.data.rglob("*.tmp")), "unfinished files of killed runs are still there"
    assert site.run().counts == NOTHING_RAN
    ours, undisturbed = undated(site), undated(finished)
    assert ours.keys() == undisturbed.keys()
    assert [name for name in ours if ours[name] != undisturbed[name]] == []
