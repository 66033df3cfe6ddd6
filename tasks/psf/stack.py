"""The PSF of a stack, measured on the stack itself, and the telescope's mean PSF."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.nddata import NDData
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from photutils.psf import EPSFBuilder, extract_stars
from scipy.ndimage import shift

from models.base import FileRef, Roots
from models.frame import FramePsf, MaskBit
from models.settings import PsfSettings
from models.stack import Stack, StackPsf, stack_paths
from models.telescope import Telescope
from tasks.core.errors import StageError
from tasks.core.files import ref
from tasks.core.tools import ToolFailedError, ToolMissingError, scratch
from tasks.photometry import prepare_image
from tasks.psf.choice import Stars, bright_stars, leave_out_doubles, leave_out_uneven
from tasks.psf.energy import encircled_energy, measure_growth
from tasks.psf.extraction import BLEMISH, ExtractionOptions, extract_catalogue, linear_header, mesh_px
from tasks.psf.frame import candidates, fwhm_range
from tasks.psf.images import MoffatFit, centred, fit_moffat, symmetric_wings, write_psf_image
from tasks.psf.psfex import PsfexOptions, evaluate_psf, run_psfex_by_degree

__all__ = ["mean_psf", "stack_psf"]

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]

_CURVE_SNR = 50.0
_CURVE_STARS = 60
_EPSF_STARS = 3
_STARS_FOR_DEGREE = {0: 4, 1: 60, 2: 120, 3: 200, 4: 300}
"""More than for a frame: what is kept is one place of the model alone, where each coefficient's noise adds up."""
_NO_SATURATION = 1e12
_REMEDY = "look at the stack: are its frames aligned, and are there stars on it?"


def stack_psf(stack: Stack, roots: Roots, telescope: Telescope, settings: PsfSettings) -> StackPsf:
    """Model the PSF of a stack and write it beside the stack as ``{group}_{filter}_psf.fits``.

    PSFEx on the stack's own stars, one sample a stack pixel, evaluated at the centre of the covered field.
    Stars that some of the frames do not show, or whose core is masked in some, have another PSF than the rest
    (by up to 30 % where the seeing of the frames is mixed) and are left out as long as eight others remain, and so
    are double stars where there are few. The degree of its variation is lowered where stars are few. With fewer
    stars than PSFEx can use, an effective PSF of three or more (photutils; Anderson & King 2000, PASP 112, 1360);
    with fewer than those, a Moffat profile fitted to the brightest. ``METHOD`` in the header says which. The image is
    centred on its middle pixel, its wings are made point-symmetric, and it sums to 1.0. EE50 and EE80 refer to all
    of a star's light, wings beyond the stamp included. A stack without zero point has a PSF as well.

    Parameters
    ----------
    stack
        Its image and weight map are read.
    roots, telescope, settings
        Folders, name of the telescope, numbers.

    Raises
    ------
    StageError
        If there is no star that a PSF can be made from.
    """
    image, weight, wcs, linear_limit = _read_stack(stack, roots)
    scale = float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600.0)
    bad = (weight <= 0) | ~np.isfinite(image)
    flags = np.where(bad, int(MaskBit.NO_DATA), 0).astype(np.uint8)
    log = roots.logs / "psf" / f"{stack.group}_{stack.filter}"
    with scratch(roots.scratch, "psf") as folder:
        width = 4.0
        for _ in range(2):  # the aperture follows the width that the first pass finds
            catalogue = extract_catalogue(
                folder, image, np.where(bad, 0, weight), flags, linear_header(wcs, image.shape),
                ExtractionOptions(
                    threshold_sigma=settings.threshold_sigma,
                    back_size_px=mesh_px(settings.back_size_px, width),
                    aperture_px=4.0 * width,
                    vignet_px=settings.vignet_px,
                    saturation_adu=linear_limit,
                    gain=0.0,
                    seeing_arcsec=width * scale,
                    zero_point=30.0,
                    timeout_s=settings.timeout_s,
                ),
                log.with_name(f"{log.name}_extraction.log"),
            )  # fmt: skip
            objects = leave_out_uneven(catalogue, weight, width, settings)
            stars = bright_stars(objects, settings, width)
            measured = _median_width(image, bad, stars, settings.size_px)
            if measured is None or abs(measured / width - 1) < 0.1:
                width = measured or width
                break
            width = measured
        objects = leave_out_doubles(catalogue, objects, image, bad, width, settings)
        stars = bright_stars(objects, settings, width)
        psf, n_stars, chi2, method = _model(
            folder, catalogue, objects, image, bad, stars, settings, width if stars.x.size else None, log
        )
    psf = symmetric_wings(centred(psf, width, settings.size_px), width)
    shape = fit_moffat(psf, width)
    bright = stars.snr > _CURVE_SNR
    prepared = prepare_image(image, bad, _sky_variance(image, bad))
    growth = measure_growth(
        prepared, stars.x[bright][:_CURVE_STARS], stars.y[bright][:_CURVE_STARS], shape.fwhm_px, shape.beta
    )
    energy = encircled_energy(psf, shape, growth)
    path = stack_paths(stack.group, stack.telescope, stack.filter, roots).psf
    cards = [
        ("OBJECT", stack.group, "target group"),
        ("FILTER", stack.filter, "filter band"),
        *_cards(shape.fwhm_px, energy.ee50_px, energy.ee80_px, shape.ellipticity, n_stars, scale),
        ("CHI2", round(chi2, 4), "reduced chi-square of the model"),
        ("METHOD", method, "how the PSF was made"),
        ("SAMPLING", 1.0, "[px] stack pixels per PSF pixel"),
    ]
    write_psf_image(path, psf, cards)
    return StackPsf(
        file=ref(path, roots),
        fwhm_px=shape.fwhm_px,
        fwhm_arcsec=shape.fwhm_px * scale,
        ee50_arcsec=energy.ee50_px * scale,
        ee80_arcsec=energy.ee80_px * scale,
        ellipticity=shape.ellipticity,
        n_stars=n_stars,
        chi2=chi2,
        method=method,
    )


def _cards(
    fwhm: float, ee50: float, ee80: float, ellipticity: float, n_stars: int, scale: float
) -> list[tuple[str, Any, str]]:
    return [
        ("FWHM_PX", round(fwhm, 4), "[px] PSF FWHM"),
        ("FWHM_AS", round(fwhm * scale, 4), "[arcsec] PSF FWHM"),
        ("EE50_AS", round(ee50 * scale, 4), "[arcsec] radius of 50 % encircled energy"),
        ("EE80_AS", round(ee80 * scale, 4), "[arcsec] radius of 80 % encircled energy"),
        ("ELLIPT", round(ellipticity, 4), "(a - b)/(a + b) (0 = circular)"),
        ("NSTARS", n_stars, "number of stars used for the PSF model"),
        ("PIXSCALE", round(scale, 5), "[arcsec/px] pixel scale"),
    ]


def _read_stack(stack: Stack, roots: Roots) -> tuple[FloatArray, FloatArray, WCS, float]:
    try:
        with fits.open(roots.of(stack.image), memmap=False) as hdus:
            image, header = np.asarray(hdus[0].data, dtype=np.float32), hdus[0].header
        weight = np.asarray(fits.getdata(roots.of(stack.weight)), dtype=np.float32)
    except (OSError, TypeError, ValueError) as error:
        raise StageError("PSF", f"the stack cannot be read: {error}", "make the stack again") from error
    if image.ndim != 2 or image.shape != weight.shape:
        raise StageError("PSF", f"stack {image.shape} and weight {weight.shape} differ", "make the stack again")
    return image, weight, WCS(header), float(header.get("SATURATE", _NO_SATURATION))


def _stamps(image: FloatArray, bad: BoolArray, stars: Stars, size: int, number: int) -> list[FloatArray]:
    """Sky-subtracted stamps of the brightest stars that lie whole on the image and have no bad pixel in the core."""
    half, stamps = size // 2, []
    for x, y in zip(stars.x, stars.y, strict=True):
        ix, iy = round(x), round(y)
        if not (half <= ix < image.shape[1] - half and half <= iy < image.shape[0] - half):
            continue
        cut = np.s_[iy - half : iy + half + 1, ix - half : ix + half + 1]
        stamp = np.where(bad[cut], np.nan, image[cut]).astype(np.float64)
        core = np.s_[half - 3 : half + 4, half - 3 : half + 4]
        if np.isnan(stamp[core]).any():
            continue
        rim = np.concatenate([stamp[0], stamp[-1], stamp[1:-1, 0], stamp[1:-1, -1]])
        if np.isfinite(rim).any():
            stamps.append(stamp - np.nanmedian(rim))
        if len(stamps) == number:
            break
    return stamps


def _median_width(image: FloatArray, bad: BoolArray, stars: Stars, size: int) -> float | None:
    widths = []
    for stamp in _stamps(image, bad, stars, size, 25):
        try:
            widths.append(fit_moffat(stamp).fwhm_px)
        except StageError:
            continue  # one star that is none: the median of the others stands
    return float(np.median(widths)) if widths else None


def _model(
    folder: Path,
    catalogue: Path,
    objects: fits.FITS_rec,
    image: FloatArray,
    bad: BoolArray,
    stars: Stars,
    settings: PsfSettings,
    width: float | None,
    log: Path,
) -> tuple[FloatArray, int, float, str]:
    """PSF image, number of stars, reduced chi-square, method."""
    number = candidates(objects, settings)
    try:
        result = run_psfex_by_degree(
            catalogue,
            PsfexOptions(
                size_px=settings.size_px + 4,  # room to centre it without an edge
                degree=settings.degree,
                min_snr=settings.min_snr,
                max_ellipticity=settings.max_ellipticity,
                fwhm_range_px=fwhm_range(width),
                flag_mask=BLEMISH,
                timeout_s=settings.timeout_s,
            ),
            number,
            log.with_name(f"{log.name}_psfex.log"),
            _STARS_FOR_DEGREE,
        )
        rows, columns = np.nonzero(~bad)
        x, y = (columns.min() + columns.max()) / 2 + 1, (rows.min() + rows.max()) / 2 + 1
        return evaluate_psf(result.file, x, y), result.n_accepted, result.chi2, f"PSFEx degree {result.degree}"
    except (ToolMissingError, ToolFailedError):
        raise  # nothing to do with the stars
    except StageError as refused:
        stamps = _stamps(image, bad, stars, settings.size_px + 4, _CURVE_STARS)
        if not stamps:
            raise StageError("PSF", f"no usable star: {refused.reason}", _REMEDY) from refused
        if len(stamps) >= _EPSF_STARS:
            model = _epsf(stamps)
            return model, len(stamps), _chi2(stamps, model), "ePSF"
        # _moffat_image raises if even the brightest star is no star.
        model = _moffat_image(stamps, settings.size_px + 4)
        return model, len(stamps), _chi2(stamps, model), "Moffat fit"


def _epsf(stamps: list[FloatArray]) -> FloatArray:
    size = stamps[0].shape[0]
    tables, images = [], []
    for stamp in stamps:
        fit = fit_moffat(stamp)
        filled = np.where(np.isfinite(stamp), stamp, 0.0)
        images.append(NDData(filled, mask=~np.isfinite(stamp)))
        tables.append(Table({"x": [fit.x], "y": [fit.y]}))
    with warnings.catch_warnings():
        # photutils says which stars it could not fit; their number is judged here by the result alone.
        warnings.simplefilter("ignore", AstropyUserWarning)
        stars = extract_stars(images, tables, size=(size - 2, size - 2))
        # Without its smoothing, which is made for four samples a pixel and widens one of FWHM 3 px by 3.5 %.
        builder = EPSFBuilder(oversampling=1, maxiters=5, smoothing_kernel=None, progress_bar=False, shape=(size, size))
        built, _ = builder(stars)
    data = np.asarray(built.data, dtype=np.float64)
    if data.shape != (size, size) or not np.isfinite(data).all() or data.sum() <= 0:
        raise StageError("PSF", f"no effective PSF from {len(stamps)} stars", _REMEDY)
    return data


def _moffat_image(stamps: list[FloatArray], size: int) -> FloatArray:
    fits_: list[MoffatFit] = [fit_moffat(stamp) for stamp in stamps]
    fwhm, beta = (float(np.median([getattr(f, key) for f in fits_])) for key in ("fwhm_px", "beta"))
    # Of several stars the mean of the shapes as vectors; log of the axes' ratio is 2 artanh(ellipticity).
    e1, e2 = (
        float(np.mean([2 * np.arctanh(f.ellipticity) * turn(2 * f.angle) for f in fits_])) for turn in (np.cos, np.sin)
    )
    e, angle = np.hypot(e1, e2), 0.5 * np.arctan2(e2, e1)
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    axis = np.arange(size) - (size - 1) / 2
    along = np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]
    across = np.cos(angle) * axis[:, None] - np.sin(angle) * axis[None, :]
    return np.asarray((1 + (np.exp(-e) * along**2 + np.exp(e) * across**2) / alpha2) ** -beta)


def _chi2(stamps: list[FloatArray], model: FloatArray) -> float:
    """Reduced chi-square of a model against the stars, their rim's scatter as the noise."""
    values, count = 0.0, 0
    half = (model.shape[0] - 1) / 2
    for stamp in stamps:
        fit = fit_moffat(stamp)
        moved = shift(model, (fit.y - half, fit.x - half), order=3, mode="nearest")
        good = np.isfinite(stamp)
        scale = (stamp[good] * moved[good]).sum() / (moved[good] ** 2).sum()
        rim = np.concatenate([stamp[0], stamp[-1], stamp[:, 0], stamp[:, -1]])
        noise = 1.4826 * np.nanmedian(np.abs(rim - np.nanmedian(rim)))
        # PSFEx's PSF_ACCURACY: the model is not asked to be better than 1 % of the light in a pixel.
        variance = noise**2 + (0.01 * scale * moved[good]) ** 2
        values += float(((stamp[good] - scale * moved[good]) ** 2 / np.maximum(variance, 1e-30)).sum())
        count += int(good.sum()) - 1
    return values / max(count, 1)


def _sky_variance(image: FloatArray, bad: BoolArray) -> FloatArray:
    good = image[~bad]
    scatter = 1.4826 * np.median(np.abs(good - np.median(good))) if good.size else 1.0
    return np.full(image.shape, scatter**2, dtype=np.float32)


def mean_psf(psfs: Sequence[FramePsf], roots: Roots, telescope: Telescope) -> FileRef:
    """Median of the frames' PSFs at the centre of the chip: ``stacks/{telescope}_mean_psf.fits``.

    Each frame's model is evaluated at the centre of the chip, centred and normalised; the median of all is
    centred and normalised again. For simulations and the like: the PSF of a stack is the stack's own.

    Parameters
    ----------
    psfs
        The frames' PSFs.
    roots, telescope
        Folders; the centre of the chip and the nominal scale where frames do not tell.

    Raises
    ------
    StageError
        If there is no usable model among them.
    """
    ny, nx = telescope.camera.shape
    images, stars, scales, problems = [], [], [], []
    for psf in psfs:
        try:
            image = evaluate_psf(roots.of(psf.psf), (nx + 1) / 2, (ny + 1) / 2)
            images.append(centred(image, psf.fwhm_px))
        except (StageError, OSError) as error:
            problems.append(str(error))
            continue
        stars.append(psf.n_stars_accepted)
        scales.append(psf.fwhm_arcsec / psf.fwhm_px)
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        found = f"stamps of different size: {sorted(shapes)}" if shapes else "; ".join(problems[:3]) or "none was made"
        raise StageError("mean PSF", f"no common PSF of {len(psfs)} frames: {found}", "make the frames' PSFs again")
    scale = float(np.median(scales))
    median = np.median(images, axis=0)
    width = fit_moffat(median).fwhm_px
    image = symmetric_wings(centred(median, width), width)
    shape = fit_moffat(image, width)
    energy = encircled_energy(image, shape)
    path = roots.data / "stacks" / f"{telescope.name}_mean_psf.fits"
    cards = [
        ("TELESCOP", telescope.name, "telescope"),
        *_cards(shape.fwhm_px, energy.ee50_px, energy.ee80_px, shape.ellipticity, int(sum(stars)), scale),
        ("NCOMBINE", len(images), "number of frames' PSFs combined"),
        ("COMBTYPE", "MEDIAN", "combination method"),
        ("METHOD", "median of PSFEx models", "at the centre of the chip"),
    ]
    write_psf_image(path, image, cards)
    return ref(path, roots)
