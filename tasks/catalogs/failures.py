"""Why a catalogue service's answer is no answer.

The first five are what one request to one service can end in; `tasks.catalogs.fetch` tries on and sums them up in one
of the last four, which are what a stage sees.
"""

from __future__ import annotations

from tasks.core.errors import StageError, TransientError

__all__ = [
    "AnswerError",
    "BusyError",
    "DownError",
    "MalformedAnswerError",
    "MalformedError",
    "RefusedError",
    "TooManyRowsError",
    "TruncatedAnswerError",
    "TruncatedError",
]


class AnswerError(Exception):
    """One request to one service gave no usable answer."""


class BusyError(AnswerError):
    """The service may well answer in a moment: timeout, connection lost, 429, 5xx.

    Parameters
    ----------
    reason
        What happened.
    retry_after_s
        How long the service asks to wait, if it does.
    """

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason, retry_after_s)
        self.reason, self.retry_after_s = reason, retry_after_s

    def __str__(self) -> str:
        return self.reason


class MalformedAnswerError(AnswerError):
    """What came is not what was asked for: HTML, a cut table, entities."""


class RefusedError(AnswerError):
    """The service understood and said no: an error INFO, 4xx."""


class TruncatedAnswerError(AnswerError):
    """The service left rows out."""


class TooManyRowsError(TruncatedAnswerError):
    """There are more rows than we asked for at most; any other service would have as many."""


class TruncatedError(StageError):
    """There are more rows than can be had: the cone has to be smaller or the limit larger."""


class DownError(TransientError):
    """Not to be had in this run: asking again in a minute is no use, running again later is."""


class MalformedError(TransientError):
    """No service gave a readable answer; worth trying again later, when they are mended."""
