"""Solved frames without pixels, for the tests of groups."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

from models.base import FileRef
from models.frame import FrameRecord, MeasuredFrame, PlateSolution, Quality, RawFrame, ReducedFrame, SolvedFrame

_number = count()
_FILE = FileRef(path="x.fits", digest="0" * 64)


def raw(
    word: str = "",
    ra: float | None = None,
    dec: float | None = None,
    night: str = "20250317",
    hour: float = 22.0,
    filter: str = "r",
) -> RawFrame:
    """A raw frame with a name of its own; `ra`, `dec`: what its header says."""
    name = f"f{next(_number):05d}"
    return RawFrame(
        path=f"{night}/{name}.fits", digest="0" * 64, name=name, kind="science", why="test", telescope="T120",
        night=night, date_obs=datetime.strptime(night, "%Y%m%d").replace(tzinfo=UTC) + timedelta(hours=hour),
        exptime=60, binning=2, shape=(1024, 1024), filter=filter, object=word, ra=ra, dec=dec,
    )  # fmt: skip


def solved(
    word: str,
    ra: float,
    dec: float,
    night: str = "20250317",
    header: tuple[float, float] | None = None,
    rotation: float = -90.0,
    filter: str = "r",
    hour: float = 22.0,
) -> FrameRecord:
    """A frame that was found to look at `ra`, `dec`, whatever its header says."""
    frame = raw(word, *(header or (None, None)), night=night, hour=hour, filter=filter)
    reduced = ReducedFrame(raw=frame, file=_FILE, bias=None, flat=None, gain=1.5, read_noise=8, masked_fraction=0)
    quality = Quality(
        fwhm_px=3, fwhm_arcsec=2.3, elongation=1, sky_adu=100, sky_sigma=5, saturated_fraction=0, n_sources=100
    )
    solution = PlateSolution(
        wcs=_FILE, ra=ra % 360, dec=dec, pixel_scale=0.77, rotation_deg=rotation, parity=-1, rms_arcsec=0.02,
        n_matched=50, reference="test",
    )  # fmt: skip
    measured = MeasuredFrame(reduced=reduced, quality=quality, sources=_FILE)
    return FrameRecord(raw=frame, solved=SolvedFrame(measured=measured, solution=solution, status="OK"))
