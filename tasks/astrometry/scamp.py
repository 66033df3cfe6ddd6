"""SCAMP: one run over the frames of a season, all filters together, against the local Gaia catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from defusedxml import ElementTree

from models.base import Record
from models.frame import MaskBit
from models.settings import ScampSettings
from tasks.astrometry.matching import Reference
from tasks.core.errors import StageError
from tasks.core.tools import run_tool

__all__ = ["ScampInput", "ScampOptions", "ScampSummary", "read_summary", "run_scamp", "write_reference"]

_UNUSABLE = int(MaskBit.SATURATED | MaskBit.BLEED | MaskBit.TRAIL | MaskBit.NO_DATA)
_REFERENCE_FLOOR_ARCSEC = 0.001


class ScampOptions(Record):
    """What SCAMP is told; everything else is its default, no configuration file of anybody's is read."""

    degree: int
    crossid_arcsec: float
    snr_low: float
    snr_high: float
    mag_bright: float
    mag_faint: float

    def config(self) -> str:
        """The configuration file's text.

        MATCH N: the frames come with a plate solution, pattern matching would only take time (100 s instead of
        0.1 s for 17 frames) and can go wrong. One distortion for all frames of one FILTER card (STABILITY_TYPE
        INSTRUMENT), a linear correction for each frame. ELLIPTICITY_MAX 0.3 keeps the knots of a galaxy out: on
        simulated frames of M51 the positions' rms against the truth fell from 27 to 18 mas.
        """
        lines = {
            "ASTREF_CATALOG": "FILE",
            "ASTREFCAT_NAME": "reference.cat",
            "ASTREFCENT_KEYS": "X_WORLD,Y_WORLD",
            "ASTREFERR_KEYS": "ERRA_WORLD,ERRB_WORLD,ERRTHETA_WORLD",
            "ASTREFMAG_KEY": "MAG",
            "ASTREFMAGERR_KEY": "MAGERR",
            "ASTREFOBSDATE_KEY": "OBSDATE",
            "ASTREFMAG_LIMITS": f"{self.mag_bright},{self.mag_faint}",
            "MATCH": "N",
            "POSITION_MAXERR": 2.0,
            "POSANGLE_MAXERR": 2.0,
            "PIXSCALE_MAXERR": 1.05,
            "CROSSID_RADIUS": self.crossid_arcsec,
            "ELLIPTICITY_MAX": 0.3,
            "SOLVE_ASTROM": "Y",
            "PROJECTION_TYPE": "TPV",
            "ASTRINSTRU_KEY": "FILTER",
            "STABILITY_TYPE": "INSTRUMENT",
            "DISTORT_DEGREES": self.degree,
            "SOLVE_PHOTOM": "N",
            "SN_THRESHOLDS": f"{self.snr_low},{self.snr_high}",
            "IMAFLAGS_MASK": f"0x{_UNUSABLE:04x}",
            "AHEADER_GLOBAL": "none.ahead",
            "CHECKPLOT_TYPE": "NONE",
            "CHECKIMAGE_TYPE": "NONE",
            "WRITE_XML": "Y",
            "XML_NAME": "scamp.xml",
            "VERBOSE_TYPE": "NORMAL",
            "NTHREADS": 1,
        }
        return "".join(f"{key:<18} {value}\n" for key, value in lines.items())


@dataclass(frozen=True)
class ScampInput:
    """A frame for SCAMP.

    Attributes
    ----------
    catalogue
        SExtractor's LDAC file.
    ahead
        Cards that replace those in its header: our own plate solution in TPV, and the filter.
    """

    catalogue: Path
    ahead: str


@dataclass(frozen=True)
class ScampSummary:
    """What SCAMP says of itself (its XML).

    Attributes
    ----------
    sigma_reference, sigma_internal
        rms of the high-S/N stars against Gaia and between frames, arcsec, the larger axis; NaN if not told.
    chi2_reference, chi2_internal
        Reduced chi squared of the same.
    n_reference, n_internal
        Detections matched.
    contrast
        Smallest XY contrast of the pattern matching; None with MATCH N, which does none.
    """

    sigma_reference: float
    sigma_internal: float
    chi2_reference: float
    chi2_internal: float
    n_reference: int
    n_internal: int
    contrast: float | None

    def __str__(self) -> str:
        told = f", contrast {self.contrast:.1f}" if self.contrast is not None else ""
        return (
            f"against Gaia {1000 * self.sigma_reference:.0f} mas (chi2 {self.chi2_reference:.2f}, "
            f"{self.n_reference} detections), between frames {1000 * self.sigma_internal:.0f} mas "
            f"(chi2 {self.chi2_internal:.2f}, {self.n_internal} detections){told}"
        )


def write_reference(stars: Reference, jyear: float, path: Path) -> None:
    """Write stars as the reference catalogue SCAMP reads (FITS-LDAC, one table LDAC_OBJECTS).

    SCAMP 2.10 reads proper motions and never applies them: `stars` must be at the frames' epoch.
    """
    n = len(stars)
    error = (np.maximum(stars.error, _REFERENCE_FLOOR_ARCSEC) / 3600).astype("f4")
    columns = [
        fits.Column("X_WORLD", "D", unit="deg", array=stars.ra),
        fits.Column("Y_WORLD", "D", unit="deg", array=stars.dec),
        fits.Column("ERRA_WORLD", "E", unit="deg", array=error),
        fits.Column("ERRB_WORLD", "E", unit="deg", array=error),
        fits.Column("ERRTHETA_WORLD", "E", unit="deg", array=np.zeros(n, "f4")),
        fits.Column("MAG", "E", unit="mag", array=stars.mag.astype("f4")),
        fits.Column("MAGERR", "E", unit="mag", array=np.full(n, 0.01, "f4")),
        fits.Column("OBSDATE", "D", unit="yr", array=np.full(n, jyear)),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="LDAC_OBJECTS")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)


def run_scamp(
    inputs: Sequence[ScampInput], stars: Reference, jyear: float, settings: ScampSettings, folder: Path, log: Path
) -> tuple[list[str | None], ScampSummary]:
    """Run SCAMP over the frames of a season.

    Parameters
    ----------
    inputs
        The frames.
    stars
        Gaia at the season's epoch.
    folder
        Scratch folder.
    log
        Where SCAMP's messages go if it fails.

    Returns
    -------
    list of str or None
        The text of each frame's ``.head``, None where SCAMP wrote none.
    ScampSummary

    Raises
    ------
    StageError
        If SCAMP crashes, runs too long or leaves no readable XML.
    """
    write_reference(stars, jyear, folder / "reference.cat")
    options = ScampOptions(**{name: getattr(settings, name) for name in ScampOptions.model_fields})
    (folder / "scamp.conf").write_text(options.config(), encoding="ascii")
    names = [f"f{number:05d}" for number in range(len(inputs))]
    for name, frame in zip(names, inputs, strict=True):
        (folder / f"{name}.cat").symlink_to(frame.catalogue)
        (folder / f"{name}.ahead").write_text(frame.ahead, encoding="ascii")
    (folder / "frames.list").write_text("".join(f"{name}.cat\n" for name in names), encoding="ascii")
    run_tool(
        "scamp",
        ["@frames.list", "-c", "scamp.conf"],
        cwd=folder,
        timeout_s=settings.timeout_s,
        outputs=[folder / "scamp.xml"],
        log=log,
    )
    summary = read_summary(folder / "scamp.xml")
    heads = [folder / f"{name}.head" for name in names]
    return [head.read_text("utf-8", "replace") if head.is_file() else None for head in heads], summary


def read_summary(path: Path) -> ScampSummary:
    """SCAMP's own account, from the VOTable it writes.

    Raises
    ------
    StageError
        If the file is no such XML.
    """
    try:
        root = ElementTree.parse(path).getroot()
        groups = _rows(root, "FGroups")
        fields = _rows(root, "Fields")
        return ScampSummary(
            sigma_reference=_worst(groups, "AstromSigma_Reference_HighSN"),
            sigma_internal=_worst(groups, "AstromSigma_Internal_HighSN"),
            chi2_reference=_worst(groups, "AstromChi2_Reference_HighSN"),
            chi2_internal=_worst(groups, "AstromChi2_Internal_HighSN"),
            n_reference=sum(int(row["AstromNDets_Reference"]) for row in groups),
            n_internal=sum(int(row["AstromNDets_Internal"]) for row in groups),
            contrast=min((float(row["XY_Contrast"]) for row in fields if "XY_Contrast" in row), default=None),
        )
    except (ElementTree.ParseError, OSError, KeyError, ValueError) as error:
        raise StageError(
            "SCAMP", f"its XML cannot be read: {error}", "run the group again with its log kept"
        ) from error


def _rows(root: ElementTree.Element, table: str) -> list[dict[str, str]]:
    """Rows of a VOTable table by column name."""
    for element in root.findall(".//{*}TABLE"):
        if element.get("name") == table:
            names = [field.get("name", "") for field in element.findall("{*}FIELD")]
            return [
                dict(zip(names, ((cell.text or "").strip() for cell in row.findall("{*}TD")), strict=False))
                for row in element.findall(".//{*}TR")
            ]
    raise KeyError(f"table {table}")


def _worst(rows: list[dict[str, str]], name: str) -> float:
    values = [float(word) for row in rows for word in row[name].split()]
    return max(values, default=float("nan"))
