"""The plate solution of a frame: astrometry.net says where, our own fit to Gaia says exactly, a check says whether."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from models.astrometry import IndexSet
from models.base import Roots
from models.catalog import Cone, StoredCone
from models.frame import MeasuredFrame, PlateSolution, SolvedFrame
from models.settings import AstrometrySettings
from models.telescope import Telescope
from tasks.astrometry.fitting import PolynomialFit, fit_best_degree
from tasks.astrometry.headers import frame_geometry, sip_header, write_header
from tasks.astrometry.matching import Match, Reference, chance_matches, match_stars
from tasks.astrometry.solver import run_solve_field
from tasks.astrometry.sources import Sources, fitting_stars, gaia_reference, in_frame, load_sources, verification_stars
from tasks.core.errors import StageError, TransientError

__all__ = ["Verification", "match_radius", "pair_error", "solve_frame", "starlike", "verify"]

_RADIUS_PX = 1.5
_CHANCE_SIGMA = 5.0
_MIN_COMPLETENESS = 0.3
_MAX_ANISOTROPY = 0.05
_SEEING_SNR = 20.0
_CLIP = 6.0
_NARROW = 0.5


@dataclass(frozen=True)
class Verification:
    """What an independent look at a solution finds.

    Attributes
    ----------
    match
        Pairs that agree within 6 robust standard deviations.
    by_chance
        Pairs expected from chance alone.
    completeness
        Share of the stars that should be seen (those on the frame brighter than half of the matched) that are.
    """

    match: Match
    by_chance: float
    completeness: float

    @property
    def doubt(self) -> str:
        """Why the matches do not prove the solution; empty if they do."""
        n = len(self.match)
        if n - self.by_chance < _CHANCE_SIGMA * np.sqrt(self.by_chance + 1):
            return f"{n} matched stars are no more than chance gives ({self.by_chance:.1f})"
        if self.completeness < _MIN_COMPLETENESS:
            return f"only {100 * self.completeness:.0f} % of the stars that should be seen are where they should be"
        return ""


def match_radius(settings_arcsec: float, pixel_scale: float) -> float:
    """Match radius, arcsec: never below 1.5 px, since coarse pixels cannot do better."""
    return max(settings_arcsec, _RADIUS_PX * pixel_scale)


def verify(wcs: WCS, sources: Sources, reference: Reference, shape: tuple[int, int], radius: float) -> Verification:
    """Look at the sources through a WCS: how many stars are there, how far off, how many by chance?

    Parameters
    ----------
    radius
        Match radius, arcsec.
    """
    match = match_stars(wcs, sources.x, sources.y, reference, radius)
    match = match.take(_agreeing(match, sources, reference, frame_geometry(wcs, shape)[2]))
    by_chance = chance_matches(wcs, sources.x, sources.y, reference, radius)
    inside = in_frame(wcs, reference.ra, reference.dec, shape, margin=-10)
    matched = np.zeros(len(reference), dtype=bool)
    matched[match.star] = True
    if len(match):
        bright = inside & (reference.mag <= np.median(reference.mag[match.star]))
        completeness = float(matched[bright].sum() / max(1, bright.sum()))
    else:
        completeness = 0.0
    return Verification(match, by_chance, completeness)


def pair_error(match: Match, sources: Sources, reference: Reference, scale: float) -> NDArray[np.float64]:
    """Expected error of each pair, one axis, arcsec."""
    return np.hypot(sources.error[match.source] * scale, reference.error[match.star])


def _agreeing(match: Match, sources: Sources, reference: Reference, scale: float) -> NDArray[np.bool_]:
    """Pairs within 6 standard deviations, robustly estimated and never below the expected ones."""
    if not len(match):
        return np.zeros(0, dtype=bool)
    relative = match.separation / pair_error(match, sources, reference, scale)
    spread = max(1.0, float(np.median(relative)) / 1.1774)
    return np.asarray(relative < _CLIP * spread)


def _refine(
    start: WCS, sources: Sources, reference: Reference, shape: tuple[int, int], radius: float, max_degree: int
) -> PolynomialFit:
    """Match and fit in turns, from a wide radius to the final one.

    Raises
    ------
    StageError
        If fewer than four stars are left to fit.
    """
    wcs, fit = start, None
    for reach, degree in (
        (3 * radius, 1),
        (2 * radius, min(2, max_degree)),
        (radius, max_degree),
        (radius, max_degree),
    ):
        match = match_stars(wcs, sources.x, sources.y, reference, reach)
        if len(match) < 4:
            raise StageError(
                "plate solution",
                f"solve-field's answer puts only {len(match)} of {len(reference)} reference stars on sources",
                "look at the frame: the field may be empty, clouded or another one",
            )
        scale = frame_geometry(wcs, shape)[2]
        fit = fit_best_degree(
            sources.x[match.source], sources.y[match.source], reference.ra[match.star], reference.dec[match.star],
            pair_error(match, sources, reference, scale), shape, degree, wcs,
        )  # fmt: skip
        wcs = fit.wcs
    assert fit is not None
    return fit


def check_geometry(
    wcs: WCS, shape: tuple[int, int], binning: int, telescope: Telescope, settings: AstrometrySettings
) -> None:
    """Whether a camera as its profile describes it can have taken this frame.

    Raises
    ------
    StageError
        Scale outside the limits, oblong pixels, or the wrong parity.
    """
    camera = telescope.camera
    _, _, scale, _, parity = frame_geometry(wcs, shape)
    nominal = camera.scale_at(binning)
    low, high = settings.scale_low * nominal, settings.scale_high * nominal
    problem = ""
    axes = np.linalg.svd(wcs.wcs.cd, compute_uv=False)
    if not low <= scale <= high:
        problem = f"scale {scale:.4f} arcsec/px is outside {low:.3f}-{high:.3f}"
    elif axes[0] / axes[1] - 1 > _MAX_ANISOTROPY:
        problem = f"pixels would be {100 * (axes[0] / axes[1] - 1):.0f} % longer than wide"
    elif camera.parity and parity != camera.parity:
        problem = (
            f"the frame is mirrored: det(CD) is {parity:+d}, by the profile of {telescope.name} {camera.parity:+d}"
        )
    if problem:
        raise StageError(
            "plate solution", problem, f"if the camera has changed, correct the profile of {telescope.name}"
        )


def solve_frame(
    measured: MeasuredFrame, hint: Cone, index: IndexSet, gaia: StoredCone | None, roots: Roots,
    telescope: Telescope, settings: AstrometrySettings,
) -> SolvedFrame:  # fmt: skip
    """Find where a frame looks, fit it to Gaia at the frame's own mid-exposure and verify it.

    solve-field gives a first solution from the source list. Then sources are matched to Gaia and TAN plus a
    polynomial is fitted by robust weighted least squares; the degree is the one that predicts left-out stars
    best. Written as a TAN-SIP header to ``.cache/wcs/{year}/{telescope}/{night}/{name}.wcs.fits``.

    Parameters
    ----------
    measured
        Frame and source list.
    hint
        The circle the frame's centre is searched in.
    index
        Of `build_index` or `installed_index`.
    gaia
        A cone that covers the frame. None with ``settings.reference = 'index'``: verified against the
        index's own stars, which the solution says.

    Raises
    ------
    StageError
        ``'plate solution'``: too few sources, no match, or a solution that does not hold against the reference.
    TransientError
        No Gaia cone where the settings ask for Gaia.
    ToolMissingError, ToolFailedError
    """
    raw, shape = measured.raw, measured.raw.shape
    if gaia is None and settings.reference == "gaia":
        raise TransientError(
            "plate solution", "the Gaia cone of this field is pending", "run python -m flows.retry_queries later"
        )
    everything = load_sources(measured, roots, telescope)
    sources = starlike(everything, measured, settings)
    nominal = telescope.camera.scale_at(raw.binning)
    start, index_stars = run_solve_field(
        sources.x, sources.y, sources.flux, shape, hint, index, roots,
        (settings.scale_low * nominal, settings.scale_high * nominal), telescope.camera.parity,
        settings.cpu_limit_s, want_index_stars=gaia is None,
        log=roots.logs / "astrometry" / f"{raw.night}_{raw.name}.log", timeout_s=settings.timeout_s,
    )  # fmt: skip
    if gaia is not None:
        deep = max(settings.gaia_limit, settings.gaia_limit_sparse)
        reference = gaia_reference(gaia, start, shape, raw.mid_exposure_jyear, roots, deep)
    else:
        assert index_stars is not None
        reference = index_stars
    radius = match_radius(settings.match_arcsec, frame_geometry(start, shape)[2])
    fit = _refine(start, sources, fitting_stars(reference, len(sources)), shape, radius, settings.fit_degree)
    if gaia is not None:
        reference = verification_stars(reference, settings.gaia_limit)
    check_geometry(fit.wcs, shape, raw.binning, telescope, settings)
    found = verify(fit.wcs, sources, reference, shape, radius)
    _check_matches(found, reference, settings)

    ra, dec, scale, rotation, parity = frame_geometry(fit.wcs, shape)
    path = roots.data / ".cache" / "wcs" / str(raw.year) / raw.telescope / raw.night / f"{raw.name}.wcs.fits"
    solution = PlateSolution(
        wcs=write_header(sip_header(fit.wcs), path, roots),
        ra=ra, dec=dec, pixel_scale=scale, rotation_deg=rotation, parity=1 if parity > 0 else -1,
        rms_arcsec=found.match.rms, n_matched=len(found.match), reference=reference.text,
    )  # fmt: skip
    return SolvedFrame(
        measured=measured,
        solution=solution,
        status="OK" if found.match.rms <= settings.ok_arcsec else "HIGH_RMS",
        fwhm_arcsec=_seeing(everything, fit.wcs, reference, radius, scale),
    )


def starlike(everything: Sources, measured: MeasuredFrame, settings: AstrometrySettings) -> Sources:
    """The brightest sources that may be stars.

    Raises
    ------
    StageError
        If they are too few to be recognised.
    """
    sources = everything.take(_not_cosmic(everything, measured.quality.fwhm_px)).take(slice(settings.n_sources))
    if len(sources) < settings.min_matched:
        raise StageError(
            "plate solution",
            f"{len(sources)} starlike sources, at least {settings.min_matched} are needed",
            "look at the frame: clouds, a closed dome, a short exposure?",
        )
    return sources


def _not_cosmic(sources: Sources, fwhm_px: float | None) -> NDArray[np.bool_]:
    """All but what is far narrower than a star: cosmic rays and hot pixels crowd out the stars of a sparse frame."""
    if fwhm_px is None:
        return np.ones(len(sources), dtype=bool)
    return ~(sources.fwhm < _NARROW * fwhm_px)


def _check_matches(found: Verification, reference: Reference, settings: AstrometrySettings) -> None:
    n, rms = len(found.match), found.match.rms
    if n < settings.min_matched:
        problem = f"{n} stars matched, at least {settings.min_matched} are needed"
    elif found.doubt:
        problem = found.doubt
    elif rms > settings.high_rms_arcsec:
        problem = f"rms {rms:.2f} arcsec, at most {settings.high_rms_arcsec:.1f} is accepted"
    else:
        return
    raise StageError(
        "plate solution",
        f"{problem} (against {reference.text})",
        "look at the frame: is it this field, is it focused and tracked?",
    )


def _seeing(sources: Sources, wcs: WCS, reference: Reference, radius: float, scale: float) -> float | None:
    """Median FWHM (arcsec) of clean sources that are reference stars: cosmic rays are none.

    Of those with S/N above 20 where there are three, else of all.
    """
    match = match_stars(wcs, sources.x, sources.y, reference, radius)
    stars = match.source[sources.clean[match.source] & np.isfinite(sources.fwhm[match.source])]
    bright = stars[sources.snr[stars] > _SEEING_SNR]
    chosen = bright if len(bright) >= 3 else stars
    return float(np.median(sources.fwhm[chosen])) * scale if len(chosen) >= 3 else None
