"""Pages of whatever there is: nothing, too much, failures; the same text is not written again."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from models.base import FileRef, Roots
from models.frame import FrameFailure, FrameRecord, RawFrame, Rejected
from models.page import FilterCard, GroupCard, GroupPictures, PageFrame, Picture, StackPictures, StackPlots
from models.stack import Stack, stack_paths
from models.target import Target
from models.telescope import load_telescope
from tasks.core.files import ref
from tasks.pages import group_frames, page_frame, write_group_page, write_index_page, write_year_page
from tasks.pages.skymap import sky_map
from tasks.pages.writing import write_card
from tests.pages.checks import MOST_BYTES, dead_links, weight

TELESCOPE = load_telescope("T120")
TARGET = Target(name="M67", ra=132.85, dec=11.81, type="Open cluster")
FILE = FileRef(path="stacks/M67/T120/M67_r.fits", digest="0" * 64)


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return Roots(data=tmp_path, raw=tmp_path / "raw")


def stack(band: str) -> Stack:
    return Stack(
        group="M67", filter=band, telescope="T120", image=FILE, weight=FILE, n_combined=2, exptime_s=60.0,
        inputs=("20230314/a.fits", "20230314/b.fits"), combine="MEDIAN", calibrated=True,
    )  # fmt: skip


def picture(roots: Roots, name: str, size: int, folder: str = "stacks/M67/T120/plots") -> Picture:
    path = roots.data / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return Picture(file=ref(path, roots), alt=f"what {name} shows", width=700, height=500)


def frame(number: int = 0, **given: object) -> PageFrame:
    values: dict[str, object] = {
        "label": f"20230314/frame-{number:04d}.fits", "night": "20230314", "start": "2023-03-14T22:00:00",
        "mjd": 60017.9 + number / 5000, "filter": "r", "object": "M67", "exptime_s": 30.0, "airmass": 1.2,
        "seeing_arcsec": 2.5, "zp": 23.0, "zp_err": 0.01, "rms_mas": 80.0, "flags": (), "status": "used",
    }  # fmt: skip
    return PageFrame.model_validate(values | given)


def group_page(roots: Roots, bands: str, size: int, frames: tuple[PageFrame, ...] = ()) -> Path:
    maps = {
        band: StackPictures(
            view=picture(roots, f"M67_{band}_view.webp", size), weight=picture(roots, f"M67_{band}_weight.webp", size),
            depth=picture(roots, f"M67_{band}_depth.svg", size),
        )
        for band in bands
    }  # fmt: skip
    plots = {
        band: StackPlots(psf=picture(roots, f"M67_{band}_psf.svg", size), photometry=None, astrometry=None)
        for band in bands
    }
    colour = picture(roots, "M67_colour.webp", size)
    with_psf = [stack(band) for band in bands]
    return write_group_page(
        TARGET, with_psf, [], [], [], roots, TELESCOPE, frames=frames, maps=maps, plots=plots,
        pictures=GroupPictures(colour=colour, bands=("i", "r", "g"), thumbnail=colour, frames=colour),
    )  # fmt: skip


def test_too_many_pictures_become_links(roots):
    light = group_page(roots, "gri", 1000)
    assert light.read_text().count("<img") == 14
    assert "to keep this page light" not in light.read_text()
    heavy = group_page(roots, "BVgri", 200_000, tuple(frame(number) for number in range(500)))
    text = heavy.read_text()
    write_index_page(roots)
    assert 1_600_000 < weight(heavy) < MOST_BYTES
    assert text.count("to keep this page light") == 22 - text.count("<img") > 0
    assert dead_links(heavy) == []
    assert "what M67_i_depth.svg shows" in text


def test_a_year_of_three_thousand_frames_that_all_wait_is_below_two_megabytes(roots):
    waiting = [
        frame(
            number, status="pending", stage="catalogues", reason="503 Service Unavailable; " * 40,
            remedy="wait " * 40, zp=None, group="M67",
        )
        for number in range(3000)
    ]  # fmt: skip
    plots = {"20230314": picture(roots, "night_20230314.svg", 900_000, "2023/T120/plots")}
    page = write_year_page(2023, waiting, plots, [], roots, TELESCOPE)
    assert page == roots.data / "2023" / "T120" / "index.html"
    assert weight(page) < MOST_BYTES
    text = page.read_text()
    assert text.count("503 Service") >= 3000
    assert "what night_20230314.svg shows" in text
    assert "3000 science frames in 1 nights: 0 solved, 3000 pending, 0 failed" in text


def test_what_could_not_be_made_stands_there_with_stage_reason_and_remedy(roots):
    failure = FrameFailure(file="M67_r", stage="combine", reason="no space left", remedy="make room", pending=True)
    lost = frame(status="failed", stage="plate solution", reason="3 stars", remedy="look at it", zp=None)
    page = write_group_page(
        TARGET, [], [Rejected(file="20190106/x.fits", reason="binned 1 × 1")], [failure], [], roots, TELESCOPE,
        frames=[lost], troubles=[failure.model_copy(update={"stage": "maps of stack"})],
    )  # fmt: skip
    text = page.read_text()
    assert "No stack could be made" in text
    for said in ("combine", "no space left", "make room", "pending", "maps of stack", "binned 1 × 1"):
        assert said in text
    assert "plate solution: 3 stars → look at it" in text
    card = GroupCard.model_validate_json((page.parent / "page.json").read_bytes())
    assert (card.filters, card.not_made, card.n_left_out) == ((), ("r",), 1)
    write_index_page(roots)
    index = (roots.data / "stacks" / "index.html").read_text()
    assert "no stack in r" in index
    assert dead_links(roots.data / "stacks" / "index.html") == []


def test_an_index_over_nothing_says_so(roots):
    assert "No group has been stacked yet" in write_index_page(roots).read_text()


def test_a_page_whose_text_is_the_same_is_not_written_again(roots):
    page = group_page(roots, "gri", 1000)
    before = page.stat().st_ino, (page.parent / "page.json").stat().st_ino, write_index_page(roots).stat().st_ino
    assert group_page(roots, "gri", 1000) == page
    index = write_index_page(roots)
    assert (page.stat().st_ino, (page.parent / "page.json").stat().st_ino, index.stat().st_ino) == before
    group_page(roots, "gr", 1000)
    assert page.stat().st_ino != before[0]


def test_a_name_that_means_something_in_an_address_leads_to_its_file(roots):
    folder = stack_paths("M67", "T120", "r", roots).image.parent
    folder.mkdir(parents=True)
    (folder / "50% of #1 & <b>.fits").write_bytes(b"x")
    page = write_group_page(TARGET, [], [], [], [], roots, TELESCOPE)
    write_index_page(roots)
    assert "50%25%20of%20%231%20%26%20%3Cb%3E.fits" in page.read_text()
    assert dead_links(page) == []


def raw(number: int) -> RawFrame:
    return RawFrame(
        path=f"{number}.fits", digest="0" * 64, name=f"frame-{number:04d}", kind="science", why="", telescope="T120",
        night="20230314", date_obs=datetime(2023, 3, 14, 22, number, tzinfo=UTC), exptime=60, binning=2, shape=(8, 8),
        filter="r", object="M67",
    )  # fmt: skip


def test_what_became_of_a_frame():
    lost = FrameFailure(file="0.fits", stage="plate solution", reason="3 stars", remedy="look at it")
    waits = FrameFailure(file="1.fits", stage="catalogues", reason="503", remedy="wait", pending=True)
    failed, pending = FrameRecord(raw=raw(0), failures=(lost,)), FrameRecord(raw=raw(1), failures=(waits,))
    silent = page_frame(FrameRecord(raw=raw(2)))
    assert (silent.status, silent.stage, silent.reason) == ("failed", "pipeline", "not reached")
    left_out = [Rejected(file=raw(0).label, reason="plate solution: 3 stars")]
    made = group_frames([pending, failed], set(), left_out, "M67")
    assert [(each.status, each.stage, each.reason, each.remedy) for each in made] == [
        ("failed", "plate solution", "3 stars", "look at it"),
        ("pending", "catalogues", "503", "wait"),
    ]
    assert (made[0].start, made[0].zp, made[0].group) == ("2023-03-14T22:00:00", None, "M67")


def test_the_sky_map_is_the_right_way_round_and_no_label_lies_on_another():
    places = [("middle", "m", 180.0, 0.0), ("north", "n", 180.0, 60.0), ("east", "e", 240.0, 0.0)]
    places += [(f"NGC{4300 + number}", "v", 185.0 + number % 5, 10.0 + number // 5) for number in range(20)]
    drawn = sky_map(places)
    middle, north, east = drawn.marks[:3]
    assert (middle.x, middle.y) == (drawn.width / 2, drawn.height / 2)
    assert north.x == middle.x
    assert north.y < middle.y
    assert east.x < middle.x, "east is to the left"
    assert east.y == middle.y
    boxes = []
    for mark in drawn.marks:
        assert mark.shown
        width = 6.4 * len(mark.name)
        left = {"start": mark.tx, "end": mark.tx - width, "middle": mark.tx - width / 2}[mark.anchor]
        boxes.append((left, mark.ty - 6.5, left + width, mark.ty + 6.5))
    for number, one in enumerate(boxes):
        for other in boxes[:number]:
            assert one[2] <= other[0] or one[0] >= other[2] or one[3] <= other[1] or one[1] >= other[3]
    assert not re.search("nan|inf", drawn.graticule + drawn.rim + drawn.galaxy)


def test_a_card_of_another_version_costs_no_index(roots):
    page = group_page(roots, "gri", 1000)
    (page.parent / "page.json").write_text('{"schema_version": 99}')
    text = write_index_page(roots).read_text()
    assert "of an earlier version" in text
    assert "M67" in text


def test_the_index_counts_what_its_groups_hold(roots):
    page = group_page(roots, "gri", 1000)
    card = GroupCard.model_validate_json((page.parent / "page.json").read_bytes())
    filters = tuple(
        FilterCard(
            filter=band, n_frames=n, exptime_s=1800.0, fwhm_arcsec=2.0 + n, depth_5sigma=20.0 + n, validated=n > 1
        )
        for band, n in (("g", 1), ("r", 2))
    )
    write_card(page.parent / "page.json", card.model_copy(update={"filters": filters, "years": (2019, 2023)}))
    text = write_index_page(roots).read_text()
    assert "1 target group, 2 stacks of 3 frames, 1.0 hours of exposure" in text
    cells = re.findall(r'<td class="n"[^>]*>([^<]*)', text)
    assert cells[2:6] == ["3", "60", "3.00", "22.00"]
    assert cells[6] == "1 of 2"
    assert np.isclose(float(cells[0]), 132.85)
