"""The index over all groups and years."""

from __future__ import annotations

import re
from pathlib import Path

from models.base import Roots
from models.page import GroupCard, YearCard
from tasks.pages.group import CARD
from tasks.pages.skymap import sky_map
from tasks.pages.writing import link, read_card, write_page

__all__ = ["write_index_page"]

_TITLE = "OHP stacked images"

_TELLS = (
    (r"release(_T\d+)?\.md", "the data release in words and tables"),
    (r"release(_T\d+)?\.json", "the same for programs, with every file's checksum and what made it"),
    (r"release(_T\d+)?_targets\.ecsv", "table of the groups"),
    (r"release(_T\d+)?_stacks\.ecsv", "table of the stacks"),
    (r"release(_T\d+)?_filters\.ecsv", "table of the filters"),
    (r"release(_T\d+)?_quality\.ecsv", "table of quality figures"),
    (r"obscore(_T\d+)?\.vot", "ObsCore table of images and source lists, for TOPCAT or a TAP service"),
    (r"\w+?_moc\.fits", "where on the sky there is data (MOC), for Aladin"),
    (r"\w+_mean_psf\.fits", "mean PSF of all frames"),
    (r"stack_all_report\.json", "every stack, made or not, and every frame left out"),
    (r"phot_check_report\.json", "every zero point against PS1"),
    (r"stack_psf_report\.json", "every stack's PSF"),
    (r"\w+_groups_report\.json", "groups that the frames show, by their solved positions"),
)
"""Files of all groups together, in the order in which they are listed."""


def _told(name: str) -> tuple[int, str]:
    """Place in the list, and what it is."""
    for place, (pattern, said) in enumerate(_TELLS):
        if re.fullmatch(pattern, name):
            band = re.fullmatch(r"T\d+_(\w+)_moc\.fits", name)
            filter = "" if band is None else "R" if band[1] == "Rc" else band[1]
            return place, f"{said}: {filter} alone" if filter else said
    return len(_TELLS), ""


def _best(values: list[float | None], how: str) -> float | None:
    known = [value for value in values if value is not None]
    return (min(known) if how == "min" else max(known)) if known else None


def _group(folder: Path, card: GroupCard) -> dict[str, object]:
    where = f"{card.group}/{card.telescope}"
    thumbnail = card.thumbnail.file.path.removeprefix("stacks/") if card.thumbnail else ""
    return {
        "card": card,
        "link": link(f"{where}/index.html"),
        "thumbnail": link(thumbnail) if thumbnail and (folder / thumbnail).is_file() else "",
        "n_frames": sum(each.n_frames for each in card.filters),
        "minutes": sum(each.exptime_s for each in card.filters) / 60.0,
        "fwhm": _best([each.fwhm_arcsec for each in card.filters], "min"),
        "depth": _best([each.depth_5sigma for each in card.filters], "max"),
        "validated": sum(each.validated for each in card.filters),
    }


def write_index_page(roots: Roots) -> Path:
    """Write ``stacks/index.html``: every group and year that has a page, and the release's tables.

    It is made from the cards beside the pages, so that nothing is read but them.
    """
    folder = roots.data / "stacks"
    pages = sorted(folder.glob("*/*/index.html"), key=lambda page: (page.parent.parent.name.casefold(), page))
    cards = [(page, read_card(page.parent / CARD, GroupCard)) for page in pages]
    known = [card for _, card in cards if card is not None]
    years = [
        (card, path)
        for path in sorted(roots.data.glob(f"[0-9][0-9][0-9][0-9]/*/{CARD}"))
        if (path.parent / "index.html").is_file() and (card := read_card(path, YearCard)) is not None
    ]
    main = "T120" if any(card.telescope == "T120" for card in known) or not known else known[0].telescope
    listed = (
        [path for path in folder.glob("*") if path.is_file() and path.name != "index.html"] if folder.is_dir() else []
    )
    n_frames = sum(each.n_frames for card in known for each in card.filters)
    hours = sum(each.exptime_s for card in known for each in card.filters) / 3600.0
    n_stacks = sum(len(card.filters) for card in known)
    path = folder / "index.html"
    write_page(
        path,
        "index.html",
        title=_TITLE,
        lead=f"{len(known)} target group{'' if len(known) == 1 else 's'}, {n_stacks} stacks of {n_frames} frames, "
        f"{hours:.1f} hours of exposure, {len(years)} observing year{'' if len(years) == 1 else 's'}",
        cards=[_group(folder, card) for card in known],
        others=[
            {"name": page.parent.parent.name, "link": link(page.relative_to(folder).as_posix())}
            for page, card in cards
            if card is None
        ],
        main_telescope=main,
        sky=sky_map(
            [(card.group, link(f"{card.group}/{card.telescope}/index.html"), card.ra, card.dec) for card in known]
        ),
        bands=sorted({each.filter for card in known for each in card.filters}, key=str.casefold),
        all_years=sorted({year for card in known for year in card.years}),
        years=[
            {"card": card, "link": link(f"../{where.parent.relative_to(roots.data).as_posix()}/index.html")}
            for card, where in years
        ],
        files=[
            {"name": file.name, "link": link(file.name), "what": _told(file.name)[1]}
            for file in sorted(listed, key=lambda file: (_told(file.name)[0], len(file.name), file.name))
            if not file.name.startswith(".")
        ],
    )
    return path
