"""The table of issue 3: what runs again after a complete run, row by row."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from models.base import Roots
from tasks.core.fitsio import quiet_fits
from tests.caching.site import GROUPS, NOTHING_RAN, Site

pytestmark = [pytest.mark.tools]

FRAME = "20230314 M67-0001g_60"
REDUCED = "2023/T120/reduced/20230314/M67-0001g_60.fits"


def delete(path: Path) -> None:
    path.unlink()


def flip(at: float | bytes) -> Callable[[Path], None]:
    """Flip one bit of a byte: at a fraction of the file's length, or 13 bytes after a text (in a card: its value)."""

    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        place = int(at * len(content)) if isinstance(at, float) else content.index(at) + 13
        content[place] ^= 1
        path.write_bytes(content)

    return damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def exchange(path: Path) -> None:
    """Another record of the same stage in its place, itself whole."""
    stage = path.name.rpartition("-")[0]
    other = next(other for other in path.parent.glob(f"{stage}-*") if other != path)
    path.write_bytes(other.read_bytes())


def test_nothing_changed(finished):
    assert finished.run().counts == NOTHING_RAN


def test_every_file_touched(site):
    later = time.time() + 3600
    for path in site.roots.data.rglob("*"):
        os.utime(path, (later, later))
    assert site.run().counts == NOTHING_RAN


def test_raw_tree_copied_to_another_path(site, tmp_path):
    raw = tmp_path / "archive" / "elsewhere"
    shutil.copytree(site.roots.raw, raw, copy_function=shutil.copy)
    shutil.rmtree(site.roots.raw)
    assert Site(Roots(data=site.roots.data, raw=raw)).run().counts == NOTHING_RAN


def test_whole_data_root_moved(site, tmp_path):
    moved = tmp_path / "a new disk"
    site.roots.data.rename(moved)
    assert Site(Roots(data=moved, raw=moved / "raw")).run().counts == NOTHING_RAN


TWICE_WRITTEN = {"reduce": 1, "publish": 1}
"""A reduced file has two makers: its pixels and its keywords."""

DAMAGES = {
    "master bias deleted": ("2023/T120/master_bias/*", delete, {"master-bias": 1}),
    "master bias, a pixel": ("2023/T120/master_bias/*", flip(0.5), {"master-bias": 1}),
    "master flat deleted": ("2023/T120/master_flat/*_g.fits", delete, {"master-flat": 1}),
    "master flat, a pixel": ("2023/T120/master_flat/*_g.fits", flip(0.3), {"master-flat": 1}),
    "reduced frame deleted": (REDUCED, delete, TWICE_WRITTEN),
    "reduced frame, a pixel": (REDUCED, flip(0.2), TWICE_WRITTEN),
    "reduced frame, its variance": (REDUCED, flip(0.99), TWICE_WRITTEN),
    "reduced frame cut in half": (REDUCED, cut, TWICE_WRITTEN),
    "reduced frame, a card of the camera": (REDUCED, flip(b"EXPTIME = "), TWICE_WRITTEN),
    "reduced frame, a zero point in its header": (REDUCED, flip(b"PHOTZP  = "), {"publish": 1}),
    "reduced frame, its plate solution in the header": (REDUCED, flip(b"CRVAL1  = "), {"publish": 1}),
    "reduced frame, its date": (REDUCED, flip(b"PROCDATE= "), {"publish": 1}),
    "reduced frame, its checksum": (REDUCED, flip(b"CHECKSUM= "), {"publish": 1}),
    "reduced frame, a byte that says nothing": (REDUCED, flip(b"END     "), {"publish": 1}),
    "list of sources deleted": (".cache/sources/2023/T120/*/M67-0001g_60.fits", delete, {"measure": 1}),
    "list of sources, a number": (".cache/sources/2023/T120/*/M67-0001g_60.fits", flip(0.7), {"measure": 1}),
    "plate solution, a byte": (".cache/wcs/2023/T120/*/M67-0001g_60.wcs.fits", flip(0.4), {"solve": 1}),
    ".psf deleted": ("2023/T120/psf/*/M67-0001g_60.psf", delete, {"model-psf": 1}),
    ".psf, a byte": ("2023/T120/psf/*/M67-0001g_60.psf", flip(0.8), {"model-psf": 1}),
    "SExtractor's catalogue, a byte": (".cache/ldac/2023/T120/*/M67-0001g_60.cat", flip(0.8), {"model-psf": 1}),
    ".head deleted": ("2023/T120/reduced/*/M67-0001g_60.head", delete, {"align-group": 1}),
    ".head, a byte": ("2023/T120/reduced/*/M67-0001g_60.head", flip(b"CRVAL1  = "), {"align-group": 1}),
    "combined image, a pixel": (".cache/stacks/M67/T120/M67_g.fits", flip(0.5), {"combine": 1}),
    "combined weight deleted": (".cache/stacks/M67/T120/M67_g.weight.fits", delete, {"combine": 1}),
    "stack deleted": ("stacks/M67/T120/M67_g.fits", delete, {"finish-stack": 1}),
    "stack, a pixel": ("stacks/M67/T120/M67_g.fits", flip(0.5), {"finish-stack": 1}),
    "stack's header, a card": ("stacks/M67/T120/M67_g.fits", flip(b"PHOTZP  = "), {"finish-stack": 1}),
    "weight map, a pixel": ("stacks/M67/T120/M67_g.weight.fits", flip(0.5), {"finish-stack": 1}),
    "stack's PSF, a pixel": ("stacks/M67/T120/M67_g_psf.fits", flip(0.9), {"psf-of-stack": 1}),
    "validation plot deleted": ("stacks/M67/T120/plots/M67_g_phot.png", delete, {"validation-plot": 1}),
    "validation plot, a byte": ("stacks/M67/T120/plots/M67_g_phot.png", flip(0.5), {"validation-plot": 1}),
    "picture, a byte": ("stacks/M67/T120/plots/M67_g.png", flip(0.5), {"picture-of-stack": 1}),
    "map of a group's sources deleted": (".cache/stacks/M67/T120/M67_sources.fits", delete, {"sources-of-group": 1}),
    "map on the page deleted": ("stacks/M67/T120/plots/M67_g_depth.svg", delete, {"maps-of-stack": 1}),
    "plot on the page, a byte": ("stacks/M67/T120/plots/M67_g_stars.svg", flip(0.5), {"plots-of-stack": 1}),
    "colour picture of the page, a byte": (
        "stacks/M67/T120/plots/M67_colour.webp",
        flip(0.5),
        {"pictures-of-group": 1},
    ),
    "timeline deleted": ("2023/T120/plots/night_20230314.svg", delete, {"timeline-of-night": 1}),
    "mean PSF deleted": ("stacks/T120_mean_psf.fits", delete, {"mean-psf": 1}),
    "record emptied": ("record of measure", empty, {"measure": 1}),
    "record cut": ("record of solve", cut, {"solve": 1}),
    "record, a byte": ("record of model-psf", flip(0.9), {"model-psf": 1}),
    "record, one digit": ("record of calibrate", flip(b'zp_err\\": 0'), {"calibrate": 1}),
    "record of another frame": ("record of measure", exchange, {"measure": 1}),
    "record deleted": ("record of validate", delete, {"validate": 1}),
}


ALWAYS = {
    "master flat deleted", "reduced frame, a pixel", ".head, a byte", "stack deleted", "validation plot deleted",
    "record, one digit", "map on the page deleted", "timeline deleted",
}  # fmt: skip
"""One of each kind; the others take minutes more and are in ``make test-long``."""


@pytest.mark.parametrize(
    "damage", [each if each in ALWAYS else pytest.param(each, marks=pytest.mark.slow) for each in DAMAGES]
)
def test_one_product_deleted_or_damaged(site, damage):
    """The task that makes it runs, and nothing follows: what it makes is what was there before."""
    assert set(DAMAGES) >= ALWAYS
    pattern, how, expected = DAMAGES[damage]
    path = site.record(pattern.split()[-1]) if pattern.startswith("record") else site.product(pattern)
    before = path.read_bytes()
    how(path)
    assert site.run(groups=GROUPS if pattern.startswith("record") else ("M67",)).counts == expected
    if path.suffix != ".fits" or "reduced" not in path.parts:  # a published frame tells when it was finished
        assert pattern.startswith("record") or path.read_bytes() == before
    assert site.run().counts == NOTHING_RAN


def test_many_products_gone_at_once(site):
    """All masters and all stacks: their makers run, and nothing else."""
    for pattern in ("2023/T120/master_*/*.fits", "stacks/*/T120/*_[gr].fits"):
        for path in site.roots.data.glob(pattern):
            path.unlink()
    assert site.run().counts == {"master-bias": 1, "master-flat": 2, "finish-stack": 4}


def test_index_file_deleted(site):
    site.product("astrometry_index/index_202*_2.fits").unlink()
    ran = site.run()
    assert ran.counts == {"build-index": 1}
    assert ran.of("build-index") == {"index of 202.470 +47.195"}


def noisy(path: Path, to: Path, seed: int) -> None:
    """The frame as another exposure would be: one more electron here, one fewer there."""
    with quiet_fits(), fits.open(path, memmap=False, do_not_scale_image_data=True) as hdus:
        drawn = np.random.default_rng(seed).integers(-2, 3, hdus[0].data.shape)
        hdus[0].data = np.clip(hdus[0].data.astype(int) + drawn, -32768, 32767).astype(hdus[0].data.dtype)
        hdus.writeto(to, overwrite=True, output_verify="ignore")


def places(site: Site, filter: str) -> dict[str, list[object]]:
    """Where a filter's pixels lie by group: the grid that the group's filters share, and what SCAMP says."""
    found: dict[str, list[object]] = {}
    for group in GROUPS:
        header = fits.getheader(site.product(f"stacks/{group}/T120/{group}_{filter}.fits"))
        found[group] = [header[key] for key in ("NAXIS1", "NAXIS2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2")]
        found[group] += [
            head.read_bytes() for head in sorted(site.roots.data.glob(f"2023/T120/reduced/*/{group}-*{filter}_*.head"))
        ]
    return found


def test_one_raw_science_frame_replaced(site):
    """Its own chain, and the stacks that hold it; of the other frames, filters and groups nothing."""
    raw = site.product("raw/**/20230314/M67-0001g_60.fits")
    noisy(raw, raw, 1)
    ran = site.run()
    assert ran.frames == {FRAME}
    assert ran.of("calibrate", "publish") == {f"zero point {FRAME}", f"publish {FRAME}"}
    once = ("reduce", "measure", "solve", "model-psf", "publish", "align-group", "combine", "finish-stack")
    assert {stage: ran.counts[stage] for stage in once} == dict.fromkeys(once, 1)
    assert not {entry.what for entry in ran.entries if "M51" in entry.what or "M67 r" in entry.what}


def test_one_raw_flat_added(site):
    """That filter's master, its frames, their stacks; another filter's stack only if the group's grid moved."""
    flat = site.product("raw/**/20230314/flat-0003_g.fits")
    noisy(flat, flat.with_name("flat-0009_g.fits"), 2)
    before = places(site, "r")
    ran = site.run()
    assert ran.of("master-flat", "master-bias") == {"master flat 2023 g 2x2"}
    frames = {path.stem for path in site.roots.raw.rglob("M??-*g_*.fits")}
    assert {frame.partition(" ")[2] for frame in ran.frames} == frames
    assert {stage: ran.counts[stage] for stage in ("reduce", "measure", "solve", "model-psf", "publish")} == {
        stage: len(frames) for stage in ("reduce", "measure", "solve", "model-psf", "publish")
    }
    moved = {group for group, place in places(site, "r").items() if place != before[group]}
    stacks = {f"SWarp {group} g" for group in GROUPS} | {f"SWarp {group} r" for group in moved}
    assert ran.of("combine") == stacks
    assert ran.of("finish-stack") == {stack.replace("SWarp", "finish") for stack in stacks}


VALIDATION = {"tie-to-ps1": 4, "validate": 4, "validation-plot": 4, "plots-of-stack": 4}


def test_validation_radius_changed(site):
    """Validation only: the same stars are found."""
    (site.roots.data / "pipeline.toml").write_text("[validation]\nmatch_arcsec = 1.49\n")
    assert site.run().counts == VALIDATION


def test_validation_radius_changed_so_that_verdicts_change(site):
    """Validation, and the headers of the stacks that say so; no stack is combined again."""
    (site.roots.data / "pipeline.toml").write_text("[validation]\nmatch_arcsec = 0.1\n")
    ran = site.run()
    follows = {"finish-stack": 4, "picture-of-stack": 4, "colour-picture": 2}
    follows |= {"maps-of-stack": 4, "pictures-of-group": 2, "source-list": 2}
    follows |= {"finish-extended": 2, "picture-of-extended": 2}  # of M51, which has one
    assert ran.counts == VALIDATION | follows


def test_refreshed(site):
    ran = site.run(refresh=("solve",))
    assert ran.counts == {"solve": 8}
    assert site.run(refresh=("combine",)).counts == {"combine": len(GROUPS) * 2}
