"""Where to look: one field a target or pointing, the likeliest first."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from models.frame import RawFrame
from models.settings import AstrometrySettings, SelectionSettings
from models.target import NamedPlace, load_targets
from models.telescope import load_telescope
from tasks.fields import hinted_fields, plan_fields

TARGETS = load_targets()
T120 = load_telescope("T120")


def frame(object: str = "", ra: float | None = None, dec: float | None = None, name: str = "a") -> RawFrame:
    return RawFrame(
        path=f"{name}.fits",
        digest="0" * 64,
        name=name,
        kind="science",
        why="test",
        telescope="T120",
        night="20250317",
        date_obs=datetime(2025, 3, 17, 20, tzinfo=UTC),
        exptime=60,
        binning=2,
        shape=(1024, 1024),
        filter="r",
        object=object,
        ra=ra,
        dec=dec,
    )


def plan(*frames: RawFrame):
    return plan_fields(frames, TARGETS, T120, AstrometrySettings(), SelectionSettings())


def test_a_header_near_a_group_gives_the_groups_field():
    (field,) = plan(frame(ra=132.85 + 0.2, dec=11.8 - 0.1))
    assert field.name == "M67"
    assert (field.cone.ra, field.cone.dec) == (TARGETS["M67"].ra, TARGETS["M67"].dec)
    assert field.cone.radius == pytest.approx(0.155 + 0.3 + 4 / 60, abs=0.005)


def test_a_name_helps_where_the_header_says_nothing():
    assert [field.name for field in plan(frame(object="Tourbillon"))] == ["M51"]


def test_many_frames_of_a_field_are_one_question():
    frames = [frame(object="M67", ra=132.8 + 0.01 * i, dec=11.8, name=f"f{i}") for i in range(30)]
    assert len(plan(*frames)) == 1


def test_a_place_without_a_group_gets_a_coordinate_name_and_gathers_its_frames():
    frames = [frame(object="Ceres", ra=175.28 + 0.02 * i, dec=5.87, name=f"f{i}") for i in range(3)]
    names = [field.name for field in plan(*frames)]
    assert names == ["J1141+0552"]


def test_word_and_sky_may_disagree_and_both_are_looked_at():
    fields = plan(frame(object="M67", ra=202.47, dec=47.2))
    assert {field.name for field in fields} == {"M51", "M67"}
    order = hinted_fields(frame(object="M67", ra=202.47, dec=47.2), fields, TARGETS)
    assert [(hint, field.name) for hint, field in order] == [("header", "M51"), ("name", "M67")]


def test_a_frame_that_says_nothing_hints_at_nothing_but_its_file_name_may():
    fields = plan(*[frame(object="M67", name=f"a{i}") for i in range(3)], frame(object="M51", name="b"))
    assert [field.name for field in fields] == ["M67", "M51"]
    assert hinted_fields(frame(name="c"), fields, TARGETS) == []
    ((hint, field),) = hinted_fields(frame(name="M51_-0003r60"), fields, TARGETS)
    assert (hint, field.name) == ("name", "M51")


def test_a_hint_comes_once():
    fields = plan(frame(object="M67", ra=132.85, dec=11.8))
    assert [hint for hint, _ in hinted_fields(frame(object="M67", ra=132.85, dec=11.8), fields, TARGETS)] == ["header"]


def test_a_name_that_only_the_resolver_knows():
    names = {"IC10": NamedPlace(word="IC10", name="IC 10", ra=5.0722, dec=59.3038), "xyz": NamedPlace(word="xyz")}
    frames = [frame(object="IC10"), frame(object="xyz", name="b")]
    fields = plan_fields(frames, TARGETS, T120, AstrometrySettings(), SelectionSettings(), names=names)
    assert [field.name for field in fields] == ["J0020+5918"]
    ((hint, field),) = hinted_fields(frames[0], fields, TARGETS, names)
    assert (hint, field) == ("name", fields[0])
    assert hinted_fields(frames[1], fields, TARGETS, names) == []


def test_across_the_meridian_and_at_the_pole():
    fields = plan(frame(ra=359.95, dec=20.0, name="a"), frame(ra=0.05, dec=20.0, name="b"))
    assert len(fields) == 1
    fields = plan(frame(ra=10.0, dec=89.95, name="a"), frame(ra=190.0, dec=89.95, name="b"))
    assert len(fields) == 1
