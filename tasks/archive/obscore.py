"""An ObsCore table of a release: what a TAP or SIA service needs to know of each product."""

from __future__ import annotations

import math
import posixpath
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits
from astropy.io.votable.tree import CooSys, Info, Resource, TableElement, VOTableFile
from astropy.io.votable.tree import Field as VOField
from astropy.wcs import WCS
from scipy.spatial import ConvexHull

from models.base import Roots
from models.provenance import Product
from models.telescope import Telescope
from tasks.archive.compressed import image_of
from tasks.core.files import writing
from tasks.core.fitsio import quiet_fits

__all__ = ["footprint", "write_obscore"]

_BANDS: dict[str, tuple[float, float]] = {
    "U": (332e-9, 398e-9), "B": (398e-9, 492e-9), "V": (507e-9, 595e-9), "R": (589e-9, 727e-9),
    "I": (731.5e-9, 880.5e-9),
    "g": (414e-9, 551e-9), "r": (550e-9, 689e-9), "i": (690e-9, 819e-9), "z": (818e-9, 922e-9), "y": (918e-9, 1001e-9),
    "Ha": (656.28e-9, 656.28e-9), "OIII": (500.7e-9, 500.7e-9), "SII": (671.6e-9, 673.1e-9),
}  # fmt: skip
"""Half-power limits (m): Johnson-Cousins after Bessell (2005, ARA&A 43, 293, table 1), g r i z y as PS1 has them (Tonry
et al. 2012, ApJ 750, 99, table 4). Of narrow bands the lines: what the filters' widths are nobody measured."""

_UTYPE = "obscore:"


class _Field(NamedTuple):
    name: str
    datatype: str
    unit: str
    ucd: str
    utype: str
    description: str


_FIELDS = (
    _Field("dataproduct_type", "char", "", "meta.code.class", "ObsDataset.dataProductType", "image, measurements"),
    _Field("calib_level", "int", "", "meta.code;obs.calib", "ObsDataset.calibLevel", "3: combined and calibrated"),
    _Field("obs_collection", "char", "", "meta.id", "DataID.Collection", "the release"),
    _Field("obs_id", "char", "", "meta.id", "DataID.observationID", "group, and filter; of a copy its image's"),
    _Field("obs_publisher_did", "char", "", "meta.ref.ivoid", "Curation.publisherDID", "identifier of the file"),
    _Field("access_url", "char", "", "meta.ref.url", "Access.reference", "relative to this table's folder"),
    _Field("access_format", "char", "", "meta.code.mime", "Access.format",
           "media type; application/fits of an image: tile-compressed, in the first extension"),
    _Field("access_estsize", "long", "kbyte", "phys.size;meta.file", "Access.size", "size of the file"),
    _Field("target_name", "char", "", "meta.id;src", "Target.name", "the group"),
    _Field("s_ra", "double", "deg", "pos.eq.ra",
           "Char.SpatialAxis.Coverage.Location.Coord.Position2D.Value2.C1", "middle of the field, ICRS"),
    _Field("s_dec", "double", "deg", "pos.eq.dec",
           "Char.SpatialAxis.Coverage.Location.Coord.Position2D.Value2.C2", "middle of the field, ICRS"),
    _Field("s_fov", "double", "deg", "phys.angSize;instr.fov",
           "Char.SpatialAxis.Coverage.Bounds.Extent.diameter", "diameter of the smallest circle around it"),
    _Field("s_region", "char", "", "pos.outline;obs.field", "Char.SpatialAxis.Coverage.Support.Area",
           "convex hull of the pixels with data, ICRS"),
    _Field("s_resolution", "double", "arcsec", "pos.angResolution",
           "Char.SpatialAxis.Resolution.Refval.value", "FWHM of the PSF"),
    _Field("s_xel1", "long", "", "meta.number", "Char.SpatialAxis.numBins1", "pixels, or null"),
    _Field("s_xel2", "long", "", "meta.number", "Char.SpatialAxis.numBins2", "pixels, or null"),
    _Field("s_pixel_scale", "double", "arcsec", "phys.angSize;instr.pixel",
           "Char.SpatialAxis.Sampling.RefVal.SamplingPeriod", "pixel scale"),
    _Field("t_min", "double", "d", "time.start;obs.exposure",
           "Char.TimeAxis.Coverage.Bounds.Limits.StartTime", "start of the first exposure, MJD, UTC"),
    _Field("t_max", "double", "d", "time.end;obs.exposure",
           "Char.TimeAxis.Coverage.Bounds.Limits.StopTime", "end of the last exposure, MJD, UTC"),
    _Field("t_exptime", "double", "s", "time.duration;obs.exposure",
           "Char.TimeAxis.Coverage.Support.Extent", "sum of the exposure times"),
    _Field("t_resolution", "double", "s", "time.resolution", "Char.TimeAxis.Resolution.Refval.value", "null"),
    _Field("t_xel", "long", "", "meta.number", "Char.TimeAxis.numBins", "null"),
    _Field("em_min", "double", "m", "em.wl;stat.min",
           "Char.SpectralAxis.Coverage.Bounds.Limits.LoLimit", "half-power; of narrow bands the line"),
    _Field("em_max", "double", "m", "em.wl;stat.max",
           "Char.SpectralAxis.Coverage.Bounds.Limits.HiLimit", "half-power; of narrow bands the line"),
    _Field("em_res_power", "double", "", "spect.resolution",
           "Char.SpectralAxis.Resolution.ResolPower.refVal", "null"),
    _Field("em_xel", "long", "", "meta.number", "Char.SpectralAxis.numBins", "null"),
    _Field("o_ucd", "char", "", "meta.ucd", "Char.ObservableAxis.ucd", "of the pixels"),
    _Field("pol_states", "char", "", "meta.code;phys.polarization", "Char.PolarizationAxis.stateList", "empty"),
    _Field("pol_xel", "long", "", "meta.number", "Char.PolarizationAxis.numBins", "null"),
    _Field("facility_name", "char", "", "meta.id;instr.tel", "Provenance.ObsConfig.Facility.name", "observatory"),
    _Field("instrument_name", "char", "", "meta.id;instr", "Provenance.ObsConfig.Instrument.name", "telescope"),
)  # fmt: skip
"""Mandatory columns of ObsCore 1.1 (IVOA Recommendation 2017-05-09, table 6), and `s_pixel_scale`."""


def footprint(header: fits.Header, weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Convex hull of the pixels with weight: corners (RA, Dec), deg, shape (N, 2), counter-clockwise on the image."""
    some = weight[::4, ::4] > 0
    rows, columns = np.nonzero(some)
    points = np.column_stack([columns * 4, rows * 4]).astype(float)
    hull = ConvexHull(points)
    # A hull of a thousand corners would say no more: keep those where it turns.
    corners = points[hull.vertices]
    before, after = np.roll(corners, 1, axis=0) - corners, np.roll(corners, -1, axis=0) - corners
    turn = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0])
    keep = turn > 0.002 * np.hypot(*before.T) * np.hypot(*after.T)
    if keep.sum() >= 3:
        corners = corners[keep]
    return np.column_stack(WCS(header).all_pix2world(corners[:, 0], corners[:, 1], 0))


def _number(header: fits.Header, key: str) -> float:
    value = header.get(key)
    return math.nan if value is None else float(value)


def _stack_row(product: Product, telescope: Telescope, roots: Roots) -> dict[str, Any] | None:
    path = roots.data / product.path
    weight = path.with_name(path.name.replace("_ext.fits", ".fits").replace(".fits", ".weight.fits"))
    if not weight.is_file():
        return None
    with quiet_fits():
        header, covered = fits.getheader(path), np.asarray(fits.getdata(weight))
    corners = footprint(header, covered)
    grid = WCS(header)
    ny, nx = int(header["NAXIS2"]), int(header["NAXIS1"])
    ra, dec = (float(each) for each in grid.all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0))
    scale = float(np.sqrt(abs(np.linalg.det(grid.pixel_scale_matrix))))
    low, high = _BANDS.get(str(header["FILTER"]), (math.nan, math.nan))
    extended = path.stem.endswith("_ext")
    return {
        "dataproduct_type": "image",
        "obs_id": path.stem,
        "access_format": "image/fits",
        "target_name": str(header["OBJECT"]),
        "s_ra": ra,
        "s_dec": dec,
        "s_fov": scale * math.hypot(nx, ny),
        "s_region": "POLYGON ICRS " + " ".join(f"{each:.6f}" for each in corners.ravel()),
        "s_resolution": _number(header, "FWHM_AS"),
        "s_xel1": nx,
        "s_xel2": ny,
        "s_pixel_scale": 3600.0 * scale,
        "t_min": _number(header, "MJD-OBS"),
        "t_max": _number(header, "MJD-END"),
        "t_exptime": _number(header, "EXPTOTAL"),
        "em_min": low,
        "em_max": high,
        "o_ucd": "phot.count" if not extended else "phot.count;phys.angArea",
    }


def _list_row(product: Product, images: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """A source list has the field of its group's stacks and all their bands."""
    folder = product.path.rpartition("/")[0]
    mine = [row for path, row in images.items() if path.rpartition("/")[0] == folder]
    if not mine:
        return None

    def known(key: str) -> list[float]:
        return [row[key] for row in mine if math.isfinite(row[key])]

    table = "application/fits" if product.path.endswith(".fits") else "application/vnd.apache.parquet"
    return mine[0] | {
        "dataproduct_type": "measurements",
        "obs_id": Path(product.path).stem,
        "access_format": table,
        "s_xel1": None,
        "s_xel2": None,
        "s_resolution": max(known("s_resolution"), default=math.nan),
        "t_min": min(known("t_min"), default=math.nan),
        "t_max": max(known("t_max"), default=math.nan),
        "t_exptime": math.fsum(known("t_exptime")),
        "em_min": min(known("em_min"), default=math.nan),
        "em_max": max(known("em_max"), default=math.nan),
        "o_ucd": "phot.mag",
    }


def _rows(products: tuple[Product, ...], telescope: Telescope, roots: Roots) -> list[dict[str, Any]]:
    images: dict[str, dict[str, Any]] = {}
    for product in products:
        if product.kind in ("stack", "extended stack") and (row := _stack_row(product, telescope, roots)) is not None:
            images[product.path] = row
    found = dict(images)
    for product in products:
        if product.kind == "compressed copy" and (row := images.get(image_of(product.path))) is not None:
            # No primary image: not image/fits (RFC 4047), which a client may ask for that knows no compression.
            found[product.path] = row | {"access_format": "application/fits"}
    for product in products:
        if product.kind == "source list" and (row := _list_row(product, images)) is not None:
            found[product.path] = row
    of_path = {product.path: product for product in products}
    return [
        {
            "calib_level": 3,
            "obs_collection": f"OHP-{telescope.name}",
            "obs_publisher_did": f"ivo://obs-hp.fr/{telescope.name.lower()}?{path}",
            "access_url": posixpath.relpath(path, "stacks"),
            "access_estsize": max(of_path[path].bytes // 1000, 1),
            "t_resolution": math.nan,
            "em_res_power": math.nan,
            "pol_states": "",
            "facility_name": "OHP",
            "instrument_name": telescope.name,
            **row,
        }
        for path, row in sorted(found.items())
    ]


def write_obscore(products: tuple[Product, ...], telescope: Telescope, roots: Roots, path: Path) -> int:
    """Write stacks, their compressed copies and source lists as an ObsCore 1.1 table (VOTable); return how many rows.

    ``access_url`` is relative to the table's folder: a copy of ``stacks/`` can be used where it lies, and a service
    puts its own address before it. The identifiers' authority is registered nowhere.

    Raises
    ------
    OSError
        If a product cannot be read.
    """
    rows = _rows(products, telescope, roots)
    votable = VOTableFile(version="1.4")
    resource = Resource(name="obscore", type="results")
    votable.resources.append(resource)
    # VOTable wants it; astropy gives no other way than its own element.
    resource.coordinate_systems.append(CooSys(ID="icrs", system="ICRS"))
    resource.infos.append(Info(name="QUERY_STATUS", value="OK"))
    table = TableElement(votable, name="ivoa.obscore", nrows=len(rows))
    resource.tables.append(table)
    for field in _FIELDS:
        options: dict[str, Any] = {"arraysize": "*"} if field.datatype == "char" else {}
        if field.name in ("s_ra", "s_dec", "s_region"):
            options["ref"] = "icrs"
        column = VOField(
            votable, name=field.name, ID=field.name, datatype=field.datatype, unit=field.unit or None, ucd=field.ucd,
            utype=f"{_UTYPE}{field.utype}", **options,
        )  # fmt: skip
        column.description = field.description
        table.fields.append(column)
    table.create_arrays(len(rows))
    for number, row in enumerate(rows):
        for field in _FIELDS:
            value = row.get(field.name)
            if value is None:
                table.array[field.name].mask[number] = True
            else:
                table.array[field.name][number] = value
    with writing(path) as temporary:
        votable.to_xml(str(temporary))
    return len(rows)
