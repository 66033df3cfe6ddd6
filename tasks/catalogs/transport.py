"""HTTP as the catalogue clients need it: with limits on time and size, and with failures that say what they are.

Everything that astroquery sends goes through `GuardedAdapter`, so that a service that stalls, drips, drops the
connection or sends without end is the same few exceptions whichever client speaks to it.
"""

from __future__ import annotations

import email.utils
import io
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from tasks.catalogs.failures import BusyError, MalformedAnswerError, RefusedError
from tasks.catalogs.votable import declares_entities, unpack

__all__ = ["GuardedAdapter", "TapTransport", "guarded_session", "plain_text"]

_CHUNK = 1 << 16
_PATIENCE = 10
"""A whole answer may take this many times the longest silence."""

_BUSY = {408, 425, 429}

Turn = Callable[[str], AbstractContextManager[None]]


def _anybodys(host: str) -> AbstractContextManager[None]:
    return nullcontext()


def _retry_after(value: str | None) -> float | None:
    """Seconds in a Retry-After header, which is a number or a date; None where it is neither."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def plain_text(body: bytes) -> str:
    """The beginning of a message without its markup, in one line."""
    text = re.sub(r"(?s)<(script|style).*?</\1>|<[^>]*>", " ", body[:4000].decode("utf-8", "replace"))
    return " ".join(text.split())[:200]


class GuardedAdapter(HTTPAdapter):
    """Transport for `requests` that reads whole answers within limits.

    Parameters
    ----------
    silence_s
        Longest wait for a connection, and for the next bytes.
    max_bytes
        Longest answer after decompression.
    turn
        Entered with the host's name for the time of each request.
    """

    def __init__(self, silence_s: float, max_bytes: int, turn: Turn = _anybodys) -> None:
        self._silence_s, self._max_bytes, self._turn = silence_s, max_bytes, turn
        super().__init__(max_retries=0)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Send and read, within our limits whatever `stream` and `timeout` say; a redirection is passed on.

        Raises
        ------
        BusyError
            Timeout, no connection, connection lost, 408, 425, 429, 5xx.
        MalformedAnswerError
            Longer than `max_bytes` however packed, its compression is damaged, or its XML declares entities.
        RefusedError
            Any other 4xx, no valid certificate, or an address that is none.
        """
        patience = (min(self._silence_s, 30.0), self._silence_s)
        with self._turn(urlsplit(str(request.url)).netloc):
            response, body = self._exchange(request, patience, verify, cert, proxies)
        # astroquery's and pyvo's own XML readers unpack and expand without a limit.
        body = unpack(body, self._max_bytes)
        if declares_entities(body):
            raise MalformedAnswerError("the answer declares XML entities, which no service needs")
        response._content = body  # what `requests` itself would have set after reading
        response._content_consumed = True
        # pyvo reads from here, whatever has been read.
        response.raw = urllib3.HTTPResponse(io.BytesIO(body), preload_content=False)
        status = response.status_code
        if status in _BUSY or status >= 500:
            raise BusyError(
                f"HTTP {status} {response.reason}: {plain_text(body)}".rstrip(": "),
                _retry_after(response.headers.get("Retry-After")),
            )
        if status >= 400:
            raise RefusedError(f"HTTP {status} {response.reason}: {plain_text(body)}".rstrip(": "))
        return response

    def _exchange(
        self, request: requests.PreparedRequest, patience: tuple[float, float], verify: Any, cert: Any, proxies: Any
    ) -> tuple[requests.Response, bytes]:
        try:
            response = super().send(request, True, patience, verify, cert, proxies)
            try:
                return response, self._read(response)
            finally:
                response.close()
        except (urllib3.exceptions.DecodeError, requests.exceptions.ContentDecodingError) as error:
            raise MalformedAnswerError(f"the compressed answer is damaged: {error}") from error
        except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError) as error:
            raise BusyError(f"no answer within {self._silence_s:g} s") from error
        except requests.exceptions.SSLError as error:
            raise RefusedError(f"no trustworthy connection: {error}") from error
        except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            raise BusyError(f"no connection or connection lost: {_cause(error)}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise BusyError(f"connection lost: {_cause(error)}") from error

    def _read(self, response: requests.Response) -> bytes:
        deadline = time.monotonic() + _PATIENCE * self._silence_s
        parts: list[bytes] = []
        size = 0
        while part := response.raw.read1(_CHUNK, decode_content=True):
            parts.append(part)
            size += len(part)
            if size > self._max_bytes:
                raise MalformedAnswerError(f"the answer is longer than {self._max_bytes} bytes")
            if time.monotonic() > deadline:
                raise BusyError(f"the answer did not end within {_PATIENCE * self._silence_s:g} s")
        return b"".join(parts)


def _cause(error: BaseException) -> str:
    """The innermost reason of a chain of wrapped network errors."""
    inner: Any = error
    while True:
        following = getattr(inner, "reason", None) or (inner.args[0] if getattr(inner, "args", ()) else None)
        if not isinstance(following, BaseException):
            break
        inner = following
    return (str(inner) or type(inner).__name__)[:200]


def guarded_session(silence_s: float, max_bytes: int, turn: Turn = _anybodys) -> requests.Session:
    """A session whose every request goes through `GuardedAdapter`."""
    session = requests.Session()
    session.max_redirects = 5
    for scheme in ("http://", "https://"):
        session.mount(scheme, GuardedAdapter(silence_s, max_bytes, turn))
    return session


class TapTransport:
    """What astroquery's `TapConn` takes for its connection handler, on a guarded session.

    astroquery's own has no timeout and no limit. Also stands for the one-request connection that
    `http.client` would give: `request`, then `getresponse`.
    """

    def __init__(self, url: str, session: requests.Session) -> None:
        parts = urlsplit(url)
        self._base = f"{parts.scheme}://{parts.netloc}"
        self.host, self.port = parts.hostname, parts.port
        self._session = session
        self._response: requests.Response | None = None
        self._body = io.BytesIO()

    def get_connection(
        self, *, ishttps: bool = False, cookie: str | None = None, verbose: bool = False
    ) -> TapTransport:
        """A connection for one request."""
        return TapTransport(self._base, self._session)

    def get_connection_secure(self, verbose: bool) -> TapTransport:
        """The same; the service's address says whether it is encrypted."""
        return self.get_connection()

    def request(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> None:
        """Send; a POST's redirection is part of the TAP protocol and left to astroquery."""
        try:
            self._response = self._session.request(
                method, self._base + path, data=body, headers=headers, allow_redirects=method == "GET"
            )
            self._body = io.BytesIO(self._response.content)
        except requests.exceptions.RequestException as error:
            raise RefusedError(f"{type(error).__name__}: {error}") from error

    def getresponse(self) -> TapTransport:
        """The answer to what was sent."""
        return self

    @property
    def status(self) -> int:
        """HTTP status."""
        assert self._response is not None
        return self._response.status_code

    @property
    def reason(self) -> str:
        """HTTP reason phrase."""
        assert self._response is not None
        return self._response.reason

    def getheaders(self) -> list[tuple[str, str]]:
        """HTTP headers."""
        assert self._response is not None
        return list(self._response.headers.items())

    def read(self, amount: int = -1) -> bytes:
        """The body, or the next `amount` bytes of it."""
        return self._body.read(amount)
