"""Folders and what lies in them: raw frames, products, catalogues, index files, disk space."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from pathlib import Path

from pydantic import ValidationError

from models.base import Roots
from models.catalog import StoredCone
from models.settings import Settings
from models.telescope import Telescope
from tasks.core.errors import StageError
from tasks.doctor.check import Check
from tasks.inventory import count_raw_files, read_header

__all__ = ["check_catalogues", "check_data_root", "check_index_files", "check_raw_root"]

_FEW_BYTES = 1 << 30
_TOO_FEW_BYTES = 100 << 20
# Per raw frame: reduced frame (science f4, mask u1, variance f4), PSF, source lists; half of it again for
# resampled frames while a stack is made. Compression is not counted on.
_PRODUCT_BYTES_PER_PIXEL = 16


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _existing(folder: Path) -> Path:
    """The folder or the nearest one above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def check_raw_root(settings: Settings, telescope: Telescope) -> list[Check]:
    """Whether there are raw frames that can be read."""
    raw = settings.roots.raw
    where = "set OHP_RAW_ROOT or give --raw-root, or simulate some: python -m flows.simulate_campaign --root DIR"
    if not raw.is_dir():
        # Told where the frames are, a wrong place is an error; not told, there may be none yet.
        state = "missing" if settings.raw_root is not None or raw.exists() else "note"
        what = "is not a folder" if raw.exists() else "does not exist"
        return [Check(subject="folders", name="raw root", state=state, found=f"{raw} {what}", mend=where)]
    if not os.access(raw, os.R_OK | os.X_OK):
        mend = f"chmod -R u+rX {raw} (as its owner)"
        return [Check(subject="folders", name="raw root", state="missing", found=f"{raw} cannot be read", mend=mend)]
    count = count_raw_files(settings.roots, telescope)
    if count == 0:
        found = f"{raw}: no file ends in {' '.join(telescope.suffixes)}"
        return [Check(subject="folders", name="raw root", state="note", found=found, mend=where)]
    return [Check(subject="folders", name="raw root", state="ok", found=f"{raw}: {count} FITS files")]


def _write_problem(folder: Path) -> str:
    """Why no file can be made in an existing folder; empty if one can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(b"doctor")
            stream.flush()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def check_data_root(settings: Settings, telescope: Telescope) -> list[Check]:
    """Whether products can be written, and whether they will fit."""
    data = settings.roots.data
    base = _existing(data)
    if not base.is_dir():
        found, mend = f"{base} is a file", "give another folder with --root or OHP_DATA_ROOT"
        return [Check(subject="folders", name="data root", state="missing", found=found, mend=mend)]
    if problem := _write_problem(base):
        found = f"{base} cannot be written: {problem}"
        mend = f"chown -R $USER {base}, or give another folder with --root or OHP_DATA_ROOT"
        return [Check(subject="folders", name="data root", state="missing", found=found, mend=mend)]
    found = str(data) if base == data else f"{data} (made when first needed, in {base})"
    checks = [Check(subject="folders", name="data root", state="ok", found=found)]

    free = shutil.disk_usage(base).free
    frames = count_raw_files(settings.roots, telescope) if settings.roots.raw.is_dir() else 0
    rows, columns = telescope.camera.shape
    wanted = frames * rows * columns * _PRODUCT_BYTES_PER_PIXEL
    text = f"{_size(free)} free"
    if frames:
        text += f"; about {_size(wanted)} for the products of all {frames} raw files"
    mend = "free some, or put the data root on a larger disk (--root, OHP_DATA_ROOT)"
    if free < _TOO_FEW_BYTES:
        checks.append(Check(subject="folders", name="disk", state="missing", found=text, mend=mend))
    elif free < max(wanted, _FEW_BYTES):
        checks.append(Check(subject="folders", name="disk", state="note", found=text, mend=mend))
    else:
        checks.append(Check(subject="folders", name="disk", state="ok", found=text))
    return checks


def _stored_cones(folder: Path, roots: Roots) -> tuple[list[StoredCone], list[str]]:
    """The cones of a catalogue in the store, and what is wrong with others."""
    cones, problems = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            cone = StoredCone.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            problems.append(f"{path.name} cannot be read")
            continue
        table = roots.of(cone.file)
        if not table.is_file() or table.stat().st_size == 0:
            problems.append(f"{table.name} is gone")
            continue
        cones.append(cone)
    return cones, problems


def check_catalogues(settings: Settings) -> list[Check]:
    """What the local store holds, and whether that is enough for the mode."""
    checks = []
    for catalogue, title in (("gaia", "Gaia"), ("ps1", "Pan-STARRS1")):
        folder = settings.roots.catalogs / catalogue
        cones, problems = _stored_cones(folder, settings.roots)
        if problems:
            checks.append(
                Check(
                    subject="catalogues", name=title, state="note", found="; ".join(problems[:4]),
                    mend=f"remove the broken entries from {folder}; they are asked for again (or flows.import_catalog)",
                )
            )  # fmt: skip
        if cones:
            releases = ", ".join(sorted({cone.release for cone in cones}))
            rows = sum(cone.n_rows for cone in cones)
            found = f"{len(cones)} fields, {rows} stars in the store ({releases})"
            checks.append(Check(subject="catalogues", name=title, state="ok", found=found))
        elif settings.catalog_mode == "online":
            found = "none stored yet; asked for from the services when needed"
            checks.append(Check(subject="catalogues", name=title, state="ok", found=found))
        else:
            checks.append(
                Check(
                    subject="catalogues", name=title, state="note",
                    found=f"none in {folder}, and catalogue mode is offline: what needs them stays pending",
                    mend=f"python -m flows.import_catalog {catalogue} FILE, or OHP_CATALOG_MODE=online",
                )
            )  # fmt: skip
    return checks


def check_index_files(settings: Settings, telescope: Telescope) -> list[Check]:
    """Whether plate solving has index files of the right scale, or can build them."""
    folder = settings.astrometry_index_dir
    if folder is None:
        built = sorted((settings.roots.data / "astrometry_index").rglob("index-*.fits"))
        found = f"built from the Gaia cones of the fields ({len(built)} files so far)"
        return [Check(subject="astrometry", name="index files", state="ok", found=found)]
    mend = "apt-get install astrometry-data-tycho2 (wide fields), or unset OHP_ASTROMETRY_INDEX_DIR: built from Gaia"
    files = sorted(folder.expanduser().glob("index-*.fits")) if folder.is_dir() else []
    if not files:
        found = f"{folder}: " + ("no index-*.fits" if folder.is_dir() else "no such folder")
        return [Check(subject="astrometry", name="index files", state="missing", found=found, mend=mend)]
    rows, columns = telescope.camera.shape
    field = math.hypot(rows, columns) * telescope.camera.pixel_scale / 60
    fit, sizes = 0, []
    for path in files:
        try:
            header, _ = read_header(path)
            low, high = (math.degrees(float(header[key] or 0)) * 60 for key in ("SCALE_L", "SCALE_U"))
        except (StageError, KeyError, ValueError, TypeError):
            continue
        sizes += [low, high]
        # A quad must lie within the field; far smaller ones need more stars than a frame shows.
        fit += low < 0.9 * field and high > 0.1 * field
    if not sizes:
        found = f"{folder}: none of {len(files)} files is an astrometry.net index"
        return [Check(subject="astrometry", name="index files", state="missing", found=found, mend=mend)]
    found = (
        f"{fit} of {len(files)} in {folder} suit the field of {field:.0f}′; quads of {min(sizes):.0f}-{max(sizes):.0f}′"
    )
    if fit == 0:
        mend = (
            f"install index files with quads of {0.1 * field:.0f}-{0.9 * field:.0f}′ (astrometry.net's 5200 series), "
            "or unset OHP_ASTROMETRY_INDEX_DIR: they are then built from Gaia"
        )
        return [Check(subject="astrometry", name="index files", state="missing", found=found, mend=mend)]
    return [Check(subject="astrometry", name="index files", state="ok", found=found)]
