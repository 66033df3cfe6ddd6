"""The stack for extended targets: skies that fit each other, isophotes, light that stays, and when it is made."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from models.base import FileRef
from models.settings import StackSettings
from models.stack import GroupSources, ScaledFrame, Selection, StackTie
from models.telescope import load_telescope
from tasks.core.errors import StageError
from tasks.stacking import combine, common_grid, extend, find_sources, finish_extended, finish_stack, wanted
from tasks.stacking.extended import Ground, fit_sky
from tasks.stacking.sources import compact_sources, extended_light, grown, largest, significance
from tasks.stacking.surface import Blocks, evaluate, fit_skies, leverage, terms
from tests.stacking.sky import CENTRE, SCALE, Shot, make_roots, moffat, stars, take

T120 = load_telescope("T120")
SIDE = 320
NOISE = 20.0
SKY = 1000.0
RNG = np.random.default_rng


def disc(blocks: Blocks, radius: float, peak: float = 400.0) -> np.ndarray:
    """An exponential disc in the middle, cut off at a radius (px), a value a block."""
    rows, columns = (np.arange(n) * blocks.side + (blocks.side - 1) / 2 for n in blocks.count)
    r = np.hypot(rows[:, None] - blocks.shape[0] / 2, columns - blocks.shape[1] / 2)
    return np.where(r < radius, peak * np.exp(-2.0 * r / radius), 0.0)


def observed(light: np.ndarray, blocks: Blocks, n: int, seed: int = 1) -> tuple[Ground, np.ndarray]:
    """Frames of 80 % of the field with level and tilt of their own, and the surfaces that were put in."""
    rng = RNG(seed)
    surfaces = np.column_stack([rng.normal(0, 60, n), rng.normal(0, 0.02 * SKY, n), rng.normal(0, 0.02 * SKY, n)])
    basis = terms(*blocks.coordinates(), 1)
    values = light + np.tensordot(surfaces, basis, axes=1)
    sigma = NOISE / blocks.side
    values += rng.normal(0, sigma, values.shape)
    for frame in values:  # each looks at another part
        rows, columns = (int(rng.integers(0, 0.2 * size)) for size in blocks.count)
        seen = np.zeros(blocks.count, bool)
        seen[rows : rows + int(0.8 * blocks.count[0]) + 1, columns : columns + int(0.8 * blocks.count[1]) + 1] = True
        frame[~seen] = np.nan
    share = np.isfinite(values).any(axis=0).astype(float)
    ground = Ground(
        values=values, variance=np.full_like(values, sigma**2), share=share,
        covered=int(share.sum() * blocks.side**2), deep=share > 0, objects=np.zeros(blocks.count, bool),
    )  # fmt: skip
    return ground, surfaces


SLOPE = np.full(20, 0.03 * SKY)


@pytest.mark.parametrize("n", [2, 8])
def test_skies_are_found_under_a_galaxy_that_fills_most_of_the_field(n):
    """60 % of the field; the light of each block comes out to a thousandth of the sky, in the galaxy, too."""
    blocks = Blocks.of((SIDE, SIDE))
    light = disc(blocks, 0.43 * SIDE)
    assert 0.55 < np.mean(light > 0) < 0.65
    ground, surfaces = observed(light, blocks, n)
    if n == 2:  # with so few frames only if the default product shows something of it
        ground = Ground(**{**vars(ground), "objects": light > 80.0})
    sky = fit_sky(ground, blocks, 1, 0.05, SLOPE[:n])
    assert sky.fraction < 0.4
    assert not sky.empty[light > 1.0].any()
    seen = np.isfinite(sky.fit.light)
    error = (sky.fit.light - light)[seen]
    assert abs(np.mean(error[light[seen] > 0])) < 0.0015 * SKY
    basis = terms(*blocks.coordinates(), 1)
    found = np.tensordot(sky.fit.coefficients - surfaces, basis, axes=1)
    steps = found - found.mean(axis=0)  # what frames disagree by: this would show at their edges
    assert np.std(steps) < 0.0015 * SKY


def test_frames_agree_better_with_each_other_than_their_own_sky_could_tell():
    """Little sky, in two corners: a plane a frame from its own sky would be poor, their differences are not."""
    blocks = Blocks.of((SIDE, SIDE))
    ground, surfaces = observed(disc(blocks, 0.43 * SIDE), blocks, 8)
    empty = np.zeros(blocks.count, bool)
    empty[:6, :6] = empty[-6:, -6:] = empty[:6, -6:] = True
    fit = fit_skies(ground.values, ground.variance, empty, blocks, 1, SLOPE[:8])
    basis = terms(*blocks.coordinates(), 1)
    wrong = np.tensordot(fit.coefficients - surfaces, basis, axes=1)
    assert np.std(wrong - wrong.mean(axis=0)) < 0.002 * SKY


def test_a_hit_and_an_unknown_source_in_the_sky_move_nothing():
    blocks = Blocks.of((SIDE, SIDE))
    ground, _ = observed(disc(blocks, 0.3 * SIDE), blocks, 5)
    before = fit_sky(ground, blocks, 1, 0.05, SLOPE[:5])
    ground.values[2, 3, 4] += 5000.0
    ground.values[:, -4, 5:7] += 300.0
    after = fit_sky(ground, blocks, 1, 0.05, SLOPE[:5])
    assert np.nanmax(np.abs(after.fit.light - before.fit.light)[10:-10, 10:-10]) < 0.001 * SKY


def test_without_sky_it_is_refused_and_says_how_little_there_was():
    blocks = Blocks.of((SIDE, SIDE))
    ground, _ = observed(disc(blocks, 2.0 * SIDE, peak=600), blocks, 5)
    covered = Ground(**{**vars(ground), "objects": np.ones(blocks.count, bool)})
    with pytest.raises(StageError, match=r"only 0.0 % of the field shows empty sky, 5 % are needed") as caught:
        fit_sky(covered, blocks, 1, 0.05, SLOPE[:5])
    assert pickle.loads(pickle.dumps(caught.value)).remedy == caught.value.remedy


def test_scarce_sky_and_sky_on_one_side_are_said():
    blocks = Blocks.of((SIDE, SIDE))
    light = np.zeros(blocks.count)
    light[9:] = 300.0
    ground, _ = observed(light, blocks, 6)
    sky = fit_sky(Ground(**{**vars(ground), "objects": light > 0}), blocks, 1, 0.005, SLOPE[:6])
    assert sky.fraction < 0.15
    assert any("may hold some of their light" in note for note in sky.notes)
    assert any("one side" in note for note in sky.notes)
    inside = np.nanmean(sky.fit.light[10:-5])
    assert abs(inside - 300.0) < 0.03 * SKY  # the mean of six tilts of 2 %


def test_leverage_tells_how_the_sky_lies():
    blocks = Blocks.of((SIDE, SIDE))
    everywhere = np.ones(blocks.count, bool)
    corner = np.zeros(blocks.count, bool)
    corner[:6, :6] = True
    assert leverage(everywhere, everywhere, blocks, 1) == pytest.approx(7, rel=0.1)
    assert leverage(~corner, everywhere, blocks, 1) < 10
    assert leverage(corner, everywhere, blocks, 1) > 100
    assert leverage(np.zeros(blocks.count, bool), everywhere, blocks, 1) == np.inf


@pytest.mark.parametrize(("x0", "y0"), [(0, 0), (-5, 3), (13, -20), (30, 41), (200, 0)])
def test_blocks_of_a_piece_of_the_grid(x0, y0):
    grid, side = (60, 52), 8
    blocks = Blocks(grid, side)
    piece = RNG(2).normal(0, 1, (40, 30)).astype(np.float32)
    whole = np.full((64, 56), np.nan)
    for y in range(40):
        for x in range(30):
            if 0 <= y + y0 < grid[0] and 0 <= x + x0 < grid[1]:
                whole[y + y0, x + x0] = piece[y, x]
    expected = np.nansum(whole.reshape(8, 8, 7, 8), axis=(1, 3))
    pixels, place = blocks.cut(piece, x0, y0)
    found = np.zeros(blocks.count)
    found[place] = np.nansum(pixels, axis=2)
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_surface_is_the_same_in_blocks_and_pixels():
    blocks = Blocks((96, 128), 8)
    for degree, coefficients in ((0, [3.0]), (1, [1.0, 2.0, -3.0]), (2, [1.0, 2.0, -3.0, 0.5, 0.7, -0.2])):
        pixels = evaluate(blocks, np.array(coefficients), 16, 8, (40, 64))
        x, y = blocks.scaled(np.array([16.0, 79.0]), np.array([8.0, 47.0]))
        direct = np.tensordot(coefficients, terms(x, y, degree), axes=1)
        assert [pixels[0, 0], pixels[-1, -1]] == pytest.approx(direct)


def star_field(side: int, n: int, seed: int = 4) -> np.ndarray:
    rng = RNG(seed)
    image = rng.normal(0, 1.0, (side, side))
    for x, y, flux in zip(*rng.uniform(0, side, (2, n)), 10 ** rng.uniform(1.5, 4.5, n), strict=True):
        x0, y0 = max(0, int(x) - 30), max(0, int(y) - 30)
        stamp = image[y0 : int(y) + 31, x0 : int(x) + 31]
        stamp += flux * moffat(stamp.shape, x - x0, y - y0, 3.5)
    return image.astype(np.float32)


def test_a_crowd_of_stars_is_no_large_object_and_a_galaxy_is():
    side = 400
    image, weight = star_field(side, 120), np.ones((side, side), np.float32)
    blocks = Blocks.of(image.shape)
    galaxy = blocks.spread(disc(blocks, 130.0, peak=8.0)).astype(np.float32)
    sizes = []
    for data in (image, image + galaxy):
        compact = compact_sources([significance(data, weight)])
        assert compact[image > 8].mean() > 0.99
        pixels, _ = blocks.cut(np.where(compact, np.nan, data))
        share = np.isfinite(pixels).mean(axis=2)
        light = np.nansum(pixels, axis=2) / np.maximum(share * blocks.side**2, 1)
        objects = np.zeros(blocks.count, bool)
        for _ in range(3):
            empty = (share > 0.3) & ~grown(objects, 0.2)
            objects |= extended_light(np.where(share > 0.3, light, np.nan), share, share >= 0, empty)
        extent = largest(objects)
        sizes.append(0.0 if extent is None else extent.diameter * blocks.side)
    assert sizes[0] < 60
    assert sizes[1] == pytest.approx(260, rel=0.12)


def test_objects_grow_by_their_own_size():
    objects = np.zeros((60, 60), bool)
    objects[20:40, 20:40] = True
    objects[50:52, 5:7] = True
    larger = grown(objects, 0.5)
    assert larger[30, 44] and not larger[30, 46]  # noqa: PT018 - one edge
    assert larger[51, 8] and not larger[51, 9]  # noqa: PT018


@pytest.mark.parametrize(
    ("when", "diameter", "made", "said"),
    [
        ("auto", 700.0, True, "700 px across in g, larger than the background mesh of 256 px"),
        ("auto", 162.0, False, "no object is larger than the background mesh of 256 px (largest: 162 px across in g)"),
        ("auto", 0.0, False, "(largest: none)"),
        ("always", 0.0, True, "always"),
        ("never", 700.0, False, "never"),
    ],
)
def test_when_it_is_made(when, diameter, made, said):
    sources = GroupSources(
        group="M51", map=FileRef(path="x", digest="0" * 64), diameter_px=diameter, filter="g" if diameter else "",
        filters=("g", "r"),
    )  # fmt: skip
    decision, why = wanted(sources, StackSettings(extended=when))
    assert decision is made
    assert said in why


RADIUS_ARCSEC = 75.0


def nebula(wcs: WCS, shape: tuple[int, int], zp: float, exptime: float, tilt: tuple[float, float]) -> np.ndarray:
    """A disc of a third of the field at its centre, and a tilted sky; ADU a pixel."""
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    x0, y0 = wcs.all_world2pix([CENTRE[0]], [CENTRE[1]], 0)
    r = np.hypot(xx - x0[0], yy - y0[0]) * SCALE
    brightness = np.where(r < RADIUS_ARCSEC, 10 ** (-0.4 * (21.3 + r / 50.0)), 0.0) * SCALE**2
    sky = 200.0 * (tilt[0] * (xx / shape[1] - 0.5) + tilt[1] * (yy / shape[0] - 0.5))
    return brightness * 10 ** (0.4 * zp) * exptime + sky


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """Five small frames of stars and a disc, their skies tilted by up to 5 %."""
    roots = make_roots(tmp_path_factory.mktemp("extended"))
    sky = stars(25, half_deg=0.024, bright=14.0, faint=18.0)
    dithers = [(0.0, 0.0), (12.3, -9.4), (-15.1, 8.2), (7.7, 14.9), (-11.2, -14.6)]
    tilts = [(0.02, -0.03), (-0.05, 0.01), (0.03, 0.04), (-0.01, -0.02), (0.04, -0.05)]
    frames = []
    for i, (dither, tilt, zp) in enumerate(zip(dithers, tilts, [23.0, 22.8, 22.9, 22.6, 23.1], strict=True)):
        shot = Shot(f"e{i}", zp=zp, exptime=120, dither=dither, seed=i)
        aligned = take(shot, sky, roots, light=lambda wcs, shape, zp=zp, tilt=tilt: nebula(wcs, shape, zp, 120, tilt))
        frames.append(
            ScaledFrame(aligned=aligned, zero_point=zp, flux_scale=10 ** (0.4 * (30 - zp)) / 120, scale_source="PS1")
        )
    return roots, Selection(group="M67", filter="r", chosen=tuple(frames))


@pytest.mark.tools
def test_an_extended_object_keeps_its_light(field):
    roots, chosen = field
    settings = StackSettings(padding_px=10, back_size_px=64)
    grid = common_grid([chosen], roots, T120, settings)
    stack = combine(chosen, grid, roots, T120, settings)
    sources = find_sources([stack], roots)
    assert 64 < sources.diameter_px < 2.2 * RADIUS_ARCSEC / grid.pixel_scale
    assert wanted(sources, settings)[0]
    made = extend(chosen, grid, stack, sources, roots, T120, settings, 1, 0.05)
    assert made == extend(chosen, grid, stack, sources, roots, T120, settings, 1, 0.05)  # digests, too
    finished = finish_stack(
        stack.model_copy(update={"tie": StackTie(offset=0.02, half_offset=0.02, err=0.003, n_stars=9)}),
        None,
        None,
        roots,
    )
    published = finish_extended(made, finished, roots)
    assert published.file is not None
    assert published.file.path == "stacks/M67/T120/M67_r_ext.fits"
    data, header = fits.getdata(roots.of(published.file), header=True)
    plain, default = fits.getdata(roots.of(finished.image), header=True)
    raised = 10 ** (0.4 * 0.02)

    own = {"BACKSIZE", "BACKMETH", "BACKDEG", "BACKFRAC", "BACKSB", "CHECKSUM", "DATASUM", "COMBTYPE", "LIGHTCOR"}
    own |= {"PHOTLIN", "PHOTLINE", "PHOTLINF", "CLIPSIG", "CLIPFRAC", "SATURATE"}
    assert {k: v for k, v in header.items() if k not in own} == {k: v for k, v in default.items() if k not in own}
    assert (default["COMBTYPE"], header["COMBTYPE"], "LIGHTCOR" in header) == ("MEDIAN", "WEIGHTED", False)
    assert (header["BACKSUB"], header["BACKDEG"], "BACKSIZE" in header) == ("Y", 1, False)
    assert 0.1 < header["BACKFRAC"] < 0.6

    wcs = WCS(header)
    sky = stars(25, half_deg=0.024, bright=14.0, faint=18.0)
    yy, xx = np.mgrid[: data.shape[0], : data.shape[1]]
    x0, y0 = wcs.all_world2pix([CENTRE[0]], [CENTRE[1]], 0)
    r = np.hypot(xx - x0[0], yy - y0[0]) * grid.pixel_scale
    free = fits.getdata(roots.of(finished.weight)) > 0
    x, y = wcs.all_world2pix(np.asarray(sky["RA"]), np.asarray(sky["DEC"]), 0)
    for px, py in zip(x, y, strict=True):
        free &= np.hypot(xx - px, yy - py) > 16
    true = raised * 10 ** (0.4 * (30 - 21.3 - r / 50.0)) * grid.pixel_scale**2
    inside, ring = free & (r < RADIUS_ARCSEC - 4), free & (np.abs(r - RADIUS_ARCSEC + 10) < 6)
    kept = data[inside].sum() / true[inside].sum()
    assert 0.97 < kept < 1.03
    assert data[ring].mean() / true[ring].mean() > 0.95
    assert plain[inside].sum() / true[inside].sum() < 0.9  # the mesh takes it for sky
    edge = free & (r > RADIUS_ARCSEC + 15)
    assert abs(np.median(data[edge])) < 0.01 * 200 * raised * chosen.chosen[0].flux_scale
    assert (data[fits.getdata(roots.of(finished.weight)) == 0] == 0).all()


@pytest.mark.tools
def test_a_field_without_sky_gets_none(field):
    roots, chosen = field
    settings = StackSettings(padding_px=10, back_size_px=64)
    grid = common_grid([chosen], roots, T120, settings)
    stack = combine(chosen, grid, roots, T120, settings)
    sources = find_sources([stack], roots)
    with pytest.raises(StageError, match="of the field shows empty sky, 95 % are needed"):
        extend(chosen, grid, stack, sources, roots, T120, settings, 1, 0.95)
