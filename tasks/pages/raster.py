"""Stacks, weights and colour as WebP, small enough for a page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from matplotlib import colormaps
from PIL import Image
from scipy import ndimage

from models.base import Roots
from models.page import Picture
from models.stack import Stack
from tasks.core.files import ref, writing
from tasks.stacking import StackView, lupton, stack_view, stretched

__all__ = ["Colour", "colour_picture", "overlay_picture", "thumbnail", "view_picture", "weight_picture"]

_VIEW_SIDE, _VIEW_BYTES = 720, 60_000
_WEIGHT_SIDE, _WEIGHT_BYTES = 360, 20_000
_COLOUR_SIDE, _COLOUR_BYTES = 1600, 420_000
_OVERLAY_BYTES = 120_000
_THUMBNAIL_SIDE, _THUMBNAIL_BYTES = 240, 14_000
_QUALITIES = (85, 75, 65, 55, 45, 35, 25, 15)
_LEAST_COVERAGE = 0.7
_LINE_SIGMA = 3.0
_LINE_SHARE = 0.2
"""Of the continuum: a star whose seeing differs leaves less behind, an H II region much more."""
_LINE_COLOUR = (255, 64, 129)

ByteImage = npt.NDArray[np.uint8]


def _smaller(image: Image.Image, side: int) -> Image.Image:
    factor = max(image.size) / side
    if factor <= 1:
        return image
    size = max(1, round(image.width / factor)), max(1, round(image.height / factor))
    return image.resize(size, Image.Resampling.LANCZOS)


def _encoded(image: Image.Image, most: int) -> bytes:
    """As WebP, at the best quality that keeps it below so many bytes."""
    content = b""
    for quality in _QUALITIES:
        sink = io.BytesIO()
        image.save(sink, "WEBP", quality=quality, method=4)
        content = sink.getvalue()
        if len(content) <= most:
            break
    return content


def _write(image: Image.Image, side: int, most: int, path: Path, alt: str, roots: Roots) -> Picture:
    small = _smaller(image, side)
    with writing(path) as temporary:
        temporary.write_bytes(_encoded(small, most))
    return Picture(file=ref(path, roots), alt=alt, width=small.width, height=small.height)


def _shown(values: npt.NDArray[Any]) -> ByteImage:
    """Levels 0 to 1 as bytes, north (the last row) up."""
    levels: ByteImage = np.clip(np.nan_to_num(values) * 255.0 + 0.5, 0, 255).astype(np.uint8)
    return levels[::-1]


def view_picture(stack: Stack, view: StackView, path: Path, roots: Roots) -> Picture:
    """The stack in grey: asinh from the sky to the brightest stars."""
    image = Image.fromarray(_shown(stretched(view.data, view.covered)))
    field = f"{view.data.shape[1] * view.scale / 60:.1f} by {view.data.shape[0] * view.scale / 60:.1f} arcminutes"
    alt = f"{stack.group} in {stack.filter}, {stack.n_combined} frames combined, {field}, north up, east left"
    return _write(image, _VIEW_SIDE, _VIEW_BYTES, path, alt, roots)


def weight_picture(stack: Stack, view: StackView, path: Path, roots: Roots) -> Picture:
    """The weight map, from nothing (black, outside of all frames) to its largest values (yellow)."""
    top = float(np.percentile(view.weight[view.covered], 99.0)) if view.covered.any() else 1.0
    level = np.clip(view.weight / (top or 1.0), 0.0, 1.0)
    colours = colormaps["cividis"](level[::-1], bytes=True)[..., :3]
    colours[~view.covered[::-1]] = 0
    share = 100.0 * float(view.covered.mean())
    alt = f"Weight map of {stack.group} in {stack.filter}: {share:.0f} percent of the grid is covered"
    return _write(Image.fromarray(colours), _WEIGHT_SIDE, _WEIGHT_BYTES, path, alt, roots)


def _said(bands: tuple[str, ...]) -> str:
    if len(bands) == 3:
        return f"red {bands[0]}, green {bands[1]}, blue {bands[2]}"
    return f"red {bands[0]}, blue {bands[1]}, green their mean" if len(bands) == 2 else f"{bands[0]} alone, in grey"


class Colour(NamedTuple):
    """What came of a group's colour picture.

    Attributes
    ----------
    large, small
        The picture in its own pixels; the index's thumbnail of it.
    bands
        Red, green, blue; two; or one.
    box
        Rows and columns of the grid that are shown, north up.
    field
        Their width and height, arcsec.
    """

    large: Picture
    small: Picture
    bands: tuple[str, ...]
    box: tuple[slice, slice]
    field: tuple[float, float]


def _wide_enough(stacks: Sequence[Stack], roots: Roots) -> list[Stack]:
    """Those that cover most of what the widest one does: one frame of another pointing shall not crop the picture."""
    areas = [int(np.count_nonzero(np.asarray(fits.getdata(roots.of(stack.weight))) > 0)) for stack in stacks]
    return [stack for stack, area in zip(stacks, areas, strict=True) if area >= _LEAST_COVERAGE * max(areas)]


def colour_picture(stacks: Sequence[Stack], path: Path, small: Path, roots: Roots) -> Colour | None:
    """Colour picture of a group where its bands cover the sky, gaps filled.

    None where no pixel is covered in all its bands.
    """
    made = lupton(_wide_enough(stacks, roots), roots, filled=True)
    if made is None:
        return None
    image, bands, scale = np.ascontiguousarray(made.image[::-1]), made.bands, made.scale
    rows, columns = (np.flatnonzero(image.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    if not rows.size:
        return None
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    picture = Image.fromarray(np.ascontiguousarray(image[box]))
    field = picture.width * scale, picture.height * scale
    group = stacks[0].group
    size = f"{field[0] / 60:.1f} by {field[1] / 60:.1f} arcminutes"
    alt = f"{group}, {_said(bands)}; {size}, north up, east left"
    large = _write(picture, _COLOUR_SIDE, _COLOUR_BYTES, path, alt, roots)
    return Colour(large, thumbnail(picture, group, small, roots), bands, box, field)


def thumbnail(picture: Image.Image, group: str, path: Path, roots: Roots) -> Picture:
    """The middle of it, square."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    middle = picture.crop((left, top, left + side, top + side))
    return _write(middle, _THUMBNAIL_SIDE, _THUMBNAIL_BYTES, path, f"{group} in colour", roots)


def _alike(
    line: Stack, narrow: StackView, broad: Stack, wide: StackView, covered: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Both above their sky, the sharper one blurred to the other's width: stars would leave rings else."""
    images = [np.where(covered, view.data - np.median(view.data[covered]), 0.0) for view in (narrow, wide)]
    if line.psf is not None and broad.psf is not None:
        widths = [line.psf.fwhm_arcsec / narrow.scale, broad.psf.fwhm_arcsec / wide.scale]
        sharper = int(widths[1] < widths[0])
        blur = float(np.sqrt(abs(widths[0] ** 2 - widths[1] ** 2))) / 2.3548
        images[sharper] = ndimage.gaussian_filter(images[sharper], blur)
    return images[0].astype(np.float32), images[1].astype(np.float32)


def overlay_picture(
    stacks: Sequence[Stack],
    continuum: Mapping[str, str | None],
    box: tuple[slice, slice],
    path: Path,
    roots: Roots,
) -> tuple[Picture | None, str]:
    """Line emission over the colour picture: a narrow band without its continuum, transparent where there is none.

    Parameters
    ----------
    stacks
        Of the group.
    continuum
        Broad band by narrow band, as the profile says.
    box
        Rows and columns that the colour picture shows.
    path, roots
        Where it goes.

    Returns
    -------
    picture, how
        None with the reason where it cannot be made. An ordinary star leaves nothing: a calibrated narrow band has the
        zero point of its continuum; of a relative one the bright pixels tell the scale.
    """
    by_filter = {stack.filter: stack for stack in stacks}
    line = by_filter.get("Ha")
    if line is None:
        return None, ""
    wanted = [continuum.get("Ha"), "r", "R", "i", "V"]
    broad = next((by_filter[name] for name in wanted if name in by_filter), None)
    if broad is None:
        return None, "No Hα overlay: no broad band to take the continuum from."
    narrow_view, broad_view = stack_view(line, roots), stack_view(broad, roots)
    covered = narrow_view.covered & broad_view.covered
    if not covered.any():
        return None, f"No Hα overlay: Ha and {broad.filter} have no pixel in common."
    narrow, wide = _alike(line, narrow_view, broad, broad_view, covered)
    noise = 1.4826 * float(np.median(np.abs(wide[covered])))
    bright = covered & (wide > 20.0 * noise)
    if line.calibrated and broad.calibrated:
        ratio = 1.0  # the zero point of a narrow band is that of its continuum
    elif np.count_nonzero(bright) < 50:
        return None, f"No Hα overlay: too few bright pixels in {broad.filter} to scale the continuum by."
    else:
        ratio = float(np.median(narrow[bright] / wide[bright]))
    left = ndimage.gaussian_filter(np.where(covered, narrow - ratio * wide, 0.0), 1.2)
    sigma = 1.4826 * float(np.median(np.abs(left[covered] - np.median(left[covered])))) or 1.0
    # Against the brightest continuum within a seeing disk: wings of stars are never quite alike.
    disk = max(3, round(2.0 * line.psf.fwhm_arcsec / narrow_view.scale)) if line.psf is not None else 9
    peaks = ndimage.maximum_filter(np.maximum(wide, 0.0), size=disk)
    real = covered & (left > _LINE_SIGMA * sigma) & (left > _LINE_SHARE * ratio * peaks)
    real = ndimage.binary_opening(real, iterations=1)
    top = max(float(np.percentile(left[real], 99.0)) if real.any() else 0.0, 10.0 * sigma)
    level = np.arcsinh(left / (2.0 * sigma)) / np.arcsinh(top / (2.0 * sigma))
    alpha = _shown(np.where(real, np.clip(level, 0.0, 1.0), 0.0) * 0.9)[box]
    layer = np.empty((*alpha.shape, 4), np.uint8)
    layer[..., :3], layer[..., 3] = _LINE_COLOUR, alpha
    share = 100.0 * np.count_nonzero(real) / np.count_nonzero(covered)
    alt = f"Hα emission of {line.group}, {share:.1f} percent of the field, drawn in pink over the colour picture"
    picture = _write(Image.fromarray(layer, "RGBA"), _COLOUR_SIDE, _OVERLAY_BYTES, path, alt, roots)
    return picture, f"Hα without its continuum ({ratio:.3f} × {broad.filter}), {_LINE_SIGMA:g}σ and more, in pink"
