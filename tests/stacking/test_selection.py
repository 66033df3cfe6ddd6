"""Which frames enter a stack; every rejection says why with numbers."""

from __future__ import annotations

import pytest

from models.frame import Rejected
from models.settings import SelectionSettings, StackSettings
from models.stack import ScaledFrame, Scaling, Selection
from models.target import Target
from models.telescope import load_telescope
from tasks.core.errors import StageError
from tasks.stacking import common_grid, group_centre, select_frames
from tasks.stacking.heads import head_wcs
from tests.stacking.sky import CENTRE, SCALE, Shot, make_roots, stars, take

T120 = load_telescope("T120")
M67 = Target(name="M67", ra=CENTRE[0], dec=CENTRE[1])


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    return make_roots(tmp_path_factory.mktemp("selection"))


def scaled(roots, name, zp=23.0, **changes):
    shot = Shot(name, zp=zp, noise=False, **changes)
    aligned = take(shot, stars(4), roots)
    scale = 10 ** (0.4 * (30 - zp)) / shot.exptime
    return ScaledFrame(aligned=aligned, zero_point=zp, flux_scale=scale, scale_source="PS1")


def select(roots, frames, settings=None, target=M67, **options):
    scaling = Scaling(scaled=tuple(frames))
    return select_frames(
        target, "r", scaling, options.pop("rejected", ()), roots, T120, settings or SelectionSettings(), **options
    )


def names(selection):
    return [item.aligned.frame.raw.name for item in selection.chosen]


def test_position_cut_single_and_merged(roots):
    frames = [scaled(roots, "a"), scaled(roots, "b"), scaled(roots, "far", dither=(0, 300))]
    selection = select(roots, frames)
    assert names(selection) == ["a", "b"]
    assert "5.0 arcmin from the target, more than 4.0" in selection.rejected[0].reason
    merged = Target(name="Coma", ra=CENTRE[0], dec=CENTRE[1], members=("a", "b"))
    assert len(select(roots, frames, target=merged).chosen) == 3


def test_position_is_taken_from_the_median_centre_when_given(roots):
    frames = [scaled(roots, f"m{i}", dither=(0, 250 + i)) for i in range(3)]
    centre = group_centre([frame.aligned for frame in frames])
    assert centre[1] == pytest.approx(CENTRE[1] + 251 / 3600, abs=1e-6)
    assert select(roots, frames).status == "TOO_FEW_FRAMES"
    assert len(select(roots, frames, centre=centre).chosen) == 3


def test_median_centre_does_not_mind_the_turn_of_right_ascension(roots):
    shots = [scaled(roots, f"w{i}", centre=(ra, 10.0)).aligned for i, ra in enumerate((359.99, 0.01, 0.0))]
    ra, dec = group_centre(shots)
    assert min(ra, 360 - ra) < 0.001
    assert dec == pytest.approx(10.0, abs=1e-3)


def test_aberrant_matrix(roots):
    frames = [scaled(roots, "a"), scaled(roots, "b"), scaled(roots, "c")]
    path = roots.of(frames[2].aligned.head)
    lines = path.read_text().splitlines()
    bent = [f"{line[:8]}= {float(line[10:30]) * 5:.12E}" if line.startswith("CD") else line for line in lines]
    path.write_text("\n".join(bent) + "\n")
    selection = select(roots, frames)
    assert names(selection) == ["a", "b"]
    assert "abs(det CD) of its .head is 25 times the nominal" in selection.rejected[0].reason


def test_zero_point_cut_has_a_floor(roots):
    close = [scaled(roots, f"z{i}", zp=23.0 + 0.01 * i) for i in range(5)] + [scaled(roots, "z9", zp=22.80)]
    assert len(select(roots, close).chosen) == 6, "0.2 mag off, many sigma, but below the floor"
    selection = select(roots, [*close, scaled(roots, "cloud", zp=22.4)])
    assert "cloud" not in names(selection)
    (rejected,) = selection.rejected
    assert rejected.file == "20250317/cloud.fits"
    assert "zero point 22.400, -0.61 mag from its filter's median, more than 0.30" in rejected.reason


def test_zero_point_cut_works_on_relative_scales(roots):
    frames = [scaled(roots, f"r{i}") for i in range(3)] + [scaled(roots, "dim", zp=22.0)]
    frames = [frame.model_copy(update={"zero_point": None}) for frame in frames]
    assert names(select(roots, frames)) == ["r0", "r1", "r2"]


def test_quality_flags_and_seeing_only_when_asked(roots):
    frames = [scaled(roots, "a"), scaled(roots, "b"), scaled(roots, "bad", flags=("BAD_SEEING",), fwhm_px=9.0)]
    assert len(select(roots, frames).chosen) == 3
    flagged = select(roots, frames, SelectionSettings(exclude_flags=("BAD_SEEING",)))
    assert flagged.rejected[0].reason == "quality flag BAD_SEEING"
    sharp = select(roots, frames, SelectionSettings(max_seeing_arcsec=4.0))
    assert sharp.rejected[0].reason == "FWHM 6.96 arcsec, more than 4.00"


def test_too_few_frames_leave_the_filter_unstacked(roots):
    earlier = Rejected(file="20250317/x.fits", reason="no plate solution")
    selection = select(roots, [scaled(roots, "a")], rejected=(earlier,))
    assert selection.status == "TOO_FEW_FRAMES"
    assert selection.chosen == ()
    assert selection.reason == "1 usable of 2 frames in r, 2 needed"
    assert [item.file for item in selection.rejected] == ["20250317/x.fits", "20250317/a.fits"]


def choose(frames):
    return Selection(group="M67", filter="r", chosen=tuple(frames))


def test_grid_holds_every_corner_with_its_distortion(roots):
    frames = [scaled(roots, "a", dither=(40, 0)), scaled(roots, "b", dither=(-30, 25), k3=40.0)]
    settings = StackSettings(padding_px=5)
    grid = common_grid([choose(frames[:1]), choose(frames[1:])], roots, T120, settings)
    from astropy.wcs import WCS

    from tasks.stacking import grid_header

    wcs = WCS(grid_header(grid))
    for frame in frames:
        corners = [(0.5, 0.5), (256.5, 0.5), (256.5, 256.5), (0.5, 256.5)]
        sky = head_wcs(frame.aligned, roots).all_pix2world(corners, 1)
        at = wcs.all_world2pix(sky, 1)
        assert (at > 5).all()
        assert (at[:, 0] < grid.nx - 4).all()
        assert (at[:, 1] < grid.ny - 4).all()
    assert grid.pixel_scale == 0.770
    assert grid.nx < 256 * SCALE / 0.77 + 70 / 0.77 + 2 * 5 + 12


def test_grid_is_the_same_whatever_the_order(roots):
    frames = [scaled(roots, f"o{i}", dither=(10.0 * i, -5.0 * i)) for i in range(3)]
    grids = {
        common_grid([choose(order)], roots, T120, StackSettings()).model_dump_json() for order in (frames, frames[::-1])
    }
    assert len(grids) == 1


@pytest.mark.parametrize("centre", [(0.0, 30.0), (120.0, 89.99), (45.0, -90.0 + 1e-3)])
def test_grid_at_the_turn_of_right_ascension_and_at_the_pole(roots, centre):
    frames = [scaled(roots, f"p{i}", centre=centre, dither=(0.0, 15.0 * i)) for i in range(2)]
    grid = common_grid([choose(frames)], roots, T120, StackSettings(padding_px=0))
    diagonal = 256 * 2**0.5 * SCALE / 0.77
    assert grid.nx <= diagonal + 45
    assert grid.ny <= diagonal + 45
    assert grid.nx >= 256


def test_absurd_grid_and_empty_selection_are_errors(roots):
    frames = [scaled(roots, "here"), scaled(roots, "there", centre=(140.0, 11.8))]
    with pytest.raises(StageError, match="more than 20000 px"):
        common_grid([choose(frames)], roots, T120, StackSettings())
    far = [scaled(roots, "this"), scaled(roots, "other", centre=(312.85, -11.8))]
    with pytest.raises(StageError):
        common_grid([choose(far)], roots, T120, StackSettings())
    with pytest.raises(StageError, match="no frame was chosen"):
        common_grid([choose([])], roots, T120, StackSettings())
