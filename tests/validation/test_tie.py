"""Stacks tied to PS1 with all stars; half of them validated against a tie from the other half."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from models.base import Roots
from models.settings import ValidationSettings
from models.telescope import Telescope
from tasks.core.errors import StageError
from tasks.stacking import finish_stack
from tasks.validation import compared_stars, residuals, tie_stack, validate_stack
from tests.photometry.starfield import StarField
from tests.validation.test_validate import made_up

SETTINGS = ValidationSettings()


@pytest.mark.parametrize("off", [0.03, -0.02])
def test_a_dimmed_stack_is_tied_and_half_of_its_stars_say_it_is_right(
    off: float, roots: Roots, t120: Telescope
) -> None:
    stack, cone = made_up(roots, off=off)
    tie = tie_stack(stack, cone, roots, t120, SETTINGS)
    assert tie is not None
    assert tie.offset == pytest.approx(off, abs=0.015)
    assert 0 < tie.err < 0.01
    tied = stack.model_copy(update={"tie": tie})
    verdict = validate_stack(tied, cone, roots, t120, SETTINGS)
    assert verdict.validated
    assert verdict.zp_offset == pytest.approx(0.0, abs=0.015)
    everything = validate_stack(stack, cone, roots, t120, SETTINGS)
    assert tie.n_stars == everything.n_stars
    assert tie.offset == pytest.approx(everything.zp_offset, abs=1e-5)
    assert everything.n_stars / 2 - 5 <= verdict.n_stars <= everything.n_stars / 2 + 5


def test_the_check_is_by_stars_that_had_no_part_in_its_tie(roots: Roots, t120: Telescope) -> None:
    stack, cone = made_up(roots, off=0.03)
    tie = tie_stack(stack, cone, roots, t120, SETTINGS)
    assert tie is not None
    everything = residuals(stack, cone, roots, t120, SETTINGS)
    check = residuals(stack.model_copy(update={"tie": tie}), cone, roots, t120, SETTINGS)
    others = ~np.isin(everything.mag, check.mag)
    assert check.mag.size + np.count_nonzero(others) == everything.mag.size
    assert abs(np.median(everything.mag[others]) - np.median(check.mag)) < 0.2
    assert tie.half_offset == pytest.approx(np.median(everything.difference[others]), abs=0.01)
    assert check.offset == pytest.approx(
        np.median(everything.difference[~others]) - np.median(everything.difference[others]), abs=0.015
    )


def test_stars_that_are_measured_once_tell_the_same_ever_after(roots: Roots, t120: Telescope) -> None:
    stack, cone = made_up(roots, off=0.03)
    kept = compared_stars(stack, cone, roots, t120, SETTINGS)
    assert kept is not None
    again = stack.model_copy(update={"compared": kept})
    tie = tie_stack(stack, cone, roots, t120, SETTINGS)
    assert tie_stack(again, cone, roots, t120, SETTINGS) == tie
    for of_tie in (None, tie):
        one, two = (
            residuals(each.model_copy(update={"tie": of_tie}), cone, roots, t120, SETTINGS) for each in (stack, again)
        )
        for mine, theirs in zip(one, two, strict=True):
            assert np.array_equal(mine, theirs, equal_nan=isinstance(mine, np.ndarray) and mine.dtype.kind == "f")
            assert np.asarray(mine).dtype == np.asarray(theirs).dtype
    assert compared_stars(stack, cone, roots, t120, SETTINGS) == kept, "the same bytes"
    roots.of(kept).write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(StageError, match="cannot be read"):
        residuals(again, cone, roots, t120, SETTINGS)


def test_what_cannot_be_compared_is_not_measured(roots: Roots, t120: Telescope) -> None:
    stack, cone = made_up(roots)
    assert compared_stars(stack, None, roots, t120, SETTINGS) is None
    relative = stack.model_copy(update={"calibrated": False})
    assert compared_stars(relative, cone, roots, t120, SETTINGS) is None


def test_an_error_is_not_tied_away(roots: Roots, t120: Telescope) -> None:
    stack, cone = made_up(roots, off=0.3)
    assert tie_stack(stack, cone, roots, t120, SETTINGS) is None
    assert not validate_stack(stack, cone, roots, t120, SETTINGS).validated


def test_without_stars_or_a_wish_there_is_no_tie(roots: Roots, t120: Telescope) -> None:
    stack, cone = made_up(roots, StarField(n_stars=6, n_galaxies=0, min_separation=30, beta=4.0), off=0.03)
    assert tie_stack(stack, cone, roots, t120, SETTINGS) is None
    stack, cone = made_up(roots, off=0.03)
    assert tie_stack(stack, cone, roots, t120, ValidationSettings(tie=False)) is None
    assert tie_stack(stack, None, roots, t120, SETTINGS) is None


def test_the_published_flux_is_raised_and_the_header_says_so(roots: Roots, t120: Telescope) -> None:
    stack, cone = made_up(roots, off=0.03)
    with fits.open(roots.of(stack.image), mode="update") as hdus:
        hdus[0].header["PIXSCALE"], hdus[0].header["SATURATE"] = 0.77, 1000.0
    tie = tie_stack(stack, cone, roots, t120, SETTINGS)
    assert tie is not None
    done = finish_stack(stack.model_copy(update={"tie": tie}), None, None, roots, depth_5sigma=21.5)
    with fits.open(roots.of(done.image)) as hdus:
        header, data = hdus[0].header, hdus[0].data
    raised = 10 ** (0.4 * tie.offset)
    np.testing.assert_allclose(data, fits.getdata(roots.of(stack.image)) * raised, rtol=1e-6)
    assert (header["PHOTTIE"], header["PHOTTIEN"]) == (tie.offset, tie.n_stars)
    assert header["SATURATE"] == pytest.approx(1000 * raised, abs=0.1)
    assert header["DEPTH5S"] == pytest.approx(21.5 - tie.offset, abs=1e-3)
