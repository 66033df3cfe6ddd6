"""The demo's pages in a real browser: as a reader sees them, on a desk and on a phone, by day and by night."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.base import Roots
from tests.pages.checks import ACCESSIBLE, CONTRAST, MOST_BYTES, dead_links, links, weight
from tests.server.browser import CHROMIUM, Page, browser

pytestmark = [pytest.mark.demo, pytest.mark.tools]

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: pages are not looked at in a browser")

PAGES = {
    "index": ("stacks/index.html", "On the sky"),
    "M51": ("stacks/M51/T120/index.html", "How to cite"),
    "M67": ("stacks/M67/T120/index.html", "How to cite"),
    "year": ("2019/T120/index.html", "2019-01-06"),
}


@pytest.fixture(scope="module")
def roots(demo) -> Roots:
    return demo.roots


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


def opened(tab: Page, roots: Roots, name: str, width: int = 1300, height: int = 950, dark: bool = False) -> Page:
    path, shows = PAGES[name]
    tab.look(width, height, dark)
    tab.asked.clear()
    tab.complaints.clear()
    tab.open((roots.data / path).as_uri(), shows)
    tab.script("document.fonts.ready.then(() => true)")
    return tab


def with_pictures(tab: Page) -> None:
    """Let the pictures below the window come, too."""
    tab.script("document.images.length && [...document.images].forEach(each => each.loading = 'eager')")
    tab.script("Promise.all([...document.images].map(each => each.decode().catch(() => 0))).then(() => true)")


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere_and_none_leaves_the_release(roots, name):
    path = roots.data / PAGES[name][0]
    assert len(links(path)) > 5
    assert dead_links(path) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_with_its_pictures_is_below_two_megabytes(roots, name):
    assert 20_000 < weight(roots.data / PAGES[name][0]) < MOST_BYTES


def test_checksums_and_sizes_are_those_of_the_files(roots):
    page = roots.data / PAGES["M67"][0]
    rows = re.findall(
        r'<a href="([^"]+)">[^<]*</a></th><td>[^<]+</td><td class="n" data-sort="(\d+)">.*?"sum">([0-9a-f]{64})<',
        page.read_text(encoding="utf-8"),
    )
    assert {"M67_r.fits", "M67_r.weight.fits", "M67_r_psf.fits", "M67_moc.fits"} <= {name for name, *_ in rows}
    for name, size, digest in rows:
        content = (page.parent / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (int(size), digest), name


@pytest.mark.parametrize("group", ["M51", "M67"])
def test_the_plots_tell_what_the_reports_tell(roots, group):
    text = html.unescape((roots.data / PAGES[group][0]).read_text(encoding="utf-8"))
    rows = json.loads((roots.data / "stacks" / group / "T120" / "phot_check_report.json").read_text())["rows"]
    compared = [row for row in rows if row["zp_offset"] is not None]
    assert len(compared) >= 5
    for row in compared:
        said = re.search(rf"Magnitudes of {group} in {row['filter']} against PS1.*?offset ([+-][\d.]+) mag", text)
        assert float(said[1]) == pytest.approx(row["zp_offset"], abs=0.002), row["filter"]


@needs_chromium
@pytest.mark.parametrize("name", PAGES)
def test_no_complaint_no_stranger_and_every_picture_there(tab, roots, name):
    page = opened(tab, roots, name)
    with_pictures(page)
    assert page.script("[...document.images].filter(each => !each.naturalWidth).map(each => each.src)") == []
    assert page.complaints == []
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []


@needs_chromium
@pytest.mark.parametrize("name", PAGES)
def test_it_can_be_read_without_seeing_it(tab, roots, name):
    assert opened(tab, roots, name).script(ACCESSIBLE) == []


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_texts_stand_out_in_either_light(tab, roots, name, dark):
    page = opened(tab, roots, name, dark=dark)
    page.script("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.script(CONTRAST) == []
    red = page.script("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert (red < 60) == dark


@needs_chromium
@pytest.mark.parametrize("name", PAGES)
def test_nothing_sticks_out_of_a_phone(tab, roots, name):
    page = opened(tab, roots, name, width=360, height=740)
    page.script("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.script("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def column(page: Page, name: str) -> list[str]:
    """A column of the index's table as it is shown."""
    script = f"""
    (() => {{
      const table = document.getElementById("group-table");
      const column = [...table.tHead.rows[0].cells].findIndex(head => head.textContent === {name!r});
      return [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[column].innerText.trim());
    }})()"""
    return list(page.script(script))


@needs_chromium
def test_the_table_sorts_by_click_and_by_key_and_says_so(tab, roots):
    page = opened(tab, roots, "index")
    assert column(page, "group") == ["M51", "M67"]
    page.press("frames")
    up = [int(text) for text in column(page, "frames")]
    assert up == sorted(up)
    sorts = "[...document.querySelectorAll('#group-table th[aria-sort]')].map(each => each.getAttribute('aria-sort'))"
    assert page.script(sorts) == ["ascending"]
    buttons = "[...document.querySelectorAll('#group-table th button')]"
    page.script(f"document.activeElement.blur(); {buttons}.find(each => each.innerText === 'frames').focus()")
    page.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", text="\r")
    assert [int(text) for text in column(page, "frames")] == up[::-1]
    assert page.script(sorts) == ["descending"]
    page.press("group")
    assert column(page, "group") == ["M51", "M67"]
    assert page.script(sorts) == ["ascending"]


@needs_chromium
def test_the_table_is_narrowed_by_words_filter_and_year(tab, roots):
    page = opened(tab, roots, "index")

    def ask(selector: str, value: str) -> None:
        page.script(
            f"(() => {{ const e = document.querySelector({selector!r}); e.value = {value!r};"
            " e.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )

    ask("input[type=search]", "OPEN cluster")
    assert column(page, "group") == ["M67"]
    assert "1 of 2 shown" in page.text
    ask("input[type=search]", "")
    ask("select[name=filters]", "Ha")
    assert column(page, "group") == ["M51"]
    ask("input[type=search]", "no such thing")
    assert column(page, "group") == []
    assert "0 of 2 shown" in page.text
    assert page.script("[...document.querySelector('select[name=years]').options].map(each => each.value)")[1:] == [
        "2019", "2023", "2025",
    ]  # fmt: skip


@needs_chromium
def test_the_colour_picture_is_zoomed_by_key_and_closed_by_escape(tab, roots):
    page = opened(tab, roots, "M51")
    page.script("(() => { const link = document.querySelector('a[data-zoom]'); link.focus(); link.click(); })()")
    assert page.script("document.querySelector('dialog').open")
    fitted = float(page.script("document.querySelector('dialog').dataset.scale"))
    for key in ("+", "+", "ArrowLeft"):
        page.call("Input.dispatchKeyEvent", type="keyDown", key=key)
    assert float(page.script("document.querySelector('dialog').dataset.scale")) == pytest.approx(2.25 * fitted)
    page.press("⤢")
    assert float(page.script("document.querySelector('dialog').dataset.scale")) == pytest.approx(fitted)
    page.call("Input.dispatchKeyEvent", type="keyDown", key="Escape", code="Escape", windowsVirtualKeyCode=27)
    page.script("new Promise(done => setTimeout(done, 100))")
    assert page.script("document.querySelector('dialog')") is None
    assert page.script("document.activeElement.matches('a[data-zoom]')")


@needs_chromium
def test_line_emission_lies_on_the_colour_picture_and_can_be_taken_off(tab, roots):
    page = opened(tab, roots, "M51")
    sizes = page.script("[...document.querySelectorAll('.colour .layers img')].map(each => [each.width, each.height])")
    assert len(sizes) == 2
    assert sizes[0] == sizes[1]
    shown = "getComputedStyle(document.querySelector('img.line')).display"
    assert page.script(shown) == "block"
    page.script("document.getElementById('line').click()")
    assert page.script(shown) == "none"


@needs_chromium
def test_screenshots_for_a_person(tab, roots):
    folder = Path(__file__).resolve().parents[2] / "data" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    for name in PAGES:
        for dark in (False, True):
            page = opened(tab, roots, name, 1300, 1400, dark)
            with_pictures(page)
            path = folder / f"page_{name}_{'dark' if dark else 'light'}.png"
            path.write_bytes(base64.b64decode(page.call("Page.captureScreenshot", format="png")["data"]))
            assert path.stat().st_size > 20_000


@needs_chromium
def test_a_bad_page_would_be_seen(tab, tmp_path):
    """The checks above can fail."""
    path = tmp_path / "bad.html"
    path.write_text(
        "<!doctype html><h1>one</h1><h1>two</h1><h3>deep</h3><img src='gone.png'><input><a href=\"gone.html\"></a>"
        "<table><tr><th>x</table><p style='color:#999'>pale</p><p style='width:900px'>wide</p><p id='a'><p id='a'>"
        "<script>missing()</script>",
        encoding="utf-8",
    )
    tab.look(360, 740)
    tab.complaints.clear()
    tab.open(path.as_uri(), "wide")
    wrong = {complaint.partition(":")[0] for complaint in tab.script(ACCESSIBLE)}
    assert wrong >= {
        "no language", "no title", "not one main", "not one h1", "a level of headings is missing before", "no alt",
        "no label", "no words", "th without scope", "cannot be scrolled by keyboard", "an id twice",
    }  # fmt: skip
    assert [found[:4] for found in tab.script(CONTRAST)] == ["2.85"]
    assert tab.script("document.documentElement.scrollWidth - document.documentElement.clientWidth") > 0
    assert len(tab.complaints) >= 2, "a script's error, a picture that is not there"
    assert dead_links(path) == ["gone.html"]
