"""Photometric systems: the stellar locus in PS1 bands, Johnson-Cousins, and the camera's natural systems."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.base import Record
from models.simulation import TrueFilter

__all__ = ["ALL_BANDS", "BANDS", "Band", "T080_BANDS", "gaia_magnitudes", "johnson", "locus", "natural", "true_filters"]

Array = NDArray[np.float64]


class Band(Record):
    """A filter of the simulated camera."""

    ps1: str
    colour: tuple[str, str]
    c1: float
    c2: float
    zero_point: float
    extinction: float
    sky: float
    seeing: float


BANDS: dict[str, Band] = {
    name: Band(ps1=p, colour=(a, b), c1=c1, c2=c2, zero_point=zp, extinction=k, sky=sky, seeing=s)
    for name, p, a, b, c1, c2, zp, k, sky, s in (
        ("B", "g", "g", "r", 0.611, 0.035, 22.0, 0.27, 21.9, 1.05),
        ("V", "g", "g", "r", -0.571, 0.012, 23.5, 0.15, 21.3, 1.02),
        ("R", "r", "g", "r", -0.120, -0.025, 23.4, 0.11, 20.8, 0.99),
        ("g", "g", "g", "r", 0.045, 0.0, 22.8, 0.19, 21.6, 1.03),
        ("r", "r", "g", "r", -0.035, 0.0, 23.3, 0.10, 20.8, 1.00),
        ("i", "i", "g", "i", 0.020, 0.0, 23.1, 0.06, 19.9, 0.96),
        ("Ha", "r", "g", "r", -0.080, 0.0, 19.9, 0.09, 20.8, 0.99),
    )
}
"""Zero points at airmass 1 (ADU/s, `parameters.md`), extinction in mag per airmass, sky in mag/arcsec^2 of the
natural system at the zenith without a Moon, and seeing relative to r (Kolmogorov: lambda^-0.2).

B and V are Johnson's by Tonry et al. (2012, ApJ 750, 99) with a natural colour term of +0.05 and -0.03 (B - V)."""

T080_BANDS: dict[str, Band] = {
    name: band.model_copy(update={"zero_point": round(band.zero_point - 0.88, 2)}) for name, band in BANDS.items()
} | {"Clear": Band(ps1="r", colour=("g", "r"), c1=0.12, c2=0.0, zero_point=23.9, extinction=0.12, sky=20.6, seeing=1.0)}
"""The 0.8 m telescope: 0.44 of the T120's mirror; no filter at all, whose stars are no band of PS1's."""

_GI = np.array([-0.6, 0.0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.1, 2.5, 3.0, 3.5])
_RI = np.array([-0.30, -0.07, 0.07, 0.165, 0.25, 0.345, 0.465, 0.66, 0.90, 1.26, 1.70, 2.15])
_IZ = np.array([-0.22, -0.06, 0.0, 0.06, 0.11, 0.16, 0.22, 0.32, 0.43, 0.59, 0.79, 1.00])
_ZY = np.array([-0.12, -0.03, 0.0, 0.03, 0.055, 0.08, 0.11, 0.15, 0.20, 0.28, 0.38, 0.48])

ALL_BANDS: dict[str, Band] = BANDS | {
    "OIII": Band(ps1="g", colour=("g", "r"), c1=-0.10, c2=0.0, zero_point=19.6, extinction=0.18, sky=21.6, seeing=1.03)
}
"""And the filter that only the archive has frames in."""


def locus(r: Array, g_minus_i: Array) -> dict[str, Array]:
    """PS1 grizy magnitudes of stars on the locus, parametrised by g - i (after Covey et al. 2007, AJ 134, 2398)."""
    r_minus_i = np.interp(g_minus_i, _GI, _RI)
    i = r - r_minus_i
    z = i - np.interp(g_minus_i, _GI, _IZ)
    return {"g": i + g_minus_i, "r": r, "i": i, "z": z, "y": z - np.interp(g_minus_i, _GI, _ZY)}


def johnson(ps1: Mapping[str, Array]) -> dict[str, Array]:
    """Johnson-Cousins B V R I (Vega) from PS1 (Tonry et al. 2012, table 6, quadratic)."""
    x = ps1["g"] - ps1["r"]
    return {
        "B": ps1["g"] + 0.212 + 0.556 * x + 0.034 * x**2,
        "V": ps1["r"] + 0.005 + 0.462 * x + 0.013 * x**2,
        "R": ps1["r"] - 0.137 - 0.108 * x - 0.029 * x**2,
        "I": ps1["i"] - 0.366 - 0.136 * x - 0.018 * x**2,
    }


def natural(ps1: Mapping[str, Array], band: str, bands: Mapping[str, Band] = ALL_BANDS) -> Array:
    """Magnitudes in a filter's natural system, anchored to PS1."""
    b = bands[band]
    x = ps1[b.colour[0]] - ps1[b.colour[1]]
    return ps1[b.ps1] + b.c1 * x + b.c2 * x**2


def gaia_magnitudes(ps1: Mapping[str, Array]) -> tuple[Array, Array]:
    """Gaia G and BP - RP of stars (rough fit to Gaia's documentation, sect. 5.5.1: good to 0.05 mag)."""
    gi = ps1["g"] - ps1["i"]
    return ps1["r"] + 0.02 - 0.05 * gi - 0.07 * gi**2, 0.35 + 0.78 * gi


def true_filters(bands: Mapping[str, Band] = BANDS) -> dict[str, TrueFilter]:
    """The natural systems, for the truth file."""
    return {
        name: TrueFilter(ps1=b.ps1, colour=b.colour, c1=b.c1, c2=b.c2, extinction=b.extinction)
        for name, b in bands.items()
    }
