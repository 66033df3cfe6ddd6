"""The pages say what is: links lead somewhere; commands, settings, keywords and files have the names they give."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from astropy.io import fits
from pydantic import BaseModel

from models.frame import MaskBit
from models.settings import Settings
from models.target import Target

REPO = Path(__file__).resolve().parents[1]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]
COMMAND_PAGES = sorted((REPO / "docs" / "commands").glob("*.md"))
PIPELINE = REPO / "docs" / "pipeline_description.md"
RELEASE = REPO / "docs" / "data_release.md"
MADE_BY_MAKE = {"docs/measured.md", "docs/rehearsal.md", "docs/images/M51_rgb.jpg"}
"""Written by `make measured` and `make rehearsal`; linked before they are there."""

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(REPO).as_posix())


def sections() -> dict[str, type[BaseModel]]:
    return {
        name: field.annotation
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def prose(path: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as the common renderers make them."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def tables_under(path: Path, heading: str) -> list[list[str]]:
    """Rows of the tables in the section of a heading, without titles and rules."""
    text = path.read_text()
    match = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert match, f"{path.name} has no heading {heading!r}"
    rest = text[match.end() :]
    end = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
    lines = [line for line in rest[: end.start() if end else None].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rules = [number for number, row in enumerate(rows) if set("".join(row)) <= set("-: ")]
    skip = set(rules) | {number - 1 for number in rules}
    return [row for number, row in enumerate(rows) if number not in skip]


def keywords(rows: list[list[str]]) -> set[str]:
    """Keywords in backticks in the first column; ``CRPIXi`` stands for CRPIX1 and CRPIX2."""
    found: set[str] = set()
    for word in re.findall(r"`([^`]+)`", " ".join(row[0] for row in rows)):
        for name in word.split():
            assert re.fullmatch(r"[A-Z0-9_-]{1,8}|[A-Z_]+i(_j)?", name), f"{name!r} is no FITS keyword"
            found |= {name.replace("i_j", "1_1")} if "i_j" in name else {name.replace("i", n) for n in "12"}
    return found


@page
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if target.relative_to(REPO).as_posix() in MADE_BY_MAKE and not target.exists():
            continue
        assert target.exists(), f"{path.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{path.name}: {link}"


@page
def test_modules_and_commands_exist(path):
    modules = set(re.findall(r"python -m ((?:flows|scripts)\.\w+)", path.read_text()))
    modules |= set(re.findall(r"`((?:flows|tasks|models|scripts)(?:\.[a-z_]\w*)+)`", path.read_text()))
    for module in modules:
        assert exists(module), f"{path.name}: {module}"


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parent, _, last = name.rpartition(".")
    try:
        if importlib.util.find_spec(name) is not None:
            return True
    except ModuleNotFoundError:
        pass
    return bool(parent) and hasattr(importlib.import_module(parent), last)


@page
def test_settings_exist(path):
    known, text = sections(), path.read_text()
    for section, name in re.findall(r"`(\w+)\.(\w+)`", text):
        if section in known and name not in {"json", "md"}:  # release.json is a file
            assert name in known[section].model_fields, f"{path.name}: {section}.{name}"
    for variable in set(re.findall(r"\bOHP_[A-Z0-9_]*[A-Z0-9]", text)) - {"OHP_SECTION__NAME"}:
        section, _, name = variable.removeprefix("OHP_").lower().partition("__")
        assert section in Settings.model_fields, f"{path.name}: {variable}"
        if name:
            assert name in known[section].model_fields, f"{path.name}: {variable}"


@functools.cache
def help_of(module: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=REPO, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


@page
def test_options_of_command_lines_exist(path):
    for module, rest in re.findall(r"python -m (flows\.\w+)([^\n`#]*)", path.read_text()):
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest):
            assert re.search(rf"{option}\b", help_of(module)), f"{path.name}: {module} {option}"


@pytest.mark.parametrize("path", COMMAND_PAGES, ids=lambda path: path.stem)
def test_options_on_a_commands_page_exist(path):
    """Of that command, or of one that its row or example names."""
    known = help_of(f"flows.{path.stem}") + "--help"
    for line in path.read_text().splitlines():
        named = "".join(help_of(module) for module in re.findall(r"python -m (flows\.\w+)", line))
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", line):
            assert re.search(rf"{option}\b", known + named), f"{path.name}: {option}"


@functools.cache
def texts() -> list[str]:
    """Every text in the code, with a mark where a value comes in."""
    found = []
    for file in [*REPO.glob("flows/*.py"), *REPO.glob("tasks/**/*.py"), *REPO.glob("models/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                found.append("".join(map(str, parts)))
    return found


@pytest.mark.parametrize("path", COMMAND_PAGES, ids=lambda path: path.stem)
def test_messages_on_a_commands_page_are_the_codes(path):
    rows = re.findall(r"^\| it says .*\n\|[-|]+\n((?:\|.*\n?)+)", path.read_text(), re.MULTILINE)
    messages = [line.strip("|").split("|")[0].strip() for block in rows for line in block.splitlines()]
    for message in messages:
        for part in re.split(r"…|\bN\b", message):
            assert any(part.strip(" ,:") in text for text in texts()), (
                f"{path.name}: {message!r} is said nowhere ({part!r})"
            )


def test_each_stage_of_settings_is_described():
    """Every setting stands in a table of the pipeline description, with its default."""
    text = PIPELINE.read_text()
    for section, model in sections().items():
        for name, field in model.model_fields.items():
            match = re.search(rf"^\| `{section}\.{name}` \| ([^|]*) \|", text, re.MULTILINE)
            assert match, f"{section}.{name} is not described"
            default = field.default
            said = match[1].strip().replace("\u2009", "").replace("`", "").split(" ")[0]
            if isinstance(default, bool):
                assert said == ("yes" if default else "no"), f"{section}.{name}: {said}"
            elif isinstance(default, int | float):
                assert float(said) == default, f"{section}.{name}: {said}, default {default}"
            elif isinstance(default, str):
                assert said == default, f"{section}.{name}: {said}"
            elif isinstance(default, tuple) and default:
                assert said == ",".join(default), f"{section}.{name}: {said}"
            else:
                assert said == "none", f"{section}.{name}: {said}, default {default}"


def test_mask_bits_are_those_of_the_model():
    rows = tables_under(PIPELINE, "Mask bits")
    assert [(int(row[0]), row[1].strip("`")) for row in rows] == [(int(bit), bit.name) for bit in MaskBit]


def test_every_command_has_its_page():
    folder = REPO / "docs" / "commands"
    commands = {
        path.stem for path in (REPO / "flows").glob("[a-z]*.py") if 'if __name__ == "__main__":' in path.read_text()
    }
    assert {path.stem for path in folder.glob("*.md")} == commands
    for name in commands:
        text = (folder / f"{name}.md").read_text()
        assert text.startswith(f"# `python -m flows.{name}`\n")
        assert "--help" in text


@pytest.mark.demo
def test_keywords_of_frames_exist(demo):
    """What the table promises is in a frame that went all the way; what it does not name is the camera's or the WCS."""
    named = keywords(tables_under(PIPELINE, "Header keywords of a reduced frame"))
    frames = sorted(demo.roots.data.glob("2025/T120/reduced/*/*V*.fits"))  # a Vega magnitude needs B, V or R
    assert frames
    header = fits.getheader(frames[0])
    assert named - set(header) == set()
    assert len(named) > 50
    ours = re.compile("(QC|ASTR|PHOT|PSF|BIAS|FLAT|MSKBIT|NTRAILS|MASKFRAC|PIPELINE|PROCDATE|RAW)")
    assert {keyword for keyword in header if ours.match(keyword)} - named == set()


@pytest.mark.demo
def test_keywords_of_stacks_exist(demo):
    rows = tables_under(RELEASE, "Keywords of a stack")
    named = keywords(rows)
    stacks = demo.roots.data / "stacks"
    # one with PS1 alone, one with the Vega system, too, one for extended targets
    files = ("M67/T120/M67_r.fits", "M67/T120/M67_V.fits", "M51/T120/M51_r_ext.fits")
    header = {keyword for file in files for keyword in fits.getheader(stacks / file)}
    # of a narrow band, of a stack without stars, and of corrections that were not needed
    sometimes = {"PHOTWHY", "PSFSTAT", "LIGHTCOR", "PHOTTIE", "PHOTTIEE", "PHOTTIEN", "CLIPSIG", "CLIPFRAC"}
    assert named - header - sometimes == set()
    undescribed = {k for k in header if not k.startswith(("INP", "ZPT"))} - named - sometimes
    assert undescribed <= {
        "SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "EXTEND", "CHECKSUM", "DATASUM", "CD1_2", "CD2_1", "CD2_2",
    }  # fmt: skip


def blocks(language: str) -> list[tuple[str, str]]:
    """Blocks of a language, with their page; those of data_release.md and new_telescope.md have tests of their own."""
    return [
        (page.relative_to(REPO).as_posix(), block)
        for page in PAGES
        if page.name not in ("data_release.md", "new_telescope.md")
        for block in re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.demo
@pytest.mark.parametrize(("page", "block"), blocks("python"))
def test_python_of_a_page_runs_on_the_demo(page, block, demo, tmp_path, monkeypatch):
    (tmp_path / "demo").symlink_to(demo.roots.data)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, page, "exec"), {})


@pytest.mark.parametrize(("page", "block"), blocks("toml"))
def test_toml_of_a_page_is_what_the_commands_read(page, block):
    tables = tomllib.loads(block)
    assert tables
    for name, table in tables.items():
        if name in sections():
            assert sections()[name].model_validate(table)
        else:
            assert Target.model_validate({"name": name} | table)
