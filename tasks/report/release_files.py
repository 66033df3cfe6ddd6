"""What the release's document says of its files: source lists, the compressed copy, how many of each kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits

from models.base import Roots
from models.release import COMPRESSED, ReleaseCompressed, ReleaseFact, ReleaseSources, ReleaseStack
from models.sourcelist import source_list_paths
from models.stack import stack_paths
from models.telescope import Telescope
from tasks.core.files import digest_file
from tasks.core.fitsio import quiet_fits

__all__ = ["compressed_rows", "file_facts", "source_rows"]


def source_rows(groups: Iterable[str], roots: Roots, telescope: Telescope) -> tuple[ReleaseSources, ...]:
    """The groups' source lists; a group without one is left out."""
    rows = []
    for group in groups:
        path = source_list_paths(group, telescope.name, roots)[0]
        try:
            with quiet_fits(), fits.open(path) as hdus:
                header, table = hdus[0].header, hdus["SOURCES"].data
                rows.append(
                    ReleaseSources(
                        group=group,
                        file=path.relative_to(roots.data).as_posix(),
                        n_sources=len(table),
                        n_crowded=header["NCROWDED"],
                        filters=header["FILTERS"],
                        n_gaia=int(np.count_nonzero(table["GAIA_ID"])),
                        n_ps1=int(np.count_nonzero(table["PS1_ID"])),
                    )
                )
        except (OSError, KeyError):  # none was made, or it is no source list: the document says that there is none
            continue
    return tuple(rows)


def compressed_rows(roots: Roots, telescope: Telescope, group: str | None = None) -> tuple[ReleaseCompressed, ...]:
    """The tile-compressed copies of images as they are, by their own headers; of an earlier image a copy is none.

    Parameters
    ----------
    roots, telescope
        Whose copies, and where.
    group
        Only those of this group.
    """
    rows = []
    for path in sorted((roots.data / COMPRESSED).glob(f"*/{telescope.name}/*.fits.fz")):
        if group is not None and path.parts[-3] != group:
            continue
        relative = path.relative_to(roots.data).as_posix()
        source = f"stacks/{relative.removeprefix(f'{COMPRESSED}/').removesuffix('.fz')}"
        try:
            with quiet_fits():
                header = fits.getheader(path, 1)
            if header["SRCSHA"] != digest_file(roots.data / source, roots):
                continue
            rows.append(
                ReleaseCompressed(
                    group=path.parts[-3],
                    file=relative,
                    source=source,
                    bytes=path.stat().st_size,
                    source_bytes=(roots.data / source).stat().st_size,
                    lossless=header["LOSSLESS"],
                    quantize_level=header.get("LOSSQ"),
                    noise=header.get("LOSSNOIS"),
                    loss_rms=header.get("LOSSRMS"),
                    loss_largest=header.get("LOSSMAX"),
                    n_stars=header.get("LOSSNSTR"),
                    loss_flux=header.get("LOSSFLUX"),
                    loss_mag=header.get("LOSSMAG"),
                )
            )
        except (OSError, KeyError, IndexError):  # its image is gone, or it is no copy of ours: not of the release
            continue
    return tuple(rows)


_FRAME_FILES = {
    "reduced/{night}/*.fits": "reduced/*/*.fits",
    "reduced/{night}/*.head": "reduced/*/*.head",
    "master_bias/*.fits": "master_bias/*.fits",
    "master_flat/*.fits": "master_flat/*.fits",
    "psf/{night}/*.psf": "psf/*/*.psf",
}


def file_facts(stacks: Sequence[ReleaseStack], roots: Roots, telescope: Telescope) -> tuple[ReleaseFact, ...]:
    """How many files of each kind there are, and how large they are together."""

    def fact(name: str, found: Iterable[Path]) -> ReleaseFact:
        there = [path.stat().st_size for path in found if path.is_file()]
        value = f"{len(there)} file{'' if len(there) == 1 else 's'}, {sum(there) / 1e6:.1f} MB"
        return ReleaseFact(section="files", key=name, name=name, value=value)

    made = [stack_paths(stack.group, telescope.name, stack.filter, roots) for stack in stacks if stack.status == "OK"]
    folder = f"stacks/{{group}}/{telescope.name}/"
    mean = roots.data / "stacks" / f"{telescope.name}_mean_psf.fits"
    facts = [
        fact(f"stacks/{mean.name}", [mean]),
        fact(folder + "{group}_{filter}.fits", [paths.image for paths in made]),
        fact(folder + "{group}_{filter}.weight.fits", [paths.weight for paths in made]),
        fact(folder + "{group}_{filter}_psf.fits", [paths.psf for paths in made]),
        fact(folder + "{group}_{filter}_ext.fits", [paths.extended for paths in made]),
        *(
            fact(
                f"{folder}{{group}}_cat{suffix}",
                sorted(
                    {
                        path
                        for stack in stacks
                        for path in source_list_paths(stack.group, telescope.name, roots)
                        if path.suffix == suffix
                    }
                ),
            )
            for suffix in (".fits", ".parquet")
        ),
        fact(folder + "plots/", sorted({path for paths in made for path in paths.plots.glob("*") if path.is_file()})),
    ]
    years = sorted(roots.data.glob(f"[0-9][0-9][0-9][0-9]/{telescope.name}"))
    folder_of_all = roots.data / "stacks"
    name = "obscore.vot" if telescope.name == "T120" else f"obscore_{telescope.name}.vot"
    facts += [
        fact(f"stacks/{name}", [folder_of_all / name]),
        fact(
            f"stacks/{telescope.name}_*moc.fits, {folder}{{group}}_moc.fits",
            [*folder_of_all.glob(f"{telescope.name}*_moc.fits"), *folder_of_all.glob(f"*/{telescope.name}/*_moc.fits")],
        ),
    ]
    copies = [roots.data / row.file for row in compressed_rows(roots, telescope)]
    if copies:
        facts.append(fact(f"{COMPRESSED}/{{group}}/{telescope.name}/*.fits.fz", copies))
    for name, pattern in _FRAME_FILES.items():
        found = (path for year in years for path in year.glob(pattern))
        facts.append(fact(f"{{year}}/{telescope.name}/{name}", found))
    return tuple(facts)
