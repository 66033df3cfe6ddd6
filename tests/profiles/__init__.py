"""Profiles of the telescopes whose real frames lie beside the checkout."""

from __future__ import annotations

import shutil
from pathlib import Path

from models.telescope import Telescope, load_telescope

FOLDER = Path(__file__).parent


def profile(name: str) -> Telescope:
    """Read a profile of this folder."""
    import tomllib

    return Telescope.model_validate(tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8")))


def install(name: str, data_root: Path) -> Telescope:
    """Put a profile under a data root, as a user would, and load it from there."""
    (data_root / "telescopes").mkdir(parents=True, exist_ok=True)
    shutil.copy(FOLDER / f"{name}.toml", data_root / "telescopes")
    return load_telescope(name, data_root)
