"""A cone from the store or, failing that, from the services.

Only a complete, valid answer is ever stored. What keeps us from one is either worth trying again (`TransientError`:
the frames that need it stay pending) or not (`StageError`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from models.base import Roots
from models.catalog import Cone, StoredCone
from models.settings import Settings
from tasks.catalogs.columns import Catalogue, schema_of
from tasks.catalogs.cones import rounded
from tasks.catalogs.failures import (
    AnswerError,
    BusyError,
    MalformedAnswerError,
    MalformedError,
    TooManyRowsError,
    TruncatedAnswerError,
    TruncatedError,
)
from tasks.catalogs.references import PS1_SOUTH_DEG, sky_of
from tasks.catalogs.store import find_cone, store_cone
from tasks.core.errors import StageError, TransientError

__all__ = ["fetch_cone", "stored_cone"]

_log = logging.getLogger("ohp.catalogs")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_LONGEST_RETRY_AFTER_S = 120.0
"""A service that asks to wait longer is left for the next one."""


def stored_cone(catalogue: Catalogue, cone: Cone, roots: Roots, settings: Settings) -> StoredCone | None:
    """The stored cone that serves: covers the asked one, as deep as the settings want it."""
    schema_of(catalogue)
    return find_cone(catalogue, cone, roots, _limit(catalogue, settings))


def fetch_cone(catalogue: Catalogue, cone: Cone, roots: Roots, settings: Settings) -> StoredCone:
    """A stored cone that covers the asked one; asked from the services if there is none.

    The services are asked in the order of the settings; each again after a passing failure, up to
    `settings.catalogs.retries` times, with pauses that double from 1 s to 60 s and are spread at random by half, or
    as long as its Retry-After says. One process of a data root asks at a time.

    Returns
    -------
    StoredCone
        Centre rounded to 4 decimals, radius up to 3.

    Raises
    ------
    TransientError
        No service gave an answer now, or the mode is offline (then no socket is opened).
    MalformedError
        A `TransientError`: all that answered sent something unreadable.
    TruncatedError
        There are more rows than `settings.catalogs.max_rows`, or than any service gives.
    StageError
        The cone lies where the catalogue has no sky, or a service's address is wrong.
    """
    known = stored_cone(catalogue, cone, roots, settings)
    if known is not None:
        return known
    limit = _limit(catalogue, settings)
    where = f"{cone.radius:.3f} deg about RA {cone.ra:.4f} Dec {cone.dec:+.4f}"
    sky = sky_of(catalogue, cone)
    if sky == "none":
        raise StageError(
            "catalogues",
            f"PS1 ends at declination {PS1_SOUTH_DEG:+.0f} deg and has nothing for {where}",
            "add refcat2 or gspc to catalogs.references, or import a catalogue with PS1's column names",
        )
    if sky == "part":
        _log.warning("PS1 ends at declination %+.0f deg: the southern part of %s is empty", PS1_SOUTH_DEG, where)
    by_hand = f"python -m flows.import_catalog {catalogue} FILE"
    if settings.catalog_mode == "offline":
        raise TransientError(
            "catalogues",
            f"the local store has no {catalogue} cone for {where}, and the catalogue mode is offline",
            f"{by_hand}, or set OHP_CATALOG_MODE=online and run the same command again",
        )
    with _one_at_a_time(catalogue, roots):
        # Another process may have fetched it while this one waited.
        known = find_cone(catalogue, cone, roots, limit)
        if known is not None:
            return known
        return _ask_services(catalogue, rounded(cone.ra, cone.dec, cone.radius), roots, settings, where, by_hand)


def _limit(catalogue: Catalogue, settings: Settings) -> float | None:
    """Faintest magnitude asked for; None: all that there is."""
    return settings.catalogs.gaia_limit if catalogue in ("gaia", "gspc") else None


@contextmanager
def _one_at_a_time(catalogue: str, roots: Roots) -> Iterator[None]:
    folder = roots.data / ".cache" / "catalogs"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / f"{catalogue}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _ask_services(
    catalogue: Catalogue, cone: Cone, roots: Roots, settings: Settings, where: str, by_hand: str
) -> StoredCone:
    from tasks.catalogs.services import service_for

    urls = {
        "gaia": settings.gaia_urls,
        "gspc": settings.gaia_urls,
        "ps1": settings.ps1_urls,
        "refcat2": settings.refcat2_urls,
    }[catalogue]
    services = [service_for(catalogue, url, settings.catalogs, roots.data / ".cache" / "catalogs") for url in urls]
    failures: list[AnswerError] = []
    said: list[str] = []
    for service in services:
        for attempt in range(settings.catalogs.retries + 1):
            try:
                answer = service.ask(cone)
                stored = store_cone(
                    catalogue, cone, answer.table, roots, service.url, answer.release, answer.query,
                    _limit(catalogue, settings),
                )  # fmt: skip
                if not stored.n_rows:
                    _log.warning("%s answered that %s has nothing in %s", service.name, stored.release, where)
                return stored
            except TooManyRowsError as error:
                raise TruncatedError(
                    "catalogues",
                    f"{service.name} has {error} for {where} in {catalogue}",
                    "raise catalogs.max_rows, or ask for less sky or (Gaia) a brighter catalogs.gaia_limit",
                ) from error
            except AnswerError as error:
                failure = error
            except StageError as error:
                # A table with every column asked for, but with contents that are none.
                failure = MalformedAnswerError(error.reason)
            _log.warning("%s, try %d: %s", service.name, attempt + 1, failure)
            pause = _pause(failure, attempt)
            if pause is None or attempt == settings.catalogs.retries:
                break
            _rest(pause)
        failures.append(failure)
        said.append(f"{service.name}: {failure}" + (f" ({attempt + 1} tries)" if attempt else ""))
    reason = f"no service gave the {catalogue} cone for {where}: " + ("; ".join(said) or "none is set")
    again = "run the same command again later"
    if failures and all(isinstance(failure, TruncatedAnswerError) for failure in failures):
        raise TruncatedError("catalogues", reason, f"ask for less sky, or {by_hand}")
    if failures and all(isinstance(failure, MalformedAnswerError) for failure in failures):
        raise MalformedError("catalogues", reason, f"{again}, or {by_hand}")
    raise TransientError("catalogues", reason, f"{again}, or {by_hand}")


def _rest(seconds: float) -> None:
    time.sleep(seconds)


def _pause(failure: AnswerError, attempt: int) -> float | None:
    """How long to wait before asking the same service again, s; None where that is no use."""
    if not isinstance(failure, BusyError):
        return None
    if failure.retry_after_s is not None:
        return failure.retry_after_s if failure.retry_after_s <= _LONGEST_RETRY_AFTER_S else None
    return float(min(_FIRST_PAUSE_S * 2.0**attempt, _LONGEST_PAUSE_S) * random.uniform(0.5, 1.5))  # noqa: S311
