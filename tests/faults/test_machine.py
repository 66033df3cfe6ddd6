"""Faults of the machine, real ones: full and read-only disks, lost permission, clocks, locks, memory, `kill -9`.

After each: no torn file, nothing unfinished left, the next run completes, the products are those of an undisturbed run
but for dates. What needs root (mounts, other users, memory groups) is skipped without.
"""

from __future__ import annotations

import fcntl
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from models.base import Roots
from tasks.core.ledger import read_made, size
from tests.demo import REPO
from tests.faults.place import YEAR, Place, differences, mounted, processes_with
from tests.faults.standins import stand_ins
from tests.flows.test_stopping import _workers

pytestmark = [pytest.mark.tools]

_NOT_CHANGED = ["--clear-groups", "--reuid", "65534", "--inh-caps", "+dac_read_search", "--ambient-caps"]
_SEEDED_STEPS = 10
_EXT4_IOC_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2
_SOME_MB = 64 << 20


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place that other users may enter, unlike pytest's."""
    made = Path(tempfile.mkdtemp(prefix="ohp-machine-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)


@pytest.fixture
def mounts(folder: Path) -> Path:
    """The same where file systems can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    tried = subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {tried.stderr.decode().strip()}")
    subprocess.run(["umount", str(folder)], check=True)
    return folder


def space(path: Path) -> int:
    return int(subprocess.run(["du", "-s", "-B1", str(path)], capture_output=True, check=True).stdout.split()[0])


def at_work(place: Place, process: subprocess.Popen[str], bodies: int = 6) -> None:
    """Wait until so many stages have run."""
    end = time.monotonic() + 3600
    while process.poll() is None and len(read_made(place.roots)) < bodies:
        assert time.monotonic() < end
        time.sleep(0.02)


def to_its_end(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        output, _ = process.communicate(timeout=3600)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


def ended_in_order(status: int, output: str, place: Place) -> None:
    """Whatever could not be made: said, without a traceback, with nothing torn and a status that tells."""
    assert "Traceback" not in output, output
    assert "unforeseen" not in output, output
    assert "a mistake of the pipeline" not in output, output
    assert status in (0, 1, 75), output
    if "left out" in output or "pending" in output:
        assert status in (1, 75) or "left out" not in output, output
    assert place.unfinished() == []


@pytest.mark.parametrize("steps", [1, pytest.param(_SEEDED_STEPS, marks=pytest.mark.slow)])
def test_a_disk_that_is_full(steps, api, campaign_root, mounts, request):
    """At each step the disk holds some more of what a run writes, so that it is full at another write."""
    undisturbed = request.getfixturevalue("undisturbed") if steps > 1 else None
    draw = random.Random(steps)
    needed = space(undisturbed.roots.data) - space(undisturbed.roots.data / "catalogs") if undisturbed else _SOME_MB / 2
    shares = sorted(draw.uniform(0.0, 0.95) for _ in range(steps)) if steps > 1 else [0.35]
    start = space(campaign_root / "catalogs") + (1 << 20)
    statuses = []
    with mounted(mounts / "data", "-t", "tmpfs", "-o", "size=512m", "none") as data:
        place = Place.beside(campaign_root, data, api)
        for share in shares:
            limit = f"remount,size={int(start + share * needed) >> 10}k"
            with suppress(subprocess.CalledProcessError):  # more than that lies there already
                subprocess.run(["mount", "-o", limit, str(data)], check=True, capture_output=True)
            for command in (place.reduce, place.stack)[: 1 if steps == 1 else 2]:
                status, output = command()
                ended_in_order(status, output, place)
                statuses.append(status)
                if status == 1:
                    break
        assert any(statuses), "the disk was never full"
        subprocess.run(["mount", "-o", "remount,size=512m", str(data)], check=True)
        if undisturbed is None:
            status, output = place.reduce()
            assert (status, "left out" in output) == (0, False), output
            assert place.unfinished() == []
            return
        place.complete()
        assert place.unfinished() == []
        assert differences(place, undisturbed) == []


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["solve-field", "source-extractor", "psfex", "scamp", "SWarp"])
def test_a_tool_that_fills_the_disk(tool, api, campaign_root, undisturbed, mounts, tmp_path):
    path = stand_ins(tmp_path / "tools", {tool: ["fill", "fill"]}, "987654321")
    room = 3 * space(undisturbed.roots.data)
    with mounted(mounts / "data", "-t", "tmpfs", "-o", f"size={room >> 10}k", "none") as data:
        place = Place.beside(campaign_root, data, api)
        for command in (place.reduce, place.stack):
            status, output = command(PATH=path)
            ended_in_order(status, output, place)
            assert shutil.disk_usage(data).free > room / 4, "what the tool left is still there"
        assert "fill" in (tmp_path / "tools" / tool / "calls").read_text()
        place.complete()
        assert place.unfinished() == []
        assert differences(place, undisturbed) == []


def test_one_file_of_a_tool_takes_a_part_of_the_disk_at_most(mounts, tmp_path, monkeypatch):
    from tasks.core.tools import ToolFailedError, run_tool

    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "scamp").write_text("#!/bin/sh\nexec head -c 1G /dev/zero > junk\n")
    (programs / "scamp").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    with mounted(mounts / "disk", "-t", "tmpfs", "-o", "size=400m", "none") as disk:
        with pytest.raises(ToolFailedError, match="a file of more than 100 MB, a quarter of the room"):
            run_tool("scamp", [], cwd=disk, timeout_s=60)
        assert (disk / "junk").stat().st_size <= 100 << 20


def test_a_read_only_data_root(api, campaign_root, mounts):
    place = Place.beside(campaign_root, mounts / "data", api)
    with mounted(mounts / "data", "--bind", str(mounts / "data")) as data:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(data)], check=True)
        status, output = place.reduce()
    assert status == 2
    assert output.splitlines()[-1].endswith(
        f"cannot write under {place.roots.data}: Read-only file system; give another --root (or OHP_DATA_ROOT)"
    )
    assert "Traceback" not in output


def turned_read_only(device: str, data: Path) -> None:
    """What ext4 does when it finds itself damaged."""
    Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("a test")


def power_cut(device: str, data: Path) -> None:
    """ext4 forgets what was not yet on the disk, and answers every request with an input/output error."""
    descriptor = os.open(data, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
    finally:
        os.close(descriptor)


@pytest.mark.slow
@pytest.mark.parametrize("bodies", [3, 12])
@pytest.mark.parametrize("fault", [turned_read_only, power_cut])
def test_a_disk_that_fails_midway(fault, bodies, api, campaign_root, undisturbed, mounts):
    image, data = mounts / "image", mounts / "data"
    data.mkdir()
    with image.open("wb") as stream:
        stream.truncate(400 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    tried = subprocess.run(
        ["mount", "-o", "loop,errors=remount-ro", str(image), str(data)], capture_output=True, check=False
    )
    if tried.returncode != 0:
        pytest.skip(f"no loop device here: {tried.stderr.decode().strip()}")
    try:
        place = Place.beside(campaign_root, data, api)
        os.sync()
        device = subprocess.run(
            ["findmnt", "-n", "-o", "SOURCE", str(data)], capture_output=True, text=True, check=True
        )
        process = place.start("flows.reduce_year", str(YEAR))
        at_work(place, process, bodies)
        fault(Path(device.stdout.strip()).name, data)
        status, output = to_its_end(process)
        assert status in (1, 75), output
        assert "Traceback" not in output, output
        assert "Read-only file system" in output or "Input/output error" in output, output
        subprocess.run(["umount", str(data)], check=True)
        assert subprocess.run(["e2fsck", "-fy", str(image)], capture_output=True, check=False).returncode in (0, 1)
        subprocess.run(["mount", "-o", "loop", str(image), str(data)], check=True)
        # A record that was lost is sealed, and does not count.
        torn = [each for each in place.unfinished_by_killed() if not each.startswith(".cache/results/")]
        assert torn == []
        place.complete()
        assert place.unfinished() == []
        assert differences(place, undisturbed) == []
    finally:
        subprocess.run(["umount", "-l", str(data)], check=False, capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("bodies", [2, 8, 20])
def test_permission_lost_midway(bodies, api, campaign_root, undisturbed, folder):
    """A user without rights but reading; all folders of the data root are closed while the flow is at work."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("becoming another user needs root and setpriv")
    as_somebody = ["setpriv", *_NOT_CHANGED, "+dac_read_search"]
    place = Place.beside(campaign_root, folder / "data", api)
    for path in [place.roots.data, *place.roots.data.rglob("*")]:
        os.chown(path, 65534, -1)
    process = place.start("flows.reduce_year", str(YEAR), prefix=as_somebody)
    at_work(place, process, bodies)
    closed = {path: path.stat().st_mode for path in place.roots.data.rglob("*") if path.is_dir()}
    for path in closed:
        path.chmod(0o555)
    status, output = to_its_end(process)
    assert status in (1, 2, 75), output
    assert "Traceback" not in output, output
    assert "ermi" in output, output
    for path, mode in closed.items():
        path.chmod(mode)
    place.complete(prefix=as_somebody)
    assert place.unfinished() == []
    assert differences(place, undisturbed) == []


@pytest.mark.slow
def test_the_clock_was_set_back(api, undisturbed, tmp_path):
    """All that was made is of the day after tomorrow: nothing runs again, unless it is asked for."""
    place = Place.beside(undisturbed.roots.data, tmp_path / "data", api, products=True)
    place = Place(Roots(data=place.roots.data, raw=undisturbed.roots.raw), api)
    left = place.roots.data / "2023" / f".M67.fits.{_host()}.{_dead()}.1.tmp"
    left.touch()
    ahead = time.time() + 2 * 86400
    for path in place.roots.data.rglob("*"):
        os.utime(path, (ahead, ahead))
    lines = size(place.roots)
    place.complete()
    assert read_made(place.roots, lines) == []
    assert place.unfinished() == []
    status, output = place.reduce("--refresh", "measure")
    assert status == 0, output
    assert [entry.stage for entry in read_made(place.roots, lines)] == ["measure"] * 4
    place.complete()
    assert differences(place, undisturbed) == []


def _host() -> str:
    from tasks.core.files import owner

    return owner().split("-")[0]


def _dead() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.slow
def test_a_file_system_without_locks(api, campaign_root, undisturbed, tmp_path):
    """Two runs at once may do the same work twice there; what they make is the same."""
    place = Place.beside(campaign_root, tmp_path / "data", api)
    lockless = [sys.executable, "-m", "tests.faults.lockless"]
    both = [place.start("flows.reduce_year", str(YEAR), prefix=lockless) for _ in range(2)]
    for process in both:
        status, output = to_its_end(process)
        assert status == 0, output
        assert "Traceback" not in output
    place.complete(prefix=lockless)
    assert place.unfinished() == []
    assert differences(place, undisturbed) == []


@pytest.mark.slow
def test_nothing_makes_a_hard_link_in_the_data_root(api, campaign_root, undisturbed, tmp_path):
    """No file system without hard links is at hand: every request for one, of the tools too, is listed by strace."""
    if shutil.which("strace") is None:
        pytest.skip("no strace here")
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-A", "-qq", "--seccomp-bpf", "-e", "trace=link,linkat,execve", "-o", str(trace)]
    if subprocess.run([*strace, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing can be traced here")
    place = Place.beside(campaign_root, tmp_path / "data", api)
    place.complete(prefix=strace)
    assert differences(place, undisturbed) == []
    calls = trace.read_text(errors="replace").splitlines()
    assert [line for line in calls if "execve(" in line and "SWarp" in line], "the tools were not traced"
    links = [line for line in calls if "link(" in line or "linkat(" in line]
    assert [line for line in links if "/dev/shm/" not in line] == []


def test_nothing_of_ours_asks_for_hard_links():
    sources = [path for folder in ("models", "tasks", "flows", "deployments") for path in (REPO / folder).rglob("*.py")]
    assert len(sources) > 100
    assert [path.name for path in sources if re.search(r"os\.link\(|hardlink_to\(", path.read_text())] == []


def _memory_group(worker: int) -> Callable[[], bool]:
    """Put a process into a memory group of its own that has no room; what tells whether the kernel killed it."""
    for base, limit, events in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.oom_control"),
        (Path("/sys/fs/cgroup"), "memory.max", "memory.events"),
    ):
        group = base / f"ohp-faults-{worker}"
        try:
            group.mkdir()
            (group / limit).write_text(str(2 << 20))
            (group / "cgroup.procs").write_text(str(worker))
        except OSError:
            with suppress(OSError):
                group.rmdir()
            continue
        return partial(_oom_killed, group, group / events)
    pytest.skip("no memory group can be made here (cgroup not writable)")


def _oom_killed(group: Path, events: Path) -> bool:
    words = events.read_text().split()
    count = int(words[words.index("oom_kill") + 1])
    group.rmdir()
    return count > 0


def _address_space(worker: int) -> Callable[[], bool]:
    """No more memory than it has."""
    words = Path(f"/proc/{worker}/statm").read_text().split()
    limit = int(words[0]) * resource.getpagesize() + (1 << 20)
    resource.prlimit(worker, resource.RLIMIT_AS, (limit, limit))
    return lambda: True


@pytest.mark.slow
@pytest.mark.parametrize("short_of", [_memory_group, _address_space], ids=["killed by the kernel", "refused"])
def test_a_worker_without_memory(short_of, api, campaign_root, undisturbed, tmp_path):
    place = Place.beside(campaign_root, tmp_path / "data", api)
    process = place.start("flows.reduce_year", str(YEAR))
    at_work(place, process, 4)
    workers = _workers(process.pid)
    assert workers
    happened = short_of(workers[0])
    status, output = to_its_end(process)
    assert happened()
    assert status in (0, 1, 75), output
    assert "Traceback" not in output, output
    assert "unforeseen" not in output, output
    if status == 0:
        assert "left out" not in output, output
    place.complete()
    assert place.unfinished() == []
    assert differences(place, undisturbed) == []
    assert processes_with(str(place.roots.data)) == {}
