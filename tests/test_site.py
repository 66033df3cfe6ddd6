"""The documentation site: built without a warning, whole, self-contained, its reference and figures from the code."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from models.release import SCHEMAS
from models.settings import Settings
from models.telescope import Camera
from scripts.reference import PAGES, described_fields, type_name
from scripts.site import measured, stage

REPO = Path(__file__).resolve().parents[1]
DOCS = REPO / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Built as `make docs` does it."""
    into = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "scripts.site", "--into", str(into)],
        cwd=REPO, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith("index.html")
    return into


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_every_page_is_there(site):
    wanted = {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")}
    wanted |= {path.replace(".md", ".html") for path in PAGES} | {"index.html", "changes.html"}
    assert wanted <= {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    contents = (site / "index.html").read_text(encoding="utf-8")
    for page in wanted - {"index.html"}:
        assert f'href="{page}"' in contents, f"{page} is in no table of contents"


def test_it_needs_no_network_and_leads_nowhere_in_vain(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r'<(?:script|img|iframe)[^>]* src="https?:[^"]*"', text) == []
        assert re.findall(r'<link[^>]* href="https?:[^"]*"', text) == []
        for link in re.findall(r'(?:href|src)="([^"#?]+)[^"]*"', text):
            if not re.match(r"[a-z]+:", link):
                assert (page.parent / html.unescape(link)).exists(), f"{page.name}: {link}"


def test_what_is_measured_stands_with_its_method(site):
    said = re.sub(r"\s+", " ", text_of(site / "methods.html"))
    figures = json.loads((DOCS / "truth.json").read_text(encoding="utf-8"))
    named = re.findall(r"<!-- measured\n(.*?)-->", (DOCS / "methods.md").read_text(encoding="utf-8"), re.DOTALL)
    wanted = {name for block in named for name in block.strip().splitlines()}
    assert len(wanted) > 40
    for figure in figures:
        if figure["name"] in wanted:
            value = f"{figure['value']:.3g} {figure['unit']}".strip()
            assert f"{figure['name']} {value}" in said, figure["name"]


def test_a_figure_that_was_not_measured_stops_the_build(tmp_path):
    name = "frames solved"
    assert measured([name]).count("\n") == 3
    with pytest.raises(ValueError, match=r"truth\.json has no figure 'frames dreamt of'"):
        measured([name, "frames dreamt of"])
    assert measured(["frames sol*"]) == measured([name])
    assert measured(["frames dreamt of, *"]) == "None of these is among the figures of `docs/truth.json` yet.\n"
    text = json.dumps([{"name": name, "value": 12.0, "unit": "%", "goal": 98.0, "better": "above"}])
    (tmp_path / "truth.json").write_text(text)
    assert f"| {name} | 12 % | ≥ 98 % | **no** |" in measured([name], tmp_path / "truth.json")


def test_every_setting_is_in_the_reference(site):
    said = text_of(site / "reference" / "settings.html")
    n = 0
    for name, field in Settings.model_fields.items():
        sections = getattr(field.annotation, "model_fields", None)
        if sections is None:
            assert f"OHP_{name.upper()}" in said
            continue
        assert f"[{name}]" in said
        for key, inner in sections.items():
            n += 1
            assert key in said, f"{name}.{key}"
            assert str(inner.description).replace("``", "")[:30].split("`")[0] in said, f"{name}.{key}"
    assert n > 80


def test_every_model_and_report_is_in_the_reference(site):
    said = text_of(site / "reference" / "models.html")
    for module in (REPO / "models").glob("[a-z]*.py"):
        if module.stem in ("settings", "telescope", "release", "report"):
            continue
        for name in re.findall(r"^class (\w+)\((?:Record|FileRef|BaseModel)\)", module.read_text(), re.MULTILINE):
            assert name in said, f"{module.name}: {name}"
    reports = text_of(site / "reference" / "reports.html")
    for name, model in SCHEMAS.items():
        assert name in reports
        row = model.model_fields["rows"].annotation.__args__[0]
        assert all(key in reports for key in row.model_fields), name


def test_types_and_limits_read_as_a_person_writes_them():
    assert type_name(Camera.model_fields["shape"].annotation) == "tuple[int, int]"
    assert type_name(Camera.model_fields["parity"].annotation) == "-1 | 1 | 0"
    assert described_fields(Camera)["binning"] == "≥ 1"
    assert described_fields(Camera)["output_scale"].endswith("; > 0")


def test_links_out_of_the_site_become_names(tmp_path):
    stage(tmp_path)
    deployment = (tmp_path / "deployment.md").read_text(encoding="utf-8")
    assert "`deployments/prefect.yaml`" in deployment
    assert "](../deployments" not in deployment
    readme = (tmp_path / "index.md").read_text(encoding="utf-8")
    assert "](docs/" not in readme
    assert "](new_telescope.md)" in readme
