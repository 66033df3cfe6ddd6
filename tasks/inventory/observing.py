"""When and where: dates as headers spell them, the night, the Sun, the mount's position."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone

from models.telescope import Site
from tasks.core.errors import StageError
from tasks.inventory.headers import STAGE, Header, text

__all__ = ["night_of", "start_of_exposure", "sexagesimal", "sun_altitude"]

_DATE = re.compile(r"^(\d{4})[-/](\d{1,2})[-/](\d{1,2})")
_TIME = re.compile(
    r"^(\d{1,2}):(\d{2})(?::(\d{2}(?:[.,]\d*)?))?\s*(?P<zone>Z|UTC?|[+-]\d{2}:?\d{2}|[+-]\d{2})?$", re.IGNORECASE
)
_TIME_KEYWORDS = ("TIME-OBS", "UT", "UTC", "UT-OBS", "UTSTART", "UT-START", "TIME-BEG")
_UNIVERSAL = ("", "UTC", "UT", "UT1", "GMT", "Z")
"""Values of TIMESYS that mean UTC; UT1 is within 0.9 s of it."""
_ATOMIC = {"TAI": "tai", "IAT": "tai", "GPS": "tai", "TT": "tt", "TDT": "tt", "ET": "tt", "TDB": "tdb", "TCB": "tcb",
           "TCG": "tcg"}  # fmt: skip
"""Time scales of FITS standard 4.0, table 30, as astropy calls them."""
_GPS_EPOCH_S = 19.0
"""TAI is ahead of the time of the GPS satellites by so much, always."""
_REMEDY = "write the start of the exposure (UTC) as DATE-OBS into a copy of the file, or leave the file out"


def _zone(word: str | None) -> timezone:
    if not word or word.upper() in ("Z", "UT", "UTC"):
        return UTC
    digits = word[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if word[0] == "-" else offset)


def _universal(start: datetime, scale: str) -> datetime:
    """UTC of a moment that a header tells in the time scale that its TIMESYS names."""
    word = scale.strip().upper().partition("(")[0]  # "UTC(NIST)": the realisation does not matter
    if word in _UNIVERSAL:
        return start
    if word not in _ATOMIC:
        why = "local time" if word in ("LOCAL", "LT", "LST") else "no time scale that is known"
        raise StageError(STAGE, f"TIMESYS {scale!r} is {why}: when it was taken in UTC is not said", _REMEDY)
    from astropy.time import Time

    naive = start.replace(tzinfo=None) + timedelta(seconds=_GPS_EPOCH_S if word == "GPS" else 0.0)
    found: datetime = Time(naive, scale=_ATOMIC[word]).utc.to_datetime(UTC)
    return found


def start_of_exposure(header: Header, keywords: tuple[str, ...]) -> datetime:
    """Start of the exposure, UTC.

    Understands ``2023-03-14T19:36:02.15``, a time zone after it (``-0700``), a blank or nothing but the date
    with the time in a keyword of its own. A time without a zone is UTC unless TIMESYS names another scale
    (FITS standard 4.0, 9.2.1).

    Raises
    ------
    StageError
        If there is no date, no time, or neither can be read, or TIMESYS says that the time is local or a scale that
        is not known. A time is never guessed.
    """
    word = text(header, keywords)
    if not word:
        raise StageError(STAGE, f"the header has no {keywords[0]}: when it was taken is not known", _REMEDY)
    date = _DATE.match(word)
    if date is None:
        raise StageError(STAGE, f"{keywords[0]} {word!r} is not a date", _REMEDY)
    clock = word[date.end() :].lstrip("T ").strip() or text(header, _TIME_KEYWORDS)
    if other := _DATE.match(clock):  # the other keyword holds a date and a time
        date, clock = other, clock[other.end() :].lstrip("T ").strip()
    if not clock:
        raise StageError(STAGE, f"{keywords[0]} {word!r} has no time of day, nor has any other keyword", _REMEDY)
    time = _TIME.match(clock)
    try:
        if time is None:
            raise ValueError(f"no time of day: {clock!r}")
        seconds = float((time[3] or "0").replace(",", "."))
        start = datetime(
            int(date[1]), int(date[2]), int(date[3]), int(time[1]), int(time[2]), tzinfo=_zone(time["zone"])
        )
        start = (start + timedelta(seconds=seconds)).astimezone(UTC)
        if not time["zone"]:
            start = _universal(start, text(header, ("TIMESYS",)))
    except (ValueError, OverflowError) as error:
        raise StageError(STAGE, f"{keywords[0]} {word!r} is not a date and time ({error})", _REMEDY) from error
    if not 1990 <= start.year <= 2100:
        raise StageError(STAGE, f"{keywords[0]} {word!r}: the computer's clock was wrong", _REMEDY)
    return start


def night_of(start: datetime, site: Site) -> str:
    """The night, local noon to noon by the site's longitude: date of its evening, ``YYYYMMDD``."""
    local = start + timedelta(hours=site.longitude_deg / 15.0) - timedelta(hours=12)
    return local.strftime("%Y%m%d")


def sun_altitude(when: datetime, site: Site) -> float:
    """Altitude of the Sun's centre, deg, without refraction.

    Low-precision formulae of the Astronomical Almanac (section C), good to 0.01 deg from 1950 to 2050.
    """
    days = when.timestamp() / 86400.0 + 2440587.5 - 2451545.0
    mean_longitude = 280.460 + 0.9856474 * days
    anomaly = math.radians(357.528 + 0.9856003 * days)
    longitude = math.radians(mean_longitude + 1.915 * math.sin(anomaly) + 0.020 * math.sin(2 * anomaly))
    obliquity = math.radians(23.439 - 4e-7 * days)
    declination = math.asin(math.sin(obliquity) * math.sin(longitude))
    right_ascension = math.atan2(math.cos(obliquity) * math.sin(longitude), math.cos(longitude))
    sidereal = math.radians((280.46062 + 360.98564737 * days + site.longitude_deg) % 360.0)
    latitude = math.radians(site.latitude_deg)
    sine = math.sin(latitude) * math.sin(declination) + math.cos(latitude) * math.cos(declination) * math.cos(
        sidereal - right_ascension
    )
    return math.degrees(math.asin(max(-1.0, min(1.0, sine))))


def sexagesimal(word: str) -> float | None:
    """A number as ``'07 37 45'``, ``'+11:49:27.5'`` or ``'31.3'``, in the units of its first part; None if it is none.

    Returns
    -------
    The value; a sexagesimal one has minutes and seconds below 60.
    """
    parts = re.split(r"[\s:hmsd°′″'\"]+", word.strip().lower().replace(",", ".").rstrip("hmsd°′″'\" "))
    try:
        values = [float(part) for part in parts]
    except ValueError:
        return None
    if not 1 <= len(values) <= 3 or not all(math.isfinite(value) for value in values):
        return None
    if any(not 0 <= value < 60 for value in values[1:]):
        return None
    size = abs(values[0]) + sum(value / 60.0**power for power, value in enumerate(values[1:], start=1))
    return -size if parts[0].startswith("-") else size
