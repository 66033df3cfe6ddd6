"""The pictures of README and docs/, from the demo's products: a group's colour picture, its page, the index, a check.

python -m scripts.pictures --root demo

Pages are looked at by Chromium, which `make pictures` installs (Debian's package).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from flows import STATUS_OK
from flows._cli import Command, say
from models.settings import Settings
from models.telescope import Telescope
from tasks.core.errors import UserError

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")

_PAGES = {
    "page_index.jpg": ("stacks/index.html", 1100, 1250),
    "page_M51.jpg": ("stacks/M51/T120/index.html", 720, 1180),
}
"""Page and size of the window."""
_PLOTS = {"M51_rgb.jpg": ("stacks/M51/T120/plots/M51_colour.webp", 700)}
"""Picture and longest side, px."""


def _write(image: Image.Image, name: str) -> None:
    """As JPEG with full colour resolution: a galaxy's shades stay smooth, letters sharp, and no metadata."""
    image.convert("RGB").save(IMAGES / name, quality=85, subsampling=0, optimize=True)
    say(f"docs/images/{name}: {image.width} x {image.height}, {(IMAGES / name).stat().st_size // 1000} kB")


def _photograph(browser: str, page: Path, width: int, height: int) -> Image.Image:
    with tempfile.TemporaryDirectory() as scratch:
        shot = Path(scratch) / "page.png"
        subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={scratch}/home", f"--window-size={width},{height}",
                "--virtual-time-budget=5000", f"--screenshot={shot}", page.as_uri(),
            ],
            check=True, capture_output=True, timeout=180,
        )  # fmt: skip
        with Image.open(shot) as image:
            return image.copy()


def _pictures(args: argparse.Namespace, settings: Settings, telescope: Telescope) -> int:
    browser = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise UserError("no Chromium here to look at the pages with: scripts/setup --pictures")
    root = settings.roots.data
    missing = [name for name, *_ in (*_PAGES.values(), *_PLOTS.values()) if not (root / name).is_file()]
    if missing:
        raise UserError(f"{root} has no {missing[0]}: make demo, or give its --root")
    IMAGES.mkdir(exist_ok=True)
    for name, (page, width, height) in _PAGES.items():
        _write(_photograph(browser, root / page, width, height), name)
    for name, (plot, side) in _PLOTS.items():
        with Image.open(root / plot) as image:
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
            _write(image, name)
    return STATUS_OK


def main() -> int:
    """Entry point of ``python -m scripts.pictures``."""
    command = Command("scripts.pictures", __doc__ or "", writes=False)
    return command.run(_pictures)


if __name__ == "__main__":
    sys.exit(main())
