"""The data release document, rendered from the demo's products and read back: its numbers are those of the products.

What is compared is read here from the FITS files and reports themselves, not through the code that wrote the document.
"""

from __future__ import annotations

import json
import os
import re
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from models.base import Roots
from models.target import load_targets
from models.telescope import load_telescope
from tasks.core.errors import StageError
from tasks.report import write_release
from tests.report.markdown import Row, tables

pytestmark = pytest.mark.demo

T120 = load_telescope("T120")
KINDS = {"Stacked images": "M*_?.fits", "Weight maps": "*.weight.fits", "PSF models": "M*_psf.fits"}


def link(demo, root: Path) -> Roots:
    """A data root of the tests' own, whose products are links to the demo's."""
    for year in demo.roots.data.glob("[0-9]*"):
        (root / year.name).mkdir()
        (root / year.name / "T120").symlink_to(year / "T120")
    (root / "stacks").mkdir()
    for path in (demo.roots.data / "stacks").iterdir():
        if not path.name.startswith("release"):
            (root / "stacks" / path.name).symlink_to(path)
    return Roots(data=root, raw=demo.roots.raw)


@pytest.fixture(scope="module")
def text(demo, tmp_path_factory) -> str:
    roots = link(demo, tmp_path_factory.mktemp("release"))
    page, *_ = write_release(roots, T120, load_targets())
    return (roots.data / page).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def document(text) -> dict[str, list[Row]]:
    return tables(text)


def headers(demo, pattern: str) -> dict[Path, fits.Header]:
    found = {
        path: fits.getheader(path)
        for path in sorted((demo.roots.data / "stacks").glob(f"*/T120/{pattern}"))
        if path.stem.split("_")[-1] not in ("ext", "ncov", "nrej", "cat", "moc")
    }
    assert found
    return found


def images(demo) -> dict[Path, fits.Header]:
    every = headers(demo, "M*_*.fits")
    return {path: header for path, header in every.items() if re.fullmatch(r"M\d+_[A-Za-z]+\.fits", path.name)
            and not path.name.endswith("_psf.fits")}  # fmt: skip


def rows(demo, name: str) -> list[dict[str, Any]]:
    """Rows of a report of all groups, or of all years."""
    files = [demo.roots.data / "stacks" / f"{name}.json"]
    if not files[0].is_file():
        files = sorted(demo.roots.data.glob(f"[0-9]*/T120/*/{name}.json"))
    return [row for file in files for row in json.loads(file.read_text())["rows"]]


def numbers(text: str) -> list[float]:
    return [float(each) for each in re.findall(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?", text)]


def values(found: Iterable[Row], key: str, value: str) -> dict[str, str]:
    return {each[key]: each[value] for each in found if key in each}


def products(demo, heading: str) -> list[fits.Header]:
    found = images(demo) if heading == "Stacked images" else headers(demo, KINDS[heading])
    return list(found.values())


@pytest.mark.parametrize("heading", KINDS)
def test_every_keyword_says_what_the_headers_say(heading, demo, document):
    told = {each["Keyword"]: each for each in document[heading] if "Keyword" in each}
    found = products(demo, heading)
    seen = {re.sub(r"^(INP|ZPT)\d{4}$", r"\1nnnn", keyword) for header in found for keyword in header}
    assert set(told) == seen - {"SIMPLE", "BITPIX", "NAXIS", "EXTEND", "CHECKSUM", "DATASUM"}
    for keyword, row in told.items():
        value = re.sub(r" \(\d+ of \d+ files\)$", "", row["Value"])
        if keyword.endswith("nnnn"):
            counts = [len(header[f"{keyword[:3]}*"]) for header in found if header[f"{keyword[:3]}*"]]
            assert set(numbers(value)) == {min(counts), max(counts)}
            continue
        have = [header[keyword] for header in found if keyword in header]
        if len(have) < len(found):
            assert row["Value"].endswith(f"({len(have)} of {len(found)} files)"), keyword
        numeric = [each for each in have if isinstance(each, int | float) and not isinstance(each, bool)]
        if len(numeric) == len(have):
            low, high = (numbers(value)[0], numbers(value)[-1])
            assert low == pytest.approx(min(have), rel=1e-6, abs=1e-12), keyword
            assert high == pytest.approx(max(have), rel=1e-6, abs=1e-12), keyword
        elif len(set(have)) > 4:
            assert value == f"{len(set(have))} different"
        else:
            for each in set(have):
                shown = {True: "T", False: "F"}.get(each, str(each))
                assert value == shown if len(set(have)) == 1 else f"{shown} ({have.count(each)})" in value, keyword
        comments = {header.comments[keyword] for header in found if keyword in header} - {""}
        assert not comments or row["Description"] in comments


def test_the_psfs_are_their_files(demo, document):
    told = values(document["PSF models"], "Property", "Value")
    found = headers(demo, KINDS["PSF models"])
    pixels = [fits.getdata(path) for path in found]
    assert told["Array size"] == "{} x {} pixels".format(*pixels[0].shape)
    low, high = (f([float(image.sum(dtype=float)) for image in pixels]) for f in (min, max))
    assert numbers(told["Normalisation"])[0] == pytest.approx(low, abs=1e-6)
    assert numbers(told["Normalisation"])[-1] == pytest.approx(high, abs=1e-6)
    for name, keyword, digits in (
        ("Pixel scale", "PIXSCALE", 3), ("Median FWHM across stacks", "FWHM_AS", 2),
        ("Median EE50 radius", "EE50_AS", 2),
        ("Median EE80 radius", "EE80_AS", 2),
        ("Median ellipticity", "ELLIPT", 3), ("Stars of a model", "NSTARS", 0),
    ):  # fmt: skip
        have = [header[keyword] for header in found.values()]
        said = numbers(told[name])
        assert said[0] == pytest.approx(statistics.median(have), abs=0.6 * 10**-digits), name
        if "range" in told[name]:
            assert said[1:3] == [round(min(have), digits), round(max(have), digits)], name
        assert told[name].endswith(f"{len(have)} of {len(have)} PSF images)")
    mean = fits.getheader(demo.roots.data / "stacks" / "T120_mean_psf.fits")
    assert (
        f"of {mean['NCOMBINE']} frames' PSFs, FWHM {mean['FWHM_AS']:.2f} arcsec" in told["Mean PSF, T120_mean_psf.fits"]
    )


def test_the_stacks_are_their_headers(demo, document):
    told = {(each["Target"], each["Filter"]): each for each in document["Stacks"]}
    made = images(demo)
    assert set(told) == {(header["OBJECT"], header["FILTER"]) for header in made.values()}
    for header in made.values():
        row = told[header["OBJECT"], header["FILTER"]]
        for name, keyword, digits in (
            ("N frames", "NCOMBINE", 0), ("Exposure (s)", "EXPTOTAL", 0), ("FWHM (arcsec)", "FWHM_AS", 2),
            ("Depth, 5 sigma (mag)", "DEPTH5S", 2), ("ZP offset (mag)", "PHOTOFF", 3), ("RMS (mag)", "PHOTRMS", 3),
        ):  # fmt: skip
            if keyword in header:
                assert float(row[name]) == pytest.approx(header[keyword], abs=0.51 * 10**-digits), (row, name)
            else:
                assert row[name] == "unknown"


def test_the_summary_counts_what_is_there(demo, document):
    said = values(document["Data Summary"], "Property", "Value")
    made = list(images(demo).values())
    narrow = sum(header["FILTER"] in ("Ha", "OIII", "SII") for header in made)
    assert said["Number of stacks"] == f"{len(made)} ({len(made) - narrow} broadband + {narrow} narrowband)"
    assert said["Number of target groups"] == str(len({header["OBJECT"] for header in made}))
    reduced = list(demo.roots.data.glob("[0-9]*/T120/reduced/*/*.fits"))
    used = sum(header["NCOMBINE"] for header in made)
    assert said["Total input frames"].startswith(f"{used} (from {len(reduced)} reduced of ")
    assert said["Total exposure time"] == f"{sum(header['EXPTOTAL'] for header in made):.0f} s"
    assert said["Exposures combined"] == (
        f"{min(header['DATE-OBS'] for header in made)} to {max(header['DATE-END'] for header in made)} UTC"
    )
    by_filter = {each["Filter"]: int(each["N stacks"]) for each in document["Filter Inventory"]}
    assert by_filter == {name: sum(header["FILTER"] == name for header in made) for name in by_filter}
    for each in document["Full target list"]:
        mine = [header for header in made if header["OBJECT"] == each["Target"]]
        assert int(each["N frames"]) == sum(header["NCOMBINE"] for header in mine)
        assert set(each["Filters"].split(", ")) == {header["FILTER"] for header in mine}


def test_quality_depth_and_seeing_are_those_of_the_headers(demo, document):
    made = list(images(demo).values())

    def have(keyword: str, filters: str = "B V R g r i z y") -> list[float]:
        return [header[keyword] for header in made if keyword in header and header["FILTER"] in filters.split()]

    every = "B V R g r i Ha OIII SII"
    wanted = {
        "Median ZP offset": (statistics.median(have("PHOTOFF")), 3),
        "Standard deviation of offsets": (statistics.stdev(have("PHOTOFF")), 3),
        "Median internal RMS": (statistics.median(have("PHOTRMS")), 3),
        "Median internal RMS in g, i, r": (statistics.median(have("PHOTRMS", "g r i")), 3),
        "Stacks validated": (sum(have("PHOTCHK")), 0),
        "Median RMS by the method of the 2018–2025 release": (
            statistics.median(row["release_rms"] for row in rows(demo, "phot_check_report") if row["release_rms"]), 3,
        ),
        "Median stack FWHM": (statistics.median(have("FWHM_AS", every)), 2),
        "Best seeing": (min(have("FWHM_AS", every)), 2),
        "Worst seeing": (max(have("FWHM_AS", every)), 2),
        "Median 5 sigma depth": (statistics.median(have("DEPTH5S", every)), 2),
        "Deepest": (max(have("DEPTH5S", every)), 2),
        "Shallowest": (min(have("DEPTH5S", every)), 2),
        "Median surface brightness limit, 1 sigma in 1 arcsec²": (statistics.median(have("SBLIM1", every)), 2),
        "Plate solutions OK": (sum(row["status"] == "OK" for row in rows(demo, "astrom_report")), 0),
        "Median rms of the plate solutions": (
            statistics.median(row["rms_arcsec"] for row in rows(demo, "astrom_report") if row["rms_arcsec"]), 3,
        ),
        "Frames with a zero point": (sum(row["status"] == "OK" for row in rows(demo, "phot_report")), 0),
        "Median error of a frame's zero point": (
            statistics.median(row["zp_err"] for row in rows(demo, "phot_report") if row["zp_err"]), 4,
        ),
        "Median FWHM of the frames' PSFs": (
            statistics.median(row["fwhm_arcsec"] for row in rows(demo, "psf_report") if row["fwhm_arcsec"]), 2,
        ),
        "Frames left out of their group's stack": (
            sum(len(row["rejected"]) for row in rows(demo, "stack_all_report")), 0,
        ),
    }  # fmt: skip
    said: dict[str, str] = {}
    for heading in ("Photometric calibration", "Astrometric calibration", "Frames", "Seeing", "Depth"):
        said |= values(document[heading], "Metric", "Value")
    for name, (value, digits) in wanted.items():
        assert numbers(said[name])[0] == pytest.approx(value, abs=0.51 * 10**-digits), name
    not_read = set(said) - set(wanted)
    assert not_read == {"Plate solutions HIGH_RMS", "Frames reduced", "Frames that wait for a catalogue",
                        "The same of g and r stacks of more than 10 frames"}  # fmt: skip
    assert said["The same of g and r stacks of more than 10 frames"].startswith("unknown: none of 0")


def test_stages_years_and_frames_are_those_of_the_reports(demo, document):
    stages = values(document["Processing Summary"], "Stage", "In this release")
    biases = [fits.getheader(path) for path in demo.roots.data.glob("[0-9]*/T120/master_bias/*.fits")]
    flats = [fits.getheader(path) for path in demo.roots.data.glob("[0-9]*/T120/master_flat/*.fits")]
    for name, made in (("Master biases: frames in each", biases), ("Master flats: frames in each", flats)):
        have = [header["NCOMBINE"] for header in made]
        assert numbers(stages[name])[0] == statistics.median(have)
        assert f"{len(have)} of {len(have)} masters" in stages[name]
    points = rows(demo, "phot_report")
    for status in {row["status"] for row in points}:
        assert f"{status} {sum(row['status'] == status for row in points)}" in stages["Zero points"]
    for name, keyword, digits in (
        ("Frames of a stack", "NCOMBINE", 0), ("Background mesh of a stack", "BACKSIZE", 0),
        ("Last step to PS1 (PHOTTIE)", "PHOTTIE", 4), ("Star light restored (LIGHTCOR)", "LIGHTCOR", 4),
        ("True inverse variance over the weight map (INVVAR)", "INVVAR", 2),
    ):  # fmt: skip
        have = [header[keyword] for header in images(demo).values() if keyword in header]
        assert numbers(stages[name])[0] == pytest.approx(statistics.median(have), abs=0.6 * 10**-digits), name
    for year in document["Years"]:
        folder = demo.roots.data / year["Year"] / "T120"
        assert int(year["Reduced"]) == len(list(folder.glob("reduced/*/*.fits")))
        assert int(year["PSF models"]) == len(list(folder.glob("psf/*/*.psf")))
        assert int(year["Nights"]) == len(list((folder / "reduced").iterdir()))
        widths = [row["fwhm_arcsec"] for row in json.loads((folder / "psf/psf_report.json").read_text())["rows"]]
        assert float(year["Median FWHM (arcsec)"]) == pytest.approx(np.median(widths), abs=0.0051)
        combined = [header["NCOMBINE"] for header in map(fits.getheader, folder.glob("master_flat/*.fits"))]
        assert year["Flats (masters)"] == f"{sum(combined)} ({len(combined)})"
    assert [int(each["Year"]) for each in document["Years"]] == [2019, 2023, 2025]
    told = values(document["Per-frame PSF models"], "Field", "Median, range")
    psfs = rows(demo, "psf_report")
    for key, digits in (("fwhm_px", 2), ("fwhm_arcsec", 2), ("ellipticity", 3), ("chi2", 2), ("n_stars_accepted", 0)):
        have = [row[key] for row in psfs if row[key] is not None]
        said = numbers(told[key])[:3]
        for value, wanted in zip(said, (statistics.median(have), min(have), max(have)), strict=True):
            assert value == pytest.approx(wanted, abs=0.6 * 10**-digits), key
    left_out = sum(int(each["Frames"]) for each in document["Frames left out"])
    assert left_out == sum(len(row["rejected"]) for row in rows(demo, "stack_all_report"))


def test_the_files_are_counted_and_weighed(demo, document):
    told = values(document["File Locations"], "Files", "Number, size")
    patterns = {
        "stacks/{group}/T120/{group}_{filter}.weight.fits": "stacks/*/T120/*.weight.fits",
        "stacks/{group}/T120/{group}_{filter}_psf.fits": "stacks/*/T120/*_psf.fits",
        "stacks/{group}/T120/{group}_{filter}_ext.fits": "stacks/*/T120/*_ext.fits",
        "stacks/{group}/T120/{group}_cat.fits": "stacks/*/T120/*_cat.fits",
        "stacks/{group}/T120/{group}_cat.parquet": "stacks/*/T120/*_cat.parquet",
        "stacks/{group}/T120/plots/": "stacks/*/T120/plots/*",
        "{year}/T120/reduced/{night}/*.fits": "[0-9]*/T120/reduced/*/*.fits",
        "{year}/T120/reduced/{night}/*.head": "[0-9]*/T120/reduced/*/*.head",
        "{year}/T120/psf/{night}/*.psf": "[0-9]*/T120/psf/*/*.psf",
        "{year}/T120/master_flat/*.fits": "[0-9]*/T120/master_flat/*.fits",
        "{year}/T120/master_bias/*.fits": "[0-9]*/T120/master_bias/*.fits",
    }
    for name, pattern in patterns.items():
        sizes = [path.stat().st_size for path in demo.roots.data.glob(pattern)]
        assert numbers(told[name]) == [len(sizes), round(sum(sizes) / 1e6, 1)], name
    assert told["stacks/T120_mean_psf.fits"].startswith("1 file,")


def test_the_source_lists_are_their_tables(demo, document):
    files = sorted((demo.roots.data / "stacks").glob("*/T120/*_cat.fits"))
    told = {each["Target"]: each for each in document["Source lists"]}
    if not files:
        assert list(told) == ["none"]
        pytest.skip("this demo was made before there were source lists: the document says there is none")
    assert len(told) == len(files)
    for file in files:
        with fits.open(file) as hdus:
            row, sources = told[hdus[0].header["OBJECT"]], hdus["SOURCES"].data
            assert row["Bands"] == hdus[0].header["FILTERS"]
            assert int(row["Sources"]) == len(sources) > 0
            assert int(row["Known to Gaia"]) == (sources["GAIA_ID"] != 0).sum()
            assert int(row["Known to PS1"]) == (sources["PS1_ID"] != 0).sum()
            assert int(row["In crowded parts"]) == ((sources["FLAGS"] & 16) != 0).sum()


def test_limitations_name_the_stacks_they_are_true_of(demo, text):
    text = re.search(r"### Known limitations\n(.*?)\n## ", text, re.DOTALL)[1]
    made = images(demo).values()
    bent = [f"{header['OBJECT']} {header['FILTER']} {header['PHOTLIN']:+.3f}" for header in made
            if header.get("PHOTLINF") is True]  # fmt: skip
    assert f"(PHOTLIN, {len(bent)})" in text if bent else "PHOTLIN" not in text
    assert all(each in text for each in bent)
    worst = max((header for header in made if "PHOTOFF" in header), key=lambda header: abs(header["PHOTOFF"]))
    assert f"{worst['OBJECT']} {worst['FILTER']}, {worst['PHOTOFF']:+.3f} mag" in text
    assert f"restored in {sum('LIGHTCOR' in header for header in made)} of {len(made)} stacks" in text


@pytest.mark.shared
def test_every_table_of_the_typed_document_has_its_counterpart(shared, document):
    typed = tables((shared / "reference" / "data_release.md").read_text(encoding="utf-8"))
    assert len(typed) == 9
    for heading, old in typed.items():
        new = document[heading]
        columns = [tuple(each) for each in new]
        for names in {tuple(each) for each in old}:
            assert any(each[0] == names[0] for each in columns), f"{heading}: {names}"
    keywords = {each["Keyword"] for each in document["Stacked images"]}
    for each in typed["Stacked images"]:
        wanted = each["Keyword"].replace("`", "")
        for name in {"INP0001--INPnnnn": ["INPnnnn"], "CD1_1 ... CD2_2": ["CD1_1", "CD1_2", "CD2_1", "CD2_2"]}.get(
            wanted, [wanted] if "/" not in wanted else [wanted[:-2], f"{wanted[:-3]}2"]
        ):
            assert name in keywords, wanted
    psf = {each.get("Keyword") for each in document["PSF models"]}
    assert {each["Keyword"].strip("`") for each in typed["PSF models"] if "Keyword" in each} <= psf
    properties = {each.get("Property") for each in document["PSF models"]}
    assert {each["Property"] for each in typed["PSF models"] if "Property" in each} <= properties
    fields = {each["Field"].strip("`") for each in typed["Per-frame PSF models"]}
    assert fields == {each["Field"] for each in document["Per-frame PSF models"]}


def test_a_years_masters_that_cannot_be_read_are_named(demo, tmp_path):
    linked = link(demo, tmp_path)
    year = linked.data / "2019" / "T120"
    real = year.resolve()
    year.unlink()
    year.mkdir()
    for path in real.iterdir():
        os.symlink(path, year / path.name)
    (year / "masters.json").unlink()
    (year / "masters.json").write_text("[{}]")
    with pytest.raises(StageError, match=r"2019/T120/masters\.json cannot be read"):
        write_release(linked, T120, load_targets())
