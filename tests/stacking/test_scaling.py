"""Flux scale: relative from common stars, absolute from PS1, and what happens where one of them lacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table

from models.base import Roots
from models.catalog import Cone
from models.frame import ColourTerm
from models.settings import PhotometrySettings, SelectionSettings
from models.target import Target
from models.telescope import load_telescope
from tasks.catalogs import store_cone
from tasks.core.errors import StageError
from tasks.stacking import relative_zero_points, select_frames, star_fluxes
from tasks.stacking.relative import huber_location, link_frames, solve_relative
from tasks.stacking.starflux import usable_stars
from tests.stacking.sky import Shot, make_roots, stars, take

T120 = load_telescope("T120")
SETTINGS = PhotometrySettings()
DITHERS = [(0, 0), (12, -9), (-15, 8), (7, 17), (-11, -14), (18, 3)]


def zero_points(scaling):
    return {item.aligned.frame.raw.name: item.zero_point for item in scaling.scaled}


def test_relative_solution_recovers_zero_points_to_two_millimagnitudes():
    rng = np.random.default_rng(5)
    truth = np.array([22.9, 23.0, 22.4, 23.1, 22.95])
    magnitude = rng.uniform(14, 18, 80)
    seen = [(f, s) for f in range(5) for s in range(80) if rng.random() < 0.7]
    frame, star = np.array(seen).T
    sigma = np.full(len(frame), 0.01)
    m = magnitude[star] - truth[frame] + rng.normal(0, sigma)
    m[rng.choice(len(m), 20, replace=False)] += rng.uniform(0.3, 2.0, 20)  # cosmic rays, variables
    solution = solve_relative(frame, star, m, sigma)
    assert np.abs(solution.zp - (truth - truth.mean())).max() < 0.004
    assert np.abs((solution.zp - (truth - truth.mean())) / solution.zp_err).max() < 4


def test_a_star_whose_light_follows_the_seeing_does_not_pull_a_frame():
    """Two bright H II regions, brighter by 60 and 90 mmag on the frame of the worst seeing, among 14 fainter stars."""
    off = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        zp, magnitude = rng.normal(22, 0.3, 6), rng.uniform(14, 16, 16)
        frame, star = (axis.ravel() for axis in np.indices((6, 16)))
        sigma = np.where(star < 2, 0.008, 0.025)
        m = magnitude[star] - zp[frame] + rng.normal(0, sigma)
        m[(frame == 2) & (star == 0)] -= 0.06
        m[(frame == 2) & (star == 1)] -= 0.09
        solution = solve_relative(frame, star, m, sigma)
        error = solution.zp - (zp - zp.mean())
        off.append(error[2] - np.delete(error, 2).mean())
    assert abs(np.mean(off)) < 0.012


def test_galaxies_tie_no_frames_where_there_are_stars():
    n = 12
    table = Table({"X": np.linspace(40, 460, n), "Y": np.full(n, 250.0), "FLUX": np.full(n, 1e4),
                   "PEAK": np.full(n, 500.0), "SNR": np.full(n, 60.0), "FWHM_PX": np.full(n, 3.0)})  # fmt: skip
    table["FWHM_PX"][::2] = 3.0 * 1.4
    chosen = usable_stars(table, (500, 500), 3.0, 5e4, PhotometrySettings())
    assert sorted(chosen) == list(range(1, n, 2))
    table["FWHM_PX"][1::4] = 3.0 * 1.5
    assert len(usable_stars(table, (500, 500), 3.0, 5e4, PhotometrySettings())) == n, "fewer than five stars: all count"
    table["SNR"] = 5.0
    assert len(usable_stars(table, (500, 500), 3.0, 5e4, PhotometrySettings(min_snr=4))) == n, (
        "a faint star may look wide"
    )


def test_location_is_not_moved_by_an_outlier():
    values = np.array([0.001, -0.002, 0.0, 1.65])
    centre, error = huber_location(values, np.full(4, 0.01))
    assert abs(centre) < 0.001
    assert 0 < error < 0.01


def test_frames_are_linked_only_by_enough_stars():
    frame = np.array([0] * 6 + [1] * 6 + [2] * 2)
    star = np.array([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 6, 5, 6])
    labels = link_frames(frame, star, 4, min_common=5)
    assert labels[0] == labels[1]
    assert len(set(labels.tolist())) == 3


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """Six frames of one field, different transparency and exposure; the last one's PS1 zero point is 1.65 mag off."""
    roots = make_roots(tmp_path_factory.mktemp("scaling"))
    sky = stars()
    zps = [23.0, 22.9, 22.75, 23.05, 22.5, 22.95]
    shots = [
        Shot(f"M81-{i}B", zp=zp, exptime=30.0 * (1 + i), dither=DITHERS[i], fwhm_px=3.0 + 0.2 * i, seed=i)
        for i, zp in enumerate(zps)
    ]
    shots[5] = shots[5].but(ps1=1.65)
    return roots, sky, shots, [take(shot, sky, roots) for shot in shots]


def test_a_bad_ps1_zero_point_is_replaced_and_named(night):
    """What spoilt M81 B in the release: one frame's PS1 zero point is 1.65 mag off."""
    roots, _, shots, frames = night
    scaling = relative_zero_points(frames, None, roots, T120, SETTINGS)
    got = zero_points(scaling)
    error = np.array([got[shot.name] - shot.zp for shot in shots])
    assert not scaling.rejected
    assert np.abs(error).max() < 0.008
    assert np.ptp(error) < 0.010
    (note,) = scaling.notes
    assert "20250317/M81-5B.fits" in note
    assert "+1.6" in note


def test_of_two_contradicting_zero_points_none_is_believed(night):
    """M81 B of two frames: their common stars say that one of the zero points is wrong, but not which."""
    roots, _, _, frames = night
    scaling = relative_zero_points([frames[0], frames[5]], None, roots, T120, SETTINGS)
    assert scaling.scaled == ()
    assert {item.file for item in scaling.rejected} == {"20250317/M81-0B.fits", "20250317/M81-5B.fits"}
    assert all("contradict each other by up to 1.6" in item.reason for item in scaling.rejected)
    assert len(relative_zero_points([frames[0], frames[1]], None, roots, T120, SETTINGS).scaled) == 2


def test_a_bad_zero_point_that_no_common_star_corrects_is_cut_and_named(night):
    """Not tied to the others, it enters at its own zero point; the cut on those leaves it out of the stack."""
    roots, sky, _, frames = night
    lonely = take(Shot("lonely", zp=22.9, ps1=1.65, centre=(132.85, 11.83)), sky[:0], roots)
    scaling = relative_zero_points([*frames[:4], lonely], None, roots, T120, SETTINGS)
    target = Target(name="M81", ra=132.85, dec=11.81)
    selection = select_frames(target, "B", scaling, (), roots, T120, SelectionSettings())
    assert "lonely" not in {item.aligned.frame.raw.name for item in selection.chosen}
    assert len(selection.chosen) == 4
    (out,) = selection.rejected
    assert out.file == "20250317/lonely.fits"
    assert "+1.55 mag from its filter" in out.reason


def test_what_was_corrected_is_said_in_the_stacks_notes(night):
    roots, _, _, frames = night
    scaling = relative_zero_points(frames, None, roots, T120, SETTINGS)
    target = Target(name="M81", ra=132.85, dec=11.81)
    selection = select_frames(target, "B", scaling, (), roots, T120, SelectionSettings())
    assert "M81-5B" in {item.aligned.frame.raw.name for item in selection.chosen}
    assert any("20250317/M81-5B.fits: its PS1 zero point" in note for note in selection.notes)


def test_years_with_their_own_colour_terms_come_to_one(night):
    """Zero points at colour zero of two years, extrapolated with terms that differ by 0.02, are 14 mmag apart."""
    roots, _, shots, frames = night
    own, mean = (-0.03, -0.05), 0.7
    calibrated = []
    for number, frame in enumerate(frames[:4]):
        term = own[number % 2]
        zp = shots[number].zp + (term + 0.04) * mean
        point = frame.frame.zero_point.model_copy(update={"zp": zp, "colour_term": term, "colour_mean": mean})
        calibrated.append(frame.model_copy(update={"frame": frame.frame.model_copy(update={"zero_point": point})}))
    joint = T120.with_colour_terms([ColourTerm(filter="r", term=-0.04, error=0.002, n_frames=9)])
    got = zero_points(relative_zero_points(calibrated[::2], None, roots, joint, SETTINGS))
    bare = zero_points(relative_zero_points(calibrated[::2], None, roots, T120, SETTINGS))
    shift = [bare[name] - got[name] for name in got]
    assert shift == pytest.approx([0.007] * 2, abs=1e-6)


def test_relative_zero_points_are_good_to_two_millimagnitudes(night):
    """The scatter that is left is photon noise of 40 stars, less than 2 mmag a frame."""
    roots, sky, shots, _ = night
    bright = sky.copy()
    bright["MAG"] = np.linspace(13.5, 15.5, len(sky))
    shots = [shot.but(name=f"b{i}", ps1=0.0, fwhm_px=3.5, exptime=30.0) for i, shot in enumerate(shots)]
    frames = [take(shot, bright, roots) for shot in shots]
    got = zero_points(relative_zero_points(frames, None, roots, T120, SETTINGS))
    error = np.array([got[shot.name] - shot.zp for shot in shots])
    assert np.std(error) < 0.002
    assert abs(np.median(error)) < 0.003


def test_flux_scale_is_the_release_formula(night):
    roots, _, _, frames = night
    scaling = relative_zero_points(frames, None, roots, T120, SETTINGS)
    for item in scaling.scaled:
        exptime = item.aligned.frame.raw.exptime
        assert item.flux_scale == pytest.approx(10 ** (0.4 * (30 - item.zero_point)) / exptime, rel=1e-12)


def test_a_frame_without_zero_point_gets_it_from_common_stars(night):
    roots, sky, _, frames = night
    orphan = take(Shot("orphan", zp=22.6, dither=(5, 5), ps1=None), sky, roots)
    scaling = relative_zero_points([*frames[:3], orphan], None, roots, T120, SETTINGS)
    assert zero_points(scaling)["orphan"] == pytest.approx(22.6, abs=0.008)


def test_a_frame_nothing_tells_the_scale_of_never_enters(night):
    roots, sky, _, frames = night
    empty = sky[:0]
    blind = take(Shot("blind", ps1=None), empty, roots)
    alone = take(Shot("alone", zp=22.8), empty, roots)
    scaling = relative_zero_points([*frames[:3], blind, alone], None, roots, T120, SETTINGS)
    got = {item.aligned.frame.raw.name: item for item in scaling.scaled}
    assert got["alone"].scale_source == "PS1, this frame alone"
    assert got["alone"].zero_point == pytest.approx(22.8)
    (rejected,) = scaling.rejected
    assert rejected.file == "20250317/blind.fits"
    assert "scale unknown" in rejected.reason


def test_a_damaged_frame_does_not_stop_the_others(night):
    roots, sky, _, frames = night
    torn = take(Shot("torn"), sky, roots)
    path = roots.of(torn.frame.reduced.file)
    path.write_bytes(path.read_bytes()[:5000])
    headless = take(Shot("headless"), sky, roots)
    roots.of(headless.head).write_text("CTYPE1  = 'RA---TPV'\nEND\n")
    scaling = relative_zero_points([*frames[:3], torn, headless], None, roots, T120, SETTINGS)
    assert len(scaling.scaled) == 3
    reasons = {item.file: item.reason for item in scaling.rejected}
    assert "cannot be read" in reasons["20250317/torn.fits"]
    assert "lacks" in reasons["20250317/headless.fits"]


def test_fluxes_measured_ahead_are_those_that_would_be_measured(night, tmp_path):
    roots, _, _, frames = night
    ahead = star_fluxes([frame.frame for frame in frames], roots, T120, SETTINGS)
    assert sorted(ahead) == sorted(frame.frame.raw.label for frame in frames)
    alone = relative_zero_points(frames, None, roots, T120, SETTINGS)
    assert relative_zero_points(frames, None, roots, T120, SETTINGS, ahead) == alone
    # They are what is used: a frame said to be a magnitude fainter is taken for that.
    label = frames[1].frame.raw.label
    ahead[label] = replace(ahead[label], flux=ahead[label].flux / 10**0.4)
    fainter = zero_points(relative_zero_points(frames, None, roots, T120, SETTINGS, ahead))
    moved = {name: fainter[name] - zp for name, zp in zero_points(alone).items()}
    others = [step for name, step in moved.items() if name != frames[1].frame.raw.name]
    assert moved[frames[1].frame.raw.name] - np.median(others) == pytest.approx(-1.0, abs=0.01)
    # Of a frame that is gone nothing is measured; the scaling says so.
    assert star_fluxes([frames[0].frame], Roots(data=tmp_path, raw=tmp_path), T120, SETTINGS) == {}


def test_no_exposure_time_no_scale(night):
    roots, sky, _, frames = night
    instant = take(Shot("instant", exptime=0.0), sky, roots)
    scaling = relative_zero_points([*frames[:2], instant], None, roots, T120, SETTINGS)
    assert [item.file for item in scaling.rejected] == ["20250317/instant.fits"]
    assert "exposure time 0" in scaling.rejected[0].reason


def test_narrow_band_is_relative_without_a_catalogue(night):
    roots, sky, _, _ = night
    frames = [
        take(Shot(f"Ha-{i}", zp=zp, exptime=t, filter="Ha", ps1=None, dither=DITHERS[i]), sky, roots)
        for i, (zp, t) in enumerate([(20.9, 300.0), (20.6, 600.0), (20.8, 300.0)])
    ]
    scaling = relative_zero_points(frames, None, roots, T120, SETTINGS)
    assert all(item.zero_point is None for item in scaling.scaled)
    scale = np.array([item.flux_scale for item in scaling.scaled])
    truth = 10 ** (-0.4 * np.array([20.9, 20.6, 20.8])) / np.array([300.0, 600.0, 300.0])
    ratio = -2.5 * np.log10(scale / truth)
    assert np.ptp(ratio) < 0.012
    assert scale[2] == pytest.approx(1 / 300.0, rel=0.005), "the median frame is only divided by its exposure time"
    assert "relative scale only" in scaling.notes[-1]


def ps1_table(sky: Table) -> Table:
    rows = Table({"objID": np.arange(len(sky)), "raMean": sky["RA"], "decMean": sky["DEC"]})
    rows["nDetections"], rows["qualityFlag"] = 20, 52
    for band in "grizy":
        rows[f"{band}MeanPSFMag"] = np.asarray(sky["MAG"]) + (0.4 if band == "g" else 0.0)
        rows[f"{band}MeanPSFMagErr"] = 0.01
        rows[f"{band}MeanKronMag"] = rows[f"{band}MeanPSFMag"]
    return rows


def test_narrow_band_is_tied_to_the_continuum_where_ps1_is_known(night):
    roots, sky, _, _ = night
    cone = store_cone(
        "ps1", Cone(ra=132.85, dec=11.81, radius=0.1), ps1_table(sky), roots, service="simulation", release="PS1 DR2"
    )
    frames = [
        take(Shot(f"Hc-{i}", zp=zp, exptime=300.0, filter="Ha", ps1=None, dither=DITHERS[i]), sky, roots)
        for i, zp in enumerate([20.9, 20.6, 20.8])
    ]
    scaling = relative_zero_points(frames, cone, roots, T120, SETTINGS)
    got = [item.zero_point for item in scaling.scaled]
    assert got == pytest.approx([20.9, 20.6, 20.8], abs=0.015)
    assert scaling.colour is not None
    assert scaling.colour.equation.startswith("m = r ")
    assert (scaling.colour.error, scaling.colour.date) == (0.1, "2025-03-17")  # all its stars are of one colour
    assert "+- 0.0" in scaling.notes[0]
    assert {item.scale_source for item in scaling.scaled} == {"common stars, tied to PS1 r of continuum stars"}


def test_filters_are_not_mixed(night):
    roots, sky, _, frames = night
    other = take(Shot("g1", filter="g"), sky, roots)
    with pytest.raises(StageError, match="several filters"):
        relative_zero_points([frames[0], other], None, roots, T120, SETTINGS)


def test_nothing_in_nothing_out(tmp_path):
    assert relative_zero_points([], None, make_roots(tmp_path), T120, SETTINGS).scaled == ()


def test_frames_without_a_single_star(night):
    roots, sky, _, _ = night
    frames = [take(Shot(name, zp=22.8, ps1=ps1), sky[:0], roots) for name, ps1 in (("dark1", 0.0), ("dark2", None))]
    scaling = relative_zero_points(frames, None, roots, T120, SETTINGS)
    assert [item.aligned.frame.raw.name for item in scaling.scaled] == ["dark1"]
    assert [item.file for item in scaling.rejected] == ["20250317/dark2.fits"]
