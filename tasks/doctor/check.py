"""One thing looked at: how it is, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import model_validator

from models.base import Record

__all__ = ["Check", "can_run"]


class Check(Record):
    """What was found.

    Attributes
    ----------
    state
        ``ok``; ``note``: a run is possible, but this is worth knowing; ``missing``: no run before it is mended.
    mend
        What to do, exactly; never empty when something is missing.
    """

    subject: str
    name: str
    state: Literal["ok", "note", "missing"]
    found: str
    mend: str = ""

    @model_validator(mode="after")
    def _says_how_to_mend(self) -> Check:
        if self.state == "missing" and not self.mend:
            raise ValueError(f"{self.name} is missing, and nothing says how to mend it")
        return self


def can_run(checks: Iterable[Check]) -> bool:
    """Whether nothing that a run needs is missing."""
    return all(check.state != "missing" for check in checks)
