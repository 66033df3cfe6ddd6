from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.catalog import Cone
from tasks.catalogs import covers, plan_cones
from tasks.catalogs.cones import rounded
from tasks.core.errors import StageError

M67, M1, POLE = (132.85, 11.81), (83.63, 22.01), (37.95, 89.26)


def dithered(centre, n, spread_deg, seed=0):
    rng = np.random.default_rng(seed)
    dec = centre[1] + rng.uniform(-spread_deg, spread_deg, n)
    ra = (centre[0] + rng.uniform(-spread_deg, spread_deg, n) / np.cos(np.radians(dec))) % 360
    return list(zip(ra.tolist(), dec.tolist(), strict=True))


def covered(pointings, cones, radius):
    return all(any(covers(cone, Cone(ra=ra % 360, dec=dec, radius=radius)) for cone in cones) for ra, dec in pointings)


def test_one_cone_a_field():
    pointings = dithered(M67, 1500, 0.02) + dithered(M1, 1500, 0.02, 1) + dithered((359.99, -3.0), 50, 0.05)
    cones = plan_cones(pointings, 0.16, 0.3)
    assert len(cones) == 3
    assert covered(pointings, cones, 0.46)
    assert all(cone.radius < 0.46 + 0.08 for cone in cones)


def test_neighbouring_targets_share_a_cone_and_far_ones_do_not():
    near = [M67, (M67[0] + 0.3, M67[1])]
    assert len(plan_cones(near, 0.16, 0.3)) == 1
    assert len(plan_cones([M67, (M67[0] + 3.0, M67[1])], 0.16, 0.3)) == 2


def test_order_and_repetition_do_not_matter():
    pointings = dithered(M67, 40, 1.0) + dithered(POLE, 10, 0.01)
    cones = plan_cones(pointings, 0.16, 0.3)
    assert plan_cones(pointings[::-1] + pointings, 0.16, 0.3) == cones
    assert covered(pointings, cones, 0.46)


def test_nothing_to_plan():
    assert plan_cones([], 0.16, 0.3) == []


@pytest.mark.parametrize("pointing", [(np.nan, 1.0), (10.0, 95.0)])
def test_no_pointing(pointing):
    with pytest.raises(StageError, match="not a position") as caught:
        plan_cones([M67, pointing], 0.16, 0.3)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 360, exclude_max=True), st.floats(-90, 90)), min_size=1, max_size=12),
    st.floats(0.05, 1.0),
)
def test_everything_is_covered_anywhere(pointings, radius):
    cones = plan_cones(pointings, radius, 0.1)
    assert covered(pointings, cones, radius + 0.1)
    assert len(cones) <= len(set(pointings))


@given(st.floats(0, 360, exclude_max=True), st.floats(-90, 90), st.floats(0.001, 10))
def test_rounding_never_loses_sky(ra, dec, radius):
    cone = rounded(ra, dec, radius)
    assert covers(cone, Cone(ra=ra, dec=dec, radius=radius))
    assert (cone.ra, cone.dec, cone.radius) == (round(cone.ra, 4), round(cone.dec, 4), round(cone.radius, 3))
    assert cone.radius < radius + 0.0012
