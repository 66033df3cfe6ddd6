"""A downloaded copy of a release against its own ``release.json``: digests, headers, grids, tables."""

from __future__ import annotations

import posixpath
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.io.fits.verify import VerifyError
from astropy.io.votable import parse_single_table
from astropy.utils.exceptions import AstropyUserWarning
from pydantic import ValidationError

from models.provenance import Product
from models.release import COMPRESSED, Release
from tasks.archive.compressed import DEFAULT_FWHM_PX, image_of, measured_loss, weight_of
from tasks.core.errors import UserError
from tasks.core.files import digest_file

__all__ = ["Checked", "Finding", "verify_copy"]

_GRID = (
    "NAXIS1", "NAXIS2", "CTYPE1", "CTYPE2", "CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CD1_1", "CD1_2", "CD2_1", "CD2_2",
)  # fmt: skip
_AGAIN = "download the file again"
_FITS_KINDS = ("stack", "weight", "stack psf", "extended stack", "map", "source list", "coverage", "mean psf",
               "master bias", "master flat", "reduced frame", "compressed copy")  # fmt: skip


class Finding(NamedTuple):
    """Something wrong with a file of the copy."""

    file: str
    cause: str
    remedy: str


class Checked(NamedTuple):
    """What was looked at, and what is wrong."""

    release: Path
    n_files: int
    n_bytes: int
    n_fits: int
    not_here: tuple[str, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def _index(path: Path, telescope: str) -> tuple[Path, Path]:
    """``release.json`` and the folder that its paths are relative to.

    Raises
    ------
    UserError
        If there is none.
    """
    name = "release.json" if telescope == "T120" else f"release_{telescope}.json"
    for index in (path / "stacks" / name, path / name, path / COMPRESSED / name):
        if index.is_file():
            return index, index.parent.parent
    if path.is_file() and path.suffix == ".json":
        return path, path.absolute().parent.parent
    raise UserError(f"{path}: neither stacks/{name} nor {name} is there; give the folder that holds the release")


def _read(index: Path) -> Release:
    try:
        release: Release = Release.model_validate_json(index.read_bytes())
    except (OSError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{index} is no release's table: {first}; download it again") from error
    if release.provenance is None:
        raise UserError(
            f"{index} lists no files: it was written by an older version; ask for the release to be built again"
        )
    return release


def verify_copy(path: Path, telescope: str = "T120", told: Callable[[int, int], None] | None = None) -> Checked:
    """Check a copy of a release, whole or ``stacks/`` alone.

    Each file that ``release.json`` lists is there with its size and SHA-256; FITS files open, keep the standard and fit
    their CHECKSUM and DATASUM; stacks, weights and images for extended targets of a group lie on one grid and are what
    their names say; the release's figures are those of the headers; source lists have the rows they say, in FITS and
    Parquet; the ObsCore table names files of the copy. Compressed images are of the release's own, and where those are
    there, too, give them back as far as their headers say.

    Parameters
    ----------
    path
        Folder of the copy, its ``stacks`` folder, or ``release.json``.
    telescope
        Whose release.
    told
        Called with the number of files checked and of all.

    Returns
    -------
    Checked
        Years that were not downloaded at all are listed and are no finding.

    Raises
    ------
    UserError
        If there is no release to check.
    """
    index, root = _index(path, telescope)
    release = _read(index)
    assert release.provenance is not None
    products = release.provenance.products
    tops = {product.path.partition("/")[0] for product in products}
    absent = {top for top in tops if not (root / top).is_dir()}
    here = [product for product in products if product.path.partition("/")[0] not in absent]
    findings: list[Finding] = []
    whole: list[Product] = []
    for number, product in enumerate(here, start=1):
        found = _file(product, root)
        findings += found
        if not found:
            whole.append(product)
        if told is not None:
            told(number, len(here))
    for check in (_headers(whole, root), _grids(whole, root), _figures(release, whole, root), _lists(whole, root),
                  _obscore(whole, products, root), _copies(whole, products, root)):  # fmt: skip
        findings += check
    listed = {product.path for product in products}
    extra = [
        file.relative_to(root).as_posix()
        for file in sorted((root / "stacks").rglob("*.fits"))
        if file.relative_to(root).as_posix() not in listed and f"/{telescope}/" in file.as_posix()
    ]
    notes = [f"not of this release: {', '.join(extra)}"] if extra else []
    return Checked(
        release=index,
        n_files=len(here),
        n_bytes=sum(product.bytes for product in here),
        n_fits=sum(_is_fits(product) for product in whole),
        not_here=tuple(sorted(absent)),
        findings=tuple(findings),
        notes=tuple(notes),
    )


def _is_fits(product: Product) -> bool:
    return product.kind in _FITS_KINDS and product.path.endswith((".fits", ".fits.fz"))


def _file(product: Product, root: Path) -> list[Finding]:
    """Whether a file is there with its content, and, of FITS, keeps the standard."""
    path = root / product.path
    try:
        size = path.stat().st_size
        if size != product.bytes:
            return [Finding(product.path, f"{size} bytes, {product.bytes} in release.json", _AGAIN)]
        if digest_file(path) != product.sha256:
            return [Finding(product.path, "its SHA-256 is not that of release.json", _AGAIN)]
    except FileNotFoundError:
        return [Finding(product.path, "is not there", "download it")]
    except OSError as error:
        return [Finding(product.path, f"cannot be read: {error.strerror or error}", "mend the disk or the permission")]
    if _is_fits(product):
        return [Finding(product.path, cause, "report it: the release itself is wrong") for cause in _standard(path)]
    return []


def _standard(path: Path) -> Iterator[str]:
    """What a FITS file does against the standard or its own checksums."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            with fits.open(path, checksum=True, memmap=False, disable_image_compression=True) as hdus:
                for number, hdu in enumerate(hdus):
                    hdu.verify("exception")
                    for key in ("CHECKSUM", "DATASUM"):
                        if key not in hdu.header:
                            yield f"HDU {number} has no {key}"
                    _ = hdu.data
        except (OSError, VerifyError, ValueError, TypeError, KeyError, IndexError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            yield f"is no sound FITS file: {first}"
            return
    yield from sorted({str(each.message).strip() for each in said if issubclass(each.category, AstropyUserWarning)})


def _header(root: Path, product: Product) -> fits.Header:
    return fits.getheader(root / product.path)


def _headers(products: Iterable[Product], root: Path) -> Iterator[Finding]:
    """Stacks are of the group, telescope and filter that their names say."""
    for product in products:
        if product.kind not in ("stack", "weight", "extended stack"):
            continue
        _, group, telescope, name = product.path.split("/")
        stem = name.removesuffix(".fits").removesuffix(".weight").removesuffix("_ext")
        header = _header(root, product)
        for key, expected in (("OBJECT", group), ("TELESCOP", telescope), ("FILTER", stem.removeprefix(f"{group}_"))):
            if header.get(key) != expected:
                cause = f"{key} says {header.get(key)!r}, its name {expected!r}"
                yield Finding(product.path, cause, "report it: the release itself is wrong")


def _grids(products: Iterable[Product], root: Path) -> Iterator[Finding]:
    """All images of a group share one grid."""
    of_group: dict[str, list[tuple[str, tuple[Any, ...]]]] = defaultdict(list)
    for product in products:
        if product.kind in ("stack", "weight", "extended stack", "map"):
            header = _header(root, product)
            of_group[product.path.rpartition("/")[0]].append((product.path, tuple(header.get(key) for key in _GRID)))
    for images in of_group.values():
        first, grid = images[0]
        for path, other in images[1:]:
            differ = [key for key, mine, theirs in zip(_GRID, grid, other, strict=True) if mine != theirs]
            if differ:
                yield Finding(path, f"not on the grid of {first}: {', '.join(differ)}", "stack the group again")


def _figures(release: Release, products: Iterable[Product], root: Path) -> Iterator[Finding]:
    """The release's figures of a stack are those of its header."""
    sound = {product.path: product for product in products}
    for row in release.stacks:
        if row.file is None or row.status != "OK" or row.file not in sound:
            continue
        header = _header(root, sound[row.file])
        for name, key in (
            ("n_frames", "NCOMBINE"), ("exptime_s", "EXPTOTAL"), ("fwhm_arcsec", "FWHM_AS"),
            ("depth_5sigma", "DEPTH5S"), ("sb_limit_1sigma", "SBLIM1"), ("zp_offset", "PHOTOFF"),
            ("zp_rms", "PHOTRMS"), ("n_stars", "PHOTNSTR"),
        ):  # fmt: skip
            if getattr(row, name) != header.get(key):
                cause = f"{name} is {getattr(row, name)} in release.json, {key} {header.get(key)} in the header"
                yield Finding(row.file, cause, "build the release again")


def _lists(products: Iterable[Product], root: Path) -> Iterator[Finding]:
    """Source lists: rows as the header says, and the same in Parquet."""
    rows: dict[str, int] = {}
    tables = [product for product in products if product.kind == "source list"]
    for product in sorted(tables, key=lambda each: each.path.endswith(".parquet")):
        path, stem = root / product.path, product.path.rpartition(".")[0]
        if product.path.endswith(".fits"):
            with fits.open(path, memmap=False) as hdus:
                said, rows[stem] = int(hdus[0].header["NSOURCES"]), len(hdus["SOURCES"].data)
            if said != rows[stem]:
                yield Finding(product.path, f"{rows[stem]} rows, NSOURCES says {said}", "stack the group again")
            continue
        try:
            number = pq.read_metadata(path).num_rows
        except (OSError, ValueError) as error:
            yield Finding(product.path, f"is no sound Parquet file: {error}", "stack the group again")
            continue
        if stem in rows and number != rows[stem]:
            yield Finding(product.path, f"{number} rows, {rows[stem]} in FITS", "stack the group again")


def _obscore(sound: Iterable[Product], products: Iterable[Product], root: Path) -> Iterator[Finding]:
    """Every row of the ObsCore table is a file of the release, and every stack has a row."""
    listed = {product.path: product for product in products}
    for product in sound:
        if not product.path.endswith("obscore.vot"):
            continue
        table = parse_single_table(root / product.path).to_table()
        named = {posixpath.normpath(f"stacks/{url}") for url in table["access_url"]}
        for path in sorted(named - listed.keys()):
            yield Finding(product.path, f"names {path}, which is not of the release", "build the release again")
        images = {path for path, each in listed.items() if each.kind in ("stack", "extended stack")}
        images |= {path for path in listed if path.startswith(f"{COMPRESSED}/") and image_of(path) in images}
        for path in sorted(images - named):
            yield Finding(product.path, f"has no row for {path}", "build the release again")


def _copies(sound: Iterable[Product], products: Iterable[Product], root: Path) -> Iterator[Finding]:
    """Compressed copies are of this release's images, on their grid, and lose what their headers say."""
    listed, whole = {product.path: product for product in products}, {product.path for product in sound}
    for product in sound:
        if product.kind != "compressed copy":
            continue
        image = image_of(product.path)
        with fits.open(root / product.path, memmap=False) as hdus:
            header, copy = hdus[1].header, np.asarray(hdus[1].data)
        if image not in listed or header.get("SRCSHA") != listed[image].sha256:
            yield Finding(product.path, f"is no copy of this release's {image}", "build the release again")
            continue
        if image not in whole:
            continue
        with fits.open(root / image, memmap=False) as hdus:
            own, data = hdus[0].header, np.asarray(hdus[0].data)
        weight = root / weight_of(image)
        cause = ""
        if [header.get(key) for key in _GRID] != [own.get(key) for key in _GRID] or copy.shape != data.shape:
            cause = f"not on the grid of {image}"
        elif header["LOSSLESS"] and not np.array_equal(copy, data, equal_nan=data.dtype.kind == "f"):
            cause = f"says that it loses nothing, but differs from {image}"
        elif not header["LOSSLESS"] and weight.is_file():
            loss = measured_loss(data, copy, fits.getdata(weight) > 0, own.get("FWHM_PX") or DEFAULT_FWHM_PX)
            if abs(loss.rms - header["LOSSRMS"]) > 1e-4 + 0.01 * loss.rms:
                cause = f"differs from {image} by {loss.rms:.5f} of the noise, LOSSRMS says {header['LOSSRMS']}"
        if cause:
            yield Finding(product.path, cause, "build the release again")
