"""How much of a large galaxy's light a stack keeps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from models.simulation import TrueWcs
from tasks.simulation import SPIRAL, draw_spiral
from tasks.truth.figure import Figure
from tasks.truth.scene import Scene, StackImage

__all__ = ["light_figures"]

FloatArray = npt.NDArray[np.float64]

_SPIRAL_FIELD = "M51"
_WITHIN_ARCSEC = 300.0
_RING_MAG = (23.75, 24.25)
_STAR_FAINTEST = 21.0


def true_spiral(stack: StackImage, scene: Scene) -> FloatArray:
    """The spiral's light on the stack's grid, in its units, not blurred; shape of the stack."""
    header = stack.header
    wcs = TrueWcs(
        crval=(header["CRVAL1"], header["CRVAL2"]),
        crpix=(header["CRPIX1"], header["CRPIX2"]),
        cd=((header["CD1_1"], header["CD1_2"]), (header["CD2_1"], header["CD2_2"])),
        k=0.0,
        shape=stack.data.shape,
    )
    image = np.zeros(stack.data.shape)
    stars = scene.stars
    knots = stars[(np.asarray(stars["field"]).astype(str) == stack.group) & (np.asarray(stars["kind"]) == "knot")]
    draw_spiral(image, wcs, stack.filter, 10 ** (0.4 * float(header["PHOTZP"])), knots)
    return image


def _without_stars(stack: StackImage, scene: Scene) -> npt.NDArray[np.bool_]:
    """Covered pixels out of reach of every star and galaxy that is not the spiral."""
    table = scene.here(stack)
    mag = np.asarray(table["mag"])
    others = (np.asarray(table["kind"]) != "knot") & (mag < _STAR_FAINTEST)
    fwhm = float(stack.header.get("FWHM_PX", 4.0))
    good = stack.weight > 0
    ny, nx = good.shape
    for x, y, m in zip(table["x"][others], table["y"][others], mag[others], strict=True):
        radius = fwhm * (1.5 + 0.8 * (_STAR_FAINTEST - m))
        if not (-radius < x < nx + radius and -radius < y < ny + radius):
            continue
        y0, y1 = max(0, int(y - radius)), min(ny, int(y + radius) + 2)
        x0, x1 = max(0, int(x - radius)), min(nx, int(x + radius) + 2)
        dy, dx = np.ogrid[y0:y1, x0:x1]
        good[y0:y1, x0:x1] &= (dx - x) ** 2 + (dy - y) ** 2 > radius**2
    return good


def light_figures(scene: Scene) -> list[Figure]:
    """Share of the spiral's light within 5 arcmin, and in the ring where it has 24 mag/arcsec^2.

    Of the default product and, where there is one, of that for extended targets (``*_ext.fits``). Stars and other
    galaxies are left out of both the stack and the truth.
    """
    kept: dict[str, dict[str, tuple[float, float]]] = {"default": {}, "extended": {}}
    for stack in scene.stacks():
        if stack.group != _SPIRAL_FIELD or stack.header.get("PHOTZP") is None:
            continue
        true = true_spiral(stack, scene)
        good = _without_stars(stack, scene)
        x, y = stack.wcs.all_world2pix([SPIRAL["ra"]], [SPIRAL["dec"]], 0)
        scale = float(stack.header["PIXSCALE"])
        dy, dx = np.indices(stack.data.shape)
        inside = good & (np.hypot(dx - x[0], dy - y[0]) * scale < _WITHIN_ARCSEC)
        with np.errstate(divide="ignore"):
            brightness = -2.5 * np.log10(true / scale**2) + float(stack.header["PHOTZP"])
        ring = good & (brightness > _RING_MAG[0]) & (brightness < _RING_MAG[1])
        images = {"default": stack.data}
        if stack.beside("_ext.fits").is_file():
            images["extended"] = np.asarray(fits.getdata(stack.beside("_ext.fits")), np.float32)
        for name, image in images.items():
            kept[name][stack.filter] = (
                100 * float(image[inside].sum(dtype=float) / true[inside].sum()),
                100 * float(image[ring].mean(dtype=float) / true[ring].mean()),
            )
    figures = []
    for name, shares in kept.items():
        if not shares:
            continue
        extended = name == "extended"
        for what, index, goal in (("within 5 arcmin", 0, 97.0), ("in the ring of 24 mag/arcsec^2", 1, 90.0)):
            worst = min(shares, key=lambda band, index=index: shares[band][index])  # type: ignore[misc]
            figures.append(
                Figure(name=f"light of the 10 arcmin spiral {what}, {name} product, worst filter",
                       value=shares[worst][index], unit="%", goal=goal if extended else None, better="above",
                       bound=goal - 5 if extended else None,
                       detail=", ".join(f"{band} {shares[band][index]:.1f}" for band in sorted(shares)))
            )  # fmt: skip
        if extended:
            most = max(shares, key=lambda band: shares[band][0])
            figures.append(
                Figure(name="light of the 10 arcmin spiral within 5 arcmin, extended product, most", unit="%",
                       value=shares[most][0], goal=103.0, bound=106.0, detail=most)
            )  # fmt: skip
    return figures
