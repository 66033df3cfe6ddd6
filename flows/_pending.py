"""Runs that wait for catalogues: noted when a run ends with something pending, forgotten when it ends without.

One small file a run under ``DATA_ROOT/pending/``; losing it loses nothing, since the same command finishes the rest.
Nothing here needs Prefect: to see that nothing is pending takes no time.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from models.base import Roots
from models.run import RunContext, RunSummary, WaitingRun
from models.settings import Settings
from tasks.core.files import safe_name, write_json
from tasks.core.ledger import now

__all__ = ["noted", "settings_of", "waiting_runs"]

_log = logging.getLogger("ohp.pending")

_SECTIONS = (
    "bias", "flat", "reduction", "quality", "astrometry", "photometry", "psf", "scamp", "selection", "stack",
    "validation", "sources",
)  # fmt: skip
"""What decides the pixels and numbers; where to ask and with how many workers is the later run's own."""


def _folder(roots: Roots) -> Path:
    return roots.data / "pending"


def _read(path: Path) -> WaitingRun | None:
    try:
        return WaitingRun.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        _log.warning("%s cannot be read; run its command again: %s", path, error)
        return None


def noted(
    summary: RunSummary, run: RunContext, flow: Literal["reduce_year", "stack_target"], subject: str
) -> RunSummary:
    """Write down what a run waits for, or that it waits no more; gives its summary back."""
    path = _folder(run.roots) / f"{flow}_{safe_name(subject)}_{safe_name(run.telescope.name)}.json"
    if not summary.n_pending:
        path.unlink(missing_ok=True)
        return summary
    before = _read(path)
    waiting = WaitingRun(
        flow=flow,
        subject=subject,
        telescope=run.telescope.name,
        settings={name: getattr(run.settings, name).model_dump(mode="json") for name in _SECTIONS},
        n_pending=summary.n_pending,
        unanswered=summary.unanswered,
        since=before.since if before else now(),
    )
    write_json(path, waiting.model_dump(mode="json"))
    return summary


def waiting_runs(roots: Roots, telescope: str) -> list[WaitingRun]:
    """Runs of a telescope that wait: years first, since stacks wait for their frames."""
    found = [_read(path) for path in sorted(_folder(roots).glob("*.json"))]
    mine = [waiting for waiting in found if waiting is not None and waiting.telescope == telescope]
    return sorted(mine, key=lambda waiting: (waiting.flow, waiting.subject))


def settings_of(waiting: WaitingRun, here: Settings) -> Settings:
    """The settings a run had, with the folders, services and workers of now.

    Raises
    ------
    ValueError
        If it was noted by a version with other settings.
    """
    own = {
        name: getattr(here, name)
        for name in Settings.model_fields
        if name not in _SECTIONS and name in here.model_fields_set
    }
    return Settings(**own, **json.loads(json.dumps(waiting.settings)))
