"""Plots of one stack: depth over the field, PSF, magnitudes against PS1, positions against Gaia."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sep
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from photutils.profiles import CurveOfGrowth, RadialProfile

from models.base import Roots
from models.catalog import StoredCone
from models.page import AstrometricCheck, Picture, StackPlots
from models.settings import ValidationSettings
from models.stack import Stack, StackPsf
from models.telescope import Telescope
from tasks.catalogs import at_epoch, read_cone
from tasks.core.errors import StageError
from tasks.pages.drawing import BLUE, GREEN, INK, LEGEND, ORANGE, drawing, faint_grid, save_svg
from tasks.stacking import StackView
from tasks.validation import Residuals, residuals

__all__ = ["depth_picture", "plots_of_stack"]

FloatArray = npt.NDArray[np.floating[Any]]

_MOST_STARS = 130
"""Drawn one by one; of more, the brightest."""
_MATCH_ARCSEC = 1.5
_SNR_SIGMA = 15.0
_MIN_STARS = 5
_BRIGHT_G, _FAINT_G = 11.0, 19.0


def depth_picture(stack: Stack, view: StackView, path: Path, roots: Roots) -> tuple[Picture, FloatArray] | None:
    """Map of the 5 sigma depth, from the weight map and the noise measured in empty apertures; and its quartiles.

    None where the stack knows no depth.
    """
    noise = stack.noise
    if stack.depth_5sigma is None or noise is None:
        return None
    good = view.weight > 0
    white = np.sqrt(math.pi * noise.aperture_px**2 / (noise.inverse_variance * np.where(good, view.weight, 1.0)))
    depth = stack.depth_5sigma - 2.5 * np.log10(noise.correlation * white / noise.aperture_sigma)
    depth = np.where(good, depth, np.nan)
    step = max(1, math.ceil(max(depth.shape) / 240))
    shown = depth[step // 2 :: step, step // 2 :: step]
    quartiles = np.percentile(depth[good], [75.0, 50.0, 25.0])
    low, high = np.percentile(depth[good], [2.0, 99.5])
    if high - low < 0.1:
        low, high = high - 0.1, high
    size = [side * view.scale / 60.0 for side in depth.shape]
    with drawing(4.2, 3.6) as figure:
        axes = figure.subplots()
        drawn = axes.imshow(
            shown, origin="lower", cmap="cividis", vmin=low, vmax=high, interpolation="nearest",
            extent=(size[1] / 2, -size[1] / 2, -size[0] / 2, size[0] / 2),
        )  # fmt: skip
        figure.colorbar(drawn, ax=axes, label="5σ depth of a point source (mag)", shrink=0.9, extend="min")
        axes.set_xlabel("east of the middle (′)")
        axes.set_ylabel("north (′)")
        alt = (
            f"Depth of {stack.group} in {stack.filter} over the field: half of it reaches {quartiles[1]:.2f} mag, "
            f"a quarter {quartiles[0]:.2f} mag, three quarters {quartiles[2]:.2f} mag"
        )
        return save_svg(figure, path, alt, roots), quartiles


def _psf_plot(psf: StackPsf, stack: Stack, path: Path, roots: Roots) -> Picture:
    stamp = np.asarray(fits.getdata(roots.of(psf.file)), float)
    scale = psf.fwhm_arcsec / psf.fwhm_px
    middle = ((stamp.shape[1] - 1) / 2.0, (stamp.shape[0] - 1) / 2.0)
    edges = np.arange(0.0, min(middle) + 0.5, 0.5)
    profile = RadialProfile(stamp, middle, edges)
    growth = CurveOfGrowth(stamp, middle, edges[1:])
    total = float(stamp.sum()) or 1.0
    with drawing(7.4, 2.6) as figure:
        left, middle_axes, right = figure.subplots(1, 3, width_ratios=(1.0, 1.25, 1.25))
        half = stamp.shape[0] * scale / 2
        left.imshow(
            np.arcsinh(stamp / stamp.max() * 200.0), origin="lower", cmap="cividis", interpolation="nearest",
            extent=(half, -half, -half, half),
        )  # fmt: skip
        left.set_title("model (asinh)")
        left.set_xlabel("from the middle (″)")
        level = profile.profile / stamp.max()
        middle_axes.semilogy(profile.radius * scale, np.maximum(level, 1e-5), color=BLUE, marker=".", ms=4)
        middle_axes.axvline(
            psf.fwhm_arcsec / 2, color=ORANGE, lw=1, ls="--", label=f"FWHM/2 = {psf.fwhm_arcsec / 2:.2f}″"
        )
        middle_axes.set_ylim(1e-4, 1.5)
        middle_axes.minorticks_off()
        middle_axes.yaxis.set_major_formatter(lambda level, _: f"{level:g}")
        middle_axes.set_title("profile, of the peak")
        middle_axes.set_xlabel("radius (″)")
        middle_axes.legend(loc="upper right")
        right.plot(growth.radius * scale, growth.profile / total, color=BLUE, label="the model's")
        right.plot(
            [psf.ee50_arcsec, psf.ee80_arcsec], [0.5, 0.8], ls="none", marker="D", ms=6, color=ORANGE,
            label="EE50, EE80 of stars",
        )  # fmt: skip
        right.set_ylim(0, 1.05)
        right.set_title("encircled energy")
        right.set_xlabel("radius (″)")
        right.legend(loc="lower right")
        faint_grid(middle_axes)
        faint_grid(right)
        alt = (
            f"Point spread function of {stack.group} in {stack.filter}: width {psf.fwhm_arcsec:.2f} arcseconds, "
            f"half of the light within {psf.ee50_arcsec:.2f}, 80 percent within {psf.ee80_arcsec:.2f} arcseconds, "
            f"ellipticity {psf.ellipticity:.3f}"
        )
        return save_svg(figure, path, alt, roots)


def _bars(values: FloatArray, centres: FloatArray, errors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Error bars as one broken line: a path, and not one an error."""
    gap = np.full(len(values), np.nan)
    return (
        np.column_stack([values, values, gap]).ravel(),
        np.column_stack([centres - errors, centres + errors, gap]).ravel(),
    )


def _photometry_plot(found: Residuals, stack: Stack, path: Path, roots: Roots) -> Picture:
    known = np.isfinite(found.difference)
    order = np.argsort(found.mag, kind="stable")
    chosen = np.zeros(len(found.mag), bool)
    chosen[order[:_MOST_STARS]] = True
    chosen &= known
    centre = found.offset if found.offset is not None else float(np.median(found.difference[known]))
    half = max(0.1, 5.0 * (found.rms or 0.03))
    low, high = min(centre - half, -0.05), max(centre + half, 0.05)
    beyond = int(np.count_nonzero(chosen & ((found.difference < low) | (found.difference > high))))
    with drawing(7.4, 3.0, above=LEGEND) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, values, label in (
            (panels[0], found.mag, "PS1 magnitude"),
            (panels[1], found.colour, f"PS1 {found.colour_name}" if found.colour_name else "no colour for this filter"),
        ):
            good = chosen & np.isfinite(values)
            for mask, colour, marker, word in (
                (good & found.used, BLUE, "o", "used"),
                (good & ~found.used, ORANGE, "x", "clipped"),
            ):
                if not mask.any():
                    continue
                axes.plot(
                    *_bars(values[mask], found.difference[mask], found.error[mask]), color=colour, lw=0.5, alpha=0.6
                )
                name = f"{word} ({int(np.count_nonzero(mask))})"
                axes.plot(
                    values[mask], found.difference[mask], ls="none", marker=marker, ms=3.5, color=colour, label=name
                )
            axes.axhline(0.0, color=INK, lw=0.8, ls=":")
            if found.offset is not None:
                axes.axhline(found.offset, color=GREEN, lw=1.2, label=f"offset {found.offset:+.3f} mag")
            axes.set_xlabel(label)
            axes.set_ylim(low, high)
            faint_grid(axes)
        panels[0].set_ylabel("stack − PS1 (mag)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="upper center", ncols=3)
        rms = f"scatter {found.rms:.3f} mag, " if found.rms is not None else ""
        more = f"{len(found.mag) - _MOST_STARS} fainter stars are not drawn" if len(found.mag) > _MOST_STARS else ""
        far = f"{beyond} beyond the frame" if beyond else ""
        panels[1].set_title("; ".join(part for part in (more, far) if part), fontsize=8)
        offset = f"offset {found.offset:+.3f} mag, " if found.offset is not None else "no offset: too few stars, "
        alt = (
            f"Magnitudes of {stack.group} in {stack.filter} against PS1, by magnitude and by colour: {offset}{rms}"
            f"{int(np.count_nonzero(found.used))} stars used, {int(np.count_nonzero(known & ~found.used))} clipped"
        )
        return save_svg(figure, path, alt, roots)


def _stars(stack: Stack, roots: Roots) -> tuple[SkyCoord, WCS, tuple[int, int]]:
    """Positions of the bright compact sources of a stack."""
    with fits.open(roots.of(stack.image), memmap=False) as hdus:
        image, wcs = np.ascontiguousarray(hdus[0].data, dtype=np.float32), WCS(hdus[0].header)
    bad = np.asarray(fits.getdata(roots.of(stack.weight))) <= 0
    image[bad] = 0.0
    sky = sep.Background(image, mask=bad, bw=64, bh=64)
    flat = image - sky.back(dtype=np.float32)
    sep.set_extract_pixstack(max(300_000, image.size))
    found = sep.extract(flat, _SNR_SIGMA, err=sky.globalrms or 1.0, mask=bad, minarea=6)
    width = stack.psf.fwhm_px if stack.psf is not None else 3.0
    round_ones = found[
        (found["a"] < 1.6 * width) & (found["a"] / np.maximum(found["b"], 1e-3) < 1.6) & (found["flag"] == 0)
    ]
    x, y, flag = sep.winpos(flat, round_ones["x"], round_ones["y"], np.full(len(round_ones), width / 2.3548), mask=bad)
    good = flag == 0
    return SkyCoord(*wcs.all_pix2world(x[good], y[good], 0), unit="deg"), wcs, image.shape


def _positions(
    stack: Stack, gaia: StoredCone, epoch: float, roots: Roots
) -> tuple[AstrometricCheck, FloatArray, FloatArray, tuple[float, float]]:
    """Offsets stack - Gaia (east, north, mas) and where they are (′ east and north of the middle)."""
    seen, wcs, shape = _stars(stack, roots)
    table = at_epoch(read_cone(gaia, roots), epoch)
    inside = (np.asarray(table["G"]) > _BRIGHT_G) & (np.asarray(table["G"]) < _FAINT_G)
    known = SkyCoord(np.asarray(table["RA"])[inside], np.asarray(table["DEC"])[inside], unit="deg")
    centre = SkyCoord(*wcs.all_pix2world((shape[1] - 1) / 2, (shape[0] - 1) / 2, 0), unit="deg")
    offsets, places = np.empty((0, 2)), np.empty((0, 2))
    if len(seen) and len(known) > 1:
        nearest, distance, _ = seen.match_to_catalog_sky(known)
        # A neighbour within 4″ pulls the centre: such a star tells of the sky and not of the solution.
        alone = known[nearest].match_to_catalog_sky(known, nthneighbor=2)[1].arcsec > 4.0
        pair = (distance.arcsec < _MATCH_ARCSEC) & alone
        east, north = known[nearest[pair]].spherical_offsets_to(seen[pair])
        offsets = np.column_stack([east.to_value("mas"), north.to_value("mas")])
        where = centre.spherical_offsets_to(known[nearest[pair]])
        places = np.column_stack([where[0].to_value("arcmin"), where[1].to_value("arcmin")])
    enough = len(offsets) >= _MIN_STARS
    middle = np.median(offsets, axis=0) if enough else np.zeros(2)
    rms = float(1.4826 * np.median(np.abs(offsets - middle))) if enough else None
    check = AstrometricCheck(
        n_stars=len(offsets),
        epoch=round(epoch, 3),
        rms_mas=None if rms is None else round(rms, 2),
        offset_ra_mas=round(float(middle[0]), 2) if enough else None,
        offset_dec_mas=round(float(middle[1]), 2) if enough else None,
    )
    scale = float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix)))) * 60.0
    return check, offsets, places, (shape[1] * scale / 2, shape[0] * scale / 2)


def _astrometry_plot(
    check: AstrometricCheck, offsets: FloatArray, places: FloatArray, half: tuple[float, float], stack: Stack,
    path: Path, roots: Roots,
) -> Picture:  # fmt: skip
    assert check.rms_mas is not None
    order = np.argsort(np.hypot(*offsets.T), kind="stable")
    clear = order[np.hypot(*offsets[order].T) < max(8.0 * check.rms_mas, 50.0)]
    step = max(1, math.ceil(len(clear) / _MOST_STARS))
    drawn = np.sort(clear)[::step]
    length = 10.0 ** math.floor(math.log10(max(check.rms_mas, 1.0) * 4.0))
    length *= max(factor for factor in (1, 2, 5) if factor * length <= max(check.rms_mas, 1.0) * 4.0)
    per_mas = 0.16 * half[0] / length
    with drawing(7.4, 3.2) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.35, 1.0))
        ends = places[drawn] + offsets[drawn] * per_mas
        gap = np.full(len(drawn), np.nan)
        left.plot(
            np.column_stack([places[drawn, 0], ends[:, 0], gap]).ravel(),
            np.column_stack([places[drawn, 1], ends[:, 1], gap]).ravel(), color=BLUE, lw=1.1,
        )  # fmt: skip
        left.plot(*places[drawn].T, ls="none", marker="o", ms=2.2, color=BLUE)
        x, y = 0.92 * half[0], -1.12 * half[1]
        left.plot([x, x - length * per_mas], [y, y], color=ORANGE, lw=2.5, solid_capstyle="butt")
        left.text(x - length * per_mas - 0.03 * half[0], y, f"{length:g} mas", color=INK, va="center", fontsize=8)
        left.set_xlim(half[0] * 1.05, -half[0] * 1.05)
        left.set_ylim(-half[1] * 1.25, half[1] * 1.05)
        left.set_aspect("equal")
        left.set_xlabel("east of the middle (′)")
        left.set_ylabel("north (′)")
        left.set_title("stack − Gaia; the dot is the star", fontsize=9)
        right.plot(*offsets[drawn].T, ls="none", marker="o", ms=2.5, color=BLUE, alpha=0.8)
        right.axhline(0, color=INK, lw=0.8, ls=":")
        right.axvline(0, color=INK, lw=0.8, ls=":")
        right.plot(
            [check.offset_ra_mas or 0.0],
            [check.offset_dec_mas or 0.0],
            marker="X",
            ms=9,
            color=ORANGE,
            ls="none",
            label="median",
        )
        reach = max(5.0 * check.rms_mas, 1.0)
        right.set_xlim(reach, -reach)
        right.set_ylim(-reach, reach)
        right.set_aspect("equal")
        right.set_xlabel("east (mas)")
        right.set_ylabel("north (mas)")
        right.legend(loc="upper right")
        faint_grid(right)
        alt = (
            f"Positions on the stack of {stack.group} in {stack.filter} against Gaia at {check.epoch:.1f}: "
            f"scatter {check.rms_mas:.0f} milliarcseconds an axis, median {check.offset_ra_mas:+.1f} east and "
            f"{check.offset_dec_mas:+.1f} north, {check.n_stars} stars"
        )
        return save_svg(figure, path, alt, roots)


def _again(stack: Stack) -> Stack:
    """The published stack as the validation takes it: its flux is raised already, the tie of the half is not.

    Stars that were measured before are on the flux as it was.
    """
    if stack.tie is None or stack.compared is not None:
        return stack
    left = stack.tie.model_copy(update={"half_offset": stack.tie.half_offset - stack.tie.offset})
    return stack.model_copy(update={"tie": left})


def plots_of_stack(
    stack: Stack,
    folder: Path,
    ps1: StoredCone | None,
    gaia: StoredCone | None,
    epoch: float,
    roots: Roots,
    telescope: Telescope,
    settings: ValidationSettings,
) -> StackPlots:
    """Draw what was measured on a published stack; what cannot be drawn is said.

    Parameters
    ----------
    stack
        As `finish_stack` gives it.
    folder
        Where the plots go, as ``{group}_{filter}_psf.svg``, ``_mags.svg``, ``_stars.svg``.
    ps1, gaia
        Cones around it; None: not at hand.
    epoch
        Julian year of the frames' mean.
    roots, telescope, settings
        Folders, profile, the validation's settings.
    """
    stem = f"{stack.group}_{stack.filter}"
    remarks: list[str] = []
    psf = _psf_plot(stack.psf, stack, folder / f"{stem}_psf.svg", roots) if stack.psf is not None else None
    if psf is None:
        remarks.append("PSF: it could not be measured")
    photometry = None
    verdict = stack.validation
    if verdict is None or verdict.zp_offset is None or ps1 is None:
        remarks.append(f"magnitudes against PS1: {verdict.reason if verdict is not None else 'not compared'}")
    else:
        found = residuals(_again(stack), ps1, roots, telescope, settings)
        if found.mag.size:
            photometry = _photometry_plot(found, stack, folder / f"{stem}_mags.svg", roots)
    check, astrometry = None, None
    if gaia is None:
        remarks.append("positions against Gaia: no Gaia stars at hand")
    else:
        try:
            check, offsets, places, half = _positions(stack, gaia, epoch, roots)
        except StageError as error:
            remarks.append(f"positions against Gaia: {error.reason}")
        else:
            if check.rms_mas is None:
                remarks.append(f"positions against Gaia: {check.n_stars} stars, {_MIN_STARS} are needed")
            else:
                astrometry = _astrometry_plot(check, offsets, places, half, stack, folder / f"{stem}_stars.svg", roots)
    return StackPlots(psf=psf, photometry=photometry, astrometry=astrometry, positions=check, remarks=tuple(remarks))
