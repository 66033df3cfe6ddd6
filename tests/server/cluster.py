"""A PostgreSQL server and a Dask cluster on loopback, both of the test's own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.server.installation import REPO, free_port, until


def postgres_programs() -> Path | None:
    """Folder of Debian's initdb and postgres; None where there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A database cluster in a folder; yields Prefect's address of its database."""
    programs = postgres_programs()
    assert programs is not None
    data, port = folder / "postgres", free_port()
    data.mkdir(parents=True)
    user: int | None = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = pwd.getpwnam("postgres").pw_uid
        os.chown(data, user, -1)
        for parent in folder.parents:
            if parent.owner() == "root" and parent.is_relative_to("/tmp") and parent != Path("/tmp"):
                parent.chmod(parent.stat().st_mode | 0o011)
        folder.chmod(0o755)
    plain = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "ohp", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True, capture_output=True, user=user, env=plain, cwd="/",
    )  # fmt: skip
    log = (folder / "postgres.log").open("wb")
    server = subprocess.Popen(
        [programs / "postgres", "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", ""],
        stdout=log, stderr=subprocess.STDOUT, user=user, env=plain, cwd="/",
    )  # fmt: skip
    try:
        ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        until(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0, 30, "PostgreSQL")
        create = [programs / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "ohp", "prefect"]
        subprocess.run(create, check=True, capture_output=True)
        yield f"postgresql+asyncpg://ohp@127.0.0.1:{port}/prefect"
    finally:
        server.terminate()
        server.wait(timeout=20)
        log.close()


def count_flow_runs(address: str) -> int:
    """How many flow runs are in the database."""
    programs = postgres_programs()
    assert programs is not None
    plain = address.replace("postgresql+asyncpg", "postgresql")
    done = subprocess.run(
        [programs / "psql", plain, "-Atc", "select count(*) from flow_run"], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


@contextmanager
def dask(folder: Path, environment: dict[str, str], workers: int = 2) -> Iterator[str]:
    """A scheduler and its workers, started as docs/deployment.md says; yields the scheduler's address."""
    address = f"tcp://127.0.0.1:{free_port()}"
    folder.mkdir(parents=True, exist_ok=True)
    log = (folder / "dask.log").open("wb")
    common = {"cwd": REPO, "env": environment, "stdout": log, "stderr": subprocess.STDOUT}
    program = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    processes = [
        subprocess.Popen([*program, "--host", address, "--no-dashboard", "--no-jupyter"], **common)  # type: ignore[call-overload]
    ]
    program = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
    program += ["--nworkers", str(workers), "--preload", "deployments.dask_worker", "--local-directory", str(folder)]
    try:
        processes.append(subprocess.Popen(program, **common))  # type: ignore[call-overload]
        text = folder / "dask.log"
        until(lambda: text.read_text().count("Registered to:") == workers, 60, "Dask workers")
        yield address
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(timeout=30)
        log.close()
        shutil.rmtree(folder / "dask-scratch-space", ignore_errors=True)
