"""Index files for astrometry.net: built from the local Gaia cone, or those that are installed."""

from __future__ import annotations

import hashlib
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from astropy.table import Table

from models.astrometry import IndexSet
from models.base import FileRef, Record, Roots
from models.catalog import StoredCone
from models.telescope import Telescope
from tasks.catalogs import read_cone
from tasks.core.errors import StageError
from tasks.core.files import digest_file, ref, writing
from tasks.core.tools import ToolFailedError, run_tool, scratch

__all__ = ["build_index", "gathered_index", "index_at_hand", "installed_index"]

_DATE_CARD = re.compile(rb"DATE    = '\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d'")
_NO_DATE = b"DATE    = '2016-01-01T00:00:00'"  # Gaia's epoch: the positions' date, not the day of writing
_NO_PATTERNS = "Data, N, or D is zero"  # what it prints when the list of star patterns stays empty
_REMEDY = "ask for a wider cone, or install index files and set OHP_ASTROMETRY_INDEX_DIR"
_MIN_STARS = 10
_BUILD_TIMEOUT_S = 300.0


class _IndexOptions(Record):
    """Arguments of ``build-astrometry-index`` for one range of quad sizes."""

    scale: int
    jitter_arcsec: float = 0.3
    passes: int = 8

    @property
    def smallest_arcmin(self) -> float:
        """Smallest quad; presets go from 2' in steps of sqrt 2."""
        return float(2.0 * 2.0 ** (self.scale / 2))

    def arguments(self, catalogue: str, index: str) -> list[str]:
        """Presets exist from 0 up; smaller fields follow the same rule.

        Half the usual 16 passes: as many frames are solved (down to about 15 stars among 60 spurious sources) with
        an index that is built in half the time.
        """
        size = self.smallest_arcmin
        quads = (
            ["-P", str(self.scale)]
            if self.scale >= 0
            else ["-N", f"{3520 / size:.0f}", "-l", f"{size:.3f}", "-u", f"{size * math.sqrt(2):.3f}"]
        )
        fixed = ["-S", "MAG", "-E", "-j", f"{self.jitter_arcsec}", "-p", str(self.passes), "-t", "."]
        return ["-i", catalogue, "-o", index, *quads, *fixed]


def index_scales(telescope: Telescope) -> tuple[int, ...]:
    """Preset scales whose quads are between 0.15 of the camera's shorter side and the whole of it.

    For a 13' field 0 ... 5.
    """
    side = min(telescope.camera.shape) * telescope.camera.pixel_scale / 60
    smallest = math.ceil(2 * math.log2(0.15 * side / 2))
    largest = math.floor(2 * math.log2(side / 2))
    return tuple(range(smallest, largest + 1))


def build_index(gaia: StoredCone, roots: Roots, telescope: Telescope) -> IndexSet:
    """Build astrometry.net index files from a Gaia cone.

    The positions are the catalogue's own (epoch 2016.0): what stars move until a frame is taken is far below
    the solver's tolerance of a pixel, and the solution is fitted anew at the frame's own epoch afterwards.

    Parameters
    ----------
    gaia
        The stored cone.
    roots
        Files go to ``astrometry_index/`` under the data root, named by cone and scale.
    telescope
        Its field decides which sizes of star patterns are indexed.

    Raises
    ------
    StageError
        If the cone has too few stars to make patterns of.
    ToolMissingError, ToolFailedError
        If ``build-astrometry-index`` is not there or fails.
    """
    table = read_cone(gaia, roots)
    mag = np.asarray(np.ma.filled(table["phot_g_mean_mag"], np.nan), dtype="f4")
    usable = np.isfinite(mag)
    if usable.sum() < _MIN_STARS:
        raise StageError(
            "astrometry index",
            f"the Gaia cone at {gaia.cone.ra:.4f} {gaia.cone.dec:+.4f} (radius {gaia.cone.radius:.3f} deg) "
            f"has {usable.sum()} stars with a magnitude, {_MIN_STARS} are needed",
            _REMEDY,
        )
    order = np.argsort(mag[usable], kind="stable")
    stars = Table(
        {
            "RA": np.asarray(table["ra"], dtype="f8")[usable][order],
            "DEC": np.asarray(table["dec"], dtype="f8")[usable][order],
            "MAG": mag[usable][order],
        }
    )
    stem = f"index_{gaia.cone.ra:.4f}_{gaia.cone.dec:+.4f}_{gaia.cone.radius:.3f}"
    files: list[FileRef] = []
    with scratch(roots.scratch, "index") as folder:
        stars.write(folder / "ref.fits")
        for scale in index_scales(telescope):
            made = folder / f"index_{scale}.fits"
            text = run_tool(
                "build-astrometry-index",
                _IndexOptions(scale=scale).arguments("ref.fits", made.name),
                cwd=folder,
                timeout_s=_BUILD_TIMEOUT_S,
                log=roots.logs / "astrometry" / f"{stem}_{scale}.log",
                ok_codes=(0, 255),
            )
            if not made.is_file() or made.stat().st_size == 0:
                if _NO_PATTERNS in text:
                    continue  # no four stars lie this close together
                last = text.strip().splitlines()[-1] if text.strip() else "it printed nothing"
                raise ToolFailedError.with_room(
                    shutil.disk_usage(folder).free,
                    "build-astrometry-index",
                    f"no index of scale {scale} from {len(stars)} stars: {last[:200]}",
                    "look at the catalogue file of this cone",
                )
            target = roots.data / "astrometry_index" / f"{stem}_{scale}.fits"
            with writing(target) as temporary:
                temporary.write_bytes(_DATE_CARD.sub(_NO_DATE, made.read_bytes()))
            files.append(ref(target, roots))
    if not files:
        raise StageError(
            "astrometry index",
            f"the {len(stars)} stars of the Gaia cone at {gaia.cone.ra:.4f} {gaia.cone.dec:+.4f} "
            f"(radius {gaia.cone.radius:.3f} deg) make no pattern that fits into the field",
            _REMEDY,
        )
    return IndexSet(
        source="gaia",
        files=tuple(files),
        fingerprint=_fingerprint([(PurePosixPath(file.path).name, file.digest) for file in files]),
    )


def installed_index(folder: str | Path, roots: Roots | None = None) -> IndexSet:
    """Use index files that somebody installed, such as Debian's Tycho-2 ones.

    Parameters
    ----------
    folder
        Where they lie (``index-*.fits``).
    roots
        If given, the digests of the files are remembered under the data root.

    Raises
    ------
    StageError
        If there are none.
    """
    place = Path(folder).expanduser().absolute()
    found = sorted(place.glob("index-*.fits")) if place.is_dir() else []
    if not found:
        raise StageError(
            "astrometry index",
            f"no index files (index-*.fits) in {place}",
            "install some (apt-get install astrometry-data-tycho2) or unset OHP_ASTROMETRY_INDEX_DIR",
        )
    return IndexSet(
        source="installed",
        folder=str(place),
        fingerprint=_fingerprint([(path.name, digest_file(path, roots)) for path in found]),
    )


def gathered_index(sets: Sequence[IndexSet]) -> IndexSet | None:
    """The files of several fields as one index; None where none of them is ours."""
    files = {file.path: file for each in sets for file in each.files}
    return _of_files([files[path] for path in sorted(files)])


def index_at_hand(roots: Roots, without: IndexSet | None = None) -> IndexSet | None:
    """All index files under the data root, whichever run built them, but for some; None if there are none."""
    left_out = {file.path for file in without.files} if without is not None else set()
    files = [ref(path, roots) for path in sorted((roots.data / "astrometry_index").glob("index_*.fits"))]
    return _of_files([file for file in files if file.path not in left_out])


def _of_files(files: list[FileRef]) -> IndexSet | None:
    if not files:
        return None
    names = [(PurePosixPath(file.path).name, file.digest) for file in files]
    return IndexSet(source="gaia", files=tuple(files), fingerprint=_fingerprint(names))


def _fingerprint(files: list[tuple[str, str]]) -> str:
    return hashlib.sha256("\n".join(f"{name} {digest}" for name, digest in files).encode()).hexdigest()
