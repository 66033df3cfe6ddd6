"""The local catalogue store: FITS tables with the archives' columns, each with a JSON file that describes it.

A cone exists when its JSON file does: the table is written first. So a half-written cone is never read, and a
table that does not match the digest in its JSON is not believed.
"""

from __future__ import annotations

import fcntl
import functools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from pydantic import ValidationError

from models.base import Roots
from models.catalog import Cone, StoredCone
from tasks.catalogs.columns import Catalogue, normalise, schema_of
from tasks.catalogs.cones import contains, covers
from tasks.core.errors import GoneError, StageError
from tasks.core.files import NO_LOCKS, is_current, ref, writing

__all__ = ["find_cone", "read_cone", "store_cone", "stored_cones"]

_log = logging.getLogger("ohp.catalogs")

_SIMULATED = "1970-01-01T00:00:00+00:00"


def _stem(catalogue: str, cone: Cone) -> str:
    return f"{catalogue}_{cone.ra:.4f}_{cone.dec:+.4f}_{cone.radius:.3f}"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer at a time: two that store the same cone must not mix one's table with the other's JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            _log.warning("%s has no locks (%s): do not import catalogues in two runs at once", folder, error.strerror)
        yield
    finally:
        os.close(descriptor)


@functools.lru_cache(maxsize=4096)
def _described(path: Path, *_: int) -> StoredCone:
    """What a JSON file says, kept while its inode, size and times stay: a release asks 40 000 times for 200 of them."""
    return StoredCone.model_validate_json(path.read_bytes())


def _load(path: Path, catalogue: str) -> StoredCone | None:
    """The description in a JSON file of the store; None, said in the log, where it cannot be believed."""
    try:
        seen = path.stat()
        stored = _described(path, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
    except FileNotFoundError:
        return None  # replaced by another process between listing and reading
    except (OSError, ValidationError) as error:
        first = str(error).splitlines()[0]
        _log.warning("%s is not used: it cannot be read as a stored cone (%s)", path, first)
        return None
    expected = f"catalogs/{catalogue}/{path.stem}.fits"
    if stored.catalogue != catalogue or stored.file.path != expected:
        _log.warning("%s is not used: it describes %s of %s", path, stored.file.path, stored.catalogue)
        return None
    return stored


def stored_cones(catalogue: Catalogue, roots: Roots) -> list[StoredCone]:
    """All cones of a catalogue in the store whose description can be read; their tables are not looked at."""
    schema_of(catalogue)
    paths = sorted((roots.catalogs / catalogue).glob(f"{catalogue}_*.json"))
    return [stored for path in paths if (stored := _load(path, catalogue)) is not None]


def find_cone(catalogue: Catalogue, cone: Cone, roots: Roots, limit: float | None = None) -> StoredCone | None:
    """The stored cone that covers `cone`: the smallest one, of equals the newest.

    Parameters
    ----------
    limit
        Magnitude that the stored cone has to reach (only one that was asked for with a brighter limit fails).

    Returns
    -------
    StoredCone or None
        None if no stored cone covers it. One whose table is gone or does not match its digest is not
        used, which the log says.
    """
    fitting = [
        stored
        for stored in stored_cones(catalogue, roots)
        if covers(stored.cone, cone) and (limit is None or stored.limit is None or stored.limit >= limit)
    ]
    fitting.sort(key=lambda stored: stored.fetched, reverse=True)
    fitting.sort(key=lambda stored: stored.cone.radius)
    for stored in fitting:
        if is_current(stored.file, roots):
            return stored
        _log.warning(
            "%s is not used: it is gone or is not the table its JSON file describes; import or fetch it again",
            roots.of(stored.file),
        )
    return None


def store_cone(
    catalogue: Catalogue,
    cone: Cone,
    table: Table,
    roots: Roots,
    service: str,
    release: str,
    query: str = "",
    limit: float | None = None,
) -> StoredCone:
    """Put a catalogue's rows for a cone into the store.

    Only ever called with a complete answer: an empty table says that the sky is empty there.

    Parameters
    ----------
    table
        The archive's column names; rows outside the cone are left out, columns other than those of the
        schema too.
    service
        Where the rows come from: a service's address, ``'import'`` or ``'simulation'``.
    limit
        Faintest magnitude asked for; None if there was no such limit.

    Returns
    -------
    StoredCone
        With ``'simulation'`` its time is 1970, so that the same seed gives the same bytes. If the store
        already has exactly these rows from there, that entry is kept with its time.

    Raises
    ------
    StageError
        If a required column is missing or does not hold numbers.
    """
    schema = schema_of(catalogue)
    rows = normalise(catalogue, table)
    rows = rows[contains(cone, rows[schema.ra], rows[schema.dec])]
    folder = roots.catalogs / catalogue
    stem = _stem(catalogue, cone)
    description, target = folder / f"{stem}.json", folder / f"{stem}.fits"
    with _locked(folder):
        before = _load(description, catalogue) if description.exists() else None
        with writing(target) as temporary:
            _table_hdus(catalogue, rows).writeto(temporary)
            # From here on, until the new description is there, there is no such cone.
            description.unlink(missing_ok=True)
        stored = StoredCone(
            catalogue=catalogue,
            cone=cone,
            file=ref(target, roots),
            n_rows=len(rows),
            service=service,
            release=release,
            fetched=_SIMULATED if service == "simulation" else datetime.now(UTC).isoformat(timespec="seconds"),
            query=query,
            limit=limit,
        )
        if before is not None and before.model_copy(update={"fetched": stored.fetched}) == stored:
            stored = before
        with writing(description) as temporary:
            temporary.write_text(stored.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return stored


def _table_hdus(catalogue: str, rows: Table) -> fits.HDUList:
    schema = schema_of(catalogue)
    columns = [
        fits.Column(
            name=name, format="K" if name in schema.integers else "D", unit=unit or None, array=np.asarray(rows[name])
        )
        for name, unit in schema.columns.items()
    ]
    table = fits.BinTableHDU.from_columns(columns, nrows=len(rows), name=catalogue.upper())
    return fits.HDUList([fits.PrimaryHDU(), table])


def read_cone(stored: StoredCone, roots: Roots, within: Cone | None = None) -> Table:
    """The rows of a stored cone, sorted by identifier.

    Parameters
    ----------
    within
        Only the rows in this circle.

    Returns
    -------
    Table
        The archive's columns (see `models.catalog.StoredCone`): int64 and float64, native byte order, not
        masked; a missing value is NaN. ``meta['EPOCH']`` of Gaia is the Julian year of the positions.

    Raises
    ------
    StageError
        If the table is gone, is not the one that was stored, or `within` sticks out of it.
    """
    schema = schema_of(stored.catalogue)
    path = roots.of(stored.file)
    remedy = "remove it and its JSON file, then fetch or import the cone again"
    if within is not None and not covers(stored.cone, within):
        raise StageError(
            "catalogues", f"{path.name} does not cover {within.radius:.3f} deg about {within.ra:.4f} {within.dec:+.4f}",
            "fetch or import a larger cone",
        )  # fmt: skip
    if not is_current(stored.file, roots):
        raise GoneError("catalogues", f"{path} is gone or is not the table that was stored", remedy)
    try:
        with fits.open(path, memmap=False) as hdus:
            data = hdus[1].data
            out = Table(
                {
                    name: np.asarray(data[name]).astype("i8" if name in schema.integers else "f8")
                    for name in schema.columns
                }
            )
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise StageError(
            "catalogues", f"{path} cannot be read as a {stored.catalogue} table: {error}", remedy
        ) from error
    if within is not None:
        out = out[contains(within, out[schema.ra], out[schema.dec])]
    for name, unit in schema.columns.items():
        if unit:
            out[name].unit = unit
    if stored.catalogue in ("gaia", "gspc"):
        out.meta["EPOCH"] = 2016.0
    return out
