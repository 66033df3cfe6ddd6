"""A server that lives and does not answer yet is waited for; where none lives, nobody waits."""

from __future__ import annotations

import fcntl
import os
from types import SimpleNamespace

from deployments import _service
from models.base import Roots


def test_a_busy_server_is_waited_for(tmp_path, monkeypatch):
    roots = Roots(data=tmp_path, raw=tmp_path / "raw")
    options = SimpleNamespace(host="127.0.0.1", port=4200)
    answers: list[str | None] = []
    monkeypatch.setattr(_service, "_home_of_server", lambda _options: answers.pop(0))

    answers[:] = [None]
    assert _service._find_server(options, roots) is None
    assert answers == []

    with _service._state(roots, "server").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(os.getpid()))
        lock.flush()
        answers[:] = [None, None, "/home/of/prefect"]
        assert _service._find_server(options, roots) == "/home/of/prefect"
        monkeypatch.setattr(_service, "_patience_s", lambda: 0.0)
        answers[:] = [None]
        assert _service._find_server(options, roots) is None
