"""A second stack for extended targets: its sky comes from where there is sky, and is of low order.

The default product's mesh follows any galaxy larger than itself and takes its light for sky. Here each frame loses one
surface of low degree (a plane), fitted together with those of all other frames (`tasks.stacking.surface`) on what
is outside the stars, and tied to the blocks of the field that lie outside all isophotes (`tasks.stacking.sources`).
Grid, weights and flux scales are those of the default product. Combined is by the weighted mean, whatever makes that: a
median loses star light when seeing varies, and restoring it would make a galaxy, which has lost none, too bright.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from models.base import Roots
from models.settings import StackSettings
from models.stack import ZERO_POINT, ExtendedStack, Grid, GroupSources, ScaledFrame, Selection, Stack, stack_paths
from models.telescope import Telescope
from tasks.core.errors import StageError
from tasks.core.files import ref
from tasks.core.fitsio import write_fits
from tasks.core.tools import scratch
from tasks.stacking.coadd import Coadd, Resampled, coadd
from tasks.stacking.combine import SwarpOptions, on_grid, run_swarp, seeing_px, write_inputs
from tasks.stacking.objects import COMPACT, EXTENDED, MIN_SHARE, block_means, deep_pixels, read_image
from tasks.stacking.sources import extended_light, grown
from tasks.stacking.surface import Blocks, SkyFit, evaluate, fit_skies, leverage
from tasks.stacking.weights import make_weights

__all__ = ["Ground", "Sky", "extend", "finish_extended", "fit_sky"]

FloatImage = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
BoolImage = npt.NDArray[np.bool_]

_GROW = (0.25, 0.15, 0.05)
"""Masks of large objects reach so much of their radius beyond the last isophote: the first that leaves sky enough."""

_SCARCE = 0.15
_ROUNDS = 5
_CLIP = 4.0
_SLOPE = 0.02
_BADLY_CARRIED = 60.0
_CELLS = 6

_OF_THE_COMBINATION = (
    "LIGHTCOR", "PHOTLIN", "PHOTLINE", "PHOTLINF", "DEPTH5S", "SBLIM1", "INVVAR", "NOISCORR",
)  # fmt: skip
"""What was measured on a median says nothing of a weighted mean."""


@dataclass(frozen=True)
class Ground:
    """What a stack's frames show in each block, all on one flux scale.

    Attributes
    ----------
    values, variance
        Mean outside compact sources, and its variance from pixel noise; NaN where a frame has too few pixels;
        shape (frames, rows, columns).
    share
        Share of each block's pixels that the stack covers outside compact sources.
    covered
        Pixels that the stack covers.
    deep
        Blocks that most frames cover.
    objects
        Blocks within isophotes of large objects, as far as known.
    """

    values: FloatArray
    variance: FloatArray
    share: FloatArray
    covered: int
    deep: BoolImage
    objects: BoolImage


@dataclass(frozen=True)
class Sky:
    """The skies of a stack's frames.

    Attributes
    ----------
    fit
        Their surfaces.
    empty
        Blocks of sky.
    fraction
        Share of the field that the sky rests on.
    rms
        Scatter of the sky's mean from one 36th of the field to the next; None: too little sky to say.
    notes
        What a reader should know.
    """

    fit: SkyFit
    empty: BoolImage
    fraction: float
    rms: float | None
    notes: tuple[str, ...] = ()


def _cell_rms(light: FloatArray, empty: BoolImage) -> float | None:
    rows, columns = np.indices(light.shape)
    cell = rows * _CELLS // light.shape[0] * _CELLS + columns * _CELLS // light.shape[1]
    use = empty & np.isfinite(light)
    means = [
        float(np.median(light[here]))
        for number in range(_CELLS**2)
        if np.count_nonzero(here := use & (cell == number)) >= 30
    ]
    return float(np.std(means, ddof=1)) if len(means) > 2 else None


def _share_of_field(ground: Ground, blocks: Blocks, empty: BoolImage) -> float:
    return float(ground.share[empty].sum() * blocks.side**2 / max(ground.covered, 1))


def _empty(ground: Ground, blocks: Blocks, objects: BoolImage) -> tuple[BoolImage, float]:
    """Blocks outside all objects, with masks as generous as the field allows, and how generous."""
    usable = (ground.share >= MIN_SHARE) & np.isfinite(ground.values).any(axis=0)
    empty, grow = usable & ~objects, 0.0
    for grow in _GROW:
        empty = usable & ~grown(objects, grow)
        if _share_of_field(ground, blocks, empty) >= _SCARCE:
            break
    return empty, grow


def fit_sky(ground: Ground, blocks: Blocks, degree: int, min_fraction: float, slope: FloatArray) -> Sky:
    """Skies of all frames, with masks of large objects that follow from what is found.

    Parameters
    ----------
    ground, blocks
        What the frames show.
    degree
        Of the surfaces.
    min_fraction
        Least share of the field that must be sky.
    slope
        How far each frame's sky is expected to be from level.

    Raises
    ------
    StageError
        If there is not sky enough.
    """
    objects = ground.objects
    for _ in range(_ROUNDS):
        empty, grow = _empty(ground, blocks, objects)
        fraction = _share_of_field(ground, blocks, empty)
        if fraction < min_fraction:
            raise StageError(
                "extended",
                f"only {100 * fraction:.1f} % of the field shows empty sky, {100 * min_fraction:g} % are needed: "
                "objects cover it, and how bright the sky is cannot be told",
                "observe a field of sky beside it, or lower --stack-extended-min-sky",
            )
        fit = fit_skies(ground.values, ground.variance, empty, blocks, degree, slope)
        found = objects | extended_light(fit.light, ground.share, ground.deep, empty)
        if np.array_equal(found, objects):
            break
        objects = found
    notes = []
    if fraction < _SCARCE:
        notes.append(
            f"the sky rests on {100 * fraction:.0f} % of the field, {100 * grow:.0f} % of their radius away from the "
            "last isophotes of its objects: it may hold some of their light"
        )
    seen = np.isfinite(fit.light)
    if degree > 0 and leverage(empty, seen, blocks, degree) > _BADLY_CARRIED:
        fit = _levelled(fit, empty, blocks)
        notes.append("sky is seen on one side of the field only: the mean tilt of the frames' skies was taken for none")
    return Sky(fit=fit, empty=empty, fraction=fraction, rms=_cell_rms(fit.light, empty), notes=tuple(notes))


def _levelled(fit: SkyFit, empty: BoolImage, blocks: Blocks) -> SkyFit:
    """The same skies with a mean slope of zero, and the light above them zero where it is empty."""
    mean = fit.coefficients.mean(axis=0)
    mean[0] = 0.0
    centre = (blocks.side - 1) / 2.0
    shape = (blocks.count[0] * blocks.side, blocks.count[1] * blocks.side)
    surface = evaluate(blocks, mean, 0, 0, shape)[int(centre) :: blocks.side, int(centre) :: blocks.side]
    light = fit.light + surface
    level = float(np.nanmedian(light[empty]))
    mean[0] = -level
    return SkyFit(fit.coefficients - mean, light - level, fit.error)


def _offset(header: fits.Header, grid: Grid) -> tuple[int, int]:
    """Grid pixel (zero-based x, y) of the first pixel of a resampled frame."""
    x = (grid.nx + 1) / 2 - float(header["CRPIX1"])
    y = (grid.ny + 1) / 2 - float(header["CRPIX2"])
    if abs(x - round(x)) > 1e-3 or abs(y - round(y)) > 1e-3:
        raise StageError(
            "extended", f"SWarp resampled a frame to a lattice off the grid's by {x % 1:.3f} {y % 1:.3f} px",
            "is it the version that flows.doctor asks for?",
        )  # fmt: skip
    return round(x), round(y)


def _frame_blocks(
    data: FloatImage, use: BoolImage, reference: FloatImage, blocks: Blocks, x0: int, y0: int
) -> tuple[FloatArray, FloatArray]:
    """Mean of frame minus reference in each block, and its variance; shape of the blocks.

    The reference takes out stars' wings and galaxies' structure, so that what is clipped are hits of cosmic rays.
    """
    values = np.full(blocks.count, np.nan)
    variance = np.full(blocks.count, np.nan)
    difference = np.where(use, data - reference, np.float32(np.nan))
    pixels, place = blocks.cut(difference, x0, y0)
    count = np.isfinite(pixels).sum(axis=2)
    enough = count >= MIN_SHARE * blocks.side**2
    if not enough.any():
        return values, variance
    ordered = np.sort(pixels[enough], axis=1)  # NaN last
    middle = np.take_along_axis(ordered, (count[enough] // 2)[:, None], axis=1)
    deviation = ordered - middle
    sigma = 1.4826 * float(np.nanmedian(np.abs(deviation)))
    good = np.abs(deviation) <= max(_CLIP * sigma, 1e-30)
    kept = np.maximum(good.sum(axis=1), 1)
    here = np.full(enough.shape, np.nan)
    here[enough] = np.where(good, ordered, 0).sum(axis=1, dtype=float) / kept
    values[place] = here
    here = np.full(enough.shape, np.nan)
    here[enough] = max(sigma, 1e-30) ** 2 / kept
    variance[place] = here
    return values, variance


def _gather(
    resampled: Sequence[Resampled],
    grid: Grid,
    reference: FloatImage,
    weight: FloatImage,
    bits: npt.NDArray[np.uint8],
) -> tuple[Ground, Blocks]:
    """What the resampled frames show in blocks."""
    blocks = Blocks.of(reference.shape)
    covered, objects = weight > 0, (bits & EXTENDED) > 0
    # What is on an object cancels in the frames' differences, and its light is not taken for sky: no need of masks.
    compact = ((bits & COMPACT) > 0) & ~objects
    base = block_means(blocks, reference, covered & ~compact)
    values, variance = [], []
    for frame in resampled:
        data, header = read_image(frame.image)
        own, _ = read_image(frame.weight)
        x0, y0 = _offset(header, grid)
        ny, nx = data.shape
        there, stars = np.zeros_like(data), np.ones(data.shape, bool)
        inner = (slice(max(0, -y0), min(ny, grid.ny - y0)), slice(max(0, -x0), min(nx, grid.nx - x0)))
        outer = tuple(slice(s.start + o, s.stop + o) for s, o in zip(inner, (y0, x0), strict=True))
        there[inner], stars[inner] = reference[outer], compact[outer]
        mean, error = _frame_blocks(
            data * np.float32(frame.scale), (own > 0) & ~stars, there, blocks, x0, y0
        )  # fmt: skip
        values.append(mean + base)
        variance.append(np.where(np.isfinite(base), error, np.nan))
    ground = Ground(
        values=np.array(values), variance=np.array(variance), share=blocks.share(covered & ~compact),
        covered=int(np.count_nonzero(covered)), deep=blocks.share(deep_pixels(weight)) >= MIN_SHARE,
        objects=blocks.share(objects) > 0,
    )  # fmt: skip
    return ground, blocks


def _level_inputs(folder: Path, n: int) -> FloatArray:
    """Take each frame's median off it before it is resampled, and say what it was.

    LANCZOS kernels ripple by some 1e-3 of the level they stand on; a constant is of no interest.
    """
    levels = []
    for index in range(n):
        path = folder / f"{index:04d}.fits"
        data, _ = read_image(path)
        weight, _ = read_image(folder / f"{index:04d}.weight.fits")
        level = float(np.median(data[weight > 0])) if np.any(weight > 0) else 0.0
        fits.PrimaryHDU(data - np.float32(level)).writeto(path, overwrite=True)
        levels.append(level)
    return np.array(levels)


def _subtract(resampled: Sequence[Resampled], grid: Grid, sky: Sky, blocks: Blocks) -> None:
    """Subtract the surfaces from the resampled frames, in place."""
    for frame, coefficients in zip(resampled, sky.fit.coefficients, strict=True):
        data, header = read_image(frame.image)
        x0, y0 = _offset(header, grid)
        surface = evaluate(blocks, coefficients, x0, y0, data.shape) / frame.scale
        fits.PrimaryHDU((data - surface).astype(np.float32), header).writeto(frame.image, overwrite=True)


def extend(
    selection: Selection,
    grid: Grid,
    stack: Stack,
    sources: GroupSources,
    roots: Roots,
    telescope: Telescope,
    settings: StackSettings,
    degree: int,
    min_sky: float,
) -> ExtendedStack:
    """Stack the frames of the default product once more, with a sky that leaves large objects alone.

    Parameters
    ----------
    selection, grid
        As for the default product.
    stack
        The default product as combined, before PSF and validation: what shows the sources, and what of their light
        its combination lost (LIGHTCOR).
    sources
        Of all the group's stacks.
    roots, telescope, settings
        As for the default product.
    degree, min_sky
        Of the sky's surfaces; least share of the field that must be sky.

    Returns
    -------
    ExtendedStack
        With the image under ``.cache``; `finish_extended` publishes it.

    Raises
    ------
    StageError
        If there is not sky enough, a frame cannot be read, or SWarp fails.
    """
    frames, _ = on_grid(selection, grid, roots)
    reference, header = read_image(roots.of(stack.image))
    weight, _ = read_image(roots.of(stack.weight))
    with fits.open(roots.of(sources.map), memmap=False) as hdus:
        bits = np.asarray(hdus[0].data, np.uint8)
    factor = np.float32(10.0 ** (0.4 * float(header.get("LIGHTCOR", 0.0))))
    with scratch(roots.scratch, "extended") as folder:
        made, sky, empty = _stacked(
            frames, grid, reference / factor, weight, bits, folder, roots, telescope, settings, (degree, min_sky),
            roots.logs / f"swarp_{stack.group}_{stack.telescope}_{stack.filter}_ext.log",
        )  # fmt: skip
    data = np.where(weight > 0, made.data, np.float32(0.0))
    clipped = float(made.clipped.sum(dtype=np.int64)) / max(int(made.used.sum(dtype=np.int64)), 1)
    limit = None
    if sky.rms is not None and sky.rms > 0 and stack.calibrated:
        limit = round(float(ZERO_POINT - 2.5 * np.log10(sky.rms / grid.pixel_scale**2)), 2)
    paths = stack_paths(stack.group, stack.telescope, stack.filter, roots)
    work = paths.work_image.with_name(paths.extended.name)
    own = fits.Header(_background_cards(degree, sky.fraction, limit))
    own["CLIPSIG"], own["CLIPFRAC"] = settings.clip_sigma, round(clipped, 6)
    write_fits(work, [fits.PrimaryHDU(data, own)])
    shown = work.with_name(f"{stack.group}_{stack.filter}_sky.fits")
    write_fits(shown, [fits.PrimaryHDU(empty.astype(np.uint8))])
    said = f"sky from {100 * sky.fraction:.0f} % of the field, a surface of degree {degree} a frame"
    if limit is not None:
        said += f", level to {limit:.1f} mag/arcsec2 over the field"
    return ExtendedStack(
        file=ref(work, roots), sky=ref(shown, roots), reason="; ".join((said, *sky.notes)),
        sky_fraction=round(sky.fraction, 4), degree=degree, sky_limit=limit,
    )  # fmt: skip


def _stacked(
    frames: Sequence[ScaledFrame],
    grid: Grid,
    reference: FloatImage,
    weight: FloatImage,
    bits: npt.NDArray[np.uint8],
    folder: Path,
    roots: Roots,
    telescope: Telescope,
    settings: StackSettings,
    asked: tuple[int, float],
    log: Path,
) -> tuple[Coadd, Sky, BoolImage]:
    resampled, seen, _ = write_inputs(frames, grid, folder, roots, telescope)
    make_weights(frames, seen, folder, roots, telescope)
    levels = _level_inputs(folder, len(frames))
    options = SwarpOptions(
        combine_type=None, center=(grid.ra, grid.dec), image_size=(grid.nx, grid.ny), pixel_scale=grid.pixel_scale,
        resampling_type=settings.resampling, back_size=settings.back_size_px, memory_mb=settings.memory_mb,
        subtract_back=False,
    )  # fmt: skip
    run_swarp(resampled, options, folder, settings.timeout_s, log)
    ground, blocks = _gather(resampled, grid, reference, weight, bits)
    # The grid may be many frames wide: a slope that is 2 % over a frame is more of it over the grid.
    wide = max(grid.nx, grid.ny) / max(max(frame.aligned.frame.raw.shape) for frame in frames)
    scales = np.array([frame.flux_scale for frame in frames])
    sky = fit_sky(ground, blocks, *asked, slope=_SLOPE * wide * np.maximum(np.abs(levels * scales), 1e-6))
    _subtract(resampled, grid, sky, blocks)
    made = coadd(resampled, grid, settings.clip_sigma, settings.memory_mb, seeing_px(frames, grid))
    return made, sky, np.asarray(blocks.spread(sky.empty), bool)


def _background_cards(degree: int, fraction: float, limit: float | None) -> list[tuple[str, object, str]]:
    cards: list[tuple[str, object, str]] = [
        ("BACKSUB", "Y", "background subtracted"),
        ("BACKMETH", "frames' surfaces on masked pixels", "how the background was found"),
        ("BACKDEG", degree, "degree of each frame's surface"),
        ("BACKFRAC", round(fraction, 4), "share of the field that is empty sky"),
    ]
    if limit is not None:
        cards.append(("BACKSB", limit, "[mag/arcsec2] scatter of the sky over the field"))
    return cards


def _as_weighted_mean(header: fits.Header, own: fits.Header) -> None:
    """Turn the cards of a median or clipped mean into those of a weighted mean."""
    if "SATURATE" in header and "LIGHTCOR" in header:
        header["SATURATE"] = round(float(header["SATURATE"]) * 10.0 ** (-0.4 * float(header["LIGHTCOR"])), 1)
    for key in _OF_THE_COMBINATION:
        header.remove(key, ignore_missing=True)
    header["COMBTYPE"] = "WEIGHTED"
    header.set("CLIPSIG", own["CLIPSIG"], "[sigma] clip against the median of the frames", after="RESAMPLE")
    header.set("CLIPFRAC", own["CLIPFRAC"], "share of the frames' pixels clipped", after="CLIPSIG")


def finish_extended(extended: ExtendedStack, stack: Stack, roots: Roots) -> ExtendedStack:
    """Publish a stack for extended targets, tied to PS1 like the default one, with its header.

    Parameters
    ----------
    extended
        As `extend` made it.
    stack
        The default product, finished.
    roots
        Data root.

    Returns
    -------
    ExtendedStack
        With the file ``{group}_{filter}_ext.fits``.

    Raises
    ------
    StageError
        If one of the images cannot be read.
    """
    if extended.file is None:
        return extended
    data, own = read_image(roots.of(extended.file))
    _, header = read_image(roots.of(stack.image))
    raised = stack.tie.offset if stack.tie is not None else 0.0
    for key in ("CHECKSUM", "DATASUM"):
        header.remove(key, ignore_missing=True)
    limit = None if extended.sky_limit is None else round(extended.sky_limit - raised, 2)
    place = "BACKSUB"
    for key, value, comment in _background_cards(int(own["BACKDEG"]), float(own["BACKFRAC"]), limit)[1:]:
        header.set(key, value, comment, after=place)
        place = key
    header.remove("BACKSIZE", ignore_missing=True)
    if header.get("COMBTYPE") != "WEIGHTED":
        _as_weighted_mean(header, own)
    path = stack_paths(stack.group, stack.telescope, stack.filter, roots).extended
    write_fits(path, [fits.PrimaryHDU(data * np.float32(10.0 ** (0.4 * raised)), header)])
    return extended.model_copy(update={"file": ref(path, roots), "sky_limit": limit})
