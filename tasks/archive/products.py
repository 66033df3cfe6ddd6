"""The files of a release: which there are, of what kind, with what content."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from models.base import Roots
from models.provenance import Kind, Product
from models.telescope import Telescope
from tasks.core.files import digest_file
from tasks.report import compressed_rows

__all__ = ["RELEASE_FILE", "list_products", "release_file"]

RELEASE_FILE = "release.json"

_KINDS: tuple[tuple[str, Kind], ...] = (
    (r"^compressed/.*\.fits\.fz$", "compressed copy"),
    (r"_mean_psf\.fits$", "mean psf"),
    (r"_moc\.fits$", "coverage"),
    (r"_cat\.(fits|parquet)$", "source list"),
    (r"^stacks/.*\.weight\.fits$", "weight"),
    (r"^stacks/.*_psf\.fits$", "stack psf"),
    (r"^stacks/.*_ext\.fits$", "extended stack"),
    (r"^stacks/.*_n(rej|cov)\.fits$", "map"),
    (r"^stacks/[^/]+/[^/]+/[^/]+\.fits$", "stack"),
    (r"/master_bias/.*\.fits$", "master bias"),
    (r"/master_flat/.*\.fits$", "master flat"),
    (r"/reduced/.*\.fits$", "reduced frame"),
    (r"/reduced/.*\.head$", "frame head"),
    (r"/psf/.*\.psf$", "frame psf"),
    (r"\.(png|jpg|jpeg|svg|webp)$", "plot"),
    (r"\.(html|md|css|js)$", "page"),
    (r"\.(ecsv|vot|csv)$", "table"),
    (r"\.json$", "report"),
)


def release_file(telescope: str, roots: Roots) -> Path:
    """``stacks/release.json``, ``release_T080.json`` ... of other telescopes, as the other reports over all groups."""
    name = RELEASE_FILE if telescope == "T120" else f"release_{telescope}.json"
    return roots.data / "stacks" / name


def kind_of(path: str) -> Kind | None:
    """What a file is, by its name; None: no product."""
    return next((kind for pattern, kind in _KINDS if re.search(pattern, path)), None)


def _files(telescope: Telescope, roots: Roots, group: str | None) -> Iterator[Path]:
    stacks = roots.data / "stacks"
    if group is not None:
        yield from (stacks / group / telescope.name).rglob("*")
        return
    if stacks.is_dir():
        yield from (path for path in stacks.iterdir() if path.is_file())
        for folder in sorted(path for path in stacks.iterdir() if path.is_dir()):
            yield from (folder / telescope.name).rglob("*")
    yield from (roots.data / row.file for row in compressed_rows(roots, telescope))
    for year in sorted(roots.data.glob("[0-9][0-9][0-9][0-9]")):
        yield from (year / telescope.name).rglob("*")


def list_products(
    telescope: Telescope, roots: Roots, made_by: dict[str, str] | None = None, group: str | None = None
) -> tuple[Product, ...]:
    """Every file of a telescope's release but ``release.json`` itself, by path.

    Parameters
    ----------
    telescope, roots
        Whose products, and where.
    made_by
        Activity of each path, where one is on record.
    group
        Only what lies beside the stacks of this group.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    index = release_file(telescope.name, roots)
    products = []
    for path in _files(telescope, roots, group):
        relative = path.relative_to(roots.data).as_posix()
        kind = kind_of(relative)
        if kind is None or path == index or path.name.startswith(".") or not path.is_file():
            continue
        products.append(
            Product(
                path=relative,
                kind=kind,
                bytes=path.stat().st_size,
                sha256=digest_file(path, roots),
                was_generated_by=(made_by or {}).get(relative),
            )
        )
    return tuple(sorted(products, key=lambda product: product.path))
