"""The pure functions one after the other, from raw frames to a filter's stack: what the flows do, without Prefect."""

from __future__ import annotations

from typing import NamedTuple

from models.astrometry import Alignment
from models.base import Roots
from models.catalog import Cone
from models.frame import FrameRecord
from models.settings import Settings
from models.stack import Scaling, Selection, Stack
from models.target import Target
from models.telescope import Telescope
from tasks.astrometry import align_frames, build_index, solve_frame
from tasks.calibration import make_master_bias, make_master_flat, reduce_frame
from tasks.catalogs import find_cone
from tasks.inventory import take_inventory
from tasks.photometry import calibrate_frame
from tasks.psf import stack_psf
from tasks.quality import measure_frame
from tasks.stacking import (
    combine,
    common_grid,
    depth,
    finish_stack,
    group_centre,
    relative_zero_points,
    select_frames,
    stack_noise,
)

SETTINGS = Settings()


class Chain(NamedTuple):
    """What came of the frames of a filter."""

    records: tuple[FrameRecord, ...]
    alignment: Alignment
    scaling: Scaling
    selection: Selection
    stack: Stack


def stacked_frames(roots: Roots, telescope: Telescope, target: Target, filter: str, reach: float = 0.45) -> Chain:
    """Reduce, solve, calibrate, align and stack a filter's frames; catalogues reach `reach` deg about the target."""
    frames = take_inventory(roots, telescope).frames
    bias = make_master_bias([f for f in frames if f.kind == "bias"], roots, telescope, SETTINGS.bias)
    flats = [f for f in frames if f.kind == "flat" and f.filter == filter]
    flat = make_master_flat(flats, bias, roots, telescope, SETTINGS.flat)
    hint = Cone(ra=target.ra, dec=target.dec, radius=reach)
    gaia, ps1 = find_cone("gaia", hint, roots), find_cone("ps1", hint, roots)
    assert gaia is not None
    index = build_index(gaia, roots, telescope)
    records = []
    for raw in frames:
        if raw.kind != "science" or raw.filter != filter:
            continue
        reduced = reduce_frame(raw, bias, flat, roots, telescope, SETTINGS.reduction)
        measured = measure_frame(reduced, roots, telescope, SETTINGS.quality)
        solved = solve_frame(measured, hint, index, gaia, roots, telescope, SETTINGS.astrometry)
        calibrated = calibrate_frame(solved, ps1, roots, telescope, SETTINGS.photometry)
        records.append(FrameRecord(raw=raw, reduced=reduced, solved=solved, calibrated=calibrated))
    alignment = align_frames(records, gaia, target.name, roots, telescope, SETTINGS.scamp)
    aligned = alignment.aligned
    scaling = relative_zero_points(aligned, ps1, roots, telescope, SETTINGS.photometry)
    centre = group_centre(aligned)
    selection = select_frames(target, filter, scaling, (), roots, telescope, SETTINGS.selection, centre=centre)
    grid = common_grid([selection], roots, telescope, SETTINGS.stack)
    stack = combine(selection, grid, roots, telescope, SETTINGS.stack)
    psf = stack_psf(stack, roots, telescope, SETTINGS.psf)
    limit = depth(stack, psf, stack_noise(stack, psf, roots), roots)
    return Chain(tuple(records), alignment, scaling, selection, finish_stack(stack, psf, None, roots, limit))
