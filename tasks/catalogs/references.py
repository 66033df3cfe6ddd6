"""Which catalogue a zero point rests on, and any of them in PS1's columns and system.

PS1 is what the pipeline speaks. Where it has no sky another catalogue stands in, converted when it is read:

- ATLAS-REFCAT2 (Tonry et al. 2018, ApJ 867, 105) is on PS1's system already, of the whole sky, to about 19 mag.
- GSPC, the synthetic photometry of Gaia DR3 (Gaia Collaboration, Montegriffo et al. 2023, A&A 674, A33), is on that
  of SDSS; brought to PS1's by Tonry et al. 2012, ApJ 750, 99, table 6. Whole sky, to G of about 17.65.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from models.base import Roots
from models.catalog import Cone, Reference, StoredCone
from models.settings import Settings
from tasks.catalogs.columns import PS1, SDSS_BANDS, schema_of
from tasks.catalogs.store import find_cone, read_cone
from tasks.core.errors import StageError

__all__ = ["PS1_SOUTH_DEG", "photometric_reference", "reference_note", "reference_table", "sky_of"]

PS1_SOUTH_DEG = PS1.south
"""Southern end of PS1 (Chambers et al. 2016, arXiv:1612.05560)."""

_TONRY_2012 = {
    "g": (-0.011, -0.125, -0.015, 0.006),
    "r": (0.001, -0.006, -0.002, 0.002),
    "i": (0.004, -0.014, 0.001, 0.003),
    "z": (-0.013, 0.040, -0.001, 0.009),
}
"""m_PS1 - m_SDSS = A0 + A1 (g-r)_SDSS + A2 (g-r)_SDSS², and the scatter about it, mag: Tonry et al. 2012, table 6."""

_MAG_PER_RELATIVE = 2.5 / np.log(10.0)
_C_STAR_SIGMA = 3.0
_NOT_A_STAR = 1.0
"""PSF - Kron of what is known to be no star, mag: far beyond any limit of `photometry.max_psf_kron`."""

Array = NDArray[np.float64]


def sky_of(catalogue: str, cone: Cone) -> Literal["all", "part", "none"]:
    """How much of a cone lies where a catalogue has sky."""
    south = schema_of(catalogue).south
    if cone.dec - cone.radius >= south:
        return "all"
    return "part" if cone.dec + cone.radius > south else "none"


def photometric_reference(cone: Cone, roots: Roots, settings: Settings) -> Reference:
    """The first catalogue of `catalogs.references` that has sky in all of a cone; else the first that has some.

    What the local store holds counts as sky: a PS1 cone that somebody imported is used wherever it lies.
    Whether a service answers plays no part: a field whose service is down waits for it, so that what a zero
    point rests on does not depend on the day.

    Raises
    ------
    StageError
        If none has sky there.
    """
    order = settings.catalogs.references
    skies = {name: "all" if find_cone(name, cone, roots) else sky_of(name, cone) for name in order}
    for wanted in ("all", "part"):
        for name in order:
            if skies[name] == wanted:
                return name
    raise StageError(
        "catalogues",
        f"none of {', '.join(order) or 'no catalogue'} (catalogs.references) has sky at Dec {cone.dec:+.4f}"
        + (f": PS1 ends at declination {PS1_SOUTH_DEG:+.0f} deg" if "ps1" in order else ""),
        "add refcat2 or gspc to catalogs.references, or import a catalogue with PS1's column names",
    )


def reference_note(stored: StoredCone) -> str:
    """What has to be said of a zero point's reference: that it stands in for PS1 and why, that it is empty."""
    said = []
    if stored.catalogue != "ps1":
        whole = sky_of("ps1", stored.cone) == "all"
        why = "by catalogs.references" if whole else f"PS1 ends at declination {PS1_SOUTH_DEG:+.0f} deg"
        said.append(f"{stored.release} in place of PS1 ({why})")
    elif sky_of("ps1", stored.cone) != "all" and stored.service != "import":
        said.append(f"PS1 ends at declination {PS1_SOUTH_DEG:+.0f} deg: the south of the field has no reference")
    if stored.n_rows == 0:
        said.append(f"{stored.release} answered that it has nothing in {stored.cone.radius:.2f} deg around the field")
    return "; ".join(said)


def reference_table(stored: StoredCone, roots: Roots) -> Table:
    """A stored photometric reference in PS1's columns and system.

    A stand-in has no Kron magnitudes: they are set equal to the PSF magnitudes of its stars and one magnitude
    brighter where it knows of no star, which is how `tasks.photometry` tells them apart. It has no y band.

    Returns
    -------
    Table
        As `read_cone` gives a PS1 cone. A band that was not measured is NaN. A source of Gaia that is in no way
        calibrated keeps a magnitude (about G) without error: it is no star to calibrate with, but a neighbour.

    Raises
    ------
    StageError
        If the table is gone or is not the one that was stored, or has no magnitudes at all (Gaia).
    """
    if stored.catalogue == "ps1":
        return read_cone(stored, roots)
    if stored.catalogue == "refcat2":
        return _from_refcat2(read_cone(stored, roots))
    if stored.catalogue == "gspc":
        return _from_gspc(read_cone(stored, roots))
    raise StageError("catalogues", f"{stored.catalogue} is no photometric reference", "use ps1, refcat2 or gspc")


def _empty_ps1(n: int) -> Table:
    out = Table()
    for name in PS1.columns:
        out[name] = np.zeros(n, np.int64) if name in PS1.integers else np.full(n, np.nan)
    return out


def _set_band(out: Table, band: str, mag: Array, error: Array, star: NDArray[np.bool_]) -> None:
    out[f"{band}MeanPSFMag"], out[f"{band}MeanPSFMagErr"] = mag, error
    out[f"{band}MeanKronMag"] = np.where(star, mag, mag - _NOT_A_STAR)


def _from_refcat2(rows: Table) -> Table:
    """REFCAT2 in PS1's columns.

    Its stars are those whose proper motion Gaia could measure: nearly all galaxies are left out by that, and 0.7 %
    of the stars (Tonry et al. 2018, section 4). A magnitude or error of 0 stands for none.
    """
    out = _empty_ps1(len(rows))
    out["objID"] = np.arange(1, len(rows) + 1)
    out["raMean"], out["decMean"] = rows["RA_ICRS"], rows["DE_ICRS"]
    with np.errstate(invalid="ignore"):
        star = np.asarray(rows["e_pmRA"]) > 0.0
        for band in SDSS_BANDS:
            mag, error = np.asarray(rows[f"{band}mag"]), np.asarray(rows[f"e_{band}mag"])
            mag = np.where(mag == 0.0, np.nan, mag)
            _set_band(out, band, mag, np.where(error > 0.0, error, np.nan), star)
    return out


def _from_gspc(rows: Table) -> Table:
    """GSPC in PS1's columns and system.

    Stars: the corrected excess of BP and RP within 3 sigma (Riello et al. 2021, A&A 649, A3, eq. 18): beyond, light
    of a neighbour or a galaxy is in the spectrum. Magnitudes: flagged 1, which is within the range of G and colour
    that was validated. PS1's own y of GSPC is left out: it misses a correction (the archive's known issue).
    """
    out = _empty_ps1(len(rows))
    out["objID"], out["raMean"], out["decMean"] = rows["source_id"], rows["ra"], rows["dec"]
    g_mag = np.asarray(rows["phot_g_mean_mag"])
    sdss, error = {}, {}
    with np.errstate(invalid="ignore", divide="ignore"):
        sigma = 0.0059898 + 8.817481e-12 * g_mag**7.618399
        star = np.abs(np.asarray(rows["c_star"])) < _C_STAR_SIGMA * sigma
        for band in SDSS_BANDS:
            valid = np.asarray(rows[f"{band}_sdss_flag"]) == 1
            sdss[band] = np.where(valid, np.asarray(rows[f"{band}_sdss_mag"]), np.nan)
            relative = np.asarray(rows[f"{band}_sdss_flux_error"]) / np.asarray(rows[f"{band}_sdss_flux"])
            error[band] = _MAG_PER_RELATIVE * relative
    colour = sdss["g"] - sdss["r"]
    for band, (a0, a1, a2, scatter) in _TONRY_2012.items():
        mag = sdss[band] + a0 + a1 * colour + a2 * colour**2
        known = np.isfinite(mag)
        _set_band(
            out,
            band,
            np.where(known, mag, g_mag),
            np.where(known, np.hypot(error[band], scatter), np.nan),
            star & known,
        )
    return out
