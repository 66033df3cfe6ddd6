"""Commands from a shell: help at once, settings in their order, mistakes in one line with the right status."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows._cli import Command

REPO = Path(__file__).resolve().parents[2]
COMMANDS = [
    "flows.demo",
    "flows.doctor",
    "flows.import_catalog",
    "flows.inventory",
    "flows.reduce_year",
    "flows.simulate_campaign",
    "flows.stack_target",
]


def shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OHP_", "PREFECT_"))}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPO,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_and_imports_nothing_heavy(command):
    answer = shell(command, "--help")
    assert answer.returncode == 0
    assert answer.stdout.startswith(f"usage: python -m {command}")
    assert "--root" in answer.stdout
    assert "exit status: 0" in answer.stdout
    heavy = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", command, "--help"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    loaded = {line.rsplit("|", 1)[-1].strip() for line in heavy.splitlines()}
    assert not loaded & {"prefect", "astropy", "astropy.io.fits", "matplotlib", "scipy", "astroquery"}


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["flows.reduce_year"], {}, "required: YEAR"),
        (["flows.reduce_year", "20205"], {}, "'20205' is no year between 1990 and 2100"),
        (["flows.inventory", "M51"], {}, "'M51' is no year between 1990 and 2100"),
        (["flows.reduce_year", "soon"], {}, "'soon' is no year between 1990 and 2100"),
        (["flows.reduce_year", "2025", "--telescope", "T12"], {}, "no telescope profile 'T12'; there are: T080, T120"),
        (["flows.reduce_year", "2025"], {"OHP_WORKERS": "many"}, "setting workers"),
        (["flows.reduce_year", "2025"], {"OHP_DATAROOT": "x"}, "did you mean 'OHP_DATA_ROOT'?"),
        (["flows.reduce_year", "2025"], {"OHP_STACK__COMBIN": "x"}, "did you mean 'combine'?"),
        (["flows.stack_target", "M5"], {}, "no target group 'M5'; did you mean"),
        (["flows.stack_target", "Whirlpol"], {}, "did you mean"),
        (["flows.stack_target", "M51", "--combine", "mean"], {}, "invalid choice: 'mean'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, environment, says, tmp_path):
    answer = shell(*arguments, "--root", str(tmp_path), **environment)
    assert answer.returncode == 2
    assert says in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("command", [["flows.reduce_year", "2025"], ["flows.stack_target", "M51"]])
def test_an_unwritable_root_is_status_2(command, tmp_path):
    (tmp_path / "file").write_text("in the way")
    answer = shell(*command, "--root", str(tmp_path / "file" / "data"))
    assert answer.returncode == 2
    assert "cannot write under" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_a_first_line_comes_within_two_seconds(tmp_path):
    (tmp_path / "raw").mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "flows.reduce_year", "2025", "--root", str(tmp_path)],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith(("OHP_", "PREFECT_"))},
    ) as process:
        started = time.monotonic()
        line = process.stdout.readline()
        waited = time.monotonic() - started
        process.kill()
    assert "products under" in line
    assert "Prefect" in line
    assert waited < 10  # 0.5 s measured; a loaded machine may be slow, an import of Prefect before the line is not


def test_settings_come_from_the_command_line_then_the_environment_then_the_file(tmp_path, monkeypatch):
    (tmp_path / "pipeline.toml").write_text("[stack]\ncombine = 'clipped'\npadding_px = 10\nback_size_px = 99\n")
    monkeypatch.setenv("OHP_STACK__PADDING_PX", "20")
    monkeypatch.setenv("OHP_STACK__COMBINE", "clipped")
    command = Command("flows.stack_target", "test", ["stack"])
    command.begin(["--root", str(tmp_path), "--combine", "weighted"])
    stack = command.settings.stack
    assert (stack.combine, stack.padding_px, stack.back_size_px) == ("weighted", 20, 99)
    assert stack.resampling == "LANCZOS3"


def test_a_profile_with_a_mistake_names_file_and_entry(tmp_path, capsys):
    folder = tmp_path / "telescopes"
    folder.mkdir()
    (folder / "MINE.toml").write_text("name = 'MINE'\n[site]\nlatitude_deg = 430\nlongitude_deg = 5\n")
    command = Command("flows.reduce_year", "test")
    with pytest.raises(SystemExit) as stop:
        command.begin(["--root", str(tmp_path), "--telescope", "MINE"])
    assert stop.value.code == 2
    assert "MINE.toml: site.latitude_deg" in capsys.readouterr().err


def test_a_machine_too_busy_for_the_embedded_server_is_said(tmp_path, capsys, monkeypatch):
    """The error is Prefect's own: its server's process is there, and answers nothing."""
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, temporary_settings

    from tests.server.installation import free_port

    server = SubprocessASGIServer(port=free_port())
    monkeypatch.setattr(server, "_run_uvicorn_command", lambda: subprocess.Popen(["sleep", "60"]))

    def body(*_):
        with temporary_settings({PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 1}):
            server.start()
        return 0

    try:
        status = Command("flows.reduce_year", "test").run(body, ["--root", str(tmp_path)])
    finally:
        server.server_process.kill()
        server.server_process.wait()
    assert status == 75
    assert "too busy" in capsys.readouterr().err
