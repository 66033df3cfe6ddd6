"""The campaign on disk: same bytes, nothing overwritten, clear refusals."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from flows import simulate_campaign as command
from models.base import Roots
from models.simulation import SimulationOptions
from tasks.core.errors import UserError
from tasks.simulation import read_stars, read_truth, simulate_campaign
from tests.conftest import Campaign

SMALL = SimulationOptions(
    seed=5, years=(2025,), fields=("M51",), filters=("r", "Ha"), frames=1, biases=2, flats=2, size=256
)


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".cache" not in path.parts
    }


def run(root: Path, options: SimulationOptions = SMALL, workers: int = 1):
    return simulate_campaign(Roots(data=root, raw=root / "raw"), options, workers)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    run(root)
    return root


def test_same_seed_same_bytes_whatever_the_workers(made: Path, tmp_path: Path) -> None:
    run(tmp_path, workers=2)
    one, two = digests(made), digests(tmp_path)
    assert one == two
    assert len([name for name in one if name.startswith("raw/")]) == 2 + 2 + 4
    assert {"truth.json", "truth_stars.fits", "simulation.json"} <= set(one)


def test_a_frame_does_not_depend_on_the_others(made: Path, tmp_path: Path) -> None:
    run(tmp_path, SMALL.model_copy(update={"filters": ("r",), "biases": 1, "oddities": False}))
    one, two = digests(made / "raw"), digests(tmp_path / "raw")
    same = [name for name in two if name in one and ("r" in name.rpartition("/")[2])]
    assert len(same) >= 3
    science = [name for name in same if "M51_" in name]
    assert science
    assert all(one[name] == two[name] for name in science)


def test_another_seed_other_bytes(made: Path, tmp_path: Path) -> None:
    run(tmp_path, SMALL.model_copy(update={"seed": 6}))
    one, two = digests(made / "raw"), digests(tmp_path / "raw")
    assert not set(one.values()) & set(two.values())


def test_again_keeps_and_mends(made: Path, tmp_path: Path) -> None:
    first = run(tmp_path)
    assert (first.written, first.kept) == (8, 0)
    frames = sorted((tmp_path / "raw").rglob("*.fits"))
    stamps = {path: path.stat().st_mtime_ns for path in frames}
    frames[0].write_bytes(frames[0].read_bytes()[:5000])  # a copy that was cut
    frames[1].unlink()
    again = run(tmp_path)
    assert (again.written, again.kept) == (2, 6)
    assert digests(tmp_path) == digests(made)
    assert all(path.stat().st_mtime_ns == stamps[path] for path in frames[2:])


def test_unfinished_campaign_is_carried_on(made: Path, tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "truth.json").unlink()
    assert run(tmp_path).written == 8
    assert digests(tmp_path) == digests(made)


def test_anything_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "mine.fits").write_bytes(b"mine")
    with pytest.raises(UserError, match="1 files that are not of the simulator"):
        run(tmp_path)
    assert digests(tmp_path) == {"raw/mine.fits": hashlib.sha256(b"mine").hexdigest()}


def test_another_campaign_is_left_alone(tmp_path: Path) -> None:
    run(tmp_path)
    before = digests(tmp_path)
    with pytest.raises(UserError, match="another simulated campaign"):
        run(tmp_path, SMALL.model_copy(update={"seed": 9}))
    (tmp_path / "raw" / "stranger.fits").write_bytes(b"x")
    with pytest.raises(UserError, match=r"stranger\.fits"):
        run(tmp_path)
    (tmp_path / "raw" / "stranger.fits").unlink()
    assert digests(tmp_path) == before


def test_truth_reads_back(campaign: Campaign) -> None:
    truth = read_truth(campaign.roots.data)
    assert truth == campaign.truth
    stars = read_stars(campaign.roots.data)
    assert len(stars) == len(campaign.stars)
    for frame in truth.frames:
        data = (campaign.roots.raw / frame.path).read_bytes()
        assert hashlib.sha256(data).hexdigest() == frame.sha256
    assert set(truth.filters) >= {"B", "V", "g", "r", "i", "Ha"}


def test_natural_magnitudes_follow_the_stated_terms(campaign: Campaign) -> None:
    import numpy as np

    stars = campaign.stars[np.asarray(campaign.stars["kind"]).astype(str) == "star"]
    for name, band in campaign.truth.filters.items():
        x = stars[band.colour[0]] - stars[band.colour[1]]
        assert np.abs(stars[band.ps1] + band.c1 * x + band.c2 * x**2 - stars[f"{name}_nat"]).max() < 1e-9
    # B - V of a solar colour, g - r = 0.45: 0.65 or so.
    x = np.asarray(stars["g"] - stars["r"])
    sun = np.abs(x - 0.45) < 0.02
    assert np.median((stars["B_J"] - stars["V_J"])[sun]) == pytest.approx(0.70, abs=0.06)


def arguments(root: Path, *more: str) -> list[str]:
    return ["--root", str(root), "--years", "2025", "--fields", "M51", "--filters", "r,Ha", "--frames", "1",
            "--biases", "2", "--flats", "2", "--size", "256", "--seed", "5", "--workers", "1", *more]  # fmt: skip


def test_command(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments(tmp_path)) == 0
    assert "8 frames written, 0 already there" in capsys.readouterr().out
    assert digests(tmp_path) == digests(made)
    assert command.main(arguments(tmp_path)) == 0
    assert "0 frames written, 8 already there" in capsys.readouterr().out


def test_command_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments(tmp_path, "--dry-run")) == 0
    out = capsys.readouterr().out
    assert "would write 2 science frames, 4 flats, 2 biases" in out
    assert "M51 Ha: 1 frames" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--years", "1492"], "--years"),
        (["--years", "soon"], "--years"),
        (["--fields", "M99"], "--fields"),
        (["--filters", "g,g"], "--filters"),
        (["--frames", "0"], "--frames"),
        (["--fields", "M67", "--real-m67", "/nowhere.csv"], "nowhere.csv"),
        (["--fields", "M67", "--filters", "Ha"], "no frame"),
        (["--filters", "Clear"], "the T120 has no filter Clear"),
    ],
)
def test_command_refuses_in_one_line(
    more: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments(tmp_path, *more)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert not (tmp_path / "raw").exists()


def test_command_says_where_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert command.main(arguments(tmp_path / "file")) == 2
    assert "cannot write under" in capsys.readouterr().err


def test_command_leaves_other_frames_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "mine.fits").write_bytes(b"mine")
    assert command.main(arguments(tmp_path)) == 2
    assert "give an empty --root" in capsys.readouterr().err


@pytest.mark.shared
def test_real_cluster(shared: Path) -> None:
    from tasks.simulation import field_sources

    options = SMALL.model_copy(update={"fields": ("M67",), "real_m67": str(shared / "catalogs" / "gaia_edr3_m67.csv")})
    table = field_sources(options, "M67")
    plain = field_sources(options.model_copy(update={"real_m67": None}), "M67")
    assert len(table) > 1000
    assert len(table) != len(plain)
