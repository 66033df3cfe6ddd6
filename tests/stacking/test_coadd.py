"""Our weighted mean: linear in the stars' light whatever the seeing, deaf to what is in one frame only."""

from __future__ import annotations

import numpy as np
import pytest
import sep
from astropy.io import fits

from models.stack import Grid
from tasks.core.errors import StageError
from tasks.stacking.coadd import Resampled, coadd
from tests.stacking.sky import moffat

GRID = Grid(ra=132.85, dec=11.81, pixel_scale=0.77, nx=300, ny=300)
SEEING = (1.8, 2.2, 2.6, 3.1, 3.5, 4.0)
GAIN, SIGMA = 1.5, 20.0


def put(folder, name, image, fwhm_px=None, sigma=SIGMA, scale=1.0, left=0, bottom=0, weight=None):
    """A frame as SWarp leaves it: on the grid's pixels, somewhere in it."""
    header = fits.Header()
    header["CRVAL1"], header["CRVAL2"], step = GRID.ra, GRID.dec, GRID.pixel_scale / 3600.0
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -step, 0.0, 0.0, step
    header["CRPIX1"], header["CRPIX2"] = (GRID.nx + 1) / 2 - left, (GRID.ny + 1) / 2 - bottom
    map_ = np.full(image.shape, sigma**-2, np.float32) if weight is None else weight.astype(np.float32)
    frame = Resampled(
        image=folder / f"{name}.resamp.fits", weight=folder / f"{name}.resamp.weight.fits", scale=scale, gain=GAIN,
        fwhm_px=fwhm_px,
    )  # fmt: skip
    fits.PrimaryHDU(image.astype(np.float32), header).writeto(frame.image)
    fits.PrimaryHDU(map_, header).writeto(frame.weight)
    return frame


def noise(seed, sigma=SIGMA):
    return np.random.default_rng(seed).normal(0, sigma, (GRID.ny, GRID.nx))


def make(frames, sigma=5.0, memory_mb=512):
    return coadd(frames, GRID, sigma, memory_mb, 3.5)


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """Stars from the linear limit down to 12 sigma in six frames of 1.8 to 4.0 arcsec, with all their noise."""
    folder = tmp_path_factory.mktemp("field")
    rng = np.random.default_rng(5)
    places = np.array([(x, y) for x in range(15, 300, 27) for y in range(15, 300, 27)]) + rng.uniform(
        -0.5, 0.5, (121, 2)
    )
    flux = np.geomspace(6e5, 4e3, len(places))
    rng.shuffle(flux)
    frames = []
    for i, arcsec in enumerate(SEEING):
        scale = (1.0, 1.0, 1.3, 1.0, 2.0, 0.9)[i]
        image = np.zeros((GRID.ny, GRID.nx))
        shift = rng.uniform(-0.08, 0.08, 2)
        for (x, y), light in zip(places + shift, flux, strict=True):
            box = slice(max(round(y) - 40, 0), round(y) + 41), slice(max(round(x) - 40, 0), round(x) + 41)
            shape = (image[box].shape[0], image[box].shape[1])
            image[box] += light * moffat(shape, x - box[1].start, y - box[0].start, arcsec / 0.77)
        counts = rng.poisson(image / scale * GAIN) / GAIN
        frames.append(put(folder, f"{i:04d}", counts + rng.normal(0, SIGMA, counts.shape), arcsec / 0.77, scale=scale))
    return frames, places, flux


def test_star_cores_are_spared(field):
    """Of six frames of 121 stars, none of the cores: what is clipped is chance on empty sky."""
    frames, places, _ = field
    made = make(frames)
    y, x = np.indices(made.data.shape)
    cores = sum(
        int(made.clipped[np.hypot(x - px, y - py) < 0.5 * 1.8 / 0.77].any()) for px, py in places
    )  # one of them in 121 would be 0.8 %
    assert cores == 0
    assert made.clipped.sum() < 2e-5 * made.used.sum()


def test_the_seeing_must_be_known_to_spare_them(field):
    """The test above can fail: frames that all claim the widest seeing lose the cores of the sharp ones."""
    frames, places, _ = field
    blind = [Resampled(f.image, f.weight, f.scale, f.gain, 4.0 / 0.77) for f in frames]
    made = make(blind)
    assert sum(made.clipped[round(y), round(x)] > 0 for x, y in places) > 5


def test_faint_and_bright_stars_keep_their_light(field):
    """5 mmag from bright to faint; a median of the same frames bends by more."""
    frames, places, flux = field
    made = make(frames)
    cube = np.array([fits.getdata(f.image) * f.scale for f in frames])
    bend = {}
    for name, image in (("ours", made.data), ("median", np.median(cube, axis=0).astype(np.float32))):
        clean = np.ascontiguousarray(image)
        sums, _, _ = sep.sum_circle(clean, places[:, 0], places[:, 1], 1.25 * 2.8 / 0.77, subpix=5)
        off = -2.5 * np.log10(sums / flux)
        bend[name] = np.median(off[flux < 3e4]) - np.median(off[flux > 1.5e5])
    assert abs(bend["ours"]) < 0.005
    assert abs(bend["median"]) > 0.008


def test_what_is_in_one_frame_only_leaves_no_trace(tmp_path):
    """Hits from 9 to 2000 sigma and a trail that ends: nothing beyond 6 sigma of the mean is left."""
    rng = np.random.default_rng(8)
    frames = []
    for i in range(4):
        image = noise(i)
        for x, y, height in zip(
            rng.integers(5, 295, 40), rng.integers(5, 295, 40), np.geomspace(9, 2000, 40), strict=True
        ):
            image[y : y + 2, x : x + 3] += height * SIGMA
        if i == 2:
            image[150:152, 20:200] += 30 * SIGMA
        frames.append(put(tmp_path, f"{i:04d}", image, 3.5))
    made = make(frames)
    assert np.abs(made.data).max() < 6 * SIGMA / 2
    assert np.std(made.data) == pytest.approx(SIGMA / 2, rel=0.02)
    assert np.abs(made.plain).max() > 400 * SIGMA
    assert made.clipped.sum() > 1200


def test_of_two_frames_the_brighter_is_left_out_and_of_one_nothing(tmp_path):
    first, second = noise(1), noise(2)
    first[100, 100] += 40 * SIGMA
    second[200, 200] -= 40 * SIGMA
    alone = np.ones(first.shape)
    alone[:, 250:] = 0
    first[50, 270] += 1000 * SIGMA
    frames = [
        put(tmp_path, "0000", first, 3.5),
        put(tmp_path, "0001", second, 3.5, weight=alone / SIGMA**2),
    ]
    made = make(frames)
    assert made.used[100, 100] == 1
    assert made.data[100, 100] == np.float32(second[100, 100])
    assert made.data[200, 200] == np.float32(second[200, 200]), "the lower one is believed"
    assert made.clipped[200, 200] == 1
    assert made.data[50, 270] == np.float32(first[50, 270])
    assert made.used[50, 270] == 1


def test_weights_are_inverse_variances_and_nothing_is_nothing(tmp_path):
    """Frames of 10 and 30 ADU noise, the second half as deep again by its scale, beside each other in part."""
    one = put(tmp_path, "0000", np.full((120, 150), 100.0), 3.5, sigma=10.0, left=10, bottom=20)
    two = put(tmp_path, "0001", np.full((120, 150), 55.0), 3.5, sigma=15.0, scale=2.0, left=100, bottom=20)
    made = make([one, two])
    assert made.weight[50, 30] == np.float32(0.01)
    assert made.weight[50, 200] == pytest.approx(1 / 900)
    assert made.weight[50, 120] == pytest.approx(0.01 + 1 / 900)
    assert made.data[50, 120] == pytest.approx((100 * 0.01 + 110 / 900) / (0.01 + 1 / 900))
    outside = made.weight == 0
    assert outside[:20].all()
    assert outside[140:].all()
    assert outside[50, 9]
    assert not outside[50, 10]
    assert (made.data[outside] == 0).all()
    assert (made.used[outside] == 0).all()


def test_rows_in_pieces_give_the_same_bytes(field, monkeypatch):
    frames, _, _ = field
    whole = make(frames)
    monkeypatch.setattr("tasks.stacking.coadd._BYTES_A_PIXEL", 10**6)
    pieces = make(frames)
    for name in ("data", "weight", "plain", "used", "clipped"):
        assert getattr(whole, name).tobytes() == getattr(pieces, name).tobytes()


def test_a_frame_beside_the_grids_pixels_is_refused(tmp_path):
    frame = put(tmp_path, "0000", noise(1), 3.5, left=0.4)
    with pytest.raises(StageError, match=r"0000\.resamp\.fits lies 0\.400, 0\.000 px into the grid"):
        make([frame])
    frame.weight.write_bytes(b"nothing")
    with pytest.raises(StageError, match=r"0000\.resamp\.fits cannot be read"):
        make([frame])
