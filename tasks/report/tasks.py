"""The last step of a frame, and reports with their artifacts in the Prefect interface."""

from __future__ import annotations

import base64
import io
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from prefect import task
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.utilities.annotations import quote

from models.base import FileRef, Record, Roots
from models.frame import FrameFailure, FrameRecord
from tasks.core.cache import ByContent
from tasks.core.running import is_transient, settled
from tasks.core.shown import in_markdown
from tasks.report import publish_frame, write_report

__all__ = ["published_frame", "report_with_artifact", "show_picture", "show_report"]

_log = logging.getLogger("ohp.report")
_MOST_ROWS = 300
_LARGEST_PICTURE = 400_000
_KINDS = {".png": "png", ".webp": "webp", ".svg": "svg+xml"}


def _key(text: str) -> str:
    """An artifact key: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


@task(
    name="publish",
    task_run_name="publish {record.raw.night} {record.raw.name}",
    cache_policy=ByContent(code=[publish_frame]),
    persist_result=True,
    retries=1,
    retry_condition_fn=is_transient,
)
def published_frame(record: FrameRecord, roots: Roots) -> FileRef | FrameFailure:
    """The reduced FITS file with all its keywords."""
    return settled(record.raw.path, publish_frame, record, roots)


def report_with_artifact(path: Path, kind: str, rows: Sequence[Record], title: str) -> None:
    """Write a report file and show it as a table artifact; what has not changed is there from an earlier run."""
    if write_report(path, kind, rows):
        show_report(path, kind, quote(rows), title)


@task(name="report", task_run_name="report {kind} {title}", persist_result=False)
def show_report(path: Path, kind: str, rows: Sequence[Record], title: str) -> None:
    """Show a report as a table artifact."""
    # Prefect's interface takes the cells of a table for Markdown.
    shown = rows[:_MOST_ROWS]
    table = [{key: in_markdown(value) for key, value in row.model_dump(mode="json").items()} for row in shown]
    more = f" (the first {_MOST_ROWS} of {len(rows)} rows)" if len(rows) > _MOST_ROWS else ""
    create_table_artifact(table, key=_key(f"{kind}-{title}"), description=in_markdown(f"{kind}, {title}{more}: {path}"))


@task(name="picture", task_run_name="picture {title}", persist_result=False)
def show_picture(path: Path, title: str, alt: str = "") -> None:
    """Show a plot as an image artifact; a large one smaller, since a browser opens no file of this machine."""
    content, kind = path.read_bytes(), _KINDS.get(path.suffix, "png")
    if kind == "svg+xml":
        content = _opaque(content.decode()).encode()
    elif len(content) > _LARGEST_PICTURE:
        try:
            content, kind = _smaller(path), "jpeg"
        except OSError as error:  # Pillow's errors are OSErrors; a picture is no reason to lose a stack
            _log.warning("%s is not shown: %s", path, error)
            text = in_markdown(f"{path} cannot be shown: {error}. Delete it and run the command again.")
            create_markdown_artifact(text, key=_key(title), description=in_markdown(path))
            return
    url = f"data:image/{kind};base64," + base64.b64encode(content).decode()
    said = f"{in_markdown(alt)}: " if alt else ""
    create_image_artifact(url, key=_key(title), description=f"{said}{in_markdown(path)}")


def _opaque(svg: str) -> str:
    """A plot with paper under it: the interface's own may be light where the reader's browser says dark."""
    tag, end, rest = svg.partition("<defs>")
    light = re.sub(r"@media \(prefers-color-scheme:dark\)\{.*?\}\}", "", tag, flags=re.DOTALL)
    return f'{light}<rect width="100%" height="100%" fill="#fff"/>{end}{rest}'


def _smaller(path: Path) -> bytes:
    """A JPEG of a picture, at most 800 px wide and high."""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((800, 800))
    sink = io.BytesIO()
    small.save(sink, "JPEG", quality=85)
    return sink.getvalue()
