"""Whether cosmic rays are found, and stars spared."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.frame import FrameRecord, MaskBit
from models.simulation import TrueFrame
from tasks.calibration import read_reduced
from tasks.simulation import Shot, cosmic_ray_charge, plan_campaign, true_sources
from tasks.truth.figure import Figure
from tasks.truth.scene import Scene

__all__ = ["mask_figures"]

_STAR_SNR = 20.0
_HIT_SIGMA = 10.0
_EIGHT = np.ones((3, 3), bool)


def _stars_and_hits(record: FrameRecord, true: TrueFrame, shot: Shot, scene: Scene) -> tuple[int, int, int, int] | None:
    """Star cores, those touched where no particle was, particles that show, and those masked."""
    if record.reduced is None or true.seeing_arcsec is None:
        return None
    _, mask, variance, _ = read_reduced(record.reduced, scene.roots)
    found = (mask & np.uint8(MaskBit.COSMIC_RAY)) != 0
    charge = cosmic_ray_charge(shot, scene.truth.options) / scene.truth.gain
    near: npt.NDArray[np.bool_] = ndimage.binary_dilation(charge > 0, _EIGHT, iterations=2)
    sources = true_sources(true, scene.stars)
    stars = sources[sources["kind"] == "star"]
    noise = np.sqrt(float(np.median(variance)) * np.pi) * true.seeing_arcsec / scene.telescope.camera.grid_scale
    stars = stars[np.asarray(stars["flux"]) > _STAR_SNR * noise]
    column, row = (np.rint(np.asarray(stars[key])).astype(int) - 1 for key in ("x", "y"))
    inside = (column > 0) & (row > 0) & (column < mask.shape[1] - 1) & (row < mask.shape[0] - 1)
    column, row = column[inside], row[inside]
    core = ndimage.maximum_filter(found.astype(np.uint8), size=3)[row, column] > 0
    free = ~near[row, column]
    hits, n_hits = ndimage.label(charge > _HIT_SIGMA * np.sqrt(variance), structure=_EIGHT)
    # A particle on a bright star, or in a pixel that is masked already, is not to be seen.
    hidden = set(np.unique(hits[(mask & ~np.uint8(MaskBit.COSMIC_RAY)) != 0])) | {0}
    seen = [label for label in range(1, n_hits + 1) if label not in hidden]
    masked = set(np.unique(hits[found]))
    return int(free.sum()), int((core & free).sum()), len(seen), sum(label in masked for label in seen)


def mask_figures(scene: Scene, every_frame: int = 6) -> list[Figure]:
    """Share of star cores (S/N > 20) that the cosmic-ray mask touches, and of particles (10 sigma) that it finds.

    Parameters
    ----------
    scene
        The campaign.
    every_frame
        Every so many frames are looked at.
    """
    shots = {shot.path: shot for shot in plan_campaign(scene.truth.options)}
    counts = np.array(
        [
            counted
            for record, true in scene.pairs[::every_frame]
            if (counted := _stars_and_hits(record, true, shots[true.path], scene)) is not None
        ]
    )
    if not len(counts):
        return []
    cores, touched, hits, masked = counts.sum(axis=0)
    return [
        Figure(name="star cores touched by the cosmic-ray mask", value=100 * float(touched / max(cores, 1)), unit="%",
               goal=0.1, bound=0.3, detail=f"{touched} of {cores} on {len(counts)} frames"),
        Figure(name="particles of more than 10 sigma that are masked", value=100 * float(masked / max(hits, 1)),
               unit="%", goal=None, better="above", bound=90.0, detail=f"{masked} of {hits}"),
    ]  # fmt: skip
