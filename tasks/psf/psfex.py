"""PSFEx: the run, what its XML says, and the model it writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from defusedxml import ElementTree
from pydantic import Field

from models.base import Record
from tasks.core.errors import StageError
from tasks.core.tools import run_tool

__all__ = ["PsfexOptions", "PsfexResult", "evaluate_psf", "run_psfex", "run_psfex_by_degree"]

FloatArray = npt.NDArray[np.floating[Any]]

_REFINED_PX = 11
"""Side of the core that is solved for pixel by pixel where the stars are undersampled (FWHM < 3 px), px. The time
goes with its sixth power; on real frames of FWHM 1.9 px, 11 instead of the 20 of PSFEx gives the same width and
ellipticity to a thousandth and takes a quarter of the time."""

STARS_FOR_DEGREE = {0: 4, 1: 20, 2: 60, 3: 120, 4: 200}
"""Accepted stars a degree needs: with fewer, the middle of the field of sharp stars (FWHM 2.5 px) came out 4 % too
wide. PSFEx itself fits six coefficients to seven stars, and writes an all-zero model with exit status 0 for three or
fewer."""


class PsfexOptions(Record):
    """What PSFEx is told."""

    size_px: int = Field(25, ge=9)
    degree: int = Field(2, ge=0, le=4)
    min_snr: float = Field(20.0, gt=0)
    max_ellipticity: float = Field(0.3, gt=0)
    fwhm_range_px: tuple[float, float]
    flag_mask: int = Field(description="IMAFLAGS_ISO bits that reject a star")
    timeout_s: float = Field(120.0, gt=0, description="wall-clock limit")

    def config(self) -> str:
        """The configuration file's text."""
        lines = {
            "BASIS_TYPE": "PIXEL_AUTO",
            "BASIS_NUMBER": _REFINED_PX,
            "PSF_SAMPLING": 1.0,
            "PSF_PIXELSIZE": 1.0,
            "PSF_ACCURACY": 0.01,
            "PSF_SIZE": f"{self.size_px},{self.size_px}",
            "PSF_RECENTER": "Y",
            "CENTER_KEYS": "XWIN_IMAGE,YWIN_IMAGE",
            "PHOTFLUX_KEY": "FLUX_APER(1)",
            "PHOTFLUXERR_KEY": "FLUXERR_APER(1)",
            "PSFVAR_KEYS": "XWIN_IMAGE,YWIN_IMAGE",
            "PSFVAR_GROUPS": "1,1",
            "PSFVAR_DEGREES": self.degree,
            "PSFVAR_NSNAP": 1,
            "SAMPLE_AUTOSELECT": "Y",
            "SAMPLEVAR_TYPE": "SEEING",
            "SAMPLE_FWHMRANGE": f"{self.fwhm_range_px[0]:.2f},{self.fwhm_range_px[1]:.2f}",
            "SAMPLE_VARIABILITY": 0.2,
            "SAMPLE_MINSN": self.min_snr,
            "SAMPLE_MAXELLIP": self.max_ellipticity,
            "SAMPLE_FLAGMASK": "0x00fe",
            "SAMPLE_WFLAGMASK": "0x0000",
            "SAMPLE_IMAFLAGMASK": f"0x{self.flag_mask:x}",
            "BADPIXEL_FILTER": "N",
            "CHECKPLOT_DEV": "NULL",
            "CHECKPLOT_TYPE": "NONE",
            "CHECKIMAGE_TYPE": "NONE",
            "OUTCAT_TYPE": "NONE",
            "PSF_SUFFIX": ".psf",
            "WRITE_XML": "Y",
            "XML_NAME": "psfex.xml",
            "VERBOSE_TYPE": "QUIET",
            "NTHREADS": 1,
        }
        return "".join(f"{key:<20} {value}\n" for key, value in lines.items())


class PsfexResult(NamedTuple):
    """What PSFEx made of a catalogue.

    Attributes
    ----------
    file
        The ``.psf`` file.
    fwhm_px
        FWHM_Mean of the XML (the header's PSF_FWHM is 29 % too large).
    ellipticity, chi2
        Means.
    n_accepted
        Stars used.
    degree
        Of the variation over the field that was fitted in the end.
    """

    file: Path
    fwhm_px: float
    ellipticity: float
    chi2: float
    n_accepted: int
    degree: int


def run_psfex(catalogue: Path, options: PsfexOptions, log: Path) -> PsfexResult:
    """Run PSFEx once on an LDAC catalogue, in the catalogue's own (scratch) folder.

    Raises
    ------
    StageError
        If it fails, accepts no star or writes an empty model (which it does with exit status 0).
    """
    folder = catalogue.parent
    (folder / "psfex.conf").write_text(options.config())
    model = catalogue.with_suffix(".psf")
    model.unlink(missing_ok=True)
    xml = folder / "psfex.xml"
    xml.unlink(missing_ok=True)
    run_tool(
        "psfex",
        [catalogue.name, "-c", "psfex.conf"],
        cwd=folder,
        timeout_s=options.timeout_s,
        outputs=[model, xml],
        log=log,
    )
    facts = _facts(xml)
    accepted = int(facts["NStars_Accepted_Total"])
    with fits.open(model, memmap=False) as hdus:
        image = np.asarray(hdus[1].data["PSF_MASK"][0], dtype=np.float64)
        degree = int(hdus[1].header.get("POLDEG1", 0))
    width = float(facts["FWHM_Mean"])
    if not np.isfinite(image).all() or image[0].sum() <= 0 or not np.isfinite(width) or width <= 0:
        raise StageError(
            "PSF",
            f"PSFEx found no model in {int(facts['NStars_Loaded_Total'])} candidates, {accepted} of them accepted",
            "the frame needs more unsaturated isolated stars of S/N above psf.min_snr",
        )
    return PsfexResult(model, width, float(facts["Ellipticity_Mean"]), float(facts["Chi2_Mean"]), accepted, degree)


def _facts(xml: Path) -> dict[str, str]:
    try:
        root = ElementTree.parse(xml).getroot()
    except ElementTree.ParseError as error:
        raise StageError("PSF", f"PSFEx's XML cannot be read: {error}", "run it again; is the disk full?") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    table = next((t for t in root.iter("TABLE") if t.get("ID") == "PSF_Fields"), None)
    row = table.find("DATA/TABLEDATA/TR") if table is not None else None
    if table is None or row is None:
        raise StageError("PSF", "PSFEx's XML holds no result", "are there stars in the catalogue?")
    names = [field.get("name") for field in table.findall("FIELD")]
    return {str(name): cell.text or "nan" for name, cell in zip(names, row.findall("TD"), strict=True)}


def run_psfex_by_degree(
    catalogue: Path,
    options: PsfexOptions,
    candidates: int,
    log: Path,
    needed: Mapping[int, int] = STARS_FOR_DEGREE,
) -> PsfexResult:
    """Run PSFEx with the highest degree, up to the one asked, that its accepted stars bear.

    Parameters
    ----------
    catalogue, options, log
        As for `run_psfex`.
    candidates
        Stars that are bright and clean enough, to start from; PSFEx may accept fewer.
    needed
        Accepted stars that each degree needs.

    Raises
    ------
    StageError
        If fewer stars are accepted than degree 0 needs.
    """
    accepted = candidates
    for degree in range(options.degree, -1, -1):
        if accepted < needed[degree]:
            continue
        result = run_psfex(catalogue, options.model_copy(update={"degree": degree}), log)
        accepted = result.n_accepted
        if accepted >= needed[degree]:
            return result
    raise StageError(
        "PSF",
        f"{accepted} usable stars, {needed[0]} are needed for a PSF",
        "a frame with more unsaturated stars of S/N above psf.min_snr, or a lower psf.min_snr",
    )


def evaluate_psf(file: Path, x: float, y: float) -> FloatArray:
    """The PSF of a ``.psf`` model at a pixel position, normalised to sum 1.

    Parameters
    ----------
    file
        PSFEx model with a polynomial in two coordinates (or of degree 0).
    x, y
        One-based FITS pixel position.

    Returns
    -------
    ndarray of float64
        Shape of the model's stamp, (rows, columns).

    Raises
    ------
    StageError
        If the model is empty.
    """
    with fits.open(file, memmap=False) as hdus:
        header = hdus[1].header
        components = np.asarray(hdus[1].data["PSF_MASK"][0], dtype=np.float64)
    if header.get("POLNAXIS", 0) == 2 and components.shape[0] > 1:
        u = (x - header["POLZERO1"]) / header["POLSCAL1"]
        v = (y - header["POLZERO2"]) / header["POLSCAL2"]
        degree = int(header["POLDEG1"])
        # PSFEx's order of terms: 1, x, x², y, xy, y² (poly.c): for each power of y, all powers of x it leaves.
        terms = np.array([u**i * v**j for j in range(degree + 1) for i in range(degree + 1 - j)])
        image = np.tensordot(terms[: components.shape[0]], components, axes=1)
    else:
        image = components[0]
    total = image.sum()
    if not np.isfinite(total) or total <= 0:
        raise StageError("PSF", f"{file.name} holds an empty model", "make it again; too few stars went into it")
    return np.asarray(image / total)
