"""Start-up: of ``--help``, and of a run that has nothing to do, beside a server and with Prefect's embedded one."""

from __future__ import annotations

from statistics import median

from bench.figures import Figure
from bench.place import Place
from bench.processes import run, server
from bench.release import TELESCOPE, Plan, groups_of

__all__ = ["measure"]

_PLAN = Plan(frames=24, years=(2025,), groups=2)


def _spread(values: list[float]) -> str:
    return f"median of {len(values)}, {min(values):.2f} to {max(values):.2f}"


def measure(place: Place) -> list[Figure]:
    """Time whole processes, as a person waits for them; interleaved."""
    roots = place.release("startup", _PLAN)
    year, group = str(_PLAN.years[0]), groups_of(_PLAN)[0].name
    place.child(roots, "startup-first", "--simulated", "--reduce", year, "--stack", group)
    common = ["--root", str(roots.data), "--telescope", TELESCOPE]
    commands = {
        "flows.stack_target --help": ["-m", "flows.stack_target", "--help"],
        "flows.reduce_year": ["-m", "flows.reduce_year", year, *common],
        "flows.stack_target": ["-m", "flows.stack_target", group, *common],
    }
    logs = place.folder / "logs"
    taken: dict[tuple[str, str], list[float]] = {}
    with server(roots.data, logs / "startup-server.log") as beside:
        for turn in range(place.repeats):
            for name, command in commands.items():
                for where, there in (("embedded", None), ("beside a server", beside)):
                    if name.endswith("--help") and there is not None:
                        continue
                    log = logs / f"startup-{name.split('.')[1][:12]}-{where[:8]}-{turn}.log"
                    done = run(command, log, place.environment(there))
                    taken.setdefault((name, where), []).append(done.seconds)
    goals = {"embedded": 20.0, "beside a server": 6.0}
    figures = []
    for (name, where), seconds in taken.items():
        is_help = name.endswith("--help")
        figures.append(
            Figure(
                name=f"python -m {name}" if is_help else f"{name} with nothing to do, {where}",
                value=median(seconds),
                unit="s",
                goal=None if is_help else goals[where],
                detail=_spread(seconds),
            )
        )
    return figures
