"""Profiles of the telescopes whose real frames lie beside the checkout, from docs/new_telescope.md as they stand."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from models.telescope import Telescope, load_telescope

PAGE = Path(__file__).resolve().parents[2] / "docs" / "new_telescope.md"


def examples() -> dict[str, str]:
    """The page's files by their path under the data root: what stands in a block that begins with that path."""
    blocks = re.findall(
        r"^```toml\n# mydata/(\S+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return dict(blocks)


def profile(name: str) -> Telescope:
    """A profile of the page."""
    return Telescope.model_validate(tomllib.loads(examples()[f"telescopes/{name}.toml"]))


def install(name: str, data_root: Path) -> Telescope:
    """Put a profile under a data root, as a user would, and load it from there."""
    write(f"telescopes/{name}.toml", data_root)
    return load_telescope(name, data_root)


def write(file: str, data_root: Path) -> None:
    """Write one of the page's files where it says."""
    path = data_root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(examples()[file], encoding="utf-8")
