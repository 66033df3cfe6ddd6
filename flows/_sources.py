"""The source list of a group, once its stacks exist."""

from __future__ import annotations

from collections.abc import Sequence

from flows._progress import Begun, RunProgress
from flows._way import as_failure
from models.field import FieldCatalogs
from models.frame import FrameFailure
from models.run import RunContext, RunSummary
from models.sourcelist import SourceList, source_list_paths
from models.stack import Stack
from tasks.sourcelists.tasks import source_list

__all__ = ["begin_sources", "end_sources", "with_sources"]


def begin_sources(
    group: str, finished: Sequence[object], catalogs: FieldCatalogs, run: RunContext, progress: RunProgress
) -> Begun:
    """Begin the list of all sources of a group in all bands; nothing without a stack."""
    stacks = tuple(stack for stack in finished if isinstance(stack, Stack))
    call = (stacks, catalogs.gaia, catalogs.ps1, run.roots, run.telescope, run.settings.sources, group)
    return progress.begin(source_list, [call] if stacks else [])


def end_sources(begun: Begun, group: str, run: RunContext, progress: RunProgress) -> SourceList | FrameFailure | None:
    """The list; None without a stack. What an earlier run made goes if this one fails."""
    results = progress.end("source list", begun) if begun.results else [None]
    result: object = results[0]
    if isinstance(result, SourceList):
        return result
    for path in source_list_paths(group, run.telescope.name, run.roots):
        path.unlink(missing_ok=True)
    if isinstance(result, BaseException):
        return as_failure(result, f"{group}_cat", "source list", run.roots)
    return result if isinstance(result, FrameFailure) else None


def with_sources(summary: RunSummary, sources: SourceList | FrameFailure | None) -> RunSummary:
    """The group's summary with its source list, or why there is none."""
    if sources is None:
        return summary
    if isinstance(sources, FrameFailure):
        pending = summary.n_pending + int(sources.pending)
        return summary.model_copy(update={"failures": (*summary.failures, sources), "n_pending": pending})
    said = [f"{sources.n_sources} in {', '.join(sources.detected_on)}"]
    said += [f"{sources.n_crowded} of them in crowded parts"] if sources.n_crowded else []
    said += [f"{n} known to {name}" for name, n in (("Gaia", sources.n_gaia), ("PS1", sources.n_ps1)) if n is not None]
    return summary.model_copy(
        update={
            "figures": summary.figures | {"sources": "; ".join((", ".join(said), *sources.notes))},
            "files": (*summary.files, sources.fits.path),
        }
    )
