"""Tools that misbehave, in the flows: the frame or group is recorded, nothing is left running, the rest goes on.

The runner alone is tested in tests/core/test_tools.py.
"""

from __future__ import annotations

import json
import random
import re

import pytest

from tests.faults.place import Place, differences, patience, processes_with, simulated
from tests.faults.standins import BEHAVIOURS, LIES, stand_ins

pytestmark = [pytest.mark.tools]

_LIMIT_S = 12
_FRAME_TOOLS = ("solve-field", "source-extractor", "psfex")
_BAD = tuple(BEHAVIOURS)
_LOG_LIMIT = 9 << 20


def mark() -> str:
    """A number of seconds that nobody else sleeps."""
    return f"{random.SystemRandom().randrange(10**8, 10**9)}"


def limits(*sections: str) -> list[str]:
    """How long a tool may take: one that is well shall not be taken for one that hangs."""
    return [f"--{section}-timeout-s={patience(_LIMIT_S):.0f}" for section in sections]


def failures(place: Place) -> list[dict]:
    """Failures of all frames as they are on record."""
    frames = json.loads((place.roots.data / "2023" / "T120" / "frames.json").read_text())
    frames = frames["rows"] if isinstance(frames, dict) else frames
    return [failure for frame in frames for failure in frame["failures"]]


def logs_are_bounded(place: Place) -> None:
    logs = list(place.roots.logs.rglob("*.log"))
    assert logs
    assert all(path.stat().st_size < _LOG_LIMIT for path in logs)


@pytest.mark.parametrize("form", ["some", pytest.param("all", marks=pytest.mark.slow)])
def test_frames_whose_tools_misbehave(form, api, campaign_root, tmp_path):
    """Each frame meets one tool that does one thing wrong; then all tools are well again."""
    source = campaign_root
    if form == "some":
        plans = {"solve-field": ["half"], "source-extractor": ["hang"], "psfex": ["segv", "litter"]}
        flood = 1 << 28
    else:
        source = tmp_path / "campaign"
        simulated(source, frames=10)
        plans, flood = {tool: list(_BAD) for tool in _FRAME_TOOLS}, 3 << 30
    place, unique = Place.beside(source, tmp_path / "data", api), mark()
    path = stand_ins(tmp_path / "tools", plans, unique, flood)
    status, output = place.reduce(*limits("astrometry", "psf"), PATH=path)
    assert status == 0, output
    assert "Traceback" not in output
    assert processes_with(unique) == {}
    assert place.unfinished() == []
    said = failures(place)
    for tool, plan in plans.items():
        calls = (tmp_path / "tools" / tool / "calls").read_text().splitlines()
        for number, what in enumerate(plan, start=1):
            assert f"{number} {what}" in calls, f"the stand-in for {tool} was never asked to {what}"
            words = BEHAVIOURS[what]
            mine = [each for each in said if each["stage"] == tool and words and re.search(words, each["reason"])]
            assert len(mine) == (1 if words else 0), f"{tool} {what}: {said}"
    assert len(said) == sum(bool(BEHAVIOURS[what]) for plan in plans.values() for what in plan), said
    assert all(each["remedy"] for each in said)
    logs_are_bounded(place)
    psfs = [row for row in place.report("psf_report") if row["fwhm_px"] is not None]
    frames = len(place.report("frame_stats"))
    assert len(psfs) == frames - len(said), "the other frames went on to the end"

    status, healed = place.reduce()
    assert status == 0, healed
    assert "Traceback" not in healed
    assert failures(place) == []
    assert place.unfinished() == []
    assert len([row for row in place.report("psf_report") if row["fwhm_px"] is not None]) == frames
    if form == "all":
        place.complete()
        other = Place.beside(source, tmp_path / "other", api)
        other.complete()
        assert differences(place, other) == []


@pytest.mark.slow
@pytest.mark.parametrize("what", _BAD)
def test_scamp_misbehaves_and_the_season_is_aligned_without_it(what, undisturbed, api, campaign_root, tmp_path):
    place, unique = Place.beside(undisturbed.roots.data, tmp_path / "data", api, products=True), mark()
    place = Place(place.roots.model_copy(update={"raw": undisturbed.roots.raw}), api)
    path = stand_ins(tmp_path / "tools", {"scamp": [what]}, unique)
    status, output = place.stack("--refresh", "align-group", *limits("scamp"), PATH=path)
    assert status == 0, output
    assert (tmp_path / "tools" / "scamp" / "calls").read_text().startswith(f"1 {what}")
    assert "Traceback" not in output
    assert processes_with(unique) == {}
    assert place.unfinished() == []
    assert {row["status"] for row in place.report("stack_all_report")} == {"OK"}
    page = (place.roots.data / "stacks" / "M67" / "T120" / "index.html").read_text()
    if BEHAVIOURS[what]:
        logs_are_bounded(place)
        assert "SCAMP failed" in page
    status, output = place.stack()
    assert status == 0, output
    assert differences(place, undisturbed) == []


@pytest.mark.slow
@pytest.mark.parametrize("what", LIES)
def test_scamp_converged_on_nonsense_and_the_stacks_do_without_it(what, undisturbed, api, tmp_path):
    """The other lies, and too few stars, through `align_frames` alone: tests/astrometry/test_alignment.py."""
    place = Place.beside(undisturbed.roots.data, tmp_path / "data", api, products=True)
    place = Place(place.roots.model_copy(update={"raw": undisturbed.roots.raw}), api)
    path = stand_ins(tmp_path / "tools", {"scamp": [what]}, mark())
    status, output = place.stack("--refresh", "align-group", PATH=path)
    assert status == 0, output
    assert "Traceback" not in output
    assert (tmp_path / "tools" / "scamp" / "calls").read_text().startswith(f"1 {what}")
    assert {row["status"] for row in place.report("stack_all_report")} == {"OK"}
    page = (place.roots.data / "stacks" / "M67" / "T120" / "index.html").read_text()
    assert re.search(f"SCAMP.{{1,7}}s head refused: .*({LIES[what]})", page)
    status, output = place.stack("--refresh", "align-group")
    assert status == 0, output
    assert differences(place, undisturbed) == []


@pytest.mark.slow
@pytest.mark.parametrize("what", _BAD)
def test_swarp_misbehaves_for_one_filter_and_the_other_is_stacked(what, undisturbed, api, tmp_path):
    place, unique = Place.beside(undisturbed.roots.data, tmp_path / "data", api, products=True), mark()
    place = Place(place.roots.model_copy(update={"raw": undisturbed.roots.raw}), api)
    path = stand_ins(tmp_path / "tools", {"SWarp": [what]}, unique)
    status, output = place.stack("--refresh", "combine", *limits("stack"), PATH=path)
    assert status == 0, output
    assert "Traceback" not in output
    assert processes_with(unique) == {}
    assert place.unfinished() == []
    rows = place.report("stack_all_report")
    failed = [row for row in rows if row["status"] != "OK"]
    assert len(rows) == 2
    if words := BEHAVIOURS[what]:
        assert len(failed) == 1
        assert "SWarp" in failed[0]["reason"]
        assert re.search(words, failed[0]["reason"])
        logs_are_bounded(place)
    else:
        assert failed == []
    status, output = place.stack()
    assert status == 0, output
    assert differences(place, undisturbed) == []
