"""The bands of a group as they are measured: pixels, noise, PSF and what the headers say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import sep
from astropy.io import fits
from astropy.wcs import WCS
from scipy import ndimage

from models.base import Roots
from models.stack import Stack
from models.telescope import Telescope
from tasks.core.errors import StageError
from tasks.core.masks import grown, opened

__all__ = [
    "BandImage",
    "BoolImage",
    "FloatArray",
    "FloatImage",
    "band_token",
    "read_bands",
    "robust",
    "sky_of_image",
    "zero_point_error",
]

FloatImage = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
BoolImage = npt.NDArray[np.bool_]

_MESH_PX = 64
_ENOUGH = 150_001
"""Pixels of which a scatter is taken; odd, so that a stride does not follow the columns."""
_WING_BETA = 3.0
_WING_REACH = 15
"""PSF images are continued to so many pixels from the centre: a bright neighbour's light reaches further than they."""
_MEDIAN_NOISE = {1: 1.0, 2: 1.0, 3: 1.35, 4: 1.19, 5: 1.43, 6: 1.29}
"""Variance of the median of N normal values over that of their mean (order statistics); beyond 6 nearly pi / 2."""


class BandImage(NamedTuple):
    """One band of a group on the shared grid.

    Attributes
    ----------
    data
        Stack above its smooth sky, float32, 0 where there is no data.
    bad
        No data.
    variance
        Of a pixel of sky, its neighbours left out of account; 0 where there is no data.
    psf
        Sum 1, float64, odd side; continued by a Moffat's wings. None: the band has no PSF.
    gain
        Electrons per unit of the stack, of all frames together, less what a median wastes of them.
    solitude
        Variance of the few frames that a median takes a bright star's light from, over that of the median of all on
        sky; 1: a mean.
    frame_sigma
        Noise of one frame over that of the stack.
    """

    filter: str
    column: str
    data: FloatImage
    bad: BoolImage
    weight: FloatImage
    variance: FloatImage
    header: fits.Header
    zero_point: float | None
    zero_point_error: float
    fwhm_px: float
    psf: FloatArray | None
    gain: float
    solitude: float
    frame_sigma: float
    saturation: float

    @property
    def wcs(self) -> WCS:
        """World coordinates of the grid."""
        return WCS(self.header)


def robust(values: npt.NDArray[np.floating]) -> float:
    """Standard deviation from the median absolute deviation; 0 of nothing. Of images every n-th pixel is enough."""
    some = values.ravel()[:: max(1, values.size // _ENOUGH)]
    return 1.4826 * float(np.median(np.abs(some - np.median(some)))) if some.size else 0.0


def band_token(filter: str, telescope: Telescope) -> str:
    """Ending of a filter's columns: its name, and ``Rc`` for R where the telescope also has r.

    Names of columns differ by more than case (FITS standard 4.0, section 7.2.1; ADQL).
    """
    others = {band.name for band in telescope.bands if band.name != filter}
    return f"{filter}c" if filter.isupper() and filter.lower() in others else filter


def sky_of_image(data: FloatImage, bad: BoolImage) -> tuple[FloatImage, BoolImage]:
    """Smooth sky of an image, and where sources stand above it (2.5 sigma of the smoothed image)."""
    occupied = bad
    light = np.zeros_like(data)
    for _ in range(2):
        light = sep.Background(data, mask=occupied, bw=_MESH_PX, bh=_MESH_PX).back(dtype=np.float32)
        smooth = ndimage.gaussian_filter(np.where(bad, 0, data - light), 1.5)
        above = smooth > 2.5 * robust(smooth[~bad])
        occupied = grown(opened(above), 2, diagonal=False) | bad
        if np.count_nonzero(~occupied) < 0.02 * occupied.size:
            break
    return light, occupied


def _continued(psf: FloatArray) -> FloatArray:
    """A PSF image with the light of a Moffat's wings beyond its rim (r**-6 for beta 3), sum 1 of the whole."""
    half = psf.shape[0] // 2
    reach = max(half, _WING_REACH)
    wide = np.zeros((2 * reach + 1,) * 2)
    rows, columns = np.indices(wide.shape) - reach
    distance = np.hypot(rows, columns)
    inner = np.s_[reach - half : reach + half + 1, reach - half : reach + half + 1]
    rim = (distance[inner] > 0.8 * half) & (distance[inner] <= half)
    level = max(float(np.mean(psf[rim] * distance[inner][rim] ** (2 * _WING_BETA))), 0.0)
    wide[:] = level * np.maximum(distance, 1.0) ** (-2 * _WING_BETA)
    wide[inner] = psf
    return np.asarray(wide / wide.sum())


def _loss(header: fits.Header) -> float:
    """Variance of how the frames were combined over that of their mean."""
    if str(header.get("COMBTYPE")) != "MEDIAN":
        return 1.0
    return _MEDIAN_NOISE.get(int(header.get("NCOMBINE", 1)), math.pi / 2)


def _solitude(header: fits.Header) -> float:
    """Where frames of mixed seeing differ by more than their noise, their median is the middle one, or two."""
    if str(header.get("COMBTYPE")) != "MEDIAN":
        return 1.0
    n = int(header.get("NCOMBINE", 1))
    return max(n / (2 - n % 2) / _loss(header), 1.0)


def _gain(header: fits.Header, telescope: Telescope) -> float:
    """Electrons per unit of the stack that all frames together caught, as a mean of them has it.

    A frame holds ``EXPTIME * 10**(0.4 (ZP - 30))`` ADU per unit; the sum over the frames is taken with their median
    zero point, since the header has their total exposure time only.
    """
    exposure = float(header.get("EXPTOTAL", 0.0))
    points = [float(value) for value in header["ZPT*"].values()]
    zero = header.get("PHOTZP")
    per_unit = 10.0 ** (0.4 * (float(np.median(points)) - float(zero))) if points and zero is not None else 1.0
    return max(telescope.camera.gain * exposure * per_unit / _loss(header), 1e-12)


def _read(stack: Stack, roots: Roots) -> tuple[fits.Header, FloatImage, FloatImage]:
    try:
        with fits.open(roots.of(stack.image), memmap=False) as hdus:
            header, data = hdus[0].header.copy(), np.ascontiguousarray(hdus[0].data, np.float32)
        weight = np.ascontiguousarray(fits.getdata(roots.of(stack.weight)), np.float32)
    except (OSError, TypeError, ValueError) as error:
        raise StageError("source list", f"a stack cannot be read: {error}", "stack the group again") from error
    if data.ndim != 2 or data.shape != weight.shape:
        raise StageError(
            "source list", f"stack {data.shape} and weight map {weight.shape} differ", "stack the group again"
        )
    return header, data, weight


def read_bands(stacks: Sequence[Stack], roots: Roots, telescope: Telescope) -> list[BandImage]:
    """Finished stacks of a group, each above its smooth sky.

    Raises
    ------
    StageError
        If one cannot be read, or they are not on one grid.
    """
    bands: list[BandImage] = []
    for stack in stacks:
        header, data, weight = _read(stack, roots)
        bad = ~((weight > 0) & np.isfinite(data) & np.isfinite(weight))
        if bad.all():
            raise StageError("source list", f"{stack.image.path} has no weight anywhere", "look at its frames")
        if bands and data.shape != bands[0].data.shape:
            shapes = f"{bands[0].data.shape} and {data.shape}"
            raise StageError("source list", f"the group's stacks have shapes {shapes}", "stack the group again")
        data = np.where(bad, 0, data).astype(np.float32)
        sky, occupied = sky_of_image(data, bad)
        data = np.where(bad, 0, data - sky).astype(np.float32)
        free = ~occupied if np.count_nonzero(~occupied) > 1000 else ~bad
        inverse = header.get("INVVAR")
        if inverse is None:
            inverse = robust(data[free] * np.sqrt(weight[free])) ** -2
        variance = np.where(bad, 0, 1.0 / (float(inverse) * np.where(bad, 1, weight))).astype(np.float32)
        zero = header.get("PHOTZP")
        bands.append(
            BandImage(
                filter=stack.filter,
                column=band_token(stack.filter, telescope),
                data=np.ascontiguousarray(data),
                bad=bad,
                weight=weight,
                variance=np.ascontiguousarray(variance),
                header=header,
                zero_point=None if zero is None else float(zero),
                zero_point_error=zero_point_error(header),
                fwhm_px=float(header.get("FWHM_PX", 4.0)),
                psf=None if stack.psf is None else _continued(_stamp(stack, roots)),
                gain=_gain(header, telescope),
                solitude=_solitude(header),
                frame_sigma=math.sqrt(int(header.get("NCOMBINE", 1)) / _loss(header)),
                saturation=float(header.get("SATURATE", np.inf)),
            )
        )
    return bands


_LEAST_ZERO_POINT_ERROR = 0.005
"""Of stacks whose stars agree perfectly: what all stars share, colour terms and PS1 among it, mag (docs/truth.md)."""


_NARROW_ZERO_POINT_ERROR = 0.02
"""Of a narrow band, tied to the continuum of stars: rms of Ha's offsets from the truth (docs/truth.md)."""
_COLOUR_SPREAD = 0.5
"""Of the stars' g - r about its mean, mag: the lever of a colour term's error."""


def zero_point_error(header: fits.Header) -> float:
    """What the magnitudes of all stars of a stack, or all bright or all red ones, may be off by, mag.

    The error of the tie to PS1 (else of the validation) and half of the difference between the two halves of its stars;
    the error of the colour term on stars of another colour; and half of what the stack was found to bend between faint
    and bright stars (``PHOTLIN``, beyond its error), since the tie holds for their mean.
    """
    stars, bend = int(header.get("PHOTNSTR", 0)), float(header.get("PHOTLIN", 0.0))
    if "PHOTTIEE" in header:
        tie = math.hypot(float(header["PHOTTIEE"]), float(header.get("PHOTOFF", 0.0)) / 2, _LEAST_ZERO_POINT_ERROR)
    elif stars and "PHOTRMS" in header:
        tie = float(header["PHOTRMS"]) / math.sqrt(stars)
    else:
        tie = _NARROW_ZERO_POINT_ERROR
    bent = math.sqrt(max(bend**2 - float(header.get("PHOTLINE", 0.0)) ** 2, 0.0)) / 2
    return math.hypot(tie, _COLOUR_SPREAD * float(header.get("PHOTCTE", 0.0)), bent)


def _stamp(stack: Stack, roots: Roots) -> FloatArray:
    assert stack.psf is not None
    try:
        psf = np.asarray(fits.getdata(roots.of(stack.psf.file)), np.float64)
    except (OSError, TypeError, ValueError) as error:
        raise StageError("source list", f"a PSF cannot be read: {error}", "stack the group again") from error
    if psf.ndim != 2 or psf.shape[0] != psf.shape[1] or psf.shape[0] % 2 == 0 or not psf.sum() > 0:
        raise StageError("source list", f"no PSF: {stack.psf.file.path} {psf.shape}", "stack the group again")
    return np.asarray(psf / psf.sum())
