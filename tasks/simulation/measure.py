"""The truth about one frame in the frame's own terms: where each source is and how much of its light is there."""

from __future__ import annotations

import numpy as np
from astropy.table import Table

from models.simulation import TrueFrame
from tasks.simulation.optics import to_pixels
from tasks.simulation.sky import at_epoch

__all__ = ["true_sources"]


def true_sources(frame: TrueFrame, stars: Table, margin_px: float = 0.0) -> Table:
    """Sources of a science frame at its mid-exposure.

    Parameters
    ----------
    frame
        A science frame of the truth.
    stars
        The campaign's source table (`read_stars`).
    margin_px
        How far outside the frame a source may lie.

    Returns
    -------
    Table
        The rows of `stars` on the frame with ``ra_now dec_now`` (deg, at mid-exposure), ``x y`` (1-based px),
        ``mag`` (natural system of the frame's filter) and ``flux`` (all of its light in the reduced, flat-fielded
        frame, ADU; includes the pixel-area effect), brightest first.

    Raises
    ------
    ValueError
        If the frame is not a science frame.
    """
    wcs = frame.wcs
    if wcs is None or frame.mid_jyear is None or frame.zero_point is None or frame.filter is None:
        raise ValueError(f"{frame.path} is a {frame.kind}, not a science frame")
    mine = stars[np.asarray(stars["field"]).astype(str) == frame.field]
    ra, dec = at_epoch(mine, frame.mid_jyear)
    x, y = to_pixels(wcs, ra, dec)
    rows, columns = wcs.shape
    on = (x > 0.5 - margin_px) & (x < columns + 0.5 + margin_px) & (y > 0.5 - margin_px) & (y < rows + 0.5 + margin_px)
    table = mine[on]
    r2 = (x[on] - wcs.crpix[0]) ** 2 + (y[on] - wcs.crpix[1]) ** 2
    table["ra_now"], table["dec_now"], table["x"], table["y"] = ra[on], dec[on], x[on], y[on]
    table["mag"] = table[f"{frame.filter}_nat"]
    area = (1 + wcs.k * r2) * (1 + 3 * wcs.k * r2)
    table["flux"] = frame.exptime * 10 ** (-0.4 * (np.asarray(table["mag"]) - frame.zero_point)) / area
    return table[np.argsort(np.asarray(table["mag"]))]
