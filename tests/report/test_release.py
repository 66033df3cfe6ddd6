"""The release's tables: gathered from products, read back, compared with them; what is missing is said."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time

from models.base import Roots
from models.frame import FrameFailure, FrameRecord, RawFrame, Rejected
from models.release import SCHEMAS
from models.report import GroupRow, PhotometryCheckRow, StackRow
from models.stack import stack_paths
from models.target import load_targets
from models.telescope import load_telescope
from tasks.core.errors import StageError
from tasks.report import read_report, stack_rows, write_frames, write_release, write_report, write_schemas
from tests.report.markdown import tables

T120 = load_telescope("T120")
TARGETS = load_targets()

STACKS = {
    ("M67", "r"): {"NCOMBINE": 4, "EXPTOTAL": 240.0, "FWHM_AS": 2.41, "DEPTH5S": 21.3, "PHOTOFF": 0.012,
                   "PHOTRMS": 0.031, "years": (2019, 2023)},
    ("M67", "g"): {"NCOMBINE": 3, "EXPTOTAL": 90.5, "FWHM_AS": 3.02, "DEPTH5S": 20.7, "PHOTOFF": -0.004,
                   "PHOTRMS": 0.020, "years": (2019,)},
    ("M67", "Ha"): {"NCOMBINE": 2, "EXPTOTAL": 600.0, "PHOTWHY": "PS1 has no band like Ha", "years": (2023,)},
    ("Coma", "r"): {"NCOMBINE": 5, "EXPTOTAL": 1500.0, "FWHM_AS": 1.9, "DEPTH5S": 22.4, "PHOTWHY": "3 stars | 5 needed",
                    "years": (2023,)},
}  # fmt: skip


def write_stack(roots: Roots, group: str, filter: str, said: dict) -> str:
    header = fits.Header()
    header["OBJECT"], header["FILTER"], header["PIXSCALE"] = group, filter, 0.77
    header["COMBTYPE"], header["RESAMPLE"], header["RADESYS"] = "MEDIAN", "LANCZOS3", "ICRS"
    header["PHOTCAL"] = "RELATIVE" if filter == "Ha" else "PS1"
    if filter != "Ha":
        header["PHOTZP"] = 30.0
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    target = TARGETS[group]
    for axis, place, step in ((1, target.ra, -0.77 / 3600), (2, target.dec, 0.77 / 3600)):
        header[f"CRVAL{axis}"], header[f"CRPIX{axis}"], header[f"CD{axis}_{axis}"] = place, 4.5, step
        header[f"CUNIT{axis}"] = "deg"
    header["DATE-OBS"], header["DATE-END"] = f"{said['years'][0]}-01-06T20:00:00", f"{said['years'][-1]}-03-14T22:00:00"
    header["MJD-OBS"], header["MJD-END"] = (Time(header[f"DATE-{end}"]).mjd for end in ("OBS", "END"))
    header["PHOTCHK"] = "PHOTOFF" in said
    for number in range(said["NCOMBINE"]):
        header[f"INP{number + 1:04d}"] = f"{said['years'][number % len(said['years'])]}0106/{group}-{number}.fits"
    for keyword, value in said.items():
        if keyword != "years":
            header[keyword] = value
    paths = stack_paths(group, "T120", filter, roots)
    paths.image.parent.mkdir(parents=True, exist_ok=True)
    for path in (paths.image, paths.weight, paths.psf):
        fits.PrimaryHDU(np.zeros((8, 8), np.float32), header).writeto(path)
    return paths.image.relative_to(roots.data).as_posix()


def row(group: str, filter: str, file: str | None, **other) -> StackRow:
    given = {
        "n_combined": 0, "n_rejected": 0, "rejected": (), "combine": "median", "fwhm_arcsec": None,
        "depth_5sigma": None, "status": "OK", "reason": "",
    }  # fmt: skip
    return StackRow(group=group, filter=filter, file=file, **given | other)


def frame(year: int, filter: str) -> FrameRecord:
    raw = RawFrame(
        path=f"{year}/{filter}.fits", digest="0" * 64, name=f"M67-{filter}", kind="science", why="test",
        telescope="T120", night=f"{year}0106", date_obs=datetime(year, 1, 6, 20, tzinfo=UTC), exptime=60, binning=2,
        shape=(1024, 1024), filter=filter, object="M67",
    )  # fmt: skip
    failure = FrameFailure(file=raw.path, stage="reduction", reason="truncated", remedy="copy it again")
    return FrameRecord(raw=raw, failures=(failure,))


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """Two groups with stacks, one without; two years with a gap between."""
    roots = Roots(data=tmp_path, raw=tmp_path / "raw")
    rows: dict[str, list[StackRow]] = {"M67": [], "Coma": [], "M92": []}
    for (group, filter), said in STACKS.items():
        left_out = (Rejected(file="20190106/x.fits", reason="no stars"),) if filter == "g" else ()
        file = write_stack(roots, group, filter, said)
        rows[group].append(row(group, filter, file, n_rejected=len(left_out), rejected=left_out))
    few = "1 usable of 1 frames in B, 2 needed"
    rows["M92"].append(row("M92", "B", None, status="TOO_FEW_FRAMES", reason=few))
    for group, mine in rows.items():
        checks = [
            PhotometryCheckRow(group=group, filter=each.filter, validated=True, reason="", zp_offset=0, zp_err=0,
                               zp_rms=0, n_stars=9, release_rms=0.61 if each.filter == "g" else None)
            for each in mine if each.file
        ]  # fmt: skip
        stack_rows(roots, T120, group, {"stack_all_report": mine, "phot_check_report": checks})
    for year in (2019, 2023):
        folder = tmp_path / str(year) / "T120"
        folder.mkdir(parents=True)
        write_frames([frame(year, "r"), frame(year, "g")], folder)
    return roots


def page(roots: Roots) -> dict[str, list[dict[str, str]]]:
    write_release(roots, T120, TARGETS)
    return tables((roots.data / "stacks" / "release.md").read_text(encoding="utf-8"))


def properties(found: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {each["Property"]: each["Value"] for each in found["Data Summary"]}


def test_the_layout_is_that_of_the_release(roots):
    found = page(roots)
    assert list(found["Data Summary"][0]) == ["Property", "Value"]
    assert list(found["Filter Inventory"][0]) == ["Filter", "N stacks", "PS1 calibration band"]
    assert list(found["Merged groups"][0]) == ["Group name", "Constituent targets", "Description"]
    assert list(found["Full target list"][0]) == ["Target", "Filters", "N frames", "Type"]
    for heading in ("Photometric calibration", "Astrometric calibration", "Seeing", "Depth"):
        assert list(found[heading][0]) == ["Metric", "Value"]


@pytest.mark.shared
def test_its_headings_and_rows_are_those_of_the_document(roots, shared):
    """What the typed document has in a table, the generated one has under the same heading and name."""
    typed = tables((shared / "reference" / "data_release.md").read_text(encoding="utf-8"))
    found = page(roots)
    for heading in ("Data Summary", "Filter Inventory", "Merged groups", "Full target list"):
        assert list(typed[heading][0]) == list(found[heading][0]), heading
    assert {each["Property"] for each in typed["Data Summary"]} <= set(properties(found))
    assert {each["Metric"].removesuffix(" (PSFex)") for each in typed["Seeing"]} <= {
        e["Metric"] for e in found["Seeing"]
    }
    named = {each["Metric"].removesuffix(" from 30.0") for each in typed["Photometric calibration"]}
    assert named <= {each["Metric"] for each in found["Photometric calibration"]}


def test_the_tables_are_the_products(roots):
    found = page(roots)
    assert {each["Target"]: (each["Filters"], each["N frames"]) for each in found["Full target list"]} == {
        "Coma": ("r", "5"),
        "M67": ("g, r, Ha", "9"),
    }
    assert [(each["Filter"], each["N stacks"], each["PS1 calibration band"]) for each in found["Filter Inventory"]] == [
        ("B", "0", "gmag"),
        ("g", "1", "gmag"),
        ("r", "2", "rmag"),
        ("Ha", "1", "none; scaled to continuum stars in r"),
    ]
    members = ", ".join(TARGETS["Coma"].members)
    assert found["Merged groups"] == [
        {"Group name": "Coma", "Constituent targets": members, "Description": TARGETS["Coma"].type}
    ]
    said = properties(found)
    assert said["Number of stacks"] == "4 (3 broadband + 1 narrowband)"
    assert said["Number of target groups"] == "2"
    assert said["Total input frames"] == "14 (from 0 reduced of 4 T120 frames)"
    assert said["Years without frames"] == "2020, 2021, 2022"
    assert said["Photometric zero point"] == "30 mag; 1 on a relative scale"
    assert said["Exposures combined"] == "2019-01-06T20:00:00 to 2023-03-14T22:00:00 UTC"
    seeing = {each["Metric"]: each["Value"] for each in found["Seeing"]}
    assert seeing["Best seeing"] == "1.9 arcsec (3 of 4 stacks)"
    assert seeing["Median stack FWHM"] == "2.41 arcsec (3 of 4 stacks)"
    photometry = {each["Metric"]: each["Value"] for each in found["Photometric calibration"]}
    assert photometry["Stacks validated"] == "2 (of 3 stacks with a PS1 band)"
    assert photometry["Median ZP offset"] == "0.004 mag (2 of 3 stacks with a PS1 band)"
    assert photometry["Standard deviation of offsets"] == "0.011 mag (2 of 3 stacks with a PS1 band)"


def test_what_is_missing_is_said(roots):
    text = (roots.data / write_release(roots, T120, TARGETS)[0]).read_text(encoding="utf-8")
    assert re.search(r"\|[ \t]*\|", text) is None, "no cell is blank"
    found = tables(text)
    assert {each["Metric"]: each["Value"] for each in found["Frames"]}["Frames left out of their group's stack"] == (
        "1 (of 15 frames of the groups; each with its reason in stack_all_report.json)"
    )
    stacks = {(each["Target"], each["Filter"]): each for each in found["Stacks"]}
    narrow = stacks["M67", "Ha"]
    assert narrow["FWHM (arcsec)"] == narrow["Depth, 5 sigma (mag)"] == narrow["ZP offset (mag)"] == "unknown"
    for why in ("not validated: PS1 has no band like Ha", "PSF not measured", "no depth: the scale is relative"):
        assert why in narrow["Remark"]
    assert stacks["Coma", "r"]["Remark"] == "not validated: 3 stars | 5 needed"
    assert found["Not made"] == [
        {"Target": "M92", "Filter": "B", "Status": "TOO_FEW_FRAMES", "Reason": "1 usable of 1 frames in B, 2 needed"}
    ]
    metrics = {each["Metric"]: each["Value"] for each in found["Astrometric calibration"] + found["Seeing"]}
    assert metrics["Median rms of the plate solutions"] == "unknown: none of 0 solutions has a value"
    assert metrics["Median FWHM of the frames' PSFs"] == "unknown: none of 4 frames has a value"


def test_a_stack_that_is_gone_is_not_counted_and_named(roots):
    stack_paths("M67", "T120", "r", roots).image.unlink()
    stack_paths("M67", "T120", "g", roots).image.write_bytes(b"no FITS")
    found = page(roots)
    assert {each["Target"]: each["N frames"] for each in found["Full target list"]} == {"Coma": "5", "M67": "2"}
    gone = {each["Filter"]: each for each in found["Not made"] if each["Target"] == "M67"}
    assert gone["r"]["Reason"] == "stacks/M67/T120/M67_r.fits is not there; stack the group again"
    assert gone["g"]["Status"] == "MISSING"
    assert "cannot be read" in gone["g"]["Reason"]


def test_json_and_ecsv_say_the_same(roots):
    write_schemas(roots.data / "schemas")
    write_release(roots, T120, TARGETS)
    folder = roots.data / "stacks"
    release = read_report(folder / "release.json", "release")
    text = json.loads((folder / "release.json").read_text())
    jsonschema.validate(text, json.loads((roots.data / "schemas" / "release.schema.json").read_text()))
    assert text["schema"] == 1
    assert SCHEMAS["release"].model_validate(text) == release
    targets = Table.read(folder / "release_targets.ecsv")
    assert [(str(each["group"]), int(each["n_frames"])) for each in targets] == [
        (each.group, each.n_frames) for each in release.rows
    ]
    by_name = {str(each["group"]): each for each in targets}
    assert by_name["M67"]["ra"] == pytest.approx(TARGETS["M67"].ra, abs=2e-4)
    assert by_name["M67"]["filters"] == "g:3 r:4 Ha:2"
    assert by_name["M67"]["n_left_out"] == 1
    assert by_name["M92"]["remark"] == "B: 1 usable of 1 frames in B, 2 needed"
    stacks = Table.read(folder / "release_stacks.ecsv")
    for each, row in zip(release.stacks, stacks, strict=True):
        assert (row["status"], row["n_frames"], row["exptime_s"]) == (each.status, each.n_frames, pytest.approx(
            np.nan if each.exptime_s is None else each.exptime_s, nan_ok=True))  # fmt: skip
        assert np.isnan(row["fwhm_arcsec"]) == (each.fwhm_arcsec is None)
        if each.filter == "g":
            assert row["release_rms"] == 0.61
    assert not any(column.mask.any() for column in stacks.columns.values() if hasattr(column, "mask"))
    assert list(Table.read(folder / "release_filters.ecsv")["n_stacks"]) == [each.n_stacks for each in release.filters]
    quality = {str(each["key"]): each for each in Table.read(folder / "release_quality.ecsv")}
    assert quality["fwhm_worst"]["value"] == 3.02
    assert np.isnan(quality["rms"]["value"])


def test_the_same_products_give_the_same_bytes(roots, monkeypatch):
    def written() -> dict[str, bytes]:
        dated = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
        return {path.name: dated.sub(b"NOW", path.read_bytes()) for path in write_release(roots, T120, TARGETS)}

    first = written()
    monkeypatch.setattr("tasks.report.release.Time.now", lambda: _Later)
    assert written() == first
    assert not list((roots.data / "stacks").glob(".*"))


class _Later:
    class utc:
        isot = "2030-01-02T03:04:05.678"


def test_a_group_that_no_table_knows(roots):
    """Named by its place on the sky; its type is what a resolver of names said, if one did."""
    file = write_stack(roots, "M67", "V", STACKS["M67", "g"])
    for name, type in (("J1141+0552", "Asteroid"), ("J0203+4649", "")):
        stack_rows(roots, T120, name, {"stack_all_report": [row(name, "V", file)]})
        place = GroupRow(telescope="T120", group=name, ra=1, dec=2, named_by="position", type=type, words=(), nights=(),
                         filters=("V",), n_frames=3, n_disagree=0, patches=1, moving="", notes=())  # fmt: skip
        write_report(roots.data / "stacks" / "T120_groups_report.json", "groups_report", [place])
        listed = {each["Target"]: each["Type"] for each in page(roots)["Full target list"]}
        assert listed[name] == (type or "not in the table of targets")


def test_a_release_of_nothing_says_so(tmp_path):
    roots = Roots(data=tmp_path, raw=tmp_path)
    found = page(roots)
    assert found["Full target list"][0]["Type"] == "no stack was made"
    assert properties(found)["Observing years"] == "unknown"
    assert read_report(tmp_path / "stacks" / "release.json", "release").rows == ()
    assert len(Table.read(tmp_path / "stacks" / "release_stacks.ecsv")) == 0


def test_other_telescopes_have_files_of_their_own(roots):
    t080 = load_telescope("T080")
    names = [path.name for path in write_release(roots, t080, TARGETS)]
    assert names[:2] == ["release_T080.md", "release_T080.json"]
    text = tables((roots.data / "stacks" / "release_T080.md").read_text(encoding="utf-8"))
    assert properties(text)["Other telescopes with stacks"] == "T120"
    assert properties(text)["CCD"] == "1536 x 1023 px at binning 2"


def test_a_report_that_cannot_be_read_is_named(roots):
    (roots.data / "stacks" / "stack_all_report.json").write_text("{")
    with pytest.raises(StageError, match=r"stack_all_report\.json"):
        write_release(roots, T120, TARGETS)
