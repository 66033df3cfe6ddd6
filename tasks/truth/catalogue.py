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

from models.sourcelist import APERTURES_FWHM, SourceFlag
from tasks.simulation import at_epoch
from tasks.truth.figure import Figure, robust, width_error_share
from tasks.truth.scene import Scene, isolated, tangent

__all__ = [
    "SPOILT",
    "CatalogueRow",
    "Listed",
    "catalogue_figures",
    "catalogue_rows",
    "catalogue_table",
    "covered",
    "independent",
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
_MAG_PER_RATIO = 2.5 / np.log(10.0)
_NO_WIDTH = 1e-3
_PULL_STEPS = (14.0, 16.0, 17.0, 18.0, 19.0, 20.5)
_STEP_SIGMA = 2.0
"""Errors of a step's own width, taken off before it is judged: the worst of some fifty steps is off by as many."""
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
    """A group's source list.

    Attributes
    ----------
    bands
        Endings of the columns by filter.
    common
        What all stars of a band may be off by, by its own words, mag.
    fwhm
        Of each band, px.
    header, grid
        Of the stacks.
    """

    group: str
    table: Table
    bands: dict[str, str]
    common: dict[str, float]
    fwhm: dict[str, float]
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
            rows = hdus["BANDS"].data
            bands = {str(row["FILTER"]): str(row["COLUMN"]) for row in rows}
            # In the largest aperture nothing else does not fall with flux.
            common = {str(row["FILTER"]): float(row[f"FLOOR_AP{len(APERTURES_FWHM)}"]) for row in rows}
            fwhm = {str(row["FILTER"]): float(row["FWHM"]) for row in rows}
        image = next(path.parent / f"{group}_{filter}.fits" for filter in bands)
        head = fits.getheader(image)
        table, grid = Table.read(path, hdu="SOURCES"), (head["NAXIS2"], head["NAXIS1"])
        found.append(Listed(group, table, bands, common, fwhm, head, grid))
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
        steps = _steps(pulls)
        if not steps:
            continue
        worst = max(steps, key=lambda step: abs(float(np.log(step.width))))
        figures.append(
            Figure(name=f"source lists, pull width of {kind} fluxes, worst step of magnitude of a group",
                   value=worst.width, error=worst.error, unit="", detail=_in_words(steps))
        )  # fmt: skip
        beyond = max(steps, key=lambda step: abs(float(np.log(step.beyond))))
        figures.append(
            Figure(name=f"source lists, pull width of {kind} fluxes, "
                   f"worst step beyond {_STEP_SIGMA:g} sigma of its stars",
                   value=beyond.beyond, unit="", goal=1.25, least=0.8, better="between",
                   detail=f"{beyond.group} {beyond.low:g}-{beyond.high:g}: {beyond.width:.2f} ± {beyond.error:.2f}, "
                   f"{beyond.number} stars in all bands as good as {beyond.independent:.0f} independent ones")
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
    """Of clean stars brighter than 20.5 in all bands.

    Attributes
    ----------
    group, filter, mag
        Of each star, true magnitude.
    pull
        (measured - true) / error.
    common
        Part of the error that all stars of the band share, over the whole error: 0 to 1.
    """

    group: npt.NDArray[np.str_]
    filter: npt.NDArray[np.str_]
    mag: FloatArray
    pull: FloatArray
    common: FloatArray


def _pulls(scene: Scene, kind: str) -> _Pulls:
    groups: list[str] = []
    filters: list[str] = []
    mags: list[FloatArray] = []
    found: list[FloatArray] = []
    common: list[FloatArray] = []
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
            measured, error = measured[good], error[good]
            found.append((measured - flux[clean][good]) / error)
            common.append(np.clip(listed.common[filter] / _MAG_PER_RATIO * np.abs(measured) / error, 0.0, 1.0))
            mags.append(mag[clean][good])
            groups += [listed.group] * measured.size
            filters += [filter] * measured.size
    if not found:
        return _Pulls(np.empty(0, str), np.empty(0, str), *(np.empty(0) for _ in range(3)))
    return _Pulls(np.array(groups), np.array(filters), *(np.concatenate(each) for each in (mags, found, common)))


class _Step(NamedTuple):
    """Clean stars of a group in a step of magnitude, all bands: width of their pulls, its error, what is beyond it."""

    group: str
    low: float
    high: float
    number: int
    independent: float
    width: float

    @property
    def error(self) -> float:
        """Of the width, as of so many independent stars."""
        return self.width * width_error_share(self.independent)

    @property
    def beyond(self) -> float:
        """The width, nearer to 1 by some of its errors; not past it."""
        off = float(np.log(self.width))
        return float(np.exp(np.sign(off) * max(0.0, abs(off) - _STEP_SIGMA * width_error_share(self.independent))))


def independent(filter: npt.NDArray[np.str_], common: FloatArray) -> float:
    """How many independent pulls tell a width as well as these, of which those of a band share a part of their errors.

    Two pulls of a band with shares a and b correlate by ab, so their squares by (ab)^2; the variance of the mean of N
    squares is 2/N^2 times the sum of those over all pairs, each star with itself 1.

    Parameters
    ----------
    filter
        Band of each, shape (N,).
    common
        What it shares with the others of its band, over its whole error, shape (N,).
    """
    squares = np.square(common)
    pairs_of_bands = sum(
        float(squares[filter == band].sum() ** 2 - np.square(squares[filter == band]).sum()) for band in set(filter)
    )
    return float(filter.size**2 / (filter.size + pairs_of_bands)) if filter.size else 0.0


def _steps(pulls: _Pulls) -> list[_Step]:
    """Each step of magnitude of each group that has enough stars."""
    steps = []
    for group in sorted(set(pulls.group)):
        for low, high in itertools.pairwise(_PULL_STEPS):
            chosen = (pulls.group == group) & (pulls.mag >= low) & (pulls.mag < high)
            number = int(np.count_nonzero(chosen))
            if number >= _LEAST:
                width = max(robust(pulls.pull[chosen], 0.0), _NO_WIDTH)
                alone = independent(pulls.filter[chosen], pulls.common[chosen])
                steps.append(_Step(str(group), low, high, number, alone, width))
    return steps


def _in_words(steps: Sequence[_Step]) -> str:
    """All steps' widths with their errors, by group."""
    said = []
    for group in sorted({step.group for step in steps}):
        mine = [step for step in steps if step.group == group]
        said.append(
            f"{group} " + ", ".join(f"{step.low:g}-{step.high:g} {step.width:.2f} ± {step.error:.2f}" for step in mine)
        )
    return "; ".join(said)


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
