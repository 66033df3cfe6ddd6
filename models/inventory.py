"""What lies under the raw root: usable frames, a row for every file, and what cannot be used."""

from __future__ import annotations

from pydantic import Field

from models.base import Record
from models.frame import FrameFailure, Kind, RawFrame
from models.report import InventoryRow

__all__ = ["Classification", "Inventory"]


class Classification(Record):
    """What a raw file is, and how that was decided."""

    kind: Kind
    why: str = Field(description="the evidence, in words")
    filter: str | None = Field(None, description="canonical; None: not named, or named with an unknown word")


class Inventory(Record):
    """The raw tree of a telescope."""

    frames: tuple[RawFrame, ...] = Field(description="usable, all kinds but junk, by time")
    rows: tuple[InventoryRow, ...] = Field(description="every file, by path")
    unusable: tuple[FrameFailure, ...] = Field((), description="broken files, and what to do about each")
