"""Seeing, positions, flags: against what was put in."""

from __future__ import annotations

import numpy as np
import pytest

from models.base import Roots
from models.frame import MeasuredFrame
from models.settings import QualitySettings, ReductionSettings
from tasks.calibration import reduce_frame
from tasks.core.errors import StageError
from tasks.quality import measure_frame, read_sources
from tests.calibration.conftest import GAIN, SHAPE, Bench, bench

__all__ = ["bench"]

SETTINGS = QualitySettings()


def measured(bench: Bench, image: np.ndarray, name: str = "f.fits") -> tuple[MeasuredFrame, Roots]:
    bench.response[:] = 1.0
    raw = bench.write(name, bench.expose(image * GAIN), "science", 60.0, filter="r")
    reduced = reduce_frame(raw, None, None, bench.roots, bench.telescope, ReductionSettings())
    return measure_frame(reduced, bench.roots, bench.telescope, SETTINGS), bench.roots


@pytest.mark.parametrize("fwhm", [2.1, 3.0, 4.5, 6.0])
@pytest.mark.parametrize("beta", [2.5, 4.0])
def test_seeing(bench: Bench, fwhm: float, beta: float) -> None:
    image, _, _ = bench.stars(fwhm, np.geomspace(3000, 80000, 30), beta=beta)
    frame, _ = measured(bench, image)
    assert frame.quality.fwhm_px == pytest.approx(fwhm, rel=0.05)
    assert frame.quality.fwhm_arcsec == pytest.approx(fwhm * 0.77, rel=0.05)
    assert frame.quality.elongation == pytest.approx(1.0, abs=0.1)
    assert frame.quality.flags == (("BAD_SEEING",) if fwhm * 0.77 > 6 else ())


def test_positions_and_table(bench: Bench) -> None:
    fluxes = np.geomspace(2000, 80000, 20)
    image, x, y = bench.stars(3.0, fluxes)
    frame, roots = measured(bench, image)
    table = read_sources(frame, roots)
    assert table.colnames == [
        "X",
        "Y",
        "FLUX",
        "FLUX_ERR",
        "PEAK",
        "A",
        "B",
        "THETA",
        "FLUX_RADIUS",
        "FWHM_PX",
        "SNR",
        "FLAGS",
    ]
    assert table["X"].dtype == np.float64
    assert table["FLUX"].dtype.isnative
    assert np.all(np.diff(table["FLUX"]) <= 0)
    distance = np.hypot(table["X"][:, None] - 1 - x, table["Y"][:, None] - 1 - y)
    matched = distance.min(axis=1) < 1
    assert matched.sum() >= 15
    clean = matched & (np.asarray(table["FLAGS"]) == 0)
    which = distance[clean].argmin(axis=1)
    assert np.median(distance[clean].min(axis=1)) < 0.05
    assert np.median(table["FLUX"][clean] / fluxes[which]) == pytest.approx(0.96, abs=0.05)
    assert frame.sources.path == ".cache/sources/2025/BENCH/20250317/f.fits"


def test_sky(bench: Bench) -> None:
    frame, _ = measured(bench, np.full(SHAPE, 400.0))
    assert frame.quality.sky_adu == pytest.approx(1400, abs=3)
    assert frame.quality.sky_sigma == pytest.approx(np.sqrt(400 / GAIN + (8 / GAIN) ** 2), rel=0.05)


def test_no_sources_is_no_error(bench: Bench) -> None:
    frame, roots = measured(bench, np.full(SHAPE, 400.0))
    assert frame.quality.flags == ("LOW_SOURCES",)
    assert frame.quality.fwhm_px is None
    assert len(read_sources(frame, roots)) == frame.quality.n_sources == 0


def test_elongated_and_saturated(bench: Bench) -> None:
    image = np.full(SHAPE, 200.0)
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for x0 in range(20, 180, 20):
        for y0 in range(20, 150, 20):
            image += 3000 * np.exp(-0.5 * (((xx - x0) / 2.4) ** 2 + ((yy - y0) / 1.4) ** 2))
    frame, _ = measured(bench, image)
    assert "ELONGATED" in frame.quality.flags
    assert frame.quality.elongation == pytest.approx(2.4 / 1.4, rel=0.1)
    image[60:90, 60:90] = 90000
    frame, roots = measured(bench, image, "g.fits")
    assert "SATURATED" in frame.quality.flags
    assert frame.quality.saturated_fraction == pytest.approx(900 / image.size, rel=0.01)
    assert read_sources(frame, roots)["FLAGS"][0] & 4


def test_same_bytes_and_lost_table(bench: Bench) -> None:
    image, _, _ = bench.stars(3.0, np.geomspace(2000, 80000, 20))
    frame, roots = measured(bench, image)
    again = measure_frame(frame.reduced, roots, bench.telescope, SETTINGS)
    assert again == frame
    roots.of(frame.sources).unlink()
    with pytest.raises(StageError, match="cannot be read"):
        read_sources(frame, roots)
