"""A made-up field with its Gaia cone and index."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from astropy.table import Table

from models.astrometry import IndexSet
from models.base import Roots
from models.catalog import Cone, StoredCone
from models.settings import AstrometrySettings
from models.telescope import Telescope, load_telescope
from tasks.astrometry import build_index
from tests.astrometry.sky import gaia_table, make_roots, stored

RA, DEC, RADIUS = 132.85, 11.81, 0.5


@dataclass(frozen=True)
class Field:
    """A field: its truth and what the pipeline has of it."""

    roots: Roots
    telescope: Telescope
    settings: AstrometrySettings
    gaia: Table
    cone: StoredCone
    index: IndexSet
    hint: Cone


@pytest.fixture(scope="session")
def telescope() -> Telescope:
    return load_telescope("T120")


@pytest.fixture(scope="session")
def field(tmp_path_factory: pytest.TempPathFactory, telescope: Telescope) -> Field:
    """1500 stars in a cone of half a degree, index built by the real tool."""
    roots = make_roots(tmp_path_factory.mktemp("astrometry"))
    gaia = gaia_table(1500, RA, DEC, RADIUS, seed=1)
    cone = stored(gaia, RA, DEC, RADIUS, roots)
    index = build_index(cone, roots, telescope)
    return Field(roots, telescope, AstrometrySettings(), gaia, cone, index, Cone(ra=RA + 0.1, dec=DEC - 0.1, radius=1))
