"""Crowded parts of a field: stars found one under the other and fitted together, instead of the detection's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.table import Table
from scipy import ndimage
from scipy.signal import fftconvolve
from scipy.spatial import cKDTree

from models.settings import SourceSettings
from tasks.photometry import CrowdedFlag, CrowdedOptions, crowded_photometry
from tasks.sourcelists.detect import SHARPER, Detection, gaussian
from tasks.sourcelists.images import BandImage, BoolImage, FloatArray, robust

__all__ = ["Patch", "crowded_fluxes", "crowded_patches", "light_peaks", "with_crowded"]

_SMOOTH_FWHM = 5.0
_RING_FWHM = (1.5, 2.5)
_PEAK_SIGMA = 5.0
_FEWEST = 25
_MARGIN_FWHM = 6.0
_SAME_FWHM = 0.5
_ONE_SIGMA = 0.683
_UNFIT = CrowdedFlag.NOT_FITTED | CrowdedFlag.NOT_CONVERGED | CrowdedFlag.NEGATIVE


class Patch(NamedTuple):
    """A crowded part: which pixels, and the rectangle around them with the margin whose stars are fitted, too."""

    inside: BoolImage
    rows: slice
    columns: slice


def light_peaks(seen: Detection) -> BoolImage:
    """Maxima of the bands' light that stand out of the ring of 1.5 to 2.5 FWHM around them by 5 sigma of empty sky.

    Where stars overlap most, the detection sees one large source of few parts, but each bright star is a maximum still.
    """
    smooth = fftconvolve(seen.light, gaussian(SHARPER * seen.fwhm_px), mode="same")
    half = int(np.ceil(_RING_FWHM[1] * seen.fwhm_px))
    axis = np.arange(-half, half + 1)
    distance = np.hypot(axis[:, None], axis) / seen.fwhm_px
    ring = ((distance > _RING_FWHM[0]) & (distance <= _RING_FWHM[1])).astype(np.float64)
    above = smooth - fftconvolve(seen.light, ring / ring.sum(), mode="same")
    noise = robust(above[seen.empty] if seen.empty.any() else above)
    highest = ndimage.maximum_filter(smooth, size=2 * round(seen.fwhm_px / 2) + 1) == smooth
    return np.asarray(highest & (above > _PEAK_SIGMA * noise))


def crowded_patches(seen: Detection, settings: SourceSettings) -> list[Patch]:
    """Where maxima of the light lie closer than `settings.crowded_density` a square FWHM, over 5 FWHM."""
    peaks = light_peaks(seen)
    shape = peaks.shape
    row, column = np.nonzero(peaks)
    density = ndimage.gaussian_filter(peaks.astype(np.float64), _SMOOTH_FWHM * seen.fwhm_px) * seen.fwhm_px**2
    label, _ = ndimage.label(density > settings.crowded_density)
    margin = int(np.ceil(_MARGIN_FWHM * seen.fwhm_px))
    patches = []
    for k, box in enumerate(ndimage.find_objects(label), start=1):
        inside = label == k
        if np.count_nonzero(inside[row, column]) < _FEWEST:
            continue
        rows, columns = (
            slice(max(side.start - margin, 0), min(side.stop + margin, size))
            for side, size in zip(box, shape, strict=True)
        )
        patches.append(Patch(inside, rows, columns))
    return patches


def _fit(band: BandImage, patch: Patch, x: FloatArray | None, y: FloatArray | None, rounds: int) -> Table:
    """All stars of a patch; errors without the PSF's own, which is `SourceBand.psf_floor`, measured on single stars.

    What the brightest of a crowded core leave is saturation and stars that were not told apart, no error of the PSF.
    """
    assert band.psf is not None
    cut = np.s_[patch.rows, patch.columns]
    weight = np.where(band.bad[cut], 0.0, 1.0 / np.where(band.bad[cut], 1.0, band.variance[cut]))
    places = {} if x is None or y is None else {"x": x - patch.columns.start, "y": y - patch.rows.start, "fixed": True}
    middle = band.psf.shape[0] // 2
    half = min(middle, 12)
    psf = band.psf[middle - half : middle + half + 1, middle - half : middle + half + 1]
    table = crowded_photometry(
        band.data[cut], weight, psf, saturation=band.saturation if np.isfinite(band.saturation) else None,
        gain=band.gain, options=CrowdedOptions(rounds=rounds, model_error=0.0, noise_share=_ONE_SIGMA), **places,
    )  # fmt: skip
    table["x"] = np.asarray(table["x"]) + patch.columns.start
    table["y"] = np.asarray(table["y"]) + patch.rows.start
    return table


def with_crowded(
    seen: Detection, bands: Sequence[BandImage], patches: Sequence[Patch]
) -> tuple[Detection, npt.NDArray[np.int_]]:
    """The detection with the stars of its crowded parts, and the patch of each source (-1: none).

    Stars are found in the band with the sharpest PSF for its depth by `crowded_photometry` (photutils); one within half
    a FWHM of a detected source takes its place, the others are added, round as the PSF. Detected sources of a patch
    that the fit does not know stay.
    """
    patch_of = np.full(seen.x.size, -1)
    with_psf = [band for band in bands if band.psf is not None]
    if not patches or not with_psf:
        return seen, patch_of
    # The 5 sigma depth on a background of stars falls with the area of the PSF.
    best = min(with_psf, key=lambda band: np.median(band.variance[~band.bad]) ** 0.5 * band.fwhm_px**2)
    for number, patch in enumerate(patches):
        found = _fit(best, patch, None, None, rounds=4)
        keep = (np.asarray(found["flags"], int) & int(_UNFIT)) == 0
        x, y = np.asarray(found["x"])[keep], np.asarray(found["y"])[keep]
        inside = patch.inside[
            np.clip(np.rint(y).astype(int), 0, patch.inside.shape[0] - 1),
            np.clip(np.rint(x).astype(int), 0, patch.inside.shape[1] - 1),
        ]
        x, y = x[inside], y[inside]
        if not x.size:
            continue
        distance, nearest = cKDTree(np.column_stack([seen.x, seen.y])).query(np.column_stack([x, y]))
        known = distance < _SAME_FWHM * seen.fwhm_px
        order = np.argsort(-distance[known], kind="stable")  # of two near one source the nearer is written last
        target = nearest[known][order]
        seen.x[target], seen.y[target] = x[known][order], y[known][order]
        patch_of[target] = number
        new = ~known
        seen = _joined(seen, x[new], y[new])
        patch_of = np.concatenate([patch_of, np.full(np.count_nonzero(new), number)])
    return seen, patch_of


def _joined(seen: Detection, x: FloatArray, y: FloatArray) -> Detection:
    n, width = x.size, seen.fwhm_px / 2.3548

    def grown(known: npt.NDArray[Any], new: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate([known, new])

    return seen._replace(
        x=grown(seen.x, x), y=grown(seen.y, y), a=grown(seen.a, np.full(n, width)), b=grown(seen.b, np.full(n, width)),
        theta=grown(seen.theta, np.zeros(n)), kron=grown(seen.kron, np.zeros(n)),
        significance=grown(seen.significance, np.full(n, np.nan)), parts=grown(seen.parts, np.ones(n, bool)),
    )  # fmt: skip


def crowded_fluxes(
    band: BandImage, seen: Detection, patches: Sequence[Patch], patch_of: npt.NDArray[np.int_]
) -> tuple[FloatArray, FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """PSF fluxes and errors of all sources of the patches in a band, fitted together at the places found.

    Returns
    -------
    flux, error, chi2, fitted
        Shape (N,); NaN where `fitted` is False.
    """
    n = seen.x.size
    flux, error, chi2 = np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    for number, patch in enumerate(patches):
        # Those of the margin are fitted, too: their light reaches in.
        within = (
            (seen.y >= patch.rows.start) & (seen.y < patch.rows.stop - 0.5)
            & (seen.x >= patch.columns.start) & (seen.x < patch.columns.stop - 0.5)
        )  # fmt: skip
        chosen = np.flatnonzero(within)
        if band.psf is None or band.bad[patch.rows, patch.columns].all() or not chosen.size:
            continue
        table = _fit(band, patch, seen.x[chosen], seen.y[chosen], rounds=2)
        mine = patch_of[chosen] == number
        good = mine & ((np.asarray(table["flags"], int) & int(CrowdedFlag.NOT_FITTED)) == 0)
        for column, key in ((flux, "flux"), (error, "flux_err"), (chi2, "chi2")):
            column[chosen[good]] = np.asarray(table[key])[good]
    return flux, error, chi2, np.isfinite(flux)
