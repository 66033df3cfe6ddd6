"""The reduced FITS file as people get it: what later stages found goes into its primary header."""

from __future__ import annotations

from typing import Any

from astropy.io import fits
from astropy.time import Time

from models.base import FileRef, Roots
from models.frame import FrameRecord
from tasks.astrometry import wcs_cards
from tasks.core.errors import StageError
from tasks.core.files import annotation_keywords, ref
from tasks.core.fitsio import quiet_fits, write_fits
from tasks.report.versions import software_versions

__all__ = ["publish_frame"]

Card = tuple[str, Any, str]


def _quality_cards(record: FrameRecord) -> list[Card]:
    quality = record.quality
    if quality is None:
        return []
    return [
        ("QCFWHM", quality.fwhm_arcsec, "[arcsec] seeing, median FWHM of stars"),
        ("QCELONG", quality.elongation, "median elongation a/b of stars"),
        ("QCNSRC", quality.n_sources, "sources detected"),
        ("QCSATF", quality.saturated_fraction, "fraction of pixels above 90% of saturation"),
        ("QCFLAG", ",".join(quality.flags) or "OK", "quality flags"),
    ]


def _astrometry_cards(record: FrameRecord) -> list[Card]:
    solved = record.solved
    if solved is None:
        pending = any(failure.pending for failure in record.failures)
        return [("ASTRSTAT", "PENDING" if pending else "FAILED", "plate solution: OK HIGH_RMS FAILED PENDING")]
    solution = solved.solution
    return [
        ("ASTRSTAT", solved.status, "plate solution: OK HIGH_RMS FAILED PENDING"),
        ("ASTRRMS", round(solution.rms_arcsec, 4), "[arcsec] rms on the sky of matched stars"),
        ("ASTRNMAT", solution.n_matched, "stars matched to the reference"),
        ("ASTRREF", solution.reference[:60], "what the solution was verified against"),
    ]


def _photometry_cards(record: FrameRecord) -> list[Card]:
    if record.calibrated is None:
        pending = any(failure.pending for failure in record.failures)
        return [("PHOTSTAT", "PENDING" if pending else "FAILED", "OK NO_PS1_BAND FEW_STARS FAILED PENDING")]
    point = record.calibrated.zero_point
    term = record.colour_term
    return [
        ("PHOTSTAT", point.status, "OK NO_PS1_BAND FEW_STARS FAILED PENDING"),
        ("PHOTZP", point.zp, "[mag] m = -2.5 log10(flux/EXPTIME) + PHOTZP"),
        ("PHOTZPER", point.zp_err, "[mag] error of PHOTZP"),
        ("PHOTRMS", point.zp_rms, "[mag] scatter of the stars about PHOTZP"),
        ("PHOTNSTR", point.n_stars, "stars used for PHOTZP"),
        ("PHOTNMAT", point.n_matched, "stars matched to the catalogue"),
        ("PHOTCT", point.colour_term, "colour term of the natural system"),
        ("PHOTCTE", point.colour_term_err, "error of PHOTCT"),
        ("PHOTC2", point.colour_curvature, "curvature, fixed (Tonry et al. 2012)"),
        ("PHOTCTD", term.date if term else None, "last night PHOTCT was fitted on"),
        ("PHOTEQ", point.equation or None, "what PHOTZP gives"),
        ("VEGAZP", point.vega_zp, "[mag] zero point in the Vega system"),
        ("VEGACT", point.vega_colour_term, "colour term of VEGAZP"),
        ("VEGAEQ", point.vega_equation or None, "how"),
        ("PHOTAPER", point.aperture_px, "[pix] aperture radius"),
        ("PHOTCAT", point.catalogue, "photometric reference catalogue"),
    ]


def _psf_cards(record: FrameRecord) -> list[Card]:
    if record.psf is None:
        return []
    return [
        ("PSFFWHM", round(record.psf.fwhm_arcsec, 4), "[arcsec] FWHM of the PSFEx model"),
        ("PSFELL", round(record.psf.ellipticity, 4), "ellipticity of the PSFEx model"),
        ("PSFNSTR", record.psf.n_stars_accepted, "stars in the PSFEx model"),
    ]


def publish_frame(record: FrameRecord, roots: Roots) -> FileRef:
    """Write quality, plate solution, zero point and PSF into a reduced frame's primary header.

    Pixels, mask, variance and the cards of the reduction stay as they are, so the frame's pixel digest does,
    too. A frame that was never reduced has no file to publish.

    Returns
    -------
    FileRef
        Of the file (its dates do not count).

    Raises
    ------
    StageError
        If the reduced frame cannot be read.
    """
    if record.reduced is None:
        raise StageError("publish", "the frame was not reduced", "see why in frame_stats.json")
    path = roots.of(record.reduced.file)
    cards = _quality_cards(record) + _astrometry_cards(record) + _photometry_cards(record) + _psf_cards(record)
    try:
        with quiet_fits(), fits.open(path, memmap=False) as hdus:
            header = hdus[0].header
            for keyword in [k for k in header if k and annotation_keywords.match(k)]:
                header.remove(keyword, ignore_missing=True, remove_all=True)
            if record.solved is not None:
                header.extend(wcs_cards(record.solved.solution, roots), update=True)
            for keyword, value, comment in cards:
                if value is not None:
                    header.append((keyword, value, comment), end=True)
            version = software_versions()["ohp-pipeline"]
            header.append(("PIPELINE", f"ohp-pipeline {version}", "software that made this file"), end=True)
            header.append(("PROCDATE", Time.now().utc.isot[:19], "[UTC] when this file was finished"), end=True)
            write_fits(path, list(hdus))
    except OSError as error:
        raise StageError("publish", f"{path.name} cannot be read: {error}", "delete it and run again") from error
    ref(path, roots, scope="pixels")  # remembered: whoever looks for the reduced frame next need not read it
    return ref(path, roots, scope="undated")
