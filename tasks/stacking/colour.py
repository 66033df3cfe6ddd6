"""The natural system of a stack's magnitudes."""

from __future__ import annotations

from models.stack import ZERO_POINT, StackColour
from models.telescope import Telescope
from tasks.photometry import natural_equation, vega_system

__all__ = ["stack_colour"]


def stack_colour(telescope: Telescope, filter: str, date: str = "") -> StackColour | None:
    """What the magnitudes of a filter's stack are in terms of PS1; None without a band or a colour term.

    Parameters
    ----------
    telescope
        With the colour terms that were measured (`Telescope.with_colour_terms`).
    filter
        Canonical name.
    date
        Last night the term was fitted on.
    """
    try:
        band = telescope.band(filter)
    except KeyError:
        return None
    if band.ps1 is None or band.colour is None or band.colour_term is None:
        return None
    vega = vega_system(band, ZERO_POINT, band.colour_term, "flux")
    return StackColour(
        term=band.colour_term,
        error=band.colour_term_error,
        curvature=band.colour_curvature,
        date=date,
        equation=natural_equation(band, band.colour_term),
        vega_zp=vega.zp if vega else None,
        vega_term=vega.colour_term if vega else None,
        vega_equation=vega.equation if vega else "",
    )
