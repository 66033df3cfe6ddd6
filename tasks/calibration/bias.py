"""The master bias of a year: which biases may enter, their clipped mean, the read noise they show."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from astropy.io import fits

from models.base import Roots
from models.frame import MasterBias, RawFrame, Rejected
from models.settings import BiasSettings
from models.telescope import Telescope
from tasks.calibration.combine import centre_and_noise, clipped_mean, strips
from tasks.core.errors import StageError, left_out
from tasks.core.files import ref
from tasks.core.fitsio import RawImage, open_raw, write_fits

__all__ = ["make_master_bias"]

_STAGE = "master bias"
_FEW = 5


def _level(image: RawImage) -> tuple[float, float]:
    """Level and noise of a frame from every fourth row."""
    height = image.shape[0]
    middle = image.rows(height // 4, height - height // 4)
    if np.isnan(middle).mean() > 0.01:
        raise StageError(_STAGE, "more than 1 % of its pixels are NaN", "take it out of the raw tree")
    return centre_and_noise(middle[::4])


def _read_noise_adu(first: RawImage, second: RawImage) -> float:
    """Read noise from the difference of two biases: fixed pattern and level cancel."""
    height = first.shape[0]
    rows = (height // 4, height - height // 4)
    return centre_and_noise(first.rows(*rows) - second.rows(*rows))[1] / math.sqrt(2.0)


def _fit(frame: RawFrame, telescope: Telescope, year: int, binning: int, shape: tuple[int, int]) -> str | None:
    """Why a bias may not enter, judged by its header; None if it may."""
    camera = telescope.camera
    if frame.exptime > 0:
        return f"EXPTIME is {frame.exptime:g} s; a bias has 0"
    if frame.year != year or frame.binning != binning:
        return f"of {frame.year}, binning {frame.binning}; the group is {year}, binning {binning}"
    if frame.shape != shape:
        return f"has {frame.shape[1]} x {frame.shape[0]} pixels, the group {shape[1]} x {shape[0]}"
    if camera.temperature_c is not None and frame.ccd_temp is not None:
        off = frame.ccd_temp - camera.temperature_c
        if abs(off) > camera.temperature_tolerance_c:
            return (
                f"CCD at {frame.ccd_temp:.1f} deg C, {off:+.1f} from the set point "
                f"(tolerance {camera.temperature_tolerance_c:g})"
            )
    return None


def _majority(frames: Sequence[RawFrame]) -> RawFrame:
    keys = [(f.year, f.binning, f.shape) for f in frames]
    return frames[keys.index(max(sorted(set(keys)), key=keys.count))]


def make_master_bias(
    frames: Sequence[RawFrame], roots: Roots, telescope: Telescope, settings: BiasSettings
) -> MasterBias:
    """Combine the biases of a year and binning: mean with a clip per pixel (data_release.md, parameters.md).

    The frames' levels are set equal before the clip, so that a drift of the amplifier of some ADU does not
    widen it; the mean level stays that of the frames' median.

    Parameters
    ----------
    frames
        Biases of one telescope, year and binning. Those with EXPTIME > 0, a CCD temperature off the set point,
        a level off the group's, another shape, or unreadable pixels are left out, each with its reason.
    roots, telescope, settings
        Where to read and write; the camera; clip and tolerances.

    Returns
    -------
    MasterBias
        Its file: float32 ADU, primary HDU.

    Raises
    ------
    StageError
        If no bias is usable; says why each was left out.
    """
    if not frames:
        raise StageError(_STAGE, "there are no bias frames", "take some, or reduce without a bias")
    frames = sorted(frames, key=lambda frame: (frame.night, frame.path))
    model = _majority(frames)
    rejected: list[Rejected] = []
    good: list[tuple[RawFrame, RawImage, float, float]] = []
    for frame in frames:
        reason = _fit(frame, telescope, model.year, model.binning, model.shape)
        if reason is None:
            try:
                image = open_raw(roots.raw / frame.path, _STAGE, frame.shape)
                good.append((frame, image, *_level(image)))
            except StageError as error:
                reason = left_out(error)
        if reason is not None:
            rejected.append(Rejected(file=frame.path, reason=reason))

    if len(good) > 2:
        levels = np.array([level for _, _, level, _ in good])
        centre = float(np.median(levels))
        sigma = 1.4826 * float(np.median(np.abs(levels - centre)))
        limit = max(settings.level_sigma * sigma, settings.level_floor_adu)
        rejected += [
            Rejected(
                file=frame.path,
                reason=f"level {level:.1f} ADU, {level - centre:+.1f} from the group's median {centre:.1f} "
                f"(limit {limit:.1f})",
            )
            for frame, _, level, _ in good
            if abs(level - centre) > limit
        ]
        good = [entry for entry in good if abs(entry[2] - centre) <= limit]
    if not good:
        reasons = "; ".join(f"{entry.file}: {entry.reason}" for entry in rejected[:5])
        raise StageError(
            _STAGE,
            f"none of {len(frames)} bias frames of {model.year} is usable: {reasons}",
            "look at the frames, or reduce without a bias",
        )

    images = [image for _, image, _, _ in good]
    levels = np.array([level for _, _, level, _ in good])
    level = float(np.median(levels))
    noise = float(np.median([noise for _, _, _, noise in good]))
    read_noise_adu = None
    if len(images) > 1:
        pairs = list(itertools.pairwise(images))[:10]
        read_noise_adu = float(np.median([_read_noise_adu(*pair) for pair in pairs]))
        noise = read_noise_adu

    master = np.empty(model.shape, np.float32)
    n_clipped = 0
    for rows, values in strips(images, (levels - level).tolist()):
        mean, clipped = clipped_mean(values, settings.clip_sigma, noise)
        master[rows] = mean.reshape(rows.stop - rows.start, -1)
        n_clipped += int(clipped.sum())
    no_value = ~np.isfinite(master)
    master[no_value] = level

    gain = next((frame.gain for frame, *_ in good if frame.gain), None) or telescope.camera.gain
    read_noise_e = None if read_noise_adu is None else read_noise_adu * gain
    header = fits.Header()
    header["OBJECT"] = ("BIAS", "master bias")
    header["IMAGETYP"] = ("Master Bias", "kind of frame")
    header["TELESCOP"] = (telescope.name, "telescope profile")
    header["YEAR"] = (model.year, "year of the nights combined")
    header["XBINNING"] = (model.binning, "[px] binning along x")
    header["YBINNING"] = (model.binning, "[px] binning along y")
    header["BUNIT"] = ("adu", "unit of the pixels")
    header["NCOMBINE"] = (len(good), "number of frames combined")
    header["NREJECT"] = (len(rejected), "number of frames left out")
    header["COMBMETH"] = ("MEAN", "combination: mean after a clip about the median")
    header["CLIPSIG"] = (settings.clip_sigma, "[sigma] clip of each pixel")
    header["CLIPFRAC"] = (round(n_clipped / master.size / len(good), 6), "fraction of all values clipped")
    header["BIASQUAL"] = ("OK" if len(good) >= _FEW else "FEW", f"OK, or FEW: less than {_FEW} frames")
    header["BIASLEV"] = (round(level, 3), "[adu] median level of the frames")
    header["BIASDRFT"] = (round(float(np.ptp(levels)), 3), "[adu] range of the frames' levels")
    header["GAIN"] = (gain, "[e-/adu] gain")
    if read_noise_e is not None:
        header["RDNOISE"] = (round(read_noise_e, 4), "[e-] read noise from differences of pairs")
    header["NNOVALUE"] = (int(no_value.sum()), "[px] pixels without a value, set to the level")
    path = (
        roots.data / str(model.year) / telescope.name / "master_bias"
        / f"master_bias_{model.year}_{telescope.name}_{model.binning}.fits"
    )  # fmt: skip
    write_fits(path, [fits.PrimaryHDU(master, header)])
    return MasterBias(
        file=ref(path, roots), telescope=telescope.name, year=model.year, binning=model.binning, n_combined=len(good),
        level_adu=round(level, 3), read_noise_e=None if read_noise_e is None else round(read_noise_e, 4),
        rejected=tuple(rejected),
    )  # fmt: skip
