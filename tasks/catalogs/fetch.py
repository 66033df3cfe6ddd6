"""A cone from the store or, failing that, from the services.

Only a complete, valid answer is ever stored. What keeps us from one is either worth trying again (`TransientError`:
the frames that need it stay pending) or not (`StageError`).
"""

from __future__ import annotations

import logging
import random

from models.base import Roots
from models.catalog import Cone, StoredCone
from models.settings import CatalogSettings, Settings
from tasks.catalogs.columns import Catalogue, schema_of
from tasks.catalogs.cones import rounded
from tasks.catalogs.failures import (
    AnswerError,
    BusyError,
    DownError,
    MalformedAnswerError,
    MalformedError,
    RefusedError,
    TooManyRowsError,
    TruncatedAnswerError,
    TruncatedError,
)
from tasks.catalogs.patience import PATIENCE
from tasks.catalogs.politeness import held, rest
from tasks.catalogs.references import PS1_SOUTH_DEG, sky_of
from tasks.catalogs.store import find_cone, store_cone
from tasks.core.errors import StageError, TransientError

__all__ = ["fetch_cone", "stored_cone"]

_log = logging.getLogger("ohp.catalogs")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_LONGEST_RETRY_AFTER_S = 120.0
"""A service that asks to wait longer is left for the next one."""
_LEAST_WAIT_S = 5.0
"""With less patience left a service is not asked: it would have no time to answer."""
_FINAL = (RefusedError, TruncatedAnswerError)
"""What a service would say again in a minute."""


def stored_cone(catalogue: Catalogue, cone: Cone, roots: Roots, settings: Settings) -> StoredCone | None:
    """The stored cone that serves: covers the asked one, as deep as the settings want it."""
    schema_of(catalogue)
    return find_cone(catalogue, cone, roots, _limit(catalogue, settings))


def fetch_cone(catalogue: Catalogue, cone: Cone, roots: Roots, settings: Settings) -> StoredCone:
    """A stored cone that covers the asked one; asked from the services if there is none.

    The services are asked in the order of the settings; each again after a passing failure, up to
    `settings.catalogs.retries` times, with pauses that double from 1 s to 60 s and are spread at random by half, or
    as long as its Retry-After says. One that has given nothing but failures for `settings.catalogs.patience_s`
    is not asked again by this process for ten minutes, not for other cones either. One question for a catalogue
    and one to a host at a time in a data root, with `settings.catalogs.interval_s` between requests.

    Returns
    -------
    StoredCone
        Centre rounded to 4 decimals, radius up to 3.

    Raises
    ------
    TransientError
        No service gave an answer now.
    DownError
        A `TransientError`: nor will one in this run. Or the mode is offline (then no socket is opened).
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
        raise DownError(
            "catalogues",
            f"the local store has no {catalogue} cone for {where}, and the catalogue mode is offline",
            f"{by_hand}, or set OHP_CATALOG_MODE=online and run the same command again",
        )
    with held(roots.data / ".cache" / "catalogs" / f"{catalogue}.lock"):
        # Another process may have fetched it while this one waited.
        known = find_cone(catalogue, cone, roots, limit)
        if known is not None:
            return known
        return _ask_services(catalogue, rounded(cone.ra, cone.dec, cone.radius), roots, settings, where, by_hand)


def _limit(catalogue: Catalogue, settings: Settings) -> float | None:
    """Faintest magnitude asked for; None: all that there is."""
    return settings.catalogs.gaia_limit if catalogue in ("gaia", "gspc") else None


def _ask_services(
    catalogue: Catalogue, cone: Cone, roots: Roots, settings: Settings, where: str, by_hand: str
) -> StoredCone:
    urls = {
        "gaia": settings.gaia_urls,
        "gspc": settings.gaia_urls,
        "ps1": settings.ps1_urls,
        "refcat2": settings.refcat2_urls,
    }[catalogue]
    failures: list[AnswerError] = []
    said: list[str] = []
    services = [_Asking(catalogue, url, cone, roots, settings) for url in urls]
    for service in services:
        try:
            return service.tried()
        except TooManyRowsError as error:
            raise TruncatedError(
                "catalogues",
                f"{service.name} has {error} for {where} in {catalogue}",
                "raise catalogs.max_rows, or ask for less sky or (Gaia) a brighter catalogs.gaia_limit",
            ) from error
        except AnswerError as error:
            failures.append(error)
            said.append(f"{service.name}: {error}" + (f" ({service.tries} tries)" if service.tries > 1 else ""))
    reason = f"no service gave the {catalogue} cone for {where}: " + ("; ".join(said) or "none is set")
    again = "run the same command again later"
    if failures and all(isinstance(failure, TruncatedAnswerError) for failure in failures):
        raise TruncatedError("catalogues", reason, f"ask for less sky, or {by_hand}")
    if failures and all(isinstance(failure, MalformedAnswerError) for failure in failures):
        raise MalformedError("catalogues", reason, f"{again}, or {by_hand}")
    if all(
        service.given_up or isinstance(failure, _FINAL) for service, failure in zip(services, failures, strict=True)
    ):
        raise DownError("catalogues", reason, f"{again}, or {by_hand}")
    raise TransientError("catalogues", reason, f"{again}, or {by_hand}")


class _Asking:
    """One service asked for one cone, as often as that is of use and patience lasts.

    Attributes
    ----------
    tries
        How often it was asked.
    given_up
        Whether its patience is at an end: this process does not ask it again for a while.
    """

    def __init__(self, catalogue: Catalogue, url: str, cone: Cone, roots: Roots, settings: Settings) -> None:
        from tasks.catalogs.services import service_for  # astroquery's dependencies take a second to import

        self._scratch = roots.data / ".cache" / "catalogs"
        self._make = service_for
        self._catalogue, self._url, self._cone, self._roots, self._settings = catalogue, url, cone, roots, settings
        self._key = (str(roots.data), url)
        self.name = service_for(catalogue, url, settings.catalogs, self._scratch).name
        self.tries, self.given_up, self._started = 0, False, 0.0

    def tried(self) -> StoredCone:
        """The cone, stored.

        Raises
        ------
        AnswerError
            What came of the last try.
        """
        limits = self._settings.catalogs
        failure: AnswerError = BusyError(f"not asked again: it gave nothing for {limits.patience_s:g} s in this run")
        while True:
            left = PATIENCE.left(self._key, limits.patience_s)
            if left < min(_LEAST_WAIT_S, limits.timeout_s, limits.patience_s):
                self.given_up = True
                raise failure
            try:
                # The last try does not outlast the patience.
                stored = self._once(limits.model_copy(update={"timeout_s": min(limits.timeout_s, left)}))
            except TooManyRowsError:
                raise
            except AnswerError as error:
                failure = error
            except StageError as error:
                # A table with every column asked for, but with contents that are none.
                failure = MalformedAnswerError(error.reason)
            else:
                PATIENCE.answered(self._key)
                return stored
            self.tries += 1
            _log.warning("%s, try %d: %s", self.name, self.tries, failure)
            if not isinstance(failure, BusyError):
                raise failure
            PATIENCE.failed(self._key, self._started)
            pause = _pause(failure, self.tries - 1)
            if self.tries > limits.retries or pause > _LONGEST_RETRY_AFTER_S:
                raise failure
            if pause > PATIENCE.left(self._key, limits.patience_s):
                PATIENCE.give_up(self._key)
                self.given_up = True
                raise failure
            _rest(pause)

    def _once(self, limits: CatalogSettings) -> StoredCone:
        service = self._make(self._catalogue, self._url, limits, self._scratch)
        with service.turns.question(service.name):
            # Patience begins when it is our turn: others' long questions are not its fault.
            self._started = PATIENCE.now()
            answer = service.ask(self._cone)
        stored = store_cone(
            self._catalogue, self._cone, answer.table, self._roots, service.url, answer.release, answer.query,
            _limit(self._catalogue, self._settings),
        )  # fmt: skip
        if not stored.n_rows:
            _log.warning("%s answered that %s has nothing in %s", service.name, stored.release, stored.cone)
        return stored


def _rest(seconds: float) -> None:
    rest(seconds)


def _pause(failure: BusyError, attempt: int) -> float:
    """How long to wait before asking the same service again, s."""
    if failure.retry_after_s is not None:
        return failure.retry_after_s
    jitter = random.uniform(0.5, 1.5)  # noqa: S311 (nothing secret)  # nosec B311
    return float(min(_FIRST_PAUSE_S * 2.0**attempt, _LONGEST_PAUSE_S) * jitter)
