"""Whether a stack's PSF image is that of its stars."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.stats import SigmaClip
from astropy.wcs import WCS
from photutils.aperture import ApertureStats, CircularAnnulus, CircularAperture
from scipy.optimize import brentq
from scipy.spatial import cKDTree

from models.frame import FrameRecord
from models.simulation import TrueFrame
from tasks.core.errors import StageError
from tasks.psf import fit_moffat
from tasks.truth.figure import Figure, median_error, worst_beyond
from tasks.truth.scene import Scene, StackImage, tangent
from tasks.truth.stacks import clean_stars

__all__ = ["psf_figures"]

FloatArray = npt.NDArray[np.float64]

_MAX_STARS = 25
_MIN_STARS = 3
_BRIGHTEST = 14.5
_FAINTEST = 17.5
_FAINTEST_GROWTH = 16.5
_FAINTEST_SHAPE = 18.0
_MIN_SHAPES = 5
_CORNER_PX = 724.0
"""Where the simulator gives the radial ellipticity: the corner of a frame of 1024 px."""


def _covered_stars(stack: StackImage, scene: Scene, faintest: float, half: int) -> tuple[FloatArray, FloatArray]:
    """Pixels and magnitudes of clean stars, brightest first, in whose core no frame is missing or masked.

    Where the seeing of the frames is mixed, the others have a profile of their own, up to 30 % narrower or wider: no
    PSF image can be that of all.
    """
    fwhm = float(stack.header.get("FWHM_PX", 4.0))
    pixels, mag = clean_stars(stack, scene, faintest, half)
    least = 0.85 * float(np.median(stack.weight[stack.weight > 0]))
    reach = int(np.ceil(1.5 * fwhm))
    whole = np.array(
        [
            (stack.weight[int(y) - reach : int(y) + reach + 2, int(x) - reach : int(x) + reach + 2] > least).all()
            for x, y in pixels
        ],
        dtype=bool,
    )
    order = np.argsort(mag[whole], kind="stable")
    return pixels[whole][order], mag[whole][order]


def _star_widths(stack: StackImage, scene: Scene) -> list[float]:
    """FWHM (px) of a stack's brightest clean stars, each fitted by a Moffat profile."""
    fwhm = float(stack.header.get("FWHM_PX", 4.0))
    half = int(np.ceil(4.0 * fwhm))
    widths = []
    for x, y in _covered_stars(stack, scene, _FAINTEST, half)[0]:
        row, column = int(np.rint(y)), int(np.rint(x))
        stamp = stack.data[row - half : row + half + 1, column - half : column + half + 1]
        try:
            widths.append(fit_moffat(stamp.astype(np.float64), fwhm).fwhm_px)
        except StageError:
            continue
        if len(widths) == _MAX_STARS:
            break
    return widths


def _true_e(true: TrueFrame, sky: FloatArray | None = None) -> FloatArray:
    """Ellipticity as a vector, FWHM exp(+-e / 2), in the stack's x and y: at places (deg), else at the optical axis."""
    assert true.ellipticity is not None
    assert true.wcs is not None
    e1, e2, radial = true.ellipticity
    cd = np.array(true.wcs.cd)
    offset = np.zeros((1, 2))
    if sky is not None:
        ra0, dec0 = true.wcs.crval
        offset = np.linalg.solve(cd, tangent(sky[:, 0], sky[:, 1], ra0, dec0).T / 3600.0).T
    grow, away = radial * (offset**2).sum(axis=1) / _CORNER_PX**2, 2 * np.arctan2(offset[:, 1], offset[:, 0])
    e = np.column_stack([e1 + grow * np.cos(away), e2 + grow * np.sin(away)])
    angle = 0.5 * np.arctan2(e[:, 1], e[:, 0])
    axis = cd @ np.array([np.cos(angle), np.sin(angle)])
    turned = 2 * np.arctan2(axis[1], -axis[0])  # x of the stack runs to the west
    return np.asarray(np.hypot(*e.T)[:, None] * np.column_stack([np.cos(turned), np.sin(turned)]))


def star_ellipticity(stack: StackImage, scene: Scene) -> tuple[FloatArray, float] | None:
    """Ellipticity of a stack at the optical axis as its stars show it, a vector as in `_true_e`, and its error.

    Median of Moffat fits to clean stars, from each of which is taken by how much the frames' profiles are more
    elongated at its place than at the axis. What the combination does to the shape stays in it.
    """
    fwhm = float(stack.header.get("FWHM_PX", 4.0))
    half = int(np.ceil(4.0 * fwhm))
    inputs = scene.inputs(stack)
    share = _weights(inputs, str(stack.header["COMBTYPE"]), scene)
    seen, places = [], []
    for x, y in _covered_stars(stack, scene, _FAINTEST_SHAPE, half)[0][:_MAX_STARS]:
        row, column = round(float(y)), round(float(x))
        stamp = stack.data[row - half : row + half + 1, column - half : column + half + 1]
        try:
            fit = fit_moffat(stamp.astype(np.float64), fwhm)
        except StageError:
            continue
        e = 2 * np.arctanh(fit.ellipticity)
        seen.append([e * np.cos(2 * fit.angle), e * np.sin(2 * fit.angle)])
        places.append((float(x), float(y)))
    if len(seen) < _MIN_SHAPES:
        return None
    sky = WCS(stack.header).all_pix2world(np.array(places), 0)
    more = sum(weight * (_true_e(true, sky) - _true_e(true)) for (_, true), weight in zip(inputs, share, strict=True))
    axis = np.array(seen) - more
    error = float(np.hypot(median_error(axis[:, 0]), median_error(axis[:, 1])))
    return np.asarray(np.median(axis, axis=0)), error


def _enclosed(inputs: list[tuple[FrameRecord, TrueFrame]], share: FloatArray, radius: float) -> float:
    """Light of the frames' mean profile within a radius, arcsec."""
    total = 0.0
    for (_, true), weight in zip(inputs, share, strict=True):
        assert true.seeing_arcsec is not None
        assert true.moffat_beta is not None
        alpha2 = (true.seeing_arcsec / 2) ** 2 / (2 ** (1 / true.moffat_beta) - 1)
        total += weight * (1 - (1 + radius**2 / alpha2) ** (1 - true.moffat_beta))
    return float(total)


def star_ee50(stack: StackImage, scene: Scene) -> tuple[float, float] | None:
    """EE50 (arcsec, of all light) of a stack's bright clean stars, the median of their growth curves, and its error.

    Sums in circles, the light of every catalogued neighbour within taken off; the light beyond 3 FWHM, half a
    per cent, is that of the mean of the frames' profiles.
    """
    fwhm, scale = float(stack.header.get("FWHM_PX", 4.0)), float(stack.header["PIXSCALE"])
    pixels, mag = _covered_stars(stack, scene, _FAINTEST_GROWTH, int(np.ceil(4.0 * fwhm)))
    pixels, mag = pixels[:_MAX_STARS], mag[:_MAX_STARS]
    if len(mag) < _MIN_STARS:
        return None
    bad = np.ascontiguousarray(stack.weight == 0)
    rings = CircularAnnulus(pixels, 5.0 * fwhm, 8.0 * fwhm)
    sky = np.atleast_1d(ApertureStats(stack.data, rings, mask=bad, sigma_clip=SigmaClip(2.5)).median)
    table = scene.here(stack)
    near = np.isfinite(np.asarray(table["x"])) & np.isfinite(np.asarray(table["mag"]))
    places = np.column_stack([table["x"], table["y"]])[near]
    light = 10 ** (0.4 * (30.0 - np.asarray(table["mag"])[near]))
    tree = cKDTree(places)
    radii = fwhm * np.array([*np.arange(0.3, 1.3, 0.05), 3.0])
    flux = np.empty((radii.size, len(mag)))
    data = stack.data.astype(np.float64)
    for k, radius in enumerate(radii):
        circle = CircularAperture(pixels, radius)
        neighbours = [
            light[[j for j in found if np.hypot(*(places[j] - at)) > 1.0]].sum()
            for at, found in zip(pixels, tree.query_ball_point(pixels, radius), strict=True)
        ]
        flux[k] = circle.do_photometry(data)[0] - sky * circle.area - neighbours
    inputs = scene.inputs(stack)
    share = _weights(inputs, str(stack.header["COMBTYPE"]), scene)
    whole = _enclosed(inputs, share, float(radii[-1]) * scale)
    curves = flux[:-1] / flux[-1] * whole
    each = [float(np.interp(0.5, curve, radii[:-1])) * scale for curve in curves.T]
    return float(np.interp(0.5, np.median(curves, axis=1), radii[:-1])) * scale, median_error(each)


def _weights(inputs: list[tuple[FrameRecord, TrueFrame]], combine: str, scene: Scene) -> FloatArray:
    """Share of each frame in a stack: by inverse variance, or the same for all in a median."""
    if combine != "WEIGHTED":
        return np.full(len(inputs), 1.0 / len(inputs))
    gain, noise = scene.truth.gain, scene.truth.read_noise
    inverse = []
    for _, true in inputs:
        assert true.sky_adu is not None
        assert true.zero_point is not None
        scale = 10 ** (0.4 * (30.0 - true.zero_point)) / true.exptime
        inverse.append(gain**2 / ((true.sky_adu * gain + noise**2) * scale**2))
    return np.asarray(np.asarray(inverse) / np.sum(inverse))


def true_shape(stack: StackImage, scene: Scene) -> tuple[float, float]:
    """EE50 (arcsec, of all light) and ellipticity ``(a - b)/(a + b)`` of the sum of the frames' true profiles.

    At the optical axis. A pixel of the frame and one of the stack widen a profile by a twelfth of their area each in
    quadrature, on either axis; the kernel's own width (LANCZOS3) is next to nothing.
    """
    inputs = scene.inputs(stack)
    share = _weights(inputs, str(stack.header["COMBTYPE"]), scene)
    e = np.zeros(2)
    scale = float(stack.header["PIXSCALE"])
    for (_, true), weight in zip(inputs, share, strict=True):
        e += weight * _true_e(true)[0]
    bare = float(brentq(lambda radius: _enclosed(inputs, share, radius) - 0.5, 0.05, 20.0))
    # EE50 of a Gaussian of the same variance per axis grows as sqrt(2 ln 2) sigma.
    widened = np.sqrt(bare**2 + 2 * np.log(2) * 2 * scale**2 / 12)
    return float(widened), float(np.tanh(np.hypot(*e) / 2))


def psf_figures(scene: Scene) -> list[Figure]:
    """FWHM against the stars', EE50 and ellipticity against the frames' true profiles, sum, centre and scale."""
    width: dict[str, tuple[float, float]] = {}
    ee50: dict[str, tuple[float, float]] = {}
    grown: dict[str, tuple[float, float]] = {}
    round_: dict[str, tuple[float, float]] = {}
    shape: dict[str, tuple[float, float]] = {}
    sums, centres, scales = [], [], []
    how = ""
    for stack in scene.stacks():
        path = stack.beside("_psf.fits")
        if not path.is_file():
            continue
        how = str(stack.header["COMBTYPE"]).lower()
        with fits.open(path, memmap=False) as hdus:
            image, header = np.asarray(hdus[0].data, np.float64), hdus[0].header
        rows, columns = np.indices(image.shape) - (np.array(image.shape).reshape(2, 1, 1) - 1) / 2
        core = np.hypot(rows, columns) <= 2 * float(header["FWHM_PX"])
        light = image * core
        sums.append(abs(float(image.sum()) - 1.0))
        centres.append(float(np.hypot((light * rows).sum(), (light * columns).sum()) / light.sum()))
        scales.append(abs(float(header["PIXSCALE"]) - scene.telescope.camera.grid_scale))
        widths = _star_widths(stack, scene)
        if len(widths) >= _MIN_STARS:
            own = fit_moffat(image, float(stack.header.get("FWHM_PX", 4.0))).fwhm_px
            typical = float(np.median(widths))
            width[stack.label] = 100 * (own / typical - 1), 100 * median_error(widths) / typical
        true_ee50, true_e = true_shape(stack, scene)
        ee50[stack.label] = 100 * (float(header["EE50_AS"]) / true_ee50 - 1), 0.0
        half = star_ee50(stack, scene)
        if half is not None:
            grown[stack.label] = 100 * (float(header["EE50_AS"]) / half[0] - 1), 100 * half[1] / half[0]
        round_[stack.label] = float(header["ELLIPT"]) - true_e, 0.0
        of_stars = star_ellipticity(stack, scene)
        if of_stars is not None:
            model = fit_moffat(image, float(header["FWHM_PX"]))
            size, turn = 2 * np.arctanh(model.ellipticity), 2 * model.angle
            off = np.hypot(*(size * np.array([np.cos(turn), np.sin(turn)]) - of_stars[0]))
            shape[stack.label] = float(np.tanh(off / 2)), of_stars[1] / 2
    figures = []
    exact = how == "weighted"  # a median has no profile that its frames' profiles tell
    for name, values, unit, goal, bound in (
        ("FWHM against the stars'", width, "%", 2.0, 3.0),
        ("EE50 against the frames' profiles", ee50, "%", 2.0 if exact else None, 5.0 if exact else 25.0),
        ("EE50 against the stars' growth curves", grown, "%", 2.0, 5.0),
        ("ellipticity against the frames' profiles", round_, "", 0.01 if exact else None, 0.03),
        ("ellipticity against the stars', as a vector", shape, "", 0.01, 0.03),
    ):
        if values:
            worst, beyond = worst_beyond(values)
            said = ", ".join(f"{k} {v:+.3g}" + (f" ± {e:.2g}" if e else "") for k, (v, e) in sorted(values.items()))
            name = f"PSF image ({how}), {name}"
            figures += [
                Figure(name=f"{name}, median", value=float(np.median([abs(v) for v, _ in values.values()])), unit=unit,
                       goal=goal, bound=bound, detail=f"{len(values)} stacks"),
                Figure(name=f"{name}, worst beyond 2 sigma of its stars" if values[worst][1] else f"{name}, worst",
                       value=beyond, unit=unit, goal=goal, bound=bound, detail=f"{worst}; {said}"),
            ]  # fmt: skip
    if sums:
        figures += [
            Figure(name="PSF image, abs(sum - 1), worst", value=max(sums), unit="", goal=1e-4),
            Figure(name="PSF image, centroid off the centre, worst", value=max(centres), unit="px", goal=0.05),
            Figure(name="PSF image, abs(PIXSCALE - 0.770)", value=max(scales), unit="arcsec/px", goal=1e-6),
        ]  # fmt: skip
    return figures
