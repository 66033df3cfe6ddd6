"""PSF fluxes of all sources of a band at once, at the detection's places."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import map_coordinates, spline_filter
from scipy.sparse import csc_array, csr_array, diags_array
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from tasks.sourcelists.images import BandImage, FloatArray

__all__ = ["PsfFluxes", "neighbour_light", "psf_fluxes"]

_CORE_FWHM = 1.25
"""Radius of the pixels that a source is fitted in: beyond, the sky's errors weigh more than the light."""
_BLENDED = 0.02
_LEAST_SHARE = 0.6
"""Share of a source's fit (by weight) that must lie on good pixels."""


class PsfFluxes(NamedTuple):
    """Of each source; shape (N,). NaN where nothing could be fitted.

    Attributes
    ----------
    flux
        Of the whole PSF.
    white
        Error, were pixels independent; of sky alone.
    photons
        Variance by the source's and its neighbours' own light.
    share
        Light of neighbours under the source over its own.
    chi2
        Reduced, on the fitted pixels.
    """

    flux: FloatArray
    white: FloatArray
    photons: FloatArray
    share: FloatArray
    chi2: FloatArray


def _stamps(psf: FloatArray, x: FloatArray, y: FloatArray, shape: tuple[int, int]) -> tuple[FloatArray, ...]:
    """Rows, columns, light and distance of each source's pixels, shape (N, n); light is 0 beyond the image."""
    half = psf.shape[0] // 2
    reach = half - 1
    dy, dx = (axis.ravel() for axis in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    row, column = np.rint(y).astype(int), np.rint(x).astype(int)
    rows, columns = row[:, None] + dy, column[:, None] + dx
    off_y, off_x = rows - y[:, None], columns - x[:, None]
    smooth = spline_filter(psf, order=3)
    light = map_coordinates(smooth, [off_y + half, off_x + half], order=3, prefilter=False, mode="nearest")
    within = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    return (
        np.clip(rows, 0, shape[0] - 1), np.clip(columns, 0, shape[1] - 1),
        np.where(within, light, 0.0), np.hypot(off_y, off_x),
    )  # fmt: skip


def psf_fluxes(band: BandImage, x: FloatArray, y: FloatArray, sky: FloatArray) -> PsfFluxes:
    """Fluxes of point sources at given places, all of them solved for together.

    Each source's flux is weighed with the PSF on its core (1.25 FWHM), and what every other source throws there is
    part of the same linear equations, of the PSF's whole reach: a sparse system with a row a source. For isolated
    sources that is the optimal PSF flux (Naylor 1998, MNRAS 296, 339).

    Parameters
    ----------
    band
        With a PSF.
    x, y
        Zero-based places, px, shape (N,).
    sky
        A pixel, under each source, shape (N,).
    """
    assert band.psf is not None
    n, shape = x.size, (int(band.data.shape[0]), int(band.data.shape[1]))
    rows, columns, light, distance = _stamps(band.psf, x, y, shape)
    pixel = (rows * shape[1] + columns).astype(np.int64)
    good = ~band.bad[rows.astype(int), columns.astype(int)]
    core = (distance <= max(_CORE_FWHM * band.fwhm_px, 1.5)) & (light != 0)
    weight = np.where(core & good, light, 0.0)
    own = np.sum(weight * light, axis=1)
    whole = np.sum(np.where(core, light, 0.0) ** 2, axis=1)
    usable = own > _LEAST_SHARE * max(float(np.median(whole)), 1e-12)
    source = np.broadcast_to(np.arange(n)[:, None], pixel.shape)
    data = band.data.ravel()[pixel] - sky[:, None]
    scale = np.where(usable, own, 1.0)
    used = weight != 0
    of_pixel = csr_array((weight[used], (source[used], pixel[used])), shape=(n, band.data.size))
    bright = light != 0
    model = csc_array((light[bright], (pixel[bright], source[bright])), shape=(band.data.size, n))
    matrix = diags_array(1.0 / scale) @ (of_pixel @ model)
    gone = np.flatnonzero(~usable)
    if gone.size:  # what cannot be fitted throws no light on the others
        keep = np.ones(n)
        keep[gone] = 0.0
        matrix = diags_array(keep) @ matrix @ diags_array(keep) + diags_array(1.0 - keep)
    right = np.where(usable, np.sum(weight * data, axis=1) / scale, 0.0)
    flux = np.asarray(splu(matrix.tocsc()).solve(right))
    flux[gone] = 0.0
    everything = np.asarray(model @ flux).ravel()[pixel]
    sky_variance = band.variance.ravel()[pixel].astype(np.float64)
    white = np.sqrt(np.sum(weight**2 * sky_variance, axis=1)) / scale
    photons = np.sum(weight**2 * np.maximum(everything, 0.0), axis=1) / band.gain / scale**2
    crowding = _inflation(matrix, n)
    others = np.sum(weight * (everything - flux[:, None] * light), axis=1) / scale
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = sky_variance + np.maximum(everything, 0.0) / band.gain
        pull = np.where(used, (data - everything) ** 2 / np.where(variance > 0, variance, 1.0), 0.0)
        chi2 = pull.sum(axis=1) / np.maximum(used.sum(axis=1) - 1, 1)
        share = np.abs(others) / np.abs(flux)
    nothing = np.where(usable, 1.0, np.nan)
    return PsfFluxes(flux * nothing, white * crowding * nothing, photons * crowding**2 * nothing, share, chi2 * nothing)


def _inflation(matrix: csr_array, n: int) -> FloatArray:
    """By how much the overlap with neighbours widens each error: from the inverse of each source's near equations."""
    result = np.ones(n)
    rows = csr_array(matrix)
    for i in range(n):
        start, stop = rows.indptr[i], rows.indptr[i + 1]
        values, near = rows.data[start:stop], rows.indices[start:stop]
        near = near[(np.abs(values) > _BLENDED) & (near != i)]
        if near.size:
            block = np.concatenate([[i], near])
            inverse = np.linalg.pinv(rows[block][:, block].toarray())
            # Errors of the weighed sums overlap as the equations do: (M^-1) N (M^-1)^T with N = M for equal weights.
            result[i] = np.sqrt(max(float(inverse[0, 0]), 1.0))
    return result


def neighbour_light(band: BandImage, x: FloatArray, y: FloatArray, flux: FloatArray, radius: float) -> FloatArray:
    """Light of other point sources within `radius` (px) of each, from the growth of the PSF; shape (N,)."""
    assert band.psf is not None
    half = band.psf.shape[0] // 2
    pairs = cKDTree(np.column_stack([x, y])).query_pairs(half + radius, output_type="ndarray")
    light = np.zeros(x.size)
    if not pairs.size:
        return light
    apart = np.hypot(*(axis[pairs[:, 0]] - axis[pairs[:, 1]] for axis in (x, y)))
    steps = np.linspace(0.0, half + radius, 60)
    rows, columns = np.indices(band.psf.shape) - half
    inside = [float(band.psf[np.hypot(rows, columns - step) <= radius].sum()) for step in steps]
    share = np.interp(apart, steps, inside)
    positive = np.maximum(np.nan_to_num(flux), 0.0)
    np.add.at(light, pairs[:, 0], positive[pairs[:, 1]] * share)
    np.add.at(light, pairs[:, 1], positive[pairs[:, 0]] * share)
    return light
