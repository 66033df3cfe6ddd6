"""Gaia and PS1 as the archives would answer for a simulated sky, errors and flaws included."""

from __future__ import annotations

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from models.simulation import SimulationOptions
from tasks.simulation.seeds import rng_for
from tasks.simulation.sky import at_epoch, field_sources

__all__ = ["GAIA_LIMIT", "gaia_table", "ps1_table"]

Array = NDArray[np.float64]

GAIA_LIMIT = 20.5
_PS1_LIMITS = {"g": 23.3, "r": 23.2, "i": 23.1, "z": 22.3, "y": 21.4}
_PS1_SATURATION = {"g": 14.0, "r": 14.0, "i": 14.0, "z": 13.3, "y": 12.6}
_PS1_EPOCH = 2013.0


def _scatter(rng: np.random.Generator, ra: Array, dec: Array, mas: Array) -> tuple[Array, Array]:
    east, north = rng.normal(0.0, mas), rng.normal(0.0, mas)
    return (ra + east / 3.6e6 / np.cos(np.deg2rad(dec))) % 360.0, dec + north / 3.6e6


def gaia_table(options: SimulationOptions, field: str) -> Table:
    """Gaia's answer: epoch 2016.0, G < 20.5, errors after EDR3 (Lindegren et al. 2021, A&A 649, A2, table 4).

    7 % of the stars (mostly faint and close pairs) have two-parameter solutions: no motion, no parallax, larger
    errors. Some cores of galaxies and knots of the spiral are in, as in Gaia.
    """
    sources = field_sources(options, field)
    rng = rng_for(options.seed, "gaia", field)
    n = len(sources)
    is_star = np.asarray(sources["kind"]) == "star"
    g = np.asarray(sources["G"]) + np.where(is_star, 0.0, 1.0)
    keep = (g + rng.normal(0, 0.003, n) < GAIA_LIMIT) & (is_star | (rng.random(n) < 0.25))
    error = 0.015 + 0.45 * 10 ** (0.32 * (np.clip(g, 13.0, 21.0) - 20.0))
    two = rng.random(n) < np.where(is_star, np.interp(g, [12, 17, 19, 20.5], [0.02, 0.04, 0.08, 0.16]), 1.0)
    error = np.where(two, 4 * error + 0.2, error)
    ra, dec = _scatter(rng, np.asarray(sources["ra"]), np.asarray(sources["dec"]), error)

    def measured(name: str, factor: float) -> Array:
        values = np.asarray(sources[name]) + rng.normal(0.0, error * factor)
        return np.where(two, np.nan, values)

    table = Table()
    # Gaia's identifiers carry the HEALPix cell in their upper bits; ours only look like them.
    table["source_id"] = (
        np.int64(604_000_000_000_000_000) if field.endswith("M67") else np.int64(1_550_000_000_000_000_000)
    ) + (np.asarray(sources["id"]) * np.int64(4_294_967))
    table["ra"], table["dec"] = ra, dec
    table["pmra"], table["pmdec"] = measured("pmra", 1.1), measured("pmdec", 1.0)
    table["parallax"] = measured("parallax", 1.1)
    table["ra_error"], table["dec_error"] = error, error * 0.95
    table["phot_g_mean_mag"] = g + rng.normal(0, 0.003, n)
    colour = np.asarray(sources["bp_rp"]) + rng.normal(0, np.interp(g, [13, 18, 20.5], [0.005, 0.03, 0.2]), n)
    table["bp_rp"] = np.where(rng.random(n) < 0.01, np.nan, colour)
    return table[keep]


def ps1_table(options: SimulationOptions, field: str) -> Table:
    """PS1's answer: mean positions of about 2013 without proper motion, PSF and Kron magnitudes.

    Stars brighter than about 14 mag are saturated: biased, of scattered magnitudes, without the good-stack flags.
    PSF - Kron is 0 +- 0.02 for stars and grows with size for galaxies. A band not detected is NaN.
    """
    sources = field_sources(options, field)
    rng = rng_for(options.seed, "ps1", field)
    n = len(sources)
    is_star = np.asarray(sources["kind"]) == "star"
    ra, dec = at_epoch(sources, _PS1_EPOCH)
    ra, dec = _scatter(rng, ra, dec, np.interp(np.asarray(sources["r"]), [14, 19, 22], [8.0, 15.0, 60.0]))
    # A galaxy's PSF magnitude misses its wings, more so the larger it is against the seeing of 1.2 arcsec.
    size = np.nan_to_num(np.asarray(sources["re_arcsec"]), nan=0.0)
    missed = np.where(is_star, 0.0, 0.08 + 1.1 * np.log10(1 + size / 0.6))
    columns: dict[str, Array] = {}
    detections = np.zeros(n, dtype=np.int32)
    saturated = np.zeros(n, dtype=bool)
    for band, limit in _PS1_LIMITS.items():
        true = np.asarray(sources[band])
        noise = np.hypot(0.004, 0.2 * 10 ** (0.4 * (np.minimum(true, limit + 1) - limit)))
        psf = true + missed + rng.normal(0.0, noise)
        kron = true + rng.normal(0.0, np.hypot(noise, 0.012)) - np.where(is_star, 0.0, -0.03)
        over = true < _PS1_SATURATION[band]
        depth = np.clip(_PS1_SATURATION[band] - true, 0.0, 5.0)
        psf = np.where(over, psf + 0.05 + 0.22 * depth + rng.normal(0.0, 0.04 + 0.12 * depth), psf)
        kron = np.where(over, kron + 0.10 * depth + rng.normal(0.0, 0.05 + 0.1 * depth), kron)
        seen = (true + missed < limit) & (rng.random(n) > 0.006)
        columns[f"{band}MeanPSFMag"] = np.where(seen, psf, np.nan)
        columns[f"{band}MeanPSFMagErr"] = np.where(seen, noise * rng.lognormal(0.0, 0.1, n), np.nan)
        columns[f"{band}MeanKronMag"] = np.where(seen & (rng.random(n) > 0.01), kron, np.nan)
        detections += np.where(seen, rng.integers(6, 16, n), 0).astype(np.int32)
        saturated |= over
    # GOOD 4, GOOD_STACK 16, PRIMARY 32, extended 1; SUSPECT_STACK 64 (Flewelling et al. 2020, table 13).
    flags = np.where(saturated, 64 | 32, 4 | 16 | 32) | np.where(is_star, 0, 1)
    table = Table()
    table["objID"] = np.int64(120_000_000_000_000_000) + np.asarray(sources["id"]) * np.int64(1_000_003)
    table["raMean"], table["decMean"] = ra, dec
    table["nDetections"] = detections
    table["qualityFlag"] = flags.astype(np.int32)
    for name, values in columns.items():
        table[name] = values
    return table[detections > 1]
