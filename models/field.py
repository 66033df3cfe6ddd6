"""Places that a campaign looked at, and the catalogues at hand for them."""

from __future__ import annotations

from models.astrometry import IndexSet
from models.base import Record
from models.catalog import Catalogue, Cone, StoredCone
from models.frame import FrameFailure

__all__ = ["Field", "FieldCatalogs", "Question"]


class Field(Record):
    """A place to look for frames: a target group, or where headers point without one."""

    name: str
    cone: Cone


class Question(Record):
    """A catalogue query without an answer yet."""

    catalogue: Catalogue
    cone: Cone


class FieldCatalogs(Record):
    """What is known of the stars of a field. None: not asked for, or pending (then a failure says why).

    ``ps1`` is the photometric reference: PS1, or what stands in for it where it has no sky.
    """

    field: Field
    gaia: StoredCone | None = None
    ps1: StoredCone | None = None
    index: IndexSet | None = None
    failures: tuple[FrameFailure, ...] = ()
    unanswered: tuple[Question, ...] = ()

    def failure(self, catalogue: str) -> FrameFailure | None:
        """Why a catalogue is missing."""
        return next((failure for failure in self.failures if failure.file == catalogue), None)
