"""Flux scale of the frames of one filter: relative from common stars, absolute from PS1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.table import Table
from scipy.spatial import cKDTree

from models.base import Roots
from models.catalog import StoredCone
from models.frame import CalibratedFrame, Rejected, ZeroPoint
from models.settings import PhotometrySettings
from models.stack import ZERO_POINT, AlignedFrame, ScaledFrame, Scaling, StackColour
from models.telescope import Band, Telescope
from tasks.calibration import read_reduced
from tasks.catalogs import reference_table
from tasks.core.errors import StageError
from tasks.photometry import (
    PS1Stars,
    fit_colour,
    fit_zero_point,
    frame_fwhm_px,
    natural_equation,
    ps1_stars,
    relative_area,
)
from tasks.quality import read_sources
from tasks.stacking.grid import unit_vectors
from tasks.stacking.heads import frame_label, head_wcs
from tasks.stacking.relative import RelativeSolution, huber_location, link_frames, solve_relative
from tasks.stacking.starflux import StarFluxes, measure_stars, usable_stars

__all__ = ["relative_zero_points", "star_fluxes"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_ZP_FLOOR = 0.01
"""Error of a frame's PS1 zero point that its star scatter does not show (flat field, transparency), mag."""

_SUSPICIOUS_MAG = 0.05
"""A frame whose PS1 zero point is further from its common stars is named in the notes."""

_PRIOR_WIDTH = 0.1
"""How far the colour term of a narrow band is from that of the broad band that holds it, as a standard deviation."""

_RADIANS = np.pi / 180.0 / 3600.0


@dataclass(frozen=True)
class _Observations:
    """Stars of all frames, matched: one row an observation."""

    frame: IntArray
    star: IntArray
    m: FloatArray
    sigma: FloatArray
    direction: FloatArray

    def of(self, frames: IntArray) -> _Observations:
        """Those of some frames, of stars that at least two of them have; both numbered without gaps."""
        here = np.isin(self.frame, frames)
        count = np.bincount(self.star[here], minlength=len(self.direction))
        here &= count[self.star] >= 2
        stars, star = np.unique(self.star[here], return_inverse=True)
        return _Observations(
            frame=np.searchsorted(frames, self.frame[here]),
            star=star.astype(np.int64),
            m=self.m[here],
            sigma=self.sigma[here],
            direction=self.direction[stars],
        )


def relative_zero_points(
    aligned: Sequence[AlignedFrame],
    ps1: StoredCone | None,
    roots: Roots,
    telescope: Telescope,
    settings: PhotometrySettings,
    ahead: Mapping[str, StarFluxes] | None = None,
) -> Scaling:
    """Scale the frames of one filter to a common zero point.

    The stars that frames share give their relative scale; sets of frames that hang together are tied as a whole
    to the robust weighted mean of the PS1 zero points of their frames, so that one frame's bad zero point moves
    neither itself nor the others. A narrow band has no PS1 zero points: its continuum stars' PS1 magnitudes
    take their place, or the scale stays relative (exposure-time normalised to the median frame). A frame whose
    scale nothing tells is rejected.

    Parameters
    ----------
    aligned
        Frames of one filter.
    ps1
        The group's PS1 cone; only used for narrow bands.
    roots
        Data and raw root.
    telescope
        Bands; linearity limit.
    settings
        ``aperture_fwhm``, ``min_snr``, ``min_stars``, ``match_arcsec``; for narrow bands the cuts on PS1 stars.
    ahead
        What `star_fluxes` has measured on the frames already, with the same settings; of others it is measured here.

    Returns
    -------
    Scaling
        ``flux_scale = 10^(0.4 (30 - ZP)) / exptime`` for every scaled frame.

    Raises
    ------
    StageError
        If the frames are of several filters.
    """
    if not aligned:
        return Scaling(scaled=())
    names = {frame.frame.raw.filter for frame in aligned}
    if len(names) != 1 or None in names:
        raise StageError(
            "scaling", f"frames of several filters: {sorted(map(str, names))}", "scale one filter at a time"
        )
    frames = sorted(aligned, key=lambda a: (a.frame.raw.night, a.frame.raw.name))
    useless = [frame for frame in frames if frame.frame.raw.exptime <= 0]
    rejected = [Rejected(file=frame_label(frame), reason="exposure time 0: no flux scale") for frame in useless]
    measured: list[tuple[AlignedFrame, _Measured]] = []
    for frame in frames:
        if frame.frame.raw.exptime <= 0:
            continue
        try:
            measured.append((frame, _measure(frame, roots, telescope, settings, ahead or {})))
        except StageError as error:  # one damaged frame does not stop its filter
            rejected.append(Rejected(file=frame_label(frame), reason=f"{error.stage}: {error.reason}"))
    frames = [frame for frame, _ in measured]
    seen = _join([stars for _, stars in measured], settings.match_arcsec)
    labels = link_frames(seen.frame, seen.star, len(frames), settings.min_stars)
    zp, source, notes = np.full(len(frames), np.nan), [""] * len(frames), list[str]()
    relative: list[tuple[IntArray, RelativeSolution]] = []
    contradicted: dict[int, str] = {}
    name = next(iter(names)) or ""
    anchors = _continuum_stars(name, ps1, roots, telescope, settings)
    term, colour = _band_term(name, telescope), None
    night = max((frame.frame.raw.night for frame in frames), default="")
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            continue
        own = seen.of(members)
        solution = solve_relative(own.frame, own.star, own.m, own.sigma)
        offsets, errors = _ps1_offsets(members, frames, solution, term)
        if len(offsets) and not _agree(offsets, errors):
            for member in members:
                contradicted[int(member)] = _contradiction(offsets)
        elif len(offsets):
            tied = huber_location(offsets, errors)[0]
            zp[members] = solution.zp + tied
            notes += _odd_ones(members, frames, zp, term)
            for member in members:
                source[member] = "common stars, tied to PS1"
        elif (
            anchors is not None
            and (offset := _anchor(own, solution, anchors, settings, f"{night[:4]}-{night[4:6]}-{night[6:]}"))
            is not None
        ):
            zp[members] = solution.zp + offset.constant
            notes.append(offset.said)
            colour = offset.colour
            for member in members:
                source[member] = f"common stars, tied to {anchors.text} of continuum stars"
        else:
            relative.append((members, solution))
    for index, frame in enumerate(frames):
        own_zp = frame.frame.zero_point.zp if frame.frame.zero_point.status == "OK" else None
        if np.isnan(zp[index]) and own_zp is not None and index not in contradicted:
            zp[index], source[index] = _at_term(frame.frame.zero_point, term), "PS1, this frame alone"
    scaling = _assemble(frames, zp, source, relative, contradicted, rejected, notes, len(np.unique(seen.star)))
    return scaling.model_copy(update={"colour": colour})


def _assemble(
    frames: list[AlignedFrame],
    zp: FloatArray,
    source: list[str],
    relative: list[tuple[IntArray, RelativeSolution]],
    contradicted: dict[int, str],
    rejected: list[Rejected],
    notes: list[str],
    n_stars: int,
) -> Scaling:
    scaled: dict[int, ScaledFrame] = {}
    for index in np.flatnonzero(np.isfinite(zp)):
        frame = frames[index]
        scale = 10.0 ** (0.4 * (ZERO_POINT - zp[index])) / frame.frame.raw.exptime
        scaled[int(index)] = ScaledFrame(
            aligned=frame, zero_point=float(zp[index]), flux_scale=float(scale), scale_source=source[index]
        )
    if not scaled and relative:
        members, solution = max(relative, key=lambda item: (len(item[0]), -int(item[0][0])))
        middle = float(np.median(solution.zp))
        for index, own in zip(members, solution.zp, strict=True):
            frame = frames[index]
            scaled[int(index)] = ScaledFrame(
                aligned=frame,
                zero_point=None,
                flux_scale=float(10.0 ** (0.4 * (middle - own)) / frame.frame.raw.exptime),
                scale_source="common stars, relative",
            )
        notes.append("relative scale only: ADU/s of the median frame")
    calibrated = any(item.zero_point is not None for item in scaled.values())
    for number, frame in enumerate(frames):
        if number in scaled:
            continue
        if number in contradicted:
            rejected.append(Rejected(file=frame_label(frame), reason=contradicted[number]))
            continue
        status = frame.frame.zero_point
        what = f"no PS1 zero point ({status.status}{': ' + status.reason if status.reason else ''})"
        with_whom = "a calibrated frame" if calibrated else "enough other frames"
        rejected.append(
            Rejected(file=frame_label(frame), reason=f"{what} and too few common stars with {with_whom}: scale unknown")
        )
    return Scaling(
        scaled=tuple(scaled[index] for index in sorted(scaled)),
        rejected=tuple(rejected),
        n_common_stars=n_stars,
        notes=tuple(notes),
    )


class _Measured(NamedTuple):
    """Stars of one frame: instrumental magnitude of 1 s, its error (mag), direction (unit vectors)."""

    m: FloatArray
    sigma: FloatArray
    direction: FloatArray


def _fluxes(frame: CalibratedFrame, roots: Roots, telescope: Telescope, settings: PhotometrySettings) -> StarFluxes:
    """Photometry of a frame's good stars; none where its seeing is unknown."""
    solved = frame.solved
    sources: Table = read_sources(solved.measured, roots)
    data, mask, variance, header = read_reduced(frame.reduced, roots)
    nothing = StarFluxes(*(np.empty(0) for _ in range(4)))
    fwhm = frame_fwhm_px(solved)
    if fwhm is None:
        return nothing
    camera = telescope.camera
    ceiling = float(header.get("SATURATE", camera.nonlinear_adu or camera.saturation_adu))
    chosen = usable_stars(sources, data.shape, fwhm, 0.95 * ceiling - solved.measured.quality.sky_adu, settings)
    if not len(chosen):
        return nothing
    x, y = (np.asarray(sources[column], float)[chosen] for column in ("X", "Y"))
    return measure_stars(data, mask, variance, x, y, fwhm, settings)


def star_fluxes(
    frames: Sequence[CalibratedFrame], roots: Roots, telescope: Telescope, settings: PhotometrySettings
) -> dict[str, StarFluxes]:
    """Photometry of the good stars of frames, on their pixels; by the frames' labels.

    Parameters
    ----------
    frames
        Calibrated; where they are on the sky plays no part.
    roots, telescope, settings
        As for `relative_zero_points`.

    Returns
    -------
    dict
        Without the frames that cannot be read: `relative_zero_points` will say why.
    """
    found = {}
    for frame in frames:
        with suppress(StageError):
            found[frame.raw.label] = _fluxes(frame, roots, telescope, settings)
    return found


def _measure(
    aligned: AlignedFrame, roots: Roots, telescope: Telescope, settings: PhotometrySettings,
    ahead: Mapping[str, StarFluxes],
) -> _Measured:  # fmt: skip
    """A frame's stars on the sky."""
    raw, wcs = aligned.frame.raw, head_wcs(aligned, roots)
    stars = ahead.get(raw.label) or _fluxes(aligned.frame, roots, telescope, settings)
    if not len(stars.x):
        return _Measured(np.empty(0), np.empty(0), np.empty((0, 3)))
    sky = wcs.all_pix2world(np.column_stack([stars.x, stars.y]), 1)
    area = np.ones(len(stars.x))
    if aligned.frame.reduced.flat is not None:
        area = relative_area(wcs, raw.shape, stars.x, stars.y)
    return _Measured(
        m=-2.5 * np.log10(stars.flux * area / raw.exptime),
        sigma=2.5 / np.log(10.0) * stars.sigma / stars.flux,
        direction=unit_vectors(sky[:, 0], sky[:, 1]),
    )


def _join(measured: Sequence[_Measured], match_arcsec: float) -> _Observations:
    """Match the stars of all frames on the sky."""
    if not measured:
        nothing = np.empty(0, np.int64)
        return _Observations(nothing, nothing, np.empty(0), np.empty(0), np.empty((0, 3)))
    frame = np.repeat(np.arange(len(measured)), [len(stars.m) for stars in measured]).astype(np.int64)
    star, stars_at = _match(frame, np.vstack([stars.direction for stars in measured]), match_arcsec)
    m, sigma = (np.concatenate([stars[i] for stars in measured]) for i in (0, 1))
    return _Observations(frame, star, m, sigma, stars_at)


def _match(frame: IntArray, vectors: FloatArray, match_arcsec: float) -> tuple[IntArray, FloatArray]:
    """Number of the star of each observation, and the stars' directions; frames join one after the other."""
    radius = match_arcsec * _RADIANS
    star = np.empty(len(frame), np.int64)
    known = np.empty((0, 3))
    for index in np.unique(frame):
        rows = np.flatnonzero(frame == index)
        if len(known):
            distance, nearest = cKDTree(known).query(vectors[rows], distance_upper_bound=radius)
        else:
            distance, nearest = np.full(len(rows), np.inf), np.zeros(len(rows), np.int64)
        taken: set[int] = set()
        fresh: list[FloatArray] = []
        for row, away, at in sorted(zip(rows, distance, nearest, strict=True), key=lambda item: (item[1], item[0])):
            if np.isfinite(away) and int(at) not in taken:
                taken.add(int(at))
                star[row] = at
            else:
                star[row] = len(known) + len(fresh)
                fresh.append(vectors[row])
        if fresh:
            known = np.vstack([known, fresh])
    return star, known


def _band_term(name: str, telescope: Telescope) -> float | None:
    try:
        return telescope.band(name).colour_term
    except KeyError:
        return None


def _at_term(point: ZeroPoint, term: float | None) -> float:
    """A frame's zero point as it would be with the filter's common colour term."""
    assert point.zp is not None
    if term is None or point.colour_term is None or point.colour_mean is None:
        return point.zp
    return point.zp + (term - point.colour_term) * point.colour_mean


def _ps1_offsets(
    members: IntArray, frames: Sequence[AlignedFrame], solution: RelativeSolution, term: float | None
) -> tuple[FloatArray, FloatArray]:
    """Constants, and their errors, that take the relative zero points of a set to the PS1 zero point of each member."""
    offsets, errors = [], []
    for position, index in enumerate(members):
        zero_point = frames[index].frame.zero_point
        if zero_point.status == "OK" and zero_point.zp is not None:
            offsets.append(_at_term(zero_point, term) - solution.zp[position])
            errors.append(np.hypot(zero_point.zp_err or _ZP_FLOOR, _ZP_FLOOR))
    return np.array(offsets), np.array(errors)


def _agree(offsets: FloatArray, errors: FloatArray) -> bool:
    """Whether more than half of the zero points say the same: else nothing tells which of them are right."""
    middle = float(np.median(offsets)) if len(offsets) % 2 else huber_location(offsets, errors)[0]
    near = np.abs(offsets - middle) <= np.maximum(2 * _SUSPICIOUS_MAG, 5.0 * errors)
    return 2 * int(np.count_nonzero(near)) > len(offsets)


def _contradiction(offsets: FloatArray) -> str:
    return (
        f"the PS1 zero points of the {len(offsets)} frames that common stars tie together contradict each other by up "
        f"to {np.ptp(offsets):.2f} mag, and no majority tells which are right: scale unknown"
    )


def _odd_ones(members: IntArray, frames: Sequence[AlignedFrame], zp: FloatArray, term: float | None) -> list[str]:
    notes = []
    for index in members:
        zero_point = frames[index].frame.zero_point
        if zero_point.status != "OK" or zero_point.zp is None:
            continue
        off = _at_term(zero_point, term) - zp[index]
        if abs(off) > max(_SUSPICIOUS_MAG, 5.0 * (zero_point.zp_err or 0.0)):
            notes.append(
                f"{frame_label(frames[index])}: its PS1 zero point {zero_point.zp:.3f} is off by {off:+.3f} mag "
                f"from the common stars; {zp[index]:.3f} used"
            )
    return notes


@dataclass(frozen=True)
class _Anchors:
    """PS1 stars whose continuum a narrow band shares."""

    stars: PS1Stars
    band: Band
    text: str


def _continuum_stars(
    name: str, ps1: StoredCone | None, roots: Roots, telescope: Telescope, settings: PhotometrySettings
) -> _Anchors | None:
    """PS1 stars in the broad band whose continuum a narrow band shares; None for a broad band."""
    try:
        band = telescope.band(name)
        broad = telescope.band(band.continuum) if band.narrow and band.continuum else None
    except KeyError as error:
        raise StageError("scaling", str(error.args[0]), "add the filter to the telescope's profile") from error
    if broad is None or broad.ps1 is None or ps1 is None:
        return None
    stars = ps1_stars(reference_table(ps1, roots), broad, settings.max_psf_kron)
    with np.errstate(invalid="ignore"):
        fit = np.flatnonzero(stars.star & (stars.mag > settings.bright_mag) & (stars.mag < settings.faint_mag))
    return _Anchors(stars=stars.take(fit), band=broad, text=f"PS1 {broad.ps1}") if len(fit) else None


class _Anchored(NamedTuple):
    """Constant that takes a narrow band's magnitudes to its continuum's, its colour term, and how it was found."""

    constant: float
    colour: StackColour
    said: str


def _anchor(
    own: _Observations, solution: RelativeSolution, anchors: _Anchors, settings: PhotometrySettings, date: str
) -> _Anchored | None:
    """Tie a narrow band to the PS1 magnitudes of its continuum stars, for stars of PS1 colour 0.

    Zero point and colour term from all stars of all frames. The colour term of a band within a broad one is not far
    from the broad one's: that counts like a measurement with an error of 0.1, which decides where stars are few or
    of one colour, and hardly matters where they are many.
    """
    directions = unit_vectors(np.asarray(anchors.stars.ra, float), np.asarray(anchors.stars.dec, float))
    distance, nearest = cKDTree(directions).query(own.direction, distance_upper_bound=settings.match_arcsec * _RADIANS)
    matched = np.flatnonzero(np.isfinite(distance))
    if len(matched) < settings.min_stars:
        return None
    stars = anchors.stars.take(nearest[matched])
    offset = stars.mag - solution.magnitude[matched]
    noise = solution.magnitude_err[matched]
    clipping = settings.clip_sigma, settings.clip_iterations
    free = fit_colour(offset, noise, stars.mag_err, stars.colour, clip_sigma=clipping[0], iterations=clipping[1])
    term, error = anchors.band.colour_term or 0.0, _PRIOR_WIDTH
    if free is not None:
        measured = np.hypot(free.photon_error, free.star_error)
        weight = 1.0 / np.array([measured, _PRIOR_WIDTH]) ** 2
        term = float(np.average([free.term, term], weights=weight))
        error = float(weight.sum() ** -0.5)
    try:
        fit = fit_zero_point(
            offset, np.hypot(noise, stars.mag_err), stars.colour, colour_term=term,
            clip_sigma=clipping[0], iterations=clipping[1],
        )  # fmt: skip
    except ValueError:  # not one with a colour
        return None
    used = int(np.count_nonzero(fit.used))
    if used < settings.min_stars or fit.capped:
        return None
    whole = float(np.hypot(fit.err, error * fit.colour_mean))
    if whole > settings.max_zp_err:
        return None
    source = "of these stars" if free is not None else f"of the broad band, +- {_PRIOR_WIDTH:g}"
    colour = StackColour(term=term, error=error, date=date, equation=natural_equation(anchors.band, term))
    return _Anchored(
        fit.zp,
        colour,
        f"absolute scale from {used} continuum stars in {anchors.text}, +- {whole:.3f} mag at colour 0, colour term "
        f"{term:+.3f} +- {error:.3f} ({source}): a line's flux needs the filter's own response",
    )
