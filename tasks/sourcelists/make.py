"""The source list of a group, from its finished stacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.base import Roots
from models.catalog import StoredCone
from models.settings import SourceSettings
from models.sourcelist import SourceFlag, SourceList, source_list_paths
from models.stack import Stack
from models.telescope import Telescope
from tasks.core.errors import StageError
from tasks.core.files import ref
from tasks.sourcelists.crowded import Patch, crowded_fluxes, crowded_patches, with_crowded
from tasks.sourcelists.detect import Detection, detect
from tasks.sourcelists.images import BandImage, FloatArray, read_bands
from tasks.sourcelists.match import Matches, match_gaia, match_ps1
from tasks.sourcelists.measure import Measured, measure_band
from tasks.sourcelists.table import columns_of
from tasks.sourcelists.write import write_source_fits, write_source_parquet

__all__ = ["make_source_list"]

_PLACE_FLOOR_ARCSEC = 0.02
"""Of the stacks' world coordinates (docs/truth.md: 12 mas between filters, 18 mas over the chip)."""
_ENOUGH_GAIA = 20
_MJD_2000, _YEAR = 51544.5, 365.25


def _epoch(bands: Sequence[BandImage]) -> float:
    """Julian year in the middle of all exposures."""
    days = [
        (float(band.header["MJD-OBS"]) + float(band.header["MJD-END"])) / 2
        for band in bands
        if "MJD-OBS" in band.header and "MJD-END" in band.header
    ]
    if not days:
        raise StageError("source list", "no stack tells when it was observed", "stack the group again")
    return 2000.0 + (float(np.mean(days)) - _MJD_2000) / _YEAR


def _place_error(seen: Detection, measured: Sequence[Measured], scale: float) -> FloatArray:
    """Of a windowed centroid: the seeing's sigma over the S/N of all bands together, times that of neighbours' noise.

    An error of sigma / (S/N) is what a Gaussian on white noise allows (King 1983, PASP 95, 163).
    """
    squares = np.zeros(seen.x.size)
    for each in measured:
        with np.errstate(divide="ignore", invalid="ignore"):
            squares += np.nan_to_num(np.square(each.aperture[:, 0] / each.aperture_err[:, 0]))
    sigma = seen.fwhm_px / 2.3548 * scale
    return np.hypot(_PLACE_FLOOR_ARCSEC, 1.4 * sigma / np.sqrt(np.maximum(squares, 1.0)))


def _ordered(stacks: Sequence[Stack], telescope: Telescope) -> list[Stack]:
    """By wavelength as the profile lists the filters."""
    known = {band.name: number for number, band in enumerate(telescope.bands)}
    return sorted(stacks, key=lambda stack: (known.get(stack.filter, len(known)), stack.filter))


def _crowd(band: Measured, seen: Detection, patches: Sequence[Patch], patch_of: npt.NDArray[np.int_]) -> Measured:
    """A band with the PSF fluxes of the crowded parts from the fit of all stars there."""
    if band.band.psf is None or not patches:
        return band
    flux, error, chi2, fitted = crowded_fluxes(band.band, seen, patches, patch_of)
    raised = 10 ** (-0.4 * (band.summary.psf_correction or 0.0))
    floor = (band.summary.psf_floor or 0.0) / 1.0857
    flux = flux * raised
    band.flags[fitted] |= SourceFlag.CROWDED
    band.flags[fitted] &= ~int(SourceFlag.BAD_FIT)
    return band._replace(
        psf=np.where(fitted, flux, band.psf),
        psf_err=np.where(fitted, np.hypot(error * raised, floor * np.nan_to_num(flux)), band.psf_err),
        chi2=np.where(fitted, chi2, band.chi2),
    )


def make_source_list(
    stacks: Sequence[Stack],
    gaia: StoredCone | None,
    ps1: StoredCone | None,
    roots: Roots,
    telescope: Telescope,
    settings: SourceSettings,
) -> SourceList:
    """One table of all sources of a group in all bands: ``{group}_cat.fits`` and ``.parquet`` beside the stacks.

    Found on the chi-square image of all bands; measured in each in apertures, Kron's ellipse and with its PSF at
    the same places on the grid they share. Magnitudes of point sources agree by aperture corrections; errors hold
    the noise that resampled pixels share, as measured on empty sky.

    Parameters
    ----------
    stacks
        Finished stacks of one group.
    gaia, ps1
        Catalogues around it, for identifiers; None, or another catalogue in PS1's place: without them, and said.
    roots, telescope, settings
        Folders; gain and filters; numbers.

    Returns
    -------
    SourceList

    Raises
    ------
    StageError
        If a stack cannot be read, they are not on one grid, or nothing is seen on them.
    """
    if not stacks:
        raise StageError("source list", "no stack", "stack the group first")
    bands = read_bands(_ordered(stacks, telescope), roots, telescope)
    seen = detect(bands, settings)
    notes: list[str] = []
    patches = crowded_patches(seen, settings)
    seen, patch_of = with_crowded(seen, bands, patches)
    ra, dec = (np.asarray(axis, np.float64) for axis in bands[0].wcs.all_pix2world(seen.x, seen.y, 0))
    epoch = _epoch(bands)
    matches, ids = _identified(ra, dec, gaia, ps1, epoch, settings.match_arcsec, roots)
    notes += ids
    # Gaia knows few galaxies; without it the width alone has to tell.
    starlike = matches[0].found if matches[0] is not None and matches[0].found.sum() >= _ENOUGH_GAIA else None
    measured = [_crowd(measure_band(band, seen, starlike), seen, patches, patch_of) for band in bands]
    relative = [band.filter for band in bands if band.zero_point is None]
    if relative:
        notes.append(f"no magnitudes in {', '.join(relative)}: the scale is relative")
    without = [band.filter for band in bands if band.psf is None]
    if without:
        notes.append(f"no PSF fluxes in {', '.join(without)}: the stack has no PSF")
    scale = float(np.sqrt(abs(np.linalg.det(bands[0].wcs.pixel_scale_matrix))) * 3600.0)
    flags = np.bitwise_or.reduce([each.flags for each in measured])
    columns = columns_of(seen, ra, dec, _place_error(seen, measured, scale), flags, measured, *matches, telescope.name)
    group = stacks[0].group
    summaries = tuple(each.summary for each in measured)
    fits_path, parquet_path = source_list_paths(group, telescope.name, roots)
    cards = [
        ("OBJECT", group, "target group"),
        ("TELESCOP", telescope.name, "telescope"),
        ("NSOURCES", int(seen.x.size), "rows of SOURCES"),
        ("NCROWDED", int(np.count_nonzero(patch_of >= 0)), "of them in crowded parts of the field"),
        ("FILTERS", " ".join(band.filter for band in bands), "bands"),
        ("DETSIGMA", settings.detection_sigma, "threshold on the chi-square image"),
        ("POSEPOCH", round(epoch, 3), "[yr] Julian year of the positions"),
        ("PIXSCALE", round(scale, 5), "[arcsec/px] of the grid"),
        ("MATCHRAD", settings.match_arcsec, "[arcsec] radius of the identifiers' match"),
    ]
    write_source_fits(fits_path, columns, summaries, cards, notes)
    what = f"Sources of {group} on the stacks of {telescope.name} in {', '.join(band.filter for band in bands)}"
    write_source_parquet(parquet_path, columns, f"{group}_cat", "; ".join((what, *notes)))
    return SourceList(
        group=group,
        telescope=telescope.name,
        fits=ref(fits_path, roots),
        parquet=ref(parquet_path, roots),
        n_sources=int(seen.x.size),
        n_crowded=int(np.count_nonzero(patch_of >= 0)),
        detected_on=tuple(band.filter for band in bands),
        bands=summaries,
        n_gaia=None if matches[0] is None else int(np.count_nonzero(matches[0].found)),
        n_ps1=None if matches[1] is None else int(np.count_nonzero(matches[1].found)),
        notes=tuple(notes),
    )


def _identified(
    ra: FloatArray, dec: FloatArray, gaia: StoredCone | None, ps1: StoredCone | None, epoch: float, radius: float,
    roots: Roots,
) -> tuple[tuple[Matches | None, Matches | None], list[str]]:  # fmt: skip
    """Identifiers of both catalogues, and what is missing."""
    notes = []
    of_gaia = of_ps1 = None
    if gaia is None:
        notes.append("no Gaia identifiers: the catalogue around the group is not in the store")
    else:
        of_gaia = match_gaia(ra, dec, gaia, epoch, radius, roots)
    if ps1 is None:
        notes.append("no PS1 identifiers: the catalogue around the group is not in the store")
    elif ps1.catalogue != "ps1":
        notes.append(f"no PS1 identifiers: PS1 has no sky there, {ps1.release} stands in for its magnitudes")
    else:
        of_ps1 = match_ps1(ra, dec, ps1, radius, roots)
    return (of_gaia, of_ps1), notes
