"""Frames as the pages' tables tell them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from models.frame import FrameRecord, Rejected
from models.page import PageFrame

__all__ = ["group_frames", "page_frame"]

_REMEDY = "none needed; look at the frame on its year's page if it should be in the stack"


def _number(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def page_frame(
    record: FrameRecord, used: Collection[str] | None = None, why: Mapping[str, str] | None = None, group: str = ""
) -> PageFrame:
    """A frame with what became of it.

    Parameters
    ----------
    record
        All that is known of the frame.
    used
        Labels of the frames that are in a stack; None: stacks are not asked for.
    why
        By label: why a frame was left out of its group's stack.
    group
        What it shows.
    """
    raw, quality, solved = record.raw, record.quality, record.solved
    point = record.calibrated.zero_point if record.calibrated else None
    seeing = (solved.fwhm_arcsec if solved else None) or (quality.fwhm_arcsec if quality else None)
    failure = record.failures[-1] if record.failures else None
    status, stage, reason, remedy = "reduced", "", "", ""
    if record.calibrated is None or (failure is not None and record.pending):
        status = "pending" if record.pending else "failed"
        stage, reason, remedy = (
            (failure.stage, failure.reason, failure.remedy)
            if failure is not None
            else ("pipeline", "not reached", "run the command again")
        )
    elif point is not None and point.status in ("FAILED", "FEW_STARS", "PENDING"):
        stage, reason = "zero point", point.reason
        remedy = failure.remedy if failure is not None else "none needed: frames of the group may scale it"
        status = "pending" if point.status == "PENDING" else "reduced"
    elif failure is not None:
        stage, reason, remedy = failure.stage, failure.reason, failure.remedy
    if used is not None and raw.label in used:
        status = "used"
    elif used is not None and status not in ("pending", "failed"):
        status, stage = "left out", "selection"
        reason = (why or {}).get(raw.label) or reason or "its filter has no stack"
        remedy = _REMEDY
    return PageFrame(
        label=raw.label,
        night=raw.night,
        start=raw.date_obs.strftime("%Y-%m-%dT%H:%M:%S"),
        mjd=round(raw.mid_exposure_mjd, 6),
        filter=raw.filter or "",
        object=raw.object,
        exptime_s=raw.exptime,
        airmass=_number(raw.airmass, 2),
        seeing_arcsec=_number(seeing, 2),
        zp=_number(point.zp if point else None, 3),
        zp_err=_number(point.zp_err if point else None, 4),
        rms_mas=_number(1000.0 * solved.solution.rms_arcsec if solved else None, 0),
        flags=quality.flags if quality else (),
        status=status,
        stage=stage,
        reason=reason,
        remedy=remedy,
        group=group,
    )


def group_frames(
    records: Sequence[FrameRecord], used: Collection[str], left_out: Sequence[Rejected], group: str
) -> tuple[PageFrame, ...]:
    """Frames of a group in the order of time: those in a stack, and those that are not, with why."""
    why = {rejected.file: rejected.reason for rejected in left_out}
    ordered = sorted(records, key=lambda record: (record.raw.date_obs, record.raw.path))
    return tuple(page_frame(record, used, why, group) for record in ordered)
