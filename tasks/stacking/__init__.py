"""Stacking: flux scale from common stars, selection, shared grid, weights, SWarp, the published stack, its pictures."""

from tasks.stacking.colour import stack_colour
from tasks.stacking.combine import SwarpOptions, combine, overlap_px
from tasks.stacking.depth import depth, empty_aperture_sigma, measure_noise, stack_noise
from tasks.stacking.extended import extend, finish_extended
from tasks.stacking.grid import common_grid, grid_header
from tasks.stacking.objects import find_sources, wanted
from tasks.stacking.pictures import (
    ColourImage,
    StackView,
    lupton,
    plot_extended,
    plot_rgb,
    plot_stack,
    stack_view,
    stretched,
)
from tasks.stacking.product import finish_stack
from tasks.stacking.scaling import relative_zero_points, star_fluxes
from tasks.stacking.selection import group_centre, select_frames
from tasks.stacking.starflux import StarFluxes
from tasks.stacking.weights import make_weights

__all__ = [
    "ColourImage",
    "StackView",
    "StarFluxes",
    "SwarpOptions",
    "combine",
    "common_grid",
    "depth",
    "empty_aperture_sigma",
    "extend",
    "find_sources",
    "finish_extended",
    "finish_stack",
    "grid_header",
    "group_centre",
    "lupton",
    "make_weights",
    "measure_noise",
    "overlap_px",
    "plot_extended",
    "plot_rgb",
    "plot_stack",
    "relative_zero_points",
    "select_frames",
    "star_fluxes",
    "stack_view",
    "stretched",
    "wanted",
    "stack_noise",
    "stack_colour",
]
