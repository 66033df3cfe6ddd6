"""The tool runner against tools that misbehave: stand-ins on a PATH of the test's own."""

from __future__ import annotations

import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from models.base import Roots
from tasks.core import tools
from tasks.core.errors import blame
from tasks.core.files import sweep
from tasks.core.tools import ToolFailedError, ToolMissingError, end_orphans, run_tool, scratch, tool_version


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Put a script on PATH as `scamp`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def install(script: str, name: str = "scamp") -> Path:
        path = folder / name
        path.write_text("#!/bin/bash\n" + script)
        path.chmod(0o755)
        return path

    return install


def run(tmp_path: Path, timeout_s: float = 20.0, **options):
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    return run_tool("scamp", ["-c", "x"], cwd=work, timeout_s=timeout_s, log=tmp_path / "log" / "scamp.log", **options)


def test_it_returns_what_the_tool_printed(stand_in, tmp_path):
    stand_in('echo "arguments: $*"; echo warning >&2')
    assert run(tmp_path).splitlines() == ["arguments: -c x", "warning"]


def test_an_error_names_status_last_line_and_log(stand_in, tmp_path):
    stand_in("echo first; echo 'cannot open catalogue' >&2; exit 3")
    with pytest.raises(ToolFailedError, match="exited with status 3: cannot open catalogue") as failure:
        run(tmp_path)
    assert "cannot open catalogue" in failure.value.log.read_text()
    assert pickle.loads(pickle.dumps(failure.value)).reason == failure.value.reason


def test_death_by_a_signal_is_named(stand_in, tmp_path):
    stand_in("kill -SEGV $$")
    with pytest.raises(ToolFailedError, match="died of SIGSEGV"):
        run(tmp_path)


def test_status_zero_without_the_output_is_a_failure(stand_in, tmp_path):
    stand_in("true")
    with pytest.raises(ToolFailedError, match=r"did not write a\.head"):
        run(tmp_path, outputs=[tmp_path / "a.head"])
    (tmp_path / "a.head").touch()
    with pytest.raises(ToolFailedError, match=r"did not write a\.head"):
        run(tmp_path, outputs=[tmp_path / "a.head"])


def test_the_limit_ends_the_tool_and_its_children(stand_in, tmp_path):
    stand_in(f"sleep 300 & echo $! > {tmp_path}/child; sleep 300")
    started = time.monotonic()
    with pytest.raises(ToolFailedError, match="ran longer than 1 s"):
        run(tmp_path, timeout_s=1.0)
    assert time.monotonic() - started < 10
    child = int((tmp_path / "child").read_text())
    for _ in range(50):
        if not _running(child):
            return
        time.sleep(0.1)
    pytest.fail("the tool's child outlived it")


def gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while _running(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not _running(pid)


@pytest.mark.parametrize(("last", "limit"), [("sleep 300", 1.0), ("exit 0", 20.0), ("kill -SEGV $$", 20.0)])
def test_children_in_sessions_of_their_own_are_ended(stand_in, tmp_path, last, limit):
    """Forked twice and with signals ignored: neither group nor session nor parent tells whose they are."""
    hidden = f"(setsid bash -c 'trap \"\" TERM HUP INT; echo $$ > {tmp_path}/hidden; sleep 300; true' &)"
    stand_in(f"{hidden}\nwhile [ ! -s {tmp_path}/hidden ]; do sleep 0.02; done; {last}")
    started = time.monotonic()
    if last == "exit 0":
        run(tmp_path, timeout_s=limit)
    else:
        with pytest.raises(ToolFailedError):
            run(tmp_path, timeout_s=limit)
    assert time.monotonic() - started < 15, "it waited for a child that holds its output"
    assert gone(int((tmp_path / "hidden").read_text()))


def test_what_a_killed_process_left_is_ended_by_the_next(stand_in, tmp_path):
    """`kill -9` of a worker: the kernel ends the tool, but not what the tool had started."""
    stand_in(f"setsid sleep 300 & echo $! > {tmp_path}/child; exec sleep 300")
    pid = os.fork()
    if pid == 0:
        run(tmp_path, timeout_s=300)
        os._exit(0)
    end = time.monotonic() + 20
    while not ((tmp_path / "child").exists() and (tmp_path / "child").read_text().strip()):
        assert time.monotonic() < end
        time.sleep(0.05)
    child = int((tmp_path / "child").read_text())
    assert child not in end_orphans(), "its tool is at work"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert _running(child)
    assert child in end_orphans()
    assert gone(child)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_half_a_file_is_no_output(stand_in, tmp_path, share):
    whole = tmp_path / "whole.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((200, 200), "f4"))]).writeto(whole)
    stand_in(f"cat {whole} > {tmp_path}/a.fits")
    run(tmp_path, outputs=[tmp_path / "a.fits"])
    stand_in(f"head -c {int(share * whole.stat().st_size)} {whole} > {tmp_path}/a.fits")
    for which in ("outputs", "optional"):
        with pytest.raises(ToolFailedError, match=r"wrote only a part of a\.fits"):
            run(tmp_path, **{which: [tmp_path / "a.fits"]})


def test_half_a_votable_is_no_output(stand_in, tmp_path):
    stand_in(f"echo '<?xml version=\"1.0\"?><VOTABLE><TR>' > {tmp_path}/a.xml")
    with pytest.raises(ToolFailedError, match="closing tag"):
        run(tmp_path, outputs=[tmp_path / "a.xml"])


def test_an_optional_file_may_be_missing(stand_in, tmp_path):
    stand_in("echo fine")
    assert run(tmp_path, optional=[tmp_path / "a.fits"]) == "fine\n"


def test_control_characters_do_not_reach_the_record(stand_in, tmp_path):
    stand_in("printf '\\033[31mno\\000 stars\\007\\n'; exit 1")
    with pytest.raises(ToolFailedError) as failure:
        run(tmp_path)
    assert failure.value.reason == "exited with status 1: [31mno stars"


def test_gigabytes_of_output_cost_no_disk(stand_in, tmp_path):
    """While the tool floods, nothing of it lies in the working folder; its end is kept."""
    stand_in(
        f"head -c 1000000000 /dev/zero >&2; du -s {tmp_path}/work | cut -f1 > {tmp_path}/used; echo the end; exit 1"
    )
    with pytest.raises(ToolFailedError, match="the end"):
        run(tmp_path, timeout_s=120)
    assert int((tmp_path / "used").read_text()) < 1000
    text = (tmp_path / "log" / "scamp.log").read_bytes()
    assert b"bytes before this are left out" in text
    assert len(text) < 10_000_000


def test_a_child_left_behind_is_ended(stand_in, tmp_path):
    stand_in(f"sleep 300 >/dev/null 2>&1 & echo $! > {tmp_path}/child; exit 0")
    run(tmp_path)
    child = int((tmp_path / "child").read_text())
    for _ in range(50):
        if not _running(child):
            return
        time.sleep(0.1)
    pytest.fail("the tool's child outlived it")


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_flood_of_output_is_cut_in_the_log(stand_in, tmp_path):
    stand_in("head -c 20000000 /dev/zero | tr '\\0' 'x'; exit 1")
    with pytest.raises(ToolFailedError):
        run(tmp_path)
    assert (tmp_path / "log" / "scamp.log").stat().st_size < 9_000_000


def test_no_python_path_and_no_display_reach_a_tool(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1")
    stand_in("env")
    seen = dict(line.split("=", 1) for line in run(tmp_path, threads=2).splitlines() if "=" in line)
    assert "PYTHONPATH" not in seen
    assert "PREFECT_API_URL" not in seen
    assert seen["OMP_NUM_THREADS"] == "2"


def test_a_missing_tool_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match="apt-get install scamp"):
        run(tmp_path)


def test_the_version_is_probed_from_what_it_prints(stand_in):
    stand_in("echo 'SCAMP version 9.8.7 (2030-01-01)'")
    assert tool_version("scamp") == "scamp 9.8.7"


def test_a_program_that_tells_no_version_is_not_believed(stand_in):
    stand_in("echo hello", name="psfex")
    with pytest.raises(ToolFailedError, match="does not tell its version"):
        tool_version("psfex")


def test_a_tool_that_hangs_when_asked_for_its_version_is_asked_once(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(tools, "_PROBE_S", 1.0)
    stand_in(f"echo asked >> {tmp_path}/asked; sleep 300", name="SWarp")
    for _ in range(2):
        with pytest.raises(ToolFailedError, match="does not tell its version: ran longer than 1 s"):
            tool_version("SWarp")
    assert (tmp_path / "asked").read_text() == "asked\n"


def test_what_is_no_program_is_a_failure(stand_in, tmp_path):
    stand_in("").write_bytes(b"\x00\x01\x02")
    with pytest.raises(ToolFailedError, match="cannot be started"):
        run(tmp_path)


def test_working_folders_of_killed_processes_are_swept(tmp_path):
    roots = Roots(data=tmp_path, raw=tmp_path / "raw")
    pid = os.fork()
    if pid == 0:
        with scratch(roots.scratch, "solve"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    (left,) = roots.scratch.iterdir()
    with scratch(roots.scratch, "solve") as mine:
        assert sweep(roots) == [left]
        assert mine.is_dir()


def test_scratch_folders_suit_the_tools_whatever_the_root_is_called(tmp_path):
    parent = tmp_path / "Mes données, été 2025"
    with scratch(parent) as folder:
        assert " " not in str(folder)
        assert "," not in str(folder)
        kept = folder
    assert not kept.exists()


def test_a_stopped_process_leaves_no_tool(stand_in, tmp_path):
    """The kernel ends the tool when the process that started it is killed."""
    stand_in(f"echo $$ > {tmp_path}/pid; exec sleep 300")
    pid = os.fork()
    if pid == 0:
        run(tmp_path, timeout_s=300)
        os._exit(0)
    for _ in range(100):
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip():
            break
        time.sleep(0.1)
    tool = int((tmp_path / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for _ in range(50):
        if not _running(tool):
            return
        time.sleep(0.1)
    pytest.fail("the tool outlived the process that started it")


def test_a_tool_that_found_the_disk_full_says_so_and_is_pending(stand_in, tmp_path):
    """Whoever filled it, and though there is room again: across processes, the failure is the machine's."""
    stand_in("echo 'write error: No space left on device' >&2; exit 1")
    with pytest.raises(ToolFailedError) as failure:
        run(tmp_path)
    blame(failure.value)  # as a worker does before the error goes to the flow
    record = pickle.loads(pickle.dumps(failure.value)).record("x.fits")
    assert record.pending
    assert record.reason.startswith("the disk is full")
