"""solve-field on a list of sources: where does this frame look, roughly?"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from numpy.typing import NDArray

from models.astrometry import IndexSet
from models.base import Record, Roots
from models.catalog import Cone
from tasks.astrometry.matching import Floats, Reference
from tasks.core.errors import StageError
from tasks.core.tools import ToolFailedError, run_tool, scratch

__all__ = ["SolveFieldOptions", "spread_order", "run_solve_field"]

_BOXES = 5
_DEPTH = 75  # patterns are made of the first so many sources; all of them vote on each hypothesis
_INDEX_ERROR_ARCSEC = 0.5
_NO_SOLUTION = "Did not solve"


class SolveFieldOptions(Record):
    """What solve-field is told."""

    width: int
    height: int
    scale_low: float
    scale_high: float
    hint: Cone | None
    parity: int
    cpu_limit_s: float
    tweak_order: int = 2

    def arguments(self, xylist: str, index_stars: str | None) -> list[str]:
        """The command line; everything it writes stays in the working folder.

        Each of line removal and uniformising starts a Python child (0.5 s); the list is uniform already.
        astrometry.net calls a parity ``pos`` where det(CD) < 0, as in most images with east to the left.
        """
        arguments = [
            xylist, "--dir", ".", "--out", "frame", "--temp-dir", ".", "--config", "engine.cfg", "--overwrite",
            "--width", str(self.width), "--height", str(self.height),
            "--x-column", "X", "--y-column", "Y", "--sort-column", "FLUX",
            "--scale-units", "arcsecperpix", "--scale-low", f"{self.scale_low:.5f}",
            "--scale-high", f"{self.scale_high:.5f}",
            "--depth", f"1-{_DEPTH}", "--cpulimit", f"{self.cpu_limit_s:.0f}", "--tweak-order", str(self.tweak_order),
            "--no-remove-lines", "--uniformize", "0", "--no-plots", "--temp-axy", "--crpix-center",
            "--new-fits", "none", "--match", "none", "--corr", "none", "--index-xyls", "none", "--solved", "none",
            "--rdls", index_stars or "none",
        ]  # fmt: skip
        if self.hint is not None:
            place = f"{self.hint.ra:.6f}", f"{self.hint.dec:.6f}", f"{self.hint.radius:.4f}"
            arguments += ["--ra", place[0], "--dec", place[1], "--radius", place[2]]
        if self.parity:
            arguments += ["--parity", "pos" if self.parity < 0 else "neg"]
        return arguments


def spread_order(x: Floats, y: Floats, flux: Floats, shape: tuple[int, int]) -> NDArray[np.intp]:
    """Order (indices) that goes through the sources by brightness and evenly over the frame.

    The frame is cut into 5 x 5 boxes; first comes the brightest of each box, then the second of each, and so
    on. A bright cluster in a corner cannot take all the first places.
    """
    column = np.clip((x / shape[1] * _BOXES).astype(int), 0, _BOXES - 1)
    row = np.clip((y / shape[0] * _BOXES).astype(int), 0, _BOXES - 1)
    box = row * _BOXES + column
    rank = np.empty(len(x), dtype=int)
    by_box = np.lexsort((-flux, box))
    first = np.r_[True, box[by_box][1:] != box[by_box][:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(x)), 0))
    rank[by_box] = np.arange(len(x)) - start
    return np.lexsort((-flux, rank))


def _engine_config(index: IndexSet, roots: Roots, folder: Path, cpu_limit_s: float) -> str:
    """astrometry-engine's configuration: our index files and no others."""
    lines = [f"cpulimit {cpu_limit_s:.0f}", "inparallel"]
    if index.source == "installed":
        (folder / "installed").symlink_to(str(index.folder))  # its own path may have spaces
        lines += [f"add_path {folder / 'installed'}", "autoindex"]
    else:
        links = folder / "index"
        links.mkdir()
        lines.append(f"add_path {links}")
        for number, file in enumerate(index.files):
            (links / f"{number}.fits").symlink_to(roots.of(file))
            lines.append(f"index {number}.fits")
    return "\n".join(lines) + "\n"


def run_solve_field(
    x: Floats, y: Floats, flux: Floats, shape: tuple[int, int], hint: Cone | None, index: IndexSet, roots: Roots,
    scale: tuple[float, float], parity: int, cpu_limit_s: float, want_index_stars: bool, log: Path,
    timeout_s: float,
) -> tuple[WCS, Reference | None]:  # fmt: skip
    """A first solution by astrometry.net, and on request the index's own stars in the frame.

    Parameters
    ----------
    x, y, flux
        1-based FITS pixels and fluxes of the sources, f8 (n,).
    shape
        (rows, columns).
    hint
        The circle the frame's centre is searched in; None: all of the index.
    scale
        Smallest and largest scale tried, arcsec/px.
    parity
        Sign of det(CD), 0 if unknown.
    log
        Where its messages go if it fails.
    timeout_s
        Wall-clock limit.

    Returns
    -------
    WCS
        TAN or TAN-SIP of degree 2.
    Reference or None
        Index stars.

    Raises
    ------
    StageError
        If it finds nothing (solve-field exits with 0 then, too: the missing .wcs tells).
    ToolMissingError, ToolFailedError
    """
    options = SolveFieldOptions(
        width=shape[1], height=shape[0], scale_low=scale[0], scale_high=scale[1], hint=hint, parity=parity,
        cpu_limit_s=cpu_limit_s,
    )  # fmt: skip
    order = spread_order(x, y, flux, shape)
    with scratch(roots.scratch, "solve") as folder:
        columns = {"X": x[order], "Y": y[order], "FLUX": np.arange(len(order), 0, -1, dtype="f8")}
        Table(columns).write(folder / "frame.xyls", format="fits")
        (folder / "engine.cfg").write_text(_engine_config(index, roots, folder, cpu_limit_s), encoding="utf-8")
        printed = run_tool(
            "solve-field",
            options.arguments("frame.xyls", "frame.rdls" if want_index_stars else None),
            cwd=folder,
            timeout_s=timeout_s,
            optional=[folder / "frame.wcs", folder / "frame.rdls"],
            log=log,
        )
        found = folder / "frame.wcs"
        if not found.is_file() and _NO_SOLUTION not in printed:
            last = printed.strip().splitlines()[-1] if printed.strip() else "it printed nothing"
            raise ToolFailedError.with_room(
                shutil.disk_usage(folder).free,
                "solve-field",
                f"exited normally, but neither wrote a solution nor said that there is none: {last[:200]}",
                "run it again; is it the astrometry.net that flows.doctor asks for?",
            )
        if not found.is_file():
            where = (
                "anywhere in the index"
                if hint is None
                else f"within {hint.radius:.2f} deg of {hint.ra:.4f} {hint.dec:+.4f}"
            )
            side = "" if not parity else f", parity {'negative' if parity < 0 else 'positive'}"
            raise StageError(
                "plate solution",
                f"solve-field finds no match for {len(x)} sources {where} at {scale[0]:.3f}-{scale[1]:.3f} "
                f"arcsec/px{side}",
                "look at the frame: is it this field, is it focused and tracked? "
                "If the pointing is far off, raise search_radius_deg and cone_margin_deg",
            )
        with fits.open(found) as hdus:
            wcs = WCS(_plain(hdus[0].header), naxis=2)
        stars = _index_stars(folder / "frame.rdls", printed, index) if want_index_stars else None
    return wcs, stars


def _plain(header: fits.Header) -> fits.Header:
    """Only the WCS cards: the rest (HISTORY, COMMENT, IMAGEW, DATE) says nothing of the sky."""
    keep = ("CTYPE", "CUNIT", "CRVAL", "CRPIX", "CD", "A_", "B_", "AP_", "BP_")
    return fits.Header([card for card in header.cards if card.keyword.startswith(keep)])


def _index_stars(path: Path, printed: str, index: IndexSet) -> Reference:
    """The stars on the frame of the index file that solved it, without magnitudes."""
    with fits.open(path) as hdus:
        ra, dec = (np.asarray(hdus[1].data[name], dtype="f8") for name in ("RA", "DEC"))
    name = re.search(r"solved with index (\S+?)(?:\.littleendian|\.bigendian)?\.fits", printed)
    what = "Gaia" if index.source == "gaia" else name.group(1) if name else "installed files"
    error = np.full(len(ra), _INDEX_ERROR_ARCSEC)
    return Reference(ra, dec, error, np.zeros(len(ra)), f"index stars ({what}), at their own epoch; Gaia not asked")
