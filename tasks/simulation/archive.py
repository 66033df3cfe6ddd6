"""Plays the archive: frames with the headers and paths of real files, of a sky that is known."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np

from models.base import Record, Roots
from models.simulation import ArchiveFrame, ArchiveTruth, Damage, RehearsalOptions, SimulationOptions, TrueFrame
from models.target import Target
from tasks.core.errors import UserError
from tasks.core.files import digest_file, write_json
from tasks.core.pool import configure_pool, in_pool, stop_pool
from tasks.simulation import camera
from tasks.simulation.campaign import store_skies
from tasks.simulation.expose import expose
from tasks.simulation.optics import to_pixels
from tasks.simulation.places import ARCHIVE, CATALOGUE_RADIUS
from tasks.simulation.plan import Shot, airmass_at, altitude_azimuth, under_the_sky
from tasks.simulation.seeds import rng_for
from tasks.simulation.sky import at_epoch, field_sources

__all__ = ["Exposure", "play_archive", "read_archive_truth", "visible_stars"]

_TRUTH = "rehearsal_truth.json"
_DONE = "rehearsal_frames.jsonl"
_CENTRING_DEG = 0.6 / 60
"""An observer's centring of a target by eye: what spreads a group's pointings, header or not."""
_ELSEWHERE_DEG = 0.62
"""Beyond every group's reach, within the sky that is drawn about it."""
_WARM_ADU_PER_DEGREE = 14.0 / 11.5


class Exposure(Record):
    """A real file to be played.

    `cards` are the header's values as the file has them (None: it lacks the keyword), `aim` is where the telescope
    was meant to look (deg), `copy_of` the file whose bytes it has.
    """

    path: str
    kind: Literal["bias", "flat", "science"]
    night: str
    start: datetime
    exptime: float
    object: str
    filter: str | None
    temperature: float
    cards: tuple[tuple[str, str | float | int | None], ...]
    binning: int = 2
    group: str | None = None
    aim: tuple[float, float] | None = None
    copy_of: str | None = None


def _damage(exposure: Exposure, options: RehearsalOptions) -> Damage | None:
    rng = rng_for(options.seed, "damage", exposure.path)
    if exposure.kind != "science" or rng.random() >= options.damaged:
        return None
    kinds: tuple[Damage, ...] = ("dome closed", "thick cloud", "wrong field")
    return kinds[int(rng.integers(0, 3))]


def _elsewhere(exposure: Exposure, targets: Mapping[str, Target], seed: int) -> tuple[float, float]:
    """A place beside the group and far from every other, deg."""
    assert exposure.aim
    assert exposure.group
    rng = rng_for(seed, "elsewhere", exposure.path)
    centre = targets[exposure.group]
    best: tuple[float, tuple[float, float]] = (-1.0, exposure.aim)
    for angle in rng.uniform(0, 2 * np.pi, 8):
        dec = centre.dec + _ELSEWHERE_DEG * float(np.cos(angle))
        ra = (centre.ra + _ELSEWHERE_DEG * float(np.sin(angle)) / float(np.cos(np.deg2rad(dec)))) % 360.0
        away = min(
            float(np.hypot(((ra - other.ra + 180) % 360 - 180) * np.cos(np.deg2rad(dec)), dec - other.dec))
            for other in targets.values()
        )
        best = max(best, (away, (ra, dec)))
    return best[1]


def _calibration_level(exposure: Exposure, seed: int) -> float:
    # A twilight: well exposed but for one frame in twenty, which is too faint or at the converter's end.
    rng = rng_for(seed, "twilight", exposure.path)
    level = float(rng.uniform(16_000, 46_000))
    spoilt = rng.random()
    return 5_000.0 if spoilt < 0.03 else 59_500.0 if spoilt < 0.05 else level


def _shot(exposure: Exposure, damage: Damage | None, targets: Mapping[str, Target], sky: SimulationOptions) -> Shot:
    year = int(exposure.night[:4])
    warm = max(0.0, exposure.temperature + 57.0) * _WARM_ADU_PER_DEGREE
    shot = Shot(
        path=exposure.path, kind=exposure.kind, year=year, night=exposure.night, start=exposure.start,
        exptime=exposure.exptime, object=exposure.object, imagetyp=None, filter=exposure.filter,
        temperature=exposure.temperature, cards=exposure.cards, software="MaxIm DL Version 6.16",
        warm_adu=warm if exposure.kind == "bias" else 0.0,
    )  # fmt: skip
    if exposure.kind == "flat":
        return shot.model_copy(update={"level_adu": _calibration_level(exposure, sky.seed)})
    if exposure.kind == "bias":
        return shot
    aim = _elsewhere(exposure, targets, sky.seed) if damage == "wrong field" else exposure.aim
    assert aim
    assert exposure.group
    altitude, _, _ = altitude_azimuth(*aim, exposure.start)
    # A clock that was wrong must not sink the target: no observer looks lower than two airmasses and a half.
    shot = shot.model_copy(
        update={"field": ARCHIVE + exposure.group, "airmass": min(airmass_at(altitude), 2.5), "pointing": aim}
    )
    shot = under_the_sky(sky, shot, year, aim, _CENTRING_DEG)
    assert shot.zero_point is not None
    lost = {"dome closed": 12.0, "thick cloud": float(rng_for(sky.seed, "cloud", exposure.path).uniform(1.5, 2.5))}
    if damage in lost:
        faint = 10 ** (-0.4 * lost[damage])
        shot = shot.model_copy(
            update={"transparency": shot.transparency * faint, "zero_point": shot.zero_point - lost[damage]}
        )
    return shot.model_copy(update={"pointing": None, "header_offset": None})


def _take(exposure: Exposure, shot: Shot, sky: SimulationOptions, roots: Roots) -> tuple[TrueFrame, float]:
    before = time.process_time()
    return expose(shot, sky, roots.raw), time.process_time() - before


def read_archive_truth(roots: Roots) -> ArchiveTruth:
    """What was played under a data root."""
    return ArchiveTruth.model_validate_json((roots.data / _TRUTH).read_text(encoding="utf-8"))


def _played(roots: Roots, options: RehearsalOptions) -> dict[str, tuple[TrueFrame, float]]:
    """Frames that an earlier run of the same rehearsal has made; its fraction may have been another."""
    mark = roots.data / "rehearsal.json"
    wanted = {"seed": options.seed, "size": options.size, "damaged": options.damaged}
    if not mark.is_file():
        if roots.raw.is_dir() and any(roots.raw.iterdir()):
            raise UserError(f"{roots.raw} holds files that no rehearsal made; give an empty --root")
        roots.raw.mkdir(parents=True, exist_ok=True)
        write_json(mark, wanted)
    made = json.loads(mark.read_text(encoding="utf-8"))
    if made != wanted:
        said = " ".join(f"--{key} {value}" for key, value in made.items())
        raise UserError(f"{roots.data} holds a rehearsal made with {said}; give these, or another --root")
    done = roots.data / _DONE
    if not done.is_file():
        return {}
    found = {}
    for line in done.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the line at which an earlier run was stopped
            continue
        frame = TrueFrame.model_validate(entry["frame"])
        found[frame.path] = frame, float(entry["seconds"])
    return found


def play_archive(
    exposures: Sequence[Exposure],
    roots: Roots,
    options: RehearsalOptions,
    targets: Mapping[str, Target],
    workers: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> ArchiveTruth:
    """Write the raw frames and the catalogues of their sky; a frame that is there is kept.

    Parameters
    ----------
    exposures
        The files; copies after what they are copies of.
    roots
        Raw frames go below ``roots.raw``; catalogues and ``rehearsal_truth.json`` below ``roots.data``.
    options
        Seed, size, how many are spoilt.
    targets
        The groups.
    workers
        Processes.
    progress
        Called once a file.

    Raises
    ------
    UserError
        If the root holds anything else.
    """
    known = _played(roots, options)
    damages = {exposure.path: _damage(exposure, options) for exposure in exposures}
    originals = [exposure for exposure in exposures if exposure.copy_of is None]

    def take(exposure: Exposure) -> tuple[TrueFrame, float]:
        path = roots.raw / exposure.path
        before = known.get(exposure.path)
        if before is not None and path.is_file() and digest_file(path, roots) == before[0].sha256:
            progress()
            return before
        side = round(options.size * 2 / exposure.binning)
        sky = SimulationOptions(seed=options.seed).model_copy(update={"size": side})
        shot = _shot(exposure, damages[exposure.path], targets, sky)
        made = in_pool(_take, exposure, shot, sky, roots) if workers > 1 else _take(exposure, shot, sky, roots)
        line = json.dumps({"frame": made[0].model_dump(mode="json"), "seconds": made[1]})
        with open(roots.data / _DONE, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        progress()
        return made

    # A process keeps the last skies and responses: neighbours share them.
    order = sorted(originals, key=lambda exposure: (exposure.group or "", exposure.night[:4], exposure.filter or ""))
    configure_pool(workers)
    try:
        with ThreadPoolExecutor(workers) as threads:
            done = dict(zip((exposure.path for exposure in order), threads.map(take, order), strict=True))
    finally:
        stop_pool()
    for exposure in exposures:
        if exposure.copy_of is not None:
            path = roots.raw / exposure.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file():
                shutil.copyfile(roots.raw / exposure.copy_of, path)
            progress()
    sky = SimulationOptions(seed=options.seed)
    groups = sorted({exposure.group for exposure in exposures if exposure.group})
    missing = [group for group in groups if not _stored(roots, group)]
    store_skies(roots, sky, [ARCHIVE + group for group in missing])
    for group in missing:
        write_json(_mark(roots, group), {"seed": options.seed})
    truth = ArchiveTruth(
        schema=1,
        options=options,
        seconds=_mean_seconds(done),
        frames=tuple(
            ArchiveFrame(
                path=exposure.path, kind=exposure.kind, group=exposure.group, filter=exposure.filter,
                damage=damages[exposure.path], copy_of=exposure.copy_of,
                frame=done[exposure.path][0] if exposure.copy_of is None else None,
            )
            for exposure in exposures
        ),
    )  # fmt: skip
    write_json(roots.data / _TRUTH, truth.model_dump(mode="json", by_alias=True))
    return truth


def visible_stars(frame: TrueFrame, options: RehearsalOptions) -> int:
    """Stars on a science frame that anybody would see: signal to noise above ten in an aperture of 1.2 FWHM."""
    assert frame.wcs
    assert frame.field
    assert frame.mid_jyear
    assert frame.zero_point is not None
    assert frame.seeing_arcsec
    table = field_sources(SimulationOptions(seed=options.seed), frame.field)
    table = table[np.asarray(table["kind"]) == "star"]
    ra, dec = at_epoch(table, frame.mid_jyear)
    close = abs(dec - frame.wcs.crval[1]) < CATALOGUE_RADIUS
    x, y = to_pixels(frame.wcs, ra[close], dec[close])
    rows, columns = frame.wcs.shape
    on = (x > 0) & (x < columns + 1) & (y > 0) & (y < rows + 1)
    magnitude = np.asarray(table[f"{frame.filter}_nat"])[close][on]
    signal = camera.GAIN * frame.exptime * 10 ** (-0.4 * (magnitude - frame.zero_point))
    scale = 3600 * np.sqrt(abs(np.linalg.det(np.array(frame.wcs.cd))))
    pixels = np.pi * (1.2 * frame.seeing_arcsec / scale) ** 2
    noise = np.sqrt(signal + pixels * ((frame.sky_adu or 0.0) * camera.GAIN + camera.READ_NOISE**2))
    return int((signal > 10 * noise).sum())


def _mark(roots: Roots, group: str) -> Path:
    return roots.data / ".cache" / "rehearsal" / f"{group}.json"


def _stored(roots: Roots, group: str) -> bool:
    return _mark(roots, group).is_file()


def _mean_seconds(done: Mapping[str, tuple[TrueFrame, float]]) -> dict[str, float]:
    kinds = sorted({frame.kind for frame, _ in done.values()})
    return {
        kind: round(float(np.mean([seconds for frame, seconds in done.values() if frame.kind == kind])), 3)
        for kind in kinds
    }
