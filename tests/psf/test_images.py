from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from tasks.core.errors import StageError
from tasks.psf import centred, centroid, fit_moffat
from tasks.psf.images import symmetric_wings, write_psf_image
from tests.photometry.starfield import moffat_field


def star(x: float = 12.3, y: float = 11.8, fwhm: float = 3.5, beta: float = 3.0, size: int = 25) -> np.ndarray:
    return moffat_field((size, size), np.array([x]), np.array([y]), np.array([1.0]), fwhm, beta)


def test_fit_gives_place_width_and_wings_back() -> None:
    noisy = 5e4 * star(fwhm=4.2, beta=2.8) + 100 + np.random.default_rng(1).normal(0, 3, (25, 25))
    noisy[3, 4] = np.nan
    fit = fit_moffat(noisy)
    assert (fit.x, fit.y) == pytest.approx((12.3, 11.8), abs=0.01)
    assert fit.fwhm_px == pytest.approx(4.2, rel=0.03)  # a little wider: pixels are no points
    assert fit.fwhm_px > 4.2
    assert fit.ellipticity < 0.01
    assert fit.background == pytest.approx(100, abs=5)


def test_ellipticity_is_that_of_the_axes() -> None:
    yy, xx = np.mgrid[:31, :31] - 15.0
    u, v = (xx + yy) / np.sqrt(2), (yy - xx) / np.sqrt(2)
    fit = fit_moffat((1 + (u / 3) ** 2 + (v / 2) ** 2) ** -3.0)
    assert fit.ellipticity == pytest.approx((3 - 2) / (3 + 2), abs=0.001)
    assert fit.angle == pytest.approx(np.pi / 4, abs=0.01)


@pytest.mark.parametrize("image", [np.zeros((25, 25)), np.full((25, 25), np.nan), -star()])
def test_nothing_to_fit_is_a_stage_error(image: np.ndarray) -> None:
    with pytest.raises(StageError) as caught:
        fit_moffat(image)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(("x", "y"), [(14.0, 14.0), (14.3, 13.6), (13.1, 15.2)])
def test_centred_sums_to_one_and_stands_in_the_middle(x: float, y: float) -> None:
    image = 7.0 * star(x, y, size=29)
    result = centred(image, 3.5, 25)
    assert result.shape == (25, 25)
    assert result.sum() == pytest.approx(1.0, abs=1e-12)
    assert centroid(result, 3.5) == pytest.approx((12.0, 12.0), abs=0.01)
    rows, columns = np.indices(result.shape)
    assert ((result * columns).sum(), (result * rows).sum()) == pytest.approx((12.0, 12.0), abs=0.02)
    assert fit_moffat(result).fwhm_px == pytest.approx(fit_moffat(image).fwhm_px, rel=0.02)


def test_wings_lose_a_neighbour_of_one_side_and_the_core_keeps_its_shape() -> None:
    image = centred(star(12.0, 12.0), 3.5)
    image[12, 13] *= 1.05
    image[2, 20] += 0.01
    image /= image.sum()
    result = symmetric_wings(image, 3.5)
    assert result.sum() == pytest.approx(1.0, abs=1e-12)
    assert result[12, 13] == image[12, 13]
    rows, columns = np.indices(image.shape)

    def centre(of: np.ndarray) -> float:
        return float(np.hypot((of * (columns - 12)).sum(), (of * (rows - 12)).sum()))

    assert centre(image) > 0.1
    assert centre(result) < 0.02


@pytest.mark.parametrize("image", [np.zeros((25, 25)), star(20.0, 12.0), np.full((25, 25), np.nan)])
def test_what_cannot_be_centred_is_a_stage_error(image: np.ndarray) -> None:
    with pytest.raises(StageError):
        centred(image, 3.5)


def test_file_is_the_same_to_the_byte_and_its_checksum_holds(tmp_path: Path) -> None:
    for name in ("a.fits", "b.fits"):
        write_psf_image(tmp_path / name, star(12, 12), [("FWHM_PX", 3.5, "[px] PSF FWHM")])
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()
    with fits.open(tmp_path / "a.fits", checksum=True) as hdus:
        assert hdus[0].data.dtype == np.dtype(">f4")
        assert hdus[0].header.comments["FWHM_PX"] == "[px] PSF FWHM"
