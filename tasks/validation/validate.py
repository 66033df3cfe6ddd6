"""A stack against PS1: does ``m = -2.5 log10(flux) + 30`` hold on it?"""

from __future__ import annotations

from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import sep
from astropy.io import fits
from astropy.wcs import WCS

from models.base import FileRef, Roots
from models.catalog import StoredCone
from models.settings import PhotometrySettings, ValidationSettings
from models.stack import ZERO_POINT, Stack, StackTie, StackValidation, stack_paths
from models.telescope import Band, Telescope
from tasks.catalogs import reference_note, reference_table
from tasks.core.errors import StageError
from tasks.core.files import ref, writing
from tasks.photometry import (
    GrowthCurve,
    StarPhotometry,
    ZeroPointFit,
    catalogue_leverage,
    fit_zero_point,
    measure_stars,
    ps1_stars,
)
from tasks.validation.release import release_check

__all__ = ["Residuals", "compared_stars", "judge", "residuals", "tie_stack", "validate_stack"]

FloatArray = npt.NDArray[np.floating[Any]]

_DETECTION_SIGMA = 5.0
_MIN_AREA_PX = 5
_MESH_PX = 64
_CORRELATION = 2.2
"""Resampling correlates neighbouring pixels: an aperture's true noise is 2 to 2.5 times the white estimate."""


_OF_EACH_STAR = ("flux", "err", "mag", "mag_err", "colour", "x", "y")


class Residuals(NamedTuple):
    """Stars of a stack against PS1; arrays of shape (N,), stars that passed all cuts.

    Attributes
    ----------
    mag, colour
        PS1, mag; `colour` is NaN where the band has none.
    difference
        ``-2.5 log10(flux) + 30 - (m_PS1 + colour_term * colour + curvature * colour**2)``, mag.
    error
        Of `difference`, mag.
    used
        Not clipped.
    offset, offset_err, rms
        Of the stack's zero point: the stack's magnitudes are too faint by `offset`; scatter, mag.
    colour_term, colour_source
        The term that was used, and whether it was ``'given'``, ``'fitted'`` or ``'none'`` (0).
    colour_name
        Such as ``'g - r'``; empty where the band has none.
    aperture_px, counts
        Radius; what each cut left.
    """

    mag: FloatArray
    colour: FloatArray
    difference: FloatArray
    error: FloatArray
    used: npt.NDArray[np.bool_]
    offset: float | None
    offset_err: float | None
    rms: float | None
    colour_term: float
    colour_source: str
    colour_name: str
    aperture_px: float
    counts: tuple[str, ...]


def residuals(
    stack: Stack, ps1: StoredCone, roots: Roots, telescope: Telescope, settings: ValidationSettings
) -> Residuals:
    """Measure the PS1 stars on a stack as a user would: apertures of 3 FWHM above the local sky, zero point 30.

    Stars as for frames (14.5 to 20 mag, point sources, isolated, S/N > 10); no aperture correction. Of a stack that
    was tied to PS1 every second star, against a tie from the others: a check by stars that had no part in it.

    Raises
    ------
    StageError
        If the stack cannot be read, holds no light, or its filter has no PS1 band.
    """
    seen = _look(stack, ps1, roots, telescope, settings)
    if stack.tie is None:
        return seen.compared(seen.stars, 0.0)
    return seen.compared(_half(seen.stars, 1), stack.tie.half_offset)


class _Look(NamedTuple):
    """PS1 stars as they are on a stack."""

    stars: StarPhotometry
    band: Band
    settings: PhotometrySettings
    aperture_px: float

    def compared(self, stars: StarPhotometry, shift: float) -> Residuals:
        """Some of the stars against PS1, the stack's flux raised by `shift` mag."""
        return _compare(stars, self.band, self.settings, self.aperture_px, shift)


def _look(stack: Stack, ps1: StoredCone, roots: Roots, telescope: Telescope, settings: ValidationSettings) -> _Look:
    band = _ps1_band(stack, telescope)
    if band is None:
        raise StageError("validation", f"PS1 has no band like {stack.filter}", "nothing to do: it stays unvalidated")
    photometry = PhotometrySettings(
        aperture_fwhm=settings.aperture_fwhm, match_arcsec=settings.match_arcsec, min_stars=settings.min_stars
    )
    if stack.compared is not None:
        stars, aperture_px = _kept(stack.compared, roots)
        return _Look(stars, band, photometry, aperture_px)
    image, weight, wcs = _read(stack, roots)
    bad = (weight <= 0) | ~np.isfinite(image)
    if bad.all():
        raise StageError("validation", "the weight map is 0 everywhere", "look at the stack's frames and weights")
    scale = float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600.0)
    variance, x, y, width = _detect(image, bad, weight)
    fwhm = stack.psf.fwhm_px if stack.psf is not None else width
    stars = measure_stars(
        image, bad.astype(np.uint8), variance, wcs, (x, y),
        ps1_stars(reference_table(ps1, roots), band, photometry.max_psf_kron),
        fwhm_px=fwhm, pixel_scale=scale, settings=photometry, saturation=None, correct_aperture=False,
    )  # fmt: skip
    return _Look(stars, band, photometry, settings.aperture_fwhm * fwhm)


def _kept(file: FileRef, roots: Roots) -> tuple[StarPhotometry, float]:
    """What `compared_stars` wrote: the stars and the aperture's radius, px."""
    try:
        with np.load(roots.of(file), allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise StageError("validation", f"{file.path} cannot be read: {error}", "make the stack again") from error
    fwhm, beta, *covariance = (float(value) for value in arrays["curve"])
    correction, correction_err = (float(value) for value in arrays["correction"])
    curve = GrowthCurve(fwhm, beta, int(arrays["n_stars"]), (covariance[0], covariance[1], covariance[2]))
    stars = StarPhotometry(
        **{name: arrays[name] for name in _OF_EACH_STAR}, correction_mag=correction, correction_err=correction_err,
        curve=curve,
        n_matched=int(arrays["n_matched"]), counts=tuple(str(each) for each in arrays["counts"]),
    )  # fmt: skip
    return stars, float(arrays["aperture_px"])


def compared_stars(
    stack: Stack, ps1: StoredCone | None, roots: Roots, telescope: Telescope, settings: ValidationSettings
) -> FileRef | None:
    """Measure the PS1 stars on a combined image once, for tie, validation and plots, and keep them beside it.

    Returns
    -------
    FileRef or None
        To be said in `Stack.compared`. None where there is nothing to compare.

    Raises
    ------
    StageError
        If the stack cannot be read or holds no light.
    """
    if ps1 is None or not stack.calibrated or _ps1_band(stack, telescope) is None:
        return None
    seen = _look(stack, ps1, roots, telescope, settings)
    stars, path = seen.stars, stack_paths(stack.group, stack.telescope, stack.filter, roots).work_compared
    with writing(path) as temporary, temporary.open("wb") as sink:
        np.savez(
            sink, **{name: getattr(stars, name) for name in _OF_EACH_STAR},
            curve=np.array([stars.curve.fwhm_px, stars.curve.beta, *stars.curve.covariance]),
            n_stars=np.array(stars.curve.n_stars), n_matched=np.array(stars.n_matched),
            correction=np.array([stars.correction_mag, stars.correction_err]),
            counts=np.array(stars.counts, dtype=str), aperture_px=np.array(seen.aperture_px),
        )  # fmt: skip
    return ref(path, roots)


def _half(stars: StarPhotometry, which: int) -> StarPhotometry:
    """Every second star in order of brightness: two halves alike that share no star."""
    chosen = np.argsort(stars.mag, kind="stable")[which::2]
    arrays = {name: getattr(stars, name)[chosen] for name in _OF_EACH_STAR}
    return stars._replace(**arrays, counts=(*stars.counts, f"{chosen.size} in this half"))


def tie_stack(
    stack: Stack, ps1: StoredCone | None, roots: Roots, telescope: Telescope, settings: ValidationSettings
) -> StackTie | None:
    """How far a combined image is from PS1.

    A median of frames of mixed seeing holds less than a star's mean light (16 to 40 mmag at 1.8 to 4 arcsec,
    measured on simulated frames), however well each frame is scaled; and 3 FWHM hold not all of it. This is
    the remaining step to ``m = -2.5 log10(flux) + 30`` for stars in apertures of 3 FWHM.

    Returns
    -------
    StackTie or None
        The step from all stars, and that from every second one, against which `validate_stack` holds the others.
        None where it is not asked for, where nothing can be compared, with fewer than twice
        `settings.min_stars` stars, or beyond `settings.max_offset_mag`: that is no small step but an error.

    Raises
    ------
    StageError
        If the stack cannot be read.
    """
    if not settings.tie or ps1 is None or not stack.calibrated or _ps1_band(stack, telescope) is None:
        return None
    seen = _look(stack, ps1, roots, telescope, settings)
    half, found = seen.compared(_half(seen.stars, 0), 0.0), seen.compared(seen.stars, 0.0)
    if half.offset is None or half.used.sum() < settings.min_stars or found.offset is None or found.offset_err is None:
        return None
    if abs(found.offset) > settings.max_offset_mag:  # an error to be found by the validation, not to be hidden
        return None
    return StackTie(
        offset=round(found.offset, 5), err=round(found.offset_err, 5), n_stars=int(found.used.sum()),
        half_offset=round(half.offset, 5),
    )  # fmt: skip


def _compare(
    stars: StarPhotometry, band: Band, settings: PhotometrySettings, aperture_px: float, shift: float
) -> Residuals:
    name = " - ".join(band.colour) if band.colour else ""
    fit: ZeroPointFit | None = None
    offset = stars.offset
    error = np.hypot(stars.noise, stars.mag_err * catalogue_leverage(band, band.colour_term or 0.0))
    if band.colour_curvature:
        offset = offset + band.colour_curvature * stars.colour**2
    if stars.flux.size >= settings.min_stars:
        fit = fit_zero_point(
            offset, error, stars.colour, colour_term=band.colour_term,
            clip_sigma=settings.clip_sigma, iterations=settings.clip_iterations,
        )  # fmt: skip
    term = fit.colour_term if fit else (band.colour_term or 0.0)
    shade = np.where(np.isfinite(stars.colour), stars.colour, np.nan if term else 0.0)
    return Residuals(
        mag=stars.mag,
        colour=stars.colour,
        difference=ZERO_POINT - offset - term * shade - shift,
        error=error,
        used=fit.used if fit else np.zeros(stars.flux.size, bool),
        offset=ZERO_POINT - fit.zp - shift if fit else None,
        offset_err=fit.err if fit else None,
        rms=fit.rms if fit else None,
        colour_term=term,
        colour_source=fit.colour_source if fit else "none",
        colour_name=name,
        aperture_px=aperture_px,
        counts=stars.counts,
    )


def validate_stack(
    stack: Stack, ps1: StoredCone | None, roots: Roots, telescope: Telescope, settings: ValidationSettings
) -> StackValidation:
    """Compare a stack's magnitudes with PS1.

    Parameters
    ----------
    stack
        With its PSF where there is one: the aperture follows its width.
    ps1
        A PS1 cone that covers it; None: the catalogue could not be asked.
    roots, telescope, settings
        Folders; profile with the filter's PS1 band; numbers.

    Returns
    -------
    StackValidation
        ``validated`` only if there are stars enough and their offset from 30.0 is below
        `settings.max_offset_mag`; `reason` says why not, or how it was measured. The release's own method stands
        beside it (``release_offset``, ``release_rms``, ``release_n_stars``); the verdict does not rest on it.

    Raises
    ------
    StageError
        If the stack cannot be read.
    """
    band = _ps1_band(stack, telescope)
    if band is None:
        return StackValidation(validated=False, reason=f"PS1 has no band like {stack.filter}")
    if not stack.calibrated:
        return StackValidation(validated=False, reason="the stack has no zero point, only a relative scale")
    if ps1 is None:
        return StackValidation(validated=False, reason="pending: the PS1 catalogue around it has not been fetched yet")
    verdict = judge(residuals(stack, ps1, roots, telescope, settings), settings)
    update = _as_the_release(stack, ps1, roots, band)
    if note := reference_note(ps1):
        update["reason"] = f"{verdict.reason}; {note}"
    return verdict.model_copy(update=update)


def _as_the_release(stack: Stack, ps1: StoredCone, roots: Roots, band: Band) -> dict[str, Any]:
    """What the release's method says of the stack as it is published."""
    image, weight, wcs = _read(stack, roots)
    bad = (weight <= 0) | ~np.isfinite(image)
    fwhm = stack.psf.fwhm_px if stack.psf is not None else _detect(image, bad, weight)[3]
    raised = 10.0 ** (0.4 * stack.tie.offset) if stack.tie is not None else 1.0
    found = release_check(image * np.float32(raised), bad, wcs, fwhm, reference_table(ps1, roots), band)
    if found is None:
        return {}
    return {"release_offset": found.offset, "release_rms": found.rms, "release_n_stars": found.n_stars}


def judge(found: Residuals, settings: ValidationSettings) -> StackValidation:
    """The verdict on residuals that have been measured."""
    n = int(found.used.sum())
    if found.offset is None or n < settings.min_stars:
        reason = f"{found.mag.size} stars, {settings.min_stars} are needed: {', '.join(found.counts)}"
        return StackValidation(validated=False, reason=reason, n_stars=n)
    good = abs(found.offset) <= settings.max_offset_mag
    how = f"aperture {found.aperture_px:.1f} px, colour term {found.colour_term:+.3f} ({found.colour_source})"
    if found.colour_source == "none":
        how = f"aperture {found.aperture_px:.1f} px, no colour term"
    too_far = f"offset {found.offset:+.3f} mag, at most {settings.max_offset_mag:g} is allowed; "
    return StackValidation(
        validated=good,
        reason=how if good else too_far + how,
        zp_offset=found.offset,
        zp_err=found.offset_err,
        zp_rms=found.rms,
        n_stars=n,
    )


def _ps1_band(stack: Stack, telescope: Telescope) -> Band | None:
    try:
        band = telescope.band(stack.filter)
    except KeyError:
        return None
    return band if band.ps1 is not None else None


def _read(stack: Stack, roots: Roots) -> tuple[FloatArray, FloatArray, WCS]:
    try:
        with fits.open(roots.of(stack.image), memmap=False) as hdus:
            image, header = np.asarray(hdus[0].data, dtype=np.float32), hdus[0].header
        weight = np.asarray(fits.getdata(roots.of(stack.weight)), dtype=np.float32)
    except (OSError, TypeError, ValueError) as error:
        raise StageError("validation", f"the stack cannot be read: {error}", "make the stack again") from error
    if image.ndim != 2 or image.shape != weight.shape:
        raise StageError(
            "validation", f"stack {image.shape} and weight map {weight.shape} differ", "make the stack again"
        )
    return image, weight, WCS(header)


def _detect(
    image: FloatArray, bad: npt.NDArray[np.bool_], weight: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Variance map, windowed positions (zero-based) of the sources and the width of the bright ones, px."""
    clean = np.ascontiguousarray(np.where(bad, 0, image), dtype=np.float32)
    sky = sep.Background(clean, mask=bad, bw=_MESH_PX, bh=_MESH_PX)
    flat = clean - sky.back(dtype=np.float32)
    # The weights' scale is the combination's own; the noise where the weight is typical sets it.
    typical = float(np.median(weight[~bad]))
    sigma = float(sky.globalrms)
    sigma = sigma if sigma > 0 else float(np.std(flat[~bad])) or 1.0
    variance = np.where(bad, sigma**2, sigma**2 * typical / np.maximum(weight, 0.01 * typical))
    sep.set_extract_pixstack(max(300_000, image.size))
    found = sep.extract(
        flat, _DETECTION_SIGMA, err=np.sqrt(variance).astype(np.float32), mask=bad, minarea=_MIN_AREA_PX
    )
    if len(found) == 0:
        return variance * _CORRELATION**2, np.zeros(0), np.zeros(0), 4.0
    bright = found["flux"] > np.median(found["flux"])
    half, flag = sep.flux_radius(flat, found["x"], found["y"], 6.0 * found["a"], 0.5, normflux=found["flux"], subpix=5)
    sized = bright & (flag == 0) & (half > 0)
    width = 1.54 * float(np.median(half[sized])) if sized.any() else 4.0
    x, y, _ = sep.winpos(flat, found["x"], found["y"], np.full(len(found), width / 2.3548), mask=bad)
    near = np.hypot(x - found["x"], y - found["y"]) < width
    variance = (variance * _CORRELATION**2).astype(np.float32)
    return variance, np.where(near, x, found["x"]), np.where(near, y, found["y"]), width
