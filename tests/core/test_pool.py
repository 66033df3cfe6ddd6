"""The process pool: results and errors come back, a killed worker is a transient failure."""

from __future__ import annotations

import os
import signal

import pytest

from tasks.core.errors import StageError, TransientError
from tasks.core.pool import configure_pool, in_pool, stop_pool


def _square(x: int) -> int:
    return x * x


def _refuse(x: int) -> int:
    raise StageError("test", f"{x} is no good", "give another")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module", autouse=True)
def _pool():
    configure_pool(1)
    yield
    stop_pool()


def test_results_come_back():
    assert in_pool(_square, 7) == 49


def test_errors_come_back_as_they_are():
    with pytest.raises(StageError, match="3 is no good") as failure:
        in_pool(_refuse, 3)
    assert failure.value.record("f.fits").remedy == "give another"


def test_a_killed_worker_is_worth_another_try_and_the_pool_goes_on():
    with pytest.raises(TransientError, match="a worker process died"):
        in_pool(_die)
    assert in_pool(_square, 3) == 9
