"""What is drawn is what was measured: depth from noise and weight, positions against Gaia, line emission."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from PIL import Image

from models.base import Roots
from models.catalog import Cone
from models.settings import ValidationSettings
from models.stack import Stack, StackNoise, StackPsf, stack_paths
from models.telescope import load_telescope
from tasks.catalogs import store_cone
from tasks.core.files import ref
from tasks.core.fitsio import write_fits
from tasks.pages import pictures_of_stack, plots_of_stack
from tasks.pages.raster import overlay_picture
from tests.stacking.sky import make_roots, moffat
from tests.validation.stacks import SCALE, pixels_of, tan_header

TELESCOPE = load_telescope("T120")
SIDE, NOISE, FWHM_PX = 300, 2.0, 4.0


@pytest.fixture
def roots(tmp_path) -> Roots:
    return make_roots(tmp_path)


def published(roots: Roots, band: str, image: np.ndarray, weight: np.ndarray, fwhm: float = FWHM_PX) -> Stack:
    """A stack as `finish_stack` leaves it."""
    paths = stack_paths("M51", "T120", band, roots)
    header = tan_header(image.shape, 202.47, 47.19)
    header["PIXSCALE"] = SCALE
    stamp = moffat((25, 25), 12, 12, fwhm)
    for path, data in ((paths.image, image), (paths.weight, weight), (paths.psf, stamp)):
        write_fits(path, [fits.PrimaryHDU(np.asarray(data, np.float32), header)])
    psf = StackPsf(
        file=ref(paths.psf, roots), fwhm_px=fwhm, fwhm_arcsec=fwhm * SCALE, ee50_arcsec=2.0, ee80_arcsec=3.4,
        ellipticity=0.01, n_stars=20, chi2=1.0,
    )  # fmt: skip
    sigma = 1.1 * NOISE * np.sqrt(np.pi) * fwhm
    noise = StackNoise(
        inverse_variance=1.0 / NOISE**2, correlation=1.1, aperture_sigma=sigma, aperture_px=fwhm, n_apertures=400,
        surface_brightness=26.0,
    )  # fmt: skip
    return Stack(
        group="M51", filter=band, telescope="T120", image=ref(paths.image, roots), weight=ref(paths.weight, roots),
        n_combined=3, inputs=("a",), combine="MEDIAN", exptime_s=180.0, calibrated=True, psf=psf, noise=noise,
        depth_5sigma=22.0,
    )  # fmt: skip


def sky(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, NOISE, (SIDE, SIDE))


def test_the_depth_map_follows_the_weight(roots):
    weight = np.ones((SIDE, SIDE))
    weight[:, : SIDE // 2] = 0.25
    weight[:30] = 0.0
    drawn = pictures_of_stack(published(roots, "r", sky(), weight), roots)
    deep, middle, shallow = drawn.depth_quartiles
    assert deep == pytest.approx(22.0, abs=0.01)
    assert shallow == pytest.approx(22.0 + 1.25 * np.log10(0.25), abs=0.01)
    assert shallow <= middle <= deep
    assert f"{middle:.2f} mag" in drawn.depth.alt
    svg = roots.of(drawn.depth.file).read_text()
    assert "5σ depth of a point source (mag)" in svg
    assert "image/webp" in svg
    assert "prefers-color-scheme:dark" in svg


def test_a_stack_without_depth_has_no_map_of_it(roots):
    bare = published(roots, "r", sky(), np.ones((SIDE, SIDE))).model_copy(update={"depth_5sigma": None})
    assert pictures_of_stack(bare, roots).depth is None


def test_pictures_are_small_and_have_the_same_bytes_again(roots):
    stack = published(roots, "r", sky(), np.ones((SIDE, SIDE)))
    first = pictures_of_stack(stack, roots)
    assert pictures_of_stack(stack, roots) == first
    call = (stack, roots.data / "plots", None, None, 2023.2, roots, TELESCOPE, ValidationSettings())
    plots = plots_of_stack(*call)
    assert plots_of_stack(*call) == plots
    for made, most in ((first.view, 60_000), (first.weight, 20_000), (first.depth, 40_000), (plots.psf, 40_000)):
        assert 200 < roots.of(made.file).stat().st_size < most
    assert plots.photometry is plots.astrometry is None
    assert plots.remarks == (
        "magnitudes against PS1: not compared",
        "positions against Gaia: no Gaia stars at hand",
    )


def test_positions_are_what_the_stack_says_minus_gaia(roots):
    """The sky moved by 60 mas to the east and 25 to the south since 2016, the stars by what Gaia says."""
    rng = np.random.default_rng(4)
    header = tan_header((SIDE, SIDE), 202.47, 47.19)
    mesh = (np.arange(6) + 0.5) / 6 * 2 - 1
    east, north = (axis.ravel() * 0.022 for axis in np.meshgrid(mesh, mesh))
    ra, dec = 202.47 + east / np.cos(np.deg2rad(47.19)), 47.19 + north
    n = len(ra)
    gaia = Table({
        "source_id": np.arange(n), "ra": ra, "dec": dec, "pmra": np.full(n, 10.0), "pmdec": np.zeros(n),
        "parallax": np.zeros(n), "ra_error": np.full(n, 0.1), "dec_error": np.full(n, 0.1),
        "phot_g_mean_mag": np.full(n, 15.0), "bp_rp": np.ones(n),
    })  # fmt: skip
    cone = store_cone("gaia", Cone(ra=202.47, dec=47.19, radius=0.1), gaia, roots, "test", "Gaia DR3")
    moved = np.cos(np.deg2rad(dec))
    x, y = pixels_of(header, ra + (100.0 + 60.0) / 3.6e6 / moved, dec - 25.0 / 3.6e6)
    image = rng.normal(0, NOISE, (SIDE, SIDE))
    for px, py in zip(x, y, strict=True):
        image += 20_000 * moffat((SIDE, SIDE), px, py, FWHM_PX)
    stack = published(roots, "r", image, np.ones((SIDE, SIDE)))
    made = plots_of_stack(stack, roots.data / "plots", None, cone, 2026.0, roots, TELESCOPE, ValidationSettings())
    found = made.positions
    assert found.n_stars >= 30
    assert found.offset_ra_mas == pytest.approx(60.0, abs=3.0)
    assert found.offset_dec_mas == pytest.approx(-25.0, abs=3.0)
    assert found.rms_mas < 8.0
    assert f"{found.n_stars} stars" in made.astrometry.alt


def test_line_emission_is_drawn_and_stars_are_not(roots):
    """A nebula in Ha alone; a star in both, twice as wide in one."""
    shape = (SIDE, SIDE)
    star, nebula = 50_000 * moffat(shape, 80, 200, 3.0), 40_000 * moffat(shape, 220, 100, 14.0)
    blurred = 50_000 * moffat(shape, 80, 200, 4.5)
    weight = np.ones(shape)
    broad = published(roots, "r", sky(1) + star, weight, 3.0)
    line = published(roots, "Ha", sky(2) + blurred + nebula, weight, 4.5)
    box = (slice(0, SIDE), slice(0, SIDE))
    path = roots.data / "line.webp"
    picture, how = overlay_picture([broad, line], {"Ha": "r"}, box, path, roots)
    assert "Hα without its continuum (1.000 × r)" in how
    alpha = np.asarray(Image.open(roots.of(picture.file)).convert("RGBA"))[::-1, :, 3]
    assert alpha[100, 220] > 150
    assert alpha[200, 80] < 60
    assert np.count_nonzero(alpha[150:250, 30:130] > 30) < 60
    assert overlay_picture([line], {"Ha": "r"}, box, path, roots)[1].startswith("No Hα overlay: no broad band")
    assert overlay_picture([broad], {"Ha": "r"}, box, path, roots) == (None, "")
