"""Where the sources of a group are: on all bands together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import sep
from scipy import stats
from scipy.signal import fftconvolve

from models.settings import SourceSettings
from tasks.core.errors import StageError
from tasks.core.masks import grown
from tasks.sourcelists.images import BandImage, BoolImage, FloatArray, FloatImage, robust

__all__ = ["SHARPER", "Detection", "detect", "gaussian"]

SHARPER = 0.6
"""Width of the smoothing, in FWHM: the PSF itself would blur what is to be told apart (1.17 instead of 1.41 FWHM), and
would find stars fainter by 12 % only."""
_LEAST_MESH_PX, _MESH_FWHM = 32, 10.0
_PIXSTACK = 3_000_000
_MOST_SIGMA = 8.0


class Detection(NamedTuple):
    """Sources of a group, brightest first; arrays of shape (N,), zero-based pixels.

    Attributes
    ----------
    a, b, theta
        Second moments over the source's pixels, px, and the angle from +x, rad.
    kron
        Kron radius, in units of `a` and `b`.
    significance
        Highest value of the chi-square image over the threshold, times the threshold's sigma.
    parts
        Whether it was cut out of a larger source.
    segments
        Map: number + 1 of the source a pixel belongs to, 0: none.
    light
        Sum of all bands, each in units of its noise.
    empty
        No source, and data in all bands that were looked at.
    """

    x: FloatArray
    y: FloatArray
    a: FloatArray
    b: FloatArray
    theta: FloatArray
    kron: FloatArray
    significance: FloatArray
    parts: npt.NDArray[np.bool_]
    segments: npt.NDArray[np.int32]
    light: FloatImage
    empty: BoolImage
    fwhm_px: float


def gaussian(fwhm: float) -> FloatArray:
    """A kernel of sum 1."""
    half = max(2, round(1.5 * fwhm))
    axis = np.arange(-half, half + 1) / (fwhm / 2.3548)
    core = np.exp(-0.5 * axis**2)
    return np.asarray(np.outer(core, core) / np.outer(core, core).sum())


def _compact(band: BandImage) -> FloatImage:
    """The band without its light on scales beyond some 10 FWHM: what stands on a large galaxy is found as elsewhere."""
    mesh = max(_LEAST_MESH_PX, round(_MESH_FWHM * band.fwhm_px))
    wide = sep.Background(band.data, mask=band.bad, bw=mesh, bh=mesh, fw=3, fh=3).back(dtype=np.float32)
    return np.where(band.bad, 0, band.data - wide).astype(np.float32)


def _significance(band: BandImage, compact: FloatImage) -> FloatArray:
    """Significance of a source at every pixel: smoothed, in units of its own scatter on the sky."""
    core = gaussian(SHARPER * band.fwhm_px)
    inverse = np.where(band.bad, 0.0, 1.0 / np.where(band.bad, 1.0, band.variance))
    signal = fftconvolve(compact * inverse, core[::-1, ::-1], mode="same")
    noise = fftconvolve(inverse, np.square(core)[::-1, ::-1], mode="same")
    score = np.where(band.bad, 0.0, signal / np.sqrt(np.maximum(noise, 1e-30)))
    scatter = robust(score[~band.bad])
    return score / scatter if scatter > 0 else score


def _chi(bands: Sequence[BandImage], compact: Sequence[FloatImage], sigma: float) -> FloatImage:
    """Root of the summed squares of the bands' significances over the value as rare in noise as `sigma`.

    After Szalay, Connolly & Szokoly (1999, AJ 117, 68), of positive deviations only: the number of bands with data
    at a pixel gives the threshold there.
    """
    squares = np.zeros(bands[0].data.shape)
    number = np.zeros(squares.shape, int)
    for band, light in zip(bands, compact, strict=True):
        squares += np.square(np.maximum(_significance(band, light), 0.0))
        number += ~band.bad
    limits = np.full(len(bands) + 1, np.inf)
    limits[1:] = [_limit(n, sigma) for n in range(1, len(bands) + 1)]
    return np.ascontiguousarray(np.sqrt(squares) / limits[number], np.float32)


def _limit(n: int, sigma: float) -> float:
    """Of n normal values, the root of the positive ones' summed squares that noise exceeds as rarely as `sigma`."""
    share = stats.norm.sf(min(sigma, _MOST_SIGMA))
    binomial = stats.binom.pmf(np.arange(1, n + 1), n, 0.5)
    low, high = 0.1, 40.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = float(np.sum(binomial * stats.chi2.sf(middle**2, np.arange(1, n + 1))))
        low, high = (middle, high) if above > share else (low, middle)
    return high * max(sigma / _MOST_SIGMA, 1.0)


def detect(bands: Sequence[BandImage], settings: SourceSettings) -> Detection:
    """Find sources on all bands together.

    sep's extraction with deblending (Barbary 2016, JOSS 1, 58; Bertin & Arnouts 1996, A&AS 117, 393) on the chi-square
    image; positions are windowed centroids on the bands' sum in units of their noise, shapes its second moments.

    Raises
    ------
    StageError
        If there is no source, or more than can be told apart.
    """
    compact = [_compact(band) for band in bands]
    chi = _chi(bands, compact, settings.detection_sigma)
    light = np.zeros(chi.shape, np.float32)
    for band, of_band in zip(bands, compact, strict=True):
        light += np.where(band.bad, 0, of_band / np.sqrt(np.where(band.bad, 1, band.variance))).astype(np.float32)
    nowhere = np.all([band.bad for band in bands], axis=0)
    sep.set_extract_pixstack(_PIXSTACK)
    sep.set_sub_object_limit(8192)
    try:
        objects, segments = sep.extract(
            chi, 1.0, mask=nowhere, minarea=settings.min_area_px, filter_kernel=None,
            deblend_nthresh=48, deblend_cont=settings.deblend_contrast, clean=True, segmentation_map=True,
        )  # fmt: skip
    except Exception as error:  # sep raises plain Exceptions, such as for a full pixel stack
        raise StageError(
            "source list", f"sources cannot be told apart: {error}", "raise --sources-detection-sigma"
        ) from error
    if not len(objects):
        raise StageError("source list", "no source on the stacks", "look at them; lower --sources-detection-sigma")
    fwhm = float(np.median([band.fwhm_px for band in bands]))
    a, b, theta = _moments(light, segments, len(objects), fwhm)
    x, y = _places(light, objects, nowhere, fwhm)
    kron, _ = sep.kron_radius(
        light, x, y, a, b, theta, 6.0, mask=nowhere, seg_id=np.arange(1, len(objects) + 1), segmap=segments
    )
    order = np.argsort(-objects["peak"], kind="stable")
    number = np.zeros(len(objects) + 1, np.int32)
    number[order + 1] = np.arange(1, len(objects) + 1)
    around = grown(segments > 0, max(2, round(fwhm / 2)), diagonal=False)
    anywhere = np.any([band.bad for band in bands], axis=0)
    return Detection(
        x=x[order], y=y[order], a=a[order], b=b[order], theta=theta[order],
        kron=np.where(np.isfinite(kron) & (kron > 0), kron, 0.0)[order],
        significance=np.asarray(objects["peak"], np.float64)[order] * settings.detection_sigma,
        parts=(objects["flag"] & sep.OBJ_MERGED).astype(bool)[order],
        segments=number[segments], light=light, empty=~(around | anywhere), fwhm_px=fwhm,
    )  # fmt: skip


def _places(
    light: FloatImage, objects: npt.NDArray[np.void], nowhere: BoolImage, fwhm: float
) -> tuple[FloatArray, FloatArray]:
    """Windowed centroids (as SExtractor's XWIN_IMAGE); where one runs away, the peak stands."""
    peak_x, peak_y = np.asarray(objects["xpeak"], np.float64), np.asarray(objects["ypeak"], np.float64)
    x, y, _ = sep.winpos(light, peak_x, peak_y, np.full(peak_x.size, fwhm / 2.3548), mask=nowhere)
    near = np.isfinite(x) & np.isfinite(y) & (np.hypot(x - peak_x, y - peak_y) < 0.7 * fwhm)
    return np.where(near, x, peak_x), np.where(near, y, peak_y)


def _moments(
    light: FloatImage, segments: npt.NDArray[np.int32], n: int, fwhm: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    rows, columns = np.nonzero(segments)
    label = segments[rows, columns] - 1
    weight = np.maximum(light[rows, columns].astype(np.float64), 1e-6)
    total = np.bincount(label, weight, n)
    x, y = (np.bincount(label, weight * axis, n) / total for axis in (columns, rows))
    dx, dy = columns - x[label], rows - y[label]
    xx, yy, xy = (np.bincount(label, weight * each, n) / total for each in (dx * dx, dy * dy, dx * dy))
    mean, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    least = (0.3 * fwhm / 2.3548) ** 2
    a, b = np.sqrt(np.maximum(mean + half, least)), np.sqrt(np.maximum(mean - half, least))
    theta = 0.5 * np.arctan2(2 * xy, xx - yy)
    return a, b, np.clip(theta, -np.pi / 2 + 1e-9, np.pi / 2 - 1e-9)
