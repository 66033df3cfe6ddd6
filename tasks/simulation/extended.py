"""Extended light: Sersic galaxies and one large spiral with arms, a companion and H II regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy.special import gamma

from models.simulation import TrueWcs
from tasks.simulation.bands import natural
from tasks.simulation.optics import pixel_to_plane, project
from tasks.simulation.places import Body

__all__ = ["SPIRAL", "draw_bodies", "draw_galaxies", "draw_spiral", "spiral_knots"]

Array = NDArray[np.float64]

SPIRAL = {
    "ra": 202.4696, "dec": 47.1953, "companion_ra": 202.4983, "companion_dec": 47.2661,
    "radius_arcsec": 300.0, "scale_length_arcsec": 88.0, "axis_ratio": 0.86, "pa_deg": 20.0,
}  # fmt: skip
_TOTAL = {"B": 9.0, "V": 9.0, "R": 8.1, "g": 8.6, "r": 8.1, "i": 7.8, "Ha": 8.1, "OIII": 8.6}
_BULGE = {"B": 0.05, "V": 0.08, "R": 0.09, "g": 0.07, "r": 0.09, "i": 0.11, "Ha": 0.08, "OIII": 0.08}
_KNOTS = {"B": 0.05, "V": 0.03, "R": 0.03, "g": 0.04, "r": 0.03, "i": 0.02, "Ha": 0.30, "OIII": 0.20}


_NARROW = ("Ha", "OIII")
_GAUSSIAN_RE = 1.1774
_PITCH = np.tan(np.deg2rad(21.0))


def spiral_knots(rng: np.random.Generator, n: int = 220) -> dict[str, Array]:
    """H II regions and young clusters along the arms: ``ra dec re`` (arcsec) and a magnitude for each filter."""
    r = rng.uniform(35.0, 270.0, n)
    turn = np.log(r / 30.0) / _PITCH + np.pi * rng.integers(0, 2, n) + rng.normal(0.0, 0.12, n)
    weight, width = rng.lognormal(0.0, 0.8, n), rng.uniform(1.0, 3.0, n)
    pa, q = np.deg2rad(SPIRAL["pa_deg"]), SPIRAL["axis_ratio"]
    along, across = r * np.cos(turn), r * np.sin(turn) * q
    east, north = along * np.sin(pa) + across * np.cos(pa), along * np.cos(pa) - across * np.sin(pa)
    dec = SPIRAL["dec"] + north / 3600
    knots = {"ra": SPIRAL["ra"] + east / 3600 / np.cos(np.deg2rad(dec)), "dec": dec, "re": width * _GAUSSIAN_RE}
    for band in _TOTAL:
        knots[band] = _TOTAL[band] - 2.5 * np.log10(_KNOTS[band] * weight / weight.sum())
    return knots


def _sersic_flux(re: float, n: float, q: float) -> float:
    # Total flux of a profile exp(-b (r/re)^(1/n)) (Graham & Driver 2005, PASA 22, 118).
    b = 2 * n - 1 / 3 + 4 / (405 * n)
    return float(2 * np.pi * q * n * re**2 * b ** (-2 * n) * gamma(2 * n))


def draw_galaxies(image: Array, table: Table, x: Array, y: Array, flux: Array, wcs: TrueWcs, visible: float) -> None:
    """Add small galaxies to `image` (flux per px, not yet blurred), cut at 6 to 10 half-light radii.

    What falls in the pixel grid is scaled to the whole flux, so that coarse sampling of a core loses nothing.
    """
    rows, columns = image.shape
    scale = 3600 * np.sqrt(abs(np.linalg.det(np.array(wcs.cd))))
    cd = np.array(wcs.cd) * 3600
    for k in np.flatnonzero(flux > visible):
        re = float(table["re_arcsec"][k])
        # An exponential disc has 1e-4 of its light beyond 6 half-light radii, a de Vaucouleurs profile 6 %.
        reach = 6 if float(table["sersic_n"][k]) < 2 else 10
        half = int(min(np.ceil(reach * re / scale), 120)) + 2
        column, row = round(float(x[k])) - 1, round(float(y[k])) - 1
        if not (-half < column < columns + half and -half < row < rows + half):
            continue
        fine = 5 if re < 2 * scale else 3
        offsets = (np.arange((2 * half + 1) * fine) - (2 * half + 1) * fine / 2 + 0.5) / fine
        dx, dy = np.meshgrid(offsets - (x[k] - 1 - column), offsets - (y[k] - 1 - row))
        east, north = cd[0, 0] * dx + cd[0, 1] * dy, cd[1, 0] * dx + cd[1, 1] * dy
        pa, q, n = np.deg2rad(float(table["pa_deg"][k])), float(table["axis_ratio"][k]), float(table["sersic_n"][k])
        along, across = east * np.sin(pa) + north * np.cos(pa), (east * np.cos(pa) - north * np.sin(pa)) / q
        b = 2 * n - 1 / 3 + 4 / (405 * n)
        light = np.exp(-b * (np.hypot(along, across) / re) ** (1 / n))
        stamp = light.reshape(2 * half + 1, fine, 2 * half + 1, fine).sum(axis=(1, 3))
        stamp *= flux[k] / stamp.sum()
        y0, y1 = max(0, row - half), min(rows, row + half + 1)
        x0, x1 = max(0, column - half), min(columns, column + half + 1)
        if y0 < y1 and x0 < x1:
            image[y0:y1, x0:x1] += stamp[y0 - row + half : y1 - row + half, x0 - column + half : x1 - column + half]


def draw_bodies(image: Array, wcs: TrueWcs, band: str, flux_of: float, bodies: Sequence[Body]) -> None:
    """Add large galaxies and nebulae (flux per px, not yet blurred).

    Parameters
    ----------
    image
        The frame's extended light.
    wcs
        The frame's mapping.
    band
        Filter. In a narrow one, gas is brighter by what its body's `lines` say (mag).
    flux_of
        Flux of a source of natural magnitude 0.
    bodies
        What is there; what is far from the frame adds nothing.
    """
    rows, columns = image.shape
    area = 3600**2 * abs(np.linalg.det(np.array(wcs.cd)))
    half = 0.5 * np.hypot(rows, columns) * np.sqrt(area)
    near = []
    for body in bodies:
        x0, y0 = project(np.array([body.ra]), np.array([body.dec]), wcs.crval)
        if 3600 * np.hypot(x0[0], y0[0]) < half + 8 * body.re:
            near.append((body, x0[0], y0[0]))
    if not near:
        return
    y, x = np.mgrid[1 : rows + 1, 1 : columns + 1].astype(float)
    xi, eta = pixel_to_plane(wcs, x, y)
    for body, x0, y0 in near:
        east, north = (xi - x0) * 3600, (eta - y0) * 3600
        pa = np.deg2rad(body.pa_deg)
        along, across = east * np.sin(pa) + north * np.cos(pa), (east * np.cos(pa) - north * np.sin(pa)) / body.q
        radius = np.hypot(along, across)
        ps1 = {"r": np.array([body.r]), "g": np.array([body.r + body.colours[0]]),
               "i": np.array([body.r - body.colours[1]])}  # fmt: skip
        magnitude = float(natural(ps1, band)[0]) - (body.lines if band in _NARROW else 0.0)
        if body.kind == "shell":
            width = 0.25 * body.re
            light = np.exp(-(((radius - body.re) / width) ** 2)) + 0.35 * np.exp(-((radius / body.re) ** 4))
            total = 2 * np.pi * body.q * (body.re * width * np.sqrt(np.pi) + 0.35 * body.re**2 * np.sqrt(np.pi) / 4)
        else:
            b = 2 * body.n - 1 / 3 + 4 / (405 * body.n)
            # A core that the pixels resolve: the profile's cusp would depend on where in a pixel it falls.
            light = np.exp(-b * (np.hypot(radius, 0.7) / body.re) ** (1 / body.n))
            total = _sersic_flux(body.re, body.n, body.q)
        image += flux_of * 10 ** (-0.4 * magnitude) * area * light / total


def draw_spiral(image: Array, wcs: TrueWcs, band: str, flux_of: float, knots: Table) -> None:
    """Add the spiral at M51's place and its companion (flux per px, not yet blurred).

    Parameters
    ----------
    image
        The frame's extended light.
    wcs
        The frame's mapping.
    band
        Filter.
    flux_of
        Flux of a source of natural magnitude 0.
    knots
        H II regions and young clusters, as `spiral_knots` placed them.
    """
    rows, columns = image.shape
    y, x = np.mgrid[1 : rows + 1, 1 : columns + 1].astype(float)
    xi, eta = pixel_to_plane(wcs, x, y)
    zero = np.zeros(1)
    x0, y0 = project(zero + SPIRAL["ra"], zero + SPIRAL["dec"], wcs.crval)
    east, north = (xi - x0[0]) * 3600, (eta - y0[0]) * 3600
    pa, q, h = np.deg2rad(SPIRAL["pa_deg"]), SPIRAL["axis_ratio"], SPIRAL["scale_length_arcsec"]
    along, across = east * np.sin(pa) + north * np.cos(pa), (east * np.cos(pa) - north * np.sin(pa)) / q
    radius = np.hypot(along, across) + 1e-6
    angle = np.arctan2(across, along)
    total = flux_of * 10 ** (-0.4 * _TOTAL[band])
    area = 3600**2 * abs(np.linalg.det(np.array(wcs.cd)))

    phase = 2 * (angle - np.log(radius / 30.0) / _PITCH)
    arms = 1 + 0.75 * np.tanh(radius / 40.0) * np.cos(phase) + 0.25 * np.cos(2 * phase + 0.7)
    edge = 1 / (1 + np.exp((radius - SPIRAL["radius_arcsec"]) / 12.0))
    dust = 1 - 0.35 * np.exp(-(((np.cos(phase / 2 + 0.5)) ** 2 - 0.9) ** 2) / 0.01) * np.exp(-radius / 150.0)
    disc = np.exp(-radius / h) * np.clip(arms, 0.05, None) * edge * dust / (2 * np.pi * h**2 * q)
    image += total * (1 - _BULGE[band] - _KNOTS[band]) * area * disc
    image += total * _BULGE[band] * area * np.exp(-radius / 9.0) / (2 * np.pi * 81.0 * q)

    kx, ky = project(np.asarray(knots["ra"]), np.asarray(knots["dec"]), wcs.crval)
    flux = flux_of * 10 ** (-0.4 * np.asarray(knots[f"{band}_nat"]))
    for k in range(len(knots)):
        de, dn = (kx[k] - x0[0]) * 3600, (ky[k] - y0[0]) * 3600
        width = float(knots["re_arcsec"][k]) / _GAUSSIAN_RE
        _knot(image, east, north, de, dn, width, flux[k] * area, wcs, (x0[0], y0[0]))

    cx, cy = project(zero + SPIRAL["companion_ra"], zero + SPIRAL["companion_dec"], wcs.crval)
    de, dn = (xi - cx[0]) * 3600, (eta - cy[0]) * 3600
    r4 = np.sqrt(de**2 + (dn / 0.8) ** 2 + 0.5)
    light = np.exp(-3.67 * ((r4 / 22.0) ** 0.5 - 1)) / (1 + np.exp((r4 - 140.0) / 10.0))
    image += total * 0.22 * area * light / (_sersic_flux(22.0, 2.0, 0.8) * np.exp(3.67))


def _knot(
    image: Array, east: Array, north: Array, de: float, dn: float, width: float, flux: float, wcs: TrueWcs,
    centre: tuple[float, float],
) -> None:  # fmt: skip
    # Only the pixels around the knot: find them through the linear part of the mapping.
    inverse = np.linalg.inv(np.array(wcs.cd))
    u, v = inverse @ np.array([centre[0] + de / 3600, centre[1] + dn / 3600])
    column, row, half = round(u + wcs.crpix[0]) - 1, round(v + wcs.crpix[1]) - 1, int(5 * width / 0.77) + 4
    rows, columns = image.shape
    box = (
        slice(max(0, row - half), max(0, min(rows, row + half + 1))),
        slice(max(0, column - half), max(0, min(columns, column + half + 1))),
    )
    r2 = (east[box] - de) ** 2 + (north[box] - dn) ** 2
    image[box] += flux * np.exp(-r2 / (2 * width**2)) / (2 * np.pi * width**2)
