"""Takes one frame: photons, electrons, numbers, file."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from models.simulation import SimulationOptions, TrueFrame
from tasks.simulation import camera
from tasks.simulation.extended import draw_bodies, draw_galaxies, draw_spiral
from tasks.simulation.headers import maxim_header, write_raw
from tasks.simulation.instruments import instrument_of
from tasks.simulation.optics import pixel_area, to_pixels
from tasks.simulation.places import field_named
from tasks.simulation.plan import Shot
from tasks.simulation.psf import Psf, draw_stars, kernel
from tasks.simulation.seeds import rng_for
from tasks.simulation.sky import at_epoch, field_sources

__all__ = ["cosmic_ray_charge", "expected_electrons", "expose", "mid_jyear", "noiseless_light", "psf_of"]

Array = NDArray[np.float64]


def mid_jyear(shot: Shot) -> float:
    """Middle of the exposure as a Julian year."""
    return 2000.0 + (_mid_mjd(shot) - 51544.5) / 365.25


def _mid_mjd(shot: Shot) -> float:
    return (shot.start + timedelta(seconds=shot.exptime / 2)).timestamp() / 86400.0 + 40587.0


def psf_of(shot: Shot) -> Psf:
    """The profile of a shot's stars."""
    assert shot.wcs and shot.seeing and shot.beta and shot.ellipticity  # noqa: PT018 - one precondition
    scale = 3600 * np.sqrt(abs(np.linalg.det(np.array(shot.wcs.cd))))
    e1, e2, radial = shot.ellipticity
    return Psf(fwhm_px=float(shot.seeing / scale), beta=shot.beta, e1=e1, e2=e2, radial=radial, axis=shot.wcs.crpix)


def noiseless_light(shot: Shot, options: SimulationOptions) -> tuple[Array, int]:
    """Stars and extended light on a perfect detector, ADU in the whole exposure, and the stars on the frame.

    No sky, no response, no noise; what `tests` measure the truth against.
    """
    assert shot.wcs and shot.field and shot.filter and shot.zero_point is not None  # noqa: PT018
    table = field_sources(options, shot.field)
    ra, dec = at_epoch(table, mid_jyear(shot))
    rows, columns = options.shape
    reach = 0.3 * max(rows, columns) / 1024 + 0.05
    near = (abs(dec - shot.wcs.crval[1]) < reach) & (
        abs((ra - shot.wcs.crval[0] + 180) % 360 - 180) * np.cos(np.deg2rad(shot.wcs.crval[1])) < reach
    )
    table, ra, dec = table[near], ra[near], dec[near]
    x, y = to_pixels(shot.wcs, ra, dec)
    flux = shot.exptime * 10 ** (-0.4 * (np.asarray(table[f"{shot.filter}_nat"]) - shot.zero_point))
    psf = psf_of(shot)
    extended = np.zeros((rows, columns))
    is_galaxy = np.asarray(table["kind"]) == "galaxy"
    visible = 0.3 * _sky_sigma_adu(shot)
    draw_galaxies(extended, table[is_galaxy], x[is_galaxy], y[is_galaxy], flux[is_galaxy], shot.wcs, visible)
    place = field_named(shot.field)
    draw_bodies(extended, shot.wcs, shot.filter, shot.exptime * 10 ** (0.4 * shot.zero_point), place.bodies)
    if place.spiral:
        knots = table[np.asarray(table["kind"]) == "knot"]
        draw_spiral(extended, shot.wcs, shot.filter, shot.exptime * 10 ** (0.4 * shot.zero_point), knots)
    light: Array = fftconvolve(np.pad(extended, 64, mode="edge"), kernel(psf), mode="same")[64:-64, 64:-64]
    # The transform leaves rounding of both signs where there is nothing.
    np.maximum(light, 0.0, out=light)
    stars = np.asarray(table["kind"]) == "star"
    draw_stars(light, x[stars], y[stars], flux[stars], psf, floor=0.02 * _sky_sigma_adu(shot))
    on = (x[stars] > 0.5) & (x[stars] < columns + 0.5) & (y[stars] > 0.5) & (y[stars] < rows + 0.5)
    return light, int(on.sum())


def sky_level(shot: Shot) -> float:
    """Sky at the optical axis, ADU in the whole exposure."""
    assert shot.wcs and shot.sky_mag is not None and shot.zero_point is not None  # noqa: PT018
    area = 3600**2 * abs(np.linalg.det(np.array(shot.wcs.cd)))
    # Clouds dim stars, hardly the sky: its brightness refers to a clear one.
    clear = shot.zero_point - 2.5 * np.log10(shot.transparency)
    return float(shot.exptime * area * 10 ** (-0.4 * (shot.sky_mag - clear)))


def _sky_sigma_adu(shot: Shot) -> float:
    return float(np.sqrt(sky_level(shot) * camera.GAIN + camera.READ_NOISE**2) / camera.GAIN)


def expected_electrons(shot: Shot, options: SimulationOptions) -> tuple[Array, dict[str, object]]:
    """What a flat or science frame collects on average in each pixel, e-, and the truth about it.

    Everything but chance: light through optics and response, the sky, trails and dark current.
    """
    assert shot.filter
    (rows, columns), seed, side = options.shape, options.seed, max(options.shape)
    response = camera.response(seed, side, shot.year, shot.filter)
    if rows != columns:  # a window of a square chip
        response = response[:rows, :columns] / np.median(response[:rows, :columns])
    y, x = np.mgrid[0:rows, 0:columns] / side - 0.5
    truth: dict[str, object] = {"filter": shot.filter}
    if shot.kind == "flat":
        assert shot.level_adu
        tilt = rng_for(seed, "lamp", shot.path).normal(0.0, 0.004, 2)
        light = (1 + tilt[0] * x + tilt[1] * y) * response
        light *= shot.level_adu / np.median(light)
        truth["level_adu"] = shot.level_adu
    else:
        assert shot.wcs
        assert shot.seeing
        light, n_stars = noiseless_light(shot, options)
        area, sky = pixel_area(shot.wcs), sky_level(shot)
        light += sky * area * (1 + shot.sky_gradient[0] * x + shot.sky_gradient[1] * y)
        light *= response / area
        truth |= {
            "wcs": shot.wcs, "zero_point": shot.zero_point, "seeing_arcsec": shot.seeing,
            "moffat_beta": shot.beta, "ellipticity": shot.ellipticity, "airmass": shot.airmass,
            "transparency": shot.transparency, "sky_adu": sky, "header_offset_deg": shot.header_offset,
            "n_stars": n_stars, "trails": shot.trails, "field": shot.field, "mid_mjd": _mid_mjd(shot),
            "mid_jyear": mid_jyear(shot),
        }  # fmt: skip
    electrons = light * camera.GAIN
    for trail in shot.trails:
        camera.add_trail(electrons, trail, psf_of(shot).fwhm_px)
    electrons += camera.dark_rate(seed, side)[:rows, :columns] * shot.exptime
    return electrons, truth


def cosmic_ray_charge(shot: Shot, options: SimulationOptions) -> Array:
    """What particles left in each pixel of a frame, e-, shape of the frame: drawn again as `expose` drew it."""
    rng = rng_for(options.seed, "noise", shot.path)
    rng.normal(0.0, 0.35)  # the bias level comes first
    if shot.kind != "bias":
        rng.poisson(expected_electrons(shot, options)[0])
    charge = np.zeros(options.shape)
    camera.add_cosmic_rays(charge, shot.exptime, rng)
    return charge


def expose(shot: Shot, options: SimulationOptions, raw_root: Path) -> TrueFrame:
    """Take a frame, write it, and return the truth about it. Depends on options and path only: never on order."""
    seed = options.seed
    rng = rng_for(seed, "noise", shot.path)
    level = camera.bias_level(seed, shot.year, shot.night) + float(rng.normal(0.0, 0.35)) + shot.warm_adu
    truth: dict[str, object] = {}
    electrons = np.zeros(options.shape)
    if shot.kind != "bias":
        mean, truth = expected_electrons(shot, options)
        electrons = rng.poisson(mean).astype(float)
    truth["cosmic_ray_pixels"] = camera.add_cosmic_rays(electrons, shot.exptime, rng)
    camera.bleed(electrons)
    data = camera.read_out(electrons, level, seed, rng, instrument_of(options).read_noise)
    path = raw_root / shot.path
    write_raw(path, data, maxim_header(shot, data.shape, seed))
    return TrueFrame.model_validate(
        {
            "path": shot.path, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "kind": shot.kind,
            "night": shot.night, "date_obs": f"{shot.start:%Y-%m-%dT%H:%M:%S.%f}"[:-4], "exptime": shot.exptime,
            "oddity": shot.oddity, "bias_level_adu": level, "saturated_pixels": int((data == 65535).sum()), **truth,
        }
    )  # fmt: skip
