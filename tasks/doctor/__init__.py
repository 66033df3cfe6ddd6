"""Is everything here that a run needs, and how is what is missing to be mended? Opens no connection but to loopback."""

from pathlib import Path

from models.settings import Settings
from models.telescope import Telescope
from tasks.doctor.check import Check, can_run
from tasks.doctor.packages import check_packages
from tasks.doctor.places import check_catalogues, check_data_root, check_index_files, check_raw_root
from tasks.doctor.prefect_state import check_prefect
from tasks.doctor.tools import check_tools

__all__ = ["Check", "can_run", "examine"]

_PROJECT = Path(__file__).resolve().parents[2]


def examine(settings: Settings, telescope: Telescope, project: Path = _PROJECT) -> list[Check]:
    """Look at everything; `project` is the folder with the lock file."""
    return [
        *check_tools(),
        *check_packages(project),
        *check_data_root(settings, telescope),
        *check_raw_root(settings, telescope),
        *check_catalogues(settings),
        *check_index_files(settings, telescope),
        *check_prefect(settings.roots),
    ]
