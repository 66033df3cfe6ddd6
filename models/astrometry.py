"""Index files for the plate solver, and a group of frames that are aligned with each other."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from models.base import FileRef, Record
from models.frame import Rejected
from models.stack import AlignedFrame

__all__ = ["Alignment", "IndexSet"]


class IndexSet(Record):
    """The astrometry.net index files a plate solution searches.

    Attributes
    ----------
    source
        ``gaia``: built by us from a Gaia cone; ``installed``: somebody else's, outside the data root.
    files
        The files we built; empty for installed ones.
    folder
        Absolute path of the installed files; None for ours.
    fingerprint
        SHA-256 (hex) over the names and contents of all files, wherever they lie.
    """

    source: Literal["gaia", "installed"]
    files: tuple[FileRef, ...] = ()
    folder: str | None = None
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _files_are_somewhere(self) -> IndexSet:
        if (self.source == "gaia") != bool(self.files) or (self.source == "installed") != (self.folder is not None):
            raise ValueError("an index is either files of ours or an installed folder")
        return self


class Alignment(Record):
    """What came of aligning a group's frames with Gaia and with each other."""

    aligned: tuple[AlignedFrame, ...] = Field(description="frames with a validated .head, in the order given")
    rejected: tuple[Rejected, ...] = Field((), description="frames whose positions cannot be trusted, and why")
    notes: tuple[str, ...] = Field(
        (), description="one line a season: what SCAMP said of itself, or why it was not used"
    )
    provisional: bool = Field(
        False,
        description="SCAMP could not do its work: what stands in for it holds for this run, the next one tries again",
    )
