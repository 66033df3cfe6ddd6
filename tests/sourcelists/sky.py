"""Small simulated stacks of one field: the simulator's stars, pixels that correlate as after resampling."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from scipy.ndimage import convolve

from models.base import Roots
from models.stack import Stack, StackPsf, stack_paths
from models.telescope import load_telescope
from tasks.core.files import ref
from tasks.core.fitsio import write_fits
from tasks.simulation.psf import Psf, draw_stars, kernel

SIZE, FWHM = 420, {"r": 3.4, "R": 4.0}
TELESCOPE = load_telescope("T120")
SMEAR = np.array([[0.06, 0.25, 0.06], [0.25, 1.0, 0.25], [0.06, 0.25, 0.06]])


class Place(NamedTuple):
    roots: Roots
    stacks: tuple[Stack, ...]
    x: np.ndarray
    y: np.ndarray
    mag: np.ndarray


def stars(rng: np.random.Generator, n: int = 15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n x n stars, each with room of its own."""
    step = (SIZE - 20) / n
    grid = np.stack(np.meshgrid(np.arange(n), np.arange(n))).reshape(2, -1)
    x, y = 10 + (grid + 0.5) * step + rng.uniform(-2, 2, (2, n * n))
    return x, y, rng.uniform(15.5, 20.7, n * n)


def header(filter: str) -> fits.Header:
    cards = {
        "OBJECT": "X", "TELESCOP": "T120", "FILTER": filter, "PHOTZP": 30.0, "NCOMBINE": 5,
        "COMBTYPE": "WEIGHTED", "PIXSCALE": 0.77,
        "FWHM_PX": FWHM[filter], "PHOTTIEE": 0.001, "PHOTOFF": 0.0, "INVVAR": 1.0, "NOISCORR": 1.7, "EXPTOTAL": 500.0,
        "DATE-OBS": "2020-05-31T00:00:00.000",
        "DATE-END": "2020-06-01T00:00:00.000", "MJD-OBS": 59000.0, "MJD-END": 59001.0,
        "SATURATE": 5.0e6, "RADESYS": "ICRS", "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg", "CRPIX1": 210.5, "CRPIX2": 210.5, "CRVAL1": 150.0,
        "CRVAL2": 30.0, "CD1_1": -0.77 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.77 / 3600, "ZPT0001": 22.0,
    }  # fmt: skip
    return fits.Header(cards)


def stack(roots: Roots, filter: str, image: np.ndarray, weight: np.ndarray, psf: np.ndarray | None) -> Stack:
    paths = stack_paths("X", "T120", filter, roots)
    write_fits(paths.image, [fits.PrimaryHDU(image.astype(np.float32), header(filter))])
    write_fits(paths.weight, [fits.PrimaryHDU(weight.astype(np.float32), header(filter))])
    model = None
    if psf is not None:
        write_fits(paths.psf, [fits.PrimaryHDU(psf.astype(np.float32))])
        width = FWHM[filter]
        model = StackPsf(
            file=ref(paths.psf, roots), fwhm_px=width, fwhm_arcsec=0.77 * width, ee50_arcsec=1.5, ee80_arcsec=2.5,
            ellipticity=0.0, n_stars=50, chi2=1.0,
        )  # fmt: skip
    return Stack(
        group="X", filter=filter, telescope="T120", image=ref(paths.image, roots), weight=ref(paths.weight, roots),
        n_combined=5, inputs=("a",), combine="WEIGHTED", exptime_s=500.0, calibrated=True, psf=model,
    )  # fmt: skip


def profile(filter: str) -> Psf:
    return Psf(fwhm_px=FWHM[filter], beta=3.2, e1=0.02, e2=-0.01, radial=0.0, axis=(SIZE / 2, SIZE / 2))


def stamp(filter: str) -> np.ndarray:
    whole = kernel(profile(filter))
    half = whole.shape[0] // 2
    cut = whole[half - 12 : half + 13, half - 12 : half + 13]
    return np.asarray(cut / cut.sum())


def place(root: Path, x: np.ndarray, y: np.ndarray, mag: np.ndarray, seed: int = 3) -> Place:
    """Two bands of one field; pixels correlate as after resampling; a corner of one has no data."""
    roots = Roots(data=root, raw=root / "raw")
    rng = np.random.default_rng(seed)
    stacks = []
    gain = TELESCOPE.camera.gain * 500.0 * 10 ** (0.4 * (22.0 - 30.0))
    for filter in ("r", "R"):
        image = np.zeros((SIZE, SIZE))
        draw_stars(image, x + 1, y + 1, 10 ** (0.4 * (30.0 - mag)), profile(filter), 1.0)
        sigma = 130.0
        photons = rng.normal(0, 1, image.shape) * np.sqrt(np.maximum(image, 0) / gain)
        sky = convolve(rng.normal(0, sigma, image.shape), SMEAR / np.sqrt(np.square(SMEAR).sum()))
        weight = np.full(image.shape, sigma**-2)
        if filter == "R":
            weight[:60, :60] = 0.0
        stacks.append(stack(roots, filter, image + photons + sky, weight, stamp(filter)))
    return Place(roots, tuple(stacks), x, y, mag)
