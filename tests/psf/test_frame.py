from __future__ import annotations

import pickle
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from models.base import Roots
from models.frame import CalibratedFrame, ZeroPoint
from models.settings import PsfSettings
from models.telescope import Telescope
from tasks.core.errors import StageError
from tasks.psf import evaluate_psf, fit_moffat, linear_header, model_psf, read_objects
from tests.photometry.starfield import DEC, RA, StarField, moffat_field, sip_wcs

pytestmark = pytest.mark.tools

SETTINGS = PsfSettings()
FIELD = StarField(n_stars=120, n_galaxies=10, min_separation=30, masked=0.002)


def calibrated(field: StarField, roots: Roots, t120: Telescope) -> CalibratedFrame:
    solved, _ = field.make(roots, t120)
    return CalibratedFrame(solved=solved, zero_point=ZeroPoint(status="PENDING", reason="not asked"))


def test_a_frame_gets_its_psf_and_its_catalogue(roots: Roots, t120: Telescope) -> None:
    psf = model_psf(calibrated(FIELD, roots, t120), roots, t120, SETTINGS)
    assert psf.psf.path == "2025/T120/psf/20250317/M51_-0001r60.psf"
    assert psf.catalogue.path == ".cache/ldac/2025/T120/20250317/M51_-0001r60.cat"
    image = moffat_field((61, 61), np.array([30.0]), np.array([30.0]), np.array([1.0]), FIELD.fwhm, FIELD.beta)
    assert psf.fwhm_px == pytest.approx(fit_moffat(image).fwhm_px, rel=0.015)
    assert psf.fwhm_arcsec == pytest.approx(psf.fwhm_px * 0.77)
    assert psf.ellipticity < 0.02
    assert 0.7 < psf.chi2 < 1.5
    assert psf.n_stars_accepted >= 40
    with fits.open(roots.of(psf.psf)) as hdus:
        assert hdus[1].data["PSF_MASK"][0].shape == (6, 25, 25)
        assert hdus[1].header["PSF_SAMP"] == 1.0
    centre = evaluate_psf(roots.of(psf.psf), 320.5, 320.5)
    assert centre.sum() == pytest.approx(1.0)
    assert fit_moffat(centre).fwhm_px == pytest.approx(psf.fwhm_px, rel=0.01)


def test_the_catalogue_says_what_scamp_needs(roots: Roots, t120: Telescope) -> None:
    psf = model_psf(calibrated(FIELD, roots, t120), roots, t120, SETTINGS)
    objects = read_objects(roots.of(psf.catalogue))
    names = set(objects.names)
    assert {"XWIN_IMAGE", "YWIN_IMAGE", "ERRAWIN_IMAGE", "ERRBWIN_IMAGE", "ERRTHETAWIN_IMAGE", "FLUX_AUTO",
            "FLUXERR_AUTO", "FLAGS", "X_WORLD", "Y_WORLD", "VIGNET", "SNR_WIN", "FLUX_RADIUS"} <= names  # fmt: skip
    assert objects["VIGNET"].shape[1:] == (35, 35)
    with fits.open(roots.of(psf.catalogue)) as hdus:
        cards = [str(card) for card in np.ravel(hdus["LDAC_IMHEAD"].data["Field Header Card"][0])]
    header = (
        fits.Header.fromstring("".join(c.ljust(80) for c in cards))
        if len(cards) > 1
        else fits.Header.fromstring(cards[0])
    )
    assert header["EXPTIME"] == 60.0
    assert header["MJD-OBS"] == pytest.approx(60751.927083, abs=1e-5)
    assert "A_ORDER" not in header
    assert (header["CTYPE1"], header["CTYPE2"]) == ("RA---TAN", "DEC--TAN")
    # The positions are the frame's own to a fraction of an arcsecond although the header has no distortion.
    world = sip_wcs(FIELD.shape).all_pix2world(np.column_stack([objects["XWIN_IMAGE"], objects["YWIN_IMAGE"]]), 1)
    off = np.hypot((world[:, 0] - objects["X_WORLD"]) * np.cos(np.radians(DEC)), world[:, 1] - objects["Y_WORLD"])
    assert 3600 * np.max(off) < 0.5


def test_linear_header_is_the_best_straight_one() -> None:
    shape = (1024, 1024)
    bent = sip_wcs(shape, distortion=2e-8)
    straight = WCS(linear_header(bent, shape))
    pixel = np.random.default_rng(1).uniform(0, 1024, (400, 2))
    truth = bent.all_pix2world(pixel, 0)

    def rms(wcs: WCS) -> float:
        off = (wcs.wcs_pix2world(pixel, 0) - truth) * [np.cos(np.radians(DEC)), 1] * 3600
        return float(np.sqrt((off**2).sum(axis=1).mean()))

    assert rms(straight) < 0.6 * rms(bent)  # wcs_pix2world of the bent one: its linear part alone
    assert straight.wcs.crval == pytest.approx([RA, DEC], abs=1e-6)


def test_same_bytes_on_another_day_in_another_folder(tmp_path: Path, t120: Telescope) -> None:
    odd = tmp_path / "a data root, with commas" / ("deep" * 30) / ("deeper" * 20)
    assert len(str(odd)) > 263
    found = []
    for root in (tmp_path / "one", odd):
        roots = Roots(data=root, raw=tmp_path / "raw")
        found.append(model_psf(calibrated(FIELD, roots, t120), roots, t120, SETTINGS))
        time.sleep(1.1)  # SExtractor writes the second it ran in
    assert found[0] == found[1]


@dataclass(frozen=True)
class Widening(StarField):
    """Stars grow wider from left to right: 3.4 to 4.0 px."""

    def image(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(7)
        x, y, _ = self.catalogue()
        light = np.full(self.shape, self.sky)
        for xs, ys in zip(x, y, strict=True):
            width = 3.4 + 0.6 * np.clip(xs, 0, self.shape[1]) / self.shape[1]
            flux = np.array([10 ** rng.uniform(4.3, 5.2)])
            light += moffat_field(self.shape, np.array([xs]), np.array([ys]), flux, width, self.beta)
        data = rng.poisson(light * self.gain) / self.gain
        return data.astype(np.float32), np.zeros(self.shape, np.uint8), (light / self.gain).astype(np.float32)


def test_variation_over_the_field_is_followed(roots: Roots, t120: Telescope) -> None:
    field = Widening(n_stars=150, n_galaxies=0, min_separation=30)
    psf = model_psf(calibrated(field, roots, t120), roots, t120, SETTINGS)
    for x, y in ((60.0, 320.0), (320.0, 60.0), (320.0, 580.0), (580.0, 320.0)):
        width = fit_moffat(evaluate_psf(roots.of(psf.psf), x, y)).fwhm_px
        assert width == pytest.approx(1.02 * (3.4 + 0.6 * x / 640), rel=0.03)


@pytest.mark.parametrize(("n", "degree"), [(26, 1), (6, 0)])
def test_few_stars_lower_the_degree(n: int, degree: int, roots: Roots, t120: Telescope) -> None:
    field = StarField(n_stars=n, n_galaxies=0, min_separation=60, faintest=16.5, brightest=14.8, seed=4)
    psf = model_psf(calibrated(field, roots, t120), roots, t120, SETTINGS)
    with fits.open(roots.of(psf.psf)) as hdus:
        assert hdus[1].header.get("POLDEG1", 0) == degree
        assert hdus[1].data["PSF_MASK"][0][0].sum() > 0.9
    assert psf.fwhm_px == pytest.approx(field.fwhm, rel=0.05)


@pytest.mark.parametrize(
    "field",
    [
        StarField(n_stars=2, n_galaxies=0, min_separation=100, faintest=15.5, seed=6),
        StarField(n_stars=0, n_galaxies=1, faintest=20.4, brightest=20.3),
        StarField(n_stars=40, n_galaxies=0, saturation=500.0, faintest=16.0),
    ],
    ids=["two stars", "none", "all saturated"],
)
def test_no_psf_is_a_stage_error(field: StarField, roots: Roots, t120: Telescope) -> None:
    frame = calibrated(field, roots, t120)
    with pytest.raises(StageError) as caught:
        model_psf(frame, roots, t120, SETTINGS)
    assert "needed" in caught.value.reason or "no model" in caught.value.reason
    assert caught.value.remedy
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert not list(roots.data.rglob("*.psf"))


def test_nan_and_fully_masked_frames(roots: Roots, t120: Telescope) -> None:
    frame = calibrated(FIELD, roots, t120)
    path = roots.of(frame.reduced.file)
    with fits.open(path, mode="update") as hdus:
        hdus[0].data[200:240, 300:340] = np.nan
    assert model_psf(frame, roots, t120, SETTINGS).n_stars_accepted > 30
    with fits.open(path, mode="update") as hdus:
        hdus["MASK"].data[:] = 1
    with pytest.raises(StageError, match="no usable pixel"):
        model_psf(frame, roots, t120, SETTINGS)
