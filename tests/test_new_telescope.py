"""docs/new_telescope.md: its files are read as they stand, its messages are the code's.

With the real frames they run in tests/flows/test_real.py.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from flows._cli import Command
from models.base import Roots
from models.report import GroupRow
from models.settings import Settings
from models.target import load_targets, target_by_object
from models.telescope import Telescope, TelescopeError, load_telescope, telescope_names
from tasks.inventory import take_inventory
from tasks.report import write_report
from tests.profiles import PAGE, examples, install, profile, write
from tests.test_docs import texts

PROFILES = ("MICRO", "PROMPT5")

HEADERS = {
    "MICRO": {"DATE-OBS": "2017-12-19T18:33:43.317-0700", "EXPTIME": 60.0, "OBJECT": "HATP-32", "RA": 31.312099,
              "DEC": 46.769087, "FILTER": "Clear", "CAMTEMP": 271.0},
    "PROMPT5": {"DATE-OBS": "2019-02-18T02:09:39", "EXPTIME": 36.6, "IMAGETYP": "Light Frame", "OBJECT": "",
                "OBJRA": "05:34:31.9", "OBJDEC": "+22:00:51.981", "FILTER": "rprime", "XBINNING": 1, "CCD-TEMP": -20.1,
                "GAIN": 1.34967, "RDNOISE": 9.4386},
}  # fmt: skip
"""What the cameras write, as far as the profiles speak of it."""


def test_the_page_has_these_files():
    assert set(examples()) == {f"telescopes/{name}.toml" for name in PROFILES} | {"pipeline.toml", "targets.toml"}


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_short_and_whole(name, tmp_path):
    text = examples()[f"telescopes/{name}.toml"]
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) < 40
    assert install(name, tmp_path) == profile(name)
    assert telescope_names(tmp_path) == sorted(["T080", "T120", name])


def test_a_telescope_without_a_profile_is_told_where_to_put_one(tmp_path):
    with pytest.raises(TelescopeError, match=r"DATA_ROOT/telescopes/NEW\.toml, see docs/new_telescope\.md"):
        load_telescope("NEW", tmp_path)


def test_what_is_marked_as_needed_is_what_is_needed(tmp_path):
    """The shortest profile that the page allows is one; without any of its entries it is none."""
    needed = {
        "name": "X",
        "site": {"latitude_deg": 0, "longitude_deg": 0},
        "camera": {"shape": [10, 20], "pixel_scale": 1.0, "gain": 1.0, "read_noise": 1.0},
        "bands": [{"name": "V"}],
    }
    assert Telescope.model_validate(needed)
    marked = set(re.findall(r"`(?:camera\.)?(\w+)`", " ".join(
        line.split("|")[1] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ●")
    )))  # fmt: skip
    assert marked == {"name", "site", "bands", *needed["camera"]}
    for entry in marked:
        less = {key: value for key, value in needed.items() if key != entry}
        less["camera"] = {key: value for key, value in needed["camera"].items() if key != entry}
        with pytest.raises(ValueError, match=entry):
            Telescope.model_validate(less)


@pytest.mark.parametrize("name", PROFILES)
def test_the_inventory_understands_its_frames(name, tmp_path):
    telescope = install(name, tmp_path)
    header = fits.Header(HEADERS[name])
    path = tmp_path / "raw" / "night" / "frame.fits"
    path.parent.mkdir(parents=True)
    pixels = np.random.default_rng(1).normal(1000, 30, telescope.camera.shape).astype(np.uint16)
    fits.PrimaryHDU(pixels, header).writeto(path)
    found = take_inventory(Roots(data=tmp_path, raw=tmp_path / "raw"), telescope)
    assert found.unusable == ()
    frame = found.frames[0]
    band, night, place = {
        "MICRO": ("Clear", "20171219", (31.3121, 46.7691)),
        "PROMPT5": ("r", "20190217", (83.6329, 22.0144)),
    }[name]
    assert (frame.kind, frame.filter, frame.night) == ("science", band, night)
    assert (frame.ra, frame.dec) == (pytest.approx(place[0], abs=1e-3), pytest.approx(place[1], abs=1e-3))
    assert frame.ccd_temp == pytest.approx(-2.15 if name == "MICRO" else -20.1, abs=0.01)
    assert frame.gain == (None if name == "MICRO" else 1.34967)


def test_its_settings_and_targets_are_read(tmp_path, monkeypatch):
    for name in [key for key in os.environ if key.startswith("OHP_")]:
        monkeypatch.delenv(name)
    for file in ("pipeline.toml", "targets.toml"):
        write(file, tmp_path)
    settings = Settings(data_root=tmp_path)
    assert settings.astrometry.reference == "index"
    assert settings.selection.radius_arcmin == 30
    target = target_by_object("HATP-32", load_targets(tmp_path))
    assert target is not None
    assert target.name == "HAT-P-32"


def test_its_messages_are_the_codes():
    table = re.search(r"^\| it says .*\n\|[-|]+\n((?:\|.*\n?)+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    said = [line.split("|")[1].strip() for line in table[1].splitlines()]
    assert len(said) == 6
    for message in said:
        for part in re.split(r"…|Clear|2017", message.replace("telescopes/NAME.toml: camera.shape: ", "")):
            assert any(part.strip(" :") in text for text in texts()), f"{message!r} is said nowhere ({part!r})"


def test_the_readme_leads_here():
    assert "docs/new_telescope.md" in (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_a_word_that_names_no_group_leads_to_the_field_it_stands_for(tmp_path, capsys):
    """Frames of an OBJECT that no table knows form a group named by its place."""
    install("MICRO", tmp_path)
    place = GroupRow(
        telescope="MICRO", group="J0203+4649", ra=30.9692, dec=46.8175, named_by="position", type="",
        words=("HATP-32",), nights=("20171219",), filters=("Clear",), n_frames=24, n_disagree=0,
        patches=1, moving="", notes=(),
    )  # fmt: skip
    write_report(tmp_path / "stacks" / "MICRO_groups_report.json", "groups_report", [place])
    command = Command("flows.stack_target", "")
    command.begin(["--root", str(tmp_path), "--telescope", "MICRO"])
    assert command.group("j0203+4649") == "J0203+4649"
    with pytest.raises(SystemExit) as ended:
        command.group("hatp-32")
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip().endswith("no target group 'hatp-32'; OBJECT says so of J0203+4649")
