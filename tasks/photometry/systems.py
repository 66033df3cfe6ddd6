"""What a zero point means: the filter's natural system in terms of PS1, and the Vega system of Johnson-Cousins."""

from __future__ import annotations

import math
from typing import NamedTuple

from models.telescope import Band

__all__ = ["VegaSystem", "catalogue_leverage", "natural_equation", "vega_system"]


class VegaSystem(NamedTuple):
    """``m_Vega = -2.5 log10(flux) + zp + colour_term * colour``.

    Attributes
    ----------
    zp
        mag, for the flux that the natural zero point is for.
    colour_term
        Of the PS1 colour.
    equation
        In words, as it stands in a header.
    """

    zp: float
    colour_term: float
    equation: str


def _signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'} {abs(value):.4g}"


def catalogue_leverage(band: Band, colour_term: float) -> float:
    """How much larger than the PS1 magnitude's error that of the predicted natural magnitude is.

    ``m + c (a - b)`` holds the band's own magnitude twice where it is one of the colour's: in B, tied to g with a term
    of 0.6, an error of g counts 1.6 times. All three bands are taken to be as uncertain as the calibrating one.
    """
    if band.colour is None:
        return 1.0
    blue, red = colour_term, -colour_term
    if band.ps1 == band.colour[0]:
        return math.hypot(1.0 + blue, red)
    if band.ps1 == band.colour[1]:
        return math.hypot(blue, 1.0 + red)
    return math.sqrt(1.0 + blue**2 + red**2)


def natural_equation(band: Band, colour_term: float) -> str:
    """The magnitude that a zero point gives, such as ``m = g + 0.611 (g-r) + 0.034 (g-r)^2, PS1``."""
    text = f"m = {band.ps1}"
    if band.colour is not None:
        colour = f"({band.colour[0]}-{band.colour[1]})"
        text += f" {_signed(colour_term)} {colour}"
        if band.colour_curvature:
            text += f" {_signed(band.colour_curvature)} {colour}^2"
    return f"{text}, PS1"


def vega_system(band: Band, zp: float, colour_term: float, flux: str) -> VegaSystem | None:
    """The standard magnitude from a natural zero point.

    Both systems are PS1's band plus a polynomial of the same colour with the same square term (Tonry et al. 2012,
    ApJ 750, 99, table 6), so that they differ by a constant and a multiple of the colour.

    Parameters
    ----------
    band
        With ``vega``; without it there is no such system.
    zp
        Natural zero point, mag.
    colour_term
        Of the natural system, as it was used with `zp`.
    flux
        What the zero point is for, as the header's user writes it: ``'flux/EXPTIME'``, ``'flux'``.
    """
    if band.vega is None or band.colour is None:
        return None
    zero, term = band.vega
    colour = f"({band.colour[0]}-{band.colour[1]})"
    equation = f"{band.name} = -2.5 log10({flux}) + VEGAZP + VEGACT {colour} of PS1"
    return VegaSystem(zp + zero, term - colour_term, equation)
