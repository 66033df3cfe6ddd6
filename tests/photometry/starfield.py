"""A made-up field of stars as a reduced, measured and solved frame, with its PS1 cone: truth known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS, Sip

from models.base import Roots
from models.catalog import Cone, StoredCone
from models.frame import PlateSolution, RawFrame, ReducedFrame, SolvedFrame
from models.settings import QualitySettings
from models.telescope import Telescope
from tasks.catalogs import store_cone
from tasks.core.files import ref
from tasks.quality import measure_frame

RA, DEC, SCALE = 202.47, 47.20, 0.77


def sip_wcs(shape: tuple[int, int], distortion: float = 4e-9) -> WCS:
    """A TAN-SIP of the T120: rotated by about 90 degrees, with a small radial distortion."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.wcs.crval = [RA, DEC]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    t, s = np.radians(-91.0), SCALE / 3600
    wcs.wcs.cd = s * np.array([[-np.cos(t), np.sin(t)], [np.sin(t), np.cos(t)]])
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[3, 0] = a[1, 2] = b[0, 3] = b[2, 1] = distortion
    ap, bp = -a, -b
    wcs.sip = Sip(a, b, ap, bp, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def moffat_field(
    shape: tuple[int, int], x: np.ndarray, y: np.ndarray, flux: np.ndarray, fwhm: float, beta: float
) -> np.ndarray:
    """Round Moffat stars (zero-based positions), each pixel the mean of 3 x 3 points in it; drawn to 12 FWHM."""
    image = np.zeros(shape)
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    reach = int(12 * fwhm)
    for xs, ys, fs in zip(x, y, flux, strict=True):
        top, left = max(0, round(ys) - reach), max(0, round(xs) - reach)
        bottom, right = min(shape[0], round(ys) + reach + 1), min(shape[1], round(xs) + reach + 1)
        if top >= bottom or left >= right:
            continue
        rows, columns = np.arange(top, bottom)[:, None], np.arange(left, right)[None, :]
        light = sum(
            (1 + ((columns + dx - xs) ** 2 + (rows + dy - ys) ** 2) / alpha2) ** -beta
            for dx in (-1 / 3, 0, 1 / 3)
            for dy in (-1 / 3, 0, 1 / 3)
        )
        image[top:bottom, left:right] += fs * (beta - 1) / (np.pi * alpha2) * light / 9
    return image


@dataclass(frozen=True)
class StarField:
    """What is on the sky and how it is observed; `make` writes it to disk."""

    n_stars: int = 250
    n_galaxies: int = 30
    shape: tuple[int, int] = (640, 640)
    zero_point: float = 23.3
    colour_term: float = -0.035
    curvature: float = 0.0
    distortion: float = 4e-9
    colour_range: tuple[float, float] = (0.2, 1.4)
    fwhm: float = 3.6
    beta: float = 3.0
    exptime: float = 60.0
    sky: float = 400.0
    gain: float = 1.5
    band: str = "r"
    brightest: float = 14.0
    faintest: float = 20.5
    min_separation: float = 0.0
    masked: float = 0.0
    cosmic_rays: int = 0
    saturation: float = 60000.0
    seed: int = 1
    name: str = "M51_-0001r60"
    beyond_edge: float = 20.0

    def but(self, **changes: object) -> StarField:
        return replace(self, **changes)

    def catalogue(self) -> tuple[np.ndarray, np.ndarray, Table]:
        """Zero-based positions and the PS1 rows of stars, then galaxies."""
        rng = np.random.default_rng(self.seed)
        n = self.n_stars + self.n_galaxies
        x = rng.uniform(-self.beyond_edge, self.shape[1] + self.beyond_edge, 4 * n)
        y = rng.uniform(-self.beyond_edge, self.shape[0] + self.beyond_edge, 4 * n)
        if self.min_separation:
            chosen: list[int] = []
            for i in range(4 * n):
                if len(chosen) < n and all(np.hypot(x[i] - x[j], y[i] - y[j]) > self.min_separation for j in chosen):
                    chosen.append(i)
            x, y = x[chosen], y[chosen]
        x, y = x[:n], y[:n]
        n = x.size
        r = rng.uniform(self.brightest, self.faintest, n)
        gr = rng.uniform(*self.colour_range, n)
        world = sip_wcs(self.shape, self.distortion).all_pix2world(np.column_stack([x, y]), 0)
        table = Table()
        table["objID"] = np.arange(n) + 10**17
        table["raMean"], table["decMean"] = world.T
        table["nDetections"], table["qualityFlag"] = 30, 52
        galaxy = np.arange(n) >= self.n_stars
        for name, mag in {"g": r + gr, "r": r, "i": r - 0.4 * gr, "z": r - 0.6 * gr, "y": r - 0.7 * gr}.items():
            noise = rng.normal(0, 0.005, n)
            table[f"{name}MeanPSFMag"] = mag + noise + np.where(galaxy, 0.5, 0)
            table[f"{name}MeanPSFMagErr"] = 0.005
            table[f"{name}MeanKronMag"] = mag + rng.normal(0, 0.01, n)
        return x, y, table

    def natural(self, table: Table) -> np.ndarray:
        g, r = np.asarray(table["gMeanKronMag"]), np.asarray(table["rMeanKronMag"])
        return {"r": r, "g": g, "B": g, "Ha": r}[self.band] + self.colour_term * (g - r) + self.curvature * (g - r) ** 2

    def image(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Data (ADU), mask, variance."""
        rng = np.random.default_rng(self.seed + 1000)
        x, y, table = self.catalogue()
        flux = self.exptime * 10 ** (-0.4 * (self.natural(table) - self.zero_point))
        galaxy = np.arange(x.size) >= self.n_stars
        light = moffat_field(self.shape, x[~galaxy], y[~galaxy], flux[~galaxy], self.fwhm, self.beta)
        light += moffat_field(self.shape, x[galaxy], y[galaxy], flux[galaxy], 1.8 * self.fwhm, 2.5)
        light += self.sky
        data = rng.poisson(light * self.gain) / self.gain + rng.normal(0, 5, self.shape)
        mask = np.zeros(self.shape, np.uint8)
        mask[data > self.saturation] = 2
        data = np.minimum(data, self.saturation * 1.08)
        spoiled = rng.random(self.shape) < self.masked
        mask[spoiled] |= 1
        data[spoiled] = 64000
        for _ in range(self.cosmic_rays):  # not masked: narrow and bright, as an imperfect rejection leaves them
            iy, ix = rng.integers(5, np.array(self.shape) - 5)
            data[iy : iy + 2, ix : ix + 3] += rng.uniform(2000, 9000)
        return data.astype(np.float32), mask, (light / self.gain + 25 / self.gain**2).astype(np.float32)

    def make(self, roots: Roots, telescope: Telescope, solved_fwhm: bool = True) -> tuple[SolvedFrame, StoredCone]:
        """The frame after reduction, quality and plate solution, and the PS1 cone around it."""
        data, mask, var = self.image()
        raw = RawFrame(
            path=f"2025/{self.name}.fits", digest="0" * 64, name=self.name, kind="science", why="made up",
            telescope=telescope.name, night="20250317", date_obs=datetime(2025, 3, 17, 22, 15, tzinfo=UTC),
            exptime=self.exptime, binning=2, shape=self.shape, filter=self.band, object="M51",
        )  # fmt: skip
        folder = roots.data / "2025" / telescope.name / "reduced" / raw.night
        folder.mkdir(parents=True, exist_ok=True)
        header = fits.Header({"SATURATE": self.saturation, "GAIN": self.gain})
        fits.HDUList(
            [fits.PrimaryHDU(data, header), fits.ImageHDU(mask, name="MASK"), fits.ImageHDU(var, name="VAR")]
        ).writeto(folder / f"{raw.name}.fits", overwrite=True)
        reduced = ReducedFrame(
            raw=raw, file=ref(folder / f"{raw.name}.fits", roots, scope="pixels"), bias=None, flat=None, gain=self.gain,
            read_noise=8.0, masked_fraction=float((mask != 0).mean()),
        )  # fmt: skip
        measured = measure_frame(reduced, roots, telescope, QualitySettings())
        place = roots.data / ".cache" / f"{raw.name}.wcs"
        fits.PrimaryHDU(header=sip_wcs(self.shape, self.distortion).to_header(relax=True)).writeto(
            place, overwrite=True
        )
        solution = PlateSolution(
            wcs=ref(place, roots), ra=RA, dec=DEC, pixel_scale=SCALE, rotation_deg=-91, parity=-1, rms_arcsec=0.05,
            n_matched=100, reference="made up",
        )  # fmt: skip
        solved = SolvedFrame(
            measured=measured, solution=solution, status="OK", fwhm_arcsec=self.fwhm * SCALE if solved_fwhm else None
        )
        table = self.catalogue()[2]
        cone = store_cone("ps1", Cone(ra=RA, dec=DEC, radius=0.2), table, roots, "simulation", "PS1 DR2")
        return solved, cone
