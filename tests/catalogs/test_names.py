"""Names resolved by SIMBAD: a service on loopback that answers as CDS does, or not at all."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

from models.base import Roots
from models.settings import Settings
from tasks.catalogs import known_names, resolve_names

# What SIMBAD says of these identifiers (main_id, ra, dec; ICRS).
OBJECTS = {"ngc628": ("M  74", 24.1739458333, 15.7836611111), "IC10": ("IC   10", 5.0722, 59.3038)}
TABLE = """<?xml version="1.0" encoding="UTF-8"?>
<VOTABLE xmlns="http://www.ivoa.net/xml/VOTable/v1.3" version="1.4"><RESOURCE type="results">
<INFO name="QUERY_STATUS" value="OK"/><TABLE>
<FIELD name="main_id" ucd="meta.id;meta.main" datatype="char" arraysize="*"/>
<FIELD name="ra" ucd="pos.eq.ra;meta.main" unit="deg" datatype="double"/>
<FIELD name="dec" ucd="pos.eq.dec;meta.main" unit="deg" datatype="double"/>
<FIELD name="matched_id" datatype="char" arraysize="*"/>
<DATA><TABLEDATA>{rows}</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"""


class Simbad:
    """Answers TAP's /sync; counts the names it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.mood = "answer"
        simbad = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                query = parse_qs(body)["QUERY"][0]
                name = re.search(r"id = '((?:[^']|'')*)'", query)[1].replace("''", "'")  # type: ignore[index]
                simbad.asked.append(name)
                found = OBJECTS.get(name)
                row = (
                    f"<TR><TD>{found[0]}</TD><TD>{found[1]}</TD><TD>{found[2]}</TD><TD>{name}</TD></TR>"
                    if found
                    else ""
                )
                status, text = (
                    (200, TABLE.format(rows=row)) if simbad.mood == "answer" else (200, "<html>Bonjour</html>")
                )
                if simbad.mood == "503":
                    status = 503
                self.send_response(status)
                self.send_header("Content-Type", "application/x-votable+xml")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simbad/sim-tap"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def simbad() -> Iterator[Simbad]:
    made = Simbad()
    yield made
    made.server.shutdown()
    made.server.server_close()


def settings(roots: Roots, *urls: str, mode: str = "online") -> Settings:
    return Settings(
        data_root=roots.data, simbad_urls=urls, catalog_mode=mode, catalogs={"interval_s": 0, "timeout_s": 5}
    )


def test_names_are_asked_for_once_and_kept(roots: Roots, simbad: Simbad) -> None:
    words = ["N628_R", "IC10", "champ 2", "  "]
    found = resolve_names(words, roots, settings(roots, simbad.url))
    assert (found["N628_R"].name, found["N628_R"].ra, found["N628_R"].dec) == (
        "M 74", pytest.approx(24.17395, abs=1e-4), pytest.approx(15.78366, abs=1e-4),
    )  # fmt: skip
    assert (found["IC10"].name, found["champ 2"].ra) == ("IC 10", None)
    assert simbad.asked == ["IC10", "N628 R", "ngc628", "champ 2", "champ"]
    assert resolve_names(words, roots, settings(roots, simbad.url)) == found
    assert len(simbad.asked) == 5
    assert set(known_names(roots)) == {"N628_R", "IC10", "champ 2"}
    assert resolve_names(["IC10"], roots, settings(roots, mode="offline")) == {"IC10": found["IC10"]}


def test_offline_or_without_a_service_nothing_is_asked(
    roots: Roots, simbad: Simbad, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", never)
    assert resolve_names(["IC10"], roots, settings(roots, simbad.url, mode="offline")) == {}
    assert resolve_names(["IC10"], roots, settings(roots)) == {}
    assert not (roots.catalogs / "names.json").exists()


@pytest.mark.parametrize("mood", ["503", "html"])
def test_a_service_that_fails_costs_a_warning_and_is_asked_again(
    roots: Roots, simbad: Simbad, mood: str, caplog: pytest.LogCaptureFixture
) -> None:
    simbad.mood = mood
    assert resolve_names(["IC10", "N628"], roots, settings(roots, simbad.url)) == {}
    assert len(simbad.asked) == 1
    assert "does not resolve names" in caplog.text
    simbad.mood = "answer"
    assert resolve_names(["IC10"], roots, settings(roots, simbad.url))["IC10"].dec == pytest.approx(59.3038)


def test_the_mirror_answers_where_nobody_listens(roots: Roots, simbad: Simbad) -> None:
    found = resolve_names(["IC10"], roots, settings(roots, "http://127.0.0.1:1/simbad/sim-tap", simbad.url))
    assert found["IC10"].name == "IC 10"


def test_patience_ends(roots: Roots, simbad: Simbad, caplog: pytest.LogCaptureFixture) -> None:
    limits = settings(roots, simbad.url)
    limits = limits.model_copy(update={"catalogs": limits.catalogs.model_copy(update={"patience_s": -1.0})})
    assert resolve_names(["IC10", "N628"], roots, limits) == {}
    assert "2 names are left for the next run" in caplog.text


@pytest.mark.parametrize("content", ["{", "[]", '{"IC10": {"ra": 700}}', '{"IC10": 3}'])
def test_a_damaged_store_is_asked_for_again(roots: Roots, simbad: Simbad, content: str) -> None:
    roots.catalogs.mkdir(parents=True)
    (roots.catalogs / "names.json").write_text(content)
    assert resolve_names(["IC10"], roots, settings(roots, simbad.url))["IC10"].name == "IC 10"
    assert json.loads((roots.catalogs / "names.json").read_text())["IC10"]["name"] == "IC 10"
