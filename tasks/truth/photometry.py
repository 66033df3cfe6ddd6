"""How well the frames' fluxes are known: zero points, their errors, the frames' scales relative to each other."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from tasks.truth.figure import Figure, robust
from tasks.truth.scene import Scene

__all__ = ["relative_figures", "zero_point_figures"]

_SETS = (("g r i", ("g", "r", "i"), 5.0, 6.0, 0.03), ("B V", ("B", "V"), 10.0, 10.0, 0.05))
_NARROW = ("Ha",)


def zero_point_figures(scene: Scene) -> list[Figure]:
    """Frame zero points against the truth, by filter; whether their errors hold; scatter of their stars."""
    error: dict[str, list[float]] = defaultdict(list)
    pull: dict[str, list[float]] = defaultdict(list)
    rms: dict[str, list[float]] = defaultdict(list)
    calibrated = asked = 0
    for record, true in scene.pairs:
        band = true.filter or ""
        if band in _NARROW or not band:
            continue
        asked += 1
        point = record.calibrated.zero_point if record.calibrated else None
        if point is None or point.zp is None or point.zp_err is None or true.zero_point is None:
            continue
        calibrated += 1
        error[band].append(1e3 * (point.zp - true.zero_point))
        pull[band].append((point.zp - true.zero_point) / point.zp_err)
        rms[band].append(point.zp_rms or 0.0)
    figures = [
        Figure(name="broad-band frames calibrated", value=100 * calibrated / max(asked, 1), unit="%",
               detail=f"{calibrated} of {asked}")
    ]  # fmt: skip
    for name, bands, bias_goal, scatter_goal, rms_goal in _SETS:
        seen = [band for band in bands if len(error[band]) >= 3]
        if not seen:
            continue
        bias = {band: float(np.median(error[band])) for band in seen}
        scatter = {band: robust(error[band]) for band in seen}
        typical = {band: float(np.median(rms[band])) for band in seen}
        every = [value for band in seen for value in error[band]]
        far = max(seen, key=lambda band: abs(bias[band]))
        pulls = [value for band in seen for value in pull[band]]
        figures += [
            Figure(name=f"frame zero points {name}, abs(bias), worst filter", value=abs(bias[far]), unit="mmag",
                   goal=bias_goal, bound=2 * bias_goal,
                   detail=", ".join(f"{band} {bias[band]:+.1f}" for band in seen) + f"; {len(every)} frames"),
            Figure(name=f"frame zero points {name}, scatter, worst filter", value=max(scatter.values()), unit="mmag",
                   goal=scatter_goal, bound=2 * scatter_goal,
                   detail=", ".join(f"{band} {scatter[band]:.1f}" for band in seen)),
            Figure(name=f"frame zero points {name}, largest error", value=max(map(abs, every)), unit="mmag",
                   bound=50.0),
            Figure(name=f"frame zero points {name}, pull width of the quoted errors", value=robust(pulls, 0.0), unit="",
                   goal=1.25, least=0.8, better="between", bound=2.5, pulls=tuple(pulls),
                   detail="1.4826 MAD about 0; " + ", ".join(f"{b} {robust(pull[b], 0.0):.2f}" for b in seen)),
            Figure(name=f"rms of clean stars on a frame, {name}, worst filter", value=max(typical.values()), unit="mag",
                   goal=rms_goal, detail=", ".join(f"{band} {typical[band]:.3f}" for band in seen)),
        ]  # fmt: skip
    return figures


def relative_figures(scene: Scene) -> list[Figure]:
    """Scales of the frames of each stack (``ZPTnnnn`` in its header) against the true ones, free of their mean."""
    scatter: dict[str, float] = {}
    squares: dict[str, tuple[float, int]] = {}
    for stack in scene.stacks():
        inputs = scene.inputs(stack)
        used = [stack.header.get(f"ZPT{number:04d}") for number in range(1, len(inputs) + 1)]
        if any(value is None for value in used) or len(used) < 3:
            continue
        off = np.array(
            [float(zp) - true.zero_point for zp, (_, true) in zip(used, inputs, strict=True) if true.zero_point]
        )
        scatter[stack.label] = 1e3 * float(np.std(off - off.mean(), ddof=1))
        squares[stack.label] = 1e6 * float(np.sum((off - off.mean()) ** 2)), len(off)
    figures = []
    for name, narrow, goal in (("broad", False, 5.0), ("narrow", True, 10.0)):
        mine = {label: value for label, value in scatter.items() if (label.split()[1] in _NARROW) == narrow}
        if mine:
            worst = max(mine, key=lambda label: mine[label])
            total, free = sum(squares[label][0] for label in mine), sum(squares[label][1] - 1 for label in mine)
            name = f"relative scale of a stack's frames, {name} bands"
            figures += [
                Figure(name=f"{name}, rms", value=float(np.sqrt(total / free)), unit="mmag", goal=goal, bound=2 * goal,
                       detail=f"{free + len(mine)} frames of {len(mine)} stacks"),
                Figure(name=f"{name}, worst stack", value=mine[worst], unit="mmag", bound=2 * goal,
                       detail=f"{worst}, {squares[worst][1]} frames; median {np.median(list(mine.values())):.1f}"),
            ]  # fmt: skip
    return figures
