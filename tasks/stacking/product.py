"""A stack as it is published: its header, and the last step that adds what was measured on it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from astropy.io import fits

from models.base import FileRef, Roots
from models.settings import StackSettings
from models.stack import (
    ZERO_POINT,
    Grid,
    ScaledFrame,
    Selection,
    Stack,
    StackColour,
    StackLinearity,
    StackNoise,
    StackPsf,
    StackTie,
    StackValidation,
    stack_paths,
)
from models.telescope import Telescope
from tasks.core.errors import StageError
from tasks.core.files import ref
from tasks.core.fitsio import write_fits
from tasks.core.tools import tool_version
from tasks.stacking.grid import grid_header
from tasks.stacking.heads import frame_label
from tasks.stacking.light import LightLoss

__all__ = ["finish_stack", "map_header", "stack_header", "weight_header"]


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}"


def _mjd(time: datetime) -> float:
    return round(time.timestamp() / 86400.0 + 40587.0, 8)


def _identity(selection: Selection, n_combined: int, grid: Grid, telescope: Telescope, combine: str) -> fits.Header:
    header = fits.Header()
    header["OBJECT"] = (selection.group, "target group")
    header["FILTER"] = (selection.filter, "filter band")
    header["TELESCOP"] = (telescope.name, "telescope")
    header["NCOMBINE"] = (n_combined, "number of input frames")
    header["COMBTYPE"] = (combine.upper(), "combination method")
    header["PIXSCALE"] = (grid.pixel_scale, "[arcsec/px] pixel scale")
    header.extend(grid_header(grid), strip=False)
    return header


def _photometry(frames: Sequence[ScaledFrame], settings: StackSettings) -> list[tuple[str, object, str]]:
    sources = sorted({frame.scale_source for frame in frames})
    how = ("PHOTHOW", "; ".join(sources), "how the frames' scale is known")
    if any(frame.zero_point is None for frame in frames):
        return [
            ("BUNIT", "adu/s", "relative: ADU/s of the median frame"),
            ("PHOTCAL", "RELATIVE", "no zero point: the scale is relative"),
            how,
        ]
    continuum = any("continuum" in source for source in sources)
    note = "[mag] zero point for continuum stars" if continuum else "[mag] photometric zero point"
    return [
        ("BUNIT", "adu", "flux units scaled to PHOTZP"),
        ("PHOTZP", ZERO_POINT, note),
        ("PHOTCAL", "CONTINUUM" if continuum else "PS1", "what the zero point rests on"),
        how,
    ]


def stack_header(
    selection: Selection,
    frames: Sequence[ScaledFrame],
    grid: Grid,
    telescope: Telescope,
    settings: StackSettings,
    linear_limit: float,
    loss: LightLoss | None,
    linearity: StackLinearity | None,
    clipped: float | None,
) -> fits.Header:
    """Header of a stack but for what is measured on it; the same inputs give the same cards.

    Parameters
    ----------
    selection
        Group and filter.
    frames
        Those combined, in the order of SWarp's inputs.
    grid, telescope, settings
        Of the stack.
    linear_limit
        Level up to which every frame is linear, in the stack's units.
    loss
        Star light that the combination lost and that was restored.
    linearity
        Faint stars against bright ones.
    clipped
        Share of the frames' pixels that our weighted mean left out; None: not ours.
    """
    header = _identity(selection, len(frames), grid, telescope, settings.combine)
    place = "TELESCOP"
    for key, value, comment in _photometry(frames, settings):
        _set(header, key, value, comment, place)
        place = key
    raws = [frame.aligned.frame.raw for frame in frames]
    start = min(raw.date_obs for raw in raws)
    end = max(raw.date_obs + timedelta(seconds=raw.exptime) for raw in raws)
    header["EXPTOTAL"] = (round(sum(raw.exptime for raw in raws), 3), "[s] sum of the exposure times")
    header["DATE-OBS"] = (_iso(start), "[UTC] start of the first exposure")
    header["DATE-END"] = (_iso(end), "[UTC] end of the last exposure")
    header["MJD-OBS"] = (_mjd(start), "[d] start of the first exposure")
    header["MJD-END"] = (_mjd(end), "[d] end of the last exposure")
    header["BACKSUB"] = ("Y", "background subtracted")
    header["BACKSIZE"] = (settings.back_size_px, "[px] background mesh size")
    header["RESAMPLE"] = (settings.resampling, "resampling kernel")
    if loss is not None:
        header["LIGHTCOR"] = (round(loss.magnitude, 5), "[mag] star light that COMBTYPE lost: restored")
    if linearity is not None:
        header["PHOTLIN"] = (round(linearity.magnitude, 5), "[mag] faint minus bright stars, against the mean")
        header["PHOTLINE"] = (round(linearity.error, 5), "[mag] error of PHOTLIN")
        header["PHOTLINF"] = (linearity.bent, "abs(PHOTLIN) is above 0.010, significantly")
    if clipped is not None:
        header["CLIPSIG"] = (settings.clip_sigma, "[sigma] clip of the frames about their median")
        header["CLIPFRAC"] = (round(clipped, 8), "share of the frames' pixels that was clipped")
    header["SATURATE"] = (round(linear_limit, 1), "[adu] every frame is linear below this")
    header["SOFTWARE"] = (
        tool_version("SWarp"),
        "what resampled" + (" and combined" if settings.combine == "clipped" else ""),
    )
    for number, frame in enumerate(frames, start=1):
        header[f"INP{number:04d}"] = (frame_label(frame.aligned), "input frame" if number == 1 else "")
        if frame.zero_point is not None:
            comment = "[mag] its zero point for 1 ADU/s" if number == 1 else ""
            header[f"ZPT{number:04d}"] = (round(frame.zero_point, 5), comment)
    return header


def weight_header(
    selection: Selection, n_combined: int, grid: Grid, telescope: Telescope, settings: StackSettings
) -> fits.Header:
    """Header of a weight map."""
    header = _identity(selection, n_combined, grid, telescope, settings.combine)
    header.set("BUNIT", "adu**(-2)", "1 / variance of the background; 0: no data", before="NCOMBINE")
    return header


def map_header(
    selection: Selection, n_combined: int, grid: Grid, telescope: Telescope, settings: StackSettings, what: str
) -> fits.Header:
    """Header of a map of counts."""
    header = _identity(selection, n_combined, grid, telescope, settings.combine)
    header.set("MAPTYPE", what, before="NCOMBINE")
    return header


def _noise_cards(noise: StackNoise | None) -> list[tuple[str, object, str]]:
    if noise is None:
        return []
    return [
        ("INVVAR", float(f"{noise.inverse_variance:.6g}"), "pixel: 1 / variance = INVVAR * weight"),
        ("NOISCORR", round(noise.correlation, 4), "noise of 2 FWHM apertures over white"),
    ]


def _colour(colour: StackColour) -> list[tuple[str, object, str]]:
    cards: list[tuple[str, object, str]] = [
        ("PHOTCT", round(colour.term, 4), "colour term of the natural system"),
        ("PHOTCTE", round(colour.error, 4), "error of PHOTCT"),
        ("PHOTC2", colour.curvature, "curvature, fixed (Tonry et al. 2012)"),
    ]
    if colour.date:
        cards.append(("PHOTCTD", colour.date, "last night PHOTCT was fitted on"))
    cards.append(("PHOTEQ", colour.equation, "what PHOTZP gives"))
    if colour.vega_zp is not None and colour.vega_term is not None:
        cards += [
            ("VEGAZP", round(colour.vega_zp, 4), "[mag] zero point in the Vega system"),
            ("VEGACT", round(colour.vega_term, 4), "colour term of VEGAZP"),
            ("VEGAEQ", colour.vega_equation, "how"),
        ]
    return cards


def _measured(
    psf: StackPsf | None,
    tie: StackTie | None,
    validation: StackValidation | None,
    depth_5sigma: float | None,
    noise: StackNoise | None,
) -> list[tuple[str, object, str]]:
    cards: list[tuple[str, object, str]] = []
    if psf is not None:
        cards += [
            ("FWHM_PX", round(psf.fwhm_px, 4), "[px] FWHM of the stack's PSF"),
            ("FWHM_AS", round(psf.fwhm_arcsec, 4), "[arcsec] FWHM of the stack's PSF"),
        ]
    else:
        cards.append(("PSFSTAT", "NONE", "the stack's PSF could not be measured"))
    if validation is not None:
        cards += [
            ("PHOTCHK", bool(validation.validated), "zero point validated against PS1"),
            ("PHOTNSTR", validation.n_stars, "number of stars of the ZP validation"),
        ]
        if validation.zp_rms is not None:
            cards.append(("PHOTRMS", round(validation.zp_rms, 5), "[mag] rms of the ZP validation"))
        if validation.zp_offset is not None:
            how = "too faint by this" if tie is None else "half of the stars, tied by the others"
            cards.append(("PHOTOFF", round(validation.zp_offset, 5), f"[mag] {how}"))
        if not validation.validated and validation.reason:
            cards.append(("PHOTWHY", _ascii(validation.reason), "why not validated"))
    if tie is not None:
        cards += [
            ("PHOTTIE", tie.offset, "[mag] flux was raised by this to fit PS1"),
            ("PHOTTIEE", tie.err, "[mag] error of PHOTTIE"),
            ("PHOTTIEN", tie.n_stars, "stars PHOTTIE rests on"),
        ]
    if depth_5sigma is not None:
        cards.append(("DEPTH5S", round(depth_5sigma, 4), "[mag] 5 sigma, point source, 2 FWHM aperture"))
    if noise is not None:
        if noise.surface_brightness is not None:
            cards.append(("SBLIM1", round(noise.surface_brightness, 4), "[mag/arcsec2] 1 sigma in 1 arcsec2"))
        cards += _noise_cards(noise)
    return cards


def _set(header: fits.Header, key: str, value: object, comment: str, after: str) -> None:
    """Insert a card; a text that fills its card has no comment (astropy would cut it with a warning)."""
    text = isinstance(value, str) and len(value) + len(comment) > 62
    header.set(key, value, "" if text else comment, after=after)


def _ascii(text: str) -> str:
    return re.sub(r"[^ -~]", "?", text)


def _republish(
    source: Path, target: Path, cards: Sequence[tuple[str, object, str]], after: str, scale: float = 1.0
) -> None:
    try:
        with fits.open(source, memmap=False) as hdus:
            header, data = hdus[0].header.copy(), np.asarray(hdus[0].data, np.float32)
    except (OSError, ValueError, TypeError) as error:
        raise StageError(
            "stacking", f"the stack {source.name} cannot be read: {error}", "stack the group again"
        ) from error
    for key in ("CHECKSUM", "DATASUM"):
        header.remove(key, ignore_missing=True)
    if scale != 1.0:
        data = (data * np.float32(scale)).astype(np.float32)
        if "SATURATE" in header:
            header["SATURATE"] = round(float(header["SATURATE"]) * scale, 1)
    place = after
    for key, value, comment in cards:
        _set(header, key, value, comment, place)
        place = key
    write_fits(target, [fits.PrimaryHDU(data, header)])


def _raised(noise: StackNoise, magnitude: float) -> StackNoise:
    """The noise of an image whose flux is raised: the weights fall by as much, so INVVAR and NOISCORR stand."""
    brightness = noise.surface_brightness
    return noise.model_copy(
        update={
            "aperture_sigma": noise.aperture_sigma * 10.0 ** (0.4 * magnitude),
            "surface_brightness": None if brightness is None else brightness - magnitude,
        }
    )


def _publish_map(made: FileRef | None, target: Path, roots: Roots) -> FileRef | None:
    """Publish a map of counts; without one, what an earlier run published is of another stack and goes."""
    if made is None:
        target.unlink(missing_ok=True)
        return None
    source = roots.of(made)
    try:
        with fits.open(source, memmap=False) as hdus:
            header, counts = hdus[0].header.copy(), np.asarray(hdus[0].data, np.int16)
    except (OSError, ValueError, TypeError) as error:
        raise StageError("stacking", f"the map {source.name} cannot be read: {error}", "stack again") from error
    for key in ("CHECKSUM", "DATASUM"):
        header.remove(key, ignore_missing=True)
    write_fits(target, [fits.PrimaryHDU(counts, header)])
    return ref(target, roots)


def finish_stack(
    stack: Stack,
    psf: StackPsf | None,
    validation: StackValidation | None,
    roots: Roots,
    depth_5sigma: float | None = None,
    noise: StackNoise | None = None,
) -> Stack:
    """Publish a stack: image and weight under ``stacks/``, with what was measured on it in the image's header.

    Parameters
    ----------
    stack
        As `combine` made it.
    psf, validation, depth_5sigma, noise
        Of the stack (depth and noise as measured before ``stack.tie`` is applied). What is None is not known, which the
        header says (``PSFSTAT``, no ``PHOTCHK``).
    roots
        Data root.

    Returns
    -------
    Stack
        With the published files.

    Raises
    ------
    StageError
        If the combined image is gone or damaged.
    """
    paths = stack_paths(stack.group, stack.telescope, stack.filter, roots)
    depth = depth_5sigma if depth_5sigma is not None else stack.depth_5sigma
    raised = stack.tie.offset if stack.tie is not None else 0.0
    if depth is not None:
        depth -= raised
    if noise is not None:
        noise = _raised(noise, raised)
    cards = _measured(psf, stack.tie, validation, depth, noise)
    if stack.colour is not None:
        cards += _colour(stack.colour)
    _republish(roots.of(stack.image), paths.image, cards, after="PIXSCALE", scale=10.0 ** (0.4 * raised))
    # An inverse variance in the units of an image that is raised falls with the square of it.
    _republish(
        roots.of(stack.weight), paths.weight, _noise_cards(noise), after="PIXSCALE", scale=10.0 ** (-0.8 * raised)
    )
    rejected_map = _publish_map(stack.rejected_map, paths.rejected, roots)
    coverage_map = _publish_map(stack.coverage_map, paths.coverage, roots)
    return stack.model_copy(
        update={
            "image": ref(paths.image, roots),
            "weight": ref(paths.weight, roots),
            "psf": psf,
            "validation": validation,
            "depth_5sigma": depth,
            "noise": noise,
            "rejected_map": rejected_map,
            "coverage_map": coverage_map,
        }
    )
