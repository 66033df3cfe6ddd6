"""The tile-compressed copy: what it keeps exactly, what it loses and says so, and that a release with it is checked."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.votable import parse_single_table

from models.base import FileRef, Roots
from models.release import Release, ReleaseCompressed
from models.report import StackRow
from models.settings import ReleaseSettings, Settings
from models.target import Target
from models.telescope import load_telescope
from tasks.archive import complete_release, compress_image, copy_of, verify_copy, write_sky
from tasks.core.errors import StageError
from tasks.core.files import ref
from tasks.core.fitsio import write_fits
from tasks.pages import write_group_page
from tasks.report import stack_rows, write_release
from tests.report.markdown import tables
from tests.sourcelists.sky import place, stars

TELESCOPE = load_telescope("T120")


def reference(roots: Roots, path: str) -> FileRef:
    return ref(roots.data / path, roots)


def compressed(roots: Roots, name: str, weight: str | None = None, level: float = 4.0) -> Path:
    source = reference(roots, f"stacks/X/T120/{name}")
    over = None if weight is None else reference(roots, f"stacks/X/T120/{weight}")
    made = compress_image(source, over, copy_of(source.path), roots, ReleaseSettings(quantize_level=level))
    assert made.file.path == f"compressed/X/T120/{name}.fz"
    return roots.of(made.file)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """Two stacks, weights and PSFs, the weights of ugly numbers; a release with a compressed copy."""
    roots = place(tmp_path_factory.mktemp("compressed"), *stars(np.random.default_rng(5), 8)).roots
    folder = roots.data / "stacks" / "X" / "T120"
    for filter in ("r", "R"):
        path = folder / f"X_{filter}.weight.fits"
        weight, header = fits.getdata(path, header=True)
        weight = weight * np.random.default_rng(1).uniform(0.5, 1.0, weight.shape).astype(np.float32)
        image, head = fits.getdata(folder / f"X_{filter}.fits", header=True)
        write_fits(path, [fits.PrimaryHDU(weight.astype(np.float32), header)])
        write_fits(
            folder / f"X_{filter}.fits", [fits.PrimaryHDU(np.where(weight > 0, image, 0).astype(np.float32), head)]
        )
        compressed(roots, f"X_{filter}.fits", f"X_{filter}.weight.fits")
        compressed(roots, f"X_{filter}.weight.fits")
        compressed(roots, f"X_{filter}_psf.fits")
    rows = [
        StackRow(group="X", filter=filter, file=f"stacks/X/T120/X_{filter}.fits", n_combined=5, n_rejected=0,
                 rejected=(), combine="WEIGHTED", fwhm_arcsec=2.6, depth_5sigma=None, status="OK", reason="")
        for filter in ("r", "R")
    ]  # fmt: skip
    stack_rows(roots, TELESCOPE, "X", {"stack_all_report": rows})
    finish(roots)
    return roots


def finish(roots: Roots) -> None:
    write_sky(roots, TELESCOPE)
    write_release(roots, TELESCOPE, {})
    complete_release(roots, TELESCOPE, Settings(data_root=roots.data))


def pair(roots: Roots, name: str) -> tuple[np.ndarray, np.ndarray, fits.Header]:
    before = fits.getdata(roots.data / "stacks/X/T120" / name)
    after, header = fits.getdata(roots.data / "compressed/X/T120" / f"{name}.fz", header=True)
    return before, after, header


@pytest.mark.parametrize("name", ["X_r.weight.fits", "X_R.weight.fits", "X_r_psf.fits"])
def test_weights_and_psfs_lose_nothing(made: Roots, name: str) -> None:
    before, after, header = pair(made, name)
    assert np.array_equal(before, after)
    assert header["LOSSLESS"] is True
    assert "LOSSRMS" not in header
    if name == "X_R.weight.fits":
        assert (after[:60, :60] == 0).all()


def test_an_image_loses_what_its_header_says(made: Roots) -> None:
    before, after, header = pair(made, "X_R.fits")
    inside = fits.getdata(made.data / "stacks/X/T120/X_R.weight.fits") > 0
    difference = (after.astype(float) - before)[inside]
    assert (after[~inside] == 0).all()
    noise = 1.4826 * np.median(np.abs(before[inside] - np.median(before[inside])))
    assert header["LOSSNOIS"] == pytest.approx(noise, rel=0.1)
    assert header["LOSSRMS"] == pytest.approx(difference.std() / header["LOSSNOIS"], rel=0.01)
    assert 0.01 < header["LOSSRMS"] < 1 / (4 * np.sqrt(12)) * 1.2
    assert header["LOSSMAX"] == pytest.approx(np.abs(difference).max() / header["LOSSNOIS"], rel=0.01)
    # Dither: what is lost has no preferred sign.
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(difference.size)
    assert header["LOSSNSTR"] > 30
    assert 0 < header["LOSSFLUX"] < 0.1
    assert 0 < header["LOSSMAG"] < 0.01
    path = made.data / "compressed/X/T120/X_R.fits.fz"
    assert path.stat().st_size < 0.35 * (made.data / "stacks/X/T120/X_R.fits").stat().st_size
    own = fits.getheader(made.data / "stacks/X/T120/X_R.fits")
    assert {key: header[key] for key in ("CRVAL1", "FILTER", "INVVAR")} == {
        key: own[key] for key in ("CRVAL1", "FILTER", "INVVAR")
    }


def test_finer_steps_lose_less(made: Roots, tmp_path: Path) -> None:
    shutil.copytree(made.data / "stacks", tmp_path / "stacks")
    roots = Roots(data=tmp_path, raw=tmp_path / "raw")
    path = compressed(roots, "X_R.fits", "X_R.weight.fits", level=32.0)
    coarse = pair(made, "X_R.fits")[2]
    fine = fits.getheader(path, 1)
    assert fine["LOSSRMS"] == pytest.approx(coarse["LOSSRMS"] / 8, rel=0.1)
    assert fine["LOSSFLUX"] < coarse["LOSSFLUX"] / 3


def test_the_same_bytes_whenever_it_is_made(made: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in (made.data / "compressed").rglob("*.fz")}
    assert len(before) == 6
    monkeypatch.setattr("time.time", lambda: 2e9)  # gzip notes the time
    compressed(made, "X_R.fits", "X_R.weight.fits")
    compressed(made, "X_R.weight.fits")
    assert {path: path.read_bytes() for path in before} == before


def test_counts_and_pixels_without_a_value(tmp_path: Path) -> None:
    roots = Roots(data=tmp_path, raw=tmp_path / "raw")
    rng = np.random.default_rng(2)
    counts = rng.integers(0, 9, (50, 70)).astype(np.int16)
    image = rng.normal(0, 5, counts.shape).astype(np.float32)
    image[3:5, 7:20] = np.nan
    folder = tmp_path / "stacks/X/T120"
    for name, data in (("n.fits", counts), ("i.fits", image), ("w.fits", np.ones_like(image))):
        write_fits(folder / name, [fits.PrimaryHDU(data)])
    back = fits.getdata(compressed(roots, "n.fits"), 1)
    assert back.dtype.kind == "i"
    assert np.array_equal(back, counts)
    copy = fits.getdata(compressed(roots, "i.fits", "w.fits"), 1)
    assert np.array_equal(np.isnan(copy), np.isnan(image))


def test_what_cannot_be_read_says_so(tmp_path: Path) -> None:
    roots = Roots(data=tmp_path, raw=tmp_path / "raw")
    (tmp_path / "stacks/X/T120").mkdir(parents=True)
    (tmp_path / "stacks/X/T120/n.fits").write_bytes(b"no FITS")
    with pytest.raises(StageError, match="cannot be read"):
        compressed(roots, "n.fits")


@pytest.mark.skipif(shutil.which("funpack") is None, reason="funpack is not installed: Debian package libcfitsio-bin")
def test_funpack_gives_the_same_pixels(made: Roots, tmp_path: Path) -> None:
    for name in ("X_R.fits", "X_R.weight.fits"):
        path = made.data / "compressed/X/T120" / f"{name}.fz"
        subprocess.run(["funpack", "-O", str(tmp_path / name), str(path)], check=True, capture_output=True)
        assert np.array_equal(fits.getdata(tmp_path / name), fits.getdata(path, 1))


@pytest.mark.skipif(shutil.which("fitsverify") is None, reason="fitsverify is not installed: Debian package fitsverify")
def test_fitsverify_finds_nothing(made: Roots) -> None:
    files = sorted(str(path) for path in (made.data / "compressed").rglob("*.fz"))
    done = subprocess.run(["fitsverify", "-q", *files], capture_output=True, text=True, check=False)
    assert done.stdout.count("verification OK") == len(files), done.stdout


def test_the_release_lists_and_tells_it(made: Roots) -> None:
    release = Release.model_validate_json((made.data / "stacks/release.json").read_bytes())
    assert release.provenance is not None
    copies = {each.path for each in release.provenance.products if each.kind == "compressed copy"}
    assert copies == {path.relative_to(made.data).as_posix() for path in (made.data / "compressed").rglob("*.fz")}
    lossy = [row for row in release.compressed if not row.lossless]
    headers = {row.file: fits.getheader(made.data / row.file, 1) for row in lossy}
    assert {row.file: row.loss_rms for row in lossy} == {file: head["LOSSRMS"] for file, head in headers.items()}
    text = (made.data / "stacks/release.md").read_text()
    [row] = tables(text)["Compressed copy"]
    assert (row["Target"], row["Images quantised"], row["Others"]) == ("X", "2", "4")
    told = next(value for key, value in row.items() if key.startswith("Rms change over"))
    assert float(told) == pytest.approx(max(head["LOSSRMS"] for head in headers.values()), abs=6e-5)
    size = sum(path.stat().st_size for path in (made.data / "compressed").rglob("*.fz"))
    assert float(row["Size (MB)"]) == pytest.approx(size / 1e6, abs=0.06)
    files = {each["Files"]: each["Number, size"] for each in tables(text)["File Locations"]}
    assert files["compressed/{group}/T120/*.fits.fz"].startswith("6 files")
    assert re.match("1 file,", files["stacks/obscore.vot"])
    assert files["stacks/T120_*moc.fits, stacks/{group}/T120/{group}_moc.fits"].startswith("4 files")


def test_obscore_has_a_row_of_each_image_s_copy(made: Roots) -> None:
    table = parse_single_table(made.data / "stacks/obscore.vot").to_table()
    assert sorted(table["obs_id"]) == ["X_R", "X_R", "X_r", "X_r"]
    assert len(set(table["obs_publisher_did"])) == 4
    for row in table:
        path = (made.data / "stacks" / row["access_url"]).resolve()
        assert row["access_estsize"] == path.stat().st_size // 1000
        # RFC 4047: image/fits has its image in the primary array, for readers that know nothing else.
        shape = fits.getdata(path, 0 if row["access_format"] == "image/fits" else 1).shape
        assert shape == (row["s_xel2"], row["s_xel1"])
        assert (row["access_format"] == "application/fits") == path.name.endswith(".fz")


def test_obscore_without_a_copy_s_row_is_found(made: Roots, tmp_path: Path) -> None:
    for folder in ("stacks", "compressed"):
        shutil.copytree(made.data / folder, tmp_path / folder)
    path = tmp_path / "stacks/obscore.vot"
    path.write_text(path.read_text().replace("../compressed/X/T120/X_r.fits.fz", "../compressed/X/T120/X_i.fits.fz"))
    relisted(tmp_path)
    assert [finding.cause for finding in verify_copy(tmp_path).findings] == [
        "names compressed/X/T120/X_i.fits.fz, which is not of the release",
        "has no row for compressed/X/T120/X_r.fits.fz",
    ]


def test_the_group_s_page_links_to_the_copies(made: Roots, tmp_path: Path) -> None:
    for folder in ("stacks", "compressed"):
        shutil.copytree(made.data / folder, tmp_path / folder)
    roots = Roots(data=tmp_path, raw=tmp_path / "raw")
    page = write_group_page(Target(name="X", ra=150.0, dec=30.0), [], [], [], [], roots, TELESCOPE)
    rows = re.findall(r'<a href="([^"]+)" aria-label="X_([^"]+)[.]fz, compressed">([0-9.]+)</a>', page.read_text())
    assert len(rows) == 6
    for link, name, size in rows:
        path = page.parent / link
        assert path.name == f"X_{name}.fz"
        assert float(size) == pytest.approx(path.stat().st_size / 1e6, abs=0.006)
        assert f"{hashlib.sha256(path.read_bytes()).hexdigest()} (compressed)" in page.read_text()
    losses = [fits.getheader(path, 1)["LOSSRMS"] for path in page.parent.glob("../../../compressed/X/T120/X_?.fits.fz")]
    assert f"at most {max(losses):.3f} of their noise" in page.read_text()
    shutil.rmtree(tmp_path / "compressed")
    write_group_page(Target(name="X", ra=150.0, dec=30.0), [], [], [], [], roots, TELESCOPE)
    assert "compressed" not in page.read_text()


def test_without_one_the_release_says_so(made: Roots, tmp_path: Path) -> None:
    shutil.copytree(made.data / "stacks", tmp_path / "stacks")
    finish(Roots(data=tmp_path, raw=tmp_path / "raw"))
    text = (tmp_path / "stacks/release.md").read_text()
    assert "None was made; `python -m flows.build_release --compressed` makes one." in text
    assert tables(text)["Compressed copy"][0]["Target"] == "none"


def test_a_copy_of_an_earlier_image_is_not_of_the_release(made: Roots, tmp_path: Path) -> None:
    shutil.copytree(made.data, tmp_path / "copy")
    roots = Roots(data=tmp_path / "copy", raw=tmp_path / "raw")
    fits.setval(roots.data / "stacks/X/T120/X_r.fits", "OBJECT", value="X", comment="changed")
    finish(roots)
    release = Release.model_validate_json((roots.data / "stacks/release.json").read_bytes())
    listed = {row.file for row in release.compressed}
    assert isinstance(release.compressed[0], ReleaseCompressed)
    assert "compressed/X/T120/X_R.fits.fz" in listed
    assert "compressed/X/T120/X_r.fits.fz" not in listed


def relisted(copy: Path) -> None:
    for index in copy.glob("*/release.json"):
        told = json.loads(index.read_bytes())
        for product in told["provenance"]["products"]:
            content = (copy / product["path"]).read_bytes()
            product |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        index.write_text(json.dumps(told))


def changed(path: Path, change: object) -> None:
    """The copy written anew: sound and complete, but of other pixels or with other words."""
    with fits.open(path, memmap=False) as hdus:
        data, header = np.asarray(hdus[1].data).copy(), hdus[1].header.copy()
    for key in ("CHECKSUM", "DATASUM"):
        header.remove(key, ignore_missing=True)
    data, header = change(data, header)  # type: ignore[operator]
    image = fits.CompImageHDU(data, header, name="IMAGE", compression_type="GZIP_2", quantize_level=0.0)
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path, overwrite=True, checksum=True)


def noisier(data: np.ndarray, header: fits.Header) -> tuple[np.ndarray, fits.Header]:
    return np.where(data == 0, 0, data + np.random.default_rng(0).normal(0, 20, data.shape)).astype("f4"), header


def one_pixel(data: np.ndarray, header: fits.Header) -> tuple[np.ndarray, fits.Header]:
    data[100, 100] *= 1.001
    return data, header


def shifted(data: np.ndarray, header: fits.Header) -> tuple[np.ndarray, fits.Header]:
    header["CRPIX1"] += 1
    return data, header


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("X_R.fits.fz", noisier, "LOSSRMS says"),
        ("X_R.weight.fits.fz", one_pixel, "says that it loses nothing, but differs"),
        ("X_R.fits.fz", shifted, "not on the grid"),
    ],
)
def test_a_copy_that_does_not_give_its_image_back_is_found(
    made: Roots, tmp_path: Path, name: str, change: object, said: str
) -> None:
    for folder in ("stacks", "compressed"):
        shutil.copytree(made.data / folder, tmp_path / folder)
    assert verify_copy(tmp_path).findings == ()
    changed(tmp_path / "compressed/X/T120" / name, change)
    relisted(tmp_path)
    findings = verify_copy(tmp_path).findings
    assert [finding.file for finding in findings if said in finding.cause] == [f"compressed/X/T120/{name}"], findings


def test_the_compressed_part_can_be_checked_alone(made: Roots, tmp_path: Path) -> None:
    shutil.copytree(made.data / "compressed", tmp_path / "compressed")
    for path in (tmp_path, tmp_path / "compressed"):
        checked = verify_copy(path)
        assert (checked.findings, checked.n_files, checked.n_fits) == ((), 6, 6)
        assert checked.not_here == ("stacks",)
    content = bytearray((tmp_path / "compressed/X/T120/X_r.fits.fz").read_bytes())
    content[-3000] ^= 1
    (tmp_path / "compressed/X/T120/X_r.fits.fz").write_bytes(content)
    [finding] = verify_copy(tmp_path).findings
    assert "SHA-256" in finding.cause
