"""Cones of Gaia, PS1 and its stand-ins: the local store, the services behind it, positions at a frame's epoch."""

from tasks.catalogs.cones import contains, covers, plan_cones, separation
from tasks.catalogs.epoch import GAIA_EPOCH, at_epoch
from tasks.catalogs.failures import DownError, MalformedError, TruncatedError
from tasks.catalogs.fetch import fetch_cone, stored_cone
from tasks.catalogs.importing import farthest_row, import_catalog, read_catalog_file
from tasks.catalogs.names import known_names, resolve_names
from tasks.catalogs.references import (
    PS1_SOUTH_DEG,
    photometric_reference,
    reference_note,
    reference_table,
    sky_of,
)
from tasks.catalogs.store import find_cone, read_cone, store_cone, stored_cones

__all__ = [
    "DownError",
    "GAIA_EPOCH",
    "MalformedError",
    "PS1_SOUTH_DEG",
    "TruncatedError",
    "at_epoch",
    "contains",
    "covers",
    "farthest_row",
    "fetch_cone",
    "find_cone",
    "import_catalog",
    "known_names",
    "photometric_reference",
    "plan_cones",
    "read_catalog_file",
    "read_cone",
    "reference_note",
    "reference_table",
    "resolve_names",
    "separation",
    "sky_of",
    "store_cone",
    "stored_cone",
    "stored_cones",
]
