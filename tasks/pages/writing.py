"""Pages as files: templates, links, checksums."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pydantic import ValidationError

from models.base import FileRef, Record, Roots
from models.page import Download, Picture
from tasks.core.files import digest_file, writing
from tasks.report import software_versions

__all__ = ["downloads", "link", "link_to", "read_card", "write_card", "write_page"]

CardT = TypeVar("CardT", bound=Record)

_TEMPLATES = Path(__file__).parent / "templates"


def link(path: str) -> str:
    """A path as an address: what stands in a file's name means nothing in it."""
    return quote(path, safe="/._-+~,")


def link_to(page: Path, roots: Roots) -> Callable[[Picture | FileRef], str]:
    """What turns a picture into an address relative to a page."""

    def address(what: Picture | FileRef) -> str:
        file = what.file if isinstance(what, Picture) else what
        up = "../" * len(page.parent.relative_to(roots.data).parts)
        inside = page.parent.relative_to(roots.data).as_posix() + "/"
        return link(file.path.removeprefix(inside)) if file.path.startswith(inside) else link(f"{up}{file.path}")

    return address


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Our own files, not what a stranger wrote; the page allows no other script than this one.
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    style = (_TEMPLATES / "page.css").read_text(encoding="utf-8")
    environment.globals |= {
        "script": Markup(script),  # noqa: S704  # nosec B704
        "style": Markup(style),  # noqa: S704  # nosec B704
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "software": " ".join(next(iter(software_versions().items()))),
    }
    return environment


def _write(path: Path, text: str) -> None:
    """A file that is there with the same text stays as it is."""
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except (OSError, UnicodeDecodeError):  # not there, or not ours
        pass
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_page(path: Path, template: str, **values: object) -> None:
    """Render a template into a file."""
    _write(path, _environment().get_template(template).render(**values))


def write_card(path: Path, card: Record) -> None:
    """What the index tells of a page, as JSON beside it."""
    _write(path, card.model_dump_json(indent=1) + "\n")


def read_card(path: Path, kind: type[CardT]) -> CardT | None:
    """A card; None where there is none, or one of another version."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def downloads(files: Iterable[tuple[Path, str]], page: Path, roots: Roots) -> list[Download]:
    """Files of a page with size and checksum; what is not there is left out."""
    found = []
    for path, what in files:
        if path.is_file():
            found.append(
                Download(
                    name=path.name,
                    path=link(path.relative_to(page.parent).as_posix()),
                    what=what,
                    bytes=path.stat().st_size,
                    sha256=digest_file(path, roots),
                )
            )
    return found
