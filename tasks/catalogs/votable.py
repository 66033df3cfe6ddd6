"""VOTables from strangers: checked before they are parsed, believed only when whole."""

from __future__ import annotations

import gzip
import io
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

# An error and an empty handler: what parses is defusedxml.
from xml.sax import SAXParseException  # nosec B406
from xml.sax.handler import ContentHandler  # nosec B406

from astropy.table import Table

from tasks.catalogs.failures import AnswerError, BusyError, MalformedAnswerError, RefusedError, TruncatedAnswerError

__all__ = ["declares_entities", "parse_votable", "refuse_entities", "unpack"]

_GZIP = b"\x1f\x8b"
_OTHER_PACKINGS = (b"BZh", b"\xfd7zXZ\x00", b"PK\x03\x04")
"""bzip2, xz, zip: astropy's readers unpack them by themselves, without a limit."""


def unpack(content: bytes, limit: int) -> bytes:
    """The content, gunzipped if it is gzipped (ESA sends VOTables so), never more than `limit` bytes.

    Raises
    ------
    MalformedAnswerError
        If the gzip stream is damaged, cut, unpacks to more than `limit` or to something packed again; if the content is
        packed in another way.
    """
    if content.startswith(_OTHER_PACKINGS):
        raise MalformedAnswerError("the answer is packed in a way that no catalogue service uses")
    if not content.startswith(_GZIP):
        return content
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            plain = stream.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise MalformedAnswerError(f"the gzipped answer is damaged: {error}") from error
    if len(plain) > limit:
        raise MalformedAnswerError(f"the answer unpacks to more than {limit} bytes")
    if plain.startswith((_GZIP, *_OTHER_PACKINGS)):
        raise MalformedAnswerError("the answer is packed more than once")
    return plain


def declares_entities(content: bytes) -> bool:
    """Whether bytes hold XML's declaration of an entity, in any encoding that expat reads (UTF-16 has NULs)."""
    return b"<!ENTITY" in (content.replace(b"\0", b"") if b"\0" in content else content)


def refuse_entities(content: bytes) -> None:
    """Refuse XML that is cut, is not well formed, or declares entities (bombs, external files).

    Raises
    ------
    MalformedAnswerError
        Says which.
    """
    from defusedxml import DefusedXmlException
    from defusedxml.sax import parseString

    try:
        parseString(content, ContentHandler())
    except DefusedXmlException as error:
        raise MalformedAnswerError(
            f"the XML declares entities, which no VOTable needs ({type(error).__name__})"
        ) from error
    except SAXParseException as error:
        line, text = error.getLineNumber(), error.getMessage()
        raise MalformedAnswerError(f"the XML is cut or not well formed (line {line}: {text})") from error
    except (LookupError, ValueError) as error:  # of Python's, which expat asks
        raise MalformedAnswerError(f"the XML names an encoding that there is not: {error}") from error


def _infos(resources: Iterable[Any]) -> Iterator[Any]:
    for resource in resources:
        yield from resource.infos
        for table in resource.tables:
            yield from table.infos
        yield from _infos(resource.resources)


_PASSING = re.compile(
    r"no connection|connect error|couldn't connect|not (currently )?reachable|time[d -]*out|try again|too many|"
    r"temporar|unavailable|overload|busy|shutting down",
    re.IGNORECASE,
)


def _service_error(text: str) -> AnswerError:
    said = f"the service reports an error: {text[:300]}"
    return BusyError(said) if _PASSING.search(text) else RefusedError(said)


def parse_votable(content: bytes, limit: int, need_status: bool = True) -> Table:
    """The one table of a VOTable that says it is complete.

    Parameters
    ----------
    content
        As it came; may be gzipped.
    limit
        Most bytes after unpacking.
    need_status
        Whether INFO QUERY_STATUS has to be there, as the TAP standard asks (VizieR's own interface writes none).

    Returns
    -------
    Table
        Columns by their names; may have no rows.

    Raises
    ------
    MalformedAnswerError
        If it is HTML, cut, not well formed, has entities, no table, or no status.
    RefusedError, BusyError
        If the service reports an error in it; `BusyError` where that error speaks of a passing state.
    TruncatedAnswerError
        If it says that there are more rows.
    """
    from astropy.io import votable

    plain = unpack(content, limit)
    start = plain[:400].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")) or (start.startswith(b"<?xml") and b"<html" in start):
        raise MalformedAnswerError("a web page came instead of a VOTable")
    refuse_entities(plain)
    try:
        with warnings.catch_warnings():
            # The archives' VOTables break the standard in small ways (units, UCDs) at each release.
            warnings.simplefilter("ignore")
            document = votable.parse(io.BytesIO(plain), verify="ignore", invalid="exception")
    except Exception as error:  # astropy raises anything from E-codes to struct.error for a bad VOTable
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise MalformedAnswerError(f"the VOTable cannot be parsed: {first}") from error

    tables = list(document.iter_tables())
    infos = [*document.infos, *_infos(document.resources)]
    said = [(info.name or "", info.value or "", info.content or "") for info in infos]
    statuses = [(value.strip().upper(), text.strip()) for name, value, text in said if name.upper() == "QUERY_STATUS"]
    errors = [(value or text).strip() for name, value, text in said if name.strip().lower() == "error"]
    errors += [text or "without a word" for value, text in statuses if value == "ERROR"]
    if errors:
        raise _service_error(" ".join(" ".join(dict.fromkeys(errors)).split()))
    for name, value, text in said:
        if name.strip().lower() == "warning" and "truncat" in f"{value} {text}".lower():
            raise TruncatedAnswerError(f"the service cut its answer: {(value or text)[:200]}")
    if any(value == "OVERFLOW" for value, _ in statuses):
        raise TruncatedAnswerError("the service cut its answer at its own row limit (OVERFLOW)")
    if need_status and not any(value == "OK" for value, _ in statuses):
        raise MalformedAnswerError("the VOTable does not say that the query went well (INFO QUERY_STATUS)")
    if len(tables) != 1:
        raise MalformedAnswerError(f"the VOTable has {len(tables)} tables instead of one")
    return tables[0].to_table(use_names_over_ids=True)
