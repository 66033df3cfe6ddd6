"""A source list as files: FITS for the astronomer's tools, Parquet for data frames; both with units and UCDs."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree  # nosec B405 (written, never parsed)
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits

from models.sourcelist import APERTURES_FWHM, FLAG_WORDS, SourceBand
from tasks.core.files import writing
from tasks.core.fitsio import write_fits
from tasks.sourcelists.table import Column

__all__ = ["write_source_fits", "write_source_parquet"]

_FORMATS = {"f": {4: "E", 8: "D"}, "i": {4: "J", 8: "K"}}
_VOTYPES = {"f": {4: "float", 8: "double"}, "i": {4: "int", 8: "long"}}
_NAMESPACE = "http://www.ivoa.net/xml/VOTable/v1.3"


def _format(values: np.ndarray[Any, Any]) -> str:
    return (
        f"{values.dtype.itemsize // 4}A"
        if values.dtype.kind == "U"
        else _FORMATS[values.dtype.kind][values.dtype.itemsize]
    )


def write_source_fits(
    path: Path, columns: Sequence[Column], bands: Sequence[SourceBand], cards: Sequence[tuple[str, Any, str]],
    notes: Sequence[str],
) -> None:  # fmt: skip
    """Write a source list as FITS: extensions ``SOURCES`` and ``BANDS``.

    Units are in ``TUNITn``, UCDs in ``TUCDn``, descriptions in ``TCOMMn``, as TOPCAT and STILTS read them.

    Parameters
    ----------
    path
        The file.
    columns
        Of the table.
    bands
        A row each in ``BANDS``: what the measurements rest on.
    cards
        Of the primary header.
    notes
        HISTORY-like lines of the primary header (COMMENT).
    """
    primary = fits.PrimaryHDU()
    for key, value, comment in cards:
        primary.header[key] = (value, comment)
    for note in notes:
        primary.header.add_comment("".join(c if " " <= c <= "~" else "?" for c in note))
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column(name=column.name, format=_format(column.values), unit=column.unit or None,
                        null=0 if column.identifier else None, array=column.values)
            for column in columns
        ],
        name="SOURCES",
    )  # fmt: skip
    for number, column in enumerate(columns, start=1):
        table.header.set(f"TUCD{number}", column.ucd, after=f"TFORM{number}")
        table.header.set(f"TCOMM{number}", column.description, after=f"TUCD{number}")
    for flag, words in FLAG_WORDS.items():
        table.header.add_comment(f"FLAGS bit {int(flag)} {flag.name}: {words}")
    table.header["LONGSTRN"] = ("OGIP 1.0", "long strings go on in CONTINUE cards")
    table.header["EQUINOX"] = (2000.0, "of the ICRS")
    table.header["RADESYS"] = ("ICRS", "celestial reference system")
    write_fits(path, [primary, table, _bands(bands)])


def _bands(bands: Sequence[SourceBand]) -> fits.BinTableHDU:
    def numbers(name: str, unit: str, values: Sequence[float | None]) -> fits.Column:
        array = np.array([np.nan if value is None else value for value in values], np.float64)
        return fits.Column(name=name, format="D", unit=unit or None, array=array)

    columns = [
        fits.Column(name="FILTER", format="8A", array=np.array([band.filter for band in bands])),
        fits.Column(name="COLUMN", format="8A", array=np.array([band.column for band in bands])),
        numbers("ZERO_POINT", "mag", [band.zero_point for band in bands]),
        numbers("FWHM", "pix", [band.fwhm_px for band in bands]),
        fits.Column(name="N_STARS", format="J", array=np.array([band.n_stars for band in bands], np.int32)),
        fits.Column(name="N_MEASURED", format="J", array=np.array([band.n_measured for band in bands], np.int32)),
        numbers("COR_PSF", "mag", [band.psf_correction for band in bands]),
        numbers("NOISE_PSF", "", [band.psf_noise_factor for band in bands]),
        numbers("FLOOR_PSF", "mag", [band.psf_floor for band in bands]),
    ]
    for k, radius in enumerate(APERTURES_FWHM):
        columns += [
            numbers(f"RADIUS_AP{k + 1}", "pix", [radius * band.fwhm_px for band in bands]),
            numbers(f"COR_AP{k + 1}", "mag", [band.aperture_correction[k] for band in bands]),
            numbers(f"NOISE_AP{k + 1}", "", [band.noise_factor[k] for band in bands]),
            numbers(f"FLOOR_AP{k + 1}", "mag", [band.floor[k] for band in bands]),
        ]
    table = fits.BinTableHDU.from_columns(columns, name="BANDS")
    for text in (
        "COR: median correction to the aperture of 3 FWHM; NOISE: noise over that of independent pixels;",
        "FLOOR: part of the error that does not fall with flux (shape of the PSF, zero point).",
    ):
        table.header.add_comment(text)
    return table


def _votable(columns: Sequence[Column], name: str, description: str) -> str:
    """The table's metadata as a VOTable without rows."""
    root = ElementTree.Element("VOTABLE", {"version": "1.4", "xmlns": _NAMESPACE})
    resource = ElementTree.SubElement(root, "RESOURCE", {"type": "results"})
    table = ElementTree.SubElement(resource, "TABLE", {"name": name})
    ElementTree.SubElement(table, "DESCRIPTION").text = description
    for column in columns:
        text = column.values.dtype.kind == "U"
        kind = "char" if text else _VOTYPES[column.values.dtype.kind][column.values.dtype.itemsize]
        field = ElementTree.SubElement(table, "FIELD", {"name": column.name, "datatype": kind, "ucd": column.ucd})
        if text:
            field.set("arraysize", f"{column.values.dtype.itemsize // 4}")
        if column.unit:
            field.set("unit", column.unit)
        ElementTree.SubElement(field, "DESCRIPTION").text = column.description
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False)


def write_source_parquet(path: Path, columns: Sequence[Column], name: str, description: str) -> None:
    """Write a source list as Parquet; what is unknown is null.

    Units, UCDs and descriptions are metadata of the columns, and, after the IVOA note on VOTable in Parquet (1.0), a
    VOTable without rows in the file's metadata.
    """
    fields, arrays = [], []
    for column in columns:
        values = column.values
        unknown = ~np.isfinite(values) if values.dtype.kind == "f" else None
        if column.identifier:
            unknown = values == 0
        array = pa.array(values.tolist() if values.dtype.kind == "U" else values, mask=unknown)
        metadata = {"unit": column.unit, "ucd": column.ucd, "description": column.description}
        fields.append(pa.field(column.name, array.type, metadata=metadata))
        arrays.append(array)
    schema = pa.schema(
        fields,
        metadata={
            "IVOA.VOTable-Parquet.version": "1.0",
            "IVOA.VOTable-Parquet.content": _votable(columns, name, description),
        },
    )
    with writing(path) as temporary:
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), temporary, compression="zstd", use_dictionary=False)
