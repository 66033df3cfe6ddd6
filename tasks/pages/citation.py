"""How to cite a group's stacks: themselves, and what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from models.stack import Stack
from models.telescope import Telescope
from tasks.report import software_versions

__all__ = ["Citation", "citation"]

_ALWAYS = (
    "Astrometry: Gaia DR3, Gaia Collaboration 2016, A&A 595, A1; 2023, A&A 674, A1. Please add Gaia's acknowledgement "
    "(cosmos.esa.int/gaia).",
    "Plate solutions: Astrometry.net, Lang et al. 2010, AJ 139, 1782. Alignment: SCAMP, Bertin 2006, ASPC 351, 112.",
    "Resampling: SWarp, Bertin et al. 2002, ASPC 281, 228. Sources: SExtractor, Bertin & Arnouts 1996, A&AS 117, 393; "
    "sep, Barbary 2016, JOSS 1, 58. PSF: PSFEx, Bertin 2011, ASPC 442, 435.",
    "Software: Astropy Collaboration 2022, ApJ 935, 167; photutils, Bradley et al. (Zenodo).",
)
_PS1 = (
    "Photometry: Pan-STARRS1, Chambers et al. 2016, arXiv:1612.05560; Flewelling et al. 2020, ApJS 251, 7; its "
    "photometric system: Tonry et al. 2012, ApJ 750, 99."
)
_COLOUR = "Colour picture: Lupton et al. 2004, PASP 116, 133."


class Citation(NamedTuple):
    """What to write."""

    text: str
    references: tuple[str, ...]
    bibtex: str


def citation(group: str, stacks: Sequence[Stack], years: Sequence[int], telescope: Telescope) -> Citation:
    """Of a group's stacks; the year is that of the newest frame in them."""
    name, version = next(iter(software_versions().items()))
    filters = ", ".join(stack.filter for stack in stacks) or "no filter"
    span = f"{min(years)}–{max(years)}" if len(set(years)) > 1 else str(years[0]) if years else "no year"
    place = telescope.description or telescope.name
    text = (
        f"Stacked images of {group} in {filters}, observed {span} with the {telescope.name} ({place}); "
        f"made with {name} {version}."
    )
    rests = [_ALWAYS[0]]
    if any(stack.calibrated for stack in stacks):
        rests.append(_PS1)
    rests += [*_ALWAYS[1:], _COLOUR]
    year = max(years) if years else ""
    key = "".join(letter for letter in f"{telescope.name}{group}{year}" if letter.isalnum())
    plain = {"{": "(", "}": ")", "\\": "/"}
    title = "".join(plain.get(letter, letter) for letter in f"Stacked images of {group} in {filters} ({place})")
    bibtex = (
        f"@misc{{{key},\n  title = {{{title}}},\n  howpublished = {{made with {name} {version}}},\n"
        f"  note = {{observed {span} with the {telescope.name}}},\n  year = {{{year}}}\n}}"
    )
    return Citation(text, tuple(rests), bibtex)
