"""A target is a place: groups by overlap on the sky, words that lie, targets that move."""

from __future__ import annotations

import csv
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.settings import AstrometrySettings, SelectionSettings
from models.target import NamedPlace, load_targets, target_by_object
from tasks.fields import SkyMap, coordinate_name, group_frames, in_plain_words
from tasks.fields.footprints import Footprint, overlap_clusters, overlap_share

from .frames import raw, solved

TARGETS = load_targets()
SIDE = 1024 * 0.77 / 3600


def sky(*records, names=None, **selection) -> SkyMap:
    return group_frames(records, TARGETS, AstrometrySettings(), SelectionSettings(**selection), names)


def at(name: str, east: float = 0.0, north: float = 0.0) -> tuple[float, float]:
    """A place beside a group's, arcmin."""
    target = TARGETS[name]
    return target.ra + east / 60 / np.cos(np.radians(target.dec)), target.dec + north / 60


def pandora(n: int = 3) -> list:
    """The minor planet as the release had it: 0.2 deg a day near 175.5 +5.9."""
    days = ((0, 175.70, 5.80), (1, 175.50, 5.87), (2, 175.30, 5.94))
    return [
        solved("Pandora", ra + 0.002 * i, dec, f"202203{day + 1:02d}", hour=22 + i / 10)
        for day, ra, dec in days
        for i in range(n)
    ]


# -- footprints --


def box(ra: float, dec: float, rotation: float = -90.0) -> Footprint:
    return Footprint(ra, dec, 0.2, 0.2, rotation)


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        (box(10, 20), box(10, 20), 1.0),
        (box(10, 20), box(10, 20.1), 0.5),
        (box(10, 80), box(10 + 0.1 / np.cos(np.radians(80)), 80), 0.5),
        (box(359.99, 0), box(0.01, 0), 0.9),
        (box(10, 20), box(10, 20, -45), 2 * (np.sqrt(2) - 1)),  # a regular octagon is left
        (box(10, 20), box(10, 20.21), 0.0),
        (box(10, 20), Footprint(10, 20, 0.1, 0.1, 17), 1.0),  # of the smaller one
    ],
)
def test_overlap(one: Footprint, other: Footprint, share: float) -> None:
    assert overlap_share(one, other) == pytest.approx(share, abs=2e-3)
    assert overlap_share(other, one) == pytest.approx(share, abs=2e-3)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0, 360, exclude_max=True), st.floats(-88, 88), st.floats(-180, 180), st.floats(-0.15, 0.15),
    st.floats(-0.15, 0.15),
)  # fmt: skip
def test_overlap_as_counted_on_a_grid(ra: float, dec: float, turn: float, east: float, north: float) -> None:
    one = box(ra, dec, turn)
    other = Footprint((ra + east / np.cos(np.radians(dec))) % 360, max(-89.5, min(89.5, dec + north)), 0.2, 0.1, turn)
    steps = (np.arange(24) + 0.5) / 24 - 0.5
    inside = 0
    for a in steps:
        for b in steps:
            # a point of the second frame, by its own axes
            angle = np.radians(other.rotation)
            x = a * other.width * -np.cos(angle) + b * other.height * np.sin(angle)
            y = a * other.width * np.sin(angle) + b * other.height * np.cos(angle)
            inside += one.holds((other.ra + x / np.cos(np.radians(other.dec + y))) % 360, other.dec + y)
    assert overlap_share(one, other) == pytest.approx(inside / 576, abs=0.09)


def test_friends_of_friends_are_one_heap() -> None:
    chain = [box(10, 20 + 0.1 * i) for i in range(5)]
    assert overlap_clusters([*chain, box(50, 0), chain[2]], 0.4).tolist() == [0, 0, 0, 0, 0, 1, 0]
    assert overlap_clusters(chain, 0.6).tolist() == [0, 1, 2, 3, 4]
    assert overlap_clusters([], 0.5).tolist() == []


# -- groups --


def test_a_frame_belongs_to_what_it_shows_whatever_it_is_called() -> None:
    frames = [solved("M67", *at("M51", 1, 2)), solved("Tourbillon", *at("M51")), solved("", *at("M51", -2, 0))]
    found = sky(*frames)
    assert set(found.group_of.values()) == {"M51"}
    assert found.notes == {
        frames[0].raw.label: "OBJECT says M67, the field is at 13h30m +47°14′; not M67, it shows M51",
    }
    assert found.groups["M51"].words == ("M67", "Tourbillon")


def test_pandora_is_not_abell_2744() -> None:
    frames = pandora()
    found = sky(*frames)
    # 12.6' a day: the fields of two nights hardly touch, each is a place of its own
    assert list(found.groups) == ["J1141+0556", "J1142+0548", "J1142+0552"]
    assert {group.named_by for group in found.groups.values()} == {"position"}
    assert set(found.moving) == {frame.raw.label for frame in frames}
    for group in found.groups.values():
        assert group.moving == "OBJECT Pandora moves 0.21° a day over 3 nights (20220301-20220303): a moving target"
    assert found.notes[frames[-1].raw.label] == ("OBJECT says Pandora, the field is at 11h41m +05°56′; not Abell 2744")


def test_merged_groups_come_out_by_themselves() -> None:
    """M105 and NGC3384 overlap; the table's other merged group does not, and the table makes it one."""
    overlapping = [solved("M105", 161.957, 12.582), solved("NGC3384", 162.070, 12.629)]
    found = sky(*overlapping)
    group = found.groups["M105_group"]
    assert (group.n_frames, group.patches, group.notes) == (
        2,
        1,
        ("2 fields of the table hang together by themselves",),
    )
    found = sky(solved("M84", 186.2655, 12.887), solved("M86", 186.5490, 12.946))
    group = found.groups["Markarian"]
    assert (group.n_frames, group.patches) == (2, 2)
    assert "2 heaps of frames that do not overlap each other, which the table of targets makes one" in group.notes[0]


def test_neighbours_that_the_table_keeps_apart_stay_apart() -> None:
    """M81 and M82 are 37' apart; four frames between them chain their fields together."""
    way = [at("M81", 0, 37 * i / 5) for i in range(6)]
    found = sky(*(solved("M81", *place) for place in way), solved("M82", *at("M82")))
    assert Counter(found.group_of.values()) == {"M81": 3, "M82": 4}
    assert "M82, which the table keeps apart" in found.groups["M81"].notes[0]
    assert found.notes  # frames called M81 that show M82


def test_a_place_of_its_own_keeps_its_name_when_nights_are_added() -> None:
    first = [solved("champ 2", 150.1, 2.2 + 0.001 * i, "20200302", filter="g") for i in range(3)]
    later = [solved("champ 2", 150.14, 2.22, "20200309"), solved("COSMOS", 150.06, 2.21, "20230302")]
    assert set(sky(*first).groups) == set(sky(*first, *later).groups) == {"J1000+0212"}
    group = sky(*first, *later).groups["J1000+0212"]
    assert (group.n_frames, group.filters, group.moving) == (5, ("g", "r"), "")
    assert group.nights == ("20200302", "20200309", "20230302")


def test_two_places_in_one_minute_have_two_names() -> None:
    found = sky(solved("a", 150.01, 0.001), solved("b", 150.24, 0.002))
    assert sorted(found.groups) == ["J1000+0000", "J100057+000007"]


def test_names_that_a_resolver_knows() -> None:
    names = {
        "N628_R": NamedPlace(word="N628_R", name="M  74", ra=24.174, dec=15.783),
        "Vega?": NamedPlace(word="Vega?", name="* alf Lyr", ra=279.235, dec=38.784),
        "nonsense": NamedPlace(word="nonsense"),
    }
    frames = [solved("N628_R", 24.15, 15.80), solved("Vega?", 100.0, 5.0), solved("nonsense", 200.0, 50.0)]
    found = sky(*frames, names=names)
    assert {name: group.named_by for name, group in found.groups.items()} == {
        "M74": "resolver", "J0640+0500": "position", "J1320+5000": "position",
    }  # fmt: skip
    assert found.notes == {frames[1].raw.label: "OBJECT says Vega?, the field is at 06h40m +05°00′; not * alf Lyr"}


def test_a_header_that_is_degrees_off_is_said() -> None:
    frame = solved("M49", *at("M49"), header=(225.13, 1.71))
    assert sky(frame).notes[frame.raw.label] == "the header's position 15h01m +01°43′ is 38.0° off"
    near = solved("M49", *at("M49"), header=at("M49", 15, 0))
    assert not sky(near).notes


def test_frames_without_a_solution_are_in_no_group() -> None:
    from models.frame import FrameRecord

    found = sky(FrameRecord(raw=raw("M67")))
    assert (found.groups, found.group_of, found.notes) == ({}, {}, {})


# -- what moves and what does not --


def nights(word: str, *places: tuple[float, float], first: int = 1, n: int = 3) -> list:
    return [
        solved(word, ra, dec, f"202303{first + night:02d}", hour=22 + i / 20)
        for night, (ra, dec) in enumerate(places)
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("word", "places", "moves"),
    [
        ("Frigga", [(104.56, 25.24), (104.73, 25.15)], True),
        ("Vulcano", [(167.525, 22.181), (167.22, 22.09), (167.125, 22.041)], True),
        ("29P", [(145.254, 10.482), (145.262, 10.485)], False),  # slower than pointing errors: stars stack well
        ("M67", [at("M67"), at("M67", 6, 0), at("M67", 12, 0)], False),  # a place, badly pointed at
        ("ACO_1656", [(194.80, 27.925), (194.58, 27.912), (194.84, 27.971)], False),
        ("champ", [(60.0, 10.0), (60.2, 10.1), (60.0, 10.0), (60.2, 10.1)], False),  # there and back
        ("test field", [(60.0, 10.0), (90.0, 20.0)], False),  # the word was used again
        ("Kirik", [(60.0, 10.0)], False),  # one night
        ("", [(104.56, 25.24), (104.73, 25.15)], False),  # says nothing
        ("Icare", [(0.1, 85.0), (359.0, 85.05), (357.9, 85.1)], True),  # across 0 h
    ],
)
def test_drift_between_nights(word: str, places: list, moves: bool) -> None:
    assert bool(sky(*nights(word, *places)).moving) is moves


def test_a_word_of_two_seasons_is_two_targets() -> None:
    frames = [solved("Autosave Image", 23.54, 30.74, "20190106"), solved("Autosave Image", 23.8, 30.9, "20200302")]
    assert not sky(*frames).moving


def test_moving_fields_do_not_join_what_they_pass() -> None:
    passing = nights("Frigga", at("M67", -14, 0), at("M67", 0, 0), at("M67", 14, 0))
    found = sky(solved("M67", *at("M67")), *passing)
    assert {found.group_of[frame.raw.label] for frame in passing} == {"J0850+1148", "J0851+1148", "J0852+1148"}
    assert found.groups["M67"].n_frames == 1


# -- the release's table --


def test_forty_groups_from_their_positions(shared: Path) -> None:
    """Every group of the release, pointed at as badly as it was, under names that mean nothing."""
    rng = np.random.default_rng(5)
    with open(shared / "reference" / "targets.csv", encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    members = {"Coma": [(194.950, 27.978), (194.80, 27.93), (194.90, 28.05)], "Markarian": [(186.266, 12.887),
               (186.549, 12.946)], "M105_group": [(161.957, 12.582), (162.070, 12.629)]}  # fmt: skip
    frames, truth = [], {}
    for row in table:
        for i in range(int(row["n_frames"])):
            places = members.get(row["group"], [(float(row["ra_deg"]), float(row["dec_deg"]))])
            ra, dec = places[i % len(places)]
            east, north = np.clip(rng.normal(0, 1.2, 2), -3, 3) / 60
            record = solved(
                f"word {i % 7}", ra + east / np.cos(np.radians(dec)), dec + north, f"20{18 + i % 8}0301",
                rotation=-90 + rng.normal(0, 1) + 180 * (i % 2),
            )  # fmt: skip
            frames.append(record)
            truth[record.raw.label] = row["group"]
    began = time.perf_counter()
    found = sky(*frames)
    seconds = time.perf_counter() - began
    assert found.group_of == truth
    assert len(found.groups) == 40
    assert sum(group.n_frames for group in found.groups.values()) == 1268
    assert seconds < 8, f"{seconds:.1f} s"  # measured: see docs


def test_words_of_the_archive_name_their_groups(shared: Path) -> None:
    said = {"NGC_2682_30sec": "M67", "NGC_2548_5sec": "M48", "ACO1656V2": "Coma", "M67_40s": "M67",
            "Coma Cote": "Coma", "N628_R": None, "29P": None, "champ_4_cosmos": None, "2726": None, "A10TwUC": None,
            "IC10": None}  # fmt: skip
    for word, group in said.items():
        target = target_by_object(word, TARGETS)
        assert (target.name if target else None) == group, word


def test_positions_in_words() -> None:
    assert in_plain_words(175.3, 5.87) == "11h41m +05°52′"
    assert in_plain_words(359.99, -0.001) == "00h00m -00°00′"
    assert coordinate_name(175.3, 5.87) == "J1141+0552"
    assert coordinate_name(359.9999, -30.9999) == "J2359-3059"
