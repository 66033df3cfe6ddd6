from __future__ import annotations

import pytest

from models.simulation import SimulationOptions
from tasks.simulation import Shot, plan_campaign


@pytest.fixture(scope="session")
def options() -> SimulationOptions:
    return SimulationOptions(seed=3)


@pytest.fixture(scope="session")
def shots(options: SimulationOptions) -> list[Shot]:
    return plan_campaign(options)
