"""Which frames enter a stack, and why the others do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from models.base import Roots
from models.frame import Rejected
from models.settings import SelectionSettings
from models.stack import AlignedFrame, ScaledFrame, Scaling, Selection
from models.target import Target
from models.telescope import Telescope
from tasks.stacking.grid import direction, unit_vectors
from tasks.stacking.heads import frame_label, head_header

__all__ = ["group_centre", "select_frames", "separation_deg"]

_MAD_TO_SIGMA = 1.4826


def separation_deg(ra1: float, dec1: float, ra2: float, dec2: float) -> float:
    """Angle between two directions, deg; exact for small angles, too."""
    a, b = unit_vectors(np.array([ra1, ra2]), np.array([dec1, dec2]))
    return math.degrees(2.0 * math.asin(min(1.0, float(np.linalg.norm(a - b)) / 2.0)))


def group_centre(aligned: Sequence[AlignedFrame]) -> tuple[float, float]:
    """Median centre (deg, ICRS) of a group's frames: what a few frames of another field do not move."""
    vectors = unit_vectors(np.array([a.ra for a in aligned]), np.array([a.dec for a in aligned]))
    return direction(np.median(vectors, axis=0))


def select_frames(
    target: Target,
    filter: str,
    scaling: Scaling,
    rejected: Sequence[Rejected],
    roots: Roots,
    telescope: Telescope,
    settings: SelectionSettings,
    centre: tuple[float, float] | None = None,
) -> Selection:
    """Choose the frames of one filter.

    Parameters
    ----------
    target
        The group; merged ones allow the wider radius.
    filter
        Canonical name.
    scaling
        The filter's frames with their flux scale.
    rejected
        What earlier steps left out of this filter; reported with the rest.
    roots
        Where the `.head` files are.
    telescope
        Its nominal scale is the measure of the CD matrices.
    settings
        The cuts.
    centre
        Where the group's frames look (deg, `group_centre`); without it the target's position.

    Returns
    -------
    Selection
        With ``status='TOO_FEW_FRAMES'`` and no frame where fewer than ``min_frames`` are left.
    """
    out = [*rejected, *scaling.rejected]
    kept = list(scaling.scaled)

    def cut(test: Callable[[ScaledFrame], str | None]) -> None:
        reasons = [(frame, test(frame)) for frame in kept]
        kept[:] = [frame for frame, reason in reasons if reason is None]
        out.extend(
            Rejected(file=frame_label(frame.aligned), reason=reason) for frame, reason in reasons if reason is not None
        )

    cut(_position_cut(target, centre, settings))
    cut(_matrix_cut(roots, telescope, settings))
    cut(_quality_cut(settings))
    cut(_zero_point_cut(kept, settings))
    if len(kept) < settings.min_frames:
        reason = f"{len(kept)} usable of {len(kept) + len(out)} frames in {filter}, {settings.min_frames} needed"
        out.extend(Rejected(file=frame_label(frame.aligned), reason=f"not stacked: {reason}") for frame in kept)
        return Selection(
            group=target.name, filter=filter, chosen=(), rejected=tuple(out), status="TOO_FEW_FRAMES", reason=reason,
            colour=scaling.colour, notes=scaling.notes,
        )  # fmt: skip
    return Selection(
        group=target.name, filter=filter, chosen=tuple(kept), rejected=tuple(out), colour=scaling.colour,
        notes=scaling.notes,
    )  # fmt: skip


def _position_cut(
    target: Target, centre: tuple[float, float] | None, settings: SelectionSettings
) -> Callable[[ScaledFrame], str | None]:
    ra, dec = centre or (target.ra, target.dec)
    what = "the group's median centre" if centre else "the target"
    radius = settings.merged_radius_deg if target.merged else settings.radius_arcmin / 60.0
    setting = "merged_radius_deg" if target.merged else "radius_arcmin"

    def test(frame: ScaledFrame) -> str | None:
        away = separation_deg(frame.aligned.ra, frame.aligned.dec, ra, dec)
        if away <= radius:
            return None
        return f"its centre is {away * 60:.1f} arcmin from {what}, more than {radius * 60:.1f} (selection.{setting})"

    return test


def _matrix_cut(roots: Roots, telescope: Telescope, settings: SelectionSettings) -> Callable[[ScaledFrame], str | None]:
    nominal = (telescope.camera.pixel_scale / 3600.0) ** 2

    def test(frame: ScaledFrame) -> str | None:
        head = head_header(frame.aligned, roots)
        area = abs(head["CD1_1"] * head["CD2_2"] - head["CD1_2"] * head["CD2_1"])
        ratio = area / nominal
        if 1 / settings.max_det_ratio < ratio < settings.max_det_ratio:
            return None
        return (
            f"abs(det CD) of its .head is {ratio:.3g} times the nominal, outside "
            f"1/{settings.max_det_ratio:g} to {settings.max_det_ratio:g}"
        )

    return test


def _quality_cut(settings: SelectionSettings) -> Callable[[ScaledFrame], str | None]:
    def test(frame: ScaledFrame) -> str | None:
        solved = frame.aligned.frame.solved
        flags = sorted(set(solved.measured.quality.flags) & set(settings.exclude_flags))
        if flags:
            return f"quality flag {', '.join(flags)}"
        limit = settings.max_seeing_arcsec
        fwhm = solved.fwhm_arcsec or solved.measured.quality.fwhm_arcsec
        if limit is not None and fwhm is None:
            return f"its seeing is unknown and a limit of {limit:.1f} arcsec was asked for"
        if limit is not None and fwhm is not None and fwhm > limit:
            return f"FWHM {fwhm:.2f} arcsec, more than {limit:.2f}"
        return None

    return test


def _zero_point(frame: ScaledFrame) -> float:
    """Zero point, up to a constant where only the relative scale is known."""
    return -2.5 * math.log10(frame.flux_scale * frame.aligned.frame.raw.exptime)


def _zero_point_cut(frames: Sequence[ScaledFrame], settings: SelectionSettings) -> Callable[[ScaledFrame], str | None]:
    values = np.array([_zero_point(frame) for frame in frames])
    median = float(np.median(values)) if len(values) else 0.0
    sigma = _MAD_TO_SIGMA * float(np.median(np.abs(values - median))) if len(values) else 0.0
    limit = max(settings.zp_sigma * sigma, settings.zp_floor_mag)

    def test(frame: ScaledFrame) -> str | None:
        off = _zero_point(frame) - median
        if abs(off) <= limit:
            return None
        known = f"{frame.zero_point:.3f}, " if frame.zero_point is not None else ""
        return (
            f"zero point {known}{off:+.2f} mag from its filter's median, more than {limit:.2f} "
            f"({settings.zp_sigma:g} sigma of {sigma:.3f}, at least {settings.zp_floor_mag:g})"
        )

    return test
