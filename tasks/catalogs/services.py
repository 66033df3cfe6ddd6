"""One request for a cone to one service, through astroquery.

Three protocols, told apart by the address: TAP (Gaia and its synthetic photometry: ESA and its mirrors), the JSON
interface of MAST's catalogues (PS1) and VizieR (PS1, table II/389; ATLAS-REFCAT2, table J/ApJ/867/105). Each `Service`
returns the archive's own columns or raises one of `tasks.catalogs.failures.AnswerError`. astroquery is imported only
when a service is asked: it is slow to import, and offline nothing of it is needed.
"""

from __future__ import annotations

import json
import logging
import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from astropy.table import Table, vstack
from numpy.typing import NDArray

from models.catalog import Cone
from models.settings import CatalogSettings
from tasks.catalogs.columns import GAIA, GSPC, PS1, REFCAT2, Catalogue, Schema, plain_values, schema_of
from tasks.catalogs.cones import contains, separation, to_degrees, unit_vectors
from tasks.catalogs.failures import (
    AnswerError,
    BusyError,
    MalformedAnswerError,
    RefusedError,
    TooManyRowsError,
    TruncatedAnswerError,
)
from tasks.catalogs.politeness import Turns, rest
from tasks.catalogs.transport import TapTransport, guarded_session, plain_text
from tasks.catalogs.votable import parse_votable
from tasks.core.errors import StageError
from tasks.core.tools import StoppedError

__all__ = ["Answer", "MastService", "Service", "TapService", "VizierService", "adql", "service_for", "tiles"]

_log = logging.getLogger("ohp.catalogs")


@dataclass(frozen=True)
class Answer:
    """What a service answered: the rows, what was asked, and from which release they are."""

    table: Table
    query: str
    release: str


class Service(ABC):
    """A catalogue service.

    Parameters
    ----------
    catalogue
        What it is asked for.
    url
        Its address, as in the settings.
    settings
        Limits of time and rows.
    scratch
        Where astroquery may put files.
    """

    def __init__(self, catalogue: Catalogue, url: str, settings: CatalogSettings, scratch: Path) -> None:
        self.catalogue, self.url, self.settings, self.scratch = catalogue, url.rstrip("/"), settings, scratch
        # The widest answer, 50 columns of PS1 as text, is below 1.5 kB a row.
        self.max_bytes = (1 << 20) + 1500 * settings.max_rows
        self.turns = Turns(scratch / "hosts", settings.interval_s)
        self.session = guarded_session(settings.timeout_s, self.max_bytes, self.turns.request)

    @property
    def name(self) -> str:
        """Its host, for messages."""
        return urlsplit(self.url).netloc or self.url

    def ask(self, cone: Cone) -> Answer:
        """Ask once.

        Raises
        ------
        AnswerError
            One of its kinds.
        """
        try:
            return self._ask(cone)
        except (AnswerError, StoppedError):
            raise
        except Exception as error:  # astroquery's clients raise nearly anything for an unexpected answer
            _log.warning("unexpected answer of %s", self.name, exc_info=True)
            first = (str(error).strip().splitlines() or [""])[0][:200]
            raise MalformedAnswerError(f"unexpected answer ({type(error).__name__}: {first})") from error
        finally:
            self.session.close()

    @abstractmethod
    def _ask(self, cone: Cone) -> Answer: ...


def _need(table: Table, columns: tuple[str, ...] | list[str]) -> None:
    missing = [name for name in columns if name not in table.colnames]
    if missing:
        raise MalformedAnswerError(f"the answer lacks {', '.join(missing)}")


def _check_place(cone: Cone, table: Table, ra: str, dec: str) -> None:
    """Refuse rows that are not those of the cone.

    Raises
    ------
    MalformedAnswerError
        If there are rows, but none of them in the cone.
    TruncatedAnswerError
        If a hundred or more rows stay far from its edge: services have limits of radius that they apply in
        silence. Of a hundred stars spread evenly, none beyond 0.8 radius has a chance of 1e-19.
    """
    if not len(table):
        return
    places = plain_values(table[ra]), plain_values(table[dec])
    inside = contains(cone, *places)
    if not inside.any():
        raise MalformedAnswerError(f"none of the {len(table)} rows lies in the cone asked for")
    reach = float(np.max(separation(cone.ra, cone.dec, *places)[inside]))
    if inside.sum() >= 100 and reach < 0.8 * cone.radius:
        raise TruncatedAnswerError(f"the rows reach only {reach:.3f} of {cone.radius:.3f} deg")


def adql(catalogue: Catalogue, cone: Cone, gaia_limit: float, max_rows: int) -> str:
    """The question to a TAP service for Gaia DR3; one row more than wanted shows that there are too many.

    For GSPC all sources of Gaia are asked for, those without synthetic photometry too: they are neighbours.
    """
    circle = f"CIRCLE('ICRS', {cone.ra:.6f}, {cone.dec:.6f}, {cone.radius:.6f})"
    # Numbers and our own column names only: nothing a stranger wrote gets into it.
    if catalogue == "gaia":
        return (
            f"SELECT TOP {max_rows + 1} {', '.join(GAIA.columns)} FROM gaiadr3.gaia_source "  # noqa: S608  # nosec B608
            f"WHERE 1 = CONTAINS(POINT('ICRS', ra, dec), {circle}) "
            f"AND phot_g_mean_mag <= {gaia_limit:g} ORDER BY source_id"
        )
    columns = ", ".join(f"{'s' if name == 'c_star' or '_sdss_' in name else 'g'}.{name}" for name in GSPC.columns)
    # By number: a column's name alone is ambiguous here, one with its table not allowed by ADQL 2.0.
    return (
        f"SELECT TOP {max_rows + 1} {columns} FROM gaiadr3.gaia_source AS g "  # noqa: S608  # nosec B608
        "LEFT OUTER JOIN gaiadr3.synthetic_photometry_gspc AS s ON g.source_id = s.source_id "
        f"WHERE 1 = CONTAINS(POINT('ICRS', g.ra, g.dec), {circle}) "
        f"AND g.phot_g_mean_mag <= {gaia_limit:g} ORDER BY 1"
    )


class TapService(Service):
    """Gaia DR3 or GSPC by TAP, asynchronously; an address that ends in ``/sync`` is asked synchronously."""

    _POLL_S = (0.5, 10.0)

    def _ask(self, cone: Cone) -> Answer:
        limit, schema = self.settings.max_rows, schema_of(self.catalogue)
        query = adql(self.catalogue, cone, self.settings.gaia_limit, limit)
        table = parse_votable(self._run(query), self.max_bytes)
        table.rename_columns(table.colnames, [name.lower() for name in table.colnames])
        _need(table, list(schema.columns))
        if len(table) > limit:
            raise TooManyRowsError(f"more than {limit} rows")
        _check_place(cone, table, "ra", "dec")
        return Answer(table, query, schema.release)

    def _run(self, query: str) -> bytes:
        import requests
        from astroquery.utils.tap.conn.tapconn import TapConn
        from astroquery.utils.tap.core import Tap

        base, sync = (self.url[: -len("/sync")], True) if self.url.endswith("/sync") else (self.url, False)
        parts = urlsplit(base)
        connection = TapConn(
            ishttps=parts.scheme == "https",
            host=parts.hostname,
            server_context=parts.path,
            connhandler=TapTransport(base, self.session),
        )
        tap = Tap(url=base, connhandler=connection)
        # MAXREC above TOP, so that a full answer is told by its rows and an OVERFLOW is the service's own limit.
        maxrec = self.settings.max_rows + 2
        if sync:
            self.scratch.mkdir(parents=True, exist_ok=True)
            file = self.scratch / f"answer-{time.monotonic_ns()}.vot.gz"
            try:
                tap.launch_job(query, maxrec=maxrec, dump_to_file=True, output_file=str(file))
                return file.read_bytes()
            finally:
                file.unlink(missing_ok=True)
        try:
            job = tap.launch_job_async(query, maxrec=maxrec, background=True)
        except requests.exceptions.HTTPError as error:  # astroquery's word for anything but "303 See Other"
            raise MalformedAnswerError(f"the service did not start a job (it said {error})") from error
        self._wait(connection, job)
        return bytes(connection.execute_tapget(f"async/{job.jobid}/results/result").read())

    def _wait(self, connection: Any, job: Any) -> None:
        """Ask for the job's phase until it is done, ever more seldom."""
        deadline = time.monotonic() + self.settings.job_timeout_s
        pause, longest = self._POLL_S
        while True:
            phase = str(job.get_phase(update=True)).strip().upper()
            if phase == "COMPLETED":
                return
            if phase in ("ERROR", "ABORTED"):
                text = _error_text(connection, job.jobid)
                raise RefusedError(f"the service ended the job ({phase}): {text}")
            if phase not in ("PENDING", "QUEUED", "EXECUTING", "SUSPENDED", "HELD", "UNKNOWN"):
                raise MalformedAnswerError(f"the job is in no known phase: {phase[:80]!r}")
            if time.monotonic() + pause > deadline:
                raise BusyError(f"the job was still {phase} after {self.settings.job_timeout_s:g} s")
            rest(pause)
            pause = min(pause * 1.5, longest)


def _error_text(connection: Any, jobid: str) -> str:
    """What the service says about a failed job; that it cannot say is part of the message."""
    try:
        return plain_text(connection.execute_tapget(f"async/{jobid}/error").read()) or "without a word"
    except AnswerError as error:
        return f"no reason to be had ({error})"


_MAST_MAX_RADIUS = 0.5
"""Largest radius of a cone that MAST's catalogue interface takes, deg."""

_MAST_PAGE = 50_000

_FEW_CIRCLES = {3: 2.0 / math.sqrt(3.0), 4: math.sqrt(2.0)}
"""Radius of the largest circle that so many unit circles cover."""


def tiles(cone: Cone, radius: float) -> list[Cone]:
    """Cones of at most `radius` (deg) that together cover `cone`: three or four if they do, else in hexagonal packing.

    Laid out in the plane tangent at the centre, where every distance is at least that on the sky.
    """
    if cone.radius <= radius:
        return [cone]
    if cone.radius > 20.0:
        raise StageError("catalogues", f"a cone of {cone.radius:.1f} deg is too large to ask for", "import a file")
    reach = math.degrees(math.tan(math.radians(cone.radius)))
    x: NDArray[np.floating[Any]]
    y: NDArray[np.floating[Any]]
    few = next((n for n, share in _FEW_CIRCLES.items() if reach <= share * 0.999 * radius), 0)
    if few:
        angle = np.arange(few) * 2.0 * math.pi / few
        away = reach / 2.0 if few == 3 else reach / math.sqrt(2.0)
        x, y = away * np.cos(angle), away * np.sin(angle)
    else:
        step = math.sqrt(3.0) * radius * 0.999
        n = int((reach + radius) / step) + 2
        columns, rows = np.meshgrid(np.arange(-n, n + 1), np.arange(-n, n + 1))
        x = (columns + 0.5 * (rows % 2)) * step
        y = rows * step * math.sqrt(3.0) / 2.0
        needed = np.hypot(x, y) < reach + radius
        x, y = x[needed], y[needed]
    a, d = math.radians(cone.ra), math.radians(cone.dec)
    east = np.array([-math.sin(a), math.cos(a), 0.0])
    north = np.array([-math.sin(d) * math.cos(a), -math.sin(d) * math.sin(a), math.cos(d)])
    vectors = unit_vectors(cone.ra, cone.dec) + np.radians(x)[:, None] * east + np.radians(y)[:, None] * north
    ra, dec = to_degrees(vectors)
    return [Cone(ra=float(one), dec=float(two), radius=radius) for one, two in zip(ra, dec, strict=True)]


class MastService(Service):
    """PS1 DR2 mean objects from MAST's catalogue interface, in tiles of 0.5° and pages."""

    def _ask(self, cone: Cone) -> Answer:
        parts: list[Table] = []
        total = 0
        for tile in tiles(cone, _MAST_MAX_RADIUS):
            found = self._tile(tile, self.settings.max_rows)
            _check_place(tile, found, PS1.ra, PS1.dec)
            total += int(contains(cone, found[PS1.ra], found[PS1.dec]).sum())
            if total > 2 * self.settings.max_rows:  # tiles overlap, but not that much
                raise TooManyRowsError(f"more than {self.settings.max_rows} rows")
            parts.append(found)
        table = vstack(parts, metadata_conflicts="silent")
        table = table[contains(cone, table[PS1.ra], table[PS1.dec])]
        if len(np.unique(table[PS1.identifier])) > self.settings.max_rows:
            raise TooManyRowsError(f"more than {self.settings.max_rows} rows")
        query = f"panstarrs/dr2/mean ra={cone.ra} dec={cone.dec} radius={cone.radius} nDetections.gt=1"
        return Answer(table, query, PS1.release)

    def _tile(self, tile: Cone, limit: int) -> Table:
        pages: list[Table] = []
        seen = 0
        size = min(_MAST_PAGE, limit + 1)
        while True:
            page = self._page(tile, len(pages) + 1, size)
            known = np.concatenate([part[PS1.identifier] for part in pages]) if pages else np.array([], np.int64)
            if len(page) and np.isin(page[PS1.identifier], known).all():
                raise TruncatedAnswerError(f"page {len(pages) + 1} repeats the rows before it")
            pages.append(page)
            seen += len(page)
            if seen > limit:
                raise TooManyRowsError(f"more than {limit} rows")
            # A page as long as asked for is not the last. Nor is one of a round number, which is
            # what a limit of the service's own looks like.
            if not len(page) or (len(page) < size and len(page) % 1000):
                return vstack(pages, metadata_conflicts="silent")

    def _page(self, tile: Cone, number: int, size: int) -> Table:
        from astroquery.mast.services import ServiceAPI

        head, _, service = self.url.rpartition("/")
        api = ServiceAPI(session=self.session)
        api.set_service_params(
            {
                service: {
                    "path": service + "/{data_release}/{table}.json",
                    "args": {"data_release": "dr2", "table": "mean"},
                }
            }
        )
        api.REQUEST_URL, api.TIMEOUT = f"{head}/", math.inf
        response = api.service_request_async(
            service,
            {
                "ra": tile.ra,
                "dec": tile.dec,
                "radius": tile.radius,
                "nDetections": [("gt", 1)],
                "columns": list(PS1.columns),
                "sort_by": [PS1.identifier],
            },
            pagesize=size,
            page=number,
            use_json=True,
        )
        return parse_mast(response.content)


def parse_mast(content: bytes) -> Table:
    """The rows of a JSON answer of MAST.

    Raises
    ------
    MalformedAnswerError
        If it is no such answer: HTML, cut, without columns that were asked for, rows of the wrong length.
    """
    try:
        answer = json.loads(content)
        names = [str(column.get("column_name") or column["name"]) for column in answer["info"]]
        rows = answer["data"]
        if not isinstance(rows, list):
            raise TypeError("its data is no list")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        start = content[:60].decode("utf-8", "replace")
        raise MalformedAnswerError(f"not the JSON of a table ({type(error).__name__}; it starts {start!r})") from error
    missing = [name for name in PS1.columns if name not in names]
    if missing:
        raise MalformedAnswerError(f"the answer lacks {', '.join(missing)}")
    table = Table()
    try:
        if any(len(row) != len(names) for row in rows):
            raise ValueError("a row has too few or too many values")
        for name in PS1.columns:
            index = names.index(name)
            if name in PS1.integers:
                table[name] = np.array([int(row[index] or 0) for row in rows], dtype=np.int64)
            else:
                table[name] = np.array(
                    [math.nan if row[index] is None else float(row[index]) for row in rows], dtype=np.float64
                )
    except (ValueError, TypeError, OverflowError, KeyError) as error:
        raise MalformedAnswerError(f"the rows cannot be read: {error}") from error
    return table


_VIZIER_NAMES = {
    "RAJ2000": "raMean",
    "DEJ2000": "decMean",
    "Nd": "nDetections",
    "Qual": "qualityFlag",
    **{f"{band}mag": f"{band}MeanPSFMag" for band in "grizy"},
    **{f"e_{band}mag": f"{band}MeanPSFMagErr" for band in "grizy"},
    **{f"{band}Kmag": f"{band}MeanKronMag" for band in "grizy"},
}


@dataclass(frozen=True)
class _VizierTable:
    """A catalogue at VizieR: its name there, VizieR's column names -> ours, and what VizieR may lack."""

    name: str
    schema: Schema
    renamed: dict[str, str]
    defaults: dict[str, int]


_VIZIER_TABLES = {
    # The objects with more than two detections; an answer without their number says 3.
    "ps1": _VizierTable("II/389/ps1_dr2", PS1, _VIZIER_NAMES, {"nDetections": 3, "qualityFlag": 0}),
    "refcat2": _VizierTable("J/ApJ/867/105/refcat2", REFCAT2, {}, {}),
}


class VizierService(Service):
    """PS1 DR2 or ATLAS-REFCAT2 from VizieR, PS1 with the columns renamed to the archive's own.

    All columns are asked for: VizieR leaves out silently what goes beyond sixteen named ones (astroquery issue 1502).
    """

    def _ask(self, cone: Cone) -> Answer:
        from astropy import units
        from astropy.coordinates import SkyCoord
        from astroquery.vizier import VizierClass

        url, limit, asked = self.url, self.settings.max_rows, _VIZIER_TABLES[self.catalogue]

        class Vizier(VizierClass):  # type: ignore[misc]
            def _server_to_url(self, return_type: str = "votable") -> str:
                return url  # astroquery knows hosts only, always with https

        client = Vizier(columns=["**"], catalog=asked.name, row_limit=limit + 1, timeout=self.settings.timeout_s)
        client._session = self.session
        client.cache_location = self.scratch
        response = client.query_region_async(
            SkyCoord(cone.ra, cone.dec, unit="deg", frame="icrs"),
            radius=cone.radius * units.deg,
            catalog=asked.name,
            frame="icrs",
            cache=False,
        )
        found = parse_votable(response.content, self.max_bytes, need_status=False)
        if len(found) > limit:
            raise TooManyRowsError(f"more than {limit} rows")
        table = Table()
        for name in found.colnames:
            if (known := asked.renamed.get(name, name)) in asked.schema.columns:
                table[known] = found[name]
        _need(table, [name for name in asked.schema.columns if name not in asked.defaults])
        for name, value in asked.defaults.items():
            if name not in table.colnames:
                table[name] = value
        _check_place(cone, table, asked.schema.ra, asked.schema.dec)
        query = f"VizieR {asked.name} ra={cone.ra} dec={cone.dec} radius={cone.radius}"
        return Answer(table, query, f"{asked.schema.release} (VizieR {asked.name.rpartition('/')[0]})")


def service_for(catalogue: Catalogue, url: str, settings: CatalogSettings, scratch: Path) -> Service:
    """The client for a service's address.

    Raises
    ------
    StageError
        If the address is not one of a protocol that we know for this catalogue.
    """
    path = urlsplit(url).path.rstrip("/")
    kind: type[Service] | None = None
    if urlsplit(url).scheme in ("http", "https"):
        if catalogue in ("gaia", "gspc"):
            kind = TapService
        elif "viz-bin" in path:
            kind = VizierService
        elif catalogue == "ps1" and path.endswith("panstarrs"):
            kind = MastService
    if kind is None:
        raise StageError(
            "catalogues",
            f"{url} is no address of a {catalogue} service",
            "set OHP_GAIA_URLS to TAP services (…/tap), OHP_PS1_URLS to …/panstarrs or …/viz-bin/votable, "
            "OHP_REFCAT2_URLS to …/viz-bin/votable",
        )
    return kind(catalogue, url, settings, scratch)
