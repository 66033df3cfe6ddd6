"""Simulated campaigns: the default data, and the truth that every figure of accuracy is measured against."""

from tasks.simulation.archive import Exposure, play_archive, read_archive_truth, visible_stars
from tasks.simulation.bands import BANDS, natural, true_filters
from tasks.simulation.camera import response
from tasks.simulation.campaign import Simulated, read_stars, read_truth, simulate_campaign
from tasks.simulation.expose import cosmic_ray_charge
from tasks.simulation.extended import SPIRAL, draw_spiral
from tasks.simulation.measure import true_sources
from tasks.simulation.optics import pixel_area, to_pixels, to_sky, wcs_header
from tasks.simulation.places import FIELDS
from tasks.simulation.plan import Shot, plan_campaign
from tasks.simulation.sky import at_epoch, field_sources

__all__ = [
    "BANDS",
    "Exposure",
    "FIELDS",
    "SPIRAL",
    "Shot",
    "Simulated",
    "at_epoch",
    "cosmic_ray_charge",
    "draw_spiral",
    "field_sources",
    "natural",
    "pixel_area",
    "plan_campaign",
    "play_archive",
    "read_archive_truth",
    "read_stars",
    "read_truth",
    "response",
    "simulate_campaign",
    "to_pixels",
    "to_sky",
    "true_filters",
    "true_sources",
    "visible_stars",
    "wcs_header",
]
