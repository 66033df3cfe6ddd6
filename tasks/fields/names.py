"""Names for places that have none."""

from __future__ import annotations

__all__ = ["coordinate_name"]


def coordinate_name(ra: float, dec: float, seconds: bool = False) -> str:
    """A place's name by its position, cut off as the IAU has it: ``J1141+0552``; with seconds ``J114112+055230``."""
    in_seconds = int(ra % 360.0 * 240.0 + 1e-6)
    in_arcsec = int(abs(dec) * 3600.0 + 1e-6)
    sign = "-" if dec < 0 else "+"
    hour, minute, second = in_seconds // 3600, in_seconds // 60 % 60, in_seconds % 60
    degree, arcmin, arcsec = in_arcsec // 3600, in_arcsec // 60 % 60, in_arcsec % 60
    if seconds:
        return f"J{hour:02d}{minute:02d}{second:02d}{sign}{degree:02d}{arcmin:02d}{arcsec:02d}"
    return f"J{hour:02d}{minute:02d}{sign}{degree:02d}{arcmin:02d}"
