"""What was simulated and what the pipeline made of it, side by side."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from models.base import Roots
from models.frame import FrameRecord
from models.simulation import TrueFrame, Truth
from models.telescope import Telescope, load_telescope
from tasks.core.errors import StageError
from tasks.report import read_years
from tasks.simulation import at_epoch, read_stars, read_truth

__all__ = ["Scene", "StackImage", "isolated", "tangent"]

FloatArray = npt.NDArray[np.float64]

ISOLATION_ARCSEC = 12.0
NEIGHBOUR = 0.02


def tangent(ra: FloatArray, dec: FloatArray, ra0: float, dec0: float) -> FloatArray:
    """Offsets on the sky from a point, arcsec, east and north, shape (N, 2); for fields of a degree."""
    d_ra = (ra - ra0 + 180.0) % 360.0 - 180.0
    return np.column_stack([d_ra * np.cos(np.radians(dec)) * 3600.0, (dec - dec0) * 3600.0])


def isolated(positions: FloatArray, flux: FloatArray) -> npt.NDArray[np.bool_]:
    """Sources without a neighbour of more than 2 % of their light within 12 arcsec."""
    tree = cKDTree(positions)
    alone = np.ones(len(flux), bool)
    for i, neighbours in enumerate(tree.query_ball_point(positions, ISOLATION_ARCSEC)):
        others = [j for j in neighbours if j != i]
        alone[i] = not others or float(np.max(flux[others])) < NEIGHBOUR * flux[i]
    return alone


class StackImage(NamedTuple):
    """A published stack."""

    path: Path
    group: str
    filter: str
    header: fits.Header
    data: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32]

    @property
    def label(self) -> str:
        """Group and filter."""
        return f"{self.group} {self.filter}"

    @property
    def wcs(self) -> WCS:
        """Its world coordinates."""
        return WCS(self.header)

    def beside(self, ending: str) -> Path:
        """A file that belongs to it: ``beside("_psf.fits")``."""
        return self.path.with_name(f"{self.path.stem}{ending}")


@dataclass(frozen=True)
class Scene:
    """A simulated campaign and its products.

    Attributes
    ----------
    roots, telescope
        Of the products.
    truth, stars
        What was put in.
    pairs
        Every reduced science frame with what it really is.
    """

    roots: Roots
    telescope: Telescope
    truth: Truth
    stars: Table
    pairs: tuple[tuple[FrameRecord, TrueFrame], ...]

    @classmethod
    def of(cls, roots: Roots, telescope: str = "T120") -> Scene:
        """Read the campaign under a data root.

        Raises
        ------
        StageError
            If there is no truth or nothing was reduced.
        """
        if not (roots.data / "truth.json").is_file():
            raise StageError("truth", f"{roots.data} has no truth.json", "run python -m flows.simulate_campaign first")
        truth, stars = read_truth(roots.data), read_stars(roots.data)
        profile = load_telescope(telescope)
        science = {frame.path: frame for frame in truth.frames if frame.kind == "science"}
        records = [record for year in read_years(roots, profile).values() for record in year]
        pairs = tuple((record, science[record.raw.path]) for record in records if record.raw.path in science)
        if not pairs:
            raise StageError("truth", "no simulated frame was reduced", "run python -m flows.reduce_year first")
        return cls(roots, profile, truth, stars, pairs)

    @functools.cached_property
    def epochs(self) -> dict[str, float]:
        """Mean epoch of each field's frames, Julian year."""
        fields = {true.field for _, true in self.pairs if true.field}
        return {
            field: float(np.mean([true.mid_jyear for _, true in self.pairs if true.field == field and true.mid_jyear]))
            for field in fields
        }

    def stacks(self) -> Iterator[StackImage]:
        """The published stacks of the simulated fields, one at a time."""
        for path in sorted((self.roots.data / "stacks").glob(f"*/{self.telescope.name}/*.weight.fits")):
            image = path.with_name(path.name.replace(".weight.fits", ".fits"))
            group, filter = image.stem.rsplit("_", 1)
            if group not in self.epochs:
                continue
            with fits.open(image, memmap=False) as hdus:
                header, data = hdus[0].header, np.ascontiguousarray(hdus[0].data, np.float32)
            yield StackImage(image, group, filter, header, data, np.asarray(fits.getdata(path), np.float32))

    def inputs(self, stack: StackImage) -> list[tuple[FrameRecord, TrueFrame]]:
        """The frames a stack is made of, by the names in its header, in its order."""
        by_label = {record.raw.label: (record, true) for record, true in self.pairs}
        labels = [str(stack.header[f"INP{number:04d}"]) for number in range(1, int(stack.header["NCOMBINE"]) + 1)]
        return [by_label[label] for label in labels]

    def here(self, stack: StackImage) -> Table:
        """All sources of a stack's field with ``x y`` (0-based px on the stack) and ``mag`` (its filter's system)."""
        table = self.stars[np.asarray(self.stars["field"]).astype(str) == stack.group]
        ra, dec = at_epoch(table, self.epochs[stack.group])
        table["x"], table["y"] = stack.wcs.all_world2pix(np.asarray(ra), np.asarray(dec), 0)
        table["mag"] = np.asarray(table[f"{stack.filter}_nat"], np.float64)
        place = tangent(np.asarray(ra), np.asarray(dec), float(np.median(ra)), float(np.median(dec)))
        flux = np.where(np.isfinite(table["mag"]), 10 ** (-0.4 * table["mag"]), 0.0)
        table["alone"] = isolated(place, flux) & np.asarray(table["kind"] == "star")
        return table
