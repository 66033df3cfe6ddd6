"""The demo: every product, keyword, report and page of the contract, from commands a newcomer types."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from astropy.io import fits

from models.base import Roots
from models.report import REPORTS
from models.target import load_targets
from models.telescope import load_telescope
from tasks.report import write_release
from tasks.truth import measure_campaign
from tests.flows.conftest import run, snapshot
from tests.report.markdown import tables

pytestmark = [pytest.mark.demo, pytest.mark.tools]

YEARS = (2019, 2023, 2025)
FRAME_KEYWORDS = [
    "BIASCORR",
    "FLATCORR",
    "BIASQUAL",
    "NCOMBINE",
    "COMBMETH",
    "QCFWHM",
    "QCELONG",
    "QCNSRC",
    "QCSATF",
    "QCFLAG",
    "ASTRRMS",
    "ASTRNMAT",
    "ASTRSTAT",
    "PHOTSTAT",
    "PIPELINE",
    "PROCDATE",
    "CHECKSUM",
    "DATASUM",
]
FIGURES = (
    "frames solved",
    "wrong solutions accepted",
    "position of stars with S/N > 50, median over the chip",
    "position of stars with S/N > 50, 95 % within",
    "position over the whole chip, stars or not, median",
    "position over the whole chip, stars or not, 95 % within",
    "frames accepted though off by more than 0.2 arcsec (rms over the chip)",
    "stars between filters of a group, their own noise included, worst pair",
    "world coordinates between filters of a group, rms over the field, worst pair",
    "frame zero points g r i, abs(bias), worst filter",
    "frame zero points g r i, scatter, worst filter",
    "frame zero points g r i, largest error",
    "frame zero points g r i, pull width of the quoted errors",
    "rms of clean stars on a frame, g r i, worst filter",
    "frame zero points B V, abs(bias), worst filter",
    "frame zero points B V, scatter, worst filter",
    "frame zero points B V, largest error",
    "frame zero points B V, pull width of the quoted errors",
    "rms of clean stars on a frame, B V, worst filter",
    "grids in a group (NAXIS, CRPIX, CRVAL, CD)",
    "stacks g r i, abs(median of measured - true), median",
    "stacks g r i, abs(median of measured - true), worst",
    "stacks B V R, abs(median of measured - true), median",
    "stacks B V R, abs(median of measured - true), worst",
    "stacks (median) bent by more than 10 mmag whose header does not say so",
    "star cores touched by the cosmic-ray mask",
    "particles of more than 10 sigma that are masked",
    "pull of the noise in empty apertures, frames",
    "pull of the noise in empty apertures, stacks (median)",
    "pull of the noise in empty apertures, stacks (median), worst",
    "relative scale of a stack's frames, broad bands, rms",
    "relative scale of a stack's frames, broad bands, worst stack",
    "relative scale of a stack's frames, narrow bands, rms",
    "relative scale of a stack's frames, narrow bands, worst stack",
    "light of the 10 arcmin spiral within 5 arcmin, extended product, worst filter",
    "light of the 10 arcmin spiral in the ring of 24 mag/arcsec^2, extended product, worst filter",
    "light of the 10 arcmin spiral within 5 arcmin, extended product, most",
    "depth of stacks (median) against ideal weights",
    "depth of stacks (median) against ideal weights, worst",
    "bad pixels left (beyond 6 sigma on empty sky), stacks (median), worst",
    "PSF image (median), FWHM against the stars', median",
    "PSF image (median), FWHM against the stars', worst beyond 2 sigma of its stars",
    "PSF image (median), EE50 against the frames' profiles, median",
    "PSF image (median), EE50 against the frames' profiles, worst",
    "PSF image (median), EE50 against the stars' growth curves, median",
    "PSF image (median), EE50 against the stars' growth curves, worst beyond 2 sigma of its stars",
    "PSF image (median), ellipticity against the frames' profiles, median",
    "PSF image (median), ellipticity against the frames' profiles, worst",
    "PSF image (median), ellipticity against the stars', as a vector, median",
    "PSF image (median), ellipticity against the stars', as a vector, worst beyond 2 sigma of its stars",
    "PSF image, abs(sum - 1), worst",
    "PSF image, centroid off the centre, worst",
    "PSF image, abs(PIXSCALE - 0.770)",
    "validation: abs(offset) of stacks g r i, median",
    "validation: abs(offset) of stacks g r i, worst",
    "validation: abs(offset) of stacks B V R, median",
    "validation: abs(offset) of stacks B V R, worst",
    "validation: broad-band stacks not validated",
)
STACK_KEYWORDS = [
    "OBJECT",
    "FILTER",
    "NCOMBINE",
    "COMBTYPE",
    "BACKSUB",
    "BACKSIZE",
    "PIXSCALE",
    "FWHM_PX",
    "FWHM_AS",
    "CTYPE1",
    "CTYPE2",
    "CRPIX1",
    "CRPIX2",
    "CRVAL1",
    "CRVAL2",
    "CD1_1",
    "CD1_2",
    "CD2_1",
    "CD2_2",
    "INP0001",
    "CHECKSUM",
    "DATASUM",
]


def stacks(demo) -> list[Path]:
    return sorted(
        path.with_name(path.name.replace(".weight.fits", ".fits"))
        for path in demo.roots.data.glob("stacks/*/T120/*.weight.fits")
    )


def reduced(demo) -> list[Path]:
    return sorted(demo.roots.data.glob("[0-9]*/T120/reduced/*/*.fits"))


def open_strictly(path: Path) -> fits.HDUList:
    """Open a FITS file where a wrong checksum or a card against the standard is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hdus = fits.open(path, checksum=True, memmap=False)
        for hdu in hdus:
            hdu.verify("exception")
            hdu.data  # noqa: B018
    return hdus


def rows(demo, name: str) -> list[dict]:
    return json.loads((demo.roots.data / name).read_text())["rows"]


def test_it_ends_well_and_says_where_to_look(demo):
    if not demo.output:
        pytest.skip("an existing demo is read")
    assert demo.status == 0, demo.errors + demo.output
    assert "Traceback" not in demo.errors + demo.output
    assert "$ python -m flows.reduce_year 2019 2023 2025" in demo.output
    assert f"Its pages: {demo.roots.data / 'stacks' / 'index.html'}" in demo.output
    assert len(demo.output.splitlines()) + len(demo.errors.splitlines()) < 180


def test_not_one_byte_of_the_raw_tree_changed(demo):
    assert snapshot(demo.roots.raw) == demo.raw_before


def test_state_stays_under_the_data_root(demo):
    assert list(demo.home.rglob("*")) == []


def test_nothing_half_written_is_left(demo):
    assert not list(demo.roots.data.rglob("*.tmp"))
    assert list((demo.roots.data / ".cache" / "scratch").iterdir()) == []


@pytest.mark.parametrize("year", YEARS)
def test_a_years_products_lie_where_the_contract_says(demo, year):
    folder = demo.roots.data / str(year) / "T120"
    assert (folder / "master_bias" / f"master_bias_{year}_T120_2.fits").is_file()
    flats = {path.name for path in (folder / "master_flat").iterdir()}
    assert all(re.fullmatch(rf"master_flat_{year}_T120_2_(B|V|R|g|r|i|Ha)\.fits", name) for name in flats)
    assert len(flats) >= 4
    for path in sorted((folder / "reduced").glob("*/*.fits")):
        assert re.fullmatch(r"\d{8}", path.parent.name)
        assert (folder / "psf" / path.parent.name / f"{path.stem}.psf").is_file()


def test_calibration_frames_left_out_are_named_with_the_reason(demo):
    truth = json.loads((demo.roots.data / "truth.json").read_text())
    bad = [
        Path(frame["path"]).name
        for frame in truth["frames"]
        if frame["oddity"] and re.search("underexposed|warm", frame["oddity"])
    ]
    assert len(bad) >= 2
    masters = [
        master for path in demo.roots.data.glob("[0-9]*/T120/masters.json") for master in json.loads(path.read_text())
    ]
    reasons = {Path(rejected["file"]).name: rejected["reason"] for master in masters for rejected in master["rejected"]}
    for name in bad:
        assert reasons.get(name), f"{name} is not among the calibration frames left out"
        assert not demo.output or name in demo.output


def test_a_reduced_frame_holds_image_mask_and_variance(demo):
    for path in reduced(demo):
        with open_strictly(path) as hdus:
            assert [hdu.name for hdu in hdus] == ["PRIMARY", "MASK", "VAR"]
            science, mask, variance = (hdu.data for hdu in hdus)
            assert science.dtype == np.dtype(">f4")
            assert science.shape == mask.shape == variance.shape == (1024, 1024)
            assert mask.dtype == np.uint8
            assert np.isfinite(science).all()
            assert (variance > 0).all()
            assert np.isfinite(variance).all()
            header = hdus[0].header
            assert hdus[0].header["MSKBIT1"] == "SATURATED"
            missing = [keyword for keyword in FRAME_KEYWORDS if keyword not in header]
            assert not missing, f"{path.name} lacks {missing}"
            assert [k for k in header if k and k not in ("COMMENT", "HISTORY") and list(header).count(k) > 1] == []
            if header["PHOTSTAT"] == "OK":
                for keyword in ("PHOTZP", "PHOTZPER", "PHOTNSTR", "PHOTNMAT", "PHOTCAT", "PHOTAPER"):
                    assert keyword in header
        assert fits.getdata(path).shape == (1024, 1024)


def test_a_frame_has_a_head_without_a_second_flux_scale(demo):
    heads = sorted(demo.roots.data.glob("[0-9]*/T120/reduced/*/*.head"))
    assert len(heads) >= 60
    for head in heads:
        text = head.read_text(encoding="utf-8")
        assert text.count("FLXSCALE") <= 1
        assert text.count("CRVAL1") == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [(f"{year}/T120/{folder}/{kind}.json", kind) for year in YEARS for folder, kind in (
        ("qc", "frame_stats"), ("astrometry", "astrom_report"), ("photometry", "phot_report"), ("psf", "psf_report"))]
    + [(f"stacks/{kind}.json", kind) for kind in ("stack_all_report", "phot_check_report", "stack_psf_report")],
)  # fmt: skip
def test_reports_keep_their_contract(demo, name, kind):
    report = json.loads((demo.roots.data / name).read_text())
    schema = json.loads((demo.roots.data / "schemas" / f"{kind}.schema.json").read_text())
    jsonschema.validate(report, schema)
    assert REPORTS[kind].model_validate(report).rows
    assert report["schema"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", report["made"])
    assert report["software"]["scamp"][0].isdigit()


def test_tables_of_the_release_are_the_stacks(demo, tmp_path):
    """What build_release writes of the demo's products, read back from the Markdown, against the stacks' headers."""
    for folder in [demo.roots.data / "stacks", *demo.roots.data.glob("[0-9][0-9][0-9][0-9]")]:
        shutil.copytree(
            folder, tmp_path / folder.name, copy_function=os.symlink, ignore=shutil.ignore_patterns("reduced")
        )
    roots = Roots(data=tmp_path, raw=demo.roots.raw)
    found = tables(write_release(roots, load_telescope("T120"), load_targets())[0].read_text(encoding="utf-8"))
    headers = {}
    for weight in demo.roots.data.glob("stacks/*/T120/*.weight.fits"):
        header = fits.getheader(weight.with_name(weight.name.replace(".weight", "")))
        headers[header["OBJECT"], header["FILTER"]] = header
    listed = {(row["Target"], row["Filter"]): row for row in found["Stacks"]}
    assert listed.keys() == headers.keys()
    for place, header in headers.items():
        row = listed[place]
        assert int(row["N frames"]) == header["NCOMBINE"]
        assert float(row["Exposure (s)"]) == pytest.approx(header["EXPTOTAL"], abs=0.5)
        assert float(row["FWHM (arcsec)"]) == pytest.approx(header["FWHM_AS"], abs=0.006)
        assert float(row["Depth, 5 sigma (mag)"]) == pytest.approx(header["DEPTH5S"], abs=0.006)
        if header["PHOTCHK"]:
            assert float(row["ZP offset (mag)"]) == pytest.approx(header["PHOTOFF"], abs=6e-4)
        else:
            assert header["PHOTWHY"] in row["Remark"]
    for row in found["Full target list"]:
        mine = {band: header["NCOMBINE"] for (group, band), header in headers.items() if group == row["Target"]}
        assert set(row["Filters"].split(", ")) == set(mine)
        assert int(row["N frames"]) == sum(mine.values())
    for row in found["Filter Inventory"]:
        assert int(row["N stacks"]) == sum(band == row["Filter"] for _, band in headers)
    said = {row["Property"]: row["Value"] for row in found["Data Summary"]}
    combined = sum(header["NCOMBINE"] for header in headers.values())
    truth = json.loads((demo.roots.data / "truth.json").read_text())
    asked = sum(frame["kind"] == "science" for frame in truth["frames"])
    assert said["Total input frames"] == f"{combined} (from {asked} reduced of {asked} T120 frames)"
    assert said["Observing years"] == "2019, 2023, 2025"
    validated = sum(header["PHOTCHK"] for header in headers.values())
    assert found["Photometric calibration"][0]["Value"].startswith(f"{validated} (of ")


def test_every_science_frame_is_in_every_report(demo):
    truth = json.loads((demo.roots.data / "truth.json").read_text())
    asked = sum(frame["kind"] == "science" for frame in truth["frames"])
    assert asked >= 60
    for folder, kind in (("qc", "frame_stats"), ("astrometry", "astrom_report"), ("photometry", "phot_report")):
        found = [row for year in YEARS for row in rows(demo, f"{year}/T120/{folder}/{kind}.json")]
        assert len(found) == asked


def test_a_stack_is_what_the_release_describes(demo):
    assert len(stacks(demo)) >= 10
    for path in stacks(demo):
        with open_strictly(path) as hdus:
            assert len(hdus) == 1
            header, data = hdus[0].header, hdus[0].data
        assert data.dtype == np.dtype(">f4")
        missing = [keyword for keyword in STACK_KEYWORDS if keyword not in header]
        assert not missing, f"{path.name} lacks {missing}"
        group, filter = path.stem.rsplit("_", 1)
        assert (header["OBJECT"], header["FILTER"]) == (group, filter)
        assert (header["CTYPE1"], header["CTYPE2"]) == ("RA---TAN", "DEC--TAN")
        assert header["PIXSCALE"] == pytest.approx(0.770)
        assert header["COMBTYPE"] == "MEDIAN"
        inputs = [header[f"INP{number:04d}"] for number in range(1, header["NCOMBINE"] + 1)]
        assert len(set(inputs)) == header["NCOMBINE"]
        if filter != "Ha":
            assert header["PHOTZP"] == 30.0
            assert header["PHOTNSTR"] >= 5
            assert header["PHOTRMS"] < 0.1
        with open_strictly(path.with_name(f"{path.stem}.weight.fits")) as hdus:
            weight = hdus[0].data
        assert weight.shape == data.shape
        assert weight.min() == 0.0
        assert np.all(data[weight == 0] == 0)
        with open_strictly(path.with_name(f"{path.stem}_psf.fits")) as hdus:
            psf, psf_header = hdus[0].data, hdus[0].header
        assert psf.shape == (25, 25)
        for keyword in ("FWHM_PX", "FWHM_AS", "EE50_AS", "EE80_AS", "ELLIPT", "NSTARS"):
            assert keyword in psf_header
        assert header["FWHM_AS"] == pytest.approx(psf_header["FWHM_AS"], rel=1e-3)


def test_units_stand_in_the_comments(demo):
    header = fits.getheader(stacks(demo)[0])
    for keyword, unit in (("PHOTZP", "[mag]"), ("FWHM_AS", "[arcsec]"), ("FWHM_PX", "[px]"), ("PHOTRMS", "[mag]")):
        assert unit in header.comments[keyword]


def test_the_mean_psf_is_there(demo):
    with open_strictly(demo.roots.data / "stacks" / "T120_mean_psf.fits") as hdus:
        assert hdus[0].data.shape == (25, 25)
        assert hdus[0].data.sum() == pytest.approx(1.0, abs=1e-4)
        assert hdus[0].header["NCOMBINE"] >= 60


def test_the_page_shows_every_stack_and_every_frame_left_out(demo):
    for group in ("M51", "M67"):
        page = demo.roots.data / "stacks" / group / "T120" / "index.html"
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src)="([^"#]+)"', text):
            assert (page.parent / link).resolve().is_file(), f"{link} on {group}'s page leads nowhere"
        for row in rows(demo, "stacks/stack_all_report.json"):
            if row["group"] != group:
                continue
            if row["status"] == "OK":
                assert f"{group}_{row['filter']}.fits" in text
            for rejected in row["rejected"]:
                assert rejected["file"] in text
                assert rejected["reason"]


@pytest.fixture(scope="module")
def figures(demo):
    """Figures of merit by name."""
    return {figure.name: figure for figure in measure_campaign(demo.roots)}


@pytest.mark.parametrize("name", FIGURES)
def test_no_figure_is_worse_than_its_bound(figures, name):
    figure = figures[name]
    assert figure.holds, f"{figure.name}: {figure.value:.4g} {figure.unit}, {figure.goal_text} ({figure.detail})"


def test_every_figure_with_a_bound_is_looked_at(figures):
    assert {name for name, figure in figures.items() if figure.holds is not None} == set(FIGURES)


def test_running_again_makes_nothing_again(demo):
    before = {path: path.stat().st_mtime_ns for path in [*reduced(demo), *stacks(demo)]}
    again = run("flows.reduce_year", "2023", "--root", str(demo.roots.data), home=demo.home)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_dry_run_writes_nothing(demo, tmp_path):
    answer = run(
        "flows.reduce_year", "2023", "--dry-run", "--root", str(tmp_path / "new"), "--raw-root", str(demo.roots.raw),
        home=demo.home,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "a master flat" in answer.stdout
    assert not (tmp_path / "new" / "2023").exists()
    answer = run("flows.stack_target", "m51", "--dry-run", "--root", str(demo.roots.data), home=demo.home)
    assert answer.returncode == 0, answer.stderr
    assert re.search(r"r\s+\d+ of 2019", answer.stdout)
