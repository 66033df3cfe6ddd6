"""The truth is true: what is drawn has the flux, the place and the width it is said to have."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from models.simulation import SimulationOptions, TrueWcs
from tasks.simulation import Shot, pixel_area, to_pixels, to_sky, wcs_header
from tasks.simulation.expose import noiseless_light, psf_of
from tasks.simulation.psf import Psf, draw_stars, kernel


def star(psf: Psf, x: float, y: float, flux: float, floor: float = 0.3, size: int = 601) -> np.ndarray:
    image = np.zeros((size, size))
    draw_stars(image, np.array([x]), np.array([y]), np.array([flux]), psf, floor)
    return image


@pytest.mark.parametrize("fwhm", [2.08, 3.2, 5.8])
@pytest.mark.parametrize("beta", [3.0, 4.0])
@pytest.mark.parametrize("flux", [1e3, 1e6])
def test_flux_and_centre(fwhm: float, beta: float, flux: float) -> None:
    psf = Psf(fwhm_px=fwhm, beta=beta, e1=0.03, e2=-0.02, radial=0.08, axis=(250.0, 350.0))
    rng = np.random.default_rng(1)
    y, x = np.mgrid[1:602, 1:602]
    for _ in range(4):
        x0, y0 = 301 + rng.uniform(-0.5, 0.5, 2)
        image = star(psf, x0, y0, flux)
        assert abs(2.5 * np.log10(image.sum() / flux)) < 0.001
        near = image * (np.hypot(x - x0, y - y0) < 3 * fwhm)
        assert abs((near * x).sum() / near.sum() - x0) < 0.005
        assert abs((near * y).sum() / near.sum() - y0) < 0.005


def test_pixels_are_integrated() -> None:
    # Against 41 x 41 points a pixel, where integration matters most: 1.6 arcsec on 0.77 arcsec pixels.
    psf = Psf(fwhm_px=2.08, beta=3.0, e1=0.05, e2=0.02, radial=0.0, axis=(300.0, 300.0))
    image = star(psf, 301.3, 300.8, 1.0)
    fine, pixels = (np.arange(41) - 20) / 41, np.arange(285, 318)
    dx = (pixels[:, None] + fine).ravel() - 301.3
    dy = (pixels[:, None] + fine).ravel() - 300.8
    gx, gy = np.meshgrid(dx, dy)
    a, b, c = (float(v[0]) for v in psf.shapes(np.array([301.3]), np.array([300.8])))
    norm = (psf.beta - 1) / np.pi * np.sqrt(a * c - b * b)
    exact = norm * (1 + a * gx**2 + 2 * b * gx * gy + c * gy**2) ** -psf.beta
    exact = exact.reshape(33, 41, 33, 41).mean(axis=(1, 3))
    assert np.abs(image[284:317, 284:317] - exact).max() < 1e-4 * exact.max()


def test_width_and_ellipticity() -> None:
    psf = Psf(fwhm_px=4.0, beta=3.5, e1=0.0, e2=0.0, radial=0.08, axis=(50.0, 300.0))
    xx, xy, yy = psf.shapes(np.array([50.0 + 724.0]), np.array([300.0]))
    alpha2 = 4.0 / (2 ** (1 / 3.5) - 1)
    assert np.sqrt(1 / (xx * yy - xy**2))[0] == pytest.approx(alpha2)  # geometric mean kept
    assert np.sqrt(yy / xx)[0] == pytest.approx(np.exp(0.08))  # drawn out radially, here along x
    # Half the peak is reached half a FWHM away.
    values = kernel(Psf(fwhm_px=12.0, beta=3.5, e1=0, e2=0, radial=0, axis=(0.0, 0.0)))
    middle = values.shape[0] // 2
    assert values[middle, middle + 6] / values[middle, middle] == pytest.approx(0.5, abs=0.01)
    assert values.sum() == pytest.approx(1.0)


WCS_2025 = TrueWcs(
    crval=(132.85, 11.81), crpix=(500.3, 530.9), shape=(1024, 1024), k=4.1e-9,
    cd=((5e-6, -2.1385e-4), (-2.1385e-4, -5e-6)),
)  # fmt: skip


def test_wcs_round_trip_and_astropy_agree() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.uniform(-50, 1074, (2, 500))
    ra, dec = to_sky(WCS_2025, x, y)
    back = to_pixels(WCS_2025, ra, dec)
    assert np.abs(back[0] - x).max() < 1e-8
    assert np.abs(back[1] - y).max() < 1e-8
    astropy = WCS(fits.Header(wcs_header(WCS_2025)))
    ra_a, dec_a = astropy.all_pix2world(x, y, 1)
    assert np.abs((ra - ra_a) * np.cos(np.deg2rad(dec)) * 3.6e6).max() < 0.001  # mas
    assert np.abs((dec - dec_a) * 3.6e6).max() < 0.001


def test_pixel_area_is_the_areas_of_pixels() -> None:
    area = pixel_area(WCS_2025)
    corners = np.array([[0.5, 0.5], [1.5, 0.5], [1.5, 1.5], [0.5, 1.5]])

    def sky_area(x: float, y: float) -> float:
        ra, dec = to_sky(WCS_2025, corners[:, 0] + x - 1, corners[:, 1] + y - 1)
        e, n = (ra - ra[0]) * np.cos(np.deg2rad(dec.mean())), dec - dec[0]
        return float(abs(np.dot(e, np.roll(n, 1)) - np.dot(n, np.roll(e, 1))) / 2)

    centre = sky_area(500.0, 531.0)
    for x, y in ((1.0, 1.0), (1024.0, 1024.0), (1000.0, 20.0)):
        assert area[int(y) - 1, int(x) - 1] == pytest.approx(sky_area(x, y) / centre, abs=2e-4)
    assert 1.003 < area.max() < 1.02


def test_stars_of_a_frame_have_their_magnitudes_and_places(options: SimulationOptions, shots: list[Shot]) -> None:
    from tasks.simulation import at_epoch, field_sources
    from tasks.simulation.expose import mid_jyear

    shot = next(s for s in shots if s.field == "M67" and s.filter == "r" and s.year == 2025)
    assert shot.wcs is not None
    light, n_stars = noiseless_light(shot, options)
    table = field_sources(options, "M67")
    ra, dec = at_epoch(table, mid_jyear(shot))
    x, y = to_pixels(shot.wcs, ra, dec)
    mag = np.asarray(table["r_nat"])
    fwhm = psf_of(shot).fwhm_px
    on = (x > 40) & (x < 985) & (y > 40) & (y < 985)
    assert n_stars == pytest.approx(
        ((x > 0.5) & (x < 1024.5) & (y > 0.5) & (y < 1024.5) & (table["kind"] == "star")).sum()
    )
    rows, columns = np.mgrid[1:1025, 1:1025]
    checked = 0
    for k in np.flatnonzero(on & (mag > 10.0) & (mag < 15.0) & (table["kind"] == "star")):
        away = np.hypot(x - x[k], y - y[k])
        if (mag[(away < 8 * fwhm) & (away > 0)] < mag[k] + 6).any():
            continue
        radius = 4 * fwhm
        r = np.hypot(columns - x[k], rows - y[k])
        # Moffat light beyond the aperture, known exactly, and the neighbours' light that falls in.
        psf = psf_of(shot)
        alpha = fwhm / 2 / np.sqrt(2 ** (1 / psf.beta) - 1)
        outside = (1 + (radius / alpha) ** 2) ** (1 - psf.beta)
        beside = (away < radius) & (away > 0)
        neighbours = shot.exptime * np.sum(10 ** (-0.4 * (mag[beside] - shot.zero_point)))
        flux = light[r < radius].sum() - neighbours
        measured = -2.5 * np.log10(flux / (1 - outside) / shot.exptime) + shot.zero_point
        assert measured == pytest.approx(mag[k], abs=0.004), k
        core = light * (r < 1.5 * fwhm)
        assert (core * columns).sum() / core.sum() == pytest.approx(x[k], abs=0.03)
        checked += 1
    assert checked >= 5


def test_spiral_has_its_light(options: SimulationOptions, shots: list[Shot]) -> None:
    from tasks.simulation.extended import draw_spiral
    from tasks.simulation.sky import field_sources

    shot = next(s for s in shots if s.field == "M51" and s.filter == "r")
    assert shot.wcs is not None
    table = field_sources(options, "M51")
    knots = table[np.asarray(table["kind"]) == "knot"]
    image = np.zeros((1024, 1024))
    draw_spiral(image, shot.wcs, "r", 1.0, knots)
    assert -2.5 * np.log10(image.sum()) == pytest.approx(7.95, abs=0.15)  # disc and bulge 8.1, companion 9.7
    _, x = np.nonzero(image > 0.3 * np.median(image[image > np.percentile(image, 60)]))
    assert 500 < np.ptp(x) * 0.77 < 900  # arcsec: a galaxy of 10 arcmin, not of one
