"""Pages, tables and plots show what strangers wrote as text, in a real browser."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from models.base import FileRef, Roots
from models.frame import FrameFailure, Rejected
from models.page import GroupPictures, PageFrame, Picture
from models.stack import ExtendedStack, Stack, StackValidation, stack_paths
from models.target import Target
from models.telescope import load_telescope
from tasks.core.files import ref
from tasks.core.shown import at_terminal, in_markdown
from tasks.pages import write_group_page, write_index_page
from tests.report.markdown import tables
from tests.server.browser import CHROMIUM, Page, browser

HOSTILE = (
    "<script>window.ran = 1</script>",
    '"><img src=x onerror="window.ran = 1">',
    "</td></tr></table><svg onload='window.ran = 1'>",
    "<a href='javascript:window.ran = 1'>here</a>",
    "{{ 7 * 7 }}{% raw %}",
)
WORDS = " ".join(HOSTILE)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: pages are not looked at in a browser")
    with browser(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


def shown(page: Page, path: Path, word: str) -> str:
    """What a page shows, after its scripts, pictures and handlers had their time."""
    page.open(path.as_uri(), word)
    page.script("new Promise(done => setTimeout(done, 300))")
    return page.text


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A group's page with hostile words wherever a word can come from outside."""
    roots, telescope = Roots(data=tmp_path, raw=tmp_path / "raw"), load_telescope("T120")
    telescope = telescope.model_copy(update={"description": WORDS})
    plots = stack_paths("M67", "T120", "r", roots).image.parent / "plots"
    plots.mkdir(parents=True)
    for name in ("M67_r_ext", "M67_colour"):
        Image.new("RGB", (8, 8)).save(plots / f"{name}.png")
    colour = ref(plots / "M67_colour.png", roots)
    file = FileRef(path="stacks/M67/T120/M67_r.fits", digest="0" * 64)
    stack = Stack(
        group="M67", filter="r", telescope="T120", image=file, weight=file, n_combined=2, exptime_s=60.0,
        inputs=(WORDS, "20230101/b"), combine=WORDS, calibrated=True, scale_source=WORDS, notes=(WORDS,),
        validation=StackValidation(validated=False, reason=WORDS),
        extended=ExtendedStack(file=file, reason=WORDS),
    )  # fmt: skip
    failure = FrameFailure(file=f"{WORDS}.fits", stage=WORDS, reason=WORDS, remedy=WORDS)
    write_group_page(
        Target(name="M67", ra=132.8, dec=11.8, type=WORDS), [stack], [Rejected(file=WORDS, reason=WORDS)],
        [failure], [WORDS], roots, telescope, troubles=[failure],
        frames=[
            PageFrame(
                label=WORDS, night="20230101", start="2023-01-01T20:00:00", mjd=59945.8, filter=WORDS, object=WORDS,
                exptime_s=30.0, airmass=None, seeing_arcsec=None, zp=None, zp_err=None, rms_mas=None, flags=(WORDS,),
                status=status, stage=WORDS, reason=WORDS, remedy=WORDS,
            )
            for status in ("used", "failed")
        ],
        pictures=GroupPictures(colour=Picture(file=colour, alt=WORDS, width=8, height=8), overlay_says=WORDS),
    )  # fmt: skip
    write_index_page(roots)
    return tmp_path / "stacks"


def test_a_script_in_a_name_is_shown_as_text(page: Page, site: Path):
    text = shown(page, site / "M67" / "T120" / "index.html", "Frames left out")
    page.script("document.querySelectorAll('details').forEach(each => each.open = true)")
    text = page.text
    for words in HOSTILE:
        assert text.count(words) >= 12, (words, text)
    assert page.script("window.ran") is None
    assert page.script("document.querySelectorAll('svg, [onerror], [onload]').length") == 0
    assert page.script("document.scripts.length") == 1, "the page's own"
    assert page.script("document.images[0].alt") == WORDS
    assert page.script("[...document.links].filter(each => each.protocol === 'javascript:').length") == 0
    assert page.script("[...document.images].every(each => each.naturalWidth === 8)")
    assert shown(page, site / "index.html", "M67")
    assert page.script("window.ran") is None


def test_a_page_that_does_not_escape_would_be_seen(page: Page, tmp_path: Path):
    """The test above can fail: each of the words does something where it is not escaped."""
    for number, words in enumerate(HOSTILE[:3]):
        path = tmp_path / f"{number}.html"
        path.write_text(f"<!doctype html><p>loaded<table><tr><td>{words}</td></tr></table>", encoding="utf-8")
        shown(page, path, "loaded")
        assert page.script("window.ran") == 1, words


@pytest.mark.parametrize(
    "words", [*HOSTILE, "[x](javascript:alert(1))", "![x](http://example.org/x)", "`a` **b** | c\nd", "a\\|b"]
)
def test_markdown_holds_no_tag_no_link_and_no_column(words):
    cell = in_markdown(words)
    assert not set("<>\n") & set(cell)
    (row,) = tables(f"# x\n| a | b |\n|---|---|\n| {cell} | 1 |")["x"]
    assert row == {"a": " ".join(words.split()), "b": "1"}
    plain = cell.replace("\\\\", "")
    for sign in "[]`*|~":
        assert plain.count(sign) == plain.count("\\" + sign)
    assert "&" not in html.unescape(cell) or "&" in words


def test_a_terminal_is_told_nothing():
    said = at_terminal("M67\x1b]0;title\x07\x1b[2J\x9b31m\u202egnp.fits\r\tnew\nline")
    assert said == "M67\\x1b]0;title\\x07\\x1b[2J\\x9b31m\\u202egnp.fits\\r\tnew\nline"
    assert at_terminal("NGC 628, 5″, α, é") == "NGC 628, 5″, α, é"


def test_a_reason_with_dollar_signs_is_no_formula(tmp_path: Path):
    """Matplotlib reads what stands between dollar signs, and fails where it is no formula."""
    from tasks.validation import plot_validation

    roots = Roots(data=tmp_path, raw=tmp_path / "raw")
    file = FileRef(path="stacks/M67/T120/M67_r.fits", digest="0" * 64)
    stack = Stack(
        group="M67", filter="r", telescope="T120", image=file, weight=file, n_combined=2, inputs=(), combine="MEDIAN",
        exptime_s=60.0, calibrated=True,
    )  # fmt: skip
    verdict = StackValidation(validated=False, reason="$\\frac{$, $(touch x)")
    made = plot_validation(stack, None, verdict, tmp_path / "plot.png", roots)
    assert roots.of(made).stat().st_size > 1000
