"""Text that strangers wrote, put into Markdown so that it is shown and does nothing."""

from __future__ import annotations

import html
import re

__all__ = ["markdown_text"]

_MEANS_SOMETHING = re.compile(r"([\\`*\[\]|~])")


def markdown_text(text: object) -> str:
    """Text as it reads, in one line: no HTML, no link, no picture, no code, no emphasis, no column of a table.

    ``<``, ``>`` and ``&`` become HTML's names of them: Markdown passes tags on to the page it becomes. Underscores
    stay, since they are in every file name and emphasise at worst.
    """
    line = " ".join(str(text).split())
    return html.escape(_MEANS_SOMETHING.sub(r"\\\1", line), quote=False)
