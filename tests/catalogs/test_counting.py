"""How many questions a whole release asks: one a field and catalogue, ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from flows import _frame
from models.frame import FrameFailure, RawFrame
from models.run import RunContext
from models.settings import Settings
from tasks.catalogs import read_cone, separation, stored_cones
from tasks.catalogs.tasks import catalogue_cone
from tasks.fields import field_of_target

from .archive import Archive
from .conftest import gaia_table, ps1_table
from .test_services import M67

REPO = Path(__file__).resolve().parents[2]
YEARS = range(2019, 2026)
LOOSE = [(40.0, 60.0), (100.0, 50.0), (250.0, 75.0), (330.0, 5.0)]
"""Pointings without a target."""


def release(run: RunContext, groups: list[str]) -> dict[int, list[RawFrame]]:
    """3024 frames: 12 groups and 4 other pointings, each year a little elsewhere, dithered; many headers say little."""
    rng = np.random.default_rng(5)
    places = [(name, run.targets[name].ra, run.targets[name].dec) for name in groups]
    places += [(f"thing-{i}", *place) for i, place in enumerate(LOOSE)]
    out: dict[int, list[RawFrame]] = {}
    for year in YEARS:
        frames = []
        for name, ra, dec in places:
            off = rng.uniform(-0.05, 0.05, 2)
            for number in range(27):
                east, north = off + rng.uniform(-0.02, 0.02, 2)
                known = number % 3 or name.startswith("thing")
                place = {"ra": (ra + east / np.cos(np.radians(dec))) % 360, "dec": dec + north} if known else {}
                frames.append(
                    RawFrame(
                        path=f"{year}/{name}-{number}.fits",
                        digest="0" * 64,
                        name=f"{name}-{number}",
                        kind="science",
                        why="made up",
                        telescope="T120",
                        night=f"{year}0310",
                        exptime=60,
                        binning=2,
                        date_obs=datetime(year, 3, 10, 22, tzinfo=UTC),
                        shape=(1024, 1024),
                        filter="r",
                        object=name,
                        **place,
                    )
                )
        out[year] = frames
    return out


@pytest.fixture
def without_prefect(monkeypatch):
    """The body of the tasks; no index of stars that are not there."""
    monkeypatch.setattr(_frame, "catalogue_cone", catalogue_cone.fn)
    nothing = FrameFailure(file="", stage="index", reason="not made here", remedy="none")
    monkeypatch.setattr(_frame, "index_of_cone", lambda *_: nothing)


@pytest.mark.usefixtures("without_prefect")
def test_a_release_asks_once_a_field_and_catalogue(roots):
    with Archive(gaia_table(M67)) as gaia, Archive(ps1_table(M67)) as ps1:
        settings = Settings(
            data_root=roots.data, gaia_urls=(f"{gaia.tap}/sync",), ps1_urls=(ps1.vizier,), catalogs={"interval_s": 0.0}
        )
        run = RunContext.of("T120", settings)
        groups = sorted(
            name
            for name, target in run.targets.items()
            if target.dec > -20
            and all(separation(target.ra, target.dec, ra, dec) > 2 for ra, dec in LOOSE)
            and all(
                target is other or separation(target.ra, target.dec, other.ra, other.dec) > 2
                for other in run.targets.values()
            )
        )[:12]
        assert len(groups) == 12
        frames = release(run, groups)
        assert sum(map(len, frames.values())) == 3024

        def reduce(year: int) -> list:
            return [_frame.known_field.fn(*call) for call in _frame.field_calls(frames[year], run)]

        counts = []
        for year in YEARS:
            fields = reduce(year)
            assert len(fields) == 16
            assert all(field.gaia is not None and field.ps1 is not None for field in fields)
            counts.append((len(gaia.questions), len(ps1.questions)))
        assert counts == [(16, 16)] * 7
        assert len(gaia.requests) == len(ps1.requests) == 16

        for year in reversed(YEARS):  # a second run
            reduce(year)
        for name in groups:  # stack_target
            place = field_of_target(run.targets[name], run.telescope, settings.astrometry, settings.selection)
            found = _frame.known_field.fn(place, run, {"gaia": True, "ps1": True})
            assert found.gaia is not None
            assert found.ps1 is not None
        assert (len(gaia.requests), len(ps1.requests)) == (16, 16)
        assert len(stored_cones("gaia", roots)) == len(stored_cones("ps1", roots)) == 16


@pytest.mark.usefixtures("without_prefect")
def test_every_frame_of_a_later_year_is_covered(roots):
    """A field laid on an older cone covers its frames as one of its own would."""
    with Archive(gaia_table(M67)) as gaia, Archive(ps1_table(M67)) as ps1:
        settings = Settings(
            data_root=roots.data, gaia_urls=(f"{gaia.tap}/sync",), ps1_urls=(ps1.vizier,), catalogs={"interval_s": 0.0}
        )
        run = RunContext.of("T120", settings)
        frames = release(run, [])
        need = 0.155 + settings.astrometry.cone_margin_deg
        for year in YEARS:
            fields = [_frame.known_field.fn(*call) for call in _frame.field_calls(frames[year], run)]
            for frame in frames[year]:
                assert any(
                    separation(frame.ra, frame.dec, field.gaia.cone.ra, field.gaia.cone.dec) + need
                    <= field.gaia.cone.radius + 1e-3
                    for field in fields
                )


@pytest.mark.slow
@pytest.mark.tools
def test_the_commands_ask_once_and_a_dead_archive_leaves_the_rest(campaign, tmp_path):
    """With the real flows: first nobody answers (75, all pending), then each catalogue is asked once, then never."""
    tables = {name: read_cone(stored_cones(name, campaign.roots)[0], campaign.roots) for name in ("gaia", "ps1")}
    with Archive(tables["gaia"]) as gaia, Archive(tables["ps1"]) as ps1:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("OHP_", "PREFECT_"))}
        surroundings = clean | {
            "HOME": str(tmp_path),
            "PREFECT_SERVER_API_PORT": "4",
            "OHP_CATALOGS__INTERVAL_S": "0",
            "OHP_CATALOGS__PATIENCE_S": "3",
            "OHP_GAIA_URLS": f"{gaia.tap}/sync",
            "OHP_PS1_URLS": ps1.vizier,
        }

        def run(*command: str) -> int:
            where = ["--root", str(tmp_path / "data"), "--raw-root", str(campaign.roots.raw)]
            done = subprocess.run(
                [sys.executable, "-m", *command, *where],
                cwd=REPO,
                env=surroundings,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            return done.returncode

        gaia.moods, ps1.moods = ["503"], ["503"]
        assert run("flows.reduce_year", "2023") == 75
        rows = json.loads(next(tmp_path.rglob("astrom_report.json")).read_text())["rows"]
        assert {row["status"] for row in rows} == {"PENDING"}
        assert len(list((tmp_path / "data").glob("2023/T120/reduced/*/*.fits"))) == len(rows) == 6
        assert 1 <= len(gaia.questions) <= 6

        del surroundings["OHP_CATALOGS__PATIENCE_S"]  # no answer of thousands of rows takes a busy machine that long
        gaia.moods, ps1.moods = ["answer"], ["answer"]
        gaia.questions.clear()
        ps1.questions.clear()
        assert run("flows.reduce_year", "2023") == 0
        assert (len(gaia.questions), len(ps1.questions)) == (1, 1)
        rows = json.loads(next(tmp_path.rglob("phot_report.json")).read_text())["rows"]
        assert {row["catalogue"] for row in rows} == {"PS1 DR2 (VizieR II/389)"}
        gaia.requests.clear()
        ps1.requests.clear()
        assert run("flows.reduce_year", "2023") == 0
        assert run("flows.stack_target", "M67") == 0
        assert gaia.requests == ps1.requests == []
