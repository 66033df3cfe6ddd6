"""Where a frame looks that says nothing of it, or the wrong thing: the sources against all of an index."""

from __future__ import annotations

import numpy as np

from models.astrometry import IndexSet
from models.base import Roots
from models.catalog import Cone
from models.frame import MeasuredFrame
from models.settings import AstrometrySettings
from models.telescope import Telescope
from tasks.astrometry.headers import frame_geometry
from tasks.astrometry.plate import starlike
from tasks.astrometry.solver import run_solve_field
from tasks.astrometry.sources import load_sources

__all__ = ["locate_frame"]

_SLACK_DEG = 0.05


def locate_frame(
    measured: MeasuredFrame, index: IndexSet, limit_s: float, roots: Roots, telescope: Telescope,
    settings: AstrometrySettings,
) -> Cone:  # fmt: skip
    """Look for a frame all over an index, whatever its header says.

    The answer is astrometry.net's alone (its odds are a billion to one and better); `solve_frame` fits and verifies it.

    Parameters
    ----------
    measured
        Frame and source list.
    index
        Of one field, of many (`gathered_index`), or of the whole sky.
    limit_s
        solve-field's CPU limit, s.

    Returns
    -------
    The frame's centre, and as radius what it reaches to, with some slack.

    Raises
    ------
    StageError
        Too few sources, or no match.
    ToolMissingError, ToolFailedError
    """
    shape, nominal = measured.raw.shape, telescope.camera.scale_at(measured.raw.binning)
    sources = starlike(load_sources(measured, roots, telescope), measured, settings)
    wcs, _ = run_solve_field(
        sources.x, sources.y, sources.flux, shape, None, index, roots,
        (settings.scale_low * nominal, settings.scale_high * nominal), telescope.camera.parity, limit_s,
        want_index_stars=False, log=roots.logs / "astrometry" / f"{measured.raw.night}_{measured.raw.name}_blind.log",
        timeout_s=settings.timeout_s,
    )  # fmt: skip
    ra, dec, scale, _, _ = frame_geometry(wcs, shape)
    reach = float(np.hypot(*shape)) / 2 * scale / 3600 + _SLACK_DEG
    return Cone(ra=round(ra, 4) % 360, dec=round(dec, 4), radius=round(reach, 3))
