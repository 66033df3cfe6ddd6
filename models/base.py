"""What all our models share: frozen, strict about unknown keys, explicit about files."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = ["Record", "RelativePath", "FileRef", "Roots"]


class Record(BaseModel):
    """Base of every model: immutable, an unknown key is an error, and a default is checked like any value.

    (A default of 10000 for a float would otherwise differ in a cache key from the 10000.0 that a form sends.)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null", validate_default=True)

    outside_keys: ClassVar[frozenset[str]] = frozenset()
    """Fields that decide nothing about a product made from the model: no part of a cache key."""


def _inside(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\0" in path or not path:
        raise ValueError(f"not a path inside its root: {path!r}")
    return str(parts)


RelativePath = Annotated[str, AfterValidator(_inside)]
"""A POSIX path below a root: never absolute, never with `..`."""


class FileRef(Record):
    """A file that a task made: where it is and what is in it.

    Attributes
    ----------
    path
        Relative to the data root.
    digest
        SHA-256 (hex) of the content. With ``scope='pixels'`` it covers the data units of all HDUs
        and the cards its maker wrote, not the cards that later stages add to the same file
        (see `tasks.core.files.digest_pixels`). With ``scope='undated'`` it leaves out the dates only.
    """

    path: RelativePath
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    scope: str = Field("file", pattern="^(file|pixels|undated)$")


class Roots(Record):
    """The folders a run works in. Never part of a cache key: contents are, places are not.

    Attributes
    ----------
    data
        Products, catalogues, cache and logs.
    raw
        Raw frames; only ever opened for reading.
    """

    data: Path
    raw: Path

    @property
    def scratch(self) -> Path:
        """Folder for the working files of tools; may be emptied between runs."""
        return self.data / ".cache" / "scratch"

    @property
    def catalogs(self) -> Path:
        """The local catalogue store."""
        return self.data / "catalogs"

    @property
    def logs(self) -> Path:
        """Logs of runs and of tools that failed."""
        return self.data / "logs"

    def of(self, ref: FileRef) -> Path:
        """Absolute path of a product."""
        return self.data / ref.path
