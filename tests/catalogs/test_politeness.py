"""Archives are asked one question at a time, not too often, and not for ever in vain."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.catalog import Cone
from models.settings import CatalogSettings, Settings
from tasks.catalogs import DownError, fetch_cone, patience, politeness
from tasks.catalogs.patience import Patience
from tasks.catalogs.politeness import Turns, held, rest
from tasks.catalogs.services import TapService
from tasks.core import tools
from tasks.core.errors import TransientError

from .archive import Archive
from .conftest import gaia_table, gspc_table, ps1_table

M67 = Cone(ra=132.85, dec=11.81, radius=0.4)
REPO = Path(__file__).resolve().parents[2]


class Clock:
    """Time that passes only when somebody rests."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def rest(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(politeness.time, "time", made)
    monkeypatch.setattr(politeness, "rest", made.rest)
    return made


def starts(turns: Turns, clock: Clock, took: list[float], host: str = "archive.example:443") -> list[float]:
    began = []
    for seconds in took:
        with turns.request(host):
            began.append(clock.now)
            clock.now += seconds
    return began


def test_an_interval_lies_between_the_end_of_one_request_and_the_next(tmp_path, clock):
    began = starts(Turns(tmp_path, 2.0), clock, [0.5, 3.0, 0.0, 0.0])
    assert [after - before for before, after in itertools.pairwise(began)] == pytest.approx([2.5, 5.0, 2.0])


def test_another_process_keeps_to_it_and_another_host_is_another_matter(tmp_path, clock):
    first, second = Turns(tmp_path, 2.0), Turns(tmp_path, 2.0)  # what they share is the folder
    began = starts(first, clock, [0.0])
    assert starts(first, clock, [0.0], "mirror.example") == began
    assert starts(second, clock, [0.0]) == [began[0] + 2.0]


@pytest.mark.parametrize("content", [b"", b"nonsense", b"99999999999.0", b"-5"])
def test_a_clock_that_is_ahead_or_a_spoilt_file_costs_one_interval_at_most(tmp_path, clock, content):
    (tmp_path / "archive.example_443.request").write_bytes(content)
    before = clock.now
    began = starts(Turns(tmp_path, 2.0), clock, [0.0, 0.0])
    assert began[0] - before <= 2.0
    assert began[1] - began[0] == pytest.approx(2.0)  # and the file is mended


def test_a_failed_request_counts_too(tmp_path, clock):
    turns = Turns(tmp_path, 2.0)
    with pytest.raises(OSError, match="refused"), turns.request("h"):
        raise OSError("refused")
    before = clock.now
    assert starts(turns, clock, [0.0], "h") == [before + 2.0]


_ASK = """
import sys
from models.catalog import Cone
from models.settings import Settings
from tasks.catalogs import fetch_cone
data, url, ra = sys.argv[1:]
settings = Settings(data_root=data, gaia_urls=(url,), catalogs={"interval_s": 0.15, "timeout_s": 20})
fetch_cone("gaia", Cone(ra=float(ra), dec=11.81, radius=0.1), settings.roots, settings)
"""


def test_processes_take_turns(roots):
    """Three processes, one archive: no two requests overlap, and all are the interval apart."""
    with Archive(gaia_table(M67, n=2000)) as archive:
        asking = [
            subprocess.Popen([sys.executable, "-c", _ASK, str(roots.data), f"{archive.tap}/sync", ra], cwd=REPO)
            for ra in ("132.70", "132.85", "133.00")
        ]
        assert [process.wait(60) for process in asking] == [0, 0, 0]
    spans = sorted(archive.spans)
    assert len(spans) == 3
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(spans)]
    assert min(gaps) > 0.14


def test_one_question_at_a_time_though_it_is_many_requests(roots, monkeypatch):
    """Gaia and its synthetic photometry are two catalogues of one service: their jobs do not mix."""
    monkeypatch.setattr(TapService, "_POLL_S", (0.01, 0.01))
    rows = gspc_table(M67)
    for name, values in gaia_table(M67).columns.items():
        if name not in rows.colnames:
            rows[name] = values[: len(rows)]
    with Archive(rows) as archive, ThreadPoolExecutor(2) as pool:
        settings = Settings(data_root=roots.data, gaia_urls=(archive.tap,), catalogs={"interval_s": 0.0})
        list(pool.map(lambda name: fetch_cone(name, M67, roots, settings), ["gaia", "gspc"]))
    jobs = [line.split("/async/")[1][0] for line in archive.requests if "/async/" in line]
    assert "".join(jobs).lstrip(jobs[0]) == (len(jobs) - jobs.count(jobs[0])) * jobs[-1]  # 1111222, never 1212
    assert len(set(jobs)) == 2


def test_a_lock_waits_and_dies_with_its_holder(tmp_path):
    path = tmp_path / "x.lock"
    hold = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        got = threading.Event()

        def take() -> None:
            with held(path):
                got.set()

        waiting = threading.Thread(target=take)
        waiting.start()
        assert not got.wait(0.4)
        holder.kill()
        assert got.wait(5)
        waiting.join()


def test_a_file_system_without_locks_is_said_and_holds_within_the_process(tmp_path, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    inside, most = [], []

    def work(_):
        with held(tmp_path / "x.lock"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert max(most) == 1
    assert [record.message for record in caplog.records if "has no locks" in record.message]
    assert sum("has no locks" in record.message for record in caplog.records) == 1


def test_other_errors_of_a_lock_are_errors(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="I/O error"), held(tmp_path / "x.lock"):
        pass


def _wait_for_lock(path: Path) -> None:
    with held(path):
        pass


@pytest.mark.parametrize("wait", [lambda path: rest(30), _wait_for_lock], ids=["rest", "lock"])
def test_who_waits_is_stopped_with_the_run(tmp_path, monkeypatch, wait):
    stop = threading.Event()
    monkeypatch.setattr(tools, "_stopping", stop)
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    with held(tmp_path / "x.lock"), pytest.raises(tools.StoppedError):
        wait(tmp_path / "x.lock")
    assert time.monotonic() - started < 2


def test_patience_is_for_all_failures_since_the_last_answer():
    clock = Clock()
    patience = Patience(clock)
    assert patience.left("a", 75) == 75
    patience.failed("a", clock.now)
    clock.now += 60
    assert patience.left("a", 75) == 15
    patience.failed("a", clock.now - 5)
    clock.now += 16
    assert patience.left("a", 75) == 0
    assert patience.left("b", 75) == 75
    patience.answered("a")
    assert patience.left("a", 75) == 75


def test_who_was_given_up_is_asked_again_after_ten_minutes():
    clock = Clock()
    patience = Patience(clock)
    patience.failed("a", clock.now - 100)
    clock.now += 599
    assert patience.left("a", 75) == 0
    clock.now += 2
    assert patience.left("a", 75) == 75


@pytest.fixture
def fast(monkeypatch):
    """Pauses between tries that take no time but count against the patience."""
    clock = Clock()
    monkeypatch.setattr("tasks.catalogs.fetch.PATIENCE", Patience(clock))
    monkeypatch.setattr("tasks.catalogs.fetch._rest", clock.rest)
    return clock


def dead(roots, archive: Archive, **limits) -> Settings:
    limits = {"interval_s": 0.0, "timeout_s": 0.3, "retries": 9, "patience_s": 20.0} | limits
    return Settings(data_root=roots.data, ps1_urls=(archive.mast,), catalogs=CatalogSettings(**limits))


@pytest.mark.parametrize("mood", ["500", "drop", "stall"])
def test_a_dead_service_costs_a_run_its_patience_once_not_once_a_field(roots, fast, mood):
    fields = [Cone(ra=10.0 * i, dec=20, radius=0.4) for i in range(12)]
    with Archive(ps1_table(M67)) as archive:
        archive.moods = [mood]
        began = fast.now
        for field in fields:
            with pytest.raises(DownError) as caught:
                fetch_cone("ps1", field, roots, dead(roots, archive))
            assert caught.value.pending
        assert fast.now - began <= 20
        assert 3 <= len(archive.questions) <= 6
        assert "not asked again: it gave nothing for 20 s in this run" in caught.value.reason


def test_the_next_service_has_patience_of_its_own(roots, fast):
    with Archive(ps1_table(M67)) as down, Archive(ps1_table(M67)) as up:
        down.moods = ["503"]
        settings = dead(roots, down).model_copy(update={"ps1_urls": (down.mast, up.mast)})
        for i in range(3):
            cone = Cone(ra=132.85, dec=11.81, radius=0.1 + i / 10)
            assert fetch_cone("ps1", cone, roots, settings).service == up.mast
        assert len(up.questions) == 3
        assert len(down.questions) <= 6  # all of them for the first cone


def test_it_is_asked_again_when_the_ten_minutes_are_over(roots, fast):
    with Archive(ps1_table(M67)) as archive:
        archive.moods = ["503"]
        with pytest.raises(DownError):
            fetch_cone("ps1", M67, roots, dead(roots, archive))
        archive.moods = ["answer"]
        with pytest.raises(DownError, match="not asked again"):
            fetch_cone("ps1", M67, roots, dead(roots, archive))
        fast.now += patience._GIVEN_UP_FOR_S + 1
        assert fetch_cone("ps1", M67, roots, dead(roots, archive)).n_rows > 0


def test_another_process_asks_at_once(roots, fast, monkeypatch):
    with Archive(ps1_table(M67)) as archive:
        archive.moods = ["503"]
        with pytest.raises(DownError):
            fetch_cone("ps1", M67, roots, dead(roots, archive))
        archive.moods = ["answer"]
        monkeypatch.setattr("tasks.catalogs.fetch.PATIENCE", Patience())  # as a new process has it
        assert fetch_cone("ps1", M67, roots, dead(roots, archive)).n_rows > 0


def test_a_wait_beyond_the_patience_is_not_begun(roots, fast):
    with Archive(ps1_table(M67)) as archive:
        archive.moods = ["429"]  # Retry-After: 7
        with pytest.raises(DownError, match="HTTP 429"):
            fetch_cone("ps1", M67, roots, dead(roots, archive, patience_s=6.0))
        assert len(archive.questions) == 1


def test_little_patience_asks_once(roots, fast):
    with Archive(ps1_table(M67)) as archive:
        archive.moods = ["503"]
        with pytest.raises(DownError, match="HTTP 503"):
            fetch_cone("ps1", M67, roots, dead(roots, archive, patience_s=0.1, timeout_s=5.0))
        assert len(archive.questions) == 1


def test_a_service_that_refuses_is_not_worth_another_round(roots, fast):
    with Archive(ps1_table(M67)) as archive:
        archive.moods = ["404"]
        with pytest.raises(DownError, match="HTTP 404"):
            fetch_cone("ps1", M67, roots, dead(roots, archive))
        archive.moods = ["html"]
        with pytest.raises(TransientError) as caught:
            fetch_cone("ps1", M67, roots, dead(roots, archive))
        assert not isinstance(caught.value, DownError)  # a page for visitors may be gone in a minute


def test_the_lock_files_lie_in_the_cache(roots):
    with Archive(ps1_table(M67)) as archive:
        fetch_cone("ps1", M67, roots, dead(roots, archive))
    left = {path.name for path in (roots.data / ".cache" / "catalogs" / "hosts").iterdir()}
    host = archive.base.removeprefix("http://").replace(":", "_")
    assert left == {f"{host}.question", f"{host}.request"}
    assert os.access(roots.data / ".cache" / "catalogs" / "ps1.lock", os.R_OK)
