"""The benchmarks' harness: it measures what it says. No figure of speed is asserted here."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from bench.__main__ import SUBJECTS, main
from bench.contest import contest, ratio
from bench.figures import Figure, Measured, merged, read_results, table
from bench.flat import sampler, slope
from bench.place import Place
from bench.processes import REPO, clean_environment, cpu_of_tree, memory_of, run
from bench.release import FILTERS, TELESCOPE, Plan, groups_of, make_release
from bench.scale import Costs, Limits, Station, mean_value_analysis, night
from bench.stages import REPLACED
from models.base import Roots
from models.telescope import load_telescope
from tasks.catalogs import find_cone
from tasks.inventory import take_inventory


def measured(subject: str, value: float) -> Measured:
    figure = Figure(name="ratio", value=value, goal=0.1)
    return Measured(
        subject=subject, made="2025-01-01T00:00:00Z", command="python -m bench x", machine={"load": [0.5, 0.7]},
        software={}, seconds=1.0, figures=(figure,),
    )  # fmt: skip


def test_a_goal_is_a_bound_on_the_side_it_says():
    assert Figure(name="x", value=0.1, goal=0.1).reached is True
    assert Figure(name="x", value=0.11, goal=0.1).reached is False
    assert Figure(name="x", value=1.9, goal=1.8, better="above").reached is True
    assert Figure(name="x", value=1.7, goal=1.8, better="above").reached is False
    assert Figure(name="x", value=1.7).reached is None


def test_a_subject_measured_again_takes_the_place_of_its_old_figures_only(tmp_path):
    path = tmp_path / "results.json"
    merged([measured("one", 0.05), measured("two", 0.3)], path)
    merged([measured("one", 0.07)], path)
    results = read_results(path)
    assert results.subjects["one"].figures[0].value == 0.07
    assert results.subjects["two"].figures[0].value == 0.3
    assert json.loads(path.read_text())["schema"] == 1


def test_the_table_has_the_goal_beside_each_figure_and_says_what_was_missed():
    lines = table([measured("one", 0.05), measured("two", 0.3)]).splitlines()
    good, bad = (line for line in lines if line.startswith("  ratio"))
    assert good.split() == ["ratio", "0.05", "<=", "0.1", "yes"]
    assert bad.split() == ["ratio", "0.3", "<=", "0.1", "NO"]


def test_every_subject_is_a_module_that_measures():
    for name in SUBJECTS:
        assert callable(importlib.import_module(f"bench.{name}").measure)


def test_an_unknown_subject_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["speed"])
    assert stopped.value.code == 2
    assert "startup" in capsys.readouterr().err


def test_processor_time_covers_children_that_live_and_those_waited_for():
    burn = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass\n"
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn.format(0.3)!r}])\n"
    process = subprocess.Popen(
        [sys.executable, "-c", child + burn.format(0.2) + "print('done', flush=True)\ninput()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "done\n"
        used = cpu_of_tree(process.pid)
        # The child alone, waited for, spent 0.3 s; the process itself 0.2 s.
        assert used >= 0.48
        assert cpu_of_tree(os.getpid()) >= used
        assert memory_of(process.pid) > 3
    finally:
        process.communicate("\n")
    assert memory_of(process.pid) == 0.0


def test_a_process_that_fails_is_no_measurement(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)status 3.*why it failed"):
        run(["-c", "print('why it failed'); raise SystemExit(3)"], tmp_path / "log", clean_environment())
    done = run(["-c", "import time; time.sleep(0.2)"], tmp_path / "log", clean_environment())
    assert 0.2 <= done.seconds < 30


def test_settings_of_the_shell_are_no_part_of_a_measurement(monkeypatch):
    monkeypatch.setenv("OHP_WORKERS", "7")
    monkeypatch.setenv("PREFECT_API_URL", "http://somewhere/api")
    kept = clean_environment(OHP_DATA_ROOT="/x")
    assert {name for name in kept if name.startswith(("OHP_", "PREFECT_"))} == {"OHP_CATALOG_MODE", "OHP_DATA_ROOT"}


def test_growth_is_fitted_after_the_start():
    frames = np.arange(0.0, 1000.0, 5.0)
    samples = [(n, (250.0 if n >= 50 else 5 * n) + 0.02 * n) for n in frames]
    assert slope(samples, 1000) == pytest.approx(20.0)


def test_the_sampler_counts_ended_stages_in_frames(tmp_path):
    roots = Roots(data=tmp_path, raw=tmp_path / "raw")
    sample = sampler(roots)
    assert sample(os.getpid())[0] == 0
    roots.logs.mkdir()
    (roots.logs / "made.jsonl").write_text("{}\n" * 14)
    assert sample(os.getpid())[0] == 2
    with (roots.logs / "made.jsonl").open("a") as stream:
        stream.write("{}\n" * 7)
    assert sample(os.getpid())[0] == 3


def test_what_is_replaced_is_what_the_tasks_hand_to_the_pool():
    for module, functions in REPLACED.items():
        for name, function in functions.items():
            true = getattr(importlib.import_module(module), name)
            assert true is not function, f"{module}.{name} was left replaced"
            names = true.__code__.co_varnames[: true.__code__.co_argcount]
            assert function.__code__.co_varnames[: function.__code__.co_argcount] == names, f"{module}.{name}"


def test_every_stage_that_looks_at_pixels_has_a_trivial_one():
    """Else a benchmark of orchestration would measure (or fail in) a true stage."""
    from tasks.core.running import made, settled

    left = []
    for path in sorted((REPO / "tasks").glob("*/tasks.py")):
        module = f"tasks.{path.parent.name}.tasks"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            if call.func.id not in (made.__name__, settled.__name__):
                continue
            handed = call.args[0 if call.func.id == made.__name__ else 1]
            if isinstance(handed, ast.Name) and handed.id not in REPLACED.get(module, {}):
                left.append(f"{module}: {handed.id}")
    # A compressed copy, a blind search and stacks for extended targets are not asked for in a simulated release.
    assert sorted(left) == [
        "tasks.archive.tasks: compress_image",
        "tasks.astrometry.tasks: locate_frame",
        "tasks.stacking.tasks: extend",
        "tasks.stacking.tasks: finish_extended",
        "tasks.stacking.tasks: plot_extended",
    ]


def test_the_simulated_release_is_one_that_the_inventory_and_the_store_understand(tmp_path):
    roots = Roots(data=tmp_path, raw=tmp_path / "raw")
    plan = Plan(frames=30, years=(2023, 2025), groups=3)
    make_release(plan, roots)
    telescope = load_telescope(TELESCOPE, roots.data)
    inventory = take_inventory(roots, telescope)
    assert inventory.unusable == ()
    science = [frame for frame in inventory.frames if frame.kind == "science"]
    assert len(science) == 30
    assert {frame.filter for frame in science} == set(FILTERS)
    assert {frame.year for frame in science} == {2023, 2025}
    assert {frame.object for frame in science} == {target.name for target in groups_of(plan)}
    assert {frame.kind for frame in inventory.frames} == {"science", "bias", "flat"}
    from flows._frame import field_calls
    from models.run import RunContext
    from models.settings import Settings

    run_context = RunContext.of(TELESCOPE, Settings(data_root=roots.data, raw_root=roots.raw))
    for field, _, _ in field_calls(science, run_context):
        assert find_cone("gaia", field.cone, roots) is not None
        assert find_cone("ps1", field.cone, roots) is not None


def test_two_contenders_take_turns_and_tell_what_they_made(tmp_path):
    place = Place(tmp_path, repeats=1, frames=24, say=lambda _: None)
    taken = contest(place, "here", "tests.bench.contenders", {"size": 3}, ("quick", "slow"))
    assert [len(taken[name].seconds) for name in ("quick", "slow")] == [1, 1]
    assert (taken["quick"].said, taken["slow"].said) == ({"size": 3}, None)
    assert min(taken["slow"].seconds) > 0.2 > max(taken["quick"].seconds)
    assert taken["slow"].memory_mb[0] > taken["quick"].memory_mb[0] + 40
    figure = ratio("slow against quick", taken["slow"].seconds, taken["quick"].seconds, 2.0, better="above")
    assert figure.reached is True


@pytest.mark.parametrize("servers", [1, 4])
def test_the_queueing_network_knows_its_limits(servers):
    stations = [Station("cores", 2.0, servers), Station("server", 0.05)]
    alone, _ = mean_value_analysis(stations, 1)
    assert alone == pytest.approx(1 / 2.05)
    many, busy = mean_value_analysis(stations, 400)
    assert many == pytest.approx(min(servers / 2.0, 1 / 0.05), rel=0.01)
    assert busy["cores"] == pytest.approx(1.0, abs=0.01)


def test_one_queue_alone_has_an_exact_answer():
    """Two equal single servers and N customers: N / (N + 1) of a server's rate (balanced network)."""
    rate, _ = mean_value_analysis([Station("a", 1.0), Station("b", 1.0)], 5)
    assert rate == pytest.approx(5 / 6)


def test_what_holds_a_night_up_changes_with_the_cores():
    costs = Costs(core=1.5, flow=0.05, server=0.045, bytes=3e7, fixed=5.0, scamp=(0.05, 1.0))
    limits = Limits(disk=2e9)
    assert night(costs, limits, 10_000, 2)[1] == "cores"
    assert night(costs, limits, 10_000, 1024)[1] in ("the flow's process", "Prefect's server")
    batched = night(costs, replace(limits, batch=10, flows=32, servers=8), 10_000, 1024)
    assert batched[0] < 0.5 * night(costs, limits, 10_000, 1024)[0]
