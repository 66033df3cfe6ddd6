"""Quick-look pictures of stacks: what a person checks first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.visualization import make_lupton_rgb
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import ndimage

from models.base import FileRef, Roots
from models.stack import ExtendedStack, Stack, stack_paths
from tasks.core.files import ref, writing

__all__ = [
    "ColourImage",
    "StackView",
    "lupton",
    "plot_extended",
    "plot_rgb",
    "plot_stack",
    "rgb_bands",
    "stack_view",
    "stretched",
]

FloatImage = npt.NDArray[np.float32]

_WAVELENGTH_NM = {
    "U": 360, "B": 440, "g": 480, "OIII": 501, "V": 550, "r": 620, "R": 640, "Ha": 656, "SII": 672, "i": 760,
}  # fmt: skip
_NARROW = {"OIII", "Ha", "SII"}
_MAX_SIDE = 1600
_SKY_GREY = 0.22
_FAINT_SMOOTH_PX = 2.0
_PNG_LEVEL = 3
"""Of noise no larger than at zlib's own level 6 (M67 g: 687 and 699 kB), in a third of the time."""


class StackView(NamedTuple):
    """A stack as it is shown: binned down if it is larger than a screen.

    Attributes
    ----------
    data, weight
        float32, shape (ny, nx).
    covered
        Where there is data.
    scale
        arcsec a pixel.
    """

    data: FloatImage
    weight: FloatImage
    covered: npt.NDArray[np.bool_]
    scale: float


class ColourImage(NamedTuple):
    """A group in colour: bytes, shape (ny, nx, 3), first row south; the bands from red to blue; arcsec a pixel."""

    image: npt.NDArray[np.uint8]
    bands: tuple[str, ...]
    scale: float


def stack_view(stack: Stack, roots: Roots) -> StackView:
    """Read a stack and its weight for a picture."""
    with fits.open(roots.of(stack.image), memmap=False) as hdus:
        data, scale = np.asarray(hdus[0].data, np.float32), float(hdus[0].header["PIXSCALE"])
    weight = np.asarray(fits.getdata(roots.of(stack.weight)), np.float32)
    factor = int(np.ceil(max(data.shape) / _MAX_SIDE))
    if factor > 1:
        ny, nx = (side // factor * factor for side in data.shape)
        blocks = (ny // factor, factor, nx // factor, factor)
        data = data[:ny, :nx].reshape(blocks).mean(axis=(1, 3))
        weight = weight[:ny, :nx].reshape(blocks).mean(axis=(1, 3))
    return StackView(data, weight, weight > 0, scale * factor)


def _sky(data: FloatImage, covered: npt.NDArray[np.bool_]) -> tuple[float, float]:
    values = data[covered]
    middle = float(np.median(values))
    below = values[values <= middle]
    return middle, max(1.4826 * float(np.median(middle - below)), 1e-12)


def stretched(data: FloatImage, covered: npt.NDArray[np.bool_]) -> FloatImage:
    """Asinh from the sky (mid grey-dark) to the brightest stars; black where there is no data."""
    sky, sigma = _sky(data, covered)
    top = max(float(np.percentile(data[covered], 99.7)) - sky, 30.0 * sigma)
    soft = 3.0 * sigma
    value = np.arcsinh((data - sky) / soft) / np.arcsinh(top / soft)
    shown = _SKY_GREY + (1.0 - _SKY_GREY) * value
    return np.where(covered, np.clip(shown, 0.02, 1.0), 0.0).astype(np.float32)


def _decorate(figure: Figure, shape: tuple[int, ...], scale: float, title: str) -> Any:
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0 - 0.42 / figure.get_figheight()))
    axes.set_axis_off()
    figure.text(0.012, 1.0 - 0.21 / figure.get_figheight(), title, color="0.92", fontsize=11, va="center")
    ny, nx = shape[:2]
    field = nx * scale
    bar = next((length for length in (600, 300, 120, 60, 30, 10, 5, 2, 1) if length < field / 4), field / 4)
    text = f"{bar / 60:g}′" if bar >= 60 else f"{bar:g}″"
    x0, y0 = 0.04 * nx, 0.05 * ny
    halo: dict[str, Any] = {"color": "black", "linewidth": 4.0, "solid_capstyle": "butt"}
    line: dict[str, Any] = {"color": "0.95", "linewidth": 1.8, "solid_capstyle": "butt"}
    for style in (halo, line):
        axes.plot([x0, x0 + bar / scale], [y0, y0], **style)
    label: dict[str, Any] = {"color": "0.95", "fontsize": 10, "ha": "center", "va": "center"}
    box = {"facecolor": "black", "alpha": 0.55, "pad": 1.5, "edgecolor": "none"}
    axes.text(x0 + bar / scale / 2, y0 + 0.03 * ny, text, bbox=box, **label)
    cx, cy, arm = 0.94 * nx, 0.05 * ny, 0.06 * min(nx, ny)
    for style in (halo, line):
        axes.plot([cx, cx, cx - arm], [cy + arm, cy, cy], **style)
    axes.text(cx, cy + 1.35 * arm, "N", bbox=box, **label)
    axes.text(cx - 1.35 * arm, cy, "E", bbox=box, **label)
    axes.set_xlim(-0.5, nx - 0.5)
    axes.set_ylim(-0.5, ny - 0.5)
    return axes


def _figure(shape: tuple[int, ...]) -> Figure:
    width = 8.0
    figure = Figure(figsize=(width, width * shape[0] / shape[1] + 0.42), dpi=110, facecolor="0.08")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, stack: Stack, name: str, roots: Roots) -> FileRef:
    path = stack_paths(stack.group, stack.telescope, stack.filter, roots).plots / name
    with writing(path) as temporary:
        figure.savefig(
            temporary, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None},
            pil_kwargs={"compress_level": _PNG_LEVEL},
        )  # fmt: skip
    return ref(path, roots)


def plot_stack(stack: Stack, roots: Roots) -> FileRef:
    """Picture of a stack as ``plots/{group}_{filter}.png``: asinh stretch, sky dark grey, north up, east left.

    Returns
    -------
    FileRef
        The same stack gives the same bytes.
    """
    data, _, covered, scale = stack_view(stack, roots)
    figure = _figure(data.shape)
    title = (
        f"{stack.group}  {stack.filter}    {stack.n_combined} frames, {stack.exptime_s:.0f} s, {stack.combine.lower()}"
    )
    if stack.psf is not None:
        title += f"    FWHM {stack.psf.fwhm_arcsec:.2f}″"
    if stack.depth_5sigma is not None:
        title += f"    5σ {stack.depth_5sigma:.2f} mag"
    if not stack.calibrated:
        title += "    relative scale"
    axes = _decorate(figure, data.shape, scale, title)
    axes.imshow(stretched(data, covered), origin="lower", cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    return _save(figure, stack, f"{stack.group}_{stack.filter}.png", roots)


def plot_extended(extended: ExtendedStack, stack: Stack, roots: Roots) -> FileRef | None:
    """Picture of a stack for extended targets as ``plots/{group}_{filter}_ext.png``.

    Smoothed and stretched for faint light; an outline shows where its sky was measured.

    Returns
    -------
    FileRef or None
        None where there is no such stack.
    """
    if extended.file is None:
        return None
    data, _, covered, scale = stack_view(stack.model_copy(update={"image": extended.file}), roots)
    smooth = ndimage.gaussian_filter(data, _FAINT_SMOOTH_PX)
    figure = _figure(data.shape)
    title = f"{stack.group}  {stack.filter}    for extended targets"
    if extended.sky_fraction is not None:
        title += f"    outlined: its sky, {100 * extended.sky_fraction:.0f} % of the field"
    axes = _decorate(figure, data.shape, scale, title)
    sigma = _sky(smooth, covered)[1]
    shown = np.where(covered, np.clip(_SKY_GREY + np.arcsinh(smooth / (2.0 * sigma)) / 8.0, 0.02, 1.0), 0.0)
    axes.imshow(shown, origin="lower", cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    if extended.sky is not None:
        sky = np.asarray(fits.getdata(roots.of(extended.sky)), np.float32)
        factor = int(np.ceil(max(sky.shape) / _MAX_SIDE))
        axes.contour(
            sky[::factor, ::factor][: data.shape[0], : data.shape[1]], [0.5], colors="tab:cyan", linewidths=0.6
        )
    return _save(figure, stack, f"{stack.group}_{stack.filter}_ext.png", roots)


def rgb_bands(filters: Sequence[str]) -> tuple[str, str, str] | None:
    """Filters for red, green and blue: broad ones first, the reddest, the bluest and the one nearest the middle.

    Returns
    -------
    tuple or None
        None where there are fewer than three filters whose wavelength is known.
    """
    known = sorted((name for name in set(filters) if name in _WAVELENGTH_NM), key=lambda name: _WAVELENGTH_NM[name])
    broad = [name for name in known if name not in _NARROW]
    usable = broad if len(broad) >= 3 else known
    if len(usable) < 3:
        return None
    blue, red = usable[0], usable[-1]
    middle = (_WAVELENGTH_NM[blue] + _WAVELENGTH_NM[red]) / 2
    green = min(usable[1:-1], key=lambda name: abs(_WAVELENGTH_NM[name] - middle))
    return red, green, blue


def _filled(
    channels: Sequence[FloatImage], covered: npt.NDArray[np.bool_]
) -> tuple[list[FloatImage], npt.NDArray[np.bool_]]:
    """Pixels without data inside of the field (cores of saturated stars, bleeds) as their nearest neighbours are."""
    inside = ndimage.binary_fill_holes(covered)
    if np.array_equal(inside, covered):
        return list(channels), covered
    nearest = ndimage.distance_transform_edt(~covered, return_distances=False, return_indices=True)
    return [channel[tuple(nearest)] for channel in channels], inside


def lupton(stacks: Sequence[Stack], roots: Roots, filled: bool = False) -> ColourImage | None:
    """A group in colour (Lupton et al. 2004, PASP 116, 133), channels scaled until the typical star is white.

    The stacks share a grid, so nothing is resampled. Of two bands green is the mean; one is shown in grey.

    Parameters
    ----------
    stacks, roots
        Of one group.
    filled
        Show pixels that lack data inside of the field as their neighbours are; else black.

    Returns
    -------
    ColourImage or None
        None where there is no band of known wavelength, or no pixel that all of them cover.
    """
    by_filter = {stack.filter: stack for stack in stacks}
    bands: tuple[str, ...] | None = rgb_bands(list(by_filter))
    if bands is None:
        known = sorted((name for name in by_filter if name in _WAVELENGTH_NM), key=lambda name: -_WAVELENGTH_NM[name])
        bands = tuple(known[:1] + known[-1:] if len(known) > 1 else known or sorted(by_filter)[:1])
    if not bands:
        return None
    views = [stack_view(by_filter[band], roots) for band in bands]
    covered = np.logical_and.reduce([view.covered for view in views])
    if not covered.any():
        return None
    levels = [_sky(view.data, covered) for view in views]
    channels = [view.data - sky for view, (sky, _) in zip(views, levels, strict=True)]
    star = covered & np.logical_and.reduce(
        [channel > 15.0 * sigma for channel, (_, sigma) in zip(channels, levels, strict=True)]
    )
    if np.count_nonzero(star) >= 20:
        white = channels[len(channels) // 2]
        channels = [channel * np.float32(np.median(white[star] / channel[star])) for channel in channels]
    noise = max(_sky(channel, covered)[1] for channel in channels)
    if filled:
        channels, covered = _filled(channels, covered)
    channels = [np.where(covered, channel, -2.0 * noise) for channel in channels]
    if len(channels) == 2:
        channels.insert(1, (channels[0] + channels[1]) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):  # it divides by the intensity before it looks where that is 0
        image = make_lupton_rgb(
            channels[0], channels[len(channels) // 2], channels[-1], minimum=-2.0 * noise, stretch=15.0 * noise, Q=8
        )
    return ColourImage(image, bands, views[0].scale)


def plot_rgb(stacks: Sequence[Stack], roots: Roots) -> FileRef | None:
    """Colour picture of a group as ``plots/{group}_rgb.png`` (Lupton et al. 2004, PASP 116, 133).

    Returns
    -------
    FileRef or None
        None where there are fewer than three bands.
    """
    if rgb_bands([stack.filter for stack in stacks]) is None:
        return None
    made = lupton(stacks, roots)
    if made is None:
        return None
    image, bands, scale = made
    first = next(stack for stack in stacks if stack.filter == bands[1])
    figure = _figure(image.shape)
    title = f"{first.group}    red {bands[0]}, green {bands[1]}, blue {bands[2]}"
    axes = _decorate(figure, image.shape, scale, title)
    axes.imshow(image, origin="lower", interpolation="antialiased")
    return _save(figure, first, f"{first.group}_rgb.png", roots)
