"""A simulated release: raw frames, catalogues and a telescope's profile that the real flows reduce with trivial stages.

Small frames (128 x 128), but the real number of files, headers like the telescope's, one catalogue cone a field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from astropy.table import Table

from models.base import Roots
from models.catalog import Catalogue, Cone
from models.target import Target, load_targets
from models.telescope import load_telescope
from tasks.catalogs import store_cone

__all__ = ["FILTERS", "SIDE", "TELESCOPE", "Plan", "groups_of", "make_release"]

TELESCOPE, SIDE, FILTERS = "BENCH", 128, ("g", "r", "i")
_BIASES, _FLATS = 3, 3
_FIELD_DEG = 3.0
_STARS = 40


@dataclass(frozen=True)
class Plan:
    """How much of everything there is.

    Parameters
    ----------
    frames
        Science frames in all.
    years
        Years they are spread over.
    groups
        Target groups they show.
    """

    frames: int
    years: tuple[int, ...]
    groups: int

    def of_year(self, year: int) -> int:
        """How many of the frames are of a year."""
        return len(range(self.years.index(year), self.frames, len(self.years)))


def groups_of(plan: Plan) -> list[Target]:
    """The groups observed: the first of the shipped table."""
    return list(load_targets().values())[: plan.groups]


def _profile(roots: Roots) -> None:
    """A telescope like the T120 with a small chip."""
    shipped = Path(__file__).resolve().parents[1] / "models" / "profiles" / "T120.toml"
    own = {"name": f'"{TELESCOPE}"', "path_hints": f'["{TELESCOPE}"]', "shape": f"[{SIDE}, {SIDE}]"}
    text = shipped.read_text(encoding="utf-8")
    for key, value in own.items():
        text = re.sub(rf"^{key} = .*$", f"{key} = {value}", text, count=1, flags=re.MULTILINE)
    path = roots.data / "telescopes" / f"{TELESCOPE}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    load_telescope(TELESCOPE, roots.data)


def _sexagesimal(value: float, signed: bool) -> str:
    seconds = round(abs(value) * 3600)
    sign = ("-" if value < 0 else "+") if signed else ""
    return f"{sign}{seconds // 3600:02d} {seconds // 60 % 60:02d} {seconds % 60:02d}"


def _card(keyword: str, value: object) -> str:
    if isinstance(value, bool):
        said = f"{'T' if value else 'F':>20}"
    elif isinstance(value, str):
        said = f"'{value:<8}'"
    else:
        said = f"{value:>20}"
    return f"{keyword:<8}= {said}".ljust(80)


def _header(kind: str, start: datetime, exptime: float, filter: str | None, target: Target | None) -> bytes:
    """The cards that MaxIm DL writes and the pipeline asks for, and as many more as real headers have."""
    cards: dict[str, object] = {
        "SIMPLE": True, "BITPIX": 16, "NAXIS": 2, "NAXIS1": SIDE, "NAXIS2": SIDE, "BSCALE": 1.0, "BZERO": 32768.0,
        "DATE-OBS": start.strftime("%Y-%m-%dT%H:%M:%S.") + f"{start.microsecond // 10000:02d}",
        "EXPTIME": exptime, "EXPOSURE": exptime, "SET-TEMP": -60.0, "CCD-TEMP": -59.7, "XPIXSZ": 26.0, "YPIXSZ": 26.0,
        "XBINNING": 2, "YBINNING": 2, "XORGSUBF": 0, "YORGSUBF": 0,
    }  # fmt: skip
    if filter is not None:
        cards["FILTER"] = filter
    cards["IMAGETYP"] = {"bias": "Bias Frame", "flat": "Flat Field", "science": "Light Frame"}[kind]
    cards |= {"SITELAT": "43 55 54", "SITELONG": "05 42 48"}
    if target is not None:
        cards |= {"OBJCTRA": _sexagesimal(target.ra / 15, False), "OBJCTDEC": _sexagesimal(target.dec, True)}
        cards |= {"PIERSIDE": "EAST", "AIRMASS": 1.2}
    cards |= {"FOCALLEN": 7200.0, "APTDIA": 1200.0, "APTAREA": 1130973.355, "SWCREATE": "MaxIm DL Version 6.16"}
    cards |= {"OBJECT": target.name if target is not None else kind, "INSTRUME": "Andor Tech", "OBSERVER": ""}
    text = "".join(_card(keyword, value) for keyword, value in cards.items()) + "END".ljust(80)
    return text.ljust(-(-len(text) // 2880) * 2880).encode("ascii")


def _shots(plan: Plan) -> Iterator[tuple[str, str, datetime, float, str | None, Target | None]]:
    """Path, kind, start, exposure, filter and target of every raw frame."""
    for year in plan.years:
        start = datetime(year, 3, 10, 16, 0, tzinfo=UTC)
        for n in range(_BIASES):
            yield f"{year}/0310/bias-{n:03d}.fits", "bias", start + timedelta(seconds=n), 0.0, None, None
        for n in range(_FLATS * len(FILTERS)):
            filter = FILTERS[n % len(FILTERS)]
            at = start + timedelta(minutes=10, seconds=20 * n)
            yield f"{year}/0310/flat-{n:03d}{filter}.fits", "flat", at, 5.0, filter, None
    groups = groups_of(plan)
    a_night = 400
    for n in range(plan.frames):
        year, count = plan.years[n % len(plan.years)], n // len(plan.years)
        target, filter = groups[count % len(groups)], FILTERS[count // len(groups) % len(FILTERS)]
        night, place = divmod(count, a_night)
        at = datetime(year, 3, 10, 20, 0, tzinfo=UTC) + timedelta(days=night, seconds=60 * place)
        yield f"{year}/{at:%m%d}/{target.name}-{n:05d}{filter}.fits", "science", at, 30.0, filter, target


def _raw_frames(plan: Plan, roots: Roots) -> int:
    rng = np.random.default_rng(7)
    total = 0
    for path, kind, start, exptime, filter, target in _shots(plan):
        pixels = rng.integers(-32000, -30000, (SIDE, SIDE), dtype=np.int16).astype(">i2").tobytes()
        pixels += b"\0" * (-len(pixels) % 2880)
        file = roots.raw / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_header(kind, start, exptime, filter, target) + pixels)
        total += len(pixels)
    return total


def _cone(catalogue: Catalogue, target: Target, roots: Roots) -> None:
    rng = np.random.default_rng([len(catalogue), round(target.ra * 1e4)])
    cone = Cone(ra=target.ra, dec=target.dec, radius=_FIELD_DEG)
    dec = target.dec + rng.uniform(-0.2, 0.2, _STARS)
    ra = (target.ra + rng.uniform(-0.2, 0.2, _STARS) / np.cos(np.radians(dec))) % 360
    names = {"gaia": ("source_id", "ra", "dec"), "ps1": ("objID", "raMean", "decMean")}[catalogue]
    table = Table({names[0]: np.arange(1, _STARS + 1), names[1]: ra, names[2]: dec})
    if catalogue == "gaia":
        for name in ("pmra", "pmdec", "parallax", "ra_error", "dec_error", "bp_rp"):
            table[name] = np.zeros(_STARS)
        table["phot_g_mean_mag"] = rng.uniform(12, 20, _STARS)
    else:
        table["nDetections"], table["qualityFlag"] = np.full(_STARS, 9), np.full(_STARS, 52)
        for band in "grizy":
            for column in ("MeanPSFMag", "MeanKronMag"):
                table[f"{band}{column}"] = rng.uniform(14, 20, _STARS)
            table[f"{band}MeanPSFMagErr"] = np.full(_STARS, 0.01)
    store_cone(catalogue, cone, table, roots, "simulation", "bench")


def make_release(plan: Plan, roots: Roots) -> int:
    """Write raw frames, catalogues and profile of a release.

    Returns
    -------
    int
        Bytes of raw pixels.
    """
    _profile(roots)
    total = _raw_frames(plan, roots)
    for target in groups_of(plan):
        for catalogue in ("gaia", "ps1"):
            _cone(catalogue, target, roots)
    return total
