"""What is on the sky: field stars, a cluster, blends, galaxies and a spiral, each field drawn from the seed."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from astropy.table import Table, vstack
from numpy.typing import NDArray

from models.simulation import SimulationOptions
from tasks.core.errors import UserError
from tasks.simulation.bands import ALL_BANDS, BANDS, Band, gaia_magnitudes, johnson, locus, natural
from tasks.simulation.extended import spiral_knots
from tasks.simulation.instruments import instrument_of
from tasks.simulation.places import ARCHIVE, Field, field_named
from tasks.simulation.seeds import rng_for

__all__ = ["at_epoch", "field_sources"]

Array = NDArray[np.float64]

_FAINT = 22.5

# The cluster's sequence: r, g - r turned into g - i along the locus; main sequence, turn-off and giants of a
# 4 Gyr cluster at 9.6 mag, reddening included (after Sandquist 2004, MNRAS 347, 101).
_SEQUENCE_R = np.array([9.0, 9.9, 10.3, 11.0, 12.0, 12.6, 12.9, 13.2, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0, 20.0, 22.5])
_SEQUENCE_GI = np.array([1.9, 1.45, 1.15, 1.2, 1.05, 0.95, 0.75, 0.52, 0.56, 0.68, 0.90, 1.22, 1.70, 2.10, 2.40, 3.1])


def _around(rng: np.random.Generator, field: Field, radius: float, n: int) -> tuple[Array, Array]:
    distance = radius * np.sqrt(rng.random(n))
    return _offset(field, distance, rng.random(n) * 2 * np.pi)


def _offset(field: Field, distance: Array, angle: Array) -> tuple[Array, Array]:
    # Tangent-plane offsets (deg) turned into positions; exact enough below a degree for drawing at random.
    dec = field.dec + distance * np.cos(angle)
    ra = (field.ra + distance * np.sin(angle) / np.cos(np.deg2rad(dec))) % 360.0
    return ra, dec


def _counts(rng: np.random.Generator, n: int, bright: float, faint: float, slope: float) -> Array:
    low, high = 10 ** (slope * bright), 10 ** (slope * faint)
    return np.asarray(np.log10(low + rng.random(n) * (high - low)) / slope)


def _field_stars(rng: np.random.Generator, field: Field) -> dict[str, Array]:
    area = np.pi * field.radius**2
    n = rng.poisson(field.density * area * 10 ** (field.slope * (_FAINT - 20.0)))
    ra, dec = _around(rng, field, field.radius, n)
    r = _counts(rng, n, field.bright, _FAINT, field.slope)
    is_dwarf = rng.random(n) < np.clip((r - 13.5) / 9.0, 0.03, 0.62)
    g_minus_i = np.where(is_dwarf, rng.normal(2.2, 0.45, n), 0.40 + rng.gamma(2.4, 0.19, n))
    speed = rng.lognormal(np.log(np.clip(16 - 0.65 * r, 2.0, 12.0)), 0.75, n)
    angle = rng.random(n) * 2 * np.pi
    quick = rng.random(n) < 0.002
    speed = np.where(quick, rng.uniform(100, 400, n), speed)
    return {
        "ra": ra, "dec": dec, "r": r, "gi": np.clip(g_minus_i, -0.3, 3.3),
        "pmra": speed * np.sin(angle) - 2.0, "pmdec": speed * np.cos(angle) - 4.0,
        "parallax": np.clip(rng.lognormal(-0.2, 0.6, n), 0.05, 30.0),
    }  # fmt: skip


def _cluster(rng: np.random.Generator, field: Field) -> dict[str, Array]:
    n = field.cluster
    radius = field.cluster_deg * np.sqrt(1 / rng.uniform(0.045, 1.0, n) - 1)  # Plummer sphere in projection
    ra, dec = _offset(field, np.minimum(radius, 0.75), rng.random(n) * 2 * np.pi)
    r = np.concatenate([_counts(rng, n - n // 12, 12.6, 22.0, 0.10), rng.uniform(9.4, 12.6, n // 12)])
    binary = np.where(rng.random(n) < 0.25, rng.uniform(0.05, 0.75, n), 0.0)
    return {
        "ra": ra, "dec": dec, "r": r - binary + field.cluster_shift, "gi": np.interp(r, _SEQUENCE_R, _SEQUENCE_GI),
        "pmra": rng.normal(-10.97, 0.25, n), "pmdec": rng.normal(-2.92, 0.25, n), "parallax": rng.normal(1.15, 0.01, n),
    }  # fmt: skip


def _companions(rng: np.random.Generator, field: Field, stars: dict[str, Array]) -> dict[str, Array]:
    chosen = np.flatnonzero(rng.random(len(stars["ra"])) < 0.03)
    n = len(chosen)
    angle, apart = rng.random(n) * 2 * np.pi, rng.uniform(0.8, 5.0, n) / 3600
    fainter = rng.uniform(0.0, 3.0, n)
    return {
        "ra": stars["ra"][chosen] + apart * np.sin(angle) / np.cos(np.deg2rad(stars["dec"][chosen])),
        "dec": stars["dec"][chosen] + apart * np.cos(angle),
        "r": stars["r"][chosen] + fainter, "gi": np.clip(stars["gi"][chosen] + 0.3 * fainter, -0.3, 3.3),
        "pmra": stars["pmra"][chosen], "pmdec": stars["pmdec"][chosen], "parallax": stars["parallax"][chosen],
    }  # fmt: skip


def _real_m67(path: str) -> dict[str, Array]:
    wanted = ("ra", "dec", "bp_rp", "phot_g_mean_mag", "pmra", "pmdec", "parallax")
    try:
        table = Table.read(path, format="ascii.csv")[wanted]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"--real-m67: {path} is not a readable CSV table with {' '.join(wanted)}: {str(error).splitlines()[0]}"
        ) from error
    plain: dict[str, Array] = {name: np.ma.filled(np.ma.asarray(table[name], dtype=float), np.nan) for name in wanted}
    g_minus_i = np.clip((np.nan_to_num(plain["bp_rp"], nan=1.5) - 0.35) / 0.78, -0.3, 3.3)
    return {
        "ra": plain["ra"], "dec": plain["dec"], "gi": g_minus_i,
        "r": plain["phot_g_mean_mag"] - 0.02 + 0.05 * g_minus_i + 0.07 * g_minus_i**2,
        "pmra": np.nan_to_num(plain["pmra"]), "pmdec": np.nan_to_num(plain["pmdec"]),
        "parallax": np.nan_to_num(plain["parallax"], nan=0.5),
    }  # fmt: skip


def _galaxies(rng: np.random.Generator, field: Field) -> dict[str, Array]:
    n = rng.poisson(field.galaxies * np.pi * field.radius**2)
    ra, dec = _around(rng, field, field.radius, n)
    r = _counts(rng, n, 14.5, 21.0, 0.42)
    elliptical = rng.random(n) < 0.3
    size = 1.5 * 10 ** (-0.13 * (r - 19.0)) * rng.lognormal(0.0, 0.3, n)
    drawn = {
        "ra": ra, "dec": dec, "r": r,
        "g": r + np.where(elliptical, rng.normal(1.05, 0.12, n), rng.normal(0.65, 0.15, n)),
        "i": r - rng.normal(0.35, 0.06, n), "re": np.clip(size, 0.5, 12.0), "n": np.where(elliptical, 4.0, 1.0),
        "q": rng.uniform(0.35, 1.0, n), "pa": rng.uniform(0, 180, n),
    }  # fmt: skip
    if not field.cluster_galaxies:
        return drawn
    members = _cluster_of_galaxies(rng, field)
    return {key: np.concatenate([drawn[key], members[key]]) for key in drawn}


def _cluster_of_galaxies(rng: np.random.Generator, field: Field) -> dict[str, Array]:
    # Red galaxies about the centre, as many within a radius as the radius is long (an isothermal sphere's).
    n = field.cluster_galaxies
    ra, dec = _offset(field, 0.5 * rng.random(n), rng.random(n) * 2 * np.pi)
    r = _counts(rng, n, 13.0, 20.0, 0.25)
    return {
        "ra": ra, "dec": dec, "r": r, "g": r + rng.normal(0.75, 0.05, n), "i": r - rng.normal(0.38, 0.03, n),
        "re": np.clip(2.5 * 10 ** (-0.15 * (r - 17.0)), 1.0, 12.0), "n": np.full(n, 4.0),
        "q": rng.uniform(0.5, 1.0, n), "pa": rng.uniform(0, 180, n),
    }  # fmt: skip


def _share_with_neighbours(table: Table, field: Field, options: SimulationOptions) -> Table:
    # Where two fields overlap there is one sky: each source belongs to the field whose centre is nearest.
    parts = [table[_nearest(table, field)]]
    for name, _, _ in field.neighbours:
        other = field_named(name)
        theirs = _own_sources(options, name)
        parts.append(theirs[_nearest(theirs, other) & (_apart(theirs, field.ra, field.dec) < field.radius)])
    return vstack(parts)


def _apart(table: Table, ra: float, dec: float) -> Array:
    # A chord in degrees: exact enough to tell which of two places is nearer.
    a, d = np.deg2rad(np.asarray(table["ra"])), np.deg2rad(np.asarray(table["dec"]))
    a0, d0 = np.deg2rad(ra), np.deg2rad(dec)
    square = np.sin((d - d0) / 2) ** 2 + np.cos(d) * np.cos(d0) * np.sin((a - a0) / 2) ** 2
    return np.asarray(np.rad2deg(2 * np.sqrt(square)))


def _nearest(table: Table, field: Field) -> NDArray[np.bool_]:
    own = _apart(table, field.ra, field.dec)
    nearest = np.ones(len(table), dtype=bool)
    for _, ra, dec in field.neighbours:
        nearest &= own <= _apart(table, ra, dec)
    return nearest


@functools.lru_cache(maxsize=4)
def field_sources(options: SimulationOptions, name: str) -> Table:
    """All sources within a field's radius, at epoch 2016.0.

    Returns
    -------
    Table
        ``id field kind ra dec pmra pmdec parallax g r i z y`` (PS1, AB), ``B_J V_J R_C I_C`` (Vega),
        ``B_nat ... Ha_nat`` (the camera's systems), ``G bp_rp``, and for galaxies ``re_arcsec sersic_n axis_ratio
        pa_deg``. ``kind`` is ``star``, ``galaxy`` or ``knot`` (H II regions of the spiral). Positions and motions
        as drawn: errors belong to the catalogues. Parallax is not applied to positions (it is below 20 mas for
        all but a handful).
    """
    table, field = _own_sources(options, name), field_named(name, options.size)
    return _share_with_neighbours(table, field, options) if field.neighbours else table


@functools.lru_cache(maxsize=4)
def _own_sources(options: SimulationOptions, name: str) -> Table:
    """What was drawn for a field, whatever its neighbours have at the same place."""
    field = field_named(name, options.size)
    rng = rng_for(options.seed, "sky", name)
    parts = [_field_stars(rng, field)]
    if field.cluster:
        if options.real_m67 and name == "M67":
            parts = [_real_m67(options.real_m67)]
        else:
            parts.append(_cluster(rng, field))
    merged = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    extra = _companions(rng, field, merged)
    stars = {key: np.concatenate([merged[key], extra[key]]) for key in merged}
    n = len(stars["ra"])
    ps1 = locus(stars["r"], stars["gi"])
    for band in "gizy":  # metallicity and age: the locus has a width
        ps1[band] = ps1[band] + rng.normal(0.0, 0.015, n)
    galaxies = _galaxies(rng, field)
    m = len(galaxies["ra"])
    z = galaxies["i"] - rng.normal(0.2, 0.05, m)
    ps1 = {
        "g": np.concatenate([ps1["g"], galaxies["g"]]),
        "r": np.concatenate([ps1["r"], galaxies["r"]]),
        "i": np.concatenate([ps1["i"], galaxies["i"]]),
        "z": np.concatenate([ps1["z"], z]),
        "y": np.concatenate([ps1["y"], z - 0.1]),
    }
    nothing, missing = np.zeros(m), np.full(n, np.nan)
    table = Table()
    first = field.first_id
    table["id"] = np.arange(first, first + n + m, dtype=np.int64)
    table["field"] = np.full(n + m, name)
    table["kind"] = np.array(["star"] * n + ["galaxy"] * m)
    table["ra"] = np.concatenate([stars["ra"], galaxies["ra"]]) % 360.0
    table["dec"] = np.concatenate([stars["dec"], galaxies["dec"]])
    for key in ("pmra", "pmdec", "parallax"):
        table[key] = np.concatenate([stars[key], nothing])
    _magnitudes(table, ps1, ALL_BANDS if name.startswith(ARCHIVE) else instrument_of(options).bands)
    for column, key in (("re_arcsec", "re"), ("sersic_n", "n"), ("axis_ratio", "q"), ("pa_deg", "pa")):
        table[column] = np.concatenate([missing, galaxies[key]])
    return vstack([table, _knots(rng, field, first + n + m)]) if field.spiral else table


def _magnitudes(table: Table, ps1: dict[str, Array], bands: Mapping[str, Band]) -> None:
    for band, values in ps1.items():
        table[band] = values
    for band, values in johnson(ps1).items():
        table[f"{band}_{'C' if band in 'RI' else 'J'}"] = values
    for band in bands:
        table[f"{band}_nat"] = natural(ps1, band, bands)
    table["G"], table["bp_rp"] = gaia_magnitudes(ps1)


def _knots(rng: np.random.Generator, field: Field, first: int) -> Table:
    # Emission lines follow no locus: what the camera sees in each filter is set, PS1's z and y made up.
    knots = spiral_knots(rng)
    n = len(knots["ra"])
    table = Table()
    table["id"] = np.arange(first, first + n, dtype=np.int64)
    table["field"], table["kind"] = np.full(n, field.name), np.full(n, "knot")
    table["ra"], table["dec"] = knots["ra"] % 360.0, knots["dec"]
    for key in ("pmra", "pmdec", "parallax"):
        table[key] = np.zeros(n)
    bands = ALL_BANDS if field.name.startswith(ARCHIVE) else BANDS
    _magnitudes(table, {band: knots[band] for band in "gri"} | {"z": knots["i"] - 0.1, "y": knots["i"] - 0.15}, bands)
    for band in bands:
        table[f"{band}_nat"] = knots[band]
    table["re_arcsec"], table["sersic_n"] = knots["re"], np.full(n, 0.5)
    table["axis_ratio"], table["pa_deg"] = np.ones(n), np.zeros(n)
    return table


def at_epoch(table: Table, jyear: float) -> tuple[Array, Array]:
    """True positions (deg) at a Julian year: linear proper motion (pmra includes cos dec), no parallax."""
    years = jyear - 2016.0
    dec = np.asarray(table["dec"] + table["pmdec"] * years / 3.6e6)
    ra = np.asarray(table["ra"] + table["pmra"] * years / 3.6e6 / np.cos(np.deg2rad(table["dec"]))) % 360.0
    return ra, dec
