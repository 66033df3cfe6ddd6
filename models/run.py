"""What a run did, in numbers and in the words of its failures."""

from __future__ import annotations

import time
from typing import Any, Literal, get_args

from pydantic import Field

from models.base import Record, Roots
from models.field import Question
from models.frame import FrameFailure
from models.settings import Settings
from models.target import Target, load_targets
from models.telescope import Telescope, load_telescope

__all__ = ["STAGES", "RunContext", "RunSummary", "Stage", "WaitingRun"]

Stage = Literal[
    "master-bias",
    "master-flat",
    "reduce",
    "measure",
    "build-index",
    "locate",
    "solve",
    "calibrate",
    "model-psf",
    "publish",
    "align-group",
    "select-frames",
    "grid",
    "combine",
    "psf-of-stack",
    "tie-to-ps1",
    "validate",
    "validation-plot",
    "finish-stack",
    "picture-of-stack",
    "colour-picture",
    "sources-of-group",
    "extend",
    "finish-extended",
    "picture-of-extended",
    "source-list",
    "mean-psf",
    "maps-of-stack",
    "plots-of-stack",
    "pictures-of-group",
    "timeline-of-night",
    "compressed-copy",
]
"""The cached tasks, in the order of a frame's and a stack's way."""

STAGES: tuple[str, ...] = get_args(Stage)


class RunContext(Record):
    """What every step of a run needs to know."""

    roots: Roots
    telescope: Telescope
    targets: dict[str, Target]
    settings: Settings
    refresh: tuple[Stage, ...] = Field((), description="stages whose recorded results do not count in this run")
    started: float = Field(0.0, description="when the run began, s since 1970")

    @classmethod
    def of(cls, telescope: str, settings: Settings | None = None, refresh: tuple[Stage, ...] = ()) -> RunContext:
        """Read profile, targets and (unless given) settings.

        Raises
        ------
        TelescopeError, TargetError, ValueError
            If one of them cannot be read; the message names the file.
        """
        settings = settings or Settings()
        roots = settings.roots
        return cls(
            roots=roots,
            telescope=load_telescope(telescope, roots.data),
            targets=load_targets(roots.data),
            settings=settings,
            refresh=refresh,
            started=time.time(),
        )


class RunSummary(Record):
    """Result of a flow."""

    title: str
    n_asked: int = Field(description="science frames, or stacks, that could have been made")
    n_made: int
    n_pending: int = 0
    unanswered: tuple[Question, ...] = Field((), description="catalogue queries that the pending ones wait for")
    failures: tuple[FrameFailure, ...] = ()
    figures: dict[str, str] = Field(default_factory=dict, description="what a person wants to know, in order")
    files: tuple[str, ...] = Field((), description="where to look, relative to the data root")

    @property
    def failed(self) -> bool:
        """Nothing useful is left: neither made nor pending."""
        return self.n_made == 0 and self.n_pending == 0


class WaitingRun(Record):
    """A run that made what it could and waits for catalogues: all that is needed to finish it."""

    flow: Literal["reduce_year", "stack_target"]
    subject: str = Field(description="the year, or the group")
    telescope: str
    settings: dict[str, dict[str, Any]] = Field(description="the stages' sections, as the run had them")
    n_pending: int
    unanswered: tuple[Question, ...]
    since: str = Field(description="UTC of the first run that had to wait")
