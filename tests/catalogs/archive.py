"""An archive on loopback that speaks TAP, MAST's JSON and VizieR's VOTable, and can misbehave in every known way."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
from astropy.io import votable
from astropy.io.votable.tree import Info
from astropy.table import Table

from models.catalog import Cone
from tasks.catalogs.cones import contains
from tasks.catalogs.services import _VIZIER_NAMES

BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE VOTABLE [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;">]>
<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE type="results">
<INFO name="QUERY_STATUS" value="OK">&c;</INFO><TABLE><FIELD name="a" datatype="int"/></TABLE></RESOURCE></VOTABLE>"""
EXTERNAL = BOMB.replace(b'<!ENTITY a "aaaaaaaaaa">', b'<!ENTITY a SYSTEM "file:///etc/hostname">')
ERROR_INFO = b"""<?xml version="1.0"?><VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">
<RESOURCE type="results"><INFO name="QUERY_STATUS" value="ERROR">Column pmra does not exist</INFO></RESOURCE>
</VOTABLE>"""
NO_DATABASE = b"""<?xml version="1.0"?><VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">
<INFO ID="Error" name="Error" value="The database is not currently reachable." />
<INFO name="QUERY_STATUS" value="ERROR"> -- no connection</INFO><RESOURCE></RESOURCE></VOTABLE>"""
HTML = b"<!DOCTYPE html><html><head><title>Maintenance</title></head><body><p>Back on Monday</p></body></html>"

STATUSES = {"429": 429, "429 long": 429, "500": 500, "502": 502, "503": 503, "403": 403, "404": 404}


class Archive:
    """The server; use as a context manager.

    Attributes
    ----------
    table
        What the catalogue holds.
    moods
        What the next questions get; the last one stays. ``'answer'`` is the truth.
    where
        The step of an asynchronous TAP query at which a mood shows: ``launch``, ``phase`` or ``result``.
    questions
        What was asked (not the polling).
    requests
        Every request line.
    bytes
        The answer of the mood of that name.
    spans
        Beginning and end of every POST, monotonic seconds.
    """

    def __init__(self, table: Table) -> None:
        self.table, self.moods, self.where = table, ["answer"], "result"
        self.questions: list[str] = []
        self.requests: list[str] = []
        self.bytes = b""
        self.spans: list[tuple[float, float]] = []
        self.jobs: dict[str, tuple[str, str, int]] = {}
        self.page_limit: int | None = None
        self.columns_limit: int | None = None
        self.radius_limit: float | None = None
        self.released = threading.Event()

    def __enter__(self) -> Archive:
        archive = self

        class Handler(_Handler):
            pass

        Handler.archive = archive
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        self.base = f"http://127.0.0.1:{self.server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def tap(self) -> str:
        return f"{self.base}/tap-server/tap"

    @property
    def mast(self) -> str:
        return f"{self.base}/api/v0.1/panstarrs"

    @property
    def vizier(self) -> str:
        return f"{self.base}/viz-bin/votable"

    def mood(self) -> str:
        return self.moods.pop(0) if len(self.moods) > 1 else self.moods[0]

    def rows(self, cone: Cone, ra: str, dec: str) -> Table:
        radius = min(cone.radius, self.radius_limit or 180.0)
        cone = cone.model_copy(update={"radius": radius})
        return self.table[contains(cone, self.table[ra], self.table[dec])]


def as_votable(rows: Table, status: str | None, form: str, after: str | None = None) -> bytes:
    document = votable.from_table(rows)
    resource = document.resources[0]
    if status:
        resource.infos.append(Info(name="QUERY_STATUS", value=status))
    out = io.BytesIO()
    document.to_xml(out, tabledata_format=form)
    content = out.getvalue()
    if after:
        content = content.replace(b"</RESOURCE>", f'<INFO name="QUERY_STATUS" value="{after}"/></RESOURCE>'.encode())
    return content


class _Handler(BaseHTTPRequestHandler):
    archive: Archive
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        # That the client gives up is what some tests want.
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle()

    def _body(self) -> str:
        return self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()

    def _send(self, body: bytes, status: int = 200, kind: str = "application/xml", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _misbehave(self, mood: str, good: bytes, kind: str) -> bool:
        """Answer badly; False if this mood is about contents or no mood at all."""
        if mood in STATUSES:
            headers = {"429": {"Retry_After": "7"}, "429 long": {"Retry_After": "86400"}}.get(mood, {})
            self._send(f"<html><b>error {mood}</b></html>".encode(), STATUSES[mood], "text/html", **headers)
        elif mood == "stall":
            self.archive.released.wait(200)
            self._hang_up()
        elif mood == "drop":
            self._hang_up()
        elif mood == "lost in the middle":
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(good)))
            self.end_headers()
            self.wfile.write(good[: len(good) // 2])
            self.wfile.flush()
            self._hang_up()
        elif mood == "chunks lost":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n" % len(good) + good[: len(good) // 2])
            self.wfile.flush()
            self._hang_up()
        elif mood == "drip":
            self.send_response(200)
            self.send_header("Content-Length", str(len(good)))
            self.end_headers()
            for i in range(len(good)):
                self.wfile.write(good[i : i + 1])
                self.wfile.flush()
                if self.archive.released.wait(0.1):
                    return
        elif mood == "html":
            self._send(HTML, kind="text/html")
        elif mood == "cut":
            self._send(good[: len(good) * 2 // 3], kind=kind)
        elif mood == "bytes":
            self._send(self.archive.bytes, kind=kind)
        elif mood == "nothing":
            self._send(b"", kind=kind)
        elif mood == "huge":
            self._send(good[:20] + b" " * 4_000_000 + good[20:], kind=kind)
        elif mood == "bad gzip":
            self._send(gzip.compress(good)[:-200] + b"\0" * 100, kind=kind)
        elif mood == "gzip bomb":
            self._send(gzip.compress(b" " * 50_000_000, 1), kind=kind)
        else:
            return False
        return True

    def do_POST(self) -> None:
        began = time.monotonic()
        try:
            self._post()
        finally:
            self.archive.spans.append((began, time.monotonic()))

    def _post(self) -> None:
        archive, body, path = self.archive, self._body(), urlsplit(self.path).path
        archive.requests.append(f"POST {self.path}")
        if path.endswith("/async"):
            query = parse_qs(body)["QUERY"][0]
            archive.questions.append(query)
            mood = archive.mood()
            number = str(len(archive.jobs) + 1)
            archive.jobs[number] = (mood, query, 0)
            if archive.where == "launch" and self._misbehave(mood, b"x" * 100, "text/plain"):
                return
            assert parse_qs(body)["PHASE"] == ["RUN"]
            self._send(b"", 303, Location=f"{archive.tap}/async/{number}")
        elif path.endswith("/phase"):
            self._send(b"")
        elif path.endswith("/sync"):
            query = parse_qs(body)["QUERY"][0]
            archive.questions.append(query)
            self._result(archive.mood(), query)
        elif path.endswith("/panstarrs/dr2/mean.json"):
            archive.questions.append(body)
            self._mast(archive.mood(), json.loads(body))
        elif path.endswith("/viz-bin/votable"):
            archive.questions.append(body)
            self._vizier(archive.mood(), dict(line.split("=", 1) for line in body.splitlines() if "=" in line))
        else:
            self._send(b"no such thing", 404)

    def do_GET(self) -> None:
        archive, parts = self.archive, urlsplit(self.path).path.split("/")
        archive.requests.append(f"GET {self.path}")
        number = parts[parts.index("async") + 1]
        mood, query, polls = archive.jobs[number]
        if parts[-1] == "phase":
            archive.jobs[number] = (mood, query, polls + 1)
            if archive.where == "phase" and self._misbehave(mood, b"COMPLETED" * 20, "text/plain"):
                return
            phase = ("QUEUED", "EXECUTING", "COMPLETED")[min(polls, 2)]
            if mood == "job error":
                phase = "ERROR"
            elif mood == "job for ever":
                phase = "EXECUTING"
            self._send(phase.encode(), kind="text/plain")
        elif parts[-1] == "error":
            self._send(ERROR_INFO)
        elif parts[-2:] == ["results", "result"]:
            # ARI's service sends the client to the file.
            self._send(b"", 303, Location=f"{archive.tap}/async/{number}/results/file")
        elif parts[-2:] == ["results", "file"]:
            self._result(mood if archive.where == "result" else "answer", query)
        else:
            self._send(b"", 404)

    def _result(self, mood: str, query: str) -> None:
        """A TAP result as ESA sends it: gzipped, BINARY2."""
        circle = re.search(r"CIRCLE\('ICRS', ([\d.]+), (-?[\d.]+), ([\d.]+)\)", query)
        top = re.search(r"SELECT TOP (\d+) (.*) FROM gaiadr3.gaia_source", query)
        faint = re.search(r"phot_g_mean_mag <= ([\d.]+) ORDER BY (?:source_id|1)$", query)
        assert circle
        assert top
        assert faint
        ra, dec, radius = map(float, circle.groups())
        rows = self.archive.rows(Cone(ra=ra, dec=dec, radius=radius), "ra", "dec")
        rows = rows[rows["phot_g_mean_mag"] <= float(faint[1])]
        rows.sort("source_id")
        rows = rows[re.sub(r"\b[gs]\.", "", top[2]).split(", ")][: int(top[1])]
        self._votable(mood, rows, "OK", "binary2", packed=True)

    def _votable(self, mood: str, rows: Table, status: str | None, form: str, packed: bool = False) -> None:
        after = None
        if mood == "empty":
            rows = rows[:0]
        elif mood == "overflow":
            rows, after = rows[: len(rows) // 2], "OVERFLOW"
        elif mood == "error after rows":
            after = "ERROR"
        elif mood == "elsewhere":
            rows = rows.copy()
            dec = next(name for name in rows.colnames if name.lower().startswith("de"))
            rows[dec] = -rows[dec]
        elif mood == "lacks a column":
            rows.remove_column(rows.colnames[-1])
        elif mood == "no status":
            status = None
        good = as_votable(rows, status, form, after)
        kinds = {"bomb": BOMB, "external": EXTERNAL, "error info": ERROR_INFO, "no database": NO_DATABASE}
        if mood in kinds:
            self._send(kinds[mood])
        elif not self._misbehave(mood, good, "application/x-votable+xml"):
            self._send(gzip.compress(good) if packed else good)

    def _mast(self, mood: str, asked: dict) -> None:
        assert asked["nDetections.gt"] == 1
        assert asked["sort_by"] == ["objID"]
        assert self.headers["Content-Type"] == "application/json"
        rows = self.archive.rows(Cone(ra=asked["ra"], dec=asked["dec"], radius=asked["radius"]), "raMean", "decMean")
        rows = rows[rows["nDetections"] > 1]
        rows.sort("objID")
        size = min(asked["pagesize"], self.archive.page_limit or 10**9)
        first = (asked.get("page", 1) - 1) * size
        if mood == "same page":
            first = 0
        rows = rows[first : first + size] if mood != "empty" else rows[:0]
        if mood == "elsewhere":
            rows["decMean"] = -rows["decMean"]
        types = {"objID": "long", "raMean": "double", "decMean": "double", "nDetections": "short"}
        names = asked["columns"][:-1] if mood == "lacks a column" else asked["columns"]
        info = [
            {"name": name, "type": types.get(name, "float"), "db_type": "NUMBER", "description": ""} for name in names
        ]
        data = [
            [str(row[n]) if n == "objID" else None if np.isnan(row[n]) else row[n].item() for n in names]
            for row in rows
        ]
        if mood == "short row" and data:
            data[len(data) // 2].pop()
        answer: dict = {"info": info, "data": data}
        if mood == "no data":
            answer.pop("data")
        good = json.dumps(answer).encode()
        if not self._misbehave(mood, good, "application/json"):
            self._send(good, kind="application/json")

    def _vizier(self, mood: str, asked: dict) -> None:
        place = re.fullmatch(r"([\d.]+)([+-][\d.]+)", asked["-c"])
        assert place
        radius = float(asked["-c.rd"]) if "-c.rd" in asked else float(asked["-c.rm"]) / 60
        cone, most = Cone(ra=float(place[1]), dec=float(place[2]), radius=radius), int(asked["-out.max"])
        if asked["-source"] == "J/ApJ/867/105/refcat2":
            rows = self.archive.rows(cone, "RA_ICRS", "DE_ICRS")[:most]
        else:
            assert asked["-source"] == "II/389/ps1_dr2"
            rows = self.archive.rows(cone, "raMean", "decMean")
            rows = rows[rows["nDetections"] > 2][:most]
            for theirs, ours in _VIZIER_NAMES.items():
                rows.rename_column(ours, theirs)
        self._votable(mood, rows, None, "tabledata")
