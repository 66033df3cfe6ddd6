from __future__ import annotations

import pickle

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from models.base import Roots
from models.catalog import Cone, StoredCone
from models.settings import ValidationSettings
from models.stack import Stack, StackTie, stack_paths
from models.telescope import Telescope
from tasks.catalogs import store_cone
from tasks.core.errors import StageError
from tasks.validation import plot_validation, residuals, tie_stack, validate_stack
from tests.photometry.starfield import DEC, RA, StarField, moffat_field
from tests.validation.stacks import tan_header, write_stack

SETTINGS = ValidationSettings()
FIELD = StarField(n_stars=120, n_galaxies=15, min_separation=30, beta=4.0)


def made_up(
    roots: Roots, field: StarField = FIELD, off: float = 0.0, band: str = "r", calibrated: bool = True
) -> tuple[Stack, StoredCone]:
    """A stack whose magnitudes are all too faint by `off`, and the PS1 cone that covers it."""
    x, y, table = field.catalogue()
    header = tan_header(field.shape, RA, DEC)
    table["raMean"], table["decMean"] = WCS(header).all_pix2world(np.column_stack([x, y]), 0).T
    flux = 10 ** (-0.4 * (field.natural(table) + off - 30.0))
    image = moffat_field(field.shape, x, y, flux, field.fwhm, field.beta)
    image += np.random.default_rng(field.seed).normal(0, 100, field.shape)
    weight = np.ones(field.shape)
    weight[:, :20] = image[:, :20] = 0
    cone = store_cone("ps1", Cone(ra=RA, dec=DEC, radius=0.2), table, roots, "simulation", "PS1 DR2")
    return write_stack(roots, image, weight, header, band=band, calibrated=calibrated), cone


@pytest.mark.parametrize("off", [0.0, 0.05, -0.08])
def test_offset_is_found(off: float, roots: Roots, t120: Telescope) -> None:
    stack, cone = made_up(roots, off=off)
    verdict = validate_stack(stack, cone, roots, t120, SETTINGS)
    assert verdict.validated
    assert verdict.zp_offset == pytest.approx(off, abs=0.012)
    assert verdict.zp_err < 0.01
    assert verdict.zp_rms < 0.05
    assert verdict.n_stars >= 30
    found = residuals(stack, cone, roots, t120, SETTINGS)
    assert found.colour_term == pytest.approx(FIELD.colour_term, abs=0.02)
    assert np.median(found.difference[found.used]) == pytest.approx(verdict.zp_offset, abs=0.01)


def test_a_stack_far_off_is_not_validated(roots: Roots, t120: Telescope) -> None:
    verdict = validate_stack(*made_up(roots, off=0.3), roots, t120, SETTINGS)
    assert not verdict.validated
    assert verdict.zp_offset == pytest.approx(0.3, abs=0.012)
    assert "at most 0.1 is allowed" in verdict.reason


def test_what_cannot_be_compared_says_why(roots: Roots, t120: Telescope) -> None:
    stack, cone = made_up(roots)
    assert validate_stack(stack, None, roots, t120, SETTINGS).reason.startswith("pending")
    narrow = stack.model_copy(update={"filter": "Ha"})
    assert validate_stack(narrow, cone, roots, t120, SETTINGS).reason == "PS1 has no band like Ha"
    with pytest.raises(StageError, match="no band like"):
        residuals(narrow, cone, roots, t120, SETTINGS)
    loose = validate_stack(stack.model_copy(update={"calibrated": False}), cone, roots, t120, SETTINGS)
    assert "only a relative scale" in loose.reason
    sparse = FIELD.but(n_stars=3, n_galaxies=0, shape=(300, 300), beyond_edge=-50, faintest=17.0, brightest=15.0)
    stack, cone = made_up(roots, sparse)
    few = validate_stack(stack, cone, roots, t120, SETTINGS)
    assert few.reason.startswith("3 stars, 5 are needed")
    assert not any(v.validated for v in (loose, few))
    blank = write_stack(roots, np.zeros((300, 300)), np.ones((300, 300)), tan_header((300, 300), RA, DEC))
    assert validate_stack(blank, cone, roots, t120, SETTINGS).reason.startswith("0 stars, 5 are needed")


def test_the_releases_method_stands_beside_ours(roots: Roots, t120: Telescope) -> None:
    """No cut on galaxies and no colour term: its offset and scatter are those of the field, not of the stack."""
    field = FIELD.but(n_galaxies=120, colour_term=-0.12, seed=3)
    verdict = validate_stack(*made_up(roots, field, off=0.02), roots, t120, SETTINGS)
    assert verdict.zp_offset == pytest.approx(0.02, abs=0.012)
    assert verdict.zp_rms < 0.05
    assert verdict.release_rms > 3 * verdict.zp_rms
    assert abs(verdict.release_offset - 0.02) > 3 * abs(verdict.zp_offset - 0.02)
    assert verdict.release_n_stars > verdict.n_stars


def test_the_releases_method_is_what_its_text_says(roots: Roots, t120: Telescope) -> None:
    """Stars alone, of one colour and isolated: there it works, and finds the same."""
    plain = FIELD.but(n_galaxies=0, colour_term=0.0, brightest=14.0, faintest=17.0, n_stars=60)
    stack, cone = made_up(roots, plain, off=0.05)
    verdict = validate_stack(stack, cone, roots, t120, SETTINGS)
    assert verdict.release_offset == pytest.approx(0.05, abs=0.01)
    assert verdict.release_n_stars > 40
    # The tie is part of the published image: its magnitudes are the brighter by it, by either method.
    tied = stack.model_copy(update={"tie": StackTie(offset=0.05, half_offset=0.05, err=0.002, n_stars=30)})
    after = validate_stack(tied, cone, roots, t120, SETTINGS)
    assert after.release_offset == pytest.approx(verdict.release_offset - 0.05, abs=2e-3)
    sparse = FIELD.but(n_stars=3, n_galaxies=0, shape=(300, 300), beyond_edge=-50, faintest=17.0, brightest=15.0)
    few = validate_stack(*made_up(roots, sparse), roots, t120, SETTINGS)
    assert (few.release_offset, few.release_n_stars) == (None, None)


def test_a_curved_colour_relation_is_no_offset(roots: Roots, t120: Telescope) -> None:
    """B against g: with the filter's term given and the square left out a stack in order would be off by 30 mmag."""
    field = FIELD.but(band="B", colour_term=0.6, curvature=0.034, colour_range=(0.3, 1.4))
    given = tuple(b.model_copy(update={"colour_term": 0.6}) if b.name == "B" else b for b in t120.bands)
    telescope = t120.model_copy(update={"bands": given})
    verdict = validate_stack(*made_up(roots, field, band="B"), roots, telescope, SETTINGS)
    assert verdict.zp_offset == pytest.approx(0.0, abs=0.012)
    straight = tuple(b.model_copy(update={"colour_curvature": 0.0}) for b in given)
    off = validate_stack(*made_up(roots, field, band="B"), roots, t120.model_copy(update={"bands": straight}), SETTINGS)
    assert abs(off.zp_offset) > 0.02


def test_a_field_that_a_galaxy_fills_is_validated(roots: Roots, t120: Telescope) -> None:
    """As M64 fills its field: stars on its light, few and faint; three such stacks failed in the release."""
    field = FIELD.but(n_stars=45, n_galaxies=0, seed=6)
    stack, cone = made_up(roots, field)
    image = fits.getdata(roots.of(stack.image)).astype(float)
    y, x = np.indices(image.shape)
    radius = np.hypot(x - 320, (y - 320) / 0.6)
    light = 6000 * np.exp(-radius / 110)  # exponential disc, 19.5 mag/arcsec2 at its centre
    image += light + np.random.default_rng(2).normal(0, 1, image.shape) * np.sqrt(light)
    image[:, :20] = 0
    galaxy = write_stack(roots, image, fits.getdata(roots.of(stack.weight)), tan_header(field.shape, RA, DEC))
    tie = tie_stack(galaxy, cone, roots, t120, SETTINGS)
    verdict = validate_stack(galaxy.model_copy(update={"tie": tie}), cone, roots, t120, SETTINGS)
    assert verdict.validated, verdict.reason
    assert verdict.zp_offset == pytest.approx(0.0, abs=0.02)


def test_broken_stacks_are_stage_errors(roots: Roots, t120: Telescope) -> None:
    stack, cone = made_up(roots)
    header = tan_header((64, 64), RA, DEC)
    with pytest.raises(StageError, match="0 everywhere"):
        validate_stack(write_stack(roots, np.zeros((64, 64)), np.zeros((64, 64)), header), cone, roots, t120, SETTINGS)
    roots.of(stack.image).write_bytes(b"nothing")
    with pytest.raises(StageError, match="cannot be read") as caught:
        validate_stack(stack, cone, roots, t120, SETTINGS)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_plot_shows_the_residuals_and_is_reproducible(roots: Roots, t120: Telescope) -> None:
    stack, cone = made_up(roots, off=0.05)
    verdict = validate_stack(stack, cone, roots, t120, SETTINGS)
    found = residuals(stack, cone, roots, t120, SETTINGS)
    path = stack_paths("M51", "T120", "r", roots).plots / "M51_r_phot.png"
    first = plot_validation(stack, found, verdict, path, roots)
    content = path.read_bytes()
    assert first.path == "stacks/M51/T120/plots/M51_r_phot.png"
    assert content.startswith(b"\x89PNG")
    assert b"Software" not in content
    assert plot_validation(stack, found, verdict, path, roots) == first
    pending = validate_stack(stack, None, roots, t120, SETTINGS)
    assert plot_validation(stack, None, pending, path, roots) != first
