"""Prefect's interface shows what headers and file names say as text: in Chromium, after real runs on hostile frames."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest
from astropy.io import fits

from models.base import Roots
from tests.server.browser import CHROMIUM, Page, browser
from tests.server.installation import Installation

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.tools,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: Prefect's interface is not looked at in a browser"),
]

OBJECT = "<script>window.ran=1</script>"
MARKUP = "<img src=x onerror=window.ran=1>"
"""As long as a card holds; also the name of a file."""


@pytest.fixture(scope="module")
def hostile(campaign, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Good frames that name a script as their OBJECT, and one that cannot be read and is named like a tag."""
    root = tmp_path_factory.mktemp("hostile")
    shutil.copytree(campaign.roots.catalogs, root / "catalogs")
    shutil.copytree(campaign.roots.raw, root / "raw")
    science = sorted(path for path in (root / "raw").rglob("*.fits") if "M67" in path.name)
    assert len(science) >= 6
    for number, path in enumerate(science):
        with fits.open(path, mode="update") as hdus:
            hdus[0].header["OBJECT"] = (OBJECT, MARKUP)[number % 2]
            hdus[0].header["OBSERVER"] = MARKUP
    cut = science[0].with_name(f"{MARKUP}.fits")
    cut.write_bytes(science[0].read_bytes()[:20000])
    made = Installation(Roots(data=root, raw=root / "raw"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_what_headers_say_is_text_in_the_interface(hostile, tmp_path):
    reduced = hostile.begin("reduce-year", year=2023)
    assert hostile.end_of(reduced)["type"] == "COMPLETED"
    stacked = hostile.begin("stack-target", group="M67")
    assert hostile.end_of(stacked)["type"] == "COMPLETED"
    rows = json.loads((hostile.roots.data / "2023" / "T120" / "qc" / "frame_stats.json").read_text())["rows"]
    assert {row["object"] for row in rows} == {OBJECT, MARKUP}

    artifacts = hostile.post("/artifacts/filter", {"limit": 100})
    tables = [each for each in artifacts if each["type"] == "table" and "window.ran" in str(each["data"])]
    assert tables, [each["key"] for each in artifacts]
    with browser(tmp_path / "browser") as page:
        for each in tables:
            page.open(f"{hostile.url}/artifacts/artifact/{each['id']}", OBJECT)
            nothing_ran(page)
            assert MARKUP in page.text
        for each in artifacts:
            if each["type"] == "markdown":
                page.open(f"{hostile.url}/artifacts/artifact/{each['id']}", "What ran")
                nothing_ran(page)
        for run in (reduced, stacked):
            page.open(f"{hostile.url}/runs/flow-run/{run}", "what ran")
            nothing_ran(page)
        for place in ("index.html", "M67/T120/index.html"):
            page.open((hostile.roots.data / "stacks" / place).as_uri(), "M67")
            nothing_ran(page)


def nothing_ran(page: Page) -> None:
    """Neither a script nor a handler of ours, though pictures had time to fail."""
    page.script("new Promise(done => setTimeout(done, 1000))")
    assert page.script("window.ran") is None
    assert page.script("document.querySelectorAll('[onerror]').length") == 0
    assert page.script("[...document.scripts].filter(each => each.text.includes('window.ran')).length") == 0


def test_markdown_of_ours_is_text_in_the_interface(hostile, tmp_path):
    """Words as they might get into a table of what ran, made an artifact as ours are; and not escaped, to compare."""
    from tasks.core.shown import in_markdown

    made = {}
    words = f"{OBJECT} {MARKUP} [x](javascript:window.ran=1)"
    for name, text in (("escaped", in_markdown(words)), ("plain", words)):
        body = {
            "key": f"hostile-{name}",
            "type": "markdown",
            "data": f"begin\n\n| a |\n|---|\n| {text} |\n",
            "description": text,
        }
        made[name] = hostile.post("/artifacts/", body)["id"]
    with browser(tmp_path / "browser") as page:
        page.open(f"{hostile.url}/artifacts/artifact/{made['escaped']}", "begin")
        nothing_ran(page)
        assert page.text.count(words) == 2, page.text
        assert page.script("[...document.links].filter(each => each.href.startsWith('javascript')).length") == 0
        page.open(f"{hostile.url}/artifacts/artifact/{made['plain']}", "begin")
        page.script("new Promise(done => setTimeout(done, 1000))")
        assert words not in page.text, "Prefect shows Markdown as it stands: escaping it would show more than was said"
