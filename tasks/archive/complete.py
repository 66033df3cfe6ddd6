"""What a release has for machines, written once everything else is."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from models.base import Roots
from models.release import Release
from models.settings import Settings
from models.telescope import Telescope
from tasks.archive.coverage import write_coverage
from tasks.archive.obscore import write_obscore
from tasks.archive.products import list_products, release_file
from tasks.archive.provenance import gather_provenance
from tasks.core.errors import StageError
from tasks.core.files import write_json
from tasks.report import read_years

__all__ = ["complete_release"]


def complete_release(roots: Roots, telescope: Telescope, settings: Settings) -> tuple[Path, ...]:
    """Write MOCs and the ObsCore table, then every file's digest and provenance into ``release.json``.

    Parameters
    ----------
    roots, telescope
        Whose release; its ``release.json`` is there.
    settings
        Of the run.

    Returns
    -------
    tuple of Path
        ``release.json`` first, the ObsCore table, the MOCs.

    Raises
    ------
    StageError
        If a product or a report cannot be read.
    """
    index = release_file(telescope.name, roots)
    try:
        release: Release = Release.model_validate_json(index.read_bytes())
        products = list_products(telescope, roots)
        coverage = write_coverage(products, telescope, roots)
        obscore = index.with_name(index.name.replace("release", "obscore")).with_suffix(".vot")
        write_obscore(products, telescope, roots, obscore)
        provenance = gather_provenance(roots, telescope, settings, release.software, read_years(roots, telescope))
    except (OSError, ValidationError, KeyError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StageError(
            "release for machines", f"a product cannot be read: {first}", "stack its group again"
        ) from error
    complete = release.model_copy(update={"provenance": provenance})
    write_json(index, complete.model_dump(mode="json", by_alias=True))
    return (index, obscore, *coverage)
