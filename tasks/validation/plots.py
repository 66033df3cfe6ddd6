"""What the comparison with PS1 looks like."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.base import FileRef, Roots
from models.stack import Stack, StackValidation
from tasks.core.files import ref, writing
from tasks.validation.validate import Residuals

__all__ = ["plot_validation"]

# Okabe & Ito's colours, told apart by everybody and in grey.
_USED, _CLIPPED, _LINE = "#0072B2", "#D55E00", "#000000"


def plot_validation(
    stack: Stack, found: Residuals | None, verdict: StackValidation, path: Path, roots: Roots
) -> FileRef:
    """Residuals against magnitude and colour, as PNG; reproducible to the byte.

    Parameters
    ----------
    stack
        Named in the title.
    found
        From `residuals`; None where there is nothing to show: the plot then says why.
    verdict
        From `validate_stack`.
    path
        ``stacks/{group}/{telescope}/plots/{group}_{filter}_phot.png`` below the data root.
    roots
        Folders.

    Returns
    -------
    FileRef
        Of the plot.
    """
    # Not at the top: matplotlib takes half a second that reading this module should not cost.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    word = "validated" if verdict.validated else "not validated"
    figure.suptitle(f"{stack.group} {stack.filter}: {word}", fontsize=13)
    if found is None or found.mag.size == 0:
        # A dollar sign in a reason begins no formula.
        figure.text(0.5, 0.5, verdict.reason, ha="center", va="center", wrap=True, fontsize=11, parse_math=False)
    else:
        axes = figure.subplots(1, 2, sharey=True)
        _draw(axes, stack, found, verdict)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    layout = figure.get_layout_engine()
    if layout is not None:  # now: Matplotlib would draw it all once for that and throw it away
        if figure.axes:  # it warns of a figure that holds words alone
            layout.execute(figure)
        figure.set_layout_engine(None)
    with writing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return ref(path, roots)


def _draw(axes: np.ndarray, stack: Stack, found: Residuals, verdict: StackValidation) -> None:
    shown = np.isfinite(found.difference)
    spread = found.rms or 0.05
    centre = found.offset if found.offset is not None else float(np.median(found.difference[shown]))
    half = max(0.15, 6 * spread)
    low, high = min(centre - half, -0.05), max(centre + half, 0.05)
    outside = int((shown & ((found.difference < low) | (found.difference > high))).sum())
    for axis, values, label in (
        (axes[0], found.mag, f"PS1 magnitude of the stars in {stack.filter}'s band"),
        (axes[1], found.colour, f"PS1 {found.colour_name} (mag)" if found.colour_name else "no colour for this filter"),
    ):
        good = shown & np.isfinite(values)
        for chosen, colour, marker, name in (
            (good & found.used, _USED, "o", f"used ({int(found.used.sum())})"),
            (good & ~found.used, _CLIPPED, "x", f"clipped ({int((shown & ~found.used).sum())})"),
        ):
            axis.errorbar(
                values[chosen], found.difference[chosen], yerr=found.error[chosen], fmt=marker, ms=4, color=colour,
                elinewidth=0.5, alpha=0.75, label=name, ls="none",
            )  # fmt: skip
        axis.axhline(0.0, color="0.6", lw=1, ls=":")
        if found.offset is not None:
            axis.axhline(found.offset, color=_LINE, lw=1.2, label=f"offset {found.offset:+.3f} mag")
        axis.set_xlabel(label)
        axis.set_ylim(low, high)
        axis.grid(alpha=0.2)
    axes[0].set_ylabel("stack − PS1, colour term applied (mag)")
    lines = [f"colour term {found.colour_term:+.3f} ({found.colour_source})"]
    if verdict.zp_rms is not None and verdict.zp_err is not None:
        lines.insert(0, f"rms {verdict.zp_rms:.3f}, error of the offset {verdict.zp_err:.4f} mag")
    if outside:
        lines.append(f"{outside} stars beyond the frame of the plot")
    axes[1].text(0.02, 0.02, "\n".join(lines), transform=axes[1].transAxes, fontsize=8, va="bottom")
