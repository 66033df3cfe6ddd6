"""Weights of frames: the flat where a pixel is good, saturated cores spared where another frame shows the place."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from models.frame import MaskBit
from tasks.stacking.weights import frame_weight, spared_cores
from tests.stacking.sky import Shot, make_roots, stars, take

DITHERS = [(0.0, 0.0), (12.3, -9.4), (-15.1, 8.2), (7.7, 17.9)]


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    return make_roots(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def sky():
    return stars(16, half_deg=0.021, bright=13.0, faint=15.5)


def test_saturated_core_keeps_its_weight_only_where_nobody_sees_it(roots, sky):
    bright = sky[:2].copy()
    bright["MAG"] = [11.0, 15.0]
    long = [take(Shot(f"s{i}", exptime=100, dither=DITHERS[i], noise=False), bright, roots) for i in range(2)]
    short = take(Shot("s9", exptime=2, dither=DITHERS[3], noise=False), bright, roots)
    masks = {}
    for frame in (*long, short):
        with fits.open(roots.of(frame.frame.reduced.file)) as hdus:
            masks[frame.frame.raw.name] = np.array(hdus["MASK"].data)
    assert masks["s0"].any()
    assert not masks["s9"].any()
    alone = spared_cores([masks["s0"], masks["s1"]], long, roots)
    assert (alone[0] == (masks["s0"] != 0)).all(), "saturated in both: both keep their core"
    helped = spared_cores([masks["s0"], masks["s1"], masks["s9"]], [*long, short], roots)
    assert not any(spared.any() for spared in helped), "the short exposure shows the core"
    away = take(Shot("s8", exptime=2, centre=(133.4, 12.3), noise=False), bright, roots)
    elsewhere = spared_cores([masks["s0"], masks["s9"]], [long[0], away], roots)
    assert (elsewhere[0] == (masks["s0"] != 0)).all(), "a frame of another place shows nothing"


def test_a_bleed_is_never_spared_and_of_a_core_what_no_frame_shows(roots, sky):
    """The long frame bleeds 60 px, the short one is saturated in the core alone: its clean rows take over."""
    long, short = (take(Shot(name, noise=False), sky[:1], roots) for name in ("b0", "b1"))
    masks = [np.zeros((256, 256), np.uint8) for _ in range(2)]
    masks[0][100:160, 128:130] = np.uint8(MaskBit.SATURATED)
    masks[0][160:163, 128:130] = np.uint8(MaskBit.BLEED)
    masks[0][97:104, 125:132] = np.uint8(MaskBit.SATURATED)
    masks[1][99:102, 127:131] = np.uint8(MaskBit.SATURATED)
    spared = spared_cores(masks, [long, short], roots)
    assert spared[0][99:102, 127:131].all(), "nobody sees the core"
    assert not spared[0][106:].any()
    assert (spared[1] == (masks[1] != 0)).all(), "the short frame is all there is of the core"
    alone = spared_cores(masks[:1], [long], roots)[0]
    assert alone[97:104, 125:132].all()
    assert not alone[106:].any(), "under a bleed that no frame lacks there is no data"


def test_frame_weight_is_the_flat_where_the_pixel_is_good():
    mask = np.zeros((8, 8), np.uint8)
    mask[1, 1], mask[2, 2], mask[3, 3], mask[4, 4] = 1, 2, 2, 2 + 8
    spared = np.zeros((8, 8), bool)
    spared[3, 3] = spared[4, 4] = True
    flat = np.full((8, 8), 0.9, np.float32)
    flat[6, 6] = np.nan
    weight = frame_weight(mask, flat, spared)
    assert weight.dtype == np.float32
    assert (weight[[1, 2, 4, 6], [1, 2, 4, 6]] == 0).all()
    assert weight[3, 3] == np.float32(0.9)
    assert frame_weight(mask, None, spared)[0, 0] == 1.0
