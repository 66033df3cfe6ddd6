from __future__ import annotations

from pathlib import Path

import pytest

from models.base import Roots
from models.telescope import Telescope, load_telescope


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return Roots(data=tmp_path / "data", raw=tmp_path / "raw")


@pytest.fixture
def t120() -> Telescope:
    return load_telescope("T120")
