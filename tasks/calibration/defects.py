"""Pixels of a frame that are not to be used: saturation and bleeding, cosmic rays; and what stands in for them."""

from __future__ import annotations

import astroscrappy
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tasks.core.fitsio import FloatImage

__all__ = ["bleeding", "cosmic_rays", "fill"]

Mask = npt.NDArray[np.bool_]

_BLEED_FROM = 4
_BLEED_REACH = 60
_BLEED_CONTRAST = 8.0


def bleeding(data: FloatImage, saturated: Mask, noise: float) -> Mask:
    """Charge that spilled along columns out of saturated pixels.

    Each vertical run of at least four saturated pixels is followed up and down while the pixel stands more
    than eight times the noise above both pixels four columns away in its row; a star's round wings around
    the run are lower there than the spill is.

    Parameters
    ----------
    data
        Shape (rows, columns), ADU above the sky level or above any constant.
    saturated
        Saturated pixels.
    noise
        Of the sky, ADU.

    Returns
    -------
    mask
        The spill, without the saturated pixels themselves.
    """
    found = np.zeros_like(saturated)
    if not saturated.any():
        return found
    labels, number = ndimage.label(saturated, structure=[[0, 1, 0], [0, 1, 0], [0, 1, 0]])
    height, width = data.shape
    for box in ndimage.find_objects(labels, number):
        top, bottom, column = box[0].start, box[0].stop, box[1].start
        if bottom - top < _BLEED_FROM:
            continue
        sides = [c for c in (column - 4, column + 4) if 0 <= c < width]
        for rows in (
            range(top - 1, max(-1, top - _BLEED_REACH), -1),
            range(bottom, min(height, bottom + _BLEED_REACH)),
        ):
            for row in rows:
                if (
                    saturated[row, column]
                    or data[row, column] - max(data[row, c] for c in sides) < _BLEED_CONTRAST * noise
                ):
                    break
                found[row, column] = True
    return found


def cosmic_rays(
    data: FloatImage, variance: FloatImage, ignore: Mask, gain: float, read_noise: float, sky_adu: float,
    saturation: float, sigma: float, objlim: float,
) -> Mask:  # fmt: skip
    """Cosmic rays by L.A.Cosmic (van Dokkum 2001, PASP 113, 1420; astroscrappy).

    Parameters
    ----------
    data
        Calibrated science, ADU, finite.
    variance
        ADU^2, shape of data.
    ignore
        Pixels already known to be bad.
    gain, read_noise
        e-/ADU, e-.
    sky_adu
        Sky level that data still holds, ADU.
    saturation
        ADU.
    sigma, objlim
        Laplacian significance; contrast against fine structure that spares stars.

    Returns
    -------
    mask
        Boolean, shape of data.
    """
    found, _ = astroscrappy.detect_cosmics(
        data, inmask=ignore, invar=variance * np.float32(gain * gain), gain=gain, readnoise=read_noise, sigclip=sigma,
        sigfrac=0.3, objlim=objlim, satlevel=saturation, niter=1, sepmed=True, cleantype="meanmask", fsmode="median",
    )  # fmt: skip
    result: Mask = np.asarray(found, bool) & ~ignore
    return result


def fill(data: FloatImage, holes: Mask) -> None:
    """Put the median of the good pixels around into each hole, in place.

    Windows of 5 x 5, then 11 x 11, then 41 x 41 pixels with at least three good ones; the frame's median where
    none has. A finite, local value keeps resampling (LANCZOS3) from spreading a wild one; the mask still says
    that it is no measurement.
    """
    rows, columns = np.nonzero(holes)
    if rows.size == 0:
        return
    known = np.where(holes, np.float32(np.nan), data)
    values = np.full(rows.size, np.nan, np.float32)
    for reach in (2, 5, 20):
        left = np.flatnonzero(np.isnan(values))
        if left.size == 0:
            break
        padded = np.pad(known, reach, constant_values=np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1))
        for part in np.array_split(left, max(1, left.size * (2 * reach + 1) ** 2 // 4_000_000)):
            around = windows[rows[part], columns[part]].reshape(part.size, -1)
            enough = np.count_nonzero(np.isfinite(around), axis=1) >= 3
            values[part[enough]] = np.nanmedian(around[enough], axis=1)
    values[np.isnan(values)] = np.nanmedian(known) if np.isfinite(known).any() else 0.0
    data[rows, columns] = values
