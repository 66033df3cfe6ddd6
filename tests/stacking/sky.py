"""Small frames with known stars, as reduction, plate solution and SCAMP would leave them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from models.base import FileRef, Roots
from models.frame import (
    CalibratedFrame,
    MaskBit,
    MeasuredFrame,
    PlateSolution,
    Quality,
    RawFrame,
    ReducedFrame,
    SolvedFrame,
    ZeroPoint,
)
from models.stack import AlignedFrame
from tasks.core.files import digest_file, ref
from tasks.core.fitsio import write_fits
from tasks.photometry import area_map

SHAPE = (256, 256)
CENTRE = (132.85, 11.81)
SCALE = 0.773
GAIN, READ_NOISE = 1.5, 8.0


def stars(n: int = 40, seed: int = 3, half_deg: float = 0.024, bright: float = 14.0, faint: float = 18.0) -> Table:
    """Stars on a loose mesh, so that none has a neighbour: RA, DEC (deg), MAG."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(n)))
    mesh = (np.arange(side) + 0.5) / side * 2 - 1
    x, y = (axis.ravel()[:n] * half_deg for axis in np.meshgrid(mesh, mesh))
    x, y = (axis + rng.uniform(-0.15, 0.15, n) * 2 * half_deg / side for axis in (x, y))
    dec = CENTRE[1] + y
    return Table({"RA": CENTRE[0] + x / np.cos(np.deg2rad(dec)), "DEC": dec, "MAG": rng.uniform(bright, faint, n)})


@dataclass(frozen=True)
class Shot:
    """How a frame is taken."""

    name: str
    zp: float = 23.0
    exptime: float = 60.0
    fwhm_px: float = 3.5
    sky: float = 200.0
    dither: tuple[float, float] = (0.0, 0.0)
    k3: float = 0.0
    rotation: float = -90.0
    night: str = "20250317"
    filter: str = "r"
    ps1: float | None = 0.0
    flat: np.ndarray | None = None
    seed: int = 0
    noise: bool = True
    spoil: dict[str, tuple[slice, slice]] = field(default_factory=dict)
    full_well: float = 60000.0
    flags: tuple[str, ...] = ()
    centre: tuple[float, float] = CENTRE

    def but(self, **changes: object) -> Shot:
        return replace(self, **changes)


def tpv(shot: Shot, shape: tuple[int, int] = SHAPE) -> fits.Header:
    """TPV head of a frame: parity -1, optional cubic radial distortion."""
    ny, nx = shape
    angle = np.deg2rad(shot.rotation)
    c, s = np.cos(angle), np.sin(angle)
    matrix = SCALE / 3600 * np.array([[-c, s], [s, c]])
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TPV", "DEC--TPV"
    header["CUNIT1"], header["CUNIT2"] = "deg", "deg"
    header["CRPIX1"], header["CRPIX2"] = (nx + 1) / 2, (ny + 1) / 2
    header["CRVAL1"] = (shot.centre[0] + shot.dither[0] / 3600 / np.cos(np.deg2rad(shot.centre[1]))) % 360
    header["CRVAL2"] = shot.centre[1] + shot.dither[1] / 3600
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = matrix.ravel()
    header["RADESYS"] = "ICRS"
    for axis in (1, 2):
        header[f"PV{axis}_0"], header[f"PV{axis}_1"] = 0.0, 1.0
        header[f"PV{axis}_7"] = header[f"PV{axis}_9"] = shot.k3
    return header


def moffat(shape: tuple[int, int], x: float, y: float, fwhm: float, beta: float = 3.5) -> np.ndarray:
    a = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    return (beta - 1) / np.pi / a**2 * (1 + ((xx - x) ** 2 + (yy - y) ** 2) / a**2) ** -beta


def take(
    shot: Shot,
    sky: Table,
    roots: Roots,
    shape: tuple[int, int] = SHAPE,
    light: Callable[[WCS, tuple[int, int]], np.ndarray] | None = None,
) -> AlignedFrame:
    """Write a reduced frame, its sources and its `.head`; describe it as the pipeline would.

    `light`: what else is seen, ADU a pixel, given the frame's WCS and shape.
    """
    header = tpv(shot, shape)
    wcs = WCS(header)
    apart = np.hypot(
        (np.asarray(sky["RA"]) - shot.centre[0] + 180) % 360 - 180, np.asarray(sky["DEC"]) - shot.centre[1]
    )
    sky = sky[apart < 1.0]  # elsewhere the polynomial has no meaning
    x, y = (
        wcs.all_world2pix(np.asarray(sky["RA"]), np.asarray(sky["DEC"]), 0) if len(sky) else (np.empty(0), np.empty(0))
    )
    inside = (x > 8) & (x < shape[1] - 9) & (y > 8) & (y < shape[0] - 9)
    electrons = np.full(shape, shot.sky * GAIN)
    flux = 10 ** (0.4 * (shot.zp - np.asarray(sky["MAG"]))) * shot.exptime
    half = 40
    for px, py, adu in zip(x, y, flux, strict=True):
        ix, iy = round(px), round(py)
        if not (-half < ix < shape[1] + half and -half < iy < shape[0] + half):
            continue
        x0, x1, y0, y1 = (
            max(ix - half, 0),
            min(ix + half + 1, shape[1]),
            max(iy - half, 0),
            min(iy + half + 1, shape[0]),
        )
        electrons[y0:y1, x0:x1] += GAIN * adu * moffat((y1 - y0, x1 - x0), px - x0, py - y0, shot.fwhm_px)
    if light is not None:
        electrons += GAIN * light(wcs, shape)
    flat = np.ones(shape) if shot.flat is None else shot.flat
    if shot.flat is not None:
        # A real flat holds the pixel area, and so does the sky: stars are what it does not apply to.
        area = area_map(wcs, shape).astype(float)
        electrons = shot.sky * GAIN * flat * area + (electrons - shot.sky * GAIN) * flat
        flat = flat * area
    if shot.noise:
        rng = np.random.default_rng([shot.seed, int(hashlib.sha256(shot.name.encode()).hexdigest()[:8], 16)])
        electrons = rng.poisson(electrons) + rng.normal(0, READ_NOISE, shape)
    adu = electrons / GAIN
    mask = np.zeros(shape, np.uint8)
    mask[adu >= shot.full_well] |= np.uint8(MaskBit.SATURATED)
    adu = np.minimum(adu, shot.full_well)
    variance = (np.maximum(adu, 0) / GAIN + (READ_NOISE / GAIN) ** 2) / flat**2
    data = (adu / flat).astype(np.float32)
    for bit, where in shot.spoil.items():
        mask[where] |= np.uint8(MaskBit[bit])
        data[where] = 50000.0 if bit != "NO_DATA" else 0.0
    year = shot.night[:4]
    folder = roots.data / year / "T120"
    flat_name, flat_digest = "NONE", None
    if shot.flat is not None:
        path = folder / "master_flat" / f"master_flat_{year}_T120_2_{shot.filter}{shot.name}.fits"
        write_fits(path, [fits.PrimaryHDU(flat.astype(np.float32))])
        flat_name, flat_digest = path.name, digest_file(path)
    head = fits.Header()
    head["FLATCORR"] = flat_name
    head["SATURATE"] = shot.full_well
    path = folder / "reduced" / shot.night / f"{shot.name}.fits"
    write_fits(
        path,
        [
            fits.PrimaryHDU(data, head),
            fits.ImageHDU(mask, name="MASK"),
            fits.ImageHDU(variance.astype("f4"), name="VAR"),
        ],
    )
    head_path = path.with_suffix(".head")
    head_path.write_text("\n".join(str(card).rstrip() for card in header.cards) + "\nEND\n")

    peak = flux * moffat((1, 1), 0, 0, shot.fwhm_px)[0, 0]
    saturated = peak + shot.sky > shot.full_well
    noise = np.sqrt(flux / GAIN + np.pi * (2 * shot.fwhm_px) ** 2 * shot.sky / GAIN)
    table = Table({
        "X": x + 1, "Y": y + 1, "FLUX": flux, "FLUX_ERR": noise, "PEAK": np.minimum(peak, shot.full_well - shot.sky),
        "A": np.full(len(x), 1.5), "B": np.full(len(x), 1.5), "THETA": np.zeros(len(x)),
        "FLUX_RADIUS": np.full(len(x), shot.fwhm_px * 0.6), "FWHM_PX": np.full(len(x), shot.fwhm_px),
        "SNR": flux / noise, "FLAGS": np.where(saturated, 4, 0).astype(np.int32),
    })[inside]  # fmt: skip
    table = table[np.argsort(-np.asarray(table["FLUX"]))]
    source_path = roots.data / ".cache" / "sources" / year / "T120" / shot.night / f"{shot.name}.fits"
    write_fits(source_path, [fits.PrimaryHDU(), fits.BinTableHDU(table, name="SOURCES")])

    raw = RawFrame(
        path=f"raw/{shot.name}.fits", digest="0" * 64, name=shot.name, kind="science", why="test", telescope="T120",
        night=shot.night, date_obs=datetime.strptime(shot.night, "%Y%m%d").replace(tzinfo=UTC) + timedelta(hours=22),
        exptime=shot.exptime, binning=2, shape=shape, filter=shot.filter, object="M67",
    )  # fmt: skip
    reduced = ReducedFrame(
        raw=raw,
        file=ref(path, roots),
        bias=None,
        flat=flat_digest,
        gain=GAIN,
        read_noise=READ_NOISE,
        masked_fraction=0.0,
    )
    quality = Quality(
        fwhm_px=shot.fwhm_px, fwhm_arcsec=shot.fwhm_px * SCALE, elongation=1.0, sky_adu=shot.sky, sky_sigma=12.0,
        saturated_fraction=0.0, n_sources=len(table), flags=shot.flags,
    )  # fmt: skip
    ra, dec = (float(value) for value in wcs.all_pix2world((shape[1] + 1) / 2, (shape[0] + 1) / 2, 1))
    solution = PlateSolution(
        wcs=FileRef(path="none", digest="0" * 64), ra=ra, dec=dec, pixel_scale=SCALE, rotation_deg=shot.rotation,
        parity=-1, rms_arcsec=0.05, n_matched=30, reference="test",
    )  # fmt: skip
    solved = SolvedFrame(
        measured=MeasuredFrame(reduced=reduced, quality=quality, sources=ref(source_path, roots)),
        solution=solution, status="OK", fwhm_arcsec=shot.fwhm_px * SCALE,
    )  # fmt: skip
    if shot.ps1 is None:
        zero_point = ZeroPoint(status="NO_PS1_BAND", reason=f"{shot.filter} has no PS1 band")
    else:
        zero_point = ZeroPoint(status="OK", zp=shot.zp + shot.ps1, zp_err=0.003, zp_rms=0.02, n_stars=30)
    return AlignedFrame(
        frame=CalibratedFrame(solved=solved, zero_point=zero_point), head=ref(head_path, roots), source="scamp",
        rms_arcsec=0.03, n_matched=30, ra=ra, dec=dec,
    )  # fmt: skip


def make_roots(folder: Path) -> Roots:
    (folder / "raw").mkdir(parents=True, exist_ok=True)
    return Roots(data=folder, raw=folder / "raw")
