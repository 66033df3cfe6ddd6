"""What happens to a failure: it ends the way of one frame or stack, as a record, and nothing else."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from prefect.transactions import CommitMode, transaction

from flows import _effort as effort
from models.base import Record, Roots
from models.frame import FrameFailure
from models.run import RunContext
from tasks.core.cache import NotOnRecordError, recall
from tasks.core.errors import StageError, machine_trouble
from tasks.core.files import safe_name
from tasks.core.records import recording
from tasks.core.tools import StoppedError

__all__ = ["Way", "as_failure", "stages"]

P = ParamSpec("P")
R = TypeVar("R")


def as_failure(error: BaseException, file: str, stage: str, roots: Roots) -> FrameFailure:
    """An error as a record.

    One that no stage foresaw is a mistake of ours: its traceback goes to a log that the record names, and the
    rest of the night goes on.

    Raises
    ------
    BaseException
        The error itself, where it says that the run is being stopped.
    """
    effort.count()
    if isinstance(error, StageError):
        return error.record(file)
    if isinstance(error, StoppedError) or not isinstance(error, Exception):
        raise error
    if trouble := machine_trouble(error):
        return FrameFailure(file=file, stage=stage, reason=trouble[0], remedy=trouble[1], pending=True)
    log = roots.logs / f"error-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}-{safe_name(file, 60)}.log"
    where = f"report it with {log}"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError as unwritten:
        where = f"report it ({log} could not be written: {unwritten.strerror})"
    first = (str(error).strip() or "no message").splitlines()[0]
    return FrameFailure(
        file=file,
        stage=stage,
        reason=f"unforeseen {type(error).__name__}: {first}",
        remedy=f"a mistake of the pipeline: {where}",
    )


@contextmanager
def stages(run: RunContext) -> Iterator[None]:
    """Around the stages that a task calls: each one's record stays, even if a later one fails.

    The task may run in another process (Dask), where the place of the records has to be said again.
    """
    with recording(run.roots, run.refresh, run.started), transaction(commit_mode=CommitMode.EAGER):
        yield


class Way:
    """Calls the stages of a frame or a stack one after the other and keeps what went wrong.

    Parameters
    ----------
    file
        Named in the records.
    roots
        Where logs go.
    """

    def __init__(self, file: str, roots: Roots) -> None:
        self.file = file
        self.failures: list[FrameFailure] = []
        self._roots = roots

    def step(self, stage: Callable[P, R | FrameFailure], *args: P.args, **kwargs: P.kwargs) -> R | None:
        """The stage's result, as recorded or by running it; None where it failed, which is then among `failures`."""
        try:
            result: R | FrameFailure = recall(stage, *args, **kwargs)
        except NotOnRecordError:
            raise
        except Exception as error:
            result = as_failure(error, self.file, getattr(stage, "name", "stage"), self._roots)
        if isinstance(result, FrameFailure):
            self.failures.append(result)
            return None
        return _sharing(result, args)


def _sharing(result: R, given: tuple[Any, ...]) -> R:
    """The result with what it was made from as the objects themselves instead of equal ones.

    A result comes from another process or from its record. Each stage's would hold all earlier ones once more: of a
    year of frames, that was most of the flow's memory.
    """
    if not isinstance(result, Record):
        return result
    models = [each for each in given if isinstance(each, Record)]
    same = {
        name: model
        for name, value in result
        for model in models
        if type(value) is type(model) and value is not model and value == model
    }
    return result.model_copy(update=same) if same else result
