"""TAN-SIP and TPV headers: exact, reproducible, and SCAMP's traps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.astrometry.fitting import fit_polynomial
from tasks.astrometry.headers import frame_geometry, head_cards, read_head, sip_header, tpv_head
from tasks.astrometry.matching import gnomonic
from tasks.core.errors import StageError
from tests.astrometry.sky import SHAPE, Camera


def fitted(camera: Camera, degree: int = 3, n: int = 400, noise_px: float = 0.0, seed: int = 0) -> WCS:
    rng = np.random.default_rng(seed)
    half = 0.6 * max(camera.shape) * camera.scale / 3600
    ra = camera.ra + rng.uniform(-half, half, n) / np.cos(np.radians(camera.dec))
    dec = camera.dec + rng.uniform(-half, half, n)
    x, y = camera.pixels(ra, dec)
    inside = (x > 0) & (x < camera.shape[1]) & (y > 0) & (y < camera.shape[0])
    ra, dec = ra[inside], dec[inside]
    x, y = x[inside] + rng.normal(0, noise_px, inside.sum()), y[inside] + rng.normal(0, noise_px, inside.sum())
    start = WCS(naxis=2)
    start.wcs.ctype, start.wcs.crval, start.wcs.crpix = (
        ["RA---TAN", "DEC--TAN"],
        [camera.ra + 0.02, camera.dec],
        [500, 500],
    )
    start.wcs.cd = np.diag([1e-4, 1e-4])
    return fit_polynomial(x, y, ra, dec, np.full(len(x), 0.1), camera.shape, degree, start).wcs


def grid(shape: tuple[int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.linspace(1, shape[1], 15), np.linspace(1, shape[0], 15))
    return x.ravel(), y.ravel()


def apart_mas(first: WCS, second: WCS, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    x, y = grid(shape)
    a, b = first.all_pix2world(x, y, 1), second.all_pix2world(x, y, 1)
    return np.hypot(((a[0] - b[0] + 180) % 360 - 180) * np.cos(np.radians(b[1])), a[1] - b[1]) * 3.6e6


@pytest.mark.parametrize(
    "camera", [Camera(), Camera(dec=-85.0, angle=20.0), Camera(ra=0.01, dec=60.0, parity=1), Camera(radial=-2e-8)]
)
def test_the_fit_is_the_camera(camera: Camera) -> None:
    """Exact data: what is left is the inverse polynomial's difference from the camera's forward one."""
    wcs = fitted(camera)
    x, y = grid()
    east, north = gnomonic(*wcs.all_pix2world(x, y, 1), camera.ra, camera.dec)
    back = camera.pixels(*wcs.all_pix2world(x, y, 1))
    assert np.abs(np.column_stack(back) - np.column_stack([x, y])).max() < 0.03 * abs(camera.radial) / 3e-9
    assert np.isfinite(east).all()
    assert np.isfinite(north).all()
    ra, dec, scale, angle, parity = frame_geometry(wcs, SHAPE)
    assert (dec, scale, parity) == (pytest.approx(camera.dec, abs=1e-5), pytest.approx(0.77, rel=1e-4), camera.parity)
    assert (ra - camera.ra + 180) % 360 - 180 == pytest.approx(0, abs=1e-5 / np.cos(np.radians(camera.dec)))
    assert angle == pytest.approx(camera.angle, abs=0.02)


def test_sip_inverse_undoes_the_forward_polynomial() -> None:
    wcs = fitted(Camera(radial=1e-8))
    x, y = grid()
    focal = wcs.sip_pix2foc(x, y, 1)
    back = wcs.sip_foc2pix(*focal, 1)
    # astropy's foc2pix takes coordinates relative to CRPIX back to pixels relative to it, too
    assert np.allclose(back, [x, y], atol=2e-3) or np.allclose(
        np.array(back) + wcs.wcs.crpix[:, None], [x, y], atol=2e-3
    )


def test_sip_header_keeps_every_bit() -> None:
    wcs = fitted(Camera())
    again = WCS(sip_header(wcs))
    assert apart_mas(wcs, again).max() < 1e-3
    assert sip_header(wcs).tostring() == sip_header(fitted(Camera())).tostring()


@settings(max_examples=12, deadline=None)
@given(
    radial=st.floats(-3e-8, 3e-8),
    skew=st.floats(-2e-6, 2e-6),
    angle=st.floats(-180, 180),
    parity=st.sampled_from([-1, 1]),
    dec=st.floats(-88, 88),
    degree=st.integers(1, 3),
)
def test_tpv_is_the_same_as_sip(radial: float, skew: float, angle: float, parity: int, dec: float, degree: int) -> None:
    wcs = fitted(Camera(radial=radial, skew=skew, angle=angle, parity=parity, dec=dec), degree)
    text = tpv_head(wcs, SHAPE)
    assert "'RA---TPV'" in text
    assert text.endswith("\nEND\n")
    head = WCS(head_cards(text))
    assert apart_mas(wcs, head).max() < 1.0


def test_tpv_of_a_wide_rectangular_frame() -> None:
    camera = Camera(scale=5.17, shape=(500, 650), radial=5e-8, dec=46.0)
    wcs = fitted(camera)
    assert apart_mas(wcs, WCS(head_cards(tpv_head(wcs, camera.shape))), camera.shape).max() < 1.0


def test_a_distortion_tpv_cannot_carry_is_refused() -> None:
    wcs = fitted(Camera())
    powers = np.zeros((6, 6))
    powers[5, 0] = 1e-14
    from astropy.wcs import Sip

    wcs.sip = Sip(powers, powers, None, None, wcs.wcs.crpix)
    with pytest.raises(StageError, match="degree 3"):
        tpv_head(wcs, SHAPE)


SCAMP_HEAD = """HISTORY   Astrometric solution by SCAMP version 2.10.0 (2026-11-22)
COMMENT   (c) 2010-2020 IAP/CNRS/SorbonneUniversité
EQUINOX =        2000.00000000 / Mean equinox
RADESYS = 'ICRS    '           / Astrometric system
CTYPE1  = 'RA---TPV'           / WCS projection type for this axis
CTYPE2  = 'DEC--TPV'           / WCS projection type for this axis
CUNIT1  = 'deg     '           / Axis unit
CUNIT2  = 'deg     '           / Axis unit
CRVAL1  =      2.024824000E+02 / World coordinate on this axis
CRVAL2  =      4.720120000E+01 / World coordinate on this axis
CRPIX1  =      5.125000000E+02 / Reference pixel on this axis
CRPIX2  =      5.125000000E+02 / Reference pixel on this axis
CD1_1   =      2.861334500E-06 / Linear projection matrix
CD1_2   =     -2.140711130E-04 / Linear projection matrix
CD2_1   =     -2.140628083E-04 / Linear projection matrix
CD2_2   =     -2.876498000E-06 / Linear projection matrix
FLXSCALE=   0.000000000000E+00 / SCAMP relative flux scale
MAGZEROP=       0.000000000000 / SCAMP zero-point
END
"""


def test_a_head_without_pv_is_plain_tan() -> None:
    """SCAMP writes TPV without PV terms at degree 1; wcslib would read it hundreds of arcsec off."""
    header = head_cards(SCAMP_HEAD)
    wcs = WCS(header)
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    for keyword in [k for k in header if k.startswith("PV")]:
        del header[keyword]
    assert apart_mas(wcs, WCS(header)).max() < 1e-6


def test_a_head_keeps_only_astrometry(tmp_path: Path) -> None:
    header = head_cards(SCAMP_HEAD)
    assert not {"FLXSCALE", "MAGZEROP", "HISTORY", "COMMENT"} & set(header)
    path = tmp_path / "x.head"
    path.write_text(SCAMP_HEAD, encoding="utf-8")
    assert read_head(path).wcs.crval[1] == pytest.approx(47.2012)


def test_a_torn_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="lacks CD1_1"):
        head_cards(SCAMP_HEAD[: SCAMP_HEAD.index("CD1_1")])
    with pytest.raises(StageError, match="cannot be read"):
        read_head(tmp_path / "none.head")
