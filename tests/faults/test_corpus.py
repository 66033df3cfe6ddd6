"""Damaged inputs beside good frames: each ends in a record, the good ones as if the bad were not there.

The short form takes one of each kind; `make test-faults` all of them (more than 500).
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from astropy.io import fits

import bench.processes
from bench.processes import clean_environment, memory_of_tree
from models.base import Roots
from models.simulation import SimulationOptions
from models.telescope import load_telescope
from tasks.core.files import safe_name
from tasks.report import read_years
from tests.demo import REPO, run
from tests.faults.corpus import Damage, Originals, corpus, write_corpus
from tests.faults.place import patience
from tests.privileges import confined

pytestmark = [pytest.mark.tools]

_SIDE = 512
_NUMBER = 520
_OF_EACH_KIND = 1
_SECONDS_EACH = 30.0
_STACKS = ("M67_g.fits", "M67_r.fits", "M67_g.weight.fits", "M67_r.weight.fits")
_FOLDER = "202303OHP_M2/DATA/T120/20230314"
_MEGABYTES = 2048.0


class Night(NamedTuple):
    """A data root, what was put there and what came of it."""

    roots: Roots
    damages: list[Damage]
    output: str
    status: int
    megabytes: tuple[float, ...]
    patience: float
    before: dict[str, tuple[str, int]]


def simulated(root: Path) -> Roots:
    from tasks.simulation import simulate_campaign

    roots = Roots(data=root, raw=root / "raw")
    options = SimulationOptions(
        seed=11, years=(2023,), fields=("M67", "M51"), filters=("g", "r"), frames=2, biases=3, flats=3, size=_SIDE,
        oddities=False,
    )  # fmt: skip
    simulate_campaign(roots, options, workers=2)
    profile = (REPO / "models" / "profiles" / "T120.toml").read_text()
    (root / "telescopes").mkdir()
    (root / "telescopes" / "T120.toml").write_text(profile.replace("[1024, 1024]", f"[{_SIDE}, {_SIDE}]"))
    return roots


def damaged(roots: Roots, each: int | None) -> list[Damage]:
    """The corpus, or so many of each kind."""
    raw = roots.raw
    originals = Originals(
        science=tuple(sorted(raw.rglob("M67*.fits"))), other_field=tuple(sorted(raw.rglob("M51*.fits"))),
        flat=min(raw.rglob("flat*.fits")), bias=min(raw.rglob("bias*.fits")),
    )  # fmt: skip
    everything = corpus(originals, _NUMBER)
    if each is None:
        return everything
    kinds = defaultdict(list)
    for damage in everything:
        kinds[damage.kind].append(damage)
    draw = random.Random(2)
    return [damage for _, some in sorted(kinds.items()) for damage in draw.sample(some, min(each, len(some)))]


def outside(roots: Roots) -> list[str]:
    """What lies beside the data root and in the folders a command might write into by mistake."""
    found = []
    for folder in (roots.data.parent, Path.cwd()):
        found += [entry.name for entry in os.scandir(folder)]
    return sorted(found)


@pytest.fixture(scope="module", params=[_OF_EACH_KIND, pytest.param(None, marks=pytest.mark.slow)], ids=["some", "all"])
def night(request, tmp_path_factory) -> Night:
    """Good frames and damaged ones, reduced and stacked; as root, where nothing else can be written (`confined`)."""
    home, temporary = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("temporary")
    roots = simulated(tmp_path_factory.mktemp("faults") / "data")
    damages = damaged(roots, request.param)
    write_corpus(damages, roots.raw / _FOLDER)
    before, beside = frozen(roots.raw), outside(roots)
    environment = clean_environment(HOME=str(home), PREFECT_SERVER_API_PORT="4", TMPDIR=str(temporary))
    each = patience(_SECONDS_EACH)
    done = [
        bench.processes.run(
            ("-m", *command, "--root", str(roots.data)), home / f"{command[0]}.log", environment,
            lambda pid: (time.monotonic(), memory_of_tree(pid)), statuses=range(256),
            prefix=confined(roots.data, roots.raw, temporary),
        )
        for command in (("flows.reduce_year", "2023"), ("flows.stack_target", "M67"))
    ]  # fmt: skip
    assert outside(roots) == beside
    assert [path.name for path in home.iterdir() if path.suffix != ".log"] == []
    assert list(temporary.iterdir()) == []
    return Night(
        roots, damages, "".join(some.output for some in done), max(some.status for some in done),
        tuple(max(used for _, used in some.samples) for some in done), max(each, patience(_SECONDS_EACH)), before,
    )  # fmt: skip


def frozen(raw: Path) -> dict[str, tuple[str, int]]:
    """Digest and modification time of every regular file below a folder; links, pipes and unreadable ones by status."""
    found = {}
    for folder, _, names in os.walk(raw):
        for name in names:
            path = Path(folder, name)
            status = path.lstat()
            found[os.fsencode(path).decode("latin-1")] = (f"{status.st_mode} {status.st_size}", status.st_mtime_ns)
    return found


def records(roots: Roots) -> dict[str, list[dict]]:
    """By name: every row of every report that speaks of it."""
    found: dict[str, list[dict]] = defaultdict(list)
    for report in sorted(roots.data.glob("2023/T120/**/*.json")):
        content = json.loads(report.read_text(encoding="utf-8"))
        for row in content.get("rows", []) if isinstance(content, dict) else []:
            name = row.get("file") or row.get("path") or row.get("raw", {}).get("path")
            if name:
                found[Path(name).name].append(row)
    return found


def test_it_ends_well_and_without_a_traceback(night):
    assert night.status == 0, night.output
    assert not [word for word in ("Traceback", "Warning", "unforeseen") if word in night.output], night.output


def test_no_input_costs_much_memory(night):
    """Of all processes that reduce them together, sampled twice a second; and of those that stack what is left.

    A stack of more than a hundred frames (so many of the corpus are as good as whole) takes what memory there is.
    """
    reducing, stacking = night.megabytes
    assert 100 < reducing < _MEGABYTES
    assert 100 < stacking < 2 * _MEGABYTES


@pytest.mark.slow
def test_no_input_costs_long(night):
    """What Prefect's server noted of every task run: 30 s of a machine that does nothing else."""
    with closing(sqlite3.connect(night.roots.data / ".prefect" / "prefect.db")) as server:
        runs = server.execute("SELECT name, unixepoch(end_time) - unixepoch(start_time) FROM task_run").fetchall()
    of_frames = [(name, seconds or 0) for name, seconds in runs if Path(_FOLDER).name in name]
    assert len(of_frames) > len(night.damages) / 2
    assert [(name, seconds) for name, seconds in of_frames if seconds >= night.patience] == []


def test_every_damaged_file_ends_in_a_record(night, tmp_path_factory):
    """Used as it is, or named with stage, reason and remedy: by the inventory or by a stage of the year's reduction."""
    listing = night.roots.data / "inventory.json"
    asked = run(
        "flows.inventory", "2023", "--root", str(night.roots.data), "--json", str(listing),
        home=tmp_path_factory.mktemp("home"),
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    seen = {Path(row["path"]).name: row for row in json.loads(listing.read_text())["rows"]}
    known = records(night.roots)
    lost = []
    for damage in night.damages:
        name = os.fsencode(Path(damage.name).name).decode("utf-8", "backslashreplace")
        path = night.roots.raw / _FOLDER / damage.name
        if path.is_dir():
            continue
        row = seen.get(name)
        rows = known.get(name, []) + known.get(f"{safe_name(Path(name.removesuffix('.gz')).stem)}.fits", [])
        if row is None:
            lost.append(f"{damage.kind}: {damage.what}: not in the inventory")
        elif row["kind"] == "junk":
            if not row["why"]:
                lost.append(f"{damage.what}: no reason")
        elif row["kind"] in ("bias", "flat"):
            continue  # counted below
        elif not rows and name not in night.output:
            lost.append(f"{damage.kind}: {damage.what}: {row['kind']} ({row['why']}), and then nothing")
        failed = [said for said in rows if said.get("status") == "FAILED"]
        lost += [f"{damage.what}: {said}" for said in failed if not (said["reason"] and said["remedy"])]
    assert not lost
    masters = json.loads((night.roots.data / "2023" / "T120" / "masters.json").read_text())
    for kind in ("bias", "flat"):
        some = [master for master in masters if f"master_{kind}" in master["file"]["path"]]
        left_out = [each for master in some for each in master["rejected"]]
        assert all(each["file"] and each["reason"] for each in left_out)
        of_kind = [row for row in seen.values() if row["kind"] == kind]
        assert sum(master["n_combined"] for master in some) + len(left_out) == len(of_kind), (left_out, of_kind)


def test_nothing_was_changed_among_the_raw_frames(night):
    assert frozen(night.roots.raw) == night.before
    assert not (Path.cwd() / "pwned").exists()


@pytest.mark.slow
def test_what_is_not_used_changes_nothing(night, tmp_path_factory):
    """The stacks of the good frames are the same bits with and without the damaged ones that no stage could use.

    What looks whole (a bit flipped among the pixels, a strange name) and shows stars of the field may be used; what the
    inventory takes for a bias or a flat has a say in the masters.
    """
    home = tmp_path_factory.mktemp("home")
    everything = [record for year in read_years(night.roots, load_telescope("T120")).values() for record in year]
    used = {Path(record.raw.path).name for record in everything if record.solved is not None}
    assert len(used) < 0.8 * len(everything)
    listing = json.loads((night.roots.data / "inventory.json").read_text())["rows"]
    used |= {Path(row["path"]).name for row in listing if row["kind"] in ("bias", "flat")}
    images = []
    for what in ("alone", "beside"):
        roots = simulated(tmp_path_factory.mktemp(what) / "data")
        if what == "beside":
            unusable = [each for each in night.damages if Path(each.name).name not in used]
            assert len(unusable) > 0.4 * len(night.damages)
            write_corpus(unusable, roots.raw / _FOLDER)
        for command in (("flows.reduce_year", "2023"), ("flows.stack_target", "M67")):
            assert run(*command, "--root", str(roots.data), home=home, timeout=3000).returncode == 0
        images.append([fits.getdata(roots.data / "stacks" / "M67" / "T120" / name).tobytes() for name in _STACKS])
    assert images[0] == images[1]
