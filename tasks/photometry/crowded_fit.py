"""Stars that overlap fitted together, in batches that do not touch each other."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning
from photutils.psf import PSFPhotometry
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from tasks.photometry.crowded_scene import (
    CrowdedFlag,
    CrowdedOptions,
    FloatArray,
    Image,
    IntArray,
    Psf,
    Stars,
    draw,
    inside,
)

__all__ = ["Fit", "fit_all"]

_STILL_PX = 1e-3
"""How far a fixed star may move: photutils 3.0 loses positions that are fixed outright in groups."""
_PHOTUTILS_NOT_CONVERGED = 8
_PHOTUTILS_NEAR_BOUND = 32


class Fit(NamedTuple):
    """What the last fit said of each star."""

    x_err: FloatArray
    y_err: FloatArray
    flux_err: FloatArray
    chi2: FloatArray
    qfit: FloatArray
    n_group: IntArray
    flags: IntArray

    @classmethod
    def empty(cls, n: int) -> Fit:
        """Of stars that were not fitted."""
        nothing = np.full((5, n), np.nan)
        return cls(
            nothing[0], nothing[1], nothing[2], nothing[3], nothing[4], np.ones(n, np.intp), np.zeros(n, np.intp)
        )


def _groups(stars: Stars, psf: Psf, options: CrowdedOptions) -> IntArray:
    """Number of the group of each star: chains of near neighbours, cut at their widest gaps where they are too long."""
    places = np.column_stack([stars.x, stars.y])
    group = np.zeros(stars.x.size, np.intp)
    n_groups = 0
    work = [(np.arange(stars.x.size), options.group_fwhm * psf.fwhm)]
    while work:
        members, distance = work.pop()
        pairs = cKDTree(places[members]).query_pairs(distance, output_type="ndarray")
        links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(members.size,) * 2)
        n, label = connected_components(links, directed=False)
        for k in range(n):
            part = members[label == k]
            if part.size > options.max_group and distance > 0.2 * psf.fwhm:
                work.append((part, 0.85 * distance))
                continue
            for start in range(0, part.size, options.max_group):
                group[part[start : start + options.max_group]] = n_groups
                n_groups += 1
    return group


def _batches(stars: Stars, group: IntArray, reach: int) -> list[IntArray]:
    """Stars of groups of which none has light in the pixels another is fitted in: to be fitted at a time."""
    pairs = cKDTree(np.column_stack([stars.x, stars.y])).query_pairs(reach, p=np.inf, output_type="ndarray")
    touching: dict[int, set[int]] = {int(number): set() for number in np.unique(group)}
    for a, b in group[pairs]:
        if a != b:
            touching[int(a)].add(int(b))
            touching[int(b)].add(int(a))
    # The brightest first: what they leave decides for the others.
    light = np.zeros(len(touching))
    np.maximum.at(light, group, stars.flux)
    colour: dict[int, int] = {}
    for number in np.argsort(-light, kind="stable"):
        taken = {colour[other] for other in touching[int(number)] if other in colour}
        colour[int(number)] = next(c for c in range(len(touching)) if c not in taken)
    of_star = np.array([colour[int(number)] for number in group])
    return [np.flatnonzero(of_star == c) for c in range(int(of_star.max()) + 1)]


def fit_all(
    residual: FloatArray, image: Image, stars: Stars, psf: Psf, fixed: bool, options: CrowdedOptions
) -> tuple[Stars, Fit]:
    """Fit every group of stars in the residual with its own light put back; `residual` is kept up to date."""
    group = _groups(stars, psf, options)
    side = psf.core.shape[0]
    stars = Stars(*(column.copy() for column in stars))
    fit = Fit.empty(stars.x.size)
    error = np.sqrt(image.variance)
    photometry = PSFPhotometry(
        psf.model, (side, side), fitter_maxiters=50, xy_bounds=_STILL_PX if fixed else options.move_fwhm * psf.fwhm,
        group_warning_threshold=options.max_group + 1,
    )  # fmt: skip
    within = inside(stars, residual.shape)
    for batch in _batches(stars, group, psf.half + side // 2 + 1):
        chosen = batch[within[batch]]
        fit.flags[batch[~within[batch]]] |= int(CrowdedFlag.NOT_FITTED)
        if not chosen.size:
            continue
        draw(residual, Stars(*(column[chosen] for column in stars)), psf, 1.0)
        start = QTable({"x": stars.x[chosen], "y": stars.y[chosen], "flux": stars.flux[chosen]})
        _, start["group_id"] = np.unique(group[chosen], return_inverse=True)
        start["group_id"] += 1
        with warnings.catch_warnings():
            # Which fits did not converge is in the flags, star by star.
            warnings.filterwarnings("ignore", "One or more fit", AstropyUserWarning)
            result = photometry(residual, error=error, mask=image.bad, init_params=start)
        at = stars.x[chosen], stars.y[chosen]
        _take(result, chosen, stars, fit)
        if fixed:
            stars.x[chosen], stars.y[chosen] = at
            fit.flags[chosen] &= ~int(CrowdedFlag.AT_BOUND)
        draw(residual, Stars(*(column[chosen] for column in stars)), psf, -1.0)
    return stars, fit


def _take(result: QTable, chosen: IntArray, stars: Stars, fit: Fit) -> None:
    """Photutils' results into the arrays; a star that was not fitted stays where it was, without light."""
    result.sort("id")
    values = {key: np.asarray(result[key], np.float64) for key in ("x_fit", "y_fit", "flux_fit")}
    good = np.all([np.isfinite(column) for column in values.values()], axis=0)
    for column, key in zip(stars, ("x_fit", "y_fit", "flux_fit"), strict=True):
        column[chosen[good]] = values[key][good]
    stars.flux[chosen[~good]] = 0.0
    fit.flags[chosen[~good]] |= int(CrowdedFlag.NOT_FITTED)
    for column, key in ((fit.x_err, "x_err"), (fit.y_err, "y_err"), (fit.flux_err, "flux_err"), (fit.qfit, "qfit"),
                        (fit.chi2, "reduced_chi2")):  # fmt: skip
        column[chosen] = np.asarray(result[key])
    fit.n_group[chosen] = np.asarray(result["group_size"])
    theirs = np.asarray(result["flags"], int)
    for bit, ours in (
        (_PHOTUTILS_NOT_CONVERGED, CrowdedFlag.NOT_CONVERGED),
        (_PHOTUTILS_NEAR_BOUND, CrowdedFlag.AT_BOUND),
    ):
        fit.flags[chosen[(theirs & bit) > 0]] |= int(ours)
