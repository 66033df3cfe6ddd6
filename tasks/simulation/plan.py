"""Which frames a campaign takes, when, where it points, and under what sky."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import numpy as np

from models.base import Record
from models.simulation import SimulationOptions, Trail, TrueWcs
from tasks.core.errors import UserError
from tasks.simulation.bands import ALL_BANDS
from tasks.simulation.habits import Habit
from tasks.simulation.instruments import habit_for, instrument_of
from tasks.simulation.places import FIELDS, field_named
from tasks.simulation.seeds import rng_for

__all__ = ["SITE", "Shot", "airmass_at", "altitude_azimuth", "plan_campaign", "under_the_sky"]

SITE = (43.9317, 5.7133, 650.0)
"""Latitude, longitude (east) in degrees, elevation in m."""

_EXPOSURES = {
    "M51": {"B": (300, 240, 300), "V": (180, 120, 180), "R": (120, 90, 120), "g": (180, 120, 180),
            "r": (120, 180, 90), "i": (180, 120, 180), "Ha": (300, 300, 600)},
    "M67": {"B": (120, 60, 120), "V": (30, 20, 60), "R": (30, 20, 60), "g": (60, 30, 60), "r": (30, 60, 20),
            "i": (60, 30, 60), "Ha": (120, 120, 120), "Clear": (30, 20, 30)},
    "M13": {"B": (120, 120, 120), "V": (60, 60, 60), "R": (60, 60, 60), "g": (120, 60, 120), "r": (60, 120, 60),
            "i": (120, 60, 120), "Ha": (300, 300, 300), "Clear": (30, 30, 30)},
}  # fmt: skip
_FLAT_SECONDS = {"B": 8.0, "V": 4.0, "R": 3.0, "g": 5.0, "r": 3.0, "i": 4.0, "Ha": 20.0, "Clear": 2.0}
_LARGEST_AIRMASS = 2.1


class Shot(Record):
    """A frame to be taken."""

    path: str
    kind: Literal["bias", "flat", "science"]
    year: int
    night: str
    start: datetime
    exptime: float
    object: str
    imagetyp: str | None
    filter: str | None = None
    filter_name: str = ""
    field: str | None = None
    pointing: tuple[float, float] | None = None
    temperature: float
    airmass: float | None = None
    header_airmass: float | None = None
    oddity: str | None = None
    level_adu: float | None = None
    warm_adu: float = 0.0
    wcs: TrueWcs | None = None
    seeing: float | None = None
    beta: float | None = None
    ellipticity: tuple[float, float, float] | None = None
    transparency: float = 1.0
    zero_point: float | None = None
    sky_mag: float | None = None
    sky_gradient: tuple[float, float] = (0.0, 0.0)
    trails: tuple[Trail, ...] = ()
    header_offset: float | None = None
    software: str = ""
    cards: tuple[tuple[str, str | float | int | None], ...] = ()


def altitude_azimuth(ra: float, dec: float, when: datetime) -> tuple[float, float, float]:
    """Altitude, azimuth and hour angle in degrees (mean sidereal time, no refraction: good to 0.1 deg)."""
    days = when.timestamp() / 86400.0 + 40587.0 - 51544.5
    sidereal = (280.46061837 + 360.98564736629 * days + SITE[1]) % 360.0
    hour = np.deg2rad((sidereal - ra + 180) % 360 - 180)
    lat, d = np.deg2rad(SITE[0]), np.deg2rad(dec)
    altitude = np.arcsin(np.sin(lat) * np.sin(d) + np.cos(lat) * np.cos(d) * np.cos(hour))
    azimuth = np.arctan2(-np.cos(d) * np.sin(hour), np.sin(d) * np.cos(lat) - np.cos(d) * np.cos(hour) * np.sin(lat))
    return float(np.rad2deg(altitude)), float(np.rad2deg(azimuth) % 360), float(np.rad2deg(hour))


def airmass_at(altitude: float) -> float:
    """Airmass at an altitude in degrees."""
    # Kasten & Young (1989, Applied Optics 28, 4735).
    a = max(altitude, 3.0)
    return float(1 / (np.sin(np.deg2rad(a)) + 0.50572 * (a + 6.07995) ** -1.6364))


def _evening(night: str) -> datetime:
    return datetime.strptime(night + "+0000", "%Y%m%d%z")


def _first_light(field: str, night: str) -> datetime:
    """When a field is first well up: hour angle -1.5 h (M67) or -3 h (M51, M13), never before 19:15 UT."""
    target = FIELDS[field]
    when = _evening(night) + timedelta(hours=19, minutes=15)
    wanted = -22.5 if field == "M67" else -45.0
    _, _, hour = altitude_azimuth(target.ra, target.dec, when)
    wait = ((wanted - hour) % 360.0) / 15.041
    return when + timedelta(hours=wait if wait < 9 else 0.0)


def _when(field: str, night: str, exptime: float, clock: dict[str, datetime]) -> tuple[str, datetime]:
    # The next moment the camera is free and the field well up; when the night is full, one of the nights after it.
    while True:
        start = max(_first_light(field, night), clock.get(night, _evening(night)))
        end = start + timedelta(seconds=exptime + 30)
        low = airmass_at(altitude_azimuth(FIELDS[field].ra, FIELDS[field].dec, end)[0]) > _LARGEST_AIRMASS
        if not low and end < _evening(night) + timedelta(hours=28):
            return night, start
        night = f"{_evening(night) + timedelta(days=1):%Y%m%d}"


def _wcs(options: SimulationOptions, year: int, path: str, centre: tuple[float, float]) -> TrueWcs:
    # The camera is taken off each year: its own angle, scale and optical axis. Flexure and refraction per frame.
    rng = rng_for(options.seed, "camera", year)
    instrument, (rows, columns) = instrument_of(options), options.shape
    rotation, scale = instrument.rotation_deg + rng.uniform(-1.6, 1.6), instrument.scale + rng.normal(0, 0.0005)
    axis = np.array([columns, rows]) / 2 + 0.5 + rng.uniform(-25, 25, 2)
    k = 4.1e-9 * rng.uniform(0.85, 1.15)
    own = rng_for(options.seed, "flexure", path)
    angle = np.deg2rad(rotation + own.normal(0, 0.01))
    s = scale * (1 + own.normal(0, 2e-5)) / 3600
    x = instrument.parity * s
    cd = ((x * np.cos(angle), s * np.sin(angle)), (-x * np.sin(angle), s * np.cos(angle)))
    return TrueWcs(
        crval=centre,
        crpix=(float(axis[0]), float(axis[1])),
        cd=((float(cd[0][0]), float(cd[0][1])), (float(cd[1][0]), float(cd[1][1]))),
        k=float(k),
        shape=options.shape,
    )


def under_the_sky(
    options: SimulationOptions, shot: Shot, year: int, aim: tuple[float, float] | None = None, habit: float = 0.0
) -> Shot:
    """A science shot with its night's weather, the telescope's pointing and what the mount says of it.

    Parameters
    ----------
    options
        Seed and size.
    shot
        Time, filter, field, airmass.
    year
        Of the camera's mounting.
    aim
        Where the observer wants to look (deg); None: the field's centre.
    habit
        How far an observer's centring is off, all of a night and target, deg (Rayleigh's sigma).
    """
    assert shot.filter
    assert shot.field
    assert shot.airmass
    assert shot.pointing
    instrument = instrument_of(options)
    band = (ALL_BANDS | instrument.bands)[shot.filter]
    night = rng_for(options.seed, "weather", shot.night)
    night_seeing = float(night.uniform(1.7, 3.0))
    night_zero = float(night.normal(0.0, 0.03))
    brighter = float(night.uniform(-0.1, 0.4))
    mirror = float(rng_for(options.seed, "mirror", year).normal(0.0, 0.1))
    rng = rng_for(options.seed, "frame", shot.path)
    seeing = float(np.clip(night_seeing * shot.airmass**0.6 * band.seeing * rng.lognormal(0.0, 0.13), 1.6, 4.5))
    cloudy = rng.random() < 0.15
    transparency = float(rng.uniform(0.72, 0.95) if cloudy else rng.uniform(0.98, 1.0))
    zero = band.zero_point + mirror + night_zero - band.extinction * (shot.airmass - 1) + 2.5 * np.log10(transparency)
    distance, towards = rng.uniform(10, 60) / 3600, rng.uniform(0, 2 * np.pi)
    place = field_named(shot.field)
    ra, dec = aim or (place.ra, place.dec)
    if habit:
        centring = rng_for(options.seed, "centring", shot.night, shot.object).normal(0.0, habit, 2)
        ra, dec = (
            ra + float(np.clip(centring[0], -2 * habit, 2 * habit)) / np.cos(np.deg2rad(dec)),
            dec + float(np.clip(centring[1], -2 * habit, 2 * habit)),
        )
    centre = (
        ra + float(distance * np.sin(towards) / np.cos(np.deg2rad(dec))),
        dec + float(distance * np.cos(towards)),
    )
    error = rng_for(options.seed, "mount", shot.night, shot.field)
    off = float(error.uniform(0.02, 0.29)) + float(rng.normal(0.0, 0.002))
    way = float(error.uniform(0, 2 * np.pi))
    said = (
        centre[0] + off * np.sin(way) / np.cos(np.deg2rad(dec)),
        centre[1] + off * np.cos(way),
    )
    trails: tuple[Trail, ...] = ()
    if rng.random() < 0.07:
        trails = (
            Trail(
                x=float(rng.uniform(0.2, 0.8) * options.shape[1]), y=float(rng.uniform(0.2, 0.8) * options.shape[0]),
                angle_deg=float(rng.uniform(0, 180)), electrons_per_px=float(rng.lognormal(np.log(3000.0), 0.6)),
            ),
        )  # fmt: skip
    e = rng.normal(0.0, 0.02, 2) + instrument.stretch
    return shot.model_copy(
        update={
            "wcs": _wcs(options, year, shot.path, centre),
            "seeing": seeing,
            "beta": float(rng.uniform(3.0, 4.0)),
            "ellipticity": (float(e[0]), float(e[1]), float(rng.uniform(0.04, 0.09))),
            "transparency": transparency,
            "zero_point": float(zero),
            "sky_mag": band.sky - brighter - 0.15 * (shot.airmass - 1) - (0.2 if cloudy else 0.0),
            "sky_gradient": (float(rng.normal(0.0, 0.02)), float(rng.normal(0.0, 0.02))),
            "trails": trails,
            "pointing": (float(said[0]) % 360.0, float(said[1])),
            "header_offset": abs(off),
        }
    )


def _science(options: SimulationOptions, habit: Habit, filters: tuple[str, ...]) -> list[Shot]:
    shots: list[Shot] = []
    clock: dict[str, datetime] = {}
    numbers: dict[tuple[str, str, str], int] = {}
    for field in sorted(options.fields, key=lambda name: FIELDS[name].ra):
        for band in filters:
            if (band == "Ha" and not FIELDS[field].spiral) or (band == "Clear" and FIELDS[field].spiral):
                continue
            spelling, tag = habit.filters[band]
            for k in range(options.frames):
                exptime = float(_EXPOSURES[field][band][k % 3])
                night, start = _when(field, habit.nights[k * len(habit.nights) // options.frames], exptime, clock)
                name = habit.objects.get(field, field).format(exp=f"{exptime:g}")
                n = numbers[night, field, tag] = numbers.get((night, field, tag), 0) + 1
                date = f"{night[:4]}-{night[4:6]}-{night[6:]}"
                path = habit.science.format(
                    object=name, night=night, date=date, n=n, tag=tag, exp=f"{exptime:g}"
                )  # fmt: skip
                jitter = rng_for(options.seed, "clock", path)
                start += timedelta(seconds=float(jitter.uniform(4, 25)))
                start = start.replace(microsecond=start.microsecond // 10000 * 10000)
                target = FIELDS[field]
                airmass = airmass_at(altitude_azimuth(target.ra, target.dec, start + timedelta(seconds=exptime / 2))[0])
                has_position = habit.positions.get(field, True)
                shot = Shot(
                    path=path, kind="science", year=habit.year, night=night, start=start, exptime=exptime, object=name,
                    imagetyp="Light Frame", filter=band, filter_name=spelling, field=field,
                    pointing=(target.ra, target.dec), temperature=habit.temperature, airmass=airmass,
                    header_airmass=airmass if has_position and habit.airmass != "absent" else None,
                    software=habit.software,
                )  # fmt: skip
                shot = under_the_sky(options, shot, habit.year)
                if not has_position:
                    shot = shot.model_copy(update={"pointing": None, "header_offset": None})
                shots.append(shot)
                clock[night] = start + timedelta(seconds=exptime)
    return shots


def _calibration(options: SimulationOptions, habit: Habit, filters: tuple[str, ...]) -> list[Shot]:
    night = habit.nights[habit.calibration_night]
    date = f"{night[:4]}-{night[4:6]}-{night[6:]}"
    clock = _evening(night) + timedelta(hours=15, minutes=20)
    rng = rng_for(options.seed, "calibration", habit.year)
    where = (float(rng.uniform(60, 90)), float(rng.uniform(-10, 45))) if habit.calibration_positions else None
    nonsense = float(rng.uniform(500, 1700)) if habit.airmass == "wrong for calibration" else None
    common = {
        "year": habit.year, "night": night, "pointing": where, "header_airmass": nonsense, "software": habit.software,
    }  # fmt: skip
    shots = []
    for n in range(1, options.biases + 1):
        shot = Shot(
            path=habit.bias.format(night=night, date=date, n=n), kind="bias", start=clock, exptime=0.0,
            object=habit.bias_object, imagetyp="Bias Frame", temperature=habit.temperature, **common,
        )  # fmt: skip
        if options.oddities and n == options.biases:
            folder = shot.path.rpartition("/")[0]
            if habit.year % 4 == 3:
                shot = shot.model_copy(
                    update={"path": f"{folder}/Autosave Image -{n:03d}{_suffix(shot)}", "object": "bias",
                            "imagetyp": "Light Frame", "oddity": "a bias known by its OBJECT and exposure time only"}
                )  # fmt: skip
            else:
                shot = shot.model_copy(
                    update={"temperature": habit.temperature + 11.5, "warm_adu": 14.0, "oddity": "a warm bias"}
                )
        shots.append(shot)
        clock += timedelta(seconds=2.55)
    clock += timedelta(minutes=2)
    for band in filters:
        spelling, tag = habit.filters[band]
        start_level = float(rng.uniform(38_000, 44_000))
        for n in range(1, options.flats + 1):
            level = start_level * (1 - 0.12 * (n - 1) * float(rng.uniform(0.7, 1.0)))
            shot = Shot(
                path=habit.flat.format(night=night, date=date, n=n, tag=tag), kind="flat", start=clock,
                exptime=_FLAT_SECONDS[band], object=habit.flat_object.format(tag=tag), imagetyp=habit.flat_type,
                filter=band, filter_name=spelling, temperature=habit.temperature,
                level_adu=max(level, 15_500.0), **common,
            )  # fmt: skip
            if options.oddities and n == options.flats and band == filters[0] and options.flats > 3:
                shot = shot.model_copy(update={"level_adu": 4200.0, "oddity": "an underexposed flat"})
            elif options.oddities and n == 2 and shot.imagetyp == "Flat Field" and band == filters[-1]:
                shot = shot.model_copy(update={"imagetyp": "Light Frame", "oddity": "a flat labelled 'Light Frame'"})
            elif shot.imagetyp == "Light Frame":
                shot = shot.model_copy(update={"oddity": "a flat labelled 'Light Frame'"})
            shots.append(shot)
            clock += timedelta(seconds=_FLAT_SECONDS[band] + 4.4)
    return shots


def _suffix(shot: Shot) -> str:
    return "." + shot.path.rpartition(".")[2]


def plan_campaign(options: SimulationOptions) -> list[Shot]:
    """All frames of a campaign with everything decided but their noise; sorted by path.

    Raises
    ------
    UserError
        If nothing would be observed.
    """
    shots: list[Shot] = []
    for year in sorted(options.years):
        habit = habit_for(options, year)
        filters = options.filters or habit.used
        if unknown := set(filters) - set(habit.filters):
            raise UserError(f"the {options.telescope} has no filter {', '.join(sorted(unknown))} in its wheel")
        science = _science(options, habit, filters)
        used = tuple(band for band in filters if any(shot.filter == band for shot in science))
        shots += science + _calibration(options, habit, used)
    if not any(shot.kind == "science" for shot in shots):
        raise UserError(
            "no frame to take: the narrow filter Ha is used on M51 only, Clear on M67; add a field or a filter"
        )
    cards = instrument_of(options).cards
    return sorted((shot.model_copy(update={"cards": cards}) for shot in shots), key=lambda shot: shot.path)
