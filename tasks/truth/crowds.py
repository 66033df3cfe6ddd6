"""Source lists in crowded parts of a field against the simulated sky: completeness, contamination, PSF and aperture."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.table import Table
from scipy.spatial import cKDTree

from models.sourcelist import SourceFlag
from tasks.truth.catalogue import SPOILT, Listed, covered, lists, pairs, true_sources_of
from tasks.truth.figure import Figure, robust, width_error
from tasks.truth.scene import Scene

__all__ = ["CrowdRow", "crowd_figures", "crowd_rows", "crowd_table"]

FloatArray = npt.NDArray[np.float64]

_STEPS = (14.0, 16.0, 17.0, 18.0, 19.0, 20.0, 21.0)
_NEAR_PX = 8.0
"""A true star is in the crowded part if a listed one of it is as near."""
_SAME_PX = 1.5
_BLEND_FWHM = 0.5
_HALF = 0.5
"""A listed star that no true one of this share of its light is near is none."""
_BRIGHT = 18.0


class CrowdRow(NamedTuple):
    """Stars of a step of true magnitude in the crowded part of a group, in a band.

    Attributes
    ----------
    n_true, n_found
        In the crowded part; of them in the list.
    n_listed, n_false, n_unexplained
        Listed there with a PSF magnitude in the step; of them without a true star of half their light within 1.5 px;
        of them without half their light in all true stars together within half a FWHM, which no photometry parts.
    n_clean, n_clean_unexplained
        Of the listed and of the unexplained, those without a blemish and lacking no frame: no saturated star is near.
    offset, width, pull
        By kind of flux: median of measured - true, mmag; robust scatter, mmag; width of (measured - true) / error.
    pulls
        Those of the PSF fluxes, star by star.
    """

    group: str
    filter: str
    low: float
    high: float
    n_true: int
    n_found: int
    n_listed: int
    n_false: int
    n_unexplained: int
    n_clean: int
    n_clean_unexplained: int
    offset: dict[str, float]
    width: dict[str, float]
    pull: dict[str, float]
    pulls: tuple[float, ...]


def crowd_rows(scene: Scene) -> list[CrowdRow]:
    """Each band of each group that has a crowded part, by true magnitude."""
    rows = []
    for listed in lists(scene):
        crowded = (np.asarray(listed.table["FLAGS"], int) & int(SourceFlag.CROWDED)) > 0
        if not crowded.any():
            continue
        truth = true_sources_of(scene, listed)
        for filter, token in listed.bands.items():
            if f"MAG_PSF_{token}" in listed.table.colnames and f"{filter}_nat" in truth.colnames:
                rows += _of_band(scene, listed, truth, crowded, filter, token)
    return rows


def _of_band(
    scene: Scene, listed: Listed, truth: Table, crowded: npt.NDArray[np.bool_], filter: str, token: str
) -> list[CrowdRow]:
    table = listed.table
    mag = np.asarray(truth[f"{filter}_nat"], np.float64)
    flux = np.where(np.isfinite(mag), 10 ** (0.4 * (30.0 - mag)), 0.0)
    places = np.column_stack([np.asarray(truth["x"]), np.asarray(truth["y"])])
    rows_at = np.column_stack([np.asarray(table["X"]) - 1, np.asarray(table["Y"]) - 1])
    inside = cKDTree(rows_at[crowded]).query(places)[0] < _NEAR_PX
    star = (np.asarray(truth["kind"]).astype(str) == "star") & covered(scene, listed, filter, truth) & inside
    pair = pairs(listed, truth, np.where(np.isfinite(mag), mag, 99.0))
    flags = np.asarray(table[f"FLAGS_{token}"], int)
    listed_mag = np.asarray(table[f"MAG_PSF_{token}"], np.float64)
    own = 10 ** (0.4 * (30.0 - listed_mag))
    near = cKDTree(places).query_ball_point(rows_at, _SAME_PX)
    real = np.array(
        [bool(each) and float(flux[each].max()) > _HALF * light for each, light in zip(near, own, strict=True)]
    )
    blend = cKDTree(places).query_ball_point(rows_at, _BLEND_FWHM * listed.fwhm[filter])
    explained = np.array([float(flux[each].sum()) > _HALF * light for each, light in zip(blend, own, strict=True)])
    clean = (flags & int(SPOILT | SourceFlag.FEWER_FRAMES)) == 0
    result = []
    for low, high in itertools.pairwise(_STEPS):
        step = star & (mag >= low) & (mag < high)
        there = crowded & (listed_mag >= low) & (listed_mag < high)
        good = step & (pair >= 0) & ((flags[pair] & int(SPOILT)) == 0)
        wrong = there & ~real & ~explained
        offset, width, pull = {}, {}, {}
        pulls: tuple[float, ...] = ()
        for kind in ("PSF", "AP1", "AP2"):
            measured, error = (
                np.asarray(table[f"{name}_{kind}_{token}"], np.float64)[pair[good]] for name in ("FLUX", "FLUXERR")
            )
            known = np.isfinite(measured) & (measured > 0) & (error > 0)
            if np.count_nonzero(known) < 5:
                continue
            off = -2500.0 * np.log10(measured[known] / flux[good][known])
            offset[kind], width[kind] = float(np.median(off)), robust(off)
            each = (measured[known] - flux[good][known]) / error[known]
            pull[kind] = robust(each, 0.0)
            if kind == "PSF":
                pulls = tuple(float(value) for value in each)
        result.append(
            CrowdRow(
                listed.group, filter, low, high, int(step.sum()), int((step & (pair >= 0)).sum()), int(there.sum()),
                int((there & ~real).sum()), int(wrong.sum()), int((there & clean).sum()), int((wrong & clean).sum()),
                offset, width, pull, pulls,
            )
        )  # fmt: skip
    return result


def crowd_figures(scene: Scene) -> list[Figure]:
    """Completeness and contamination of bright stars in crowded parts, and PSF against aperture magnitudes."""
    rows = [row for row in crowd_rows(scene) if row.high <= _BRIGHT]
    n_true, n_listed = sum(row.n_true for row in rows), sum(row.n_listed for row in rows)
    if not n_true or not n_listed:
        return []
    found, false = sum(row.n_found for row in rows), sum(row.n_false for row in rows)
    unexplained = sum(row.n_unexplained for row in rows)
    said = f"brighter than {_BRIGHT:g}, all bands of {', '.join(sorted({row.group for row in rows}))}"
    figures = [
        Figure(name="crowded parts, true stars in the list", value=100 * found / n_true, unit="%", goal=80.0,
               better="above", detail=f"{found} of {n_true} {said}"),
        Figure(name="crowded parts, rows without a true star of half their light", value=100 * false / n_listed,
               unit="%", detail=f"{false} of {n_listed} {said}"),
        Figure(name="crowded parts, rows that no true light explains", value=100 * unexplained / n_listed, unit="%",
               goal=5.0, detail=f"{unexplained} of {n_listed} {said}: all true stars within half a FWHM together "
               "have less than half of their light"),
    ]  # fmt: skip
    n_clean, clean = sum(row.n_clean for row in rows), sum(row.n_clean_unexplained for row in rows)
    if n_clean:
        figures.append(
            Figure(name="crowded parts, rows without a flag that no true light explains", value=100 * clean / n_clean,
                   unit="%", goal=5.0, detail=f"{clean} of {n_clean} {said}, without a blemish and lacking no frame: "
                   "what saturated stars leave beside them is flagged")
        )  # fmt: skip
    pulls = [pull for row in rows for pull in row.pulls]
    if pulls:
        figures.append(
            Figure(name="crowded parts, pull width of PSF fluxes", value=robust(pulls, 0.0), error=width_error(pulls),
                   unit="", goal=1.25, least=0.8, better="between", pulls=tuple(pulls),
                   detail=f"{len(pulls)} stars {said}; about 0, zero points included")
        )  # fmt: skip
    for kind in ("PSF", "AP1"):
        some = [row for row in rows if kind in row.width]
        if some:
            width = float(np.average([row.width[kind] for row in some], weights=[row.n_found for row in some]))
            figures.append(
                Figure(name=f"crowded parts, scatter of {kind} magnitudes", value=width, unit="mmag", detail=said)
            )
    return figures


def crowd_table(rows: Sequence[CrowdRow]) -> str:
    """By magnitude, all bands together, as Markdown."""
    lines = [
        "| true magnitude | stars | found | listed | no true star | unexplained | PSF offset, scatter, pull "
        "| AP1 | AP2 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for low, high in itertools.pairwise(_STEPS):
        mine = [row for row in rows if row.low == low]
        n_true, n_listed = sum(row.n_true for row in mine), sum(row.n_listed for row in mine)
        cells = []
        for kind in ("PSF", "AP1", "AP2"):
            some = [row for row in mine if kind in row.width]
            if not some:
                cells.append("too few stars")
                continue
            weights = [row.n_found for row in some]
            means = [
                float(np.average([values[kind] for values in each], weights=weights))
                for each in ([row.offset for row in some], [row.width for row in some], [row.pull for row in some])
            ]
            cells.append(f"{means[0]:+.0f}, {means[1]:.0f} mmag, {means[2]:.2f}")
        found = f"{100 * sum(row.n_found for row in mine) / n_true:.0f} %" if n_true else "no star"
        wrong = " | ".join(
            f"{100 * sum(number) / n_listed:.1f} %" if n_listed else "no row"
            for number in ([row.n_false for row in mine], [row.n_unexplained for row in mine])
        )
        lines.append(f"| {low:g}–{high:g} | {n_true} | {found} | {n_listed} | {wrong} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
