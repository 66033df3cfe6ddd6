"""Source lists against the simulated sky: what is found, what is not there, fluxes and their errors."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from models.sourcelist import SourceFlag
from tasks.simulation import at_epoch
from tasks.truth.figure import Figure, robust
from tasks.truth.scene import Scene, isolated, tangent

__all__ = [
    "SPOILT",
    "CatalogueRow",
    "Listed",
    "catalogue_figures",
    "catalogue_rows",
    "catalogue_table",
    "covered",
    "lists",
    "pairs",
    "true_sources_of",
]

FloatArray = npt.NDArray[np.float64]

_MATCH_PX = 1.5
_STEPS = (14.0, 16.0, 17.0, 18.0, 19.0, 20.0, 21.0, 22.0)
_KINDS = ("PSF", "AP1", "AP2", "AP3", "KRON")
_LEAST = 20
_FAINTEST = 20.5
_PULL_STEPS = (14.0, 16.0, 17.0, 18.0, 19.0, 20.5)
_STEP_BOUND = 2.0
"""Of a small campaign: a step holds some fifty stars of bands that share a zero point each."""
SPOILT = SourceFlag.MASKED | SourceFlag.EDGE | SourceFlag.SATURATED | SourceFlag.NO_DATA | SourceFlag.LOW_WEIGHT


class CatalogueRow(NamedTuple):
    """Stars of a step of true magnitude in a band of a group.

    Attributes
    ----------
    n_true, n_found
        On the covered part; of them in the list (within 1.5 px of it, each once).
    n_measured
        Clean ones (no blemish) that the widths are of.
    median, width, pull
        By kind of flux: of measured over true flux, mmag; robust; of (measured - true) / error about 0.
    """

    group: str
    filter: str
    low: float
    high: float
    n_true: int
    n_found: int
    n_measured: int
    median: dict[str, float]
    width: dict[str, float]
    pull: dict[str, float]


class Listed(NamedTuple):
    """A group's source list, its bands' endings of columns, the grid."""

    group: str
    table: Table
    bands: dict[str, str]
    header: fits.Header
    grid: tuple[int, int]


def lists(scene: Scene) -> list[Listed]:
    """The source lists of the simulated fields."""
    found = []
    for path in sorted((scene.roots.data / "stacks").glob(f"*/{scene.telescope.name}/*_cat.fits")):
        group = path.stem.removesuffix("_cat")
        if group not in scene.epochs:
            continue
        with fits.open(path, memmap=False) as hdus:
            bands = {str(row["FILTER"]): str(row["COLUMN"]) for row in hdus["BANDS"].data}
        image = next(path.parent / f"{group}_{filter}.fits" for filter in bands)
        head = fits.getheader(image)
        found.append(Listed(group, Table.read(path, hdu="SOURCES"), bands, head, (head["NAXIS2"], head["NAXIS1"])))
    return found


def true_sources_of(scene: Scene, listed: Listed) -> Table:
    """All true sources of a group that lie on covered pixels of some band, with 0-based places on its grid."""
    table = scene.stars[np.asarray(scene.stars["field"]).astype(str) == listed.group]
    ra, dec = at_epoch(table, scene.epochs[listed.group])
    table["x"], table["y"] = WCS(listed.header).all_world2pix(np.asarray(ra), np.asarray(dec), 0)
    ny, nx = listed.grid
    inside = (table["x"] > 0) & (table["y"] > 0) & (table["x"] < nx - 1) & (table["y"] < ny - 1)
    table["east"], table["north"] = tangent(
        np.asarray(ra), np.asarray(dec), float(np.median(ra)), float(np.median(dec))
    ).T
    return table[inside]


def covered(scene: Scene, listed: Listed, filter: str, truth: Table) -> npt.NDArray[np.bool_]:
    """Whether each true source lies where a band has at least half of its usual weight."""
    path = scene.roots.data / "stacks" / listed.group / scene.telescope.name / f"{listed.group}_{filter}.weight.fits"
    weight = np.asarray(fits.getdata(path), np.float32)
    usual = float(np.median(weight[weight > 0]))
    row, column = np.rint(truth["y"]).astype(int), np.rint(truth["x"]).astype(int)
    return np.asarray(weight[row, column] > 0.5 * usual)


def pairs(listed: Listed, truth: Table, brightness: FloatArray) -> npt.NDArray[np.int_]:
    """Row of the list for each true source, -1: none; a row is the brightest true source's within 1.5 px."""
    places = np.column_stack([np.asarray(listed.table["X"]) - 1, np.asarray(listed.table["Y"]) - 1])
    apart, row = cKDTree(places).query(np.column_stack([truth["x"], truth["y"]]), distance_upper_bound=_MATCH_PX)
    result = np.full(len(truth), -1)
    taken: set[int] = set()
    for star in np.argsort(brightness, kind="stable"):
        if np.isfinite(apart[star]) and int(row[star]) not in taken:
            result[star] = int(row[star])
            taken.add(int(row[star]))
    return result


def catalogue_rows(scene: Scene) -> list[CatalogueRow]:
    """Completeness, offsets, scatter and pulls of each band of each group's source list, by true magnitude."""
    rows = []
    for listed in lists(scene):
        truth = true_sources_of(scene, listed)
        for filter, token in listed.bands.items():
            if f"MAG_AP3_{token}" in listed.table.colnames and f"{filter}_nat" in truth.colnames:
                rows += _of_band(scene, listed, truth, filter, token)
    return rows


def _of_band(scene: Scene, listed: Listed, truth: Table, filter: str, token: str) -> list[CatalogueRow]:
    mag = np.asarray(truth[f"{filter}_nat"], np.float64)
    flux = np.where(np.isfinite(mag), 10 ** (0.4 * (30.0 - mag)), 0.0)
    pair = pairs(listed, truth, np.where(np.isfinite(mag), mag, 99.0))
    star = (np.asarray(truth["kind"]).astype(str) == "star") & covered(scene, listed, filter, truth)
    alone = isolated(np.column_stack([truth["east"], truth["north"]]), flux)
    flags = np.asarray(listed.table[f"FLAGS_{token}"])[pair]
    clean = star & alone & (pair >= 0) & ((flags & int(SPOILT)) == 0)
    rows = []
    for low, high in itertools.pairwise(_STEPS):
        step = (mag >= low) & (mag < high)
        chosen = clean & step
        median, width, pull = {}, {}, {}
        for kind in _KINDS:
            if f"FLUX_{kind}_{token}" not in listed.table.colnames or np.count_nonzero(chosen) < 5:
                continue
            measured, error = (
                np.asarray(listed.table[f"{name}_{kind}_{token}"], np.float64)[pair[chosen]]
                for name in ("FLUX", "FLUXERR")
            )
            good = np.isfinite(measured) & (error > 0)
            ratio = measured[good] / flux[chosen][good]
            if ratio.size < 5:
                continue
            median[kind] = -1085.7 * float(np.median(ratio) - 1)
            width[kind] = 1085.7 * robust(ratio)
            pull[kind] = robust((measured[good] - flux[chosen][good]) / error[good], 0.0)
        rows.append(
            CatalogueRow(
                listed.group,
                filter,
                low,
                high,
                int(np.count_nonzero(star & step)),
                int(np.count_nonzero(star & step & (pair >= 0))),
                int(np.count_nonzero(chosen)),
                median,
                width,
                pull,
            )
        )
    return rows


def _false(scene: Scene) -> dict[str, tuple[int, int, int]]:
    """Of each list: rows without any true source within 2 px, of them beyond the large galaxy, rows in all."""
    result = {}
    for listed in lists(scene):
        truth = true_sources_of(scene, listed)
        places = np.column_stack([np.asarray(listed.table["X"]) - 1, np.asarray(listed.table["Y"]) - 1])
        apart, _ = cKDTree(np.column_stack([truth["x"], truth["y"]])).query(places)
        lonely = apart > 2.0
        middle = np.array(listed.grid[::-1]) / 2
        far = np.hypot(*(places - middle).T) * float(listed.header["PIXSCALE"]) > 300.0
        result[listed.group] = int(lonely.sum()), int((lonely & far).sum()), len(listed.table)
    return result


def catalogue_figures(scene: Scene) -> list[Figure]:
    """Figures of merit of the source lists: completeness, contamination, widths of pulls, positions."""
    rows = catalogue_rows(scene)
    if not rows:
        return []
    figures = []
    for kind in _KINDS:
        pulls = _pulls(scene, kind)
        if len(pulls.pull) < _LEAST:
            continue
        figures.append(
            Figure(name=f"source lists, pull width of {kind} fluxes, clean stars", value=robust(pulls.pull, 0.0),
                   unit="", goal=1.25, least=0.8, better="between", pulls=tuple(float(pull) for pull in pulls.pull),
                   detail=f"{len(pulls.pull)} stars in all bands; about 0, zero points included")
        )  # fmt: skip
        worst = _worst_step(pulls)
        if worst is not None:
            figures.append(
                Figure(name=f"source lists, pull width of {kind} fluxes, worst step of magnitude of a group",
                       value=worst[0], error=worst[0] / float(np.sqrt(0.74 * worst[1])), unit="", goal=1.25, least=0.8,
                       better="between", bound=_STEP_BOUND, detail=worst[2])
            )  # fmt: skip
    lonely = _false(scene)
    share = max(one[0] / max(one[2], 1) for one in lonely.values())
    said = ", ".join(f"{group} {one[0]} of {one[2]} ({one[1]} beyond 5 arcmin)" for group, one in lonely.items())
    figures.append(
        Figure(name="source lists, rows that no true source is near, worst group", value=100 * share, unit="%",
               goal=5.0, detail=said)
    )  # fmt: skip
    return figures


class _Pulls(NamedTuple):
    """Of clean stars brighter than 20.5 in all bands: group, true magnitude, (measured - true) / error."""

    group: npt.NDArray[np.str_]
    mag: FloatArray
    pull: FloatArray


def _pulls(scene: Scene, kind: str) -> _Pulls:
    groups: list[str] = []
    mags: list[FloatArray] = []
    found: list[FloatArray] = []
    for listed in lists(scene):
        truth = true_sources_of(scene, listed)
        for filter, token in listed.bands.items():
            if f"FLUX_{kind}_{token}" not in listed.table.colnames or f"{filter}_nat" not in truth.colnames:
                continue
            mag = np.asarray(truth[f"{filter}_nat"], np.float64)
            flux = np.where(np.isfinite(mag), 10 ** (0.4 * (30.0 - mag)), 0.0)
            pair = pairs(listed, truth, np.where(np.isfinite(mag), mag, 99.0))
            alone = isolated(np.column_stack([truth["east"], truth["north"]]), flux)
            flags = np.asarray(listed.table[f"FLAGS_{token}"])[pair]
            clean = (
                (np.asarray(truth["kind"]).astype(str) == "star") & alone & (pair >= 0) & (mag < _FAINTEST)
                & ((flags & int(SPOILT)) == 0) & covered(scene, listed, filter, truth)
            )  # fmt: skip
            measured, error = (
                np.asarray(listed.table[f"{name}_{kind}_{token}"], np.float64)[pair[clean]]
                for name in ("FLUX", "FLUXERR")
            )
            good = np.isfinite(measured) & (error > 0)
            found.append((measured[good] - flux[clean][good]) / error[good])
            mags.append(mag[clean][good])
            groups += [listed.group] * int(good.sum())
    if not found:
        return _Pulls(np.empty(0, str), np.empty(0), np.empty(0))
    return _Pulls(np.array(groups), np.concatenate(mags), np.concatenate(found))


def _worst_step(pulls: _Pulls) -> tuple[float, int, str] | None:
    """Width furthest from 1 of a group's pulls in a step of magnitude, of how many stars, and all of them in words."""
    widths: list[tuple[float, int]] = []
    said = []
    for group in sorted(set(pulls.group)):
        words = []
        for low, high in itertools.pairwise(_PULL_STEPS):
            chosen = (pulls.group == group) & (pulls.mag >= low) & (pulls.mag < high)
            if np.count_nonzero(chosen) >= _LEAST:
                widths.append((robust(pulls.pull[chosen], 0.0), int(np.count_nonzero(chosen))))
                words.append(f"{widths[-1][0]:.2f}")
        said.append(f"{group} {' '.join(words)}")
    if not widths:
        return None
    width, number = max(widths, key=lambda each: abs(float(np.log(max(each[0], 1e-3)))))
    return (
        width,
        number,
        f"{'; '.join(said)} at {', '.join(f'{low:g}-{high:g}' for low, high in itertools.pairwise(_PULL_STEPS))}",
    )


def catalogue_table(rows: Sequence[CatalogueRow]) -> str:
    """Completeness, and aperture against PSF, by magnitude: all groups and bands together, as Markdown."""
    by_step: dict[tuple[float, float], list[CatalogueRow]] = defaultdict(list)
    for row in rows:
        by_step[row.low, row.high].append(row)
    head = "| true magnitude | stars | found | " + " | ".join(f"{kind} scatter, pull" for kind in _KINDS) + " |"
    lines = [head, "|---|---|---|" + "---|" * len(_KINDS)]
    for (low, high), mine in sorted(by_step.items()):
        n_true, n_found = sum(row.n_true for row in mine), sum(row.n_found for row in mine)
        cells = []
        for kind in _KINDS:
            some = [row for row in mine if kind in row.width]
            if not some:
                cells.append("too few stars")
                continue
            weights = [row.n_measured for row in some]
            width = float(np.average([row.width[kind] for row in some], weights=weights))
            pull = float(np.average([row.pull[kind] for row in some], weights=weights))
            cells.append(f"{width:.0f} mmag, {pull:.2f}")
        share = f"{100 * n_found / n_true:.1f} %" if n_true else "no star"
        lines.append(f"| {low:g}–{high:g} | {n_true} | {share} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
