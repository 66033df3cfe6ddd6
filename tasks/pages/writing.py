"""Pages as files: templates, links, checksums."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pydantic import ValidationError

from models.base import FileRef, Record, Roots
from models.page import CompressedDownload, Download, Picture
from models.release import ReleaseCompressed
from tasks.core.files import digest_file, writing
from tasks.report import software_versions

__all__ = ["Links", "downloads", "link", "read_card", "shortened", "write_card", "write_page"]

CardT = TypeVar("CardT", bound=Record)

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_BYTES = 1_900_000
"""Of a page with its pictures."""


def link(path: str) -> str:
    """A path as an address: what stands in a file's name means nothing in it."""
    return quote(path, safe="/._-+~,")


class Links:
    """What turns pictures and files into addresses relative to a page, and says when the page has enough of them.

    Parameters
    ----------
    page, roots
        The page's path, folders.
    """

    def __init__(self, page: Path, roots: Roots) -> None:
        self._roots = roots
        self._inside = page.parent.relative_to(roots.data).as_posix() + "/"
        self._up = "../" * len(page.parent.relative_to(roots.data).parts)
        self.begin(_MOST_BYTES)

    def __call__(self, what: Picture | FileRef) -> str:
        """The address."""
        path = (what.file if isinstance(what, Picture) else what).path
        return link(path.removeprefix(self._inside) if path.startswith(self._inside) else f"{self._up}{path}")

    def begin(self, limit: int) -> None:
        """Count anew, up to so many bytes."""
        self.limit, self.spent, self.refused = limit, 0, 0
        self._seen: dict[str, bool] = {}

    def shows(self, picture: Picture) -> bool:
        """Whether the page can carry one more picture; else it links to it."""
        path = picture.file.path
        if path not in self._seen:
            size = self._roots.of(picture.file).stat().st_size
            self._seen[path] = self.spent + size <= self.limit
            self.spent += size if self._seen[path] else 0
            self.refused += not self._seen[path]
        return self._seen[path]


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


def write_page(path: Path, template: str, links: Links | None = None, **values: object) -> None:
    """Render a template into a file; pictures that would make the page too heavy become links."""
    page = _environment().get_template(template)
    text = page.render(link=links, **values)
    size = len(text.encode())
    if links is not None and (links.refused or links.spent + size > _MOST_BYTES):
        links.begin(max(_MOST_BYTES - size, 0))
        text = page.render(link=links, **values)
    _write(path, text)


def write_card(path: Path, card: Record) -> None:
    """What the index tells of a page, as JSON beside it."""
    _write(path, card.model_dump_json(indent=1) + "\n")


def read_card(path: Path, kind: type[CardT]) -> CardT | None:
    """A card; None where there is none, or one of another version."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def shortened(n_frames: int) -> int:
    """To how many letters a table of so many frames cuts its reasons; 0: to none. The reports have them whole."""
    return 0 if n_frames <= 400 else 120 if n_frames <= 1500 else 60


def _copy(row: ReleaseCompressed | None, page: Path, roots: Roots) -> CompressedDownload | None:
    if row is None:
        return None
    return CompressedDownload(
        path=link(os.path.relpath(roots.data / row.file, page.parent)),
        bytes=row.bytes,
        sha256=digest_file(roots.data / row.file, roots),
        loss_rms=None if row.lossless else row.loss_rms,
    )


def downloads(
    files: Iterable[tuple[Path, str]], page: Path, roots: Roots, copies: Iterable[ReleaseCompressed] = ()
) -> list[Download]:
    """Files of a page with size and checksum, and their compressed copies; what is not there is left out."""
    found = []
    copy_of = {row.source: row for row in copies}
    for path, what in files:
        if path.is_file():
            found.append(
                Download(
                    name=path.name,
                    path=link(path.relative_to(page.parent).as_posix()),
                    what=what,
                    bytes=path.stat().st_size,
                    sha256=digest_file(path, roots),
                    compressed=_copy(copy_of.get(path.relative_to(roots.data).as_posix()), page, roots),
                )
            )
    return found
