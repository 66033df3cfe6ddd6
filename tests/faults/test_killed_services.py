"""`kill -9` of flow, worker and Prefect's server at seeded moments of a campaign's whole work, on one data root.

Kills of the flow's whole process group, run from the shell, are in tests/caching/test_killed.py.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

import pytest

from models.base import Roots
from tasks.core.ledger import read_made
from tests.caching.site import YEAR
from tests.faults.place import GROUP, Place, differences
from tests.server.installation import FINAL, Installation, until

pytestmark = [pytest.mark.tools, pytest.mark.server, pytest.mark.slow]

_VICTIMS = ("flow", "worker", "server")
_DEMO_WORK = (*[("reduce-year", {"year": year}) for year in (2019, 2023, 2025)],
              *[("stack-target", {"group": group}) for group in ("M67", "M51")])  # fmt: skip
_SMALL_WORK = (("reduce-year", {"year": YEAR}), ("stack-target", {"group": GROUP}))


def victim_of(what: str, installation: Installation) -> int | None:
    """Process id; None where it is not there at the moment."""
    if what == "flow":
        found = [pid for pid, words in installation.processes().items() if "prefect.engine" in words]
        return found[0] if found else None
    return installation.holder(what)


def pieces(place: Place) -> set[tuple[str, str]]:
    """What was made: stage and name of each piece, however often."""
    return {(entry.stage, entry.what) for entry in read_made(place.roots)}


def restart(installation: Installation) -> None:
    """What a supervisor does; each says so where it runs already."""
    installation.deployments("server", "--background")
    installation.deployments("worker", "--background")


def idle(installation: Installation) -> None:
    """Wait until no flow is at work."""
    until(lambda: not installation.processes(), 1800, "the end of the flows")


@pytest.mark.parametrize("what", ["small", "demo"])
def test_killed_at_any_moment(what, request, api, tmp_path):
    if what == "demo":
        reference = Place(request.getfixturevalue("demo").roots, api)
        work, moments, years = _DEMO_WORK, 30, ("2019", "2023", "2025")
    else:
        reference = request.getfixturevalue("undisturbed")
        work, moments, years = _SMALL_WORK, 6, (f"{YEAR}",)
    draw = random.Random(moments)
    place = Place.beside(reference.roots.data, tmp_path / "data", api)
    place = Place(Roots(data=place.roots.data, raw=reference.roots.raw), api)
    everything = pieces(reference)
    thresholds = sorted(draw.sample(range(len(everything) - 2), moments))
    victims = [_VICTIMS[number % 3] for number in range(moments)]
    draw.shuffle(victims)
    kills = list(zip(thresholds, victims, strict=True))
    done: list[tuple[int, str]] = []
    installation = Installation(place.roots)
    try:
        installation.start()
        for name, parameters in work:
            while True:
                run = installation.begin(name, **parameters)
                state = watched(installation, run, place, kills, done)
                idle(installation)
                assert place.unfinished_by_killed() == []
                if state == "COMPLETED":
                    break
                restart(installation)
        assert kills == [], f"only {len(done)} kills"
    finally:
        installation.stop()
    before = len(read_made(place.roots))
    for name, parameters in work:
        command = "flows.reduce_year" if name == "reduce-year" else "flows.stack_target"
        status, output = place.run(command, *map(str, parameters.values()))
        assert status == 0, output
    assert len(read_made(place.roots)) == before, "something was left to be made"
    assert pieces(place) == everything
    assert place.unfinished() == []
    assert differences(place, reference, years) == []


def watched(
    installation: Installation, run: str, place: Place, kills: list[tuple[int, str]], done: list[tuple[int, str]]
) -> str:
    """Follow a run to its end, killing what is due; its final state, `LOST` if nobody can tell."""
    end = time.monotonic() + 3600
    while time.monotonic() < end:
        if kills and len(pieces(place)) >= kills[0][0]:
            pid = victim_of(kills[0][1], installation)
            if pid is not None:
                time.sleep(random.Random(len(kills)).uniform(0.0, 0.5))
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                done.append(kills.pop(0))
                time.sleep(0.5)
                restart(installation)
                continue
        with suppress(OSError):
            state = installation.state(run)["type"]
            if state in FINAL:
                return str(state)
        if not installation.processes() and not waiting(installation, run):
            return "LOST"
        time.sleep(0.1)
    raise AssertionError(f"{run} did not end: {installation.logs()}")


def waiting(installation: Installation, run: str) -> bool:
    """Whether a run has not begun yet: the worker looks for runs every few seconds."""
    return installation.state(run)["type"] in ("SCHEDULED", "PENDING")
