"""A small camera and frames of it with known truth."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from models.base import Roots
from models.frame import RawFrame
from models.telescope import Band, Camera, Site, Telescope

SHAPE = (160, 192)
GAIN, READ_NOISE = 1.5, 8.0


@dataclass
class Bench:
    """A camera whose bias pattern and response are known, writing uint16 frames with BZERO."""

    roots: Roots
    telescope: Telescope
    rng: np.random.Generator
    bias: np.ndarray
    response: np.ndarray
    digests: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, data: np.ndarray, kind: str, exptime: float = 0.0, **entries: Any) -> RawFrame:
        path = self.roots.raw / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if data.dtype.kind == "f":
            hdu = fits.PrimaryHDU(np.asarray(data, np.float32))
        else:
            hdu = fits.PrimaryHDU(data.astype(np.uint16))
        for key, value in entries.pop("header", {}).items():
            hdu.header[key] = value
        hdu.writeto(path)
        return self.frame(name, kind, exptime, **entries)

    def frame(self, name: str, kind: str, exptime: float = 0.0, **entries: Any) -> RawFrame:
        path = self.roots.raw / name
        self.digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        values: dict[str, Any] = {
            "path": name, "digest": self.digests[name], "name": path.stem, "kind": kind, "why": "made",
            "telescope": "BENCH",
            "night": "20250317", "date_obs": datetime(2025, 3, 17, 22, 10, 5, tzinfo=UTC), "exptime": exptime,
            "binning": 2, "shape": SHAPE, "ccd_temp": -60.0, "object": "Field",
        }  # fmt: skip
        return RawFrame(**(values | entries))

    def expose(self, electrons: np.ndarray, drift: float = 0.0) -> np.ndarray:
        """ADU of expected electrons: photon and read noise, bias, 16 bits."""
        signal = self.rng.poisson(electrons) / GAIN + self.bias + drift
        return np.clip(np.rint(signal + self.rng.normal(0, READ_NOISE / GAIN, signal.shape)), 0, 65535).astype(int)

    def biases(self, number: int, prefix: str = "bias") -> list[RawFrame]:
        dark = np.zeros(SHAPE)
        return [
            self.write(f"{prefix}{i:02d}.fit", self.expose(dark, self.rng.normal(0, 0.5)), "bias")
            for i in range(number)
        ]

    def flats(self, levels: list[float], prefix: str = "flat") -> list[RawFrame]:
        return [
            self.write(f"{prefix}{i:02d}.fit", self.expose(self.response * level * GAIN), "flat", 4.0, filter="r")
            for i, level in enumerate(levels)
        ]

    def stars(
        self, fwhm: float, fluxes: np.ndarray, sky: float = 150.0, beta: float = 3.0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Expected ADU of a star field on a sky, and the stars' 0-based positions."""
        image = np.full(SHAPE, sky)
        x = self.rng.uniform(12, SHAPE[1] - 12, fluxes.size)
        y = self.rng.uniform(12, SHAPE[0] - 12, fluxes.size)
        alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
        yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
        fine = (-0.4, -0.2, 0.0, 0.2, 0.4)  # light is integrated over the pixels
        for x0, y0, flux in zip(x, y, fluxes, strict=True):
            box = np.s_[max(0, int(y0) - 60) : int(y0) + 60, max(0, int(x0) - 60) : int(x0) + 60]
            for dy in fine:
                for dx in fine:
                    r2 = (xx[box] + dx - x0) ** 2 + (yy[box] + dy - y0) ** 2
                    image[box] += flux / 25 * (beta - 1) / (np.pi * alpha**2) * (1 + r2 / alpha**2) ** -beta
        return image, x, y


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    raw = tmp_path / "raw"
    raw.mkdir()
    telescope = Telescope(
        name="BENCH",
        site=Site(latitude_deg=44, longitude_deg=6),
        camera=Camera(
            shape=SHAPE,
            binning=2,
            pixel_scale=0.77,
            gain=GAIN,
            read_noise=READ_NOISE,
            nonlinear_adu=60000,
            temperature_c=-60,
        ),
        bands=(Band(name="r", ps1="r"), Band(name="Ha", narrow=True)),
    )
    rng = np.random.default_rng(20250317)
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    pattern = 1000 + 3 * np.sin(xx / 20) + rng.normal(0, 1, SHAPE)
    response = (1 - 0.05 * ((xx - 96) ** 2 + (yy - 80) ** 2) / 96**2) * rng.normal(1, 0.01, SHAPE)
    response[:, 50] *= 0.1
    return Bench(Roots(data=tmp_path / "data", raw=raw), telescope, rng, pattern, response / np.median(response))


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, str]]:
    def take(folder: Path) -> dict[str, str]:
        return {
            str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*"))
            if p.is_file()
        }

    return take
