"""Sources of a reduced frame and what they say of the night."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import sep
from astropy.io import fits
from astropy.table import Table

from models.base import Roots
from models.frame import MaskBit, MeasuredFrame, Quality, ReducedFrame
from models.settings import QualitySettings
from models.telescope import Telescope
from tasks.calibration import read_reduced
from tasks.core.errors import StageError
from tasks.core.files import ref
from tasks.core.fitsio import FloatImage, quiet_fits, write_fits
from tasks.quality.seeing import stellar_width

__all__ = ["measure_frame", "read_sources"]

_STAGE = "quality"
_BRIGHT = np.uint8(MaskBit.SATURATED | MaskBit.BLEED)
_SATURATED_FLAG = 4
_DETECTION_FLAGS = sep.OBJ_TRUNC | sep.OBJ_SINGU
_SEEING_SNR = 20.0
_FLUX_RADIUS_TO_FWHM = 1.54
_WIDEST_PX = 100.0
"""Within which half the light of a source is looked for: of a galaxy as large as the frame nothing is asked."""
_COLUMNS = {
    "X": "pix", "Y": "pix", "FLUX": "adu", "FLUX_ERR": "adu", "PEAK": "adu", "A": "pix", "B": "pix", "THETA": "deg",
    "FLUX_RADIUS": "pix", "FWHM_PX": "pix", "SNR": "", "FLAGS": "",
}  # fmt: skip

Array = npt.NDArray[np.float64]


def _detect(
    data: FloatImage, mask: npt.NDArray[np.uint8], variance: FloatImage, settings: QualitySettings
) -> tuple[dict[str, Array], FloatImage, float, float]:
    """Sources as columns, the sky-subtracted frame, sky level and sigma."""
    unusable = (mask & ~_BRIGHT) != 0
    sky = sep.Background(data, mask=mask != 0, bw=settings.back_size_px, bh=settings.back_size_px, fw=3, fh=3)
    image = np.asarray(data - sky.back(dtype=np.float32), np.float32)
    level, sigma = float(sky.globalback), float(sky.globalrms)
    if sigma <= 0:
        return {name: np.empty(0) for name in _COLUMNS}, image, level, 0.0
    sep.set_extract_pixstack(max(300_000, data.size))
    objects, segments = sep.extract(
        image, settings.threshold_sigma, err=sigma, mask=unusable, minarea=settings.min_area_px,
        segmentation_map=True,
    )  # fmt: skip
    x, y = objects["x"].astype(float), objects["y"].astype(float)
    a, b = np.maximum(objects["a"], 0.3).astype(float), np.maximum(objects["b"], 0.3).astype(float)
    theta = np.clip(objects["theta"], -np.pi / 2, np.pi / 2).astype(float)
    flags = objects["flag"].astype(np.int32)
    error = np.sqrt(variance)

    kron, kron_flag = sep.kron_radius(image, x, y, a, b, theta, 6.0, mask=unusable)
    radius = np.clip(np.where(np.isfinite(kron), 2.5 * kron, 3.5), 2.5, 10.0)
    flux, flux_err, flux_flag = sep.sum_ellipse(image, x, y, a, b, theta, radius, err=error, mask=unusable, subpix=1)
    half, half_flag = sep.flux_radius(
        image, x, y, np.minimum(6.0 * a, _WIDEST_PX), 0.5, normflux=flux, mask=unusable, subpix=5
    )
    half = np.where(np.isfinite(half) & (half > 0), half, np.sqrt(a * b) * 1.18)
    wx, wy, win_flag = sep.winpos(image, x, y, np.clip(half * 2.0 / 2.35, 0.6, 10.0), mask=unusable)
    steady = (win_flag == 0) & (np.hypot(wx - x, wy - y) < 2.0)
    wx, wy = np.where(steady, wx, x), np.where(steady, wy, y)

    saturated = np.unique(segments[(mask & _BRIGHT) != 0])
    flags[saturated[saturated > 0] - 1] |= _SATURATED_FLAG
    touched = (flux_flag & sep.APER_HASMASKED) != 0
    flags[touched] |= 1
    flags |= (np.asarray(kron_flag | flux_flag | half_flag) & sep.APER_TRUNC).astype(np.int32)
    columns = {
        "X": wx + 1.0, "Y": wy + 1.0, "FLUX": flux, "FLUX_ERR": flux_err, "PEAK": objects["peak"].astype(float),
        "A": a, "B": b, "THETA": np.degrees(theta), "FLUX_RADIUS": half,
        "FWHM_PX": half * _FLUX_RADIUS_TO_FWHM, "SNR": flux / np.maximum(flux_err, 1e-9), "FLAGS": flags,
    }  # fmt: skip
    keep = np.isfinite(flux) & (flux > 0)
    order = np.flatnonzero(keep)[np.lexsort((wx[keep], wy[keep], -flux[keep]))]
    return {name: np.asarray(values)[order] for name, values in columns.items()}, image, level, sigma


def measure_frame(
    reduced: ReducedFrame, roots: Roots, telescope: Telescope, settings: QualitySettings
) -> MeasuredFrame:
    """Find the sources of a reduced frame and measure seeing, elongation, sky and saturation (sep, Barbary 2016).

    The source table (FITS, one row a source, brightest first) has ``X Y`` (windowed centroids, 1-based FITS
    pixels), ``FLUX FLUX_ERR`` (Kron aperture, ADU), ``PEAK``, ``A B`` (rms along the axes, px), ``THETA``
    (deg), ``FLUX_RADIUS`` (half the light, px), ``FWHM_PX`` (from FLUX_RADIUS, scaled by the frame's fitted
    stars), ``SNR`` and ``FLAGS`` (sep's, plus 4 for saturated and 1 for masked pixels inside).

    FWHM is the median of Moffat fits to clean stars: unflagged, unsaturated, S/N above 20, and with
    ``2 FLUX_RADIUS`` in the settings' range, which leaves cosmic rays out.

    Parameters
    ----------
    reduced
        The frame.
    roots, telescope, settings
        Where to read and write; the scale and saturation; thresholds.

    Returns
    -------
    MeasuredFrame
        A frame without sources is no error: its flags say LOW_SOURCES.

    Raises
    ------
    StageError
        If the reduced frame cannot be read.
    """
    data, mask, variance, header = read_reduced(reduced, roots)
    columns, image, level, sigma = _detect(data, mask, variance, settings)
    width = 2.0 * columns["FLUX_RADIUS"]
    ranged = (width >= settings.min_fwhm_px) & (width <= settings.max_fwhm_px)
    stars = ranged & (columns["FLAGS"] == 0) & (columns["SNR"] > _SEEING_SNR)
    if np.count_nonzero(stars) < settings.low_sources:
        stars = ranged & (columns["FLAGS"] == 0)
    error = np.where(mask != 0, np.float32(np.inf), np.sqrt(variance)).astype(np.float32)
    chosen = np.flatnonzero(stars)
    fwhm, _, _ = stellar_width(image, error, columns["X"][chosen] - 1, columns["Y"][chosen] - 1, width[chosen])
    elongation = float(np.median(columns["A"][chosen] / columns["B"][chosen])) if chosen.size else None
    if fwhm is not None:
        columns["FWHM_PX"] = columns["FLUX_RADIUS"] * (fwhm / float(np.median(columns["FLUX_RADIUS"][chosen])))

    ceiling = min(telescope.camera.saturation_adu, telescope.camera.nonlinear_adu or np.inf)
    bias_level = ceiling - float(header.get("SATURATE", ceiling))
    nearly = (data >= 0.9 * telescope.camera.saturation_adu - bias_level) | ((mask & np.uint8(MaskBit.SATURATED)) != 0)
    saturated_fraction = float(np.count_nonzero(nearly)) / nearly.size
    fwhm_arcsec = None if fwhm is None else fwhm * telescope.camera.scale_at(reduced.raw.binning)
    n_sources = int(np.count_nonzero(width >= settings.min_fwhm_px))
    flags = [
        name
        for name, raised in (
            ("LOW_SOURCES", n_sources < settings.low_sources),
            ("BAD_SEEING", fwhm_arcsec is not None and fwhm_arcsec > settings.bad_seeing_arcsec),
            ("ELONGATED", elongation is not None and elongation > settings.elongated),
            ("SATURATED", saturated_fraction > settings.saturated_fraction),
        )
        if raised
    ]
    quality = Quality(
        fwhm_px=None if fwhm is None else round(fwhm, 4),
        fwhm_arcsec=None if fwhm_arcsec is None else round(fwhm_arcsec, 4),
        elongation=None if elongation is None else round(elongation, 4),
        sky_adu=round(level, 3), sky_sigma=round(sigma, 3), saturated_fraction=round(saturated_fraction, 7),
        n_sources=n_sources, flags=tuple(flags),
    )  # fmt: skip
    raw = reduced.raw
    path = roots.data / ".cache" / "sources" / str(raw.year) / telescope.name / raw.night / f"{raw.name}.fits"
    _write_sources(path, columns, data.shape)
    return MeasuredFrame(reduced=reduced, quality=quality, sources=ref(path, roots))


def _write_sources(path: Path, columns: dict[str, Array], shape: tuple[int, ...]) -> None:
    formats = {"X": "D", "Y": "D", "FLAGS": "J"}
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column(name=name, format=formats.get(name, "E"), unit=unit or None, array=columns[name])
            for name, unit in _COLUMNS.items()
        ],
        name="SOURCES",
    )
    table.header["IMAGEW"] = (shape[1], "[px] width of the frame")
    table.header["IMAGEH"] = (shape[0], "[px] height of the frame")
    write_fits(path, [fits.PrimaryHDU(), table])


def read_sources(measured: MeasuredFrame, roots: Roots) -> Table:
    """The source table of a frame, brightest first; columns as in `measure_frame`.

    Raises
    ------
    StageError
        If the table is gone or damaged.
    """
    try:
        with quiet_fits(), fits.open(roots.of(measured.sources), mode="readonly", memmap=False) as hdus:
            rows = hdus["SOURCES"].data
            return Table({name: np.array(rows[name], rows[name].dtype.newbyteorder("=")) for name in _COLUMNS})
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StageError(
            _STAGE, f"the source table {measured.sources.path} cannot be read: {error}", "remove it; it is made again"
        ) from error
