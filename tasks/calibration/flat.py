"""Master flats: which flats may enter, their median, and the pixels that no flat can correct."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from scipy import ndimage

from models.base import Roots
from models.frame import MaskBit, MasterBias, MasterFlat, RawFrame, Rejected
from models.settings import FlatSettings
from models.telescope import Telescope
from tasks.calibration.combine import centre_and_noise, median, strips
from tasks.core.errors import StageError, left_out
from tasks.core.files import ref
from tasks.core.fitsio import FloatImage, RawImage, open_raw, quiet_fits, write_fits

__all__ = ["bad_pixels", "bias_image", "make_master_flat"]

_STAGE = "master flat"
_LEVEL_FLOOR = 0.25
_SHAPE_FLOOR = 0.01
_SHAPE_BLOCKS = 16
_BLOCK = 8
_SAMPLE = 61
_SPARSE = 4
"""Of so many rows one tells whether a flat is too bright."""
_HOT_BIAS_SIGMA = 8.0
_COLUMN_FRACTION = 0.5
_SMALLEST_RESPONSE = 0.02
_MEDIAN_VARIANCE = np.pi / 2


def bias_image(
    bias: MasterBias | None, roots: Roots, telescope: Telescope, stage: str, shape: tuple[int, int], binning: int
) -> FloatImage | float:
    """What to subtract: the master bias (ADU, float32), the profile's constant, or 0.

    Raises
    ------
    StageError
        If the master bias is of another binning or shape, or cannot be read.
    """
    if bias is None:
        return telescope.camera.bias_level_adu or 0.0
    if bias.binning != binning:
        raise StageError(
            stage,
            f"the master bias is of binning {bias.binning}, the frame of binning {binning}",
            "give a bias of the frame's binning",
        )
    try:
        with quiet_fits(), fits.open(roots.of(bias.file), mode="readonly", memmap=False) as hdus:
            data: FloatImage = np.asarray(hdus[0].data, np.float32)
    except (OSError, TypeError, ValueError) as error:
        raise StageError(
            stage, f"the master bias {bias.file.path} cannot be read: {error}", "remove it; it is made again"
        ) from error
    if data.shape != tuple(shape):
        raise StageError(
            stage,
            f"the master bias has {data.shape[::-1]} pixels (x, y), the frame {tuple(shape)[::-1]}",
            "give a bias of the frame's shape",
        )
    return data


@dataclass(frozen=True)
class _Flat:
    frame: RawFrame
    image: RawImage
    level: float
    profile: npt.NDArray[np.float64]


def _median(values: FloatImage, axis: int | None = None) -> Any:
    """Median without NaN; where there is none, at a tenth of the cost of `numpy.nanmedian`."""
    middle = np.median(values, axis=axis)
    return middle if np.isfinite(middle).all() else np.nanmedian(values, axis=axis)


def _level(image: FloatImage) -> float:
    """Exact median of a whole frame, NaN left out, at a third of the cost of `numpy.median`.

    A sample says between which values the median lies, so that only these have to be put in order.
    """
    sample = image.ravel()[::_SAMPLE]
    low, high = np.nanpercentile(sample, [40, 60])
    inside = image[(image >= low) & (image <= high)]
    below, number = np.count_nonzero(image < low), np.count_nonzero(~np.isnan(image))
    first, last = (number - 1) // 2 - below, number // 2 - below
    if not 0 <= first <= last < inside.size:
        return float(np.nanmedian(image))
    middle = np.partition(inside, (first, last))
    return 0.5 * (float(middle[first]) + float(middle[last]))


def _blocks(data: FloatImage, count: int) -> npt.NDArray[np.float64]:
    """Medians of count x count blocks, shape (count, count)."""
    height, width = data.shape
    high, wide = max(1, height // count), max(1, width // count)
    rows, columns = height // high, width // wide
    cut = data[: rows * high, : columns * wide].reshape(rows, high, columns, wide)[:, ::4, :, ::2]
    return np.asarray(_median(cut.swapaxes(1, 2).reshape(rows, columns, -1), axis=2), np.float64)


def _quadrant_ratio(data: FloatImage) -> float:
    half_y, half_x = data.shape[0] // 2, data.shape[1] // 2
    levels = [
        float(_median(part[::3, ::3]))
        for part in (data[:half_y, :half_x], data[:half_y, half_x:], data[half_y:, :half_x], data[half_y:, half_x:])
    ]
    return max(levels) / min(levels) if min(levels) > 0 else float("inf")


def _judge(
    frame: RawFrame, model: RawFrame, roots: Roots, zero: FloatImage | float, settings: FlatSettings
) -> tuple[_Flat | None, str, str]:
    """A usable flat; or why not, in a word and in words."""
    if (frame.year, frame.binning, frame.filter) != (model.year, model.binning, model.filter):
        found = f"of {frame.year}, binning {frame.binning}, filter {frame.filter}"
        return None, "other group", f"{found}; the group is {model.year}, {model.binning}, {model.filter}"
    if frame.shape != model.shape:
        shapes = f"has {frame.shape[1]} x {frame.shape[0]} pixels, the group {model.shape[1]} x {model.shape[0]}"
        return None, "shape", shapes
    try:
        image = open_raw(roots.raw / frame.path, _STAGE, frame.shape)
        data = image.rows()
    except StageError as error:
        return None, "unreadable", left_out(error)
    if np.isnan(data).mean() > 0.01:
        return None, "unreadable", "more than 1 % of its pixels are NaN"
    raw_level = float(_median(data[::_SPARSE]))
    data -= zero
    level = _level(data)
    if level < settings.min_adu:
        return None, "too faint", f"median level {level:.0f} ADU above bias, below {settings.min_adu:.0f}"
    if raw_level > settings.max_adu:
        return None, "too bright", f"median level {raw_level:.0f} ADU, above {settings.max_adu:.0f}"
    ratio = _quadrant_ratio(data)
    if ratio > settings.max_quadrant_ratio:
        return None, "uneven", f"quadrants differ by a factor {ratio:.3f}, above {settings.max_quadrant_ratio:g}"
    return _Flat(frame, image, level, _blocks(data, _SHAPE_BLOCKS) / level), "", ""


def _outliers(flats: list[_Flat], settings: FlatSettings) -> dict[str, tuple[str, str]]:
    """Flats unlike the others, by path: a word and words. Needs three flats to know which one is odd."""
    if len(flats) < 3:
        return {}
    found: dict[str, tuple[str, str]] = {}
    levels = np.array([flat.level for flat in flats])
    centre = float(np.median(levels))
    limit = max(settings.level_sigma * 1.4826 * float(np.median(np.abs(levels - centre))), _LEVEL_FLOOR * centre)
    profiles = np.array([flat.profile for flat in flats])
    scatter = np.sqrt(np.mean((profiles - np.median(profiles, axis=0)) ** 2, axis=(1, 2)))
    usual = float(np.median(scatter))
    wide = max(usual + settings.level_sigma * 1.4826 * float(np.median(np.abs(scatter - usual))), _SHAPE_FLOOR)
    for flat, rms in zip(flats, scatter, strict=True):
        if abs(flat.level - centre) > limit:
            found[flat.frame.path] = (
                "level", f"level {flat.level:.0f} ADU, the group's median is {centre:.0f} (limit {limit:.0f})",
            )  # fmt: skip
        elif rms > wide:
            found[flat.frame.path] = (
                "other pattern", f"normalised, {100 * rms:.2f} % from the others' pattern (limit {100 * wide:.2f} %)",
            )  # fmt: skip
    return found


def bad_pixels(
    flat: FloatImage, zero: FloatImage | float, noise_adu: float, settings: FlatSettings
) -> npt.NDArray[np.uint8]:
    """Pixels that calibration cannot save.

    Dead and over-responding pixels against the smoothed flat (medians of 8 x 8 px blocks, themselves
    median-filtered, interpolated), columns of which half is bad, and pixels whose bias stands far above its
    surroundings.

    Parameters
    ----------
    flat
        Normalised, NaN where it has no value.
    zero
        Master bias (ADU) or a number.
    noise_adu
        Read noise of one frame, ADU.

    Returns
    -------
    mask
        uint8, `MaskBit.BAD_PIXEL` or 0.
    """
    smooth = ndimage.median_filter(_smoothed(flat), size=5, mode="nearest")
    zoom = (flat.shape[0] / smooth.shape[0], flat.shape[1] / smooth.shape[1])
    surroundings = ndimage.zoom(smooth, zoom, order=1, mode="nearest", grid_mode=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        response = flat / surroundings
    bad = ~((response >= settings.dead_below) & (response <= settings.hot_above))
    if isinstance(zero, np.ndarray):
        raised = zero - ndimage.median_filter(zero, size=(1, 9), mode="nearest")
        noise = max(centre_and_noise(raised)[1], noise_adu / 10)
        bad |= np.abs(raised) > np.maximum(_HOT_BIAS_SIGMA * noise, noise_adu)
    bad[:, bad.mean(axis=0) > _COLUMN_FRACTION] = True
    return np.where(bad, np.uint8(MaskBit.BAD_PIXEL), np.uint8(0))


def _smoothed(flat: FloatImage) -> FloatImage:
    high, wide = max(1, flat.shape[0] // _BLOCK), max(1, flat.shape[1] // _BLOCK)
    by, bx = flat.shape[0] // high, flat.shape[1] // wide
    cut = np.where(np.isfinite(flat), flat, np.float32(np.nanmedian(flat)))[: high * by, : wide * bx]
    result: FloatImage = np.median(cut.reshape(high, by, wide, bx), axis=(1, 3)).astype(np.float32)
    return result


def make_master_flat(
    frames: Sequence[RawFrame], bias: MasterBias | None, roots: Roots, telescope: Telescope, settings: FlatSettings
) -> MasterFlat:
    """Combine the flats of a year, filter and binning (data_release.md, parameters.md).

    Each is bias-subtracted and scaled to its own median before the median: unscaled, the changing twilight
    would double the flat's error. The result is normalised to median 1.

    Parameters
    ----------
    frames
        Flats of one telescope, year, filter and binning. Left out, each with its reason: too faint or too
        bright, uneven, of another level or pattern than the others, another shape, unreadable.
    bias
        The year's; without one the profile's ``bias_level_adu`` or nothing is subtracted, as the header says.
    roots, telescope, settings
        Where to read and write; the camera; the limits.

    Returns
    -------
    MasterFlat
        Its file: primary HDU the flat (float32, median 1), ``BPM`` (uint8, `MaskBit.BAD_PIXEL`), ``VAR``
        (float32, variance of the flat from photon and read noise).

    Raises
    ------
    StageError
        If no flat is usable, with the counts of why.
    """
    if not frames:
        raise StageError(_STAGE, "there are no flats", "take some; the frames keep FLATCORR NONE until then")
    frames = sorted(frames, key=lambda frame: (frame.night, frame.path))
    keys = [(f.year, f.binning, f.filter or "", f.shape) for f in frames]
    model = frames[keys.index(max(sorted(set(keys)), key=keys.count))]
    if model.filter is None:
        raise StageError(_STAGE, "the flats name no filter", "add the spelling of their filter to the profile")
    zero = bias_image(bias, roots, telescope, _STAGE, model.shape, model.binning)

    rejected: list[Rejected] = []
    counts: dict[str, int] = {}
    good: list[_Flat] = []
    for frame in frames:
        flat, word, reason = _judge(frame, model, roots, zero, settings)
        if flat is not None:
            good.append(flat)
        else:
            counts[word] = counts.get(word, 0) + 1
            rejected.append(Rejected(file=frame.path, reason=reason))
    odd = _outliers(good, settings)
    for odd_path, (word, reason) in odd.items():
        counts[word] = counts.get(word, 0) + 1
        rejected.append(Rejected(file=odd_path, reason=reason))
    good = [flat for flat in good if flat.frame.path not in odd]
    if not good:
        why = ", ".join(f"{number} {word}" for word, number in sorted(counts.items()))
        raise StageError(
            _STAGE,
            f"none of {len(frames)} flats of {model.year} in {model.filter} is usable: {why}; "
            f"such as {rejected[0].file}: {rejected[0].reason}",
            "take new flats; the frames keep FLATCORR NONE until then",
        )

    camera = telescope.camera
    gain = next((flat.frame.gain for flat in good if flat.frame.gain), None) or camera.gain
    read_noise = (bias.read_noise_e if bias else None) or good[0].frame.read_noise or camera.read_noise
    levels = [flat.level for flat in good]
    subtract = zero if isinstance(zero, np.ndarray) else [zero] * len(good)
    master = np.empty(model.shape, np.float32)
    for rows, values in strips([flat.image for flat in good], subtract, levels):
        master[rows] = median(values).reshape(rows.stop - rows.start, -1)
    master /= np.float32(np.nanmedian(master))
    bpm = bad_pixels(master, zero, read_noise / gain, settings)
    unknown = ~(master > _SMALLEST_RESPONSE)
    bpm[unknown] = MaskBit.BAD_PIXEL
    master[unknown] = 1.0
    widen = _MEDIAN_VARIANCE if len(good) > 2 else 1.0
    per_level = [
        np.mean([1.0 / (gain * level) for level in levels]),
        np.mean([(read_noise / gain / v) ** 2 for v in levels]),
    ]
    variance = (master * np.float32(per_level[0]) + np.float32(per_level[1])) * np.float32(widen / len(good))

    header = fits.Header()
    header["OBJECT"] = ("FLAT", "master flat")
    header["IMAGETYP"] = ("Master Flat", "kind of frame")
    header["TELESCOP"] = (telescope.name, "telescope profile")
    header["YEAR"] = (model.year, "year of the nights combined")
    header["FILTER"] = (model.filter, "filter, canonical name")
    header["XBINNING"] = (model.binning, "[px] binning along x")
    header["YBINNING"] = (model.binning, "[px] binning along y")
    header["BUNIT"] = ("", "relative response, median 1")
    header["NCOMBINE"] = (len(good), "number of frames combined")
    header["NREJECT"] = (len(rejected), "number of frames left out")
    header["COMBMETH"] = ("MEDIAN", "combination, each frame scaled to its median")
    header["BIASCORR"] = (_bias_word(bias, camera.bias_level_adu), "bias subtracted: a file, LEVEL or NONE")
    header["BIASQUAL"] = ("NONE" if bias is None else "OK" if bias.n_combined > 4 else "FEW", "of the master bias")
    header["FLATLEV"] = (round(float(np.median(levels)), 1), "[adu] median level of the flats above bias")
    header["NBADPIX"] = (int(np.count_nonzero(bpm)), "[px] bad pixels, extension BPM")
    header["GAIN"] = (gain, "[e-/adu] gain")
    header["RDNOISE"] = (round(read_noise, 4), "[e-] read noise")
    path = (
        roots.data / str(model.year) / telescope.name / "master_flat"
        / f"master_flat_{model.year}_{telescope.name}_{model.binning}_{model.filter}.fits"
    )  # fmt: skip
    write_fits(
        path,
        [
            fits.PrimaryHDU(master, header),
            fits.ImageHDU(bpm, name="BPM"),
            fits.ImageHDU(variance.astype(np.float32), name="VAR"),
        ],
    )
    return MasterFlat(
        file=ref(path, roots), telescope=telescope.name, year=model.year, binning=model.binning, filter=model.filter,
        n_combined=len(good), level_adu=round(float(np.median(levels)), 3), rejected=tuple(rejected),
    )  # fmt: skip


def _bias_word(bias: MasterBias | None, level: float | None) -> str:
    if bias is not None:
        return bias.file.path.rsplit("/", 1)[-1]
    return "NONE" if level is None else "LEVEL"
