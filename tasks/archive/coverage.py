"""Where on the sky a release has data: MOCs of each group, each filter and the whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from mocpy import MOC

from models.base import Roots
from models.provenance import Product
from models.telescope import Telescope
from tasks.core.errors import StageError
from tasks.core.fitsio import quiet_fits, write_fits
from tasks.core.unchanged import unless_unchanged

__all__ = ["ORDER", "cover_group", "write_coverage"]

ORDER = 13
"""HEALPix order of the maps: cells of 26 arcsec."""
_STEP_PX = 8


def _moc(path: Path) -> MOC:
    """Cells in which a weight map has data: of every eighth pixel in each direction (6 arcsec on the T120)."""
    with quiet_fits():
        header, weight = fits.getheader(path), np.asarray(fits.getdata(path))
    rows, columns = np.nonzero(weight[::_STEP_PX, ::_STEP_PX] > 0)
    ra, dec = WCS(header).all_pix2world(columns * _STEP_PX, rows * _STEP_PX, 0)
    return MOC.from_lonlat(ra * u.deg, dec * u.deg, max_norder=ORDER)


def _write(moc: MOC, path: Path, title: str) -> None:
    """A MOC as FITS (NUNIQ, which readers of MOC 1 and 2 take), with checksums and without a date."""
    made = moc.serialize(format="fits", v1_compatible=True)
    table = fits.BinTableHDU(made[1].data, header=made[1].header, name="MOC")
    for key in ("DATE", "MOCTOOL", "CHECKSUM", "DATASUM"):
        table.header.remove(key, ignore_missing=True)
    table.header["OBS_ID"] = (title, "what is covered")
    write_fits(path, [fits.PrimaryHDU(), table])


def cover_group(group: str, weights: Sequence[Path], telescope: Telescope, roots: Roots) -> Path | None:
    """Write a group's MOC beside its stacks, unless it is there and of these weight maps.

    Parameters
    ----------
    group
        Its name.
    weights
        Weight maps of its stacks; without one, what an earlier run wrote goes.
    telescope, roots
        Whose stacks, and where.

    Returns
    -------
    Path or None
        The map; None without a stack.

    Raises
    ------
    StageError
        If a weight map cannot be read.
    """
    path = roots.data / "stacks" / group / telescope.name / f"{group}_moc.fits"
    if not weights:
        path.unlink(missing_ok=True)
        return None

    def make() -> tuple[Path, ...]:
        _write(_union([_moc(weight) for weight in weights]), path, f"{group} {telescope.name}")
        return (path,)

    made_with = f"{ORDER} {_STEP_PX} mocpy {version('mocpy')}"
    try:
        unless_unchanged(roots, f"coverage_{group}_{telescope.name}", lambda: weights, made_with, make)
    except (OSError, ValueError, KeyError) as error:
        raise StageError("coverage", f"a weight map cannot be read: {error}", "stack the group again") from error
    return path


def write_coverage(products: tuple[Product, ...], telescope: Telescope, roots: Roots) -> tuple[Path, ...]:
    """Write a MOC a group beside its stacks, one a filter and one of all under ``stacks/``.

    Raises
    ------
    OSError
        If a weight map cannot be read.
    """
    of_group: dict[str, list[Path]] = defaultdict(list)
    of_filter: dict[str, list[MOC]] = defaultdict(list)
    for product in products:
        if product.kind != "weight":
            continue
        weight = roots.data / product.path
        stem = product.path.rpartition("/")[2].removesuffix(".weight.fits")
        group, _, filter = stem.rpartition("_")
        of_group[group].append(weight)
        of_filter[filter].append(_moc(weight))
    stacks = roots.data / "stacks"
    written = []
    for group, weights in sorted(of_group.items()):
        path = cover_group(group, sorted(weights), telescope, roots)
        written += [path] if path is not None else []
    # By name and more than case: r and R.
    names = {name: f"{name}c" if name.isupper() and name.lower() in of_filter else name for name in of_filter}
    for filter, mocs in sorted(of_filter.items()):
        path = stacks / f"{telescope.name}_{names[filter]}_moc.fits"
        _write(_union(mocs), path, f"{telescope.name} {filter}")
        written.append(path)
    if of_group:
        path = stacks / f"{telescope.name}_moc.fits"
        _write(_union([moc for mocs in of_filter.values() for moc in mocs]), path, telescope.name)
        written.append(path)
    return tuple(written)


def _union(mocs: list[MOC]) -> MOC:
    return mocs[0].union(*mocs[1:]) if len(mocs) > 1 else mocs[0]
