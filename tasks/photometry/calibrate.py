"""The zero point of a frame against PS1."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.base import Roots
from models.catalog import StoredCone
from models.frame import CalibratedFrame, PhotometryStatus, SolvedFrame, ZeroPoint
from models.settings import PhotometrySettings
from models.telescope import Band, Telescope
from tasks.astrometry import read_wcs
from tasks.calibration import read_reduced
from tasks.catalogs import reference_note, reference_table
from tasks.photometry.apertures import (
    SKY_INNER,
    SKY_OUTER,
    Apertures,
    GrowthCurve,
    aperture_fluxes,
    default_curve,
    growth_curve,
)
from tasks.photometry.area import relative_area
from tasks.photometry.images import StarImage, core_peak, prepare_image
from tasks.photometry.stars import Neighbours, PS1Stars, match_and_select, on_image, ps1_stars
from tasks.photometry.systems import catalogue_leverage, natural_equation, vega_system
from tasks.photometry.zero_point import MAX_CLIPPED, ZeroPointFit, fit_colour, fit_zero_point
from tasks.quality import read_sources

__all__ = ["StarPhotometry", "calibrate_frame", "frame_fwhm_px", "measure_stars"]

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

SATURATION_MARGIN = 0.9
"""Stars whose highest pixel passes this share of the camera's linear range are left out."""

_CURVE_SNR = 50.0
_CURVE_STARS = 100
_SMALL_FWHM = 1.25
_MIN_RATIO_STARS = 5
_MIN_RATIO_SCATTER = 0.003
_RATIO_CLIP = 3.0
_MAX_RATIO_PULL = 3.0


class StarPhotometry(NamedTuple):
    """Catalogue stars measured on an image; arrays of shape (N,), one row a star that passed all cuts.

    Attributes
    ----------
    flux, err
        Total flux, the growth curve's correction included, in the image's unit.
    mag, mag_err, colour
        PS1, mag.
    x, y
        Zero-based px.
    curve
        Growth curve of the image; its `n_stars` is 0 where a default profile was taken.
    correction_mag, correction_err
        ``2.5 log10`` of the share of a star's light that the aperture holds: what the correction added, <= 0; its
        error, which all stars share, mag.
    n_matched
        PS1 objects matched before any cut.
    counts
        What each cut left, in words.
    """

    flux: FloatArray
    err: FloatArray
    mag: FloatArray
    mag_err: FloatArray
    colour: FloatArray
    x: FloatArray
    y: FloatArray
    curve: GrowthCurve
    correction_mag: float
    correction_err: float
    n_matched: int
    counts: tuple[str, ...]

    @property
    def offset(self) -> FloatArray:
        """m_PS1 + 2.5 log10(flux), mag."""
        return np.asarray(self.mag + 2.5 * np.log10(self.flux))

    @property
    def noise(self) -> FloatArray:
        """Photon error of `offset`, mag."""
        return np.asarray(1.0857 * self.err / self.flux)

    @property
    def offset_err(self) -> FloatArray:
        """Photon and catalogue errors of `offset`, mag."""
        return np.asarray(np.hypot(self.noise, self.mag_err))


def measure_stars(
    data: FloatArray,
    mask: npt.NDArray[Any],
    var: FloatArray,
    wcs: Any,
    detections: tuple[FloatArray, FloatArray],
    stars: PS1Stars,
    *,
    fwhm_px: float,
    pixel_scale: float,
    settings: PhotometrySettings,
    saturation: float | None,
    correct_aperture: bool = True,
) -> StarPhotometry:
    """Photometry of the PS1 stars on an image: a frame or a stack.

    Parameters
    ----------
    data, mask, var
        Image, mask (0: good) and variance, 2-D.
    wcs
        astropy WCS, distortions included.
    detections
        Zero-based x and y of the image's sources, px.
    stars
        All PS1 objects around the image, galaxies and faint ones included: they are the neighbours.
    fwhm_px, pixel_scale
        Width of a star, px; arcsec/px.
    settings
        Aperture, match radius, magnitude range, isolation, S/N.
    saturation
        Highest usable pixel, sky included; None: not looked at (a stack, where the mask or the clipping tells).
    correct_aperture
        Bring fluxes to total light with the growth curve.
    """
    x, y = (np.asarray(v, np.float64) for v in detections)
    radius = settings.aperture_fwhm * fwhm_px
    near, pixel = on_image(stars, wcs, data.shape, margin_px=2 * radius)
    matched = match_and_select(
        near,
        pixel,
        x,
        y,
        match_px=settings.match_arcsec / pixel_scale,
        isolation_px=settings.isolation_fwhm * fwhm_px,
        aperture_px=radius,
        mag_range=(settings.bright_mag, settings.faint_mag),
    )
    counts = list(matched.counts)
    catalogue, detection = matched.catalogue, matched.detection
    image = prepare_image(data, mask, var)
    at = x[detection], y[detection]
    measured = aperture_fluxes(image, *at, radius, core_px=fwhm_px)
    clean = measured.flag == 0
    counts.append(f"{int(clean.sum())} free of masked pixels and edges")
    if saturation is not None:
        clean &= core_peak(data, *at) < saturation
        counts.append(f"{int(clean.sum())} unsaturated")
    bright = np.flatnonzero(clean & (measured.flux > _CURVE_SNR * measured.err))
    bright = bright[np.argsort(-(measured.flux / measured.err)[bright], kind="stable")][:_CURVE_STARS]
    curve, share, share_err = default_curve(fwhm_px), 1.0, 0.0
    if correct_aperture:
        curve = growth_curve(image, at[0][bright], at[1][bright], fwhm_px)
        share, share_err = curve.measured_share(radius), curve.share_error(radius)
    flux, err, single, shared = _refine(image, *at, measured, bright, fwhm_px, radius, curve, matched.neighbours)
    clean &= single
    counts.append(f"{int(clean.sum())} of a star's profile")
    strong = clean & _expected_above(settings.min_snr, flux, err, near.mag[catalogue], clean)
    counts.append(f"{int(strong.sum())} with S/N > {settings.min_snr:g}")
    catalogue, detection = catalogue[strong], detection[strong]
    flux, err = flux[strong], err[strong]
    return StarPhotometry(
        flux=flux / share,
        err=err / share,
        mag=near.mag[catalogue],
        mag_err=near.mag_err[catalogue],
        colour=near.colour[catalogue],
        x=x[detection],
        y=y[detection],
        curve=curve,
        correction_mag=float(2.5 * np.log10(share)),
        correction_err=1.0857 * float(np.hypot(share_err / share, shared)),
        n_matched=matched.n_matched,
        counts=tuple(counts),
    )


def _refine(
    image: StarImage,
    x: FloatArray,
    y: FloatArray,
    large: Apertures,
    bright: IntArray,
    fwhm_px: float,
    radius: float,
    curve: GrowthCurve,
    neighbours: Neighbours,
) -> tuple[FloatArray, FloatArray, BoolArray, float]:
    """Flux, error, and whether it is the light of one star alone, with the help of a second, small aperture.

    The last value is the error that all stars share which are measured in the small one, as a share of their flux.

    Stars whose error falls with it are measured in the small one and scaled up as the bright stars say: the sky's
    noise in a radius of 1.25 FWHM is less than half of that in 3 FWHM, and so is what neighbours add (Howell 1989,
    PASP 101, 616). A star whose ratio of the two differs from the bright stars' by more than its error allows is a
    blend, a galaxy, or lies on a spiral arm. What catalogued neighbours add is taken off: mostly faint, they would
    brighten faint and so red stars most.
    """
    large = large._replace(flux=_without(large.flux, neighbours, curve, radius))
    if bright.size < _MIN_RATIO_STARS:
        return large.flux, large.err, np.ones(large.flux.size, bool), 0.0
    sky = (SKY_INNER * radius, SKY_OUTER * radius)
    small = aperture_fluxes(image, x, y, _SMALL_FWHM * fwhm_px, core_px=fwhm_px, sky_px=sky)
    small = small._replace(flux=_without(small.flux, neighbours, curve, _SMALL_FWHM * fwhm_px))
    noise = large.err[bright] / large.flux[bright]
    ratio, scatter, shared = _ratio_over_field(
        x, y, bright, large.flux[bright] / small.flux[bright], noise, image.data.shape
    )
    scaled, scaled_err = ratio * small.flux, ratio * np.hypot(small.err, scatter * small.flux)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(large.flux - scaled) / np.hypot(large.err, scatter * np.abs(scaled))
    better = scaled_err < large.err
    flux, err = np.where(better, scaled, large.flux), np.where(better, scaled_err, large.err)
    return flux, err, off < _MAX_RATIO_PULL, shared if better.any() else 0.0


def _ratio_over_field(
    x: FloatArray, y: FloatArray, bright: IntArray, ratios: FloatArray, noise: FloatArray, shape: tuple[int, ...]
) -> tuple[FloatArray, float, float]:
    """Ratio of two apertures' fluxes at every star, how well bright stars follow it beyond their noise, its error.

    A quadratic over the field (coma and tilt make images wider towards the edges) where three bright stars a
    coefficient are left to fit it, else one number.
    """
    u, v = 2.0 * x / shape[1] - 1.0, 2.0 * y / shape[0] - 1.0
    terms = np.column_stack([np.ones_like(u), u, v, u * u, u * v, v * v])
    middle = float(np.median(ratios))
    typical = 1.4826 * float(np.median(np.abs(ratios - middle))) / middle
    keep = np.abs(ratios / middle - 1.0) <= _RATIO_CLIP * np.hypot(noise, max(_MIN_RATIO_SCATTER, typical))
    if keep.sum() < 3 * terms.shape[1]:
        model = np.full(x.size, middle)
    else:
        weight = 1.0 / np.hypot(noise[keep], _MIN_RATIO_SCATTER)
        fit = np.linalg.lstsq(terms[bright][keep] * weight[:, None], ratios[keep] * weight, rcond=None)[0]
        model = terms @ fit
    left = ratios[keep] / model[bright][keep] - 1.0
    width = 1.4826 * float(np.median(np.abs(left - np.median(left))))
    scatter = max(_MIN_RATIO_SCATTER, float(np.sqrt(max(width**2 - float(np.median(noise[keep])) ** 2, 0.0))))
    return model, scatter, float(1.0 / np.sqrt((1.0 / (noise[keep] ** 2 + scatter**2)).sum()))


def _without(flux: FloatArray, neighbours: Neighbours, curve: GrowthCurve, radius: float) -> FloatArray:
    """Fluxes in apertures of `radius` px without what neighbours throw into them; the rim taken for a straight line."""
    inside = curve.beyond_line(neighbours.distance - radius)
    return np.asarray(flux / (1.0 + neighbours.light(flux.size, inside) / curve.enclosed(radius)))


def _expected_above(
    min_snr: float, flux: FloatArray, err: FloatArray, mag: FloatArray, clean: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Stars whose *catalogue* magnitude lets expect the S/N asked for.

    A cut on the measured flux would keep the faint stars that noise made brighter, and bias the zero point.
    """
    sure = clean & (flux > 2 * min_snr * err)
    if not sure.any():
        sure = clean & (flux > min_snr * err)
    if not sure.any():
        return sure
    offset = float(np.median(mag[sure] + 2.5 * np.log10(flux[sure])))
    expected = 10 ** (-0.4 * (mag - offset))
    # Half of what is expected is no longer noise but another object, a variable or a damaged star.
    return clean & (expected > min_snr * err) & (flux > 0.5 * min_snr * err)


def calibrate_frame(
    solved: SolvedFrame, ps1: StoredCone | None, roots: Roots, telescope: Telescope, settings: PhotometrySettings
) -> CalibratedFrame:
    """Zero point of a frame from the PS1 stars on it.

    Apertures of 3 FWHM (the width of sources matched to Gaia: cosmic rays do not count) on stars of 14.5 to
    20 mag that PS1 sees as point sources, isolated, unsaturated and unmasked, corrected to total light with
    the frame's own growth curve and to the pixel area of the frame's centre; a clipped weighted fit of
    ``m_PS1 + colour_term * colour + curvature * colour**2 - m_inst``. The zero point holds for the filter's natural
    system at PS1 colour zero, for total light, where a pixel sees as much sky as the central one:
    ``m = -2.5 log10(flux / exptime) + zp``. The colour term is the profile's where it has one; else it is fitted
    where there are 15 stars over 0.3 mag of colour; else it is 0, and `ZeroPoint.reason` says so.

    `ZeroPoint.zp_err` holds the stars' scatter and what they share: the error of the aperture correction, and that
    of the colour term times their mean colour. PS1's own zero points (some 5 mmag, Magnier et al. 2020, ApJS 251, 6)
    are not in it: they are the same for all frames.

    A frame that cannot be calibrated is no exception: `ZeroPoint.status` says what came of it.

    Parameters
    ----------
    solved
        The frame; its reduced image and source table are read.
    ps1
        A PS1 cone that covers it, or one of what stands in for PS1; None: the catalogue could not be asked, the
        zero point is PENDING.
    roots, telescope, settings
        Folders; profile with the filter's PS1 band; numbers.
    """
    zero_point = _zero_point(solved, ps1, roots, telescope, settings)
    return CalibratedFrame(solved=solved, zero_point=zero_point)


def _refuse(status: PhotometryStatus, reason: str, **known: Any) -> ZeroPoint:
    return ZeroPoint(status=status, reason=reason, **known)


def _band(solved: SolvedFrame, telescope: Telescope) -> Band | str:
    name = solved.raw.filter
    if name is None:
        return "the frame's filter is unknown, so no PS1 band calibrates it"
    try:
        band = telescope.band(name)
    except KeyError as error:
        return str(error.args[0])
    return band if band.ps1 is not None else f"PS1 has no band like {name}"


def frame_fwhm_px(solved: SolvedFrame) -> float | None:
    """Width of a star on a frame, px: of sources matched to Gaia where known, else of all sources."""
    if solved.fwhm_arcsec is not None:
        return solved.fwhm_arcsec / solved.solution.pixel_scale
    return solved.measured.quality.fwhm_px


def _zero_point(
    solved: SolvedFrame, ps1: StoredCone | None, roots: Roots, telescope: Telescope, settings: PhotometrySettings
) -> ZeroPoint:
    band = _band(solved, telescope)
    if isinstance(band, str):
        return _refuse("NO_PS1_BAND", band)
    if ps1 is None:
        return _refuse("PENDING", "the PS1 catalogue around this frame has not been fetched yet")
    fwhm = frame_fwhm_px(solved)
    if fwhm is None or not np.isfinite(fwhm) or fwhm <= 0:
        return _refuse("FAILED", "no star gave a width, so there is no aperture to measure with")
    if solved.raw.exptime <= 0:
        return _refuse("FAILED", f"exposure time {solved.raw.exptime:g} s: fluxes cannot be brought to one second")

    data, mask, var, header = read_reduced(solved.reduced, roots)
    sources = read_sources(solved.measured, roots)
    stars = ps1_stars(reference_table(ps1, roots), band, settings.max_psf_kron)
    ceiling = header.get("SATURATE", telescope.camera.nonlinear_adu or telescope.camera.saturation_adu)
    wcs = read_wcs(solved, roots)
    photometry = measure_stars(
        data,
        mask,
        var,
        wcs,
        (np.asarray(sources["X"]) - 1.0, np.asarray(sources["Y"]) - 1.0),
        stars,
        fwhm_px=fwhm,
        pixel_scale=solved.solution.pixel_scale,
        settings=settings,
        saturation=SATURATION_MARGIN * float(ceiling),
    )
    if solved.reduced.flat is not None:
        area = relative_area(wcs, data.shape, photometry.x + 1.0, photometry.y + 1.0)
        photometry = photometry._replace(flux=photometry.flux * area, err=photometry.err * area)
    known = {
        "n_matched": photometry.n_matched,
        "aperture_px": settings.aperture_fwhm * fwhm,
        "catalogue": ps1.release,
    }
    note = f"; {said}" if (said := reference_note(ps1)) else ""
    n = photometry.flux.size
    if n < settings.min_stars:
        reason = f"{n} stars, {settings.min_stars} are needed: {', '.join(photometry.counts)}{note}"
        return _refuse("FEW_STARS", reason, n_stars=n, **known)
    offset = photometry.offset - 2.5 * np.log10(solved.raw.exptime)
    if band.colour_curvature:
        offset = offset + band.colour_curvature * photometry.colour**2
    sigma, rounds = settings.clip_sigma, settings.clip_iterations
    noise, colour = photometry.noise, photometry.colour
    leverage, own = 1.0, None
    for _ in range(2):  # what the catalogue's errors do depends on the colour term
        own = fit_colour(offset, noise, leverage * photometry.mag_err, colour, clip_sigma=sigma, iterations=rounds)
        term = band.colour_term if band.colour_term is not None else (own.term if own is not None else 0.0)
        leverage = catalogue_leverage(band, term)
    fit = fit_zero_point(
        offset,
        np.hypot(noise, leverage * photometry.mag_err),
        colour,
        colour_term=band.colour_term,
        clip_sigma=sigma,
        iterations=rounds,
    )
    used = int(fit.used.sum())
    if (doubt := _doubt(fit, used, settings)) is not None:
        return _refuse("FEW_STARS", f"{doubt}: {', '.join(photometry.counts)}{note}", n_stars=used, **known)
    term_err = band.colour_term_error if fit.colour_source == "given" else 0.0
    return ZeroPoint(
        status="OK",
        reason=_how(photometry, fit, band) + note,
        zp=fit.zp,
        zp_err=float(np.sqrt(fit.err**2 + photometry.correction_err**2 + (term_err * fit.colour_mean) ** 2)),
        zp_rms=fit.rms,
        n_stars=used,
        colour_term=fit.colour_term,
        colour_term_err=band.colour_term_error if fit.colour_source == "given" else None,
        colour_mean=fit.colour_mean,
        own_colour=own,
        **_systems(band, fit.zp, fit.colour_term),
        **known,
    )


def _doubt(fit: ZeroPointFit, used: int, settings: PhotometrySettings) -> str | None:
    """Why a fit is not to be believed: a guess is worse than no zero point."""
    if used < settings.min_stars:
        return f"{used} stars after clipping, {settings.min_stars} are needed"
    if fit.capped:
        return f"more than {MAX_CLIPPED:.0%} of the stars disagree with the others"
    if fit.err > settings.max_zp_err:
        return (
            f"{used} stars that scatter by {fit.rms:.2f} mag give a zero point to +- {fit.err:.2f} mag only, "
            f"more than {settings.max_zp_err:g}"
        )
    return None


def _systems(band: Band, zp: float, colour_term: float) -> dict[str, Any]:
    vega = vega_system(band, zp, colour_term, "flux/EXPTIME")
    return {
        "colour_curvature": band.colour_curvature,
        "equation": natural_equation(band, colour_term),
        "vega_zp": vega.zp if vega else None,
        "vega_colour_term": round(vega.colour_term, 6) if vega else None,
        "vega_equation": vega.equation if vega else "",
    }


def _how(photometry: StarPhotometry, fit: ZeroPointFit, band: Band) -> str:
    term = {
        "given": "colour term of the filter",
        "fitted": "colour term fitted on this frame",
        "none": "no colour term: too few stars or too small a range of colour to fit one",
    }[fit.colour_source]
    if fit.colour_source == "none" and band.colour is None:
        term = "no colour term: the profile names no colour for this filter"
    curve = photometry.curve
    origin = f"growth curve of {curve.n_stars} stars" if curve.n_stars else f"a Moffat profile of beta {curve.beta:g}"
    return f"{term}; aperture corrected by {photometry.correction_mag:+.3f} mag ({origin})"
