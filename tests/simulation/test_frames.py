"""What is in the files: noise, structure, saturation, headers."""

from __future__ import annotations

import itertools
import re
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from models.simulation import SimulationOptions, TrueFrame
from tasks.simulation import Shot, plan_campaign, true_sources
from tasks.simulation.camera import FULL_WELL_E, bias_structure, bleed
from tasks.simulation.expose import expected_electrons, expose
from tests.conftest import Campaign


def of_kind(campaign: Campaign, kind: str, band: str | None = None) -> list[TrueFrame]:
    return [f for f in campaign.truth.frames if f.kind == kind and (band is None or f.filter == band)]


def pixels(campaign: Campaign, frame: TrueFrame) -> np.ndarray:
    return fits.getdata(campaign.roots.raw / frame.path).astype(float)


def robust(values: np.ndarray) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def test_files_are_what_the_camera_writes(campaign: Campaign) -> None:
    frame = of_kind(campaign, "science", "r")[0]
    path = campaign.roots.raw / frame.path
    with fits.open(path, do_not_scale_image_data=True) as hdus:
        hdus.verify("exception")
        assert hdus[0].data.dtype == np.dtype(">i2")
        assert hdus[0].header["BZERO"] == 32768
    with fits.open(path) as hdus:
        header, data = hdus[0].header, hdus[0].data
        assert data.dtype == np.uint16
        assert data.shape == (1024, 1024)
    assert (header["XBINNING"], header["YBINNING"], header["INSTRUME"]) == (2, 2, "Andor Tech")
    assert header["SWCREATE"].startswith("MaxIm DL")
    assert header["IMAGETYP"] == "Light Frame"
    assert abs(header["CCD-TEMP"] + 60) < 5
    assert header["EXPTIME"] == frame.exptime
    datetime.fromisoformat(header["DATE-OBS"])
    assert header["DATE-OBS"] == frame.date_obs
    assert "OBJCTRA" not in header  # M67 in 2023 had none
    assert path.stat().st_size % 2880 == 0


def test_headers_are_cards_of_the_real_camera(shots: list[Shot]) -> None:
    from tasks.simulation.headers import maxim_header

    for shot in shots:
        header = maxim_header(shot, (1024, 1024), 3)
        if "OBJCTRA" in header:
            assert re.fullmatch(r"\d\d \d\d \d\d", header["OBJCTRA"])
            assert re.fullmatch(r"[+-]\d\d \d\d \d\d", header["OBJCTDEC"])
        assert header.get("FILTER", "") == shot.filter_name
    by_year = {year: [s for s in shots if s.year == year] for year in (2019, 2023, 2025)}
    assert all(s.imagetyp == "Light Frame" for s in by_year[2019] if s.kind == "flat")
    assert sum(s.imagetyp == "Light Frame" for s in by_year[2025] if s.kind == "flat") == 1
    assert all(s.pointing is None for s in by_year[2023] if s.field == "M67")
    assert {s.filter_name for s in by_year[2025] if s.kind == "science"} == {"V", "G", "r", "I"}


@pytest.mark.shared
def test_spellings_are_the_archives(shots: list[Shot], shared: Path) -> None:
    import csv

    with open(shared / "archive" / "t120_headers.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    known = {row["filter"] for row in rows} | {"V Cousins", "g Gunn", "r Gunn", "i", "I", "r", "Ha"}
    assert {s.filter_name for s in shots} - {""} <= known
    shapes = {re.sub(r"\d+", "0", row["path"].rpartition("/")[0]) for row in rows}
    trees = {re.sub(r"\d+", "0", s.path.rpartition("/")[0]) for s in shots if s.kind != "science"}
    assert trees <= shapes


def test_bias_noise_and_structure(campaign: Campaign) -> None:
    frames = of_kind(campaign, "bias")
    a, b = (pixels(campaign, f) for f in frames[1:3])
    assert robust(a - b) / np.sqrt(2) == pytest.approx(8.0 / 1.5, rel=0.03)
    assert np.median(a) == pytest.approx(frames[1].bias_level_adu, abs=1.5)
    mean = np.mean([pixels(campaign, f) for f in frames], axis=0)
    columns = np.median(mean, axis=0)
    assert robust(columns - np.median(columns)) > 0.5  # a column pattern, not noise: 5.3/sqrt(5 * 1024) = 0.07
    assert {f.oddity for f in frames} & {"a warm bias", "a bias known by its OBJECT and exposure time only"}


def test_flat_noise_gives_the_gain(campaign: Campaign) -> None:
    level = np.mean([f.bias_level_adu for f in of_kind(campaign, "bias")])
    first, second = (f for f in of_kind(campaign, "flat", "g")[:2])
    a, b = pixels(campaign, first) - level, pixels(campaign, second) - level
    assert np.median(a) == pytest.approx(first.level_adu, rel=0.003)
    ratio = a[300:700, 300:700] / b[300:700, 300:700]
    ratio = ratio / np.median(ratio)
    # var(a/b) = 1/(gain a) + 1/(gain b), photon noise only.
    gain = (1 / np.median(a[300:700, 300:700]) + 1 / np.median(b[300:700, 300:700])) / robust(ratio) ** 2
    assert gain == pytest.approx(1.5, rel=0.05)


def test_flat_structure(campaign: Campaign) -> None:
    level = np.mean([f.bias_level_adu for f in of_kind(campaign, "bias")])
    g, r = (
        np.median([(d := pixels(campaign, f) - level) / np.median(d) for f in of_kind(campaign, "flat", band)], axis=0)
        for band in "gr"
    )
    corner = np.median(np.concatenate([r[:80, :80].ravel(), r[-80:, -80:].ravel()]))
    assert 0.80 < corner < 0.95  # vignetting
    fine = r / np.median(r[400:600, 400:600]) - 1
    block = fine[420:500, 420:500]
    assert 0.006 < robust(block - np.median(block)) < 0.016  # 1 % response
    # A dead and a hot column, dead and hot pixels.
    columns = np.median(r[500:1000], axis=0) / np.median(r[500:1000])
    assert (columns < 0.2).sum() == 1
    assert (columns > 1.5).sum() == 1
    ratio = r / np.median(r)
    assert 80 < ((ratio < 0.5) | (ratio > 1.6))[:400].sum() < 400
    # The same pixels in both filters, other dust.
    assert np.corrcoef((g / g.mean() - r / r.mean())[100:900:3, 500], r[100:900:3, 500])[0, 1] < 0.9
    assert robust(g / r - np.median(g / r)) > 0.002


def test_noise_is_photons_and_read_out(campaign: Campaign) -> None:
    """Every pixel of a frame less its expectation, in units of sqrt(e-) and 8 e-: width 1, and hits only upwards."""
    options = campaign.truth.options
    shots = {shot.path: shot for shot in plan_campaign(options)}
    for frame in of_kind(campaign, "science", "r")[:2] + of_kind(campaign, "flat", "g")[:1]:
        mean, _ = expected_electrons(shots[frame.path], options)
        data = pixels(campaign, frame) - frame.bias_level_adu - bias_structure(options.seed, options.size)
        # Below 60 000 ADU the response is straight; columns in which charge bleeds are another matter.
        linear = (mean < 80_000) & ~(mean > 0.95 * FULL_WELL_E).any(axis=0)
        pull = ((data - mean / 1.5) / np.sqrt(mean / 1.5**2 + (8 / 1.5) ** 2 + 1 / 12))[linear]
        assert np.median(pull) == pytest.approx(0.0, abs=0.02)
        assert robust(pull) == pytest.approx(1.0, abs=0.01)
        assert (pull < -6).sum() == 0
        assert (frame.kind == "science") <= (pull > 6).sum() <= frame.cosmic_ray_pixels
        assert np.median(data) == pytest.approx(frame.sky_adu or frame.level_adu, rel=0.15)


def test_measured_stars_match_the_truth(campaign: Campaign) -> None:
    """Aperture photometry of a frame calibrated with its own calibration frames."""
    bias = np.median([pixels(campaign, f) for f in of_kind(campaign, "bias")[1:]], axis=0)
    offsets, away = [], []
    for frame in of_kind(campaign, "science"):
        flats = [f for f in of_kind(campaign, "flat", frame.filter) if (f.level_adu or 0) > 10_000]
        flat = np.median([(d := pixels(campaign, f) - bias) / np.median(d) for f in flats], axis=0)
        data = (pixels(campaign, frame) - bias) / flat
        sources = true_sources(frame, campaign.stars, margin_px=20)
        assert frame.seeing_arcsec is not None
        assert frame.moffat_beta is not None
        fwhm = frame.seeing_arcsec / 0.77
        alpha = fwhm / 2 / np.sqrt(2 ** (1 / frame.moffat_beta) - 1)
        x, y, mag = (np.asarray(sources[name]) for name in ("x", "y", "mag"))
        radius = 3 * fwhm
        inside = 1 - (1 + (radius / alpha) ** 2) ** (1 - frame.moffat_beta)
        for k in np.flatnonzero((mag < 16.5) & (x > 60) & (x < 964) & (y > 60) & (y < 964)):
            distance = np.hypot(x - x[k], y - y[k])
            if (mag[(distance > 0) & (distance < 12 * fwhm)] < mag[k] + 4).any():
                continue
            rows = slice(int(y[k]) - 60, int(y[k]) + 60)
            columns = slice(int(x[k]) - 60, int(x[k]) + 60)
            box, shade = data[rows, columns], flat[rows, columns]
            yy, xx = np.mgrid[rows, columns] + 1.0
            r = np.hypot(xx - x[k], yy - y[k])
            if box[r < radius].max() > 40_000 or ((shade[r < radius] < 0.6) | (shade[r < radius] > 1.4)).any():
                continue
            sky = np.median(box[(r > 6 * fwhm) & (r < 9 * fwhm)])
            core = (box - sky) * (r < radius)
            offsets.append(-2.5 * np.log10(core.sum() / inside / sources["flux"][k]))
            near = np.clip((box - sky) * (r < 1.5 * fwhm), 0, None)
            away.append(np.hypot((near * xx).sum() / near.sum() - x[k], (near * yy).sum() / near.sum() - y[k]))
    assert len(offsets) >= 15
    assert abs(np.median(offsets)) < 0.006
    assert robust(np.array(offsets)) < 0.03
    assert np.median(away) < 0.06


def test_saturation_and_bleeding(campaign: Campaign) -> None:
    frame = max(of_kind(campaign, "science"), key=lambda f: f.saturated_pixels)
    data = pixels(campaign, frame)
    assert data.max() == 65535
    full = data == 65535
    tallest = max(max((len(run) for run in "".join("x" if v else " " for v in column).split()), default=0)
                  for column in full.T[:740])  # fmt: skip
    widest = max(max((len(run) for run in "".join("x" if v else " " for v in row).split()), default=0) for row in full)
    assert tallest > 2 * widest  # along columns


def test_bleeding_keeps_charge() -> None:
    electrons = np.full((200, 3), 100.0)
    electrons[100, 1] = 12 * FULL_WELL_E
    total = electrons.sum()
    bleed(electrons)
    assert electrons.sum() == pytest.approx(total)
    assert electrons.max() <= FULL_WELL_E + 1e-6
    over = np.flatnonzero(electrons[:, 1] > 0.99 * FULL_WELL_E)
    assert abs((over - 100).mean()) <= 1
    assert 10 <= len(over) <= 13
    assert (electrons[:, [0, 2]] == 100.0).all()


def test_default_campaign_is_the_issues(shots: list[Shot]) -> None:
    science = [s for s in shots if s.kind == "science"]
    assert len(science) >= 60
    assert {s.filter for s in science} == {"B", "V", "g", "r", "i", "Ha"}
    assert {s.year for s in science} == {2019, 2023, 2025}
    assert all(s.field == "M51" for s in science if s.filter == "Ha")
    assert sum(s.filter == "Ha" for s in science) >= 3
    assert len({s.path for s in shots}) == len(shots)
    assert all(1.6 <= (s.seeing or 0) <= 4.5 for s in science)
    assert max(s.seeing or 0 for s in science) > 3.2
    assert min(s.seeing or 9 for s in science) < 2.0
    assert max(s.header_offset or 0 for s in science) < 0.31
    assert 1 <= sum(bool(s.trails) for s in science) <= 12
    assert sum(s.transparency < 0.95 for s in science) >= 4
    oddities = {s.oddity for s in shots if s.oddity}
    assert oddities == {
        "a flat labelled 'Light Frame'", "a bias known by its OBJECT and exposure time only", "an underexposed flat",
        "a warm bias",
    }  # fmt: skip
    for shot in science:
        assert shot.wcs is not None
        (a, b), (c, d) = shot.wcs.cd
        assert a * d - b * c < 0
        assert shot.airmass is not None
        assert 1 <= shot.airmass < 2.2
        hour = shot.start.hour + shot.start.minute / 60
        assert hour > 18.5 or hour < 6  # dark at the observatory


def test_long_campaigns_take_more_nights() -> None:
    shots = plan_campaign(SimulationOptions(years=(2023,), fields=("M51",), filters=("B", "Ha"), frames=90))
    science = [s for s in shots if s.kind == "science"]
    assert len({s.path for s in shots}) == len(shots)
    assert len({s.night for s in science}) >= 3
    assert all((s.airmass or 9) < 2.2 for s in science)
    taken = sorted((s.start, s.exptime) for s in science)
    gaps = [(b[0] - a[0]).total_seconds() - a[1] for a, b in itertools.pairwise(taken)]
    assert min(gaps) > 0


def test_a_frame_costs_less_than_a_second(options: SimulationOptions, shots: list[Shot], tmp_path: Path) -> None:
    shot = next(s for s in shots if s.field == "M67" and s.filter == "r")
    n_stars = expose(shot, options, tmp_path).n_stars  # also fills the caches of sky and response
    assert n_stars is not None
    assert n_stars > 1000
    costs = []
    for _ in range(3):
        before = time.process_time()
        expose(shot, options, tmp_path)
        costs.append(time.process_time() - before)
    assert min(costs) * 1500 / n_stars < 1.0  # s, of a frame of 1500 stars


def test_unknown_year_borrows_habits() -> None:
    shots = plan_campaign(SimulationOptions(years=(2021,), fields=("M67",)))
    assert all("2021" in s.path and s.night.startswith("2021") for s in shots)
