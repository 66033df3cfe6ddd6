"""Dates, nights, the Sun, positions."""

from __future__ import annotations

import contextlib
import warnings
from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies

from models.telescope import load_telescope
from tasks.core.errors import StageError
from tasks.inventory.observing import night_of, sexagesimal, start_of_exposure, sun_altitude

OHP = load_telescope("T120").site
KEYS = ("DATE-OBS",)


@pytest.mark.parametrize(
    ("cards", "iso"),
    [
        ({"DATE-OBS": "2018-01-07T15:10:22.72"}, "2018-01-07T15:10:22.720000+00:00"),
        ({"DATE-OBS": "2018-01-07T15:10:22"}, "2018-01-07T15:10:22+00:00"),
        ({"DATE-OBS": "2018-01-07T15:10"}, "2018-01-07T15:10:00+00:00"),
        ({"DATE-OBS": "2018-01-07T15:10:22.7Z"}, "2018-01-07T15:10:22.700000+00:00"),
        ({"DATE-OBS": "2018-01-07 15:10:22,5"}, "2018-01-07T15:10:22.500000+00:00"),
        ({"DATE-OBS": "2017-12-19T18:33:43.317-0700"}, "2017-12-20T01:33:43.317000+00:00"),
        ({"DATE-OBS": "2025-03-18T00:10:00+01:00"}, "2025-03-17T23:10:00+00:00"),
        ({"DATE-OBS": "2018-01-07T15:59:60.0"}, "2018-01-07T16:00:00+00:00"),
        ({"DATE-OBS": "2018-01-07", "TIME-OBS": "15:10:22.5"}, "2018-01-07T15:10:22.500000+00:00"),
        ({"DATE-OBS": "2018/01/07", "UT": "15:10:22"}, "2018-01-07T15:10:22+00:00"),
        ({"DATE-OBS": "2018-01-07T15:10:22", "TIMESYS": "UTC(NIST)"}, "2018-01-07T15:10:22+00:00"),
        ({"DATE-OBS": "2018-01-07T15:10:22", "TIMESYS": "TAI"}, "2018-01-07T15:09:45+00:00"),
        ({"DATE-OBS": "2018-01-07T15:10:22", "TIMESYS": "GPS"}, "2018-01-07T15:10:04+00:00"),
        ({"DATE-OBS": "2018-01-07T15:10:22.184", "TIMESYS": "tt"}, "2018-01-07T15:09:13+00:00"),
        ({"DATE-OBS": "2018-01-07T15:10:22+01:00", "TIMESYS": "LOCAL"}, "2018-01-07T14:10:22+00:00"),
        ({"DATE-OBS": "2017-12-19", "UT-OBS": "2017-12-20T01:33:43.317-0000"}, "2017-12-20T01:33:43.317000+00:00"),
    ],
)
def test_dates_as_headers_spell_them(cards: dict[str, str], iso: str) -> None:
    assert start_of_exposure(cards, KEYS).isoformat() == iso


@pytest.mark.parametrize(
    ("cards", "says"),
    [
        ({}, "has no DATE-OBS"), ({"DATE-OBS": "   "}, "has no DATE-OBS"),
        ({"DATE-OBS": "2018-01-07"}, "no time of day"),
        ({"DATE-OBS": "tonight"}, "not a date"), ({"DATE-OBS": "2018-13-07T15:10:22"}, "not a date and time"),
        ({"DATE-OBS": "2018-01-07T25:10:22"}, "not a date and time"),
        ({"DATE-OBS": "2018-01-07Tnoon"}, "not a date and time"),
        ({"DATE-OBS": "1970-01-01T00:00:10"}, "clock was wrong"), ({"DATE-OBS": "07/01/18"}, "not a date"),
        ({"DATE-OBS": "2018-01-07T15:10:22", "TIMESYS": "LOCAL"}, "local time"),
        ({"DATE-OBS": "2018-01-07T15:10:22", "TIMESYS": "heure d'ete"}, "no time scale that is known"),
        ({"DATE-OBS": 58125.63}, "not a date"), ({"DATE-OBS": "9999-12-31T23:59:60"}, "not a date and time"),
    ],
)  # fmt: skip
def test_what_is_no_date_is_said_never_guessed(cards: dict[str, object], says: str) -> None:
    with pytest.raises(StageError, match=says) as caught:
        start_of_exposure(cards, KEYS)
    assert caught.value.remedy


def test_night_changes_at_local_noon() -> None:
    # At 5.7133 deg east mean noon is 22.85 min before 12 UT.
    assert night_of(datetime(2025, 3, 18, 11, 37, 0, tzinfo=UTC), OHP) == "20250317"
    assert night_of(datetime(2025, 3, 18, 11, 37, 20, tzinfo=UTC), OHP) == "20250318"
    assert night_of(datetime(2025, 3, 18, 23, 0, tzinfo=UTC), OHP) == "20250318"
    assert night_of(datetime(2025, 3, 19, 3, 0, tzinfo=UTC), OHP) == "20250318"
    west = OHP.model_copy(update={"longitude_deg": -110.88})
    assert night_of(datetime(2017, 12, 20, 1, 33, tzinfo=UTC), west) == "20171219"
    assert night_of(datetime(2017, 12, 20, 19, 0, tzinfo=UTC), west) == "20171219"
    east = OHP.model_copy(update={"longitude_deg": 149.0})
    assert night_of(datetime(2025, 12, 31, 9, 0, tzinfo=UTC), east) == "20251231"
    assert night_of(datetime(2026, 1, 1, 1, 0, tzinfo=UTC), east) == "20251231"


def test_sun_against_astropy() -> None:
    from astropy import units as u
    from astropy.coordinates import AltAz, EarthLocation, get_sun
    from astropy.time import Time
    from astropy.utils import iers

    place = EarthLocation(lat=OHP.latitude_deg * u.deg, lon=OHP.longitude_deg * u.deg, height=650 * u.m)
    with iers.conf.set_temp("auto_download", False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Earth-rotation data of the future: seconds of time, not degrees
        for day in ("2018-01-07T15:10:00", "2023-03-14T18:06:00", "2020-06-21T12:00:00", "2025-10-01T03:00:00"):
            time = Time(day, scale="utc")
            expected = get_sun(time).transform_to(AltAz(obstime=time, location=place)).alt.deg
            assert sun_altitude(datetime.fromisoformat(day + "+00:00"), OHP) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("07 37 45", 7 + 37 / 60 + 45 / 3600), ("-00 30 00", -0.5), ("+11:49:27.5", 11 + 49 / 60 + 27.5 / 3600),
        ("08h50m48s", 8 + 50 / 60 + 48 / 3600), ("-12°30′57″", -(12 + 30 / 60 + 57 / 3600)), ("31.312099", 31.312099),
        ("08 50,5", 8 + 50.5 / 60), ("", None), ("unknown", None), ("08 61 00", None), ("nan", None), ("1 2 3 4", None),
    ],
)  # fmt: skip
def test_sexagesimal(word: str, value: float | None) -> None:
    assert sexagesimal(word) == (pytest.approx(value) if value is not None else None)


@given(strategies.text(max_size=40))
def test_no_text_breaks_the_readers(word: str) -> None:
    sexagesimal(word)
    with contextlib.suppress(StageError):
        start_of_exposure({"DATE-OBS": word}, KEYS)
