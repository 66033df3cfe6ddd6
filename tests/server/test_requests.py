"""How the server takes many requests at once: a few at a time, none refused. The real one: tests/load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from deployments.prefect_server import AT_A_TIME, FewAtATime


class Slow:
    """An application that takes its time, and counts."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.bodies: list[bytes] = []
        self.go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        if scope["method"] == "POST":
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message["body"], message["more_body"]
            self.bodies.append(body)
            await self.go.wait()
        self.inside -= 1
        await send({"type": "http.response.start"})


async def _sent(_message: Any) -> None:
    return None


def _said(*parts: bytes) -> Callable[[], Any]:
    left = list(parts)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    return receive


def test_few_at_a_time_in_the_order_they_came():
    async def ask() -> Slow:
        slow = Slow()
        server = FewAtATime(slow)
        many = [
            asyncio.create_task(server({"type": "http", "method": "POST"}, _said(b"%d" % n, b"!"), _sent))
            for n in range(50)
        ]
        await asyncio.sleep(0.01)
        assert slow.inside == AT_A_TIME
        await asyncio.wait_for(server({"type": "http", "method": "GET"}, _said(b""), _sent), 1)
        slow.go.set()
        await asyncio.wait_for(asyncio.gather(*many), 5)
        return slow

    slow = asyncio.run(ask())
    assert slow.most == AT_A_TIME + 1  # and the one that only reads
    assert slow.bodies == [b"%d!" % n for n in range(50)]


def test_who_sends_slowly_keeps_nobody_waiting():
    async def ask() -> Slow:
        slow, never = Slow(), asyncio.Event()
        slow.go.set()
        server = FewAtATime(slow, at_a_time=1)

        async def half() -> dict[str, Any]:
            await never.wait()
            raise AssertionError("not reached")

        hanging = asyncio.create_task(server({"type": "http", "method": "POST"}, half, _sent))
        await asyncio.sleep(0)
        await asyncio.wait_for(server({"type": "http", "method": "POST"}, _said(b"quick"), _sent), 1)
        hanging.cancel()
        return slow

    assert asyncio.run(ask()).bodies == [b"quick"]


def test_what_fails_gives_its_turn_back():
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("no database")

    async def ask() -> None:
        server = FewAtATime(broken, at_a_time=1)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="no database"):
                await asyncio.wait_for(server({"type": "http", "method": "POST"}, _said(b""), _sent), 1)

    asyncio.run(ask())
