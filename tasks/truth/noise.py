"""Whether the noise is what the variances say, how deep a stack is against the best it could be, and its blemishes."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import sep
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree

from models.frame import FrameRecord
from models.simulation import TrueFrame
from tasks.calibration import read_reduced
from tasks.simulation import SPIRAL, response, to_pixels, true_sources
from tasks.truth.figure import Figure, robust, weighted_mean, width_error
from tasks.truth.scene import Scene, StackImage

__all__ = ["noise_figures"]

FloatArray = npt.NDArray[np.float64]
FloatImage = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

_FAINTEST = 22.5
_MAX_APERTURES = 2000
_CLEAR_FWHM = 2.0
_SPIRAL_MARGIN_ARCSEC = 30.0
_SIGMA = 6.0
_RING = (2.0, 5.0)
_KERNEL = 4.0


def _reach(mag: FloatArray, sky_mag: float, fwhm: float) -> FloatArray:
    """Radius (px) beyond which a source's light no longer counts: wider for bright ones, never below 2 FWHM."""
    return np.asarray(fwhm * (_CLEAR_FWHM + 0.75 * np.clip(sky_mag - mag, 0.0, 12.0)))


def _empty(shape: tuple[int, int], x: FloatArray, y: FloatArray, reach: FloatArray) -> BoolArray:
    """Pixels out of reach of every source; positions 0-based."""
    free = np.ones(shape, bool)
    ny, nx = shape
    for column, row, radius in zip(x, y, reach, strict=True):
        if not (-radius < column < nx + radius and -radius < row < ny + radius):
            continue
        y0, y1 = max(0, int(row - radius)), min(ny, int(row + radius) + 2)
        x0, x1 = max(0, int(column - radius)), min(nx, int(column + radius) + 2)
        dy, dx = np.ogrid[y0:y1, x0:x1]
        free[y0:y1, x0:x1] &= (dx - column) ** 2 + (dy - row) ** 2 > radius**2
    return free


def _apertures(free: BoolArray, radius: float, seed: int) -> FloatArray:
    """Centres (x, y) of apertures that lie in free pixels and do not overlap; drawn from the seed."""
    rng = np.random.default_rng(seed)
    ny, nx = free.shape
    reach = int(np.ceil(radius)) + 1
    closed = np.pad(np.cumsum(np.cumsum(~free, axis=0, dtype=np.int64), axis=1), ((1, 0), (1, 0)))
    chosen: list[tuple[float, float]] = []
    tries = np.column_stack(
        [rng.integers(reach, nx - reach, 20 * _MAX_APERTURES), rng.integers(reach, ny - reach, 20 * _MAX_APERTURES)]
    )
    x0, x1, y0, y1 = tries[:, 0] - reach, tries[:, 0] + reach + 1, tries[:, 1] - reach, tries[:, 1] + reach + 1
    open_ = (closed[y1, x1] - closed[y0, x1] - closed[y1, x0] + closed[y0, x0]) == 0
    places = tries[open_].astype(float)
    if not len(places):
        return np.empty((0, 2))
    taken = np.zeros(len(places), bool)
    near = cKDTree(places).query_ball_point(places, 2 * radius)
    for i, around in enumerate(near):
        if not taken[around].any():
            taken[i] = True
            chosen.append((places[i, 0], places[i, 1]))
            if len(chosen) == _MAX_APERTURES:
                break
    return np.array(chosen)


def _frame_pull(record: FrameRecord, true: TrueFrame, scene: Scene) -> float | None:
    """Scatter of empty apertures (2 FWHM across) over what the variance map says."""
    if record.reduced is None or true.seeing_arcsec is None or true.wcs is None:
        return None
    data, mask, variance, _ = read_reduced(record.reduced, scene.roots)
    sources = true_sources(true, scene.stars, margin_px=100)
    fwhm = true.seeing_arcsec / scene.telescope.camera.grid_scale
    limit = float(true.zero_point or 23.0) - 2.5 * np.log10(5 * np.sqrt(float(np.median(variance))) / true.exptime)
    bright = np.asarray(sources["mag"]) < _FAINTEST
    free = _empty(
        data.shape,
        np.asarray(sources["x"])[bright] - 1,
        np.asarray(sources["y"])[bright] - 1,
        _reach(np.asarray(sources["mag"])[bright], limit, fwhm),
    ) & (mask == 0)
    if true.field in _SPIRALS:
        free &= _outside_spiral(data.shape, true)
    image = np.ascontiguousarray(data, np.float32)
    sky = sep.Background(image, mask=~free, bw=64, bh=64)
    image -= sky.back(dtype=np.float32)
    centres = _apertures(free, fwhm, 1)
    if len(centres) < 100:
        return None
    sums, errors, _ = sep.sum_circle(image, centres[:, 0], centres[:, 1], fwhm, var=variance, subpix=0)
    return robust(sums / errors)


_SPIRALS = ("M51",)


def _outside_spiral(shape: tuple[int, int], true: TrueFrame) -> BoolArray:
    assert true.wcs is not None
    x, y = to_pixels(true.wcs, np.array([SPIRAL["ra"]]), np.array([SPIRAL["dec"]]))
    radius = (SPIRAL["radius_arcsec"] + 2 * _SPIRAL_MARGIN_ARCSEC) / (
        3600 * np.sqrt(abs(np.linalg.det(np.array(true.wcs.cd))))
    )
    dy, dx = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((dx + 1 - x[0]) ** 2 + (dy + 1 - y[0]) ** 2 > radius**2)


def stack_empty(stack: StackImage, scene: Scene) -> BoolArray:
    """Pixels of a stack with full weight that no true source reaches."""
    table = scene.here(stack)
    fwhm = float(stack.header.get("FWHM_PX", 4.0))
    mag = np.asarray(table["mag"])
    limit = float(stack.header.get("DEPTH5S", 23.0))
    bright = mag < limit + 1.0
    free = _empty(
        stack.data.shape,
        np.asarray(table["x"])[bright],
        np.asarray(table["y"])[bright],
        _reach(mag[bright], limit + 1.0, fwhm),
    )
    if stack.group in _SPIRALS:
        x, y = stack.wcs.all_world2pix([SPIRAL["ra"]], [SPIRAL["dec"]], 0)
        radius = (SPIRAL["radius_arcsec"] + 2 * _SPIRAL_MARGIN_ARCSEC) / float(stack.header["PIXSCALE"])
        dy, dx = np.ogrid[: stack.data.shape[0], : stack.data.shape[1]]
        free &= (dx - x[0]) ** 2 + (dy - y[0]) ** 2 > radius**2
    covered = stack.weight > 0
    full = float(np.percentile(stack.weight[covered], 75))
    return np.asarray(free & (stack.weight > 0.5 * full))


def _above_ring(image: FloatImage, free: BoolArray, centres: FloatArray, radius: float) -> FloatArray:
    """Sums of apertures above the mean of the free pixels in a ring around each, the ring's own noise divided out.

    A mesh of the whole stack would leave some of a large galaxy's outskirts and of the background that was
    subtracted around it, which is no noise.
    """
    x, y = np.ascontiguousarray(centres.T)
    known = free.astype(np.float32)
    inner, outer = _RING[0] * radius, _RING[1] * radius
    number, _, _ = sep.sum_circann(known, x, y, inner, outer, subpix=1)
    light, _, _ = sep.sum_circann(image * known, x, y, inner, outer, subpix=1)
    sums, _, _ = sep.sum_circle(image, x, y, radius, subpix=0)
    area = np.pi * radius**2
    number = np.maximum(number, 1.0)
    return np.asarray((sums - light / number * area) / np.sqrt(1.0 + area / number))


def _ideal_sigma(stack: StackImage, scene: Scene, centres: FloatArray, radius: float) -> FloatArray:
    """Noise of each aperture's sum (units of a zero point of 30) if every frame that sees it counts by its inverse
    variance.

    White noise from the truth of each frame: photons of the sky behind vignetting and dust, and read noise; nothing of
    the images is used.
    """
    ra, dec = stack.wcs.all_pix2world(centres, 0).T
    total = np.zeros(len(centres))
    gain, noise = scene.truth.gain, scene.truth.read_noise
    for record, true in scene.inputs(stack):
        assert true.sky_adu is not None
        assert true.zero_point is not None
        assert true.wcs is not None
        ny, nx = true.wcs.shape
        x, y = to_pixels(true.wcs, ra, dec)
        margin = radius + _KERNEL
        inside = (x > margin) & (x < nx + 1 - margin) & (y > margin) & (y < ny + 1 - margin)
        flat = _smooth_response(scene.truth.options.seed, nx, record.raw.year, str(record.raw.filter))
        column, row = (np.clip(np.rint(at).astype(int) - 1, 0, size - 1) for at, size in ((x, nx), (y, ny)))
        passes = flat[row, column]
        pixel = (true.sky_adu * gain * passes + noise**2) / (gain * passes) ** 2
        scale = 10 ** (0.4 * (30.0 - true.zero_point)) / true.exptime
        total += inside / (np.pi * radius**2 * pixel * scale**2)
    return np.asarray(np.maximum(total, 1e-30) ** -0.5)


@functools.lru_cache(maxsize=32)
def _smooth_response(seed: int, size: int, year: int, band: str) -> FloatImage:
    return np.asarray(uniform_filter(response(seed, size, year, band), 9), np.float32)


def _stack_pulls(of: dict[str, FloatArray], how: str) -> list[Figure]:
    """Width of all stacks' pulls together, and of the worst stack."""
    if not of:
        return []
    widths = {label: robust(pulls) for label, pulls in of.items()}
    worst = max(widths, key=lambda label: abs(np.log(widths[label])))
    every = np.concatenate([of[label] - np.median(of[label]) for label in sorted(of)])
    said = ", ".join(f"{label} {widths[label]:.2f} ± {width_error(of[label]):.2f}" for label in sorted(of))
    name = f"pull of the noise in empty apertures, stacks ({how})"
    return [
        Figure(name=name, value=robust(every, 0.0), error=width_error(every), unit="", goal=1.1, least=0.9,
               better="between", bound=1.15, pulls=tuple(every.tolist()), detail=f"{len(every)} apertures"),
        Figure(name=f"{name}, worst", value=widths[worst], error=width_error(of[worst]), unit="",
               better="between", bound=1.2, least=0.8, detail=said),
    ]  # fmt: skip


def _depths(of: dict[str, tuple[float, float]], how: str) -> list[Figure]:
    """Of all stacks together, and of the worst."""
    if not of:
        return []
    worst = min(of, key=lambda label: of[label][0])
    mean, error = weighted_mean(list(of.values()))
    said = ", ".join(f"{label} {value:.2f} ± {own:.2f}" for label, (value, own) in sorted(of.items()))
    name = f"depth of stacks ({how}) against ideal weights"
    return [
        Figure(name=name, value=mean, error=error, unit="", goal=0.95 if how == "weighted" else None, better="above",
               bound=0.5, detail=f"mean of {len(of)} stacks"),
        Figure(name=f"{name}, worst", value=of[worst][0], error=of[worst][1], unit="", better="above", bound=0.5,
               detail=said),
    ]  # fmt: skip


def noise_figures(scene: Scene, every_frame: int = 3) -> list[Figure]:
    """Pulls of the noise of empty apertures on frames and stacks; depth against the ideal; blemishes left.

    Parameters
    ----------
    scene
        The campaign.
    every_frame
        Every so many frames are looked at.
    """
    pulls = [
        value for record, true in scene.pairs[::every_frame] if (value := _frame_pull(record, true, scene)) is not None
    ]
    figures = []
    if pulls:
        figures.append(
            Figure(name="pull of the noise in empty apertures, frames", value=float(np.median(pulls)), unit="",
                   goal=1.1, least=0.9, better="between", bound=1.15,
                   detail=f"{len(pulls)} frames, {min(pulls):.2f} to {max(pulls):.2f}")
        )  # fmt: skip
    said: dict[str, FloatArray] = {}
    depth: dict[str, tuple[float, float]] = {}
    blemishes: dict[str, float] = {}
    how = ""
    for stack in scene.stacks():
        how = str(stack.header["COMBTYPE"]).lower()
        free = stack_empty(stack, scene)
        image = stack.data.copy()
        sky = sep.Background(image, mask=~free, bw=64, bh=64)
        image -= sky.back(dtype=np.float32)
        radius = float(stack.header.get("FWHM_PX", 4.0))
        centres = _apertures(free, radius, 2)
        if len(centres) < 50:
            continue
        sums = _above_ring(image, free, centres, radius)
        ideal = _ideal_sigma(stack, scene, centres, radius)
        deep = 1.0 / robust(sums / ideal)
        depth[stack.label] = deep, deep**2 * width_error(sums / ideal)
        correlation = stack.header.get("NOISCORR")
        to_inverse = stack.header.get("INVVAR")
        if correlation is not None and to_inverse is not None:
            white = np.where(stack.weight > 0, 1.0 / np.maximum(stack.weight * to_inverse, 1e-30), 0.0)
            _, error, _ = sep.sum_circle(
                image, centres[:, 0], centres[:, 1], radius, var=white.astype(np.float32), subpix=0
            )
            said[stack.label] = sums / (error * float(correlation))
        # Where fewer frames overlap, the sky's own noise is larger: in units of what the weight says.
        white_noise = np.asarray(image[free], np.float64) * np.sqrt(stack.weight[free])
        far = np.abs(white_noise) > _SIGMA * robust(white_noise)
        blemishes[stack.label] = float(np.count_nonzero(far)) / np.count_nonzero(free)
    figures += _stack_pulls(said, how) + _depths(depth, how)
    if blemishes:
        worst = max(blemishes, key=lambda label: blemishes[label])
        figures.append(
            Figure(name=f"bad pixels left (beyond 6 sigma on empty sky), stacks ({how}), worst", value=blemishes[worst],
                   unit="", goal=1e-5, bound=1e-4, detail=f"{worst}; median {np.median(list(blemishes.values())):.1e}")
        )  # fmt: skip
    return figures
