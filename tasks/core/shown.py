"""Text that strangers wrote (headers, file names, services), put where it is shown and does nothing."""

from __future__ import annotations

import html
import re

__all__ = ["at_terminal", "in_markdown"]

_MEANS_SOMETHING = re.compile(r"([\\`*\[\]|~])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""C0 without tab and newline, C1 (terminals take U+009B for ESC [), and what turns the direction of writing."""


def in_markdown(text: object) -> str:
    """Text as it reads, in one line: no HTML, no link, no picture, no code, no emphasis, no column of a table.

    ``<``, ``>`` and ``&`` become HTML's names of them: Markdown passes tags on to the page it becomes. Underscores
    stay, since they are in every file name and emphasise at worst.
    """
    line = " ".join(str(text).split())
    return html.escape(_MEANS_SOMETHING.sub(r"\\\1", line), quote=False)


def at_terminal(text: object) -> str:
    r"""Text without what a terminal would obey (colours, titles, erasing): ESC is shown as ``\x1b``."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))
