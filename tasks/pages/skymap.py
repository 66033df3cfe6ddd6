"""Where the groups lie on the sky, as the parts of an SVG that the page's own colours and links go into."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

__all__ = ["Mark", "SkyMap", "sky_map"]

_WIDTH, _HEIGHT = 760.0, 390.0
_SCALE = 4.5
"""px a degree of the projection's plane."""
_LETTER, _LINE = 6.4, 13.0
"""Size of the labels' letters as laid out, px."""
_AWAY = ((8.0, 8), (18.0, 12), (30.0, 16), (44.0, 20), (60.0, 24), (80.0, 28))
"""Distances from its point at which a label is tried, and in how many directions."""


class Mark(NamedTuple):
    """A group on the map: its point, its label and the line between them where that is away."""

    name: str
    link: str
    x: float
    y: float
    tx: float
    ty: float
    lx: float
    ly: float
    anchor: str
    leader: bool
    shown: bool


class _Text(NamedTuple):
    x: float
    y: float
    text: str


class SkyMap(NamedTuple):
    """Paths and marks in a box of `width` by `height`."""

    width: float
    height: float
    rim: str
    graticule: str
    galaxy: str
    labels: tuple[_Text, ...]
    marks: tuple[Mark, ...]
    alt: str


@functools.cache
def _projection() -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---AIT", "DEC--AIT"]
    wcs.wcs.crval = [180.0, 0.0]
    wcs.wcs.cdelt = [-1.0, 1.0]
    wcs.wcs.crpix = [1.0, 1.0]
    return wcs


def _on_map(ra: npt.ArrayLike, dec: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    x, y = _projection().all_world2pix(np.asarray(ra, float), np.asarray(dec, float), 0)
    return _WIDTH / 2 + _SCALE / 2 * x, _HEIGHT / 2 - _SCALE / 2 * y


def _path(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> str:
    """A line, broken where it leaves the map on one side and comes back on the other."""
    parts, pen = [], "M"
    for number, (px, py) in enumerate(zip(x, y, strict=True)):
        if number and abs(px - x[number - 1]) > _WIDTH / 3:
            pen = "M"
        parts.append(f"{pen}{px:.1f} {py:.1f}")
        pen = "L"
    return "".join(parts)


@functools.cache
def _frame() -> tuple[str, str, str, tuple[_Text, ...]]:
    dec = np.linspace(-90.0, 90.0, 61)
    east, west = _on_map(np.full(61, 359.999), dec), _on_map(np.full(61, 0.001), dec[::-1])
    rim = _path(np.concatenate([east[0], west[0]]), np.concatenate([east[1], west[1]])).replace("M", "L")
    lines = [_path(*_on_map(np.full(61, float(ra)), dec)) for ra in range(30, 360, 30)]
    ra = np.linspace(0.001, 359.999, 121)
    lines += [_path(*_on_map(ra, np.full(121, float(each)))) for each in range(-60, 90, 30)]
    plane = SkyCoord(l=np.linspace(0.0, 360.0, 181), b=np.zeros(181), unit="deg", frame="galactic").icrs
    labels = []
    for hour in range(2, 24, 4):
        x, y = _on_map(hour * 15.0, 0.0)
        labels.append(_Text(round(float(x), 1), round(float(y) - 3.0, 1), f"{hour} h"))
    for degree in (-60, -30, 30, 60):
        x, y = _on_map(180.0, float(degree))
        labels.append(_Text(round(float(x), 1), round(float(y) - 3.0, 1), f"{degree:+d}°"))
    galaxy = _path(*_on_map(plane.ra.deg, plane.dec.deg))
    return f"M{rim[1:]}Z", "".join(lines), galaxy, tuple(labels)


Box = tuple[float, float, float, float]


def _free(box: Box, taken: Sequence[Box]) -> bool:
    left, top, right, bottom = box
    if left < 0 or top < 0 or right > _WIDTH or bottom > _HEIGHT:
        return False
    return all(right < other[0] or left > other[2] or bottom < other[1] or top > other[3] for other in taken)


def _placed(name: str, link: str, x: float, y: float, taken: list[Box]) -> Mark:
    """The label at the first place around its point where nothing is."""
    width = _LETTER * len(name)
    for distance, directions in _AWAY:
        for number in range(directions):
            # Right first, then left, then between.
            angle = np.pi * ((number % 2) + (number // 2) * 2.0 / directions * (1 if number % 4 < 2 else -1))
            px, py = x + distance * np.cos(angle), y + distance * np.sin(angle)
            anchor = "start" if px > x + 1 else "end" if px < x - 1 else "middle"
            left = px if anchor == "start" else px - width if anchor == "end" else px - width / 2
            box = (left, py - _LINE / 2, left + width, py + _LINE / 2)
            if _free(box, taken):
                taken.append(box)
                beside = px + {"start": 2.0, "end": -2.0, "middle": 0.0}[anchor]
                tx, ty, lx, ly = (round(float(value), 1) for value in (px, py, beside, py + 4.0))
                return Mark(name, link, round(x, 1), round(y, 1), tx, ty, lx, ly, anchor, distance > 10.0, True)
    return Mark(name, link, round(x, 1), round(y, 1), x, y, x, y, "start", False, False)


def sky_map(groups: Sequence[tuple[str, str, float, float]]) -> SkyMap:
    """The map.

    Parameters
    ----------
    groups
        Name, address, right ascension and declination (degrees) of each.
    """
    rim, graticule, galaxy, labels = _frame()
    marks: list[Mark] = []
    if groups:
        x, y = _on_map([group[2] for group in groups], [group[3] for group in groups])
        taken: list[Box] = [(px - 5, py - 5, px + 5, py + 5) for px, py in zip(x, y, strict=True)]
        taken += [(label.x - 14, label.y - 9, label.x + 14, label.y + 2) for label in labels]
        marks = [
            _placed(group[0], group[1], float(px), float(py), taken) for group, px, py in zip(groups, x, y, strict=True)
        ]
    alt = f"Map of the sky with the places of {len(groups)} groups; the table below lists them with their coordinates"
    return SkyMap(_WIDTH, _HEIGHT, rim, graticule, galaxy, labels, tuple(marks), alt)
