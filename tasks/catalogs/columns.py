"""The archives' columns that we keep, in one fixed order, and any table brought to them."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from models.catalog import Catalogue
from tasks.core.errors import StageError

__all__ = [
    "GAIA",
    "GSPC",
    "PS1",
    "REFCAT2",
    "SDSS_BANDS",
    "Catalogue",
    "Schema",
    "normalise",
    "plain_values",
    "schema_of",
]

STAGE = "catalogues"


class Schema:
    """What a stored table of one catalogue looks like.

    Parameters
    ----------
    identifier, ra, dec
        Names of the columns with the source's number and its position (deg, ICRS). None: the catalogue numbers
        nothing, its sources are told apart by their positions.
    columns
        Name -> unit, in the order of the stored table.
    integers
        Columns that are whole numbers (int64); the others are float64 with NaN for a missing value.
    required
        Columns without which a table is of no use.
    release
        The name of the archive's release.
    sentinel
        The archive's number for a missing value, if it has one.
    south
        Southern end of its sky, deg.
    """

    def __init__(
        self,
        identifier: str | None,
        ra: str,
        dec: str,
        columns: dict[str, str],
        integers: tuple[str, ...],
        required: tuple[str, ...],
        release: str,
        sentinel: float | None = None,
        south: float = -90.0,
    ) -> None:
        self.identifier, self.ra, self.dec = identifier, ra, dec
        self.columns, self.integers, self.required = columns, integers, required
        self.release, self.sentinel, self.south = release, sentinel, south


GAIA = Schema(
    identifier="source_id",
    ra="ra",
    dec="dec",
    columns={
        "source_id": "",
        "ra": "deg",
        "dec": "deg",
        "pmra": "mas / yr",
        "pmdec": "mas / yr",
        "parallax": "mas",
        "ra_error": "mas",
        "dec_error": "mas",
        "phot_g_mean_mag": "mag",
        "bp_rp": "mag",
    },
    integers=("source_id",),
    required=("source_id", "ra", "dec", "pmra", "pmdec", "phot_g_mean_mag"),
    release="Gaia DR3",
)

_PS1_BANDS = "grizy"
PS1 = Schema(
    identifier="objID",
    ra="raMean",
    dec="decMean",
    columns={
        "objID": "",
        "raMean": "deg",
        "decMean": "deg",
        "nDetections": "",
        "qualityFlag": "",
        **{f"{band}Mean{kind}": "mag" for band in _PS1_BANDS for kind in ("PSFMag", "PSFMagErr", "KronMag")},
    },
    integers=("objID", "nDetections", "qualityFlag"),
    required=("objID", "raMean", "decMean", "gMeanPSFMag", "rMeanPSFMag", "iMeanPSFMag"),
    release="PS1 DR2",
    sentinel=-999.0,
    south=-30.0,  # Chambers et al. 2016, arXiv:1612.05560
)

SDSS_BANDS = "griz"

# Tonry et al. 2018, ApJ 867, 105; names as in VizieR's J/ApJ/867/105, which has no number for a star.
REFCAT2 = Schema(
    identifier=None,
    ra="RA_ICRS",
    dec="DE_ICRS",
    columns={
        "RA_ICRS": "deg",
        "DE_ICRS": "deg",
        "pmRA": "mas / yr",
        "e_pmRA": "mas / yr",
        "pmDE": "mas / yr",
        "e_pmDE": "mas / yr",
        "Gmag": "mag",
        "e_Gmag": "mag",
        **{f"{kind}{band}mag": "mag" for band in SDSS_BANDS for kind in ("", "e_")},
    },
    integers=(),
    required=("RA_ICRS", "DE_ICRS", "e_pmRA", "gmag", "e_gmag", "rmag", "e_rmag", "imag", "e_imag"),
    release="ATLAS-REFCAT2",
)

# Gaia Collaboration, Montegriffo et al. 2023, A&A 674, A33; gaiadr3.synthetic_photometry_gspc with the positions and
# G of gaia_source. Its fluxes are per Hz (the archive's unit is wrong, known issue); only their relative error counts.
GSPC = Schema(
    identifier="source_id",
    ra="ra",
    dec="dec",
    columns={
        "source_id": "",
        "ra": "deg",
        "dec": "deg",
        "pmra": "mas / yr",
        "pmdec": "mas / yr",
        "phot_g_mean_mag": "mag",
        "c_star": "",
        **{
            f"{band}_sdss_{kind}": unit
            for band in SDSS_BANDS
            for kind, unit in (("mag", "mag"), ("flux", ""), ("flux_error", ""), ("flag", ""))
        },
    },
    integers=("source_id", *(f"{band}_sdss_flag" for band in SDSS_BANDS)),
    required=(
        "source_id", "ra", "dec", "phot_g_mean_mag", "c_star",
        *(f"{band}_sdss_{kind}" for band in "gri" for kind in ("mag", "flux", "flux_error", "flag")),
    ),
    release="Gaia DR3 GSPC",
)  # fmt: skip

_SCHEMAS = {"gaia": GAIA, "ps1": PS1, "refcat2": REFCAT2, "gspc": GSPC}


def schema_of(catalogue: str) -> Schema:
    """The schema of a catalogue by its name."""
    if catalogue not in _SCHEMAS:
        raise StageError(STAGE, f"there is no catalogue {catalogue!r}", f"use one of {', '.join(_SCHEMAS)}")
    return _SCHEMAS[catalogue]


def plain_values(column: object) -> NDArray[np.float64]:
    """A column as float64 without mask or unit; missing values are NaN."""
    values: Any = np.ma.asanyarray(getattr(column, "data", column))
    return np.asarray(np.ma.filled(values.astype(np.float64), np.nan), dtype=np.float64)


def _whole_numbers(column: object, name: str) -> NDArray[np.int64]:
    """A column as int64, 0 where missing; never by way of floats, which do not hold 19 digits."""
    values: Any = np.ma.asanyarray(getattr(column, "data", column))
    filled = np.ma.filled(values, 0) if values.dtype.kind in "iu" else values
    if values.dtype.kind == "f":
        plain = np.nan_to_num(plain_values(values), nan=0.0)
        if np.any(np.abs(plain) > 2.0**53):
            raise StageError(
                STAGE,
                f"column {name} holds identifiers as floating-point numbers: their last digits are lost",
                "give a table with the identifiers as whole numbers",
            )
        filled = plain
    elif values.dtype.kind in "USO":
        filled = np.array([int(str(item).strip() or 0) for item in np.ma.filled(values, "0")], dtype=np.int64)
    return np.asarray(filled).astype(np.int64)


def normalise(catalogue: str, table: Table) -> Table:
    """The archive's columns of a table, plain and native, each source once, sorted by identifier (or Dec and RA).

    Parameters
    ----------
    table
        Has at least `Schema.required`, by the archive's exact names; masked values, NaN and the
        archive's sentinel are all taken for missing. Rows without a position are left out.

    Returns
    -------
    Table
        int64 and float64 columns in the order of the schema; columns that `table` lacks are NaN (0 for
        whole numbers).

    Raises
    ------
    StageError
        If a required column is missing or cannot be read as numbers.
    """
    schema = schema_of(catalogue)
    absent = [name for name in schema.required if name not in table.colnames]
    if absent:
        raise StageError(
            STAGE, f"the {catalogue} table lacks {', '.join(absent)}", "give a table with the archive's own columns"
        )
    out = Table()
    for name in schema.columns:
        whole = name in schema.integers
        if name not in table.colnames:
            out[name] = np.zeros(len(table), np.int64) if whole else np.full(len(table), np.nan)
            continue
        try:
            values = _whole_numbers(table[name], name) if whole else plain_values(table[name])
        except (TypeError, ValueError, OverflowError) as error:
            raise StageError(
                STAGE, f"column {name} of the {catalogue} table does not hold numbers: {error}", "mend the table"
            ) from error
        if schema.sentinel is not None and not whole:
            # Positions and magnitudes never come near -999; MAST writes it for "not measured".
            values = np.where(values <= schema.sentinel + 0.5, np.nan, values)
        out[name] = values if whole else np.where(np.isinf(values), np.nan, values)
    out[schema.ra] = np.mod(out[schema.ra], 360.0)
    out = out[np.isfinite(out[schema.ra]) & (np.abs(out[schema.dec]) <= 90.0)]
    if schema.identifier is None:
        key = np.column_stack([out[schema.dec], out[schema.ra]])
        _, first = np.unique(key, axis=0, return_index=True)
    else:
        _, first = np.unique(np.asarray(out[schema.identifier]), return_index=True)
    return out[first]
