"""The sky of the target groups: one sky where fields overlap, objects of the right light, what each kind has."""

from __future__ import annotations

import numpy as np
import pytest

from models.simulation import SimulationOptions, TrueWcs
from models.target import load_targets
from tasks.simulation.extended import draw_bodies
from tasks.simulation.places import ARCHIVE, Body, archive_field
from tasks.simulation.sky import field_sources

OPTIONS = SimulationOptions(seed=4)
SCALE = 0.77 / 3600
WCS = TrueWcs(
    crval=(180.0, 20.0), crpix=(400.5, 400.5), cd=((-SCALE, 0.0), (0.0, SCALE)), k=0.0, shape=(800, 800)
)  # fmt: skip


def test_every_group_has_a_field_at_its_place() -> None:
    fields = {name: archive_field(name) for name in load_targets()}
    assert all(
        (field.ra, field.dec) == (load_targets()[name].ra, load_targets()[name].dec) for name, field in fields.items()
    )
    assert len({field.first_id for field in fields.values()}) == len(fields)
    assert fields["M38_group"].density > 4 * fields["Coma"].density  # in the plane of the Galaxy, and at its pole
    assert fields["Coma"].cluster_galaxies > 0
    assert fields["M48"].cluster > 0
    assert [body.kind for body in fields["M1"].bodies] == ["shell"]


def test_where_two_fields_overlap_there_is_one_sky() -> None:
    one, two = (field_sources(OPTIONS, ARCHIVE + name) for name in ("M81", "M82"))
    middle = (148.93, 69.37)

    def near(table):
        away = np.hypot(
            (np.asarray(table["ra"]) - middle[0]) * np.cos(np.deg2rad(middle[1])), np.asarray(table["dec"]) - middle[1]
        )
        return set(np.asarray(table["id"][away < 0.3]).tolist())

    assert near(one) == near(two)
    assert len(near(one)) > 100
    first = archive_field("M82").first_id
    assert {id > first for id in near(one)} == {True, False}  # some of each field's own
    assert len(set(one["id"])) == len(one)


@pytest.mark.parametrize(
    "body",
    [
        Body(kind="sersic", ra=180.0, dec=20.0, r=12.0, colours=(0.0, 0.0), re=12.0, n=1.0, q=0.6, pa_deg=30),
        Body(kind="shell", ra=180.0, dec=20.0, r=12.0, colours=(0.0, 0.0), re=60.0, q=0.8, pa_deg=30),
    ],
    ids=lambda body: body.kind,
)  # fmt: skip
def test_a_body_has_the_light_it_should(body: Body) -> None:
    image = np.zeros(WCS.shape)
    draw_bodies(image, WCS, "r", 10 ** (0.4 * 23.0), [body])
    assert image.sum() == pytest.approx(10 ** (0.4 * (23.0 - 12.0)), rel=0.01)
    narrow = np.zeros(WCS.shape)
    draw_bodies(narrow, WCS, "Ha", 10 ** (0.4 * 23.0), [body.model_copy(update={"lines": 1.0})])
    assert narrow.sum() / image.sum() == pytest.approx(10**0.4, rel=0.01)
    nothing = np.zeros(WCS.shape)
    draw_bodies(nothing, WCS, "r", 1e9, [body.model_copy(update={"dec": 22.0})])
    assert not nothing.any()
