"""A whole campaign on disk: raw frames, catalogues in the local store, the truth."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table, vstack

from models.base import Record, Roots
from models.catalog import Cone
from models.simulation import SimulationOptions, TrueFrame, Truth
from tasks.catalogs import store_cone
from tasks.core.errors import UserError
from tasks.core.files import digest_file, write_json, writing
from tasks.core.pool import configure_pool, in_pool, stop_pool
from tasks.simulation.bands import true_filters
from tasks.simulation.camera import GAIN
from tasks.simulation.catalogues import GAIA_LIMIT, gaia_table, ps1_table
from tasks.simulation.expose import expose
from tasks.simulation.instruments import instrument_of
from tasks.simulation.places import FIELDS, field_named
from tasks.simulation.plan import Shot, plan_campaign
from tasks.simulation.sky import field_sources

__all__ = ["Simulated", "read_stars", "read_truth", "simulate_campaign"]

VERSION = 1
"""Raised whenever the same options would give other bytes."""

_STARS = "truth_stars.fits"
_NEAR_FRAMES = 0.3

_DEFINITIONS = {
    "pixels": "1-based as in FITS: the centre of the first pixel is (1, 1)",
    "stars": "epoch 2016.0, ICRS, deg; pmra includes cos(dec), mas/yr; position at an epoch: linear, parallax not "
    "applied (tasks.simulation.at_epoch)",
    "wcs": "TAN-SIP, tasks.simulation.to_pixels and to_sky; no refraction or aberration beyond what the scale holds",
    "zero_point": "m_nat = -2.5 log10(ADU / exptime) + zero_point, ADU: all of a star's light (a Moffat profile to "
    "infinity) in the bias-subtracted frame divided by a flat of median 1, at the optical axis (CRPIX). "
    "m_nat is anchored to PS1: equal to PS1[ps1] for a star of colour 0",
    "pixel_area": "flats and sky see surface brightness, so away from the axis a star's flat-fielded ADU are smaller "
    "by the pixel's relative sky area (1 + k r^2)(1 + 3 k r^2), at most 1 %",
    "seeing_arcsec": "FWHM of the Moffat profile before integration over pixels, geometric mean of both axes, the "
    "same over the whole frame",
    "level_adu": "median of a flat above the bias",
}  # fmt: skip


class Simulated(Record):
    """What a run did."""

    truth: Truth
    written: int
    kept: int
    catalogue_rows: int


def read_truth(root: Path) -> Truth:
    """The truth about the campaign under a data root."""
    return Truth.model_validate_json((root / "truth.json").read_text(encoding="utf-8"))


def read_stars(root: Path) -> Table:
    """The campaign's stars and galaxies (columns: `tasks.simulation.sky.field_sources`)."""
    return Table.read(root / read_truth(root).stars)


def simulate_campaign(
    roots: Roots, options: SimulationOptions, workers: int = 1, progress: Callable[[], None] = lambda: None
) -> Simulated:
    """Write a campaign. The same options give the same bytes, whatever the number of workers.

    Parameters
    ----------
    roots
        Raw frames go below ``roots.raw``; catalogues, ``truth.json`` and ``truth_stars.fits`` below ``roots.data``.
    options
        What to observe.
    workers
        Processes.
    progress
        Called once for each frame that is done.

    Raises
    ------
    UserError
        If the raw folder holds anything that is not of this campaign. It is left untouched.
    """
    shots = plan_campaign(options)
    for name in options.fields:
        field_sources(options, name)  # what is wrong with --real-m67 is said before anything is written
    known = _claim(roots, options, shots)

    def take(shot: Shot) -> tuple[TrueFrame, bool]:
        before = known.get(shot.path)
        path = roots.raw / shot.path
        fits_before = before is not None and path.is_file() and digest_file(path) == before.sha256
        if before is not None and fits_before:
            frame = before
        elif workers == 1:
            frame = expose(shot, options, roots.raw)
        else:
            frame = in_pool(expose, shot, options, roots.raw)
        progress()
        return frame, fits_before

    # Neighbours share a response and a sky: sorted by what a process can keep.
    order = sorted(range(len(shots)), key=lambda k: (shots[k].year, shots[k].filter or "", shots[k].path))
    configure_pool(workers)
    try:
        with ThreadPoolExecutor(workers) as threads:
            done = dict(zip(order, threads.map(take, [shots[k] for k in order]), strict=True))
    finally:
        stop_pool()
    rows = _catalogues(roots, options)
    _stars(roots, options)
    instrument = instrument_of(options)
    truth = Truth(
        schema=1, simulator=VERSION, definitions=_DEFINITIONS, options=options, gain=GAIN,
        read_noise=instrument.read_noise,
        filters=true_filters(instrument.bands), stars=_STARS, frames=tuple(done[k][0] for k in range(len(shots))),
    )  # fmt: skip
    write_json(roots.data / "truth.json", truth.model_dump(mode="json", by_alias=True))
    kept = sum(was_there for _, was_there in done.values())
    return Simulated(truth=truth, written=len(shots) - kept, kept=kept, catalogue_rows=rows)


def _claim(roots: Roots, options: SimulationOptions, shots: list[Shot]) -> dict[str, TrueFrame]:
    """Make the raw folder ours, or refuse; what an earlier run of the same campaign has already written."""
    mark = roots.data / "simulation.json"
    wanted = {"simulator": VERSION, "options": options.model_dump(mode="json")}
    expected = {shot.path for shot in shots}
    there = [path.relative_to(roots.raw).as_posix() for path in roots.raw.rglob("*") if path.is_file()]
    is_ours = mark.is_file() and _read(mark) == wanted
    if there and not is_ours:
        whose = "another simulated campaign" if mark.is_file() else f"{len(there)} files that are not of the simulator"
        raise UserError(f"{roots.raw} holds {whose}; give an empty --root, or the options it was made with")
    strangers = [name for name in there if name not in expected and not name.endswith(".tmp")]
    if strangers:
        raise UserError(
            f"{roots.raw} holds files that are not of this campaign, such as {strangers[0]}; move them away"
        )
    try:
        roots.raw.mkdir(parents=True, exist_ok=True)
        write_json(mark, wanted)
    except OSError as error:
        raise UserError(f"cannot write under {roots.data} ({error.strerror}); give another --root") from error
    truth = roots.data / "truth.json"
    if not truth.is_file():
        return {}
    return {frame.path: frame for frame in read_truth(roots.data).frames}


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


def _catalogues(roots: Roots, options: SimulationOptions) -> int:
    return store_skies(roots, options, options.fields)


def store_skies(roots: Roots, options: SimulationOptions, names: Iterable[str]) -> int:
    """Put Gaia's and PS1's catalogues of fields into the local store; the number of their rows."""
    rows = 0
    for name in names:
        field = field_named(name, options.size)
        cone = Cone(ra=field.ra, dec=field.dec, radius=field.radius)
        query = f"simulated sky, seed {options.seed}, field {name}"
        gaia, ps1 = gaia_table(options, name), ps1_table(options, name)
        rows += store_cone("gaia", cone, gaia, roots, "simulation", "Gaia DR3", query, GAIA_LIMIT).n_rows
        rows += store_cone("ps1", cone, ps1, roots, "simulation", "PS1 DR2", query).n_rows
    return rows


def _stars(roots: Roots, options: SimulationOptions) -> None:
    tables = []
    for name in options.fields:
        table, field = field_sources(options, name), FIELDS[name]
        away = np.hypot(
            (np.asarray(table["ra"]) - field.ra) * np.cos(np.deg2rad(field.dec)), np.asarray(table["dec"]) - field.dec
        )
        tables.append(table[away < _NEAR_FRAMES])
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.table_to_hdu(vstack(tables))]).writeto(buffer)
    with writing(roots.data / _STARS) as temporary:
        temporary.write_bytes(buffer.getvalue())
