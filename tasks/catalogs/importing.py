"""A catalogue file from anywhere into the local store."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table
from astropy.units import UnitBase, UnitConversionError
from numpy.typing import NDArray

from models.base import Roots
from models.catalog import Cone, StoredCone
from tasks.catalogs.columns import Catalogue, normalise, plain_values, schema_of
from tasks.catalogs.cones import bounding_cone, contains, separation, unit_vectors
from tasks.catalogs.epoch import GAIA_EPOCH
from tasks.catalogs.failures import MalformedAnswerError
from tasks.catalogs.store import store_cone
from tasks.catalogs.votable import refuse_entities, unpack
from tasks.core.errors import StageError, UserError
from tasks.core.files import digest_file

__all__ = ["CatalogFile", "coverage", "farthest_row", "import_catalog", "read_catalog_file"]

_MIN_ROWS = 60
"""Fewer rows do not show where a file ends."""

_MAX_BYTES = 512 << 20
"""Largest file that is read, unpacked: a million rows of PS1 as text are 300 MB."""


@dataclass(frozen=True)
class CatalogFile:
    """A catalogue file that can be imported.

    Attributes
    ----------
    catalogue
        Whose columns it has.
    table
        The archive's columns, as `normalise` gives them.
    cone
        What of the sky the file is taken to cover.
    filled
        The archive's columns that the file lacks; they are "missing" in every row.
    dropped
        Rows left out: without position, twice, or outside `cone`.
    release, origin
        As stored.
    stated
        Whether the person gave the cone, so that it does not come from the rows.
    """

    catalogue: Catalogue
    table: Table
    cone: Cone
    filled: tuple[str, ...]
    dropped: int
    release: str
    origin: str
    stated: bool


def _sniff(path: Path) -> str | None:
    """Astropy's name for the format of a file, by its first bytes; None where they do not tell."""
    with open(path, "rb") as stream:
        start = stream.read(2048)
    if start[:2] == b"\x1f\x8b":
        with gzip.open(path) as unpacked:
            start = unpacked.read(2048)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not text:
        raise UserError(f"{path} is empty; give a catalogue file")
    if start.startswith(b"SIMPLE  ="):
        return "fits"
    if text.startswith((b"# %ECSV", b"#%ECSV")):
        return "ascii.ecsv"
    if text.lower().startswith((b"<!doctype html", b"<html")):
        raise UserError(f"{path} is a web page, not a table; download the catalogue again")
    if text.startswith((b"<?xml", b"<VOTABLE", b"<!DOCTYPE")):
        return "votable"
    if text.startswith(b"PAR1"):
        return "parquet"
    if path.name.lower().removesuffix(".gz").endswith(".csv"):
        return "ascii.csv"
    return None


_PACKED: dict[bytes, type[gzip.GzipFile] | type[bz2.BZ2File] | type[lzma.LZMAFile]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
"""What astropy's readers unpack."""


def _check_size(path: Path) -> None:
    """Refuse what would fill the memory: astropy's readers unpack and read without a limit."""
    size = path.stat().st_size
    with open(path, "rb") as stream:
        start = stream.read(6)
    opener = next((opener for sign, opener in _PACKED.items() if start.startswith(sign)), None)
    if opener is not None:
        size = 0
        with opener(path) as unpacked:
            while size <= _MAX_BYTES and (piece := unpacked.read(1 << 20)):
                size += len(piece)
    if size > _MAX_BYTES:
        raise UserError(f"{path} holds more than {_MAX_BYTES >> 20} MB; import it in parts, with --ra --dec --radius")


def _read(path: Path) -> Table:
    try:
        kind = _sniff(path)
        _check_size(path)
        if kind == "votable":
            refuse_entities(unpack(path.read_bytes(), _MAX_BYTES))
        with warnings.catch_warnings():
            # Other people's files have odd units and headers; what we use of them is checked below.
            warnings.simplefilter("ignore")
            options = {"unit_parse_strict": "silent"} if kind == "fits" else {}
            try:
                return Table.read(path, **({"format": kind} if kind else {}), **options)
            except Exception:
                if kind is not None:
                    raise
                return Table.read(path, format="ascii")
    except (UserError, MemoryError):
        raise
    except MalformedAnswerError as error:
        raise UserError(f"{path} cannot be read as a VOTable: {error}") from error
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}; check the name") from error
    except Exception as error:  # astropy's readers raise nearly anything for a file that is no table
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{path} cannot be read as a table: {first}") from error


def read_catalog_file(catalogue: Catalogue, file: Path, cone: Cone | None = None) -> CatalogFile:
    """Read a catalogue file in any format that astropy reads, and say what of it can be used.

    Columns are found by the archive's names, whatever their case; where the file has units, the numbers are
    converted to the archive's.

    Parameters
    ----------
    file
        CSV, ECSV, FITS, VOTable (also gzipped), parquet where pyarrow is installed, other tables with column names.
    cone
        What the file covers; by default `coverage` of its rows.

    Raises
    ------
    UserError
        If the file cannot be read, lacks required columns (named), has positions of another epoch, has no
        row in `cone`, or does not show what it covers.
    """
    schema = schema_of(catalogue)
    raw = _read(file)
    by_name: dict[str, str] = {}
    for name in raw.colnames:
        by_name.setdefault(name.strip().lower(), name)
    absent = [name for name in schema.required if name.lower() not in by_name]
    if absent:
        known = ", ".join(raw.colnames[:12]) + (", …" if len(raw.colnames) > 12 else "")
        raise UserError(f"{file} lacks the {catalogue} column(s) {', '.join(absent)}; it has {known}")
    if catalogue in ("gaia", "gspc") and "ref_epoch" in by_name and len(raw):
        epochs = plain_values(raw[by_name["ref_epoch"]])
        if np.any(np.abs(epochs - GAIA_EPOCH) > 1e-3):
            raise UserError(
                f"{file} has positions of epoch {float(np.nanmin(epochs)):.1f}; "
                f"only Gaia EDR3 and DR3 ({GAIA_EPOCH}) can be imported"
            )
    chosen = Table()
    for name, unit in schema.columns.items():
        if name.lower() not in by_name:
            continue
        column = raw[by_name[name.lower()]]
        chosen[name] = column
        if unit and isinstance(column.unit, UnitBase) and column.unit != unit:
            try:
                chosen[name] = plain_values(column) * column.unit.to(unit)
            except UnitConversionError as error:
                raise UserError(f"{file}: column {name} is in {column.unit}, which is no {unit}") from error
    try:
        table = normalise(catalogue, chosen)
    except StageError as error:
        raise UserError(f"{file}: {error.reason}") from error
    if not len(table):
        raise UserError(f"{file} has no row with a position; nothing was imported")
    stated = cone is not None
    if cone is None:
        cone = coverage(table[schema.ra], table[schema.dec])
    inside = contains(cone, table[schema.ra], table[schema.dec])
    if not inside.any():
        raise UserError(
            f"{file} has no row within {cone.radius} deg of {cone.ra} {cone.dec}; "
            "check --ra, --dec and --radius (degrees)"
        )
    return CatalogFile(
        catalogue=catalogue,
        table=table[inside],
        cone=cone,
        filled=tuple(name for name in schema.columns if name.lower() not in by_name),
        dropped=len(raw) - int(inside.sum()),
        release="Gaia EDR3/DR3" if catalogue == "gaia" else schema.release,
        origin=f"file {file.name}, SHA-256 {digest_file(file)}",
        stated=stated,
    )


def coverage(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> Cone:
    """The largest circle that rows themselves show to be covered.

    About a centre the plane is cut into 36 sectors of 10° (12 of 30° below 720 rows); the sector that reaches least
    far bounds the circle, shortened by the cosine of a sector's width, by which a straight edge could deceive.
    Tried about the median position and about the centre of the smallest circle around all rows; the larger circle
    wins. This errs to the small side: for an evenly filled disc by a few per cent, for sparse rows by more. Holes
    inside the file's outline are not seen.

    Raises
    ------
    UserError
        If there are fewer than 60 rows, or none in some direction.
    """
    ask = "say what the file covers with --ra --dec --radius (degrees)"
    ra, dec = plain_values(ra), plain_values(dec)
    if len(ra) < _MIN_ROWS:
        raise UserError(f"{len(ra)} rows do not show what the file covers; {ask}")
    outer = bounding_cone(np.column_stack([ra, dec]), 1e-4)
    # The median along RA is taken relative to the outer circle's centre: 0h may lie in between.
    offsets = (ra - outer.ra + 180.0) % 360.0 - 180.0
    middle = (float((outer.ra + np.median(offsets)) % 360.0), float(np.median(dec)))
    sectors = 36 if len(ra) >= 720 else 12
    best: Cone | None = None
    for centre_ra, centre_dec in ((outer.ra, outer.dec), middle):
        centre_ra, centre_dec = round(centre_ra, 4) % 360.0, round(centre_dec, 4)
        distance = separation(centre_ra, centre_dec, ra, dec)
        a, d = math.radians(centre_ra), math.radians(centre_dec)
        vectors = unit_vectors(ra, dec)
        east = vectors @ np.array([-math.sin(a), math.cos(a), 0.0])
        north = vectors @ np.array([-math.sin(d) * math.cos(a), -math.sin(d) * math.sin(a), math.cos(d)])
        sector = ((np.arctan2(east, north) / (2.0 * np.pi) % 1.0) * sectors).astype(int) % sectors
        reach = np.zeros(sectors)
        np.maximum.at(reach, sector, distance)
        radius = math.floor(float(reach.min()) * math.cos(2.0 * math.pi / sectors) * 1000.0) / 1000.0
        if radius > 0.0 and (best is None or radius > best.radius):
            best = Cone(ra=centre_ra, dec=centre_dec, radius=radius)
    if best is None:
        raise UserError(f"the rows do not surround their middle, so that they do not show what the file covers; {ask}")
    return best


def farthest_row(found: CatalogFile) -> float:
    """How far the rows reach from the centre of the cone, deg."""
    schema = schema_of(found.catalogue)
    return float(np.max(separation(found.cone.ra, found.cone.dec, found.table[schema.ra], found.table[schema.dec])))


def import_catalog(catalogue: Catalogue, file: Path, roots: Roots, cone: Cone | None = None) -> StoredCone:
    """Put a catalogue file into the local store.

    Parameters
    ----------
    file, cone
        As for `read_catalog_file`.

    Returns
    -------
    StoredCone
        ``service`` is ``'import'``, ``query`` names the file and its digest.

    Raises
    ------
    UserError
        As `read_catalog_file` raises it.
    """
    found = read_catalog_file(catalogue, file, cone)
    return store_cone(catalogue, found.cone, found.table, roots, "import", found.release, found.origin)
