"""A made-up sky and the source lists a camera would make of it: truth known, no image needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from models.base import Roots
from models.catalog import Cone, StoredCone
from models.frame import MeasuredFrame, Quality, RawFrame, ReducedFrame
from tasks.catalogs import at_epoch, store_cone
from tasks.core.files import ref

SHAPE = (1024, 1024)


@dataclass(frozen=True)
class Camera:
    """Truth: sky to pixel by formula, written apart from the code under test."""

    ra: float = 132.85
    dec: float = 11.81
    scale: float = 0.77
    angle: float = -90.0
    parity: int = -1
    radial: float = 3e-9
    skew: float = 2e-7
    shape: tuple[int, int] = SHAPE

    def pixels(self, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, d = np.radians(ra - self.ra), np.radians(dec)
        s0, c0 = np.sin(np.radians(self.dec)), np.cos(np.radians(self.dec))
        depth = np.sin(d) * s0 + np.cos(d) * c0 * np.cos(a)
        east = np.degrees(np.cos(d) * np.sin(a) / depth) * 3600 / self.scale
        north = np.degrees((np.sin(d) * c0 - np.cos(d) * s0 * np.cos(a)) / depth) * 3600 / self.scale
        east, north = np.where(depth > 0.5, east, 1e9), np.where(depth > 0.5, north, 1e9)
        # +y points to position angle `angle`; +x is at its right or left hand by parity (east is left of north).
        t = np.radians(self.angle)
        v = east * np.sin(t) + north * np.cos(t)
        u = (east * np.cos(t) - north * np.sin(t)) * self.parity
        with np.errstate(over="ignore"):
            r2 = np.minimum(u**2 + v**2, 1e8)
        x = u * (1 + self.radial * r2) + self.skew * u * v
        y = v * (1 + self.radial * r2) - self.skew * u * u
        return x + (self.shape[1] + 1) / 2, y + (self.shape[0] + 1) / 2


def gaia_table(n: int, ra: float, dec: float, radius: float, seed: int) -> Table:
    """Gaia-like rows: luminosity function, proper motions, some rows without them."""
    rng = np.random.default_rng(seed)
    r, t = radius * np.sqrt(rng.random(n)), 2 * np.pi * rng.random(n)
    mag = 20.5 - rng.exponential(1.9, n)
    table = Table()
    table["source_id"] = np.arange(1, n + 1, dtype="i8") + 10**15
    table["ra"] = ra + r * np.cos(t) / np.cos(np.radians(dec))
    table["dec"] = dec + r * np.sin(t)
    without = (rng.random(n) < 0.1) & (mag > 15)
    table["pmra"] = np.where(without, np.nan, rng.normal(-5, 10, n))
    table["pmdec"] = np.where(without, np.nan, rng.normal(-3, 10, n))
    table["parallax"] = np.where(without, np.nan, 0.5)
    table["ra_error"] = np.full(n, 0.1)
    table["dec_error"] = np.full(n, 0.1)
    table["phot_g_mean_mag"] = np.clip(mag, 9, 21)
    table["bp_rp"] = rng.normal(1.0, 0.3, n)
    return table


def stored(table: Table, ra: float, dec: float, radius: float, roots: Roots) -> StoredCone:
    return store_cone("gaia", Cone(ra=ra, dec=dec, radius=radius), table, roots, "simulation", "Gaia DR3")


def raw_frame(
    name: str, jyear: float, telescope: str = "T120", band: str = "r", shape: tuple[int, int] = SHAPE
) -> RawFrame:
    start = datetime(2000, 1, 1, 12, tzinfo=UTC) + timedelta(days=(jyear - 2000) * 365.25)
    return RawFrame(
        path=f"{name}.fits", digest="0" * 64, name=name, kind="science", why="test", telescope=telescope,
        night=start.strftime("%Y%m%d"), date_obs=start, exptime=60.0, binning=2, shape=shape, filter=band,
    )  # fmt: skip


def source_table(
    gaia: Table, camera: Camera, jyear: float, seed: int, limit: float = 19.5, spurious: int = 30, zero: float = 27.0
) -> tuple[Table, np.ndarray]:
    """The source list of a frame (brightest first) and the id of the star behind each row (-1: none)."""
    rng = np.random.default_rng(seed)
    true = gaia.copy()
    for name in ("pmra", "pmdec"):  # a star without a measured motion moves all the same
        true[name] = np.where(np.isfinite(true[name]), true[name], rng.normal(-4, 6, len(true)))
    moved = at_epoch(true, jyear)
    x, y = camera.pixels(np.asarray(moved["RA"]), np.asarray(moved["DEC"]))
    mag = np.asarray(moved["G"]) + rng.normal(0, 0.3, len(moved))
    inside = (x > 3) & (x < camera.shape[1] - 2) & (y > 3) & (y < camera.shape[0] - 2) & (mag < limit)
    x, y, mag, ids = x[inside], y[inside], mag[inside], np.asarray(moved["SOURCE_ID"])[inside]
    flux = 10 ** (0.4 * (zero - mag))
    x = np.r_[x, rng.uniform(1, camera.shape[1], spurious)]
    y = np.r_[y, rng.uniform(1, camera.shape[0], spurious)]
    flux = np.r_[flux, 10 ** rng.uniform(3, 5, spurious)]
    ids = np.r_[ids, np.full(spurious, -1)]
    fwhm = np.where(ids > 0, 3.5, 1.2)
    snr = flux / np.sqrt(flux + 900.0 * 40)
    error = fwhm / 2.355 / snr
    peak = flux / (1.13 * fwhm**2)
    table = Table()
    table["X"], table["Y"] = x + rng.normal(0, error), y + rng.normal(0, error)
    table["FLUX"], table["FLUX_ERR"], table["PEAK"] = flux, flux / snr, np.minimum(peak, 65000)
    table["A"], table["B"], table["THETA"] = fwhm / 2.355, fwhm / 2.355, np.zeros(len(x))
    table["FLUX_RADIUS"], table["FWHM_PX"], table["SNR"] = fwhm / 2, fwhm, snr
    table["FLAGS"] = np.zeros(len(x), dtype="i4")
    order = np.argsort(-flux)
    return table[order], ids[order]


def measured_frame(raw: RawFrame, sources: Table, roots: Roots) -> MeasuredFrame:
    path = roots.data / ".cache" / "sources" / str(raw.year) / raw.telescope / raw.night / f"{raw.name}.fits"
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(sources, name="SOURCES")]).writeto(path, overwrite=True)
    file = ref(path, roots)
    quality = Quality(
        fwhm_px=3.5, fwhm_arcsec=2.7, elongation=1.0, sky_adu=600.0, sky_sigma=20.0, saturated_fraction=0.0,
        n_sources=len(sources),
    )  # fmt: skip
    reduced = ReducedFrame(raw=raw, file=file, bias=None, flat=None, gain=1.5, read_noise=8.0, masked_fraction=0.0)
    return MeasuredFrame(reduced=reduced, quality=quality, sources=file)


def make_roots(folder: Path) -> Roots:
    (folder / "raw").mkdir(parents=True, exist_ok=True)
    return Roots(data=folder, raw=folder / "raw")


__all__ = ["Camera", "gaia_table", "make_roots", "measured_frame", "raw_frame", "replace", "source_table", "stored"]
