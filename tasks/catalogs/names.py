"""Names that the table of targets does not know: asked of SIMBAD (CDS) once each, and kept.

Optional and never in the way: without a service (``simbad_urls`` empty, offline, or down) a word is just not known. An
answer, be it that nothing is known, stays in ``catalogs/names.json``; a failure is asked again by the next run.
"""

from __future__ import annotations

import functools
import json
import logging
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from models.base import Roots
from models.settings import Settings
from models.target import NamedPlace, designations
from tasks.catalogs.failures import AnswerError, MalformedAnswerError
from tasks.catalogs.politeness import Turns, held
from tasks.core.files import write_json
from tasks.core.tools import StoppedError

__all__ = ["known_names", "resolve_names"]

_log = logging.getLogger("ohp.catalogs")

_SILENCE_S = 15.0
_MAX_BYTES = 1 << 20


def _path(roots: Roots) -> Path:
    return roots.catalogs / "names.json"


@functools.lru_cache(maxsize=16)
def _answers(path: Path, *_: int) -> dict[str, NamedPlace]:
    """What the file says, kept while its inode, size and times stay: it is asked for each frame."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    return {word: NamedPlace.model_validate({"word": word, **entry}) for word, entry in entries.items()}


def known_names(roots: Roots) -> dict[str, NamedPlace]:
    """Every answer at hand, by the word that was asked for."""
    path = _path(roots)
    try:
        seen = path.stat()
        return dict(_answers(path, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError, ValidationError) as error:
        _log.warning("%s cannot be read (%s): its names are asked for again", _path(roots), error)
        return {}


def resolve_names(words: Iterable[str], roots: Roots, settings: Settings) -> dict[str, NamedPlace]:
    """What is known of some words; those without an answer yet are asked for, within ``catalogs.patience_s``.

    Parameters
    ----------
    words
        OBJECT as it stands in the headers.
    settings
        ``simbad_urls`` (the first that answers is asked; empty: none), ``catalog_mode``, limits.

    Returns
    -------
    Answers by word; a word that could not be asked for is not among them.
    """
    wanted = sorted({word for word in words if word.strip()})
    known = known_names(roots)
    missing = [word for word in wanted if word not in known]
    if missing and settings.simbad_urls and settings.catalog_mode == "online":
        answered = _asked(missing, roots, settings)
        if answered:
            with held(roots.data / ".cache" / "catalogs" / "names.lock"):
                known = known_names(roots) | answered
                entries = {word: known[word].model_dump(exclude={"word"}) for word in sorted(known)}
                write_json(_path(roots), entries)
    return {word: known[word] for word in wanted if word in known}


def _asked(words: Iterable[str], roots: Roots, settings: Settings) -> dict[str, NamedPlace]:
    until = time.monotonic() + settings.catalogs.patience_s
    answers: dict[str, NamedPlace] = {}
    left = list(words)
    for url in settings.simbad_urls:
        service = _Simbad(url, roots, settings)
        try:
            while left:
                if time.monotonic() > until:
                    _log.warning("%d names are left for the next run: asking took its time", len(left))
                    return answers
                answers[left[0]] = service.place_of(left[0])
                left.pop(0)
            return answers
        except AnswerError as error:
            _log.warning("%s does not resolve names: %s", service.name, error)
        finally:
            service.close()
    return answers


class _Simbad:
    """SIMBAD by TAP, through astroquery."""

    def __init__(self, url: str, roots: Roots, settings: Settings) -> None:
        from astroquery.simbad import SimbadClass  # a second to import
        from pyvo.dal import TAPService

        from tasks.catalogs.transport import guarded_session

        limits = settings.catalogs
        turns = Turns(roots.data / ".cache" / "catalogs" / "hosts", limits.interval_s)
        session = guarded_session(min(_SILENCE_S, limits.timeout_s), _MAX_BYTES, turns.request)
        service = TAPService(baseurl=url.rstrip("/"), session=session)

        class Simbad(SimbadClass):  # type: ignore[misc]
            """astroquery's knows two servers, and asks each for its limits first."""

            tap = property(lambda self: service)
            hardlimit = property(lambda self: 10_000)

        self.name = urlsplit(url).netloc or url
        self._client, self._session = Simbad(), session

    def place_of(self, word: str) -> NamedPlace:
        """What it knows of a word.

        Raises
        ------
        AnswerError
            If it gives no answer that can be read.
        """
        for spelling in _spellings(word):
            row = self._row(spelling)
            if row is not None:
                return NamedPlace(word=word, name=row["name"], ra=row["ra"] % 360, dec=row["dec"])
        return NamedPlace(word=word)

    def _row(self, spelling: str) -> Mapping[str, Any] | None:
        from astroquery.exceptions import NoResultsWarning

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NoResultsWarning)  # knowing nothing is an answer
                table = self._client.query_object(spelling)
            if table is None or not len(table):
                return None
            ra, dec = float(table["ra"][0]), float(table["dec"][0])
            name = " ".join(str(table["main_id"][0]).split())
        except (AnswerError, StoppedError):
            raise
        except Exception as error:  # astroquery and pyvo raise nearly anything for an unexpected answer
            inner: BaseException | None = error
            while inner is not None:
                if isinstance(inner, AnswerError):
                    raise inner from error
                inner = inner.__cause__ or inner.__context__
            first = (str(error).strip().splitlines() or [""])[0][:200]
            raise MalformedAnswerError(f"unexpected answer ({type(error).__name__}: {first})") from error
        if not (-90 <= dec <= 90):  # NaN: an object without a position
            return None
        return {"name": name, "ra": ra, "dec": dec}

    def close(self) -> None:
        """End its connections."""
        self._session.close()


def _spellings(word: str) -> list[str]:
    """How a word is asked for: as it stands, then without what is written behind a name."""
    plain = " ".join(word.replace("_", " ").split())
    return list(dict.fromkeys([plain, *list(designations(word))[-1:]]))
