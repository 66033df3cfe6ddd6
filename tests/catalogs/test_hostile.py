"""Answers made to harm: refused by the transport, before any client's XML reader sees them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from tasks.catalogs.failures import MalformedAnswerError
from tasks.catalogs.transport import guarded_session
from tests.catalogs.archive import BOMB, EXTERNAL

LIMIT = 200_000
LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "' + b"ha" * 1000 + b'">'
    + b"".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">'.encode() for n in range(8))
    + b"]><VOTABLE>&i;</VOTABLE>"
)  # fmt: skip
PLAIN = b"<VOTABLE><RESOURCE/></VOTABLE>"


class Serving:
    """A service that sends a body as it is."""

    def __init__(self) -> None:
        self.body, self.headers = b"", {"Content-Type": "application/x-votable+xml"}
        serving = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                for name, value in serving.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(serving.body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def service() -> Iterator[Serving]:
    made = Serving()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with guarded_session(5.0, LIMIT) as made:
        yield made


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (BOMB, "entities"),
        (EXTERNAL, "entities"),
        (LAUGHS, "entities"),
        (gzip.compress(LAUGHS), "entities"),
        (
            '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'.encode("utf-16"),
            "entities",
        ),
        (gzip.compress(b" " * 100 * LIMIT), "unpacks to more"),
        (gzip.compress(gzip.compress(b" " * 100 * LIMIT)), "more than once"),
        (bz2.compress(b" " * 100 * LIMIT), "no catalogue service"),
        (lzma.compress(b" " * 100 * LIMIT), "no catalogue service"),
        (gzip.compress(PLAIN * 50)[:-20], "damaged"),
        (PLAIN * 10_000, "longer than"),
    ],
)
def test_it_never_reaches_a_reader(service, session, body, said):
    service.body = body
    with pytest.raises(MalformedAnswerError, match=said):
        session.get(service.url)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_true_answer_does_and_is_unpacked(service, session, pack):
    service.body = pack(PLAIN)
    answer = session.get(service.url)
    assert answer.content == PLAIN
    assert answer.raw.read() == PLAIN  # what pyvo reads


def test_a_bomb_in_the_transfer_is_cut_off(service, session):
    service.body = gzip.compress(b" " * 100 * LIMIT)
    service.headers["Content-Encoding"] = "gzip"
    with pytest.raises(MalformedAnswerError, match="longer than"):
        session.get(service.url)
