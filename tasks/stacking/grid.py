"""The grid that all filters of a group share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from models.base import Roots
from models.settings import StackSettings
from models.stack import Grid, Selection
from models.telescope import Telescope
from tasks.core.errors import StageError
from tasks.stacking.heads import frame_label, head_wcs, outline

__all__ = ["common_grid", "grid_header"]

FloatArray = npt.NDArray[np.float64]

MAX_SIDE_PX = 20_000
"""A group is a field of view or a few; a larger box means that a frame is in the wrong place."""


def unit_vectors(ra: FloatArray, dec: FloatArray) -> FloatArray:
    """Directions on the sky (deg) as unit vectors, shape (n, 3): neither 0 h nor the poles are special."""
    a, d = np.deg2rad(ra), np.deg2rad(dec)
    return np.column_stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])


def direction(vector: FloatArray) -> tuple[float, float]:
    """Right ascension in [0, 360) and declination (deg) of a vector."""
    x, y, z = vector / np.linalg.norm(vector)
    return math.degrees(math.atan2(y, x)) % 360.0, math.degrees(math.asin(max(-1.0, min(1.0, z))))


def tangent_plane(vectors: FloatArray, ra: float, dec: float) -> FloatArray:
    """Gnomonic standard coordinates (deg, east and north positive) of unit vectors, shape (n, 2).

    Points on the other hemisphere become NaN.
    """
    a, d = math.radians(ra), math.radians(dec)
    centre = np.array([math.cos(d) * math.cos(a), math.cos(d) * math.sin(a), math.sin(d)])
    east = np.array([-math.sin(a), math.cos(a), 0.0])
    north = np.array([-math.sin(d) * math.cos(a), -math.sin(d) * math.sin(a), math.cos(d)])
    depth = vectors @ centre
    depth = np.where(depth > 0, depth, np.nan)
    plane: FloatArray = np.rad2deg(np.column_stack([vectors @ east / depth, vectors @ north / depth]))
    return plane


def _footprints(selections: Sequence[Selection], roots: Roots) -> FloatArray:
    points = []
    for scaled in (frame for selection in selections for frame in selection.chosen):
        sky = head_wcs(scaled.aligned, roots).all_pix2world(outline(scaled.aligned.frame.raw.shape), 1)
        if not np.isfinite(sky).all():
            raise StageError(
                "grid",
                f"the .head of {frame_label(scaled.aligned)} maps a corner nowhere on the sky",
                "align the group again; leave this frame out",
            )
        points.append(unit_vectors(sky[:, 0], sky[:, 1]))
    return np.vstack(points) if points else np.empty((0, 3))


def common_grid(selections: Sequence[Selection], roots: Roots, telescope: Telescope, settings: StackSettings) -> Grid:
    """Smallest box, north up, around all frames of all filters, plus a margin.

    Parameters
    ----------
    selections
        One a filter; those without frames are passed over.
    roots
        Where the `.head` files are.
    telescope
        Its ``camera.grid_scale`` is the scale of the grid.
    settings
        ``padding_px`` is the margin.

    Raises
    ------
    StageError
        If no frame was chosen, a `.head` makes no sense, or the box is absurdly large.
    """
    vectors = _footprints(selections, roots)
    if not len(vectors):
        raise StageError("grid", "no frame was chosen in any filter", "see the reasons of the rejected frames")
    ra, dec = direction(vectors.mean(axis=0))
    for _ in range(3):  # the box's centre is the projection's centre after a few steps
        plane = tangent_plane(vectors, ra, dec)
        if not np.isfinite(plane).all():
            raise StageError(
                "grid",
                "the frames cover more than a hemisphere",
                "look for frames of another field among them",
            )
        xi, eta = np.deg2rad((plane.min(axis=0) + plane.max(axis=0)) / 2)
        a, d = math.radians(ra), math.radians(dec)
        centre = np.array([math.cos(d) * math.cos(a), math.cos(d) * math.sin(a), math.sin(d)])
        east = np.array([-math.sin(a), math.cos(a), 0.0])
        north = np.array([-math.sin(d) * math.cos(a), -math.sin(d) * math.sin(a), math.cos(d)])
        ra, dec = direction(centre + xi * east + eta * north)
    ra, dec = round(ra, 6) % 360.0, round(dec, 6)
    scale = telescope.camera.grid_scale
    half = np.abs(tangent_plane(vectors, ra, dec)).max(axis=0) * 3600.0 / scale
    nx, ny = (2 * math.ceil(side) + 2 * settings.padding_px for side in half)
    if max(nx, ny) > MAX_SIDE_PX:
        raise StageError(
            "grid",
            f"the box around all frames is {nx} x {ny} px ({nx * scale / 3600:.2f} x {ny * scale / 3600:.2f} deg), "
            f"more than {MAX_SIDE_PX} px",
            "look for a frame of another field in the group, or make its radius smaller",
        )
    return Grid(ra=ra, dec=dec, pixel_scale=scale, nx=nx, ny=ny)


def grid_header(grid: Grid) -> fits.Header:
    """The grid as WCS cards: TAN with a CD matrix, north up, east left, ICRS."""
    step = grid.pixel_scale / 3600.0
    header = fits.Header()
    header["RADESYS"] = ("ICRS", "celestial reference system")
    header["CTYPE1"] = ("RA---TAN", "gnomonic projection")
    header["CTYPE2"] = ("DEC--TAN", "gnomonic projection")
    header["CUNIT1"] = ("deg", "unit of CRVAL1 and CD1_i")
    header["CUNIT2"] = ("deg", "unit of CRVAL2 and CD2_i")
    header["CRPIX1"] = ((grid.nx + 1) / 2, "[px] reference pixel")
    header["CRPIX2"] = ((grid.ny + 1) / 2, "[px] reference pixel")
    header["CRVAL1"] = (grid.ra, "[deg] right ascension at the reference pixel")
    header["CRVAL2"] = (grid.dec, "[deg] declination at the reference pixel")
    header["CD1_1"] = (-step, "[deg/px] linear matrix")
    header["CD1_2"] = (0.0, "[deg/px] linear matrix")
    header["CD2_1"] = (0.0, "[deg/px] linear matrix")
    header["CD2_2"] = (step, "[deg/px] linear matrix")
    return header
