"""Catalogue cones in the local store."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.base import FileRef, Record

__all__ = ["Cone", "StoredCone"]


class Cone(Record):
    """A circle on the sky."""

    ra: float = Field(ge=0, lt=360, description="deg, ICRS")
    dec: float = Field(ge=-90, le=90)
    radius: float = Field(gt=0, le=180, description="deg")


class StoredCone(Record):
    """A catalogue's answer for a cone, as it lies in the store with its query beside it.

    Columns are the archive's own; Gaia: ``source_id ra dec pmra pmdec parallax ra_error dec_error
    phot_g_mean_mag bp_rp`` (deg, mas/yr, mas, mag; epoch 2016.0); PS1: ``objID raMean decMean nDetections
    qualityFlag`` and ``{g,r,i,z,y}MeanPSFMag MeanPSFMagErr MeanKronMag``. Missing values are NaN.
    """

    catalogue: Literal["gaia", "ps1"]
    cone: Cone
    file: FileRef
    n_rows: int = Field(ge=0)
    service: str = Field(description="where the rows came from: a service's address, 'import' or 'simulation'")
    release: str = Field(description="such as 'Gaia DR3', 'PS1 DR2'")
    fetched: str = Field(description="ISO time")
    query: str = Field("", description="what was asked")
    limit: float | None = Field(None, description="faintest magnitude asked for; None: all that the source has")
