from __future__ import annotations

import pickle

import numpy as np
import pytest
from astropy.io import fits

from models.base import Roots
from models.frame import CalibratedFrame, FramePsf, ZeroPoint
from models.settings import PsfSettings
from models.stack import Stack
from models.telescope import Telescope
from tasks.core.errors import StageError
from tasks.core.files import ref
from tasks.psf import centroid, fit_moffat, mean_psf, model_psf, stack_psf
from tasks.psf.choice import doubles, evenly_covered
from tasks.simulation.psf import Psf, draw_stars
from tests.photometry.starfield import DEC, RA, StarField, moffat_field
from tests.validation.stacks import tan_header, write_stack

pytestmark = pytest.mark.tools

SETTINGS = PsfSettings()
SKY_NOISE = 200.0


def made_up(field: StarField, roots: Roots, calibrated: bool = True) -> Stack:
    x, y, table = field.catalogue()
    flux = 10 ** (-0.4 * (field.natural(table) - 30.0))
    image = moffat_field(field.shape, x, y, flux, field.fwhm, field.beta)
    image += np.random.default_rng(field.seed).normal(0, SKY_NOISE, field.shape)
    weight = np.ones(field.shape)
    weight[:20] = image[:20] = 0  # where no frame lies
    return write_stack(roots, image, weight, tan_header(field.shape, RA, DEC), calibrated=calibrated)


def check_image(stack: Stack, roots: Roots, field: StarField, tolerance: float) -> fits.Header:
    path = roots.data / f"stacks/{stack.group}/T120/{stack.group}_{stack.filter}_psf.fits"
    with fits.open(path, checksum=True) as hdus:
        image, header = np.asarray(hdus[0].data, dtype=float), hdus[0].header.copy()
    assert image.shape == (25, 25)
    assert image.sum() == pytest.approx(1.0, abs=1e-5)
    star = moffat_field((61, 61), np.array([30.0]), np.array([30.0]), np.array([1.0]), field.fwhm, field.beta)
    assert fit_moffat(image).fwhm_px == pytest.approx(fit_moffat(star).fwhm_px, rel=tolerance)
    assert centroid(image, field.fwhm) == pytest.approx((12.0, 12.0), abs=0.02)
    assert header["PIXSCALE"] == pytest.approx(0.770, abs=1e-4)
    assert header["FWHM_AS"] == pytest.approx(header["FWHM_PX"] * 0.770, rel=1e-3)
    for key, unit in (
        ("FWHM_PX", "[px]"),
        ("FWHM_AS", "[arcsec]"),
        ("EE50_AS", "[arcsec]"),
        ("PIXSCALE", "[arcsec/px]"),
    ):
        assert header.comments[key].startswith(unit)
    return header


def test_psf_of_a_stack(roots: Roots, t120: Telescope) -> None:
    field = StarField(n_stars=120, n_galaxies=15, min_separation=28)
    stack = made_up(field, roots)
    psf = stack_psf(stack, roots, t120, SETTINGS)
    header = check_image(stack, roots, field, 0.02)
    assert psf.method == header["METHOD"]
    assert psf.method.startswith("PSFEx degree")
    assert psf.ee50_arcsec == pytest.approx(1.803 * 0.770 / 0.77, rel=0.03)
    assert psf.ee80_arcsec == pytest.approx(3.078, rel=0.04)
    assert psf.ellipticity < 0.02
    assert psf.n_stars == header["NSTARS"]
    assert 0.7 < psf.chi2 < 1.6
    again = stack_psf(stack, roots, t120, SETTINGS)
    assert again == psf


def test_a_stack_without_zero_point_has_a_psf(roots: Roots, t120: Telescope) -> None:
    field = StarField(n_stars=60, n_galaxies=0, min_separation=40, seed=2)
    stack = made_up(field, roots, calibrated=False)
    assert stack_psf(stack, roots, t120, SETTINGS).n_stars > 20
    check_image(stack, roots, field, 0.02)


def test_wide_stars_keep_their_wings(roots: Roots, t120: Telescope) -> None:
    field = StarField(n_stars=70, n_galaxies=0, min_separation=50, fwhm=6.5, beta=2.8, faintest=18.5, seed=3)
    stack = made_up(field, roots)
    psf = stack_psf(stack, roots, t120, SETTINGS)
    check_image(stack, roots, field, 0.03)
    alpha = 6.5 / 2 / np.sqrt(2 ** (1 / 2.8) - 1)
    assert psf.ee80_arcsec / 0.77 == pytest.approx(alpha * np.sqrt(0.2 ** (1 / -1.8) - 1), rel=0.06)


@pytest.mark.parametrize(
    ("n", "method", "tolerance"),
    [
        (150, "PSFEx degree 2", 0.02),
        (75, "PSFEx degree 1", 0.02),
        (7, "PSFEx degree 0", 0.03),
        (3, "ePSF", 0.015),
        (1, "Moffat fit", 0.015),
    ],
)
def test_few_stars_change_the_method(n: int, method: str, tolerance: float, roots: Roots, t120: Telescope) -> None:
    size = 400 if n < 10 else 900
    field = StarField(
        n_stars=n,
        n_galaxies=0,
        min_separation=90 if n < 10 else 42,
        shape=(size, size),
        brightest=14.2,
        faintest=15.0 if n < 10 else 17.0,
        seed=12,
        beyond_edge=-50 if n < 10 else -25,
    )
    stack = made_up(field, roots)
    psf = stack_psf(stack, roots, t120, SETTINGS)
    assert psf.method == method
    assert psf.n_stars == n if n < 10 else psf.n_stars > 0.8 * n
    header = check_image(stack, roots, field, tolerance)
    assert header["METHOD"] == method
    # Of a Moffat of FWHM 3.6 and beta 3 on two pixels (the image's and the circle's): see test_energy.
    assert psf.ee50_arcsec == pytest.approx(0.77 * 2.34, rel=0.03)
    assert psf.ellipticity < 0.01


@pytest.mark.parametrize("n", [1, 3, 60])
def test_ellipticity_is_the_stars(n: int, roots: Roots, t120: Telescope) -> None:
    shape, rng = (640, 640), np.random.default_rng(3)
    grid = np.indices((8, 8)).reshape(2, -1)[:, :n]
    x, y = 45 + 75.0 * grid + rng.uniform(-0.5, 0.5, (2, n))
    image = rng.normal(0, SKY_NOISE, shape)
    simulated = Psf(fwhm_px=3.6, beta=3.0, e1=0.09, e2=-0.12, radial=0.0, axis=(1.0, 1.0))
    draw_stars(image, x + 1, y + 1, rng.uniform(5e5, 3e6, n), simulated, 1.0)
    stack = write_stack(roots, image, np.ones(shape), tan_header(shape, RA, DEC))
    psf = stack_psf(stack, roots, t120, SETTINGS)
    alone = np.zeros((61, 61))
    draw_stars(alone, np.array([31.0]), np.array([31.0]), np.array([1.0]), simulated, 1e-9)
    truth = fit_moffat(alone)
    assert truth.ellipticity > 0.06
    assert psf.ellipticity == pytest.approx(truth.ellipticity, abs=0.005)
    made = np.asarray(fits.getdata(roots.of(psf.file)), float)
    assert fit_moffat(made).angle == pytest.approx(truth.angle, abs=0.05)


def uneven(roots: Roots, share: float) -> Stack:
    """A stack of which a share of the stars lacks its best frames: their cores are masked there, their profile wide."""
    shape, rng = (760, 760), np.random.default_rng(8)
    grid = np.indices((10, 10)).reshape(2, -1)
    x, y = 40 + 75.0 * grid + rng.uniform(-0.5, 0.5, (2, 100))
    flux = 10 ** rng.uniform(4.8, 6.5, 100)
    # The widest are the brightest, as saturated stars are.
    wide = np.argsort(-flux)[: round(100 * share)]
    narrow = np.setdiff1d(np.arange(100), wide)
    image = moffat_field(shape, x[narrow], y[narrow], flux[narrow], 3.2, 3.2)
    image += moffat_field(shape, x[wide], y[wide], flux[wide], 4.2, 3.2) + rng.normal(0, SKY_NOISE / 3, shape)
    weight = np.ones(shape)
    rows, columns = np.indices(shape)
    for i in wide:
        weight[np.hypot(rows - y[i], columns - x[i]) < 3] = 0.6
    return write_stack(roots, image, weight, tan_header(shape, RA, DEC))


def test_stars_that_some_frames_do_not_show_are_left_out(roots: Roots, t120: Telescope) -> None:
    psf = stack_psf(uneven(roots, 0.4), roots, t120, SETTINGS)
    star = moffat_field((61, 61), np.array([30.0]), np.array([30.0]), np.array([1.0]), 3.2, 3.2)
    assert psf.n_stars <= 60
    assert psf.method.startswith("PSFEx")
    assert psf.fwhm_px == pytest.approx(fit_moffat(star).fwhm_px, rel=0.02)
    assert psf.ee50_arcsec == pytest.approx(0.77 * 2.05, rel=0.025)


def test_uneven_stars_are_better_than_none(roots: Roots, t120: Telescope) -> None:
    psf = stack_psf(uneven(roots, 0.96), roots, t120, SETTINGS)
    assert psf.n_stars > 90
    assert psf.method == "PSFEx degree 1"


def test_even_cover() -> None:
    weight = np.ones((80, 80))
    weight[:, :20] = 0.5  # a frame less
    weight[40, 60] = 0.7  # a hit on a core
    weight[20:22, 65] = 0.0  # a scratch beside a star
    weight[70:] = 0.0
    x, y = np.array([10.0, 60.0, 60.0, 40.0, 40.0, 24.0]), np.array([40.0, 40.0, 21.0, 30.0, 68.0, 30.0])
    assert evenly_covered(weight, x, y, 3.5).tolist() == [False, False, True, True, False, False]
    assert not evenly_covered(np.zeros((80, 80)), x, y, 3.5).any()


def test_no_star_no_psf(roots: Roots, t120: Telescope) -> None:
    field = StarField(n_stars=1, n_galaxies=0, brightest=25.0, faintest=25.1)
    with pytest.raises(StageError, match="no usable star") as caught:
        stack_psf(made_up(field, roots), roots, t120, SETTINGS)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert not list(roots.data.rglob("*_psf.fits"))


def test_broken_stacks_are_stage_errors(roots: Roots, t120: Telescope) -> None:
    header = tan_header((64, 64), RA, DEC)
    empty = write_stack(roots, np.zeros((64, 64)), np.zeros((64, 64)), header)
    with pytest.raises(StageError):
        stack_psf(empty, roots, t120, SETTINGS)
    torn = write_stack(roots, np.zeros((64, 64)), np.zeros((60, 64)), header)
    with pytest.raises(StageError, match="differ"):
        stack_psf(torn, roots, t120, SETTINGS)
    roots.of(torn.image).write_bytes(b"SIMPLE  =")
    with pytest.raises(StageError, match="cannot be read"):
        stack_psf(torn, roots, t120, SETTINGS)


def test_mean_psf_is_the_median_of_the_frames(roots: Roots, t120: Telescope) -> None:
    camera = t120.camera.model_copy(update={"shape": (640, 640)})
    small = t120.model_copy(update={"camera": camera})
    psfs: list[FramePsf] = []
    for seed, width in enumerate((3.2, 3.6, 5.0)):
        field = StarField(n_stars=60, n_galaxies=0, min_separation=40, fwhm=width, seed=seed, name=f"f{seed}")
        solved, _ = field.make(roots, small)
        frame = CalibratedFrame(solved=solved, zero_point=ZeroPoint(status="PENDING"))
        psfs.append(model_psf(frame, roots, small, SETTINGS))
    made = mean_psf(psfs, roots, small)
    assert made.path == "stacks/T120_mean_psf.fits"
    with fits.open(roots.of(made), checksum=True) as hdus:
        image, header = np.asarray(hdus[0].data, dtype=float), hdus[0].header
        assert image.sum() == pytest.approx(1.0, abs=1e-5)
        assert fit_moffat(image).fwhm_px == pytest.approx(1.02 * 3.6, rel=0.03)
        assert centroid(image, 3.6) == pytest.approx((12.0, 12.0), abs=0.02)
        assert header["NCOMBINE"] == 3
        assert header["FWHM_AS"] == pytest.approx(header["FWHM_PX"] * 0.77, rel=1e-3)
    assert mean_psf(psfs, roots, small) == made


def test_mean_of_none_or_of_lost_files_is_a_stage_error(roots: Roots, t120: Telescope) -> None:
    with pytest.raises(StageError, match="none was made"):
        mean_psf([], roots, t120)
    roots.data.mkdir(parents=True, exist_ok=True)
    (roots.data / "a.psf").write_bytes(b"no FITS")
    file = ref(roots.data / "a.psf", roots)
    lost = FramePsf(psf=file, catalogue=file, fwhm_px=3, fwhm_arcsec=2.3, ellipticity=0, chi2=1, n_stars_accepted=9)
    with pytest.raises(StageError, match="no common PSF of 1 frames"):
        mean_psf([lost], roots, t120)


def test_double_stars_are_seen() -> None:
    """0.7 mag fainter and little more than a pixel away: SExtractor splits nothing."""
    draw = np.random.default_rng(5)
    rows, columns = np.mgrid[:160, :200]
    image = draw.normal(0.0, 1.0, rows.shape)

    def add(x: float, y: float, light: float) -> None:
        image[:] += light * (1 + ((columns - x) ** 2 + (rows - y) ** 2) / 5.0) ** -3.0

    x, y = (v.ravel() + draw.uniform(-0.5, 0.5, v.size) for v in np.meshgrid([30.0, 70, 110, 150], [30.0, 70, 120]))
    light = draw.uniform(500.0, 5000.0, x.size)
    for star in zip(x, y, light, strict=True):
        add(*star)
    bad = np.zeros(image.shape, bool)
    assert not doubles(image, bad, x, y, light / 5, 2.4).any()
    add(x[4] + 1.2, y[4] + 0.3, 0.52 * light[4])
    assert np.flatnonzero(doubles(image, bad, x, y, light / 5, 2.4)).tolist() == [4]
    bad[round(y[4]), round(x[4])] = True
    assert not doubles(image, bad, x, y, light / 5, 2.4).any(), "a star that cannot be fitted is left to PSFEx"
    assert not doubles(image, bad, x[:5], y[:5], light[:5] / 5, 2.4).any(), "so few cannot tell what is usual"
