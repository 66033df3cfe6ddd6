"""The doctor finds what is missing, says how to mend it, and asks nobody but this machine."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from models.base import FileRef
from models.catalog import Cone, StoredCone
from models.settings import Settings
from models.telescope import load_telescope
from tasks.doctor import Check, can_run, examine
from tasks.doctor.packages import check_packages
from tasks.doctor.places import check_catalogues, check_data_root, check_index_files, check_raw_root
from tasks.doctor.prefect_state import check_prefect
from tasks.doctor.tools import check_tools
from tests.conftest import REPO
from tests.inventory.raw_files import LIGHT, header_bytes, write_raw

T120 = load_telescope("T120")


def settings(tmp_path: Path, **more: object) -> Settings:
    return Settings(data_root=tmp_path / "data", **more)


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


@pytest.fixture(autouse=True)
def no_prefect_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_SERVER_API_PORT", str(free_port()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_what_is_missing_says_how_to_mend_it() -> None:
    with pytest.raises(ValidationError):
        Check(subject="tools", name="scamp", state="missing", found="not there")
    note = Check(subject="tools", name="scamp", state="note", found="old")
    assert can_run([note])
    assert not can_run([note, Check(subject="tools", name="scamp", state="missing", found="gone", mend="apt-get")])


# tools


def test_no_tool_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = by_name(check_tools())
    assert {check.state for check in checks.values()} == {"missing"}
    assert checks["SWarp"].mend == "apt-get install swarp"
    assert checks["solve-field"].mend == "apt-get install astrometry.net"
    assert checks["scamp"].mend == "apt-get install scamp"
    assert len(checks) == 6


def fake_tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_old_broken_and_other_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tool(tmp_path, "scamp", "echo 'SCAMP version 1.4.6 (2008)'")
    fake_tool(tmp_path, "sex", "echo 'SExtractor version 2.28.0 (2023)'")
    fake_tool(tmp_path, "SWarp", "echo something else")
    (tmp_path / "psfex").write_bytes(b"\x7fELF not really")
    (tmp_path / "psfex").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/nowhere")
    checks = by_name(check_tools())
    assert (checks["scamp"].state, "1.4.6" in checks["scamp"].found) == ("note", True)
    assert (checks["source-extractor"].state, "2.28.0" in checks["source-extractor"].found) == ("ok", True)
    assert (checks["SWarp"].state, "version" in checks["SWarp"].found) == ("missing", True)
    assert (checks["psfex"].state, checks["psfex"].mend) == ("missing", "apt-get install --reinstall psfex")


@pytest.mark.tools
def test_the_real_tools() -> None:
    assert {check.state for check in check_tools()} == {"ok"}


# packages

LOCK = """\
numpy=={numpy} \\
    --hash=sha256:00
    # via
    #   -r requirements.in
    #   astropy
no-such-package==1.0 \\
    --hash=sha256:00
    # via no-such-parent
no-such-parent==1.0
    # via -r requirements.in
no-such-checker==2.0 ; python_version >= '3.8'
    # via -r requirements.in
no-such-helper==2.0
    # via no-such-checker
only-elsewhere==2.0 ; sys_platform == 'win32'
    # via -r requirements.in
"""
WANTED = "numpy\nno-such-parent>=1  # why\n\n# tests and checks\nno-such-checker\npytest\n"


def test_missing_packages_of_a_run_and_of_tests(tmp_path: Path) -> None:
    import numpy

    (tmp_path / "requirements.lock").write_text(LOCK.format(numpy=numpy.__version__))
    (tmp_path / "requirements.in").write_text(WANTED)
    checks = by_name(check_packages(tmp_path))
    assert checks["needed packages"].state == "missing"
    assert checks["needed packages"].found == "not installed: no-such-package, no-such-parent"
    assert checks["needed packages"].mend == "make setup"
    assert checks["test packages"].state == "note"
    assert checks["test packages"].found.endswith("no-such-checker, no-such-helper")
    assert checks["packages"].found == "1 of 5 as locked"


def test_another_version_is_a_note_and_a_broken_pin_is_not(tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text("numpy==0.1\n    # via -r requirements.in\n")
    (tmp_path / "requirements.in").write_text("numpy\n")
    checks = by_name(check_packages(tmp_path))
    assert (checks["packages"].state, "locked: 0.1" in checks["packages"].found) == ("note", True)
    assert can_run(list(checks.values()))
    (tmp_path / "requirements.in").write_text("numpy<1\n")
    checks = by_name(check_packages(tmp_path))
    assert (checks["numpy"].state, checks["numpy"].mend) == ("missing", "make setup")


def test_no_lock_file(tmp_path: Path) -> None:
    checks = by_name(check_packages(tmp_path))
    assert (checks["packages"].state, checks["Python"].state) == ("note", "ok")


def test_our_own_lock_file() -> None:
    checks = by_name(check_packages(REPO))
    assert "numpy" not in checks  # no broken pin
    assert "needed packages" not in checks


# folders


def test_raw_root(tmp_path: Path) -> None:
    assert check_raw_root(settings(tmp_path), T120)[0].state == "note"
    (given,) = check_raw_root(settings(tmp_path, raw_root=tmp_path / "nowhere"), T120)
    assert (given.state, "does not exist" in given.found) == ("missing", True)
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (empty,) = check_raw_root(settings(tmp_path), T120)
    assert (empty.state, ".fits" in empty.found) == ("note", True)
    write_raw(tmp_path / "data" / "raw" / "night" / "M67-0001.fits", LIGHT)
    (found,) = check_raw_root(settings(tmp_path), T120)
    assert (found.state, found.found.endswith(": 1 FITS files")) == ("ok", True)
    (tmp_path / "file").write_bytes(b"")
    assert "is not a folder" in check_raw_root(settings(tmp_path, raw_root=tmp_path / "file"), T120)[0].found


def test_data_root_is_looked_at_and_not_made(tmp_path: Path) -> None:
    checks = by_name(check_data_root(settings(tmp_path), T120))
    assert (checks["data root"].state, "made when first needed" in checks["data root"].found) == ("ok", True)
    assert checks["disk"].state in ("ok", "note")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "data").write_bytes(b"")
    assert check_data_root(settings(tmp_path), T120)[0].state == "missing"


def test_a_data_root_that_cannot_be_written() -> None:
    (check,) = check_data_root(Settings(data_root=Path("/proc/data")), T120)  # not even root can
    assert (check.state, "/proc cannot be written" in check.found) == ("missing", True)
    assert "--root" in check.mend


def test_a_disk_too_small_for_the_frames(tmp_path: Path) -> None:
    camera = T120.camera.model_copy(update={"shape": (1 << 24, 1 << 24)})
    huge = T120.model_copy(update={"camera": camera})
    write_raw(tmp_path / "data" / "raw" / "M67-0001.fits", LIGHT)
    checks = by_name(check_data_root(settings(tmp_path), huge))
    assert (checks["disk"].state, "all 1 raw files" in checks["disk"].found) == ("note", True)


# catalogues and index files


def store(root: Path, catalogue: str, name: str, rows: int) -> Path:
    folder = root / "catalogs" / catalogue
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.fits").write_bytes(b"table")
    cone = StoredCone(
        catalogue=catalogue, cone=Cone(ra=132.8, dec=11.8, radius=0.5), n_rows=rows, service="simulation",
        file=FileRef(path=f"catalogs/{catalogue}/{name}.fits", digest="0" * 64), release=f"{catalogue} DR9",
        fetched="2026-01-01T00:00:00Z",
    )  # fmt: skip
    (folder / f"{name}.json").write_text(cone.model_dump_json())
    return folder


def test_catalogues(tmp_path: Path) -> None:
    online, offline = settings(tmp_path), settings(tmp_path, catalog_mode="offline")
    assert [check.state for check in check_catalogues(online)] == ["ok", "ok"]
    empty = check_catalogues(offline)
    assert [check.state for check in empty] == ["note", "note"]
    assert "flows.import_catalog ps1" in empty[1].mend
    store(tmp_path / "data", "gaia", "one", 100)
    folder = store(tmp_path / "data", "gaia", "two", 20)
    (check, _) = check_catalogues(offline)
    assert (check.state, check.found) == ("ok", "2 fields, 120 stars in the store (gaia DR9)")
    (folder / "one.json").write_text("{")
    (folder / "two.fits").unlink()
    (broken, none, _) = check_catalogues(offline)
    assert (broken.state, broken.found) == ("note", "one.json cannot be read; two.fits is gone")
    assert none.found.startswith("none in")


def index_file(folder: Path, number: int, low: float, high: float) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"index-{number}.fits").write_bytes(header_bytes({"SCALE_L": low, "SCALE_U": high}, (0, 0)))


def test_index_files(tmp_path: Path) -> None:
    (built,) = check_index_files(settings(tmp_path), T120)
    assert (built.state, "built from the Gaia cones" in built.found) == ("ok", True)
    folder = tmp_path / "index"
    given = settings(tmp_path, astrometry_index_dir=folder)
    assert check_index_files(given, T120)[0].state == "missing"
    index_file(folder, 4110, 0.0174, 0.0244)  # 60-84 arcmin: none fits into 13 arcmin
    (wide,) = check_index_files(given, T120)
    assert (wide.state, "0 of 1" in wide.found, "5200" in wide.mend) == ("missing", True, True)
    index_file(folder, 5203, 0.00163, 0.00232)  # 5.6-8 arcmin
    (right,) = check_index_files(given, T120)
    assert (right.state, "1 of 2" in right.found) == ("ok", True)
    for path in folder.iterdir():
        path.write_bytes(b"no index")
    assert "none of 2" in check_index_files(given, T120)[0].found


# Prefect


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running.server_address[1]
        running.shutdown()
        thread.join()


def test_a_running_server_is_found(server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_PORT", str(server))
    checks = by_name(check_prefect(settings(tmp_path).roots))
    assert (checks["server"].state, "answers" in checks["server"].found) == ("ok", True)
    assert checks["home"].found == str(tmp_path / "data" / ".prefect")


def test_servers_that_do_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = settings(tmp_path).roots
    assert "embedded" in by_name(check_prefect(roots))["server"].found
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    given = by_name(check_prefect(roots))["server"]
    assert (given.state, "unset PREFECT_API_URL" in given.mend) == ("missing", True)
    with socket.socket() as silent:  # takes the connection and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/api")
        assert by_name(check_prefect(roots))["server"].state == "missing"


def test_prefect_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "file" / "home"))
    home = by_name(check_prefect(settings(tmp_path).roots))["home"]
    assert (home.state, "unset PREFECT_HOME" in home.mend) == ("missing", True)


def test_nobody_else_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    connect = socket.socket.connect

    def listen(self: socket.socket, address: object) -> None:
        asked.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", listen)
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:3128")
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:3128")
    examine(settings(tmp_path), T120)
    assert asked == [("127.0.0.1", int(os.environ["PREFECT_SERVER_API_PORT"]))]
    asked.clear()
    monkeypatch.setenv("PREFECT_API_URL", "http://192.0.2.1:4200/api")
    (server, _) = check_prefect(settings(tmp_path).roots)
    assert (server.state, asked) == ("note", [])


# the command


def run(*arguments: str | Path, python: str = sys.executable, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OHP_")}
    return subprocess.run(
        [python, "-m", "flows.doctor", *map(str, arguments)],
        cwd=REPO, capture_output=True, text=True, timeout=60, check=False, env=clean | environment,
    )  # fmt: skip


@pytest.mark.tools
def test_the_command_when_all_is_well(tmp_path: Path) -> None:
    done = run("--root", tmp_path / "data")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "A run is possible" in done.stdout
    for word in ("source-extractor", "Python", "data root", "Gaia", "index files", "Prefect"):
        assert word in done.stdout
    assert done.stderr == ""
    assert not (tmp_path / "data").exists()


def test_the_command_when_tools_are_missing(tmp_path: Path) -> None:
    done = run("--root", tmp_path / "data", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "apt-get install source-extractor" in done.stdout
    assert "No run is possible yet: source-extractor, scamp" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_command_without_its_packages(tmp_path: Path) -> None:
    done = run("-h", python=sys.executable, PYTHONPATH="", PYTHONNOUSERSITE="1")
    assert done.returncode == 0
    bare = subprocess.run(
        [sys.executable, "-S", "-m", "flows.doctor"], cwd=REPO, capture_output=True, text=True, timeout=60, check=False
    )
    assert bare.returncode == 1
    assert "make setup" in bare.stderr
    assert len(bare.stderr.splitlines()) == 1
