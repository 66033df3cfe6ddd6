"""A raw frame's way to science, mask and variance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from models.base import Roots
from models.frame import MaskBit, MasterBias, MasterFlat, RawFrame, ReducedFrame
from models.settings import ReductionSettings
from models.telescope import Telescope
from tasks.calibration.combine import centre_and_noise
from tasks.calibration.defects import bleeding, cosmic_rays, fill
from tasks.calibration.flat import bias_image
from tasks.calibration.header import science_header
from tasks.calibration.trails import find_trails
from tasks.core.errors import StageError
from tasks.core.files import ref
from tasks.core.fitsio import FloatImage, quiet_fits, read_raw, write_fits

__all__ = ["read_reduced", "reduce_frame"]

_STAGE = "reduction"
_LOW_RESPONSE = 0.2
_HOLES = np.uint8(MaskBit.BAD_PIXEL | MaskBit.NO_DATA | MaskBit.LOW_RESPONSE)
_BRIGHT = np.uint8(MaskBit.SATURATED | MaskBit.BLEED | MaskBit.TRAIL)
_QUANTISATION = 1.0 / 12.0

MaskImage = npt.NDArray[np.uint8]


def _read_flat(flat: MasterFlat, raw: RawFrame, roots: Roots) -> tuple[FloatImage, MaskImage, FloatImage]:
    """Flat, bad pixels and variance of the flat; checked against the frame."""
    if (flat.binning, flat.filter) != (raw.binning, raw.filter):
        raise StageError(
            _STAGE,
            f"the master flat is {flat.filter}, binning {flat.binning}; the frame {raw.filter}, binning {raw.binning}",
            "give a flat of the frame's filter and binning",
        )
    try:
        with quiet_fits(), fits.open(roots.of(flat.file), mode="readonly", memmap=False) as hdus:
            response = np.asarray(hdus[0].data, np.float32)
            bad = np.asarray(hdus["BPM"].data, np.uint8)
            variance = np.asarray(hdus["VAR"].data, np.float32)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StageError(
            _STAGE, f"the master flat {flat.file.path} cannot be read: {error}", "remove it; it is made again"
        ) from error
    if response.shape != tuple(raw.shape):
        raise StageError(
            _STAGE,
            f"the master flat has {response.shape[::-1]} pixels (x, y), the frame {tuple(raw.shape)[::-1]}",
            "give a flat of the frame's shape",
        )
    return response, bad, variance


def _bias_story(bias: MasterBias | None, raw: RawFrame, telescope: Telescope) -> tuple[str, str, list[str]]:
    """BIASCORR, BIASQUAL and what is to be said."""
    if bias is None:
        level = telescope.camera.bias_level_adu
        if level is None:
            return (
                "NONE",
                "NONE",
                [
                    f"no bias of {raw.year}: none subtracted",
                    "zero level unknown: the variance rests on the noise measured on the sky",
                ],
            )
        return "LEVEL", "NONE", [f"no bias of {raw.year}: the profile's level of {level:g} ADU subtracted"]
    quality = "OK" if bias.n_combined > 4 else "FEW"
    notes = [] if quality == "OK" else [f"the master bias is of {bias.n_combined} frames only"]
    if bias.year != raw.year:
        notes.append(f"the master bias is of {bias.year}")
    return bias.file.path.rsplit("/", 1)[-1], quality, notes


def _variance_without_zero(data: FloatImage, gain: float) -> FloatImage:
    """Variance where the bias level is unknown: photon noise of what stands above the sky, and the sky's own noise.

    The latter from differences of neighbours, which neither gradients nor nebulae enter.
    """
    sky, _ = centre_and_noise(data[::4, ::4])
    _, twice = centre_and_noise(np.diff(data[::3], axis=1)[:, ::2])
    floor = max(0.5 * twice**2, _QUANTISATION)
    return np.asarray(np.maximum(data - np.float32(sky), 0) / np.float32(gain) + np.float32(floor), np.float32)


def reduce_frame(
    raw: RawFrame, bias: MasterBias | None, flat: MasterFlat | None, roots: Roots, telescope: Telescope,
    settings: ReductionSettings,
) -> ReducedFrame:  # fmt: skip
    """Calibrate a science frame: ``(raw - bias) / flat``, with a mask of named bits and a variance.

    The file holds the science image (primary HDU, float32 ADU), ``MASK`` (uint8, `MaskBit`) and ``VAR``
    (float32 ADU^2). Every pixel is finite: bad, hit and empty pixels hold the median of their good
    surroundings, saturated, bled and trailed ones the value they had; the mask tells them from
    measurements. The variance is read noise and photon noise of the frame, and the noise of bias and flat::

        VAR = (max(raw - bias, 0) / gain + (read_noise / gain)^2 (1 + 1 / n_bias)) / flat^2
              + science^2 var(flat) / flat^2

    Without any bias level the sky's noise is measured on the frame instead.

    Parameters
    ----------
    raw
        The frame.
    bias, flat
        Of its year, binning and filter; None where there is none, which the header (``BIASCORR``,
        ``FLATCORR``) and the notes say.
    roots, telescope, settings
        Where to read and write; the camera; cosmic rays, trails, how much may be bad.

    Returns
    -------
    ReducedFrame

    Raises
    ------
    StageError
        The raw file or a master is damaged or does not fit, or more than ``max_bad_fraction`` of the frame is
        unusable.
    """
    data, original = read_raw(roots.raw / raw.path, _STAGE, raw.shape)
    camera = telescope.camera
    gain = raw.gain or camera.gain
    read_noise = (bias.read_noise_e if bias and bias.read_noise_e else None) or raw.read_noise or camera.read_noise
    bias_word, bias_quality, notes = _bias_story(bias, raw, telescope)
    zero = bias_image(bias, roots, telescope, _STAGE, raw.shape, raw.binning)

    empty = ~np.isfinite(data)
    ceiling = min(camera.saturation_adu, camera.nonlinear_adu or np.inf)
    with np.errstate(invalid="ignore"):
        saturated = data >= ceiling
    mask = np.where(empty, np.uint8(MaskBit.NO_DATA), np.uint8(0))
    mask[saturated] |= np.uint8(MaskBit.SATURATED)

    data[empty] = np.nanmedian(data)
    data -= zero
    mask[bleeding(data, saturated, centre_and_noise(data[::4, ::4])[1])] |= np.uint8(MaskBit.BLEED)
    if bias_word == "NONE":
        variance = _variance_without_zero(data, gain)
    else:
        noise_bias = 1.0 + 1.0 / bias.n_combined if bias is not None else 1.0
        noise_floor = np.float32(max((read_noise / gain) ** 2 * noise_bias, _QUANTISATION))
        variance = np.asarray(np.maximum(data, 0) / np.float32(gain) + noise_floor, np.float32)
    if flat is None:
        notes.append(f"no flat in {raw.filter or 'an unknown filter'}: FLATCORR NONE")
        flat_variance = None
    else:
        response, bad, flat_variance = _read_flat(flat, raw, roots)
        mask |= bad
        mask[response < _LOW_RESPONSE] |= np.uint8(MaskBit.LOW_RESPONSE)
        data /= response
        variance = np.asarray((variance + data**2 * flat_variance) / response**2, np.float32)

    if settings.trails:
        under, lines = find_trails(data, mask != 0, settings.trail_sigma)
        mask[under] |= np.uint8(MaskBit.TRAIL)
    else:
        lines = ()
        notes.append("satellite trails not looked for")
    if settings.cosmic_rays:
        hit = cosmic_rays(
            data, variance, (mask & _HOLES) != 0, (mask & _BRIGHT) != 0, settings.cosmic_sigma, settings.cosmic_objlim
        )
        mask[hit] |= np.uint8(MaskBit.COSMIC_RAY)
    else:
        notes.append("cosmic rays not looked for")

    unusable = float(np.count_nonzero(mask)) / mask.size
    if unusable > settings.max_bad_fraction:
        counts = ", ".join(
            f"{bit.name} {np.count_nonzero(mask & bit) / mask.size:.0%}" for bit in MaskBit if np.any(mask & bit)
        )
        raise StageError(
            _STAGE,
            f"{unusable:.0%} of the frame is unusable ({counts}; at most {settings.max_bad_fraction:.0%} may be)",
            "look at the frame; a shorter exposure or a darker sky may be what it needed",
        )
    holes = (mask & np.uint8(MaskBit.BAD_PIXEL | MaskBit.COSMIC_RAY | MaskBit.NO_DATA)) != 0
    fill(data, holes)
    fill(variance, holes)

    header = science_header(raw, original, telescope.name)
    header["BUNIT"] = ("adu", "unit of the pixels")
    header["BIASCORR"] = (bias_word, "bias subtracted: a file, LEVEL or NONE")
    header["FLATCORR"] = (flat.file.path.rsplit("/", 1)[-1] if flat else "NONE", "flat divided by: a file or NONE")
    header["BIASQUAL"] = (bias_quality, "of the master bias: OK, FEW frames or NONE")
    header["NCOMBINE"] = (bias.n_combined if bias else 0, "number of frames in the master bias")
    header["COMBMETH"] = ("MEAN" if bias else "NONE", "combination of the master bias")
    if flat is not None:
        header["FLATNCMB"] = (flat.n_combined, "number of frames in the master flat")
        header["FLATMETH"] = ("MEDIAN", "combination of the master flat")
    header["GAIN"] = (gain, "[e-/adu] gain used for the variance")
    header["RDNOISE"] = (round(read_noise, 4), "[e-] read noise used for the variance")
    header["SATURATE"] = (
        round(ceiling - float(np.median(zero)), 3),
        "[adu] saturation or bend of the response, above bias",
    )
    header["NTRAILS"] = (len(lines), "number of straight trails masked")
    header["MASKFRAC"] = (round(unusable, 6), "fraction of masked pixels")
    path = roots.data / str(raw.year) / telescope.name / "reduced" / raw.night / f"{raw.name}.fits"
    write_fits(
        path,
        [
            fits.PrimaryHDU(data, header),
            fits.ImageHDU(mask, name="MASK"),
            fits.ImageHDU(variance, name="VAR"),
        ],
    )
    return ReducedFrame(
        raw=raw, file=ref(path, roots, scope="pixels"), bias=bias.file.digest if bias else None,
        flat=flat.file.digest if flat else None, gain=gain, read_noise=read_noise, masked_fraction=round(unusable, 6),
        notes=tuple(notes),
    )  # fmt: skip


def read_reduced(reduced: ReducedFrame, roots: Roots) -> tuple[FloatImage, MaskImage, FloatImage, fits.Header]:
    """Science (float32 ADU), mask (uint8), variance (float32 ADU^2), all (rows, columns) in native byte order; header.

    Raises
    ------
    StageError
        If the file is gone or damaged.
    """
    try:
        with quiet_fits(), fits.open(roots.of(reduced.file), mode="readonly", memmap=False) as hdus:
            data = np.asarray(hdus[0].data, np.float32)
            mask = np.asarray(hdus["MASK"].data, np.uint8)
            variance = np.asarray(hdus["VAR"].data, np.float32)
            header: fits.Header = hdus[0].header.copy()
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StageError(
            _STAGE, f"the reduced frame {reduced.file.path} cannot be read: {error}", "remove it; it is made again"
        ) from error
    return data, mask, variance, header
