"""A group's frames aligned with Gaia and with each other: SCAMP's word, believed only after a check of ours."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from models.astrometry import Alignment
from models.base import FileRef, Roots
from models.catalog import Cone, StoredCone
from models.frame import CalibratedFrame, FrameRecord, Rejected
from models.settings import ScampSettings
from models.stack import AlignedFrame
from models.telescope import Telescope
from tasks.astrometry.fitting import monomials
from tasks.astrometry.headers import frame_geometry, head_cards, head_text, read_wcs, tpv_head
from tasks.astrometry.joint import Pairs, fit_together
from tasks.astrometry.judging import REFUSED, Candidate, Found, Sight, believable_rms, best_of, judge
from tasks.astrometry.matching import Reference
from tasks.astrometry.plate import match_radius, pair_error, verify
from tasks.astrometry.relative import fit_to_common_stars
from tasks.astrometry.scamp import ScampInput, run_scamp
from tasks.astrometry.sources import Sources, gaia_reference, gaia_stars, load_sources
from tasks.core.errors import StageError, left_out
from tasks.core.files import ref, safe_name, writing
from tasks.core.tools import scratch

__all__ = ["align_frames", "seasons"]

_MARGIN_DEG = 0.05
_SCAMP_FAILED = "SCAMP failed"


@dataclass(frozen=True)
class _Frame:
    """A frame while it is being aligned."""

    record: FrameRecord
    calibrated: CalibratedFrame
    wcs: WCS

    @property
    def name(self) -> str:
        return self.record.raw.name

    @property
    def shape(self) -> tuple[int, int]:
        return self.record.raw.shape


@dataclass(frozen=True)
class _Joint:
    """A frame's world coordinates by the fit of the whole season."""

    wcs: WCS
    parameters: float


@dataclass(frozen=True)
class _Heads:
    """SCAMP's heads for the frames of a season (None: none), why there are none at all, and a line on the run."""

    texts: list[str | None]
    failure: str
    note: str


def seasons(jyears: Sequence[float], gap_days: float) -> list[list[int]]:
    """Indices of the frames of each season: a gap of more than `gap_days` starts a new one."""
    result: list[list[int]] = []
    order = sorted(range(len(jyears)), key=lambda i: (jyears[i], i))
    for position, i in enumerate(order):
        if position and (jyears[i] - jyears[order[position - 1]]) * 365.25 <= gap_days:
            result[-1].append(i)
        else:
            result.append([i])
    return result


def align_frames(
    frames: Sequence[FrameRecord], gaia: StoredCone | None, group: str, roots: Roots, telescope: Telescope,
    settings: ScampSettings,
) -> Alignment:  # fmt: skip
    """Give every frame of a group a verified `.head`.

    One SCAMP run a season over all filters, against Gaia moved to the season's epoch, starting from our own plate
    solutions. Each `.head` is then checked with the frame's own sources against Gaia at the frame's own
    mid-exposure: rms, median offset, number matched, chance, scale and parity. Of SCAMP's and our own solution
    the one is kept that is expected to place unseen stars better; with neither good the frame is rejected. Whatever
    happens to SCAMP, the plate solutions remain.

    Written to ``{year}/{telescope}/reduced/{night}/{name}.head``, whole; FLXSCALE and all else that is not
    astrometry is left out.

    Parameters
    ----------
    frames
        Calibrated, with or without a PSF (its LDAC catalogue is SCAMP's input).
    gaia
        A cone over all frames. None: no SCAMP and no check against Gaia; the plate solutions are fitted to the
        stars that the frames have in common, which a note says.
    group
        For the logs.
    """
    rejected: list[Rejected] = []
    usable: list[_Frame] = []
    for record in frames:
        reason = _unusable(record)
        if reason or record.calibrated is None:
            rejected.append(Rejected(file=record.raw.label, reason=reason))
            continue
        try:
            wcs = read_wcs(record.calibrated.solved, roots)
        except StageError as error:
            rejected.append(Rejected(file=record.raw.label, reason=left_out(error)))
            continue
        usable.append(_Frame(record, record.calibrated, wcs))
    if gaia is None:
        results, notes = _among_themselves(usable, roots, telescope, settings)
        rejected.extend(result for result in results if isinstance(result, Rejected))
        kept = tuple(result for result in results if isinstance(result, AlignedFrame))
        return Alignment(aligned=kept, rejected=tuple(rejected), notes=notes)

    notes_made: list[str] = []
    provisional = False
    by_season: dict[int, AlignedFrame | Rejected] = {}
    for season in seasons([frame.record.raw.mid_exposure_jyear for frame in usable], settings.season_gap_days):
        sights: dict[int, Sight] = {}
        for i in season:
            try:
                sights[i] = _look(usable[i], gaia, roots, telescope, settings)
            except StageError as error:
                by_season[i] = Rejected(file=usable[i].record.raw.label, reason=left_out(error))
        members = [usable[i] for i in sights]
        if not members:
            continue
        joint = _jointly(members, list(sights.values()), settings)
        with ThreadPoolExecutor(1) as beside:  # our own solutions are judged while SCAMP works
            scamp = beside.submit(_season(members, joint, gaia, group, roots, settings))
            ours = [_ours(usable[i], sights[i], fitted, settings) for i, fitted in zip(sights, joint, strict=True)]
            heads = scamp.result()
        provisional = provisional or heads.failure.startswith(_SCAMP_FAILED)
        for i, found, head in zip(sights, ours, heads.texts, strict=True):
            by_season[i] = _choose(usable[i], sights[i], found, head, heads.failure, len(members), roots, settings)
        refused = [why for i in sights if (why := by_season[i].reason).startswith(REFUSED)]
        told = [f"{len(refused)} of {len(members)} frames: {refused[0]}"] if refused else []
        notes_made.append("; ".join([heads.note, *told]))
    in_order = [by_season[i] for i in range(len(usable))]
    rejected.extend(result for result in in_order if isinstance(result, Rejected))
    kept = tuple(result for result in in_order if isinstance(result, AlignedFrame))
    return Alignment(aligned=kept, rejected=tuple(rejected), notes=tuple(notes_made), provisional=provisional)


def _unusable(record: FrameRecord) -> str:
    if record.calibrated is not None:
        return ""
    if record.failures:
        last = record.failures[-1]
        return f"{last.stage}: {last.reason}"
    return "not calibrated"


def _look(frame: _Frame, gaia: StoredCone, roots: Roots, telescope: Telescope, settings: ScampSettings) -> Sight:
    jyear = frame.record.raw.mid_exposure_jyear
    return Sight(
        load_sources(frame.calibrated.solved.measured, roots, telescope),
        gaia_reference(gaia, frame.wcs, frame.shape, jyear, roots, settings.mag_faint),
        frame.shape,
        frame.calibrated.solved.solution,
    )


def _jointly(members: Sequence[_Frame], sights: Sequence[Sight], settings: ScampSettings) -> list[_Joint | None]:
    """Our own fit of a season's frames with one distortion for all of a shape; None for a frame with too few stars."""
    result: list[_Joint | None] = [None] * len(members)
    pairs = [_pairs(frame, sight, settings) for frame, sight in zip(members, sights, strict=True)]
    for shape in sorted({frame.shape for frame in members}):
        alike = [
            i for i, (frame, found) in enumerate(zip(members, pairs, strict=True))
            if frame.shape == shape and len(found.x) >= settings.min_matched
        ]  # fmt: skip
        if not alike:
            continue
        fit = fit_together([pairs[i] for i in alike], settings.degree)
        for i, wcs, parameters in zip(alike, fit.wcses, fit.parameters, strict=True):
            result[i] = _Joint(wcs, parameters)
    return result


def _pairs(frame: _Frame, sight: Sight, settings: ScampSettings) -> Pairs:
    """Sources and the Gaia stars they are by the plate solution."""
    scale = frame.calibrated.solved.solution.pixel_scale
    sources = sight.sources.take(sight.sources.snr > settings.snr_low)
    match = verify(frame.wcs, sources, sight.stars, frame.shape, match_radius(settings.crossid_arcsec, scale)).match
    return Pairs(
        frame.wcs, frame.shape, sources.x[match.source], sources.y[match.source], sight.stars.ra[match.star],
        sight.stars.dec[match.star], pair_error(match, sources, sight.stars, scale),
    )  # fmt: skip


def _season(
    members: Sequence[_Frame], joint: Sequence[_Joint | None], gaia: StoredCone, group: str, roots: Roots,
    settings: ScampSettings,
) -> Callable[[], _Heads]:  # fmt: skip
    """What runs SCAMP on a season's frames; what needs a WCS is done at once, since wcslib's are of one thread."""
    epoch = float(np.mean([frame.record.raw.mid_exposure_jyear for frame in members]))
    filters = " ".join(sorted({frame.record.raw.filter or "none" for frame in members}))
    label = f"season {epoch:.2f} ({len(members)} frames, {filters})"
    ready = [i for i, frame in enumerate(members) if frame.record.psf is not None and _enough(frame, settings)]
    if not ready:
        failure = "SCAMP was not run: no frame has a SExtractor catalogue with enough Gaia stars"
        return lambda: _Heads([None] * len(members), failure, f"{label}: {failure}")
    stars = _season_stars([members[i] for i in ready], gaia, epoch, roots)
    key = hashlib.sha256(" ".join(frame.name for frame in members).encode()).hexdigest()[:8]
    log = roots.logs / "scamp" / f"{safe_name(group)}_{epoch:.2f}_{key}.log"
    coarsest = max(members[i].calibrated.solved.solution.pixel_scale for i in ready)
    wide = settings.model_copy(update={"crossid_arcsec": match_radius(settings.crossid_arcsec, coarsest)})

    def failed(reason: str) -> _Heads:
        return _Heads([None] * len(members), reason, f"{label}: {reason}")

    try:
        inputs = [_scamp_input(members[i], joint[i], roots) for i in ready]
    except StageError as error:
        reason = f"{_SCAMP_FAILED}: {error.reason}"
        return lambda: failed(reason)

    def heads() -> _Heads:
        try:
            with scratch(roots.scratch, "scamp") as folder:
                found, summary = run_scamp(inputs, stars, epoch, wide, folder, log)
        except StageError as error:
            return failed(f"{_SCAMP_FAILED}: {error.reason}")
        if summary.n_reference == 0:
            return failed("SCAMP matched no Gaia star")
        of = dict(zip(ready, found, strict=True))
        return _Heads([of.get(i) for i in range(len(members))], "", f"{label}: {summary}")

    return heads


def _enough(frame: _Frame, settings: ScampSettings) -> bool:
    """SCAMP can run for ever on near-empty catalogues: frames with too few stars are kept from it."""
    return frame.calibrated.solved.solution.n_matched >= settings.min_matched


def _season_stars(members: Sequence[_Frame], gaia: StoredCone, epoch: float, roots: Roots) -> Reference:
    """Gaia at the season's epoch around all its frames."""
    geometry = np.array([frame_geometry(frame.wcs, frame.shape)[:3] for frame in members])
    vectors = _unit(geometry[:, 0], geometry[:, 1])
    middle = vectors.mean(axis=0)
    middle /= np.linalg.norm(middle)
    ra = float(np.degrees(np.arctan2(middle[1], middle[0]))) % 360
    dec = float(np.degrees(np.arcsin(np.clip(middle[2], -1, 1))))
    apart = np.degrees(np.arccos(np.clip(vectors @ middle, -1, 1)))
    half = max(
        float(np.hypot(*frame.shape)) * scale / 7200 for frame, scale in zip(members, geometry[:, 2], strict=True)
    )
    return gaia_stars(gaia, Cone(ra=ra, dec=dec, radius=float(apart.max()) + half + _MARGIN_DEG), epoch, roots)


def _unit(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    a, d = np.radians(ra), np.radians(dec)
    return np.column_stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])


def _scamp_input(frame: _Frame, joint: _Joint | None, roots: Roots) -> ScampInput:
    """What SCAMP starts from: our own solution in TPV, with the season's distortion instead of the frame's own.

    It overrides whatever WCS the catalogue's header carries (SCAMP reads no SIP). SCAMP adds a correction common to
    all frames of one FILTER and keeps what differs between them on input: own distortions of sparse frames would
    stay as bad as they are. All frames share one "filter", since they share the optics: measured on simulated
    frames, a distortion for each filter left 25 mas where one for all leaves 10. A filter whose distortion does differ
    shows in the check against Gaia and keeps its plate solutions.
    """
    assert frame.record.psf is not None
    catalogue = roots.of(frame.record.psf.catalogue)
    if not catalogue.is_file():
        raise StageError("SCAMP", f"the catalogue {frame.record.psf.catalogue.path} is gone", "reduce the year again")
    cards = tpv_head(joint.wcs if joint else frame.wcs, frame.shape).removesuffix("END\n")
    band = fits.Card("FILTER", "all").image.rstrip()
    return ScampInput(catalogue.absolute(), f"{cards}{band}\nEND\n")


def _ours(frame: _Frame, sight: Sight, joint: _Joint | None, settings: ScampSettings) -> Found:
    """The frame's plate solution and our fit of the season, judged."""

    def judged(wcs: WCS, parameters: float) -> Candidate:
        return judge(tpv_head(wcs, frame.shape), sight, parameters, settings)

    own = len(monomials(3)) if frame.wcs.sip is not None else len(monomials(1))
    return Found(judged(frame.wcs, own), judged(joint.wcs, joint.parameters) if joint else None)


def _choose(
    frame: _Frame, sight: Sight, found: Found, scamp_head: str | None, failure: str, n_season: int, roots: Roots,
    settings: ScampSettings,
) -> AlignedFrame | Rejected:  # fmt: skip
    """The best of SCAMP's head, our fit of the season and the frame's plate solution, if any is good."""
    if scamp_head is None:
        without = "SCAMP wrote no head for it" if frame.record.psf else "it has no SExtractor catalogue for SCAMP"
        found = replace(found, no_scamp=failure or without)
    else:
        shared = len(monomials(1)) + len(monomials(settings.degree, 2)) / n_season
        try:
            found = replace(found, scamp=judge(head_text(head_cards(scamp_head)), sight, shared, settings))
        except StageError as error:
            found = replace(found, no_scamp=error.reason)
    source, reason = best_of(found)
    if source is None:
        return Rejected(file=frame.record.raw.label, reason=reason)
    return _aligned(frame, found.of(source), source, reason, roots)


def _head_file(frame: _Frame, text: str, roots: Roots) -> FileRef:
    raw = frame.record.raw
    path = roots.data / str(raw.year) / raw.telescope / "reduced" / raw.night / f"{raw.name}.head"
    with writing(path) as temporary:
        temporary.write_text(text, encoding="ascii")
    return ref(path, roots)


def _aligned(
    frame: _Frame, chosen: Candidate, source: Literal["scamp", "joint", "plate", "common"], reason: str, roots: Roots
) -> AlignedFrame:
    ra, dec, *_ = frame_geometry(chosen.wcs, frame.shape)
    return AlignedFrame(
        frame=frame.calibrated,
        head=_head_file(frame, chosen.text, roots),
        source=source,
        reason=reason,
        rms_arcsec=chosen.rms,
        n_matched=chosen.n_matched,
        ra=ra,
        dec=dec,
    )


def _among_themselves(
    frames: Sequence[_Frame], roots: Roots, telescope: Telescope, settings: ScampSettings
) -> tuple[list[AlignedFrame | Rejected], tuple[str, ...]]:
    """Without Gaia: the frames aligned with each other, the sky as the plate solutions have it in the median."""
    if not frames:
        return [], ()
    everything = [load_sources(frame.calibrated.solved.measured, roots, telescope) for frame in frames]
    stars = [seen.take(seen.clean & (seen.snr > settings.snr_high)) for seen in everything]
    scale = float(np.median([frame.calibrated.solved.solution.pixel_scale for frame in frames]))
    radius = match_radius(settings.crossid_arcsec, scale)
    fitted, common = fit_to_common_stars(
        [frame.wcs for frame in frames], stars, [frame.shape for frame in frames], radius, scale, settings.degree,
        settings.min_matched,
    )  # fmt: skip
    results = [
        _by_common_stars(frame, wcs, seen, common, roots, settings)
        for frame, wcs, seen in zip(frames, fitted, stars, strict=True)
    ]
    together = [result for result in results if isinstance(result, AlignedFrame) and result.source == "common"]
    if not together:
        return results, ("no Gaia cone: no SCAMP run, the plate solutions are used as they are",)
    rms = 1000 * float(np.median([result.rms_arcsec for result in together]))
    return results, (
        f"no Gaia cone: no SCAMP run; {len(together)} of {len(frames)} frames fitted to {len(common)} stars that "
        f"they have in common, median rms {rms:.0f} mas ({rms / 1000 / scale:.2f} px), their place on the sky is "
        "the median of the plate solutions",
    )


def _by_common_stars(
    frame: _Frame, wcs: WCS | None, seen: Sources, common: Reference, roots: Roots, settings: ScampSettings
) -> AlignedFrame | Rejected:
    """The fit to the common stars or the plate solution, whichever places them better; with neither good, none.

    Where the other frames show too few of its stars, the plate solution is taken as it is.
    """
    if wcs is None:
        return _unchecked(frame, f"fewer than {settings.min_matched} stars in common with the other frames", roots)
    scale = frame.calibrated.solved.solution.pixel_scale
    parameters = float(len(monomials(wcs.sip.a.shape[0] - 1 if wcs.sip is not None else 1)))
    sight = Sight(seen, common, frame.shape, frame.calibrated.solved.solution)
    fit = judge(tpv_head(wcs, frame.shape), sight, parameters, settings)
    # The plate solution was not fitted to these stars: it looks as good on them as it is.
    plate = judge(tpv_head(frame.wcs, frame.shape), sight, 0.0, settings)
    limit = believable_rms(scale, settings)
    doubt = fit.doubt or (
        f"{fit.n_matched} stars do not bear a fit of {parameters:.0f} terms" if fit.prediction > limit else ""
    )
    if not doubt and (plate.doubt or fit.prediction <= plate.prediction):
        return _aligned(frame, fit, "common", f"no Gaia cone; fitted to {common.text}", roots)
    if plate.doubt:
        return Rejected(
            file=frame.record.raw.label,
            reason=f"its stars are not where the other frames have them: {doubt}; plate solution: {plate.doubt}",
        )
    return _aligned(frame, plate, "plate", f"no Gaia cone; agrees with {common.text}", roots)


def _unchecked(frame: _Frame, why: str, roots: Roots) -> AlignedFrame:
    """The plate solution as it is, where there is nothing to check it against."""
    solution = frame.calibrated.solved.solution
    return AlignedFrame(
        frame=frame.calibrated,
        head=_head_file(frame, tpv_head(frame.wcs, frame.shape), roots),
        source="plate",
        reason=f"no Gaia cone, {why}; verified against {solution.reference}",
        rms_arcsec=solution.rms_arcsec,
        n_matched=solution.n_matched,
        ra=solution.ra,
        dec=solution.dec,
    )
