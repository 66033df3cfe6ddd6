"""Photometry: stars in apertures, zero points against PS1. Used for frames and for stacks."""

from tasks.photometry.apertures import (
    Apertures,
    GrowthCurve,
    aperture_fluxes,
    aperture_photometry,
    default_curve,
    fit_growth_curve,
    growth_curve,
    moffat_enclosed,
)
from tasks.photometry.area import area_map, central_area, relative_area, solid_angle
from tasks.photometry.calibrate import StarPhotometry, calibrate_frame, frame_fwhm_px, measure_stars
from tasks.photometry.colour import gather_colour_terms
from tasks.photometry.crowded import CrowdedFlag, CrowdedOptions, crowded_photometry
from tasks.photometry.images import ApertureFlag, StarImage, core_peak, fill_masked, prepare_image, source_mask
from tasks.photometry.stars import MatchedStars, Neighbours, PS1Stars, match_and_select, on_image, ps1_stars
from tasks.photometry.systems import VegaSystem, catalogue_leverage, natural_equation, vega_system
from tasks.photometry.zero_point import ZeroPointFit, fit_colour, fit_zero_point

__all__ = [
    "ApertureFlag",
    "Apertures",
    "CrowdedFlag",
    "CrowdedOptions",
    "GrowthCurve",
    "MatchedStars",
    "Neighbours",
    "PS1Stars",
    "StarImage",
    "StarPhotometry",
    "VegaSystem",
    "ZeroPointFit",
    "aperture_fluxes",
    "area_map",
    "catalogue_leverage",
    "central_area",
    "default_curve",
    "fit_colour",
    "relative_area",
    "solid_angle",
    "aperture_photometry",
    "calibrate_frame",
    "core_peak",
    "crowded_photometry",
    "fill_masked",
    "fit_growth_curve",
    "fit_zero_point",
    "growth_curve",
    "frame_fwhm_px",
    "gather_colour_terms",
    "match_and_select",
    "measure_stars",
    "moffat_enclosed",
    "natural_equation",
    "on_image",
    "prepare_image",
    "ps1_stars",
    "source_mask",
    "vega_system",
]
