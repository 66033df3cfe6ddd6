"""Every command of README and docs/ is run: how, tests/commands.py says of each.

In every run of the tests, all commands of ours are read by their own parsers with the settings and profiles they name,
quick ones are run in full, and what `make` would do is asked. The pages as a reader types them, one command after the
other, are marked slow.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from astropy.table import Table

from tests.commands import REPO, WAYS, found, pages
from tests.profiles import examples, write

GIVEN = {
    "/data/ohp": "data", "/archive/raw": "data/raw", "URL": str(REPO), "gaia FILE": "gaia m67.csv", "YEAR": "2025",
    "GROUP": "M67", "FRAME": "frame.fits", "cd /opt/ohp-pipeline && ": "",
}  # fmt: skip
"""What stands for something of the reader's."""

INSTEAD = {
    "python -m flows.import_catalog": "python -m flows.import_catalog --help",
    "python -m flows.reduce_year": "python -m flows.reduce_year --help",
    "python -m flows.stack_target": "python -m flows.stack_target --help",
    ".venv/bin/pre-commit install": "(cd clone && ../.venv/bin/pre-commit install)",
    "git clone URL ohp-pipeline": f"git clone --quiet {shlex.quote(str(REPO))} ohp-pipeline/clone",
    "apt-get install git make": "apt-get install --simulate git make",
    "apt-get install astrometry-data-tycho2": "apt-get install --simulate astrometry-data-tycho2",
    **{
        f"pytest tests/load/{name}.py": f"python -m pytest --collect-only -m load tests/load/{name}.py"
        for name in ("test_requests", "test_two_users", "test_year")
    },
}
"""Of commands that are none without arguments, change the machine, or take hours: as much as can be done."""

STATUS = {
    "python -m flows.stack_target NGC7331": {2},
    "python -m flows.stack_target NGC7331 --dry-run": {2},
    "python -m scripts.measure --root demo": {0, 1},
}
"""Other than 0: no frame of the campaign shows NGC 7331; a goal of the figures is not reached. The pages say so."""

_LINKED = ("bench", "deployments", "docs", "flows", "models", "scripts", "tasks", "tests")


def of(*ways: str) -> list[str]:
    return [command for command, way in WAYS.items() if way.how in ways]


def runnable(command: str) -> str:
    text = INSTEAD.get(command, command)
    for word, given in GIVEN.items():
        text = re.sub(rf"(?<![\w/]){re.escape(word)}(?!\w)", given, text)
    return text


def environment(home: Path) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OHP_", "PREFECT_"))}
    return clean | {
        "HOME": str(home), "OHP_CATALOG_MODE": "offline", "OHP_SIMBAD_URLS": "", "PREFECT_SERVER_API_PORT": "4",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip


def checkout(place: Path) -> Path:
    """A folder like a checkout whose environment is installed."""
    place.mkdir(parents=True)
    for path in REPO.iterdir():
        if path.name in _LINKED or (path.is_file() and not path.name.startswith(".git")):
            (place / path.name).symlink_to(path)
    environment = place / ".venv"
    environment.mkdir()
    for path in Path(sys.prefix).iterdir():
        if not path.name.startswith("."):
            (environment / path.name).symlink_to(path)
    stamp = (REPO / "scripts" / "setup").read_text(encoding="utf-8").count("sha256sum")
    assert stamp == 2, "scripts/setup makes other stamps than this test knows"
    for kind, file in (("installed", "requirements"), ("docs", "requirements-docs")):
        done = subprocess.run(["sha256sum", REPO / f"{file}.lock"], capture_output=True, text=True, check=True)
        (environment / f".{kind}-{done.stdout[:16]}").touch()
    for file in examples():
        write(file, place / "mydata")
    return place


def catalogues(source: Path, place: Path) -> None:
    """Files as a person downloads them, from the campaign's own catalogues of M67."""
    for name, kind, form in (
        ("m67.csv", "gaia", "csv"), ("gaia_m67.csv", "gaia", "csv"), ("ps1_m67.csv", "ps1", "csv"),
        ("field.fits", "ps1", "fits"),
    ):  # fmt: skip
        table = Table.read(next((source / kind).glob("*_132.*.fits")))
        table.meta.clear()
        table.write(place / name, format=f"ascii.{form}" if form == "csv" else form)


@pytest.fixture(scope="module")
def small(campaign, tmp_path_factory) -> Path:
    """A checkout with the campaign of six frames as its data."""
    place = checkout(tmp_path_factory.mktemp("small") / "ohp-pipeline")
    shutil.copytree(campaign.roots.catalogs, place / "data" / "catalogs")
    (place / "data" / "raw").symlink_to(campaign.roots.raw)
    catalogues(campaign.roots.catalogs, place)
    return place


def test_every_command_is_in_the_table_and_the_table_holds_no_other():
    in_docs = {command for page in pages() for commands in found(page) for command in commands}
    assert in_docs - set(WAYS) == set(), "say in tests/commands.py how it is run"
    assert set(WAYS) - in_docs == set(), "no page has it any more"
    assert len(in_docs) > 100


def test_commands_are_found_as_they_stand(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Type `make demo`, not `make`.\n```sh\nA=1 B=/x python -m flows.doctor   # why\nls \\\n    -l\n```\n"
        "```\n2023  18 frames\n*/10 * * * * cd /opt && make server\npython -m flows.doctor --root x\n```\n"
        "```python\nmake = 1\n```\n"
    )
    assert found(page) == (
        ["A=1 B=/x python -m flows.doctor", "ls -l", "cd /opt && make server", "python -m flows.doctor --root x"],
        ["make demo"],
    )


_READ = """
import contextlib, io, json, os, runpy, sys
from flows import _cli

begin = _cli.Command.begin

def only_begin(self, arguments=None):
    begin(self, arguments)
    raise SystemExit(0)

_cli.Command.begin = only_begin
answers = {}
for command, variables, module, arguments in json.load(sys.stdin):
    before = dict(os.environ)
    os.environ.update(variables)
    sys.argv = [module, *arguments]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = "it began its work"
    except SystemExit as end:
        status = end.code
    answers[command] = [status, said.getvalue()[-300:]]
    os.environ.clear()
    os.environ.update(before)
json.dump(answers, sys.stdout)
"""


def test_every_command_of_ours_is_read_by_its_own_parser(small):
    """Options, values, settings, profiles, variables: all that is looked at before the work begins."""
    asked = []
    for command in WAYS:
        words = shlex.split(runnable(command).split(" > ")[0]) if "python -m" in command else []
        if "python" not in words or words[words.index("python") + 2].startswith("pytest"):
            continue
        at = words.index("python")
        variables = dict(word.split("=", 1) for word in words[:at])
        asked.append((command, variables, words[at + 2], words[at + 3 :]))
    assert len(asked) > 65
    done = subprocess.run(
        [sys.executable, "-c", _READ], input=json.dumps(asked), cwd=small, env=environment(small.parent),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert {command: said for command, (status, said) in answers.items() if status} == {}


def make_words(command: str) -> list[str]:
    """Targets and variables that a command gives to make; none if it is no such command."""
    words = shlex.split(runnable(command))
    if "make" not in words or command.startswith("apt-get"):
        return []
    asked = words[words.index("make") :]
    return asked[: next((at for at, word in enumerate(asked) if word.startswith(">")), None)]


def test_make_knows_every_target(small):
    """`make --dry-run`: the target exists, and what it would run is ours."""
    asked = [words for command in WAYS if (words := make_words(command))]
    assert len(asked) > 18
    for words in asked:
        done = subprocess.run(
            [*words, "--dry-run"], cwd=small, env=environment(small.parent), capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        for module in re.findall(r"python -m ((?:flows|scripts|bench|deployments)\S*)", done.stdout):
            place = REPO / module.replace(".", "/")
            assert place.is_dir() or place.with_suffix(".py").is_file(), f"{words}: {module}"
        assert "scripts/setup" in done.stdout or "clean-demo" in words, words


def test_what_others_run_is_there():
    ci = (REPO / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    for command, way in WAYS.items():
        if way.how == "script":
            asked = "make lint" if command == "make setup" else command
            assert asked in ci, command
        if way.how == "test":
            says = way.says or re.search(r"(?:flows|scripts)\.\w+", command)[0]
            text = (REPO / way.where).read_text(encoding="utf-8")
            assert says in text, f"{way.where} does not run {command!r}"
        assert way.how in ("ci", "slow", "dry", "test", "script", "page"), command
    assert "setup" in (REPO / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].splitlines()[0]


def test_setup_is_a_script_that_knows_its_options():
    setup = REPO / "scripts" / "setup"
    subprocess.run(["bash", "-n", setup], check=True, timeout=60)
    for option in re.findall(r"scripts/setup (--[a-z]+)", " ".join(WAYS)):
        assert re.search(rf"{option}\b[^\n]*\) also \w+", setup.read_text(encoding="utf-8")), option


@pytest.mark.parametrize("command", of("ci"))
def test_in_full(command, small):
    done = subprocess.run(
        ["bash", "-c", runnable(command)], cwd=small, env=environment(small.parent), capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip()


# From here on: the pages as a reader types them, one command after the other.


def sessions() -> dict[str, list[str]]:
    """Commands of each page that are run in full, in the order of its blocks; those of the running texts together."""
    wanted = set(of("ci", "slow", "page"))
    typed: dict[str, list[str]] = {}
    rest: list[str] = []
    for page in pages():
        blocks, text = found(page)
        if mine := [command for command in blocks if command in wanted]:
            typed[page.relative_to(REPO).as_posix()] = mine
        rest += text
    done = {command for mine in typed.values() for command in mine}
    typed["the running text"] = [each for each in dict.fromkeys(rest) if each in wanted and each not in done]
    return typed


def test_every_slow_command_is_in_a_session():
    assert {command for mine in sessions().values() for command in mine} == set(of("ci", "slow", "page"))


@pytest.fixture(scope="module")
def whole(demo, tmp_path_factory) -> Path:
    """A checkout with a finished demo, of which `data` is another name."""
    place = checkout(tmp_path_factory.mktemp("whole") / "ohp-pipeline")
    source = demo.roots.data

    def ignored(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(folder) == source and name in ("raw", ".prefect")]

    shutil.copytree(source, place / "demo", ignore=ignored, symlinks=True)
    (place / "demo" / "raw").symlink_to(demo.roots.raw.resolve())
    (place / "data").symlink_to("demo")
    catalogues(source / "catalogs", place)
    (place / "frame.fits").symlink_to(next(demo.roots.raw.rglob("*.fit")))
    return place


@pytest.mark.slow
@pytest.mark.demo
@pytest.mark.tools
@pytest.mark.parametrize("page", sessions())
def test_a_page_as_it_is_typed(page, whole, request):
    variables = environment(whole.parent)
    if page.endswith("new_telescope.md"):
        frames, tycho2 = request.getfixturevalue("shared") / "real" / "hatp32", Path("/usr/share/astrometry")
        if not list(tycho2.glob("index-tycho2-*.fits")):
            pytest.skip("astrometry-data-tycho2 is not installed")
        shutil.copytree(frames, whole / "mydata" / "raw")
        variables["OHP_ASTROMETRY_INDEX_DIR"] = str(tycho2)
    if page.endswith("new_target.md"):
        text = (REPO / page).read_text(encoding="utf-8")
        block = re.search(r"^```toml\n# DATA_ROOT/targets\.toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        (whole / "data" / "targets.toml").write_text(block[1], encoding="utf-8")
    lines = ["set -u"]
    for number, command in enumerate(sessions()[page]):
        if command.startswith("apt-get") and shutil.which("apt-get") is None:
            continue
        lines += [f"echo '@@ {number}'", runnable(command), f'echo "@@ {number} $?"']
    begins = whole.parent if "cd ohp-pipeline" in sessions()[page] else whole
    done = subprocess.run(
        ["bash"], input="\n".join(lines), cwd=begins, env=variables, capture_output=True, text=True, timeout=7200,
        check=False,
    )  # fmt: skip
    statuses = {int(number): int(status) for number, status in re.findall(r"^@@ (\d+) (\d+)$", done.stdout, re.M)}
    for number, command in enumerate(sessions()[page]):
        if number in statuses or not command.startswith("apt-get"):
            said = done.stdout.partition(f"@@ {number}\n")[2].partition(f"@@ {number} ")[0]
            assert statuses.get(number) in STATUS.get(command, {0}), f"{command}\n{said}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr
