"""What a release has for machines, written once everything else is."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from models.base import Roots
from models.release import COMPRESSED, Release
from models.settings import Settings
from models.telescope import Telescope
from tasks.archive.coverage import write_coverage
from tasks.archive.obscore import write_obscore
from tasks.archive.products import list_products, release_file
from tasks.archive.provenance import gather_provenance
from tasks.core.errors import StageError
from tasks.core.files import write_json
from tasks.report import read_years

__all__ = ["complete_release", "write_sky"]


def write_sky(roots: Roots, telescope: Telescope) -> tuple[Path, ...]:
    """Write the MOCs and the ObsCore table, which the release's document counts.

    Parameters
    ----------
    roots, telescope
        Whose release.

    Returns
    -------
    tuple of Path
        The ObsCore table, the MOCs.

    Raises
    ------
    StageError
        If a product cannot be read.
    """
    index = release_file(telescope.name, roots)
    try:
        products = list_products(telescope, roots)
        coverage = write_coverage(products, telescope, roots)
        obscore = index.with_name(index.name.replace("release", "obscore")).with_suffix(".vot")
        write_obscore(products, telescope, roots, obscore)
    except _UNREADABLE as error:
        raise _unreadable(error) from error
    return (obscore, *coverage)


def complete_release(roots: Roots, telescope: Telescope, settings: Settings) -> tuple[Path, ...]:
    """Write every file's digest and provenance into ``release.json``; beside a compressed copy, a copy of that.

    Parameters
    ----------
    roots, telescope
        Whose release; its ``release.json`` is there, as all other files are.
    settings
        Of the run.

    Returns
    -------
    tuple of Path
        ``release.json`` first, its copy under ``compressed/``, if there is one.

    Raises
    ------
    StageError
        If a product or a report cannot be read.
    """
    index = release_file(telescope.name, roots)
    try:
        release: Release = Release.model_validate_json(index.read_bytes())
        provenance = gather_provenance(roots, telescope, settings, release.software, read_years(roots, telescope))
    except _UNREADABLE as error:
        raise _unreadable(error) from error
    complete = release.model_copy(update={"provenance": provenance}).model_dump(mode="json", by_alias=True)
    written = [index]
    if any(product.kind == "compressed copy" for product in provenance.products):
        written.append(roots.data / COMPRESSED / index.name)  # so that it can be checked without the rest
    for path in written:
        write_json(path, complete)
    return tuple(written)


_UNREADABLE = (OSError, ValidationError, KeyError, ValueError)


def _unreadable(error: Exception) -> StageError:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return StageError("release for machines", f"a product cannot be read: {first}", "stack its group again")
