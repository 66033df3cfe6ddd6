"""Places on the sky and what is there: the demonstration's two fields, and one for each target group of the release."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord

from models.base import Record
from models.target import Target, load_targets
from tasks.catalogs import separation

__all__ = ["ARCHIVE", "CATALOGUE_RADIUS", "FIELDS", "Body", "Field", "archive_field", "field_named"]

CATALOGUE_RADIUS = 0.8
"""Cone of the catalogues about a field, deg: half a frame's diagonal, the worst header pointing, and a margin."""
ARCHIVE = "archive/"
"""What the names of the groups' fields begin with."""
_MERGED_RADIUS = 1.1
"""The same for merged groups, which are 0.5 deg wide."""


class Body(Record):
    """Something extended: a Sersic profile, or a shell that the gas of a nebula fills."""

    kind: Literal["sersic", "shell"]
    ra: float
    dec: float
    r: float
    colours: tuple[float, float]
    re: float
    n: float = 1.0
    q: float = 1.0
    pa_deg: float = 0.0
    lines: float = 0.0


class Field(Record):
    """A place on the sky and what is there.

    `density`: stars per square degree to r = 20, their `slope` in dex/mag, `bright` the brightest of them; `galaxies`
    per square degree to r = 21; a `cluster` of so many stars, `cluster_deg` its Plummer radius, `cluster_shift` how
    much fainter than M67's it is; a rich cluster of `cluster_galaxies`.
    """

    name: str
    ra: float
    dec: float
    density: float
    slope: float
    bright: float
    galaxies: float
    cluster: int = 0
    cluster_deg: float = 0.16
    cluster_shift: float = 0.0
    cluster_galaxies: int = 0
    spiral: bool = False
    bodies: tuple[Body, ...] = ()
    radius: float = CATALOGUE_RADIUS
    neighbours: tuple[tuple[str, float, float], ...] = ()
    first_id: int = 1


FIELDS = {
    "M51": Field(
        name="M51", ra=202.4696, dec=47.1953, density=2000, slope=0.20, bright=10.0, galaxies=2600, spiral=True
    ),
    "M67": Field(
        name="M67", ra=132.8479, dec=11.8150, density=4500, slope=0.22, bright=9.5, galaxies=1500, cluster=1100,
        first_id=10_000_001,
    ),
    "M13": Field(
        name="M13", ra=250.4235, dec=36.4613, density=2400, slope=0.20, bright=10.0, galaxies=2000, cluster=6000,
        cluster_deg=0.03, cluster_shift=2.5, first_id=20_000_001,
    ),
}  # fmt: skip

# Apparent size and light, as catalogues give them to a tenth (r mag, half-light radius in arcsec, axis ratio, PA).
_GALAXIES: dict[str, tuple[float, float, float, float]] = {
    "Aspirateur": (9.5, 110, 0.60, 68), "M49": (8.0, 100, 0.81, 155), "M60": (8.4, 70, 0.81, 105),
    "M63": (8.3, 120, 0.57, 105), "M64": (8.2, 100, 0.54, 115), "M81": (6.6, 180, 0.52, 157),
    "M82": (8.1, 80, 0.38, 65), "M87": (8.2, 80, 0.80, 155), "M91": (9.8, 80, 0.79, 150),
    "M99": (9.6, 85, 0.87, 0), "M104": (7.7, 75, 0.41, 90), "M105_group": (8.9, 40, 0.88, 71),
    "M108": (9.7, 110, 0.26, 80), "Markarian": (8.7, 60, 0.87, 135), "NGC2768": (9.6, 50, 0.52, 95),
    "NGC3377": (10.0, 35, 0.58, 35), "NGC3718": (10.3, 90, 0.49, 15), "NGC4008": (11.8, 20, 0.53, 167),
    "NGC4365": (9.2, 55, 0.72, 40), "NGC4494": (9.5, 45, 0.74, 0), "NGC5557": (10.7, 25, 0.85, 95),
    "NGC5566": (10.3, 45, 0.34, 35), "NGC5813": (10.2, 50, 0.72, 145),
}  # fmt: skip
_OTHERS: dict[str, tuple[tuple[float, float, float, float, float, float], ...]] = {
    "M105_group": ((162.0704, 12.6293, 9.5, 35, 0.46, 53),),
    "Markarian": ((186.5492, 12.9460, 8.5, 75, 0.65, 130),),
    "M60": ((190.8863, 11.5828, 11.9, 30, 0.80, 160),),
    "Coma": ((194.8988, 27.9593, 11.4, 35, 0.90, 40), (195.0339, 27.9770, 11.2, 32, 0.75, 82)),
    "AWM7": ((43.6137, 41.5797, 11.7, 30, 0.65, 90),),
}
"""Large galaxies besides the first, or where the group is a cluster: position and the same four."""
_SHELLS: dict[str, tuple[float, float, float]] = {"M1": (8.4, 140, 0.68), "M57": (8.8, 32, 0.80), "M97": (9.9, 90, 1.0)}


def _galaxy(ra: float, dec: float, r: float, re: float, q: float, pa: float, type: str) -> Body:
    old = any(word in type for word in ("Elliptical", "Lenticular", "cluster"))
    return Body(
        kind="sersic", ra=ra, dec=dec, r=r, colours=(0.78, 0.40) if old else (0.55, 0.28), re=re, n=4.0 if old else 1.3,
        q=q, pa_deg=pa, lines=0.0 if old else 0.2,
    )  # fmt: skip


def _bodies(target: Target) -> tuple[Body, ...]:
    found = []
    if target.name in _GALAXIES and target.name not in ("M105_group", "Markarian"):
        found.append(_galaxy(target.ra, target.dec, *_GALAXIES[target.name], target.type))
    elif target.name in _GALAXIES:
        first = {"M105_group": (161.9567, 12.5817), "Markarian": (186.2656, 12.8870)}[target.name]
        found.append(_galaxy(*first, *_GALAXIES[target.name], "Elliptical"))
    found += [_galaxy(*other, "Elliptical") for other in _OTHERS.get(target.name, ())]
    if target.name in _SHELLS:
        r, size, q = _SHELLS[target.name]
        shell = Body(
            kind="shell", ra=target.ra, dec=target.dec, r=r, colours=(0.1, 0.2), re=size, q=q, pa_deg=45, lines=1.5
        )
        found.append(shell)
    return tuple(found)


@functools.cache
def archive_field(group: str) -> Field:
    """The sky at a target group: stars as many as its galactic latitude has, and its kind of object.

    Parameters
    ----------
    group
        A group of the shipped table.
    """
    targets = load_targets()
    target = targets[group]
    here = SkyCoord(target.ra * u.deg, target.dec * u.deg)
    # A plane-parallel Galaxy: the column of stars grows with 1 / sin b, to what crowding in the plane allows.
    latitude = abs(float(here.galactic.b.deg))
    density = 1800.0 / np.sin(np.deg2rad(max(latitude, 7.0)))
    near = sorted(
        (float(separation(target.ra, target.dec, other.ra, other.dec)), other.name) for other in targets.values()
    )
    count, radius, shift = 0, 0.16, 0.0
    if "Open cluster" in target.type:
        count, radius, shift = {"NGC2158": (1500, 0.03, 3.0), "M67": (1100, 0.16, 0.0)}.get(group, (500, 0.14, 0.5))
    elif "Globular" in target.type:
        count, radius, shift = 6000, 0.03, 2.5
    return Field(
        name=ARCHIVE + group, ra=target.ra, dec=target.dec, density=density, slope=0.20 if latitude > 20 else 0.24,
        bright=9.5, galaxies=2600 if latitude > 20 else 800, cluster=count, cluster_deg=radius, cluster_shift=shift,
        cluster_galaxies=260 if "Galaxy cluster" in target.type else 0, spiral=group == "M51",
        bodies=_bodies(target), radius=_MERGED_RADIUS if target.merged else CATALOGUE_RADIUS,
        neighbours=tuple(
            (ARCHIVE + name, targets[name].ra, targets[name].dec)
            for apart, name in near if name != group and apart < 2 * _MERGED_RADIUS
        ),
        first_id=1_000_000_001 + 20_000_000 * list(targets).index(group),
    )  # fmt: skip


_USUAL_SIDE = 2048
_REACH_DEG = 0.25
"""Beyond a corner of the chip: dithers, and what a catalogue must have around a frame."""


def field_named(name: str, side: int = _USUAL_SIDE) -> Field:
    """A field by the name that frames give it, wide enough for a chip of `side` pixels."""
    field = archive_field(name.removeprefix(ARCHIVE)) if name.startswith(ARCHIVE) else FIELDS[name]
    if side <= _USUAL_SIDE:
        return field
    corner = side / 2**0.5 * 0.78 / 3600.0
    return field.model_copy(update={"radius": max(field.radius, 1.2 * corner + _REACH_DEG)})
