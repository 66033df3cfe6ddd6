"""Catalogue cones in the local store."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.base import FileRef, Record

__all__ = ["Catalogue", "Cone", "Reference", "StoredCone"]

Catalogue = Literal["gaia", "ps1", "refcat2", "gspc"]
"""Gaia DR3; PS1 DR2; ATLAS-REFCAT2; the synthetic photometry of Gaia DR3 (GSPC)."""

Reference = Literal["ps1", "refcat2", "gspc"]
"""Those with magnitudes that a zero point can rest on."""


class Cone(Record):
    """A circle on the sky."""

    ra: float = Field(ge=0, lt=360, description="deg, ICRS")
    dec: float = Field(ge=-90, le=90)
    radius: float = Field(gt=0, le=180, description="deg")


class StoredCone(Record):
    """A catalogue's answer for a cone, as it lies in the store with its query beside it.

    Columns are the archive's own; Gaia: ``source_id ra dec pmra pmdec parallax ra_error dec_error
    phot_g_mean_mag bp_rp`` (deg, mas/yr, mas, mag; epoch 2016.0); PS1: ``objID raMean decMean nDetections
    qualityFlag`` and ``{g,r,i,z,y}MeanPSFMag MeanPSFMagErr MeanKronMag``; REFCAT2 as in VizieR's J/ApJ/867/105:
    ``RA_ICRS DE_ICRS pmRA e_pmRA pmDE e_pmDE Gmag e_Gmag`` and ``{g,r,i,z}mag e_{g,r,i,z}mag``; GSPC: ``source_id ra
    dec pmra pmdec phot_g_mean_mag`` of gaia_source, ``c_star`` and ``{g,r,i,z}_sdss_{mag,flux,flux_error,flag}``.
    Missing values are NaN.
    """

    catalogue: Catalogue
    cone: Cone
    file: FileRef
    n_rows: int = Field(ge=0)
    service: str = Field(description="where the rows came from: a service's address, 'import' or 'simulation'")
    release: str = Field(description="such as 'Gaia DR3', 'PS1 DR2', 'ATLAS-REFCAT2'")
    fetched: str = Field(description="ISO time")
    query: str = Field("", description="what was asked")
    limit: float | None = Field(None, description="faintest magnitude asked for; None: all that the source has")
