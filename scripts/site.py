"""The documentation site: README, docs/ and what the code says of itself, as pages that a browser reads from disk.

python -m scripts.site
python -m scripts.site --into /var/www/ohp

The README is the first page, the CHANGELOG the last; `scripts.reference` writes the reference from the code. A block

    <!-- measured
    NAME OF A FIGURE
    -->

in a page becomes a table of these figures with their goals, as `make truth` left them in docs/truth.json. Whatever
Sphinx warns of, and a figure that is not there, is an error.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import SphinxError

from flows import STATUS_FAILED, STATUS_OK
from scripts.reference import PAGES
from tasks.truth import Figure

__all__ = ["build", "measured", "stage"]

REPO = Path(__file__).resolve().parents[1]
DOCS = REPO / "docs"

_MEASURED = re.compile(r"<!-- measured\n(.*?)-->", re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)

_CONFIG = {
    "project": "OHP pipeline",
    "extensions": ["myst_parser"],
    "html_theme": "furo",
    "html_title": "OHP pipeline",
    "html_copy_source": False,
    "html_show_sphinx": False,
    "html_show_copyright": False,
    "html_css_files": ["site.css"],
    "html_static_path": ["_static"],
    "myst_heading_anchors": 6,
    "myst_enable_extensions": ["attrs_inline"],
    "nitpicky": True,
    "smartquotes": False,
}

_STYLE = """\
/* Names in a table's first column stay whole; a table wider than the screen scrolls by itself. */
table.docutils td:first-child code { white-space: nowrap; }
table.docutils td code { overflow-wrap: break-word; word-break: normal; }
table.docutils td, table.docutils th { text-align: left; vertical-align: top; }
@media (min-width: 82em) { .content { width: 58em; } }
"""

_CONTENTS = {
    "Begin": ["tutorial"],
    "How to": ["new_year", "new_target", "new_telescope", "archive_down", "deployment", "cluster"],
    "The product": ["data_release"],
    "Methods": ["methods", "pipeline_description", "measured", "truth", "rehearsal"],
    "Commands": ["commands/reduce_year", "commands/stack_target", "commands/build_release", "commands/retry_queries"],
    "Reference": [path.removesuffix(".md") for path in PAGES],
    "About": ["security", "changes"],
}  # fmt: skip
"""Pages by the heading they stand under; other commands follow these, other pages stand last."""


def measured(names: list[str], file: Path = DOCS / "truth.json") -> str:
    """A table of figures by name, in that order; ``BEGINNING *`` stands for all that begin so, and may be none.

    Raises
    ------
    ValueError
        If one is not among those measured.
    """
    figures = {each["name"]: Figure.model_validate(each) for each in json.loads(file.read_text(encoding="utf-8"))}
    lines = []
    for name in names:
        found = [
            each for each in figures if each == name or (name.endswith("*") and each.startswith(name[:-1].rstrip()))
        ]
        if not found and not name.endswith("*"):
            raise ValueError(f"{file.name} has no figure {name!r}")
        for figure in (figures[each] for each in found):
            value, reached = f"{figure.value:.3g} {figure.unit}".rstrip(), {None: "", True: "yes", False: "**no**"}
            lines.append(f"| {figure.name} | {value} | {figure.goal_text} | {reached[figure.reached]} |")
    if not lines:
        return f"None of these is among the figures of `docs/{file.name}` yet.\n"
    return (
        "\n".join(["| measured, worst of several campaigns | | goal | reached |", "|---|---|---|---|", *lines]) + "\n"
    )


def _linked(text: str, page: Path, source: Path) -> str:
    """A page's links as they lead from its place in the site; what is outside of the site becomes its path."""

    def said(match: re.Match[str]) -> str:
        mark, words, path, anchor = match[1], match[2], match[3], match[4] or ""
        if not path or re.match(r"[a-z]+:", path):
            return match[0]
        target = (source.parent / path).resolve()
        if target == REPO / "README.md":
            target = DOCS / "index.md"
        if target == REPO / "CHANGELOG.md":
            target = DOCS / "changes.md"
        if not target.is_relative_to(DOCS):
            return f"`{target.relative_to(REPO).as_posix()}`"
        up = "../" * (len(page.parts) - 1)
        return f"{mark}[{words}]({up}{target.relative_to(DOCS).as_posix()}{anchor})"

    parts = _FENCED.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(said, part) for part in parts)


def _contents(pages: Iterable[str]) -> str:
    """The table of contents, hidden on the page itself: the theme shows it beside every page."""

    def entry(page: str) -> str:
        return f"{page.removeprefix('commands/')} <{page}>" if page.startswith("commands/") else page

    listed = {page for under in _CONTENTS.values() for page in under} | {"index"}
    others = sorted(set(pages) - listed)
    more = {
        "Commands": [page for page in others if page.startswith("commands/")],
        "About": [page for page in others if not page.startswith("commands/")],
    }
    blocks = (
        "\n".join(
            ["```{toctree}", ":hidden:", f":caption: {name}", "", *map(entry, [*under, *more.get(name, ())]), "```"]
        )
        for name, under in _CONTENTS.items()
    )
    return "\n\n".join(blocks) + "\n"


def stage(folder: Path) -> None:
    """Write the site's sources: every page as Sphinx is to read it, pictures beside.

    Parameters
    ----------
    folder
        Empty.
    """
    sources = {path.relative_to(DOCS): path for path in sorted(DOCS.rglob("*.md"))}
    sources |= {Path("index.md"): REPO / "README.md", Path("changes.md"): REPO / "CHANGELOG.md"}
    pages = {
        page: _linked(path.read_text(encoding="utf-8"), page, path)
        for page, path in sources.items()
    }  # fmt: skip
    pages |= {Path(page): make() for page, make in PAGES.items()}
    pages[Path("index.md")] += "\n" + _contents(page.with_suffix("").as_posix() for page in pages)
    for page, text in pages.items():
        target = folder / page
        target.parent.mkdir(parents=True, exist_ok=True)
        whole = _MEASURED.sub(lambda match: measured(match[1].strip().splitlines()), text)
        target.write_text(whole, encoding="utf-8")
    shutil.copytree(DOCS / "images", folder / "images")
    (folder / "_static").mkdir()
    (folder / "_static" / "site.css").write_text(_STYLE, encoding="utf-8")


def build(into: Path) -> Path:
    """Build the site.

    Returns
    -------
    Path
        Its first page.

    Raises
    ------
    SphinxError
        Of the first warning.
    """
    with tempfile.TemporaryDirectory() as scratch:
        sources = Path(scratch) / "pages"
        sources.mkdir()
        stage(sources)
        site = Path(scratch) / "site"
        app = Sphinx(
            sources, None, site, Path(scratch) / "doctrees", "html", confoverrides=_CONFIG, status=None,
            warningiserror=True, freshenv=True,
        )  # fmt: skip
        app.build()
        if app.statuscode:
            raise SphinxError("the site was built with warnings; they stand above")
        for left in (".buildinfo", "objects.inv"):
            (site / left).unlink(missing_ok=True)
        into.mkdir(parents=True, exist_ok=True)
        shutil.copytree(site, into, dirs_exist_ok=True)
    return into / "index.html"


def main() -> int:
    """Entry point of ``python -m scripts.site``."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.site", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, default=Path("site"), metavar="DIR", help="where to (default: site)")
    args = parser.parse_args()
    try:
        print(build(args.into))
    except (SphinxError, ValueError) as error:
        print(f"scripts.site: {error}", file=sys.stderr)
        return STATUS_FAILED
    return STATUS_OK


if __name__ == "__main__":
    sys.exit(main())
