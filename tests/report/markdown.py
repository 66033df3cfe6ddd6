"""Reads the tables of a Markdown page back."""

from __future__ import annotations

import html
import re

Row = dict[str, str]


def _said(cell: str) -> str:
    return html.unescape(re.sub(r"\\([^\w\s])", r"\1", cell))


def tables(text: str) -> dict[str, list[Row]]:
    """Rows of each table by the heading it stands under."""
    found: dict[str, list[Row]] = {}
    heading, columns = "", None
    for line in text.splitlines():
        if line.startswith("#"):
            heading, columns = line.lstrip("# "), None
        elif line.startswith("|"):
            cells = [_said(cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if columns is None:
                columns = cells
            elif set("".join(cells)) - set("-"):
                found.setdefault(heading, []).append(dict(zip(columns, cells, strict=True)))
        else:
            columns = None
    return found
