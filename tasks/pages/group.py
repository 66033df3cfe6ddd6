"""The page of a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from astropy.coordinates import SkyCoord
from astropy.io import fits

from models.base import Roots
from models.frame import FrameFailure, Rejected
from models.page import Download, FilterCard, GroupCard, GroupPictures, PageFrame, StackPictures, StackPlots
from models.stack import Stack, stack_paths
from models.target import Target
from models.telescope import Telescope
from tasks.core.fitsio import quiet_fits
from tasks.pages.citation import citation
from tasks.pages.writing import Links, downloads, link, shortened, write_card, write_page
from tasks.report import compressed_rows

__all__ = ["CARD", "write_group_page"]

CARD = "page.json"

_NO_PICTURES = GroupPictures(colour=None)
_BARS = ((600, "10′"), (300, "5′"), (120, "2′"), (60, "1′"), (30, "30″"), (10, "10″"), (5, "5″"), (1, "1″"))

_HOLDS = {
    ".weight.fits": "weight map of {band}: inverse variance of the sky, 0: no data",
    "_psf.fits": "PSF of {band}",
    "_ext.fits": "stack of {band} for extended targets",
    "_moc.fits": "where on the sky there is data (MOC)",
    "_cat.fits": "all sources in all bands",
    "_cat.parquet": "all sources in all bands (Parquet)",
    "_nrej.fits": "frames left out of each pixel of {band}",
    "_ncov.fits": "frames combined in each pixel of {band}",
    ".fits": "stack in {band}",
}
_REPORTS = {
    "stack_all_report.json": "what was stacked, what was left out and why",
    "phot_check_report.json": "zero points against PS1",
    "stack_psf_report.json": "PSFs",
}
_KINDS = {
    ".fits": "FITS", ".fz": "FITS, compressed", ".parquet": "table (Parquet)", ".vot": "table (VOTable)",
    ".xml": "table (VOTable)", ".ecsv": "table (ECSV)", ".json": "JSON", ".md": "text", ".csv": "table",
}  # fmt: skip


def _what(name: str, group: str, filters: Sequence[str]) -> str:
    if name in _REPORTS:
        return _REPORTS[name]
    for ending in ("_cat.fits", "_cat.parquet", "_moc.fits"):
        if name == f"{group}{ending}":
            return _HOLDS[ending]
    for band in filters:
        for ending, said in _HOLDS.items():
            if name == f"{group}_{band}{ending}":
                return said.format(band=band)
    return _KINDS.get(Path(name).suffix, "")


def _files(folder: Path, group: str, filters: Sequence[str]) -> list[tuple[Path, str]]:
    """Everything beside the page but what is the page's own; stacks first."""
    names = [
        path
        for path in folder.iterdir()
        if path.is_file() and path.suffix in _KINDS and path.name != CARD and not path.name.startswith(".")
    ]
    return [
        (path, _what(path.name, group, filters))
        for path in sorted(names, key=lambda path: (path.suffix == ".json", path.name.casefold(), path.name))
    ]


def _copies_said(files: Sequence[Download]) -> str:
    """What a reader should know of the compressed copies; empty where there are none."""
    pairs = [(file, file.compressed) for file in files if file.compressed is not None]
    if not pairs:
        return ""
    full, small = sum(file.bytes for file, _ in pairs), sum(copy.bytes for _, copy in pairs)
    losses = [copy.loss_rms for _, copy in pairs if copy.loss_rms is not None]
    said = f"The compressed copies ({small / 1e6:.1f} MB instead of {full / 1e6:.1f}) are tile-compressed FITS, "
    said += "which astropy, CFITSIO, DS9 and TOPCAT read as they are (image in HDU 1). "
    if losses:
        said += f"Stacks differ by at most {max(losses):.3f} of their noise (rms), which their headers tell (LOSSRMS); "
        said += "weight maps and PSFs lose nothing."
    else:
        said += "They lose nothing."
    return said


def _field(stacks: Sequence[Stack], roots: Roots) -> tuple[float, float] | None:
    """Width and height of the common grid, arcsec."""
    for stack in stacks:
        try:
            with quiet_fits():
                header = fits.getheader(roots.of(stack.image))
            return header["NAXIS1"] * header["PIXSCALE"], header["NAXIS2"] * header["PIXSCALE"]
        except (OSError, KeyError):  # the files table says what is there
            continue
    return None


def _bar(width: float | None) -> dict[str, object]:
    if width is None:
        return {"share": 0.0, "name": ""}
    length, name = next(((length, name) for length, name in _BARS if length < width / 3), _BARS[-1])
    return {"share": 100.0 * length / width, "name": name}


def _facts(stacks: Sequence[Stack], frames: Sequence[PageFrame], field: tuple[float, float] | None) -> list[str]:
    said = []
    if stacks:
        hours = sum(stack.exptime_s for stack in stacks) / 3600.0
        n = sum(stack.n_combined for stack in stacks)
        said.append(f"{len(stacks)} stacks of {n} frames, {hours:.1f} hours of exposure")
    if field is not None:
        said.append(f"field {field[0] / 60:.1f}′ × {field[1] / 60:.1f}′")
    depths = [(stack.depth_5sigma, stack.filter) for stack in stacks if stack.depth_5sigma is not None]
    if depths:
        said.append(f"deepest: {max(depths)[0]:.2f} mag in {max(depths)[1]} (5σ, point source)")
    limits = [
        (stack.noise.surface_brightness, stack.filter)
        for stack in stacks
        if stack.noise is not None and stack.noise.surface_brightness is not None
    ]
    if limits:
        said.append(
            f"faintest surface brightness: {max(limits)[0]:.2f} mag/arcsec² in {max(limits)[1]} (1σ in 1 arcsec²)"
        )
    widths = [stack.psf.fwhm_arcsec for stack in stacks if stack.psf is not None]
    if widths:
        said.append(f"FWHM {min(widths):.2f}″ to {max(widths):.2f}″")
    checked = [stack for stack in stacks if stack.validation is not None and stack.validation.validated]
    if stacks:
        said.append(f"zero point validated against Pan-STARRS1 in {len(checked)} of {len(stacks)} filters")
    nights = sorted({frame.night for frame in frames if frame.status == "used"})
    if nights:
        years = sorted({night[:4] for night in nights})
        said.append(f"observed in {len(nights)} night{'s' if len(nights) > 1 else ''} of {', '.join(years)}")
    return said


def _said(stack: Stack) -> str:
    """A stack in a sentence."""
    parts = [f"{stack.n_combined} frames, {stack.exptime_s:.0f} s, {stack.combine.lower()}"]
    if stack.psf is not None:
        parts.append(
            f"FWHM {stack.psf.fwhm_arcsec:.2f}″, EE50 {stack.psf.ee50_arcsec:.2f}″, EE80 {stack.psf.ee80_arcsec:.2f}″"
        )
    if stack.depth_5sigma is not None:
        parts.append(f"5σ point source {stack.depth_5sigma:.2f} mag")
    if stack.noise is not None and stack.noise.surface_brightness is not None:
        parts.append(f"1σ surface brightness {stack.noise.surface_brightness:.2f} mag/arcsec²")
    if stack.colour is not None:
        parts.append(stack.colour.equation)
    if stack.calibrated:
        parts.append(f"zero point 30.0: {stack.scale_source}")
        if stack.tie is not None:
            parts.append(f"{stack.tie.offset:+.3f} mag applied, from {stack.tie.n_stars} stars")
    else:
        parts.append(f"no zero point: frames scaled by {stack.scale_source}")
    if stack.validation is not None:
        verdict = "validated" if stack.validation.validated else "not validated"
        parts.append(f"{verdict}: {stack.validation.reason}")
    return "; ".join(parts) + "."


def _colour_said(pictures: GroupPictures) -> str:
    bands = pictures.bands
    if len(bands) == 3:
        said = f"Red {bands[0]}, green {bands[1]}, blue {bands[2]} (Lupton et al. 2004)"
    elif len(bands) == 2:
        said = f"Two bands only: red {bands[0]}, blue {bands[1]}, green their mean"
    else:
        said = f"One band only: {', '.join(bands)}, in grey"
    return f"{said}; pixels without data inside the field, such as saturated cores, are drawn like their neighbours."


def _old_plot(folder: Path, name: str) -> str | None:
    return f"plots/{link(name)}" if (folder / "plots" / name).is_file() else None


def write_group_page(
    target: Target,
    stacks: Sequence[Stack],
    left_out: Sequence[Rejected],
    failures: Sequence[FrameFailure],
    notes: Sequence[str],
    roots: Roots,
    telescope: Telescope,
    *,
    frames: Sequence[PageFrame] = (),
    maps: Mapping[str, StackPictures] | None = None,
    plots: Mapping[str, StackPlots] | None = None,
    pictures: GroupPictures = _NO_PICTURES,
    troubles: Sequence[FrameFailure] = (),
) -> Path:
    """Write ``stacks/{group}/{telescope}/index.html`` and, for the index, ``page.json`` beside it.

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
    roots, telescope
        Folders, profile.
    frames
        Every frame of the group, with what became of it.
    maps, plots
        Pictures by filter.
    pictures
        Of the group.
    troubles
        Pictures that could not be drawn.

    Returns
    -------
    Path
        The page.
    """
    maps, plots = maps or {}, plots or {}
    folder = stack_paths(target.name, telescope.name, "x", roots).image.parent
    path = folder / "index.html"
    folder.mkdir(parents=True, exist_ok=True)
    undrawn = "; ".join(f"{each.stage}: {each.reason}" for each in troubles)
    rows = [
        {
            "stack": stack,
            "number": number,
            "said": _said(stack),
            "pictures": maps.get(stack.filter),
            "plots": plots.get(stack.filter),
            "no_pictures": f"No pictures of this filter{f': {undrawn}' if undrawn else ''}.",
            "extended": link(f"{stack.group}_{stack.filter}_ext.fits"),
            "extended_picture": _old_plot(folder, f"{stack.group}_{stack.filter}_ext.png"),
        }
        for number, stack in enumerate(stacks, start=1)
    ]
    used = [frame for frame in frames if frame.status == "used"]
    unused = [frame for frame in frames if frame.status != "used"]
    known = {frame.label for frame in unused}
    field = _field(stacks, roots)
    years = sorted({int(frame.night[:4]) for frame in used}) or sorted(
        {int(name[:4]) for stack in stacks for name in stack.inputs if name[:4].isdigit()}
    )
    filters = [stack.filter for stack in stacks]
    copies = compressed_rows(roots, telescope, target.name)
    files = downloads(_files(folder, target.name, filters), path, roots, copies)
    place = SkyCoord(target.ra, target.dec, unit="deg").to_string("hmsdms", precision=0)
    write_page(
        path,
        "group.html",
        target=target,
        place=f"{place}, {target.ra:.4f}° {target.dec:+.4f}°",
        telescope=telescope,
        links=Links(path, roots),
        pictures=pictures,
        colour_says=_colour_said(pictures) if pictures.colour else "",
        no_colour=f"No colour picture: {undrawn or 'there is no stack, or no pixel that all bands cover'}.",
        bar=_bar(pictures.field_arcsec[0] if pictures.field_arcsec else None),
        facts=_facts(stacks, frames, field),
        rows=rows,
        filters=rows,
        over_time=pictures.frames,
        failures=[*failures, *troubles],
        left_out_frames=unused,
        most=shortened(len(unused)),
        left_out_others=[each for each in left_out if each.file not in known],
        used_frames=used,
        notes=notes,
        files=files,
        copies_say=_copies_said(files),
        citation=citation(target.name, stacks, years, telescope),
    )
    write_card(folder / CARD, _card(target, stacks, unused or left_out, frames, failures, years, pictures, telescope))
    return path


def _card(
    target: Target, stacks: Sequence[Stack], left_out: Sequence[object], frames: Sequence[PageFrame],
    failures: Sequence[FrameFailure], years: Sequence[int], pictures: GroupPictures, telescope: Telescope,
) -> GroupCard:  # fmt: skip
    made = {stack.filter for stack in stacks}
    prefix = f"{target.name}_"
    missing = {each.file.removeprefix(prefix) for each in failures if each.file.startswith(prefix)}
    return GroupCard(
        group=target.name,
        telescope=telescope.name,
        type=target.type,
        members=target.members,
        ra=target.ra,
        dec=target.dec,
        filters=tuple(
            FilterCard(
                filter=stack.filter,
                n_frames=stack.n_combined,
                exptime_s=stack.exptime_s,
                fwhm_arcsec=stack.psf.fwhm_arcsec if stack.psf is not None else None,
                depth_5sigma=stack.depth_5sigma,
                validated=stack.validation is not None and stack.validation.validated,
            )
            for stack in stacks
        ),
        years=tuple(years),
        n_left_out=len(left_out),
        n_pending=sum(frame.status == "pending" for frame in frames),
        not_made=tuple(sorted(missing - made & missing)),
        thumbnail=pictures.thumbnail,
    )
