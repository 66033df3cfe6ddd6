"""Master bias and flat: truth recovered, wrong input left out with its reason."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from astropy.io import fits

from models.settings import BiasSettings, FlatSettings
from tasks.calibration import make_master_bias, make_master_flat
from tasks.core.errors import StageError
from tests.privileges import reading_only_what_it_may

from .conftest import GAIN, READ_NOISE, SHAPE, Bench

BIAS, FLAT = BiasSettings(), FlatSettings()


def test_bias_recovers_pattern_and_read_noise(bench: Bench) -> None:
    bias = make_master_bias(bench.biases(12), bench.roots, bench.telescope, BIAS)
    assert bias.file.path == "2025/BENCH/master_bias/master_bias_2025_BENCH_2.fits"
    assert bias.n_combined == 12
    assert bias.rejected == ()
    assert bias.read_noise_e == pytest.approx(READ_NOISE, rel=0.02)
    data, header = fits.getdata(bench.roots.of(bias.file), header=True)
    error = data - bench.bias
    assert np.std(error) == pytest.approx(READ_NOISE / GAIN / np.sqrt(12), rel=0.08)
    assert abs(np.mean(error)) < 0.5
    assert (header["NCOMBINE"], header["COMBMETH"], header["BIASQUAL"]) == (12, "MEAN", "OK")
    assert header["RDNOISE"] == pytest.approx(bias.read_noise_e)
    assert "[e-]" in header.comments["RDNOISE"]


def test_bias_clips_a_hit_even_among_few(bench: Bench) -> None:
    frames = bench.biases(4)
    hit = bench.expose(np.zeros(SHAPE))
    hit[40, 60] += 5000
    frames.append(bench.write("hit.fit", hit, "bias"))
    bias = make_master_bias(frames, bench.roots, bench.telescope, BIAS)
    assert fits.getdata(bench.roots.of(bias.file))[40, 60] == pytest.approx(bench.bias[40, 60], abs=12)


def test_bias_rejects_with_reasons(bench: Bench) -> None:
    frames = bench.biases(6)
    dark = np.zeros(SHAPE)
    frames.append(bench.write("long.fit", bench.expose(dark), "bias", 2.0))
    frames.append(bench.write("warm.fit", bench.expose(dark), "bias", ccd_temp=-48.0))
    frames.append(bench.write("high.fit", bench.expose(dark, 60), "bias"))
    frames.append(bench.write("small.fit", bench.expose(dark)[:100], "bias"))
    frames.append(bench.write("window.fit", bench.expose(dark)[:100], "bias", shape=(100, SHAPE[1])))
    torn = bench.write("torn.fit", bench.expose(dark), "bias")
    path = bench.roots.raw / torn.path
    path.write_bytes(path.read_bytes()[:20000])
    frames.append(torn)
    bias = make_master_bias(frames, bench.roots, bench.telescope, BIAS)
    assert bias.n_combined == 6
    reasons = {entry.file: entry.reason for entry in bias.rejected}
    assert "EXPTIME is 2 s" in reasons["long.fit"]
    assert "-48.0 deg C" in reasons["warm.fit"]
    assert "from the group's median" in reasons["high.fit"]
    assert "192 x 100" in reasons["small.fit"]
    assert "192 x 100" in reasons["window.fit"]
    assert "truncated" in reasons["torn.fit"]


@pytest.mark.parametrize("kind", ["bias", "flat"])
def test_what_cannot_be_read_today_is_no_reason_for_a_master_of_fewer(bench: Bench, kind: str) -> None:
    def make() -> object:
        if kind == "bias":
            return make_master_bias(frames, bench.roots, bench.telescope, BIAS)
        return make_master_flat(frames, None, bench.roots, bench.telescope, FLAT)

    frames = bench.biases(4) if kind == "bias" else bench.flats([20000.0, 24000.0, 28000.0])
    path = bench.roots.raw / frames[1].path
    path.chmod(0)
    with reading_only_what_it_may(), pytest.raises(StageError, match="Permission denied") as refused:
        make()
    assert refused.value.record("master").pending
    path.unlink()
    with pytest.raises(StageError, match="not there any more"):
        make()


def test_no_usable_bias_is_an_error_that_crosses_processes(bench: Bench) -> None:
    frame = bench.write("long.fit", bench.expose(np.zeros(SHAPE)), "bias", 3.0)
    with pytest.raises(StageError, match="EXPTIME is 3 s") as caught:
        make_master_bias([frame], bench.roots, bench.telescope, BIAS)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.stage, again.reason, again.remedy) == (caught.value.stage, caught.value.reason, caught.value.remedy)
    with pytest.raises(StageError, match="no bias frames"):
        make_master_bias([], bench.roots, bench.telescope, BIAS)


def test_flat_recovers_response_and_bad_column(bench: Bench) -> None:
    bias = make_master_bias(bench.biases(9), bench.roots, bench.telescope, BIAS)
    levels = [20000.0, 24000.0, 28000.0, 22000.0, 26000.0]
    flat = make_master_flat(bench.flats(levels), bias, bench.roots, bench.telescope, FLAT)
    assert flat.file.path == "2025/BENCH/master_flat/master_flat_2025_BENCH_2_r.fits"
    assert flat.n_combined == 5
    with fits.open(bench.roots.of(flat.file), checksum=True) as hdus:
        data, bad, variance = hdus[0].data, hdus["BPM"].data, hdus["VAR"].data
        assert hdus[0].header["BIASCORR"] == "master_bias_2025_BENCH_2.fits"
    assert np.median(data) == pytest.approx(1.0, abs=1e-4)
    assert bad[:, 50].all()
    assert np.count_nonzero(np.delete(bad, 50, axis=1)) == 0
    good = bad == 0
    error = (data / bench.response - np.median(data / bench.response))[good]
    assert np.std(error) == pytest.approx(np.sqrt(np.median(variance)), rel=0.1)


def test_flat_checks_and_counts(bench: Bench) -> None:
    bias = make_master_bias(bench.biases(5), bench.roots, bench.telescope, BIAS)
    good = bench.flats([20000.0, 24000.0, 28000.0, 22000.0])
    tilt = np.linspace(0.8, 1.2, SHAPE[1])
    lamp = 1 + 0.05 * np.sin(np.arange(SHAPE[0]) / 8)[:, None]
    wrong = [
        bench.write("faint.fit", bench.expose(bench.response * 3000 * GAIN), "flat", 1.0, filter="r"),
        bench.write("bright.fit", bench.expose(bench.response * 57000 * GAIN), "flat", 9.0, filter="r"),
        bench.write("tilted.fit", bench.expose(bench.response * tilt * 25000 * GAIN), "flat", 4.0, filter="r"),
        bench.write("lamp.fit", bench.expose(bench.response * lamp * 25000 * GAIN), "flat", 4.0, filter="r"),
    ]
    flat = make_master_flat(good + wrong, bias, bench.roots, bench.telescope, FLAT)
    reasons = {entry.file: entry.reason for entry in flat.rejected}
    assert flat.n_combined == 4
    assert "below 10000" in reasons["faint.fit"]
    assert "above 55000" in reasons["bright.fit"]
    assert "quadrants" in reasons["tilted.fit"]
    assert "pattern" in reasons["lamp.fit"]
    with pytest.raises(StageError, match="1 too bright, 1 too faint"):
        make_master_flat(wrong[:2], bias, bench.roots, bench.telescope, FLAT)


def test_same_masters_same_bytes(bench: Bench) -> None:
    biases, flats = bench.biases(4), bench.flats([20000.0, 21000.0, 22000.0])
    first = make_master_bias(biases, bench.roots, bench.telescope, BIAS)
    again = make_master_bias(list(reversed(biases)), bench.roots, bench.telescope, BIAS)
    assert first == again
    flat = make_master_flat(flats, first, bench.roots, bench.telescope, FLAT)
    assert flat == make_master_flat(list(reversed(flats)), first, bench.roots, bench.telescope, FLAT)
