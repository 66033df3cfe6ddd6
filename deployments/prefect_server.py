"""Prefect's server, which takes requests that write a few at a time: hundreds at once wait instead of failing.

python -m deployments.prefect_server server start ...

Everything after the module's name is `prefect`'s own. With SQLite, Prefect's server fails under many requests at once
in two ways. Each request waits with one of 15 connections for its turn to write; Prefect has no setting for their
number, and who has got none after half a minute is answered 500. And a transaction that reads before it writes is
refused at once, whatever the timeout, when another one has written in between ("database is locked", which is
SQLITE_BUSY_SNAPSHOT, https://www.sqlite.org/isolation.html), and answered 503.
"""

from __future__ import annotations

import asyncio
import runpy
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import flows  # noqa: F401 (defaults for Prefect, before Prefect)

__all__ = ["AT_A_TIME", "FewAtATime"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

AT_A_TIME = 4
"""Of PostgreSQL: the server computes on one core, a few requests keep it busy while others wait for the database."""


class FewAtATime:
    """An ASGI application whose requests that may write wait for their turn, first come, first served.

    Parameters
    ----------
    application
        Answers them.
    at_a_time
        So many of them.
    """

    def __init__(self, application: Application, at_a_time: int = AT_A_TIME) -> None:
        self._application = application
        self._turn = asyncio.Semaphore(at_a_time)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request; lifespan, sockets and what only reads are not kept waiting."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._application(scope, receive, send)
            return
        # As a whole before its turn: who sends slowly takes nobody's.
        told = deque([await receive()])
        while told[-1]["type"] == "http.request" and told[-1].get("more_body", False):
            told.append(await receive())

        async def again() -> Message:
            return told.popleft() if told else await receive()

        async with self._turn:
            await self._application(scope, again, send)


def _at_a_time() -> int:
    """Requests that the database can take: SQLite has one writer, and whoever waits for it sleeps and tries again."""
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

    return AT_A_TIME if str(PREFECT_API_DATABASE_CONNECTION_URL.value()).startswith("postgresql") else 1


def _writing_from_the_start() -> None:
    """Let transactions of Prefect's on SQLite that may write begin as such: they then wait for each other.

    Prefect does so itself where it says "for update".
    """
    from prefect.server.database.configurations import AioSqliteConfiguration

    plain = AioSqliteConfiguration.begin_transaction

    def begin(
        self: AioSqliteConfiguration, session: Any, with_for_update: bool = False
    ) -> AbstractAsyncContextManager[Any]:
        return plain(self, session, with_for_update=True)

    AioSqliteConfiguration.begin_transaction = begin  # type: ignore[assignment, method-assign]


def _start() -> None:
    """Run Prefect's command line with a uvicorn that serves its application so."""
    import uvicorn

    _writing_from_the_start()
    plain = uvicorn.run

    def run(app: Application, **options: Any) -> None:
        plain(FewAtATime(app, _at_a_time()), **options)

    uvicorn.run = run  # type: ignore[assignment]  # of its forty options Prefect gives a few
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _start()
