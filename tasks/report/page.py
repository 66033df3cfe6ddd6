"""The page of a group: a picture, the stacks, what was left out and why. Static, no network needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from models.base import Roots
from models.frame import FrameFailure, Rejected
from models.stack import Stack, stack_paths
from models.target import Target
from models.telescope import Telescope
from tasks.core.files import writing

__all__ = ["write_group_page", "write_index_page"]


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _write(path: Path, template: str, **values: object) -> None:
    text = _environment().get_template(template).render(**values)
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _plot(folder: Path, name: str) -> str | None:
    return f"plots/{name}" if (folder / "plots" / name).is_file() else None


def write_group_page(
    target: Target,
    stacks: Sequence[Stack],
    left_out: Sequence[Rejected],
    failures: Sequence[FrameFailure],
    notes: Sequence[str],
    roots: Roots,
    telescope: Telescope,
) -> Path:
    """Write ``stacks/{group}/{telescope}/index.html``.

    Parameters
    ----------
    target
        The group.
    stacks
        Finished stacks.
    left_out
        Frames that are in no stack.
    failures
        What could not be made.
    notes
        What a reader should know of the alignment.

    Returns
    -------
    Path
        The page.
    """
    folder = stack_paths(target.name, telescope.name, "x", roots).image.parent
    rows = [
        {
            "stack": stack,
            "picture": _plot(folder, f"{stack.group}_{stack.filter}.png"),
            "extended": _plot(folder, f"{stack.group}_{stack.filter}_ext.png"),
            "check": _plot(folder, f"{stack.group}_{stack.filter}_phot.png"),
            "stem": f"{stack.group}_{stack.filter}",
        }
        for stack in stacks
    ]
    path = folder / "index.html"
    _write(
        path,
        "group.html",
        target=target,
        telescope=telescope,
        rows=rows,
        colour=_plot(folder, f"{target.name}_rgb.png"),
        left_out=left_out,
        failures=failures,
        notes=notes,
    )
    return path


def write_index_page(roots: Roots) -> Path:
    """Write ``stacks/index.html``: every group that has a page, and the release's tables."""
    folder = roots.data / "stacks"
    pages = [
        {
            "group": page.parent.parent.name,
            "telescope": page.parent.name,
            "link": page.relative_to(folder).as_posix(),
            "pictures": [
                picture.relative_to(folder).as_posix() for picture in sorted((page.parent / "plots").glob("*_rgb.png"))
            ],
            "stacks": sorted(file.name.removesuffix(".weight.fits") for file in page.parent.glob("*.weight.fits")),
        }
        for page in sorted(folder.glob("*/*/index.html"))
    ]
    releases = sorted(file.name for file in folder.glob("release*.md"))
    path = folder / "index.html"
    _write(path, "index.html", pages=pages, releases=releases)
    return path
