"""The whole way from raw files to quality on the simulated campaign and on real frames."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from models.base import Roots
from models.frame import MaskBit, RawFrame
from models.settings import BiasSettings, FlatSettings, QualitySettings, ReductionSettings
from models.telescope import load_telescope
from tasks.calibration import make_master_bias, make_master_flat, read_reduced, reduce_frame
from tasks.inventory import take_inventory
from tasks.quality import measure_frame, read_sources
from tests.conftest import Campaign
from tests.profiles import install


def test_campaign(campaign: Campaign, tmp_path: Path) -> None:
    roots = Roots(data=tmp_path, raw=campaign.roots.raw)
    telescope = load_telescope("T120")
    frames = take_inventory(roots, telescope).frames
    truth = {frame.path: frame for frame in campaign.truth.frames}
    before = {path: truth[path].sha256 for path in truth}
    bias = make_master_bias([f for f in frames if f.kind == "bias"], roots, telescope, BiasSettings())
    assert bias.read_noise_e == pytest.approx(campaign.truth.read_noise, rel=0.02)
    sky, seeing, trails = [], [], 0
    for band in ("g", "r"):
        flats = [f for f in frames if f.kind == "flat" and f.filter == band]
        flat = make_master_flat(flats, bias, roots, telescope, FlatSettings())
        assert flat.n_combined >= 3
        for raw in [f for f in frames if f.kind == "science" and f.filter == band]:
            true = truth[raw.path]
            assert true.wcs
            assert true.seeing_arcsec
            assert true.sky_adu
            reduced = reduce_frame(raw, bias, flat, roots, telescope, ReductionSettings())
            measured = measure_frame(reduced, roots, telescope, QualitySettings())
            scale = 3600 * np.sqrt(abs(np.linalg.det(np.array(true.wcs.cd))))
            assert measured.quality.fwhm_px
            seeing.append(measured.quality.fwhm_px * scale / true.seeing_arcsec)
            sky.append(measured.quality.sky_adu - true.sky_adu)
            mask = read_reduced(reduced, roots)[1]
            trails += len(true.trails) - int(read_reduced(reduced, roots)[3]["NTRAILS"])
            hit = np.count_nonzero(mask & MaskBit.COSMIC_RAY)
            assert hit < 4 * true.cosmic_ray_pixels + 200
            assert np.count_nonzero(mask & MaskBit.SATURATED) >= true.saturated_pixels
            assert len(read_sources(measured, roots)) > 100
    assert np.max(np.abs(np.array(seeing) - 1)) < 0.05
    assert np.max(np.abs(sky)) < 12
    assert trails == 0
    after = {path: hashlib.sha256((roots.raw / path).read_bytes()).hexdigest() for path in before}
    assert after == before


def _through(frames: tuple[RawFrame, ...], roots: Roots, telescope_name: str) -> list[float]:
    telescope = install(telescope_name, roots.data)
    widths = []
    for raw in frames:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reduced = reduce_frame(raw, None, None, roots, telescope, ReductionSettings())
            measured = measure_frame(reduced, roots, telescope, QualitySettings())
        assert any("none subtracted" in note for note in reduced.notes)
        assert any("FLATCORR NONE" in note for note in reduced.notes)
        data, mask, variance, header = read_reduced(reduced, roots)
        assert "CTYPE1" not in header
        assert header["NTRAILS"] == 0
        # A warm camera without darks: hundreds of hot pixels, the same in every frame, and no star among them.
        hit = (mask & MaskBit.COSMIC_RAY) != 0
        assert hit.mean() < (0.01 if telescope_name == "MICRO" else 0.002)
        sources = read_sources(measured, roots)
        bright = sources[sources["SNR"] > 20]
        row, column = np.rint(bright["Y"] - 1).astype(int), np.rint(bright["X"] - 1).astype(int)
        assert ndimage.maximum_filter(hit, 3)[row, column].mean() < (0.012 if telescope_name == "MICRO" else 0.05)
        # The variance is the noise seen between neighbours on the sky.
        difference = np.diff(data, axis=1)[:, ::2].ravel()
        low, high = np.percentile(difference, [10, 90])
        seen = np.std(difference[np.abs(difference) < 2 * (high - low)]) / np.sqrt(2)
        assert np.sqrt(np.median(variance)) == pytest.approx(seen, rel=0.25)
        assert measured.quality.n_sources > 50
        assert measured.quality.fwhm_px
        widths.append(measured.quality.fwhm_px)
    return widths


@pytest.mark.shared
def test_real_frames_of_m1(shared: Path, tmp_path: Path) -> None:
    roots = Roots(data=tmp_path, raw=shared / "real" / "m1")
    frames = take_inventory(roots, install("PROMPT5", tmp_path)).frames
    widths = _through(frames, roots, "PROMPT5")
    assert len(widths) == 3
    assert min(widths) > 3.5
    assert max(widths) < 4.8


@pytest.mark.shared
def test_real_frames_of_hatp32(shared: Path, tmp_path: Path) -> None:
    roots = Roots(data=tmp_path, raw=shared / "real" / "hatp32")
    frames = take_inventory(roots, install("MICRO", tmp_path)).frames
    assert Counter(f.kind for f in frames) == {"science": 24}
    widths = _through(frames[::6], roots, "MICRO")
    assert min(widths) > 1.2
    assert max(widths) < 4.0
