"""One filter of a group: SWarp resamples its frames to the common grid and combines them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from matplotlib.path import Path as Path2D

from models.base import Record, Roots
from models.frame import Rejected
from models.settings import StackSettings
from models.stack import Grid, ScaledFrame, Selection, Stack, StackLinearity, StackPaths, stack_paths
from models.telescope import Telescope
from tasks.calibration import read_reduced
from tasks.core.errors import StageError
from tasks.core.files import ref
from tasks.core.fitsio import write_fits
from tasks.core.tools import run_tool, scratch
from tasks.photometry import area_map, central_area
from tasks.stacking.coadd import CountImage, Resampled, coadd, wrong_cards
from tasks.stacking.grid import tangent_plane, unit_vectors
from tasks.stacking.heads import frame_label, head_wcs, outline, swarp_head
from tasks.stacking.light import Beside, LightLoss, light_loss, linearity
from tasks.stacking.product import map_header, stack_header, weight_header
from tasks.stacking.weights import LANCZOS_REACH, Seen, make_weights

__all__ = ["SwarpOptions", "combine", "on_grid", "overlap_px", "run_swarp", "seeing_px", "write_inputs"]

FloatImage = npt.NDArray[np.float32]

_BY_SWARP: dict[str, Literal["CLIPPED"]] = {"clipped": "CLIPPED"}
"""What SWarp combines itself; else it resamples and the rest is ours (`tasks.stacking.coadd`)."""

_TYPICAL_SEEING_ARCSEC = 3.0


class SwarpOptions(Record):
    """What SWarp is told; everything it would take from a configuration file or guess is stated."""

    combine_type: Literal["CLIPPED"] | None
    """None: resample only."""
    center: tuple[float, float]
    image_size: tuple[int, int]
    pixel_scale: float
    resampling_type: str
    back_size: int
    memory_mb: int
    stem: str = "coadd"
    subtract_back: bool = True

    def arguments(self) -> list[str]:
        """The argument list, without input images."""
        options = {
            "IMAGEOUT_NAME": f"{self.stem}.fits",
            "WEIGHTOUT_NAME": f"{self.stem}.weight.fits",
            "HEADER_SUFFIX": ".head",
            "WEIGHT_TYPE": "MAP_WEIGHT",
            "WEIGHT_SUFFIX": ".weight.fits",
            "RESCALE_WEIGHTS": "Y",
            "COMBINE": "Y" if self.combine_type else "N",
            "COMBINE_TYPE": self.combine_type or "WEIGHTED",
            "BLANK_BADPIXELS": "Y",
            "CELESTIAL_TYPE": "NATIVE",
            "PROJECTION_TYPE": "TAN",
            "PROJECTION_ERR": "0.01",
            "CENTER_TYPE": "MANUAL",
            "CENTER": f"{self.center[0]:.6f},{self.center[1]:.6f}",
            "PIXELSCALE_TYPE": "MANUAL",
            "PIXEL_SCALE": f"{self.pixel_scale:.6f}",
            "IMAGE_SIZE": f"{self.image_size[0]},{self.image_size[1]}",
            "RESAMPLE": "Y",
            "RESAMPLE_DIR": ".",
            "RESAMPLING_TYPE": self.resampling_type,
            "OVERSAMPLING": "1",
            "INTERPOLATE": "N",
            "FSCALASTRO_TYPE": "NONE",  # the pixel area is in FLXSCALE, see tasks.stacking.area
            "FSCALE_KEYWORD": "FLXSCALE",
            "FSCALE_DEFAULT": "1.0",
            "GAIN_DEFAULT": "0.0",
            "SUBTRACT_BACK": "Y" if self.subtract_back else "N",
            "BACK_TYPE": "AUTO",
            "BACK_SIZE": str(self.back_size),
            "BACK_FILTERSIZE": "3",
            "VMEM_DIR": ".",
            "VMEM_MAX": str(2 * self.memory_mb),
            "MEM_MAX": str(self.memory_mb),
            "COMBINE_BUFSIZE": str(self.memory_mb // 2),
            "DELETE_TMPFILES": "N",
            "COPY_KEYWORDS": "OBJECT",
            "WRITE_FILEINFO": "N",
            "WRITE_XML": "N",
            "VERBOSE_TYPE": "NORMAL",
            "NTHREADS": "1",  # one thread: the same bytes whatever the machine
        }
        arguments = ["-c", "swarp.conf"]
        for name, value in options.items():
            arguments += [f"-{name}", value]
        return arguments


def overlap_px(frame: ScaledFrame, grid: Grid, roots: Roots) -> int:
    """Pixels of the grid within the bounding box of a frame; 0: the frame is off the grid.

    SWarp exits with 0 and leaves such a frame out without a word.
    """
    sky = head_wcs(frame.aligned, roots).all_pix2world(outline(frame.aligned.frame.raw.shape), 1)
    plane = tangent_plane(unit_vectors(sky[:, 0], sky[:, 1]), grid.ra, grid.dec) * 3600.0 / grid.pixel_scale
    if not np.isfinite(plane).all():
        return 0
    low = np.maximum(plane.min(axis=0), [-grid.nx / 2, -grid.ny / 2])
    high = np.minimum(plane.max(axis=0), [grid.nx / 2, grid.ny / 2])
    return int(np.prod(np.floor(np.maximum(high - low, 0.0))))


def on_grid(selection: Selection, grid: Grid, roots: Roots) -> tuple[list[ScaledFrame], list[Rejected]]:
    """Chosen frames that lie on the grid, and the others with the reason."""
    kept, out = [], []
    for frame in selection.chosen:
        if overlap_px(frame, grid, roots) > 0:
            kept.append(frame)
        else:
            out.append(
                Rejected(
                    file=frame_label(frame.aligned),
                    reason=f"off the grid: its centre {frame.aligned.ra:.4f} {frame.aligned.dec:+.4f} is outside "
                    f"{grid.nx} x {grid.ny} px about {grid.ra:.4f} {grid.dec:+.4f}",
                )
            )
    return kept, out


def write_inputs(
    frames: Sequence[ScaledFrame], grid: Grid, folder: Path, roots: Roots, telescope: Telescope
) -> tuple[list[Resampled], list[Seen], float]:
    """Science images under short names, each with its `.head`; the images carry no WCS that could stand in.

    Pixels of a frame are brought to surface brightness where a flat has not done so, and FLXSCALE includes the
    ratio of pixel areas (`tasks.stacking.area`).

    Returns what SWarp will make of them, what their weights are made from, and the level above the sky up to which
    every frame is linear, in units of the stack.
    """
    coming, seen, limits = [], list[Seen](), []
    camera = telescope.camera
    for index, frame in enumerate(frames):
        name = f"{index:04d}"
        data, mask, _, header = read_reduced(frame.aligned.frame.reduced, roots)
        seen.append(Seen(mask, str(header.get("FLATCORR", "NONE"))))
        sky = np.float32(np.median(data[mask == 0])) if np.any(mask == 0) else np.float32(0)
        data = np.where(np.isfinite(data), data, sky)
        wcs = head_wcs(frame.aligned, roots)
        if frame.aligned.frame.reduced.flat is None:
            data = data / area_map(wcs, data.shape)  # never flat-fielded: counts, not yet surface brightness
        fits.PrimaryHDU(data).writeto(folder / f"{name}.fits")
        scale = frame.flux_scale * grid.pixel_scale**2 / central_area(wcs, data.shape)
        (folder / f"{name}.head").write_text(swarp_head(frame.aligned, scale, roots), encoding="ascii")
        seeing = _fwhm_arcsec(frame)
        coming.append(
            Resampled(
                image=folder / f"{name}.resamp.fits",
                weight=folder / f"{name}.resamp.weight.fits",
                scale=scale,
                gain=frame.aligned.frame.reduced.gain,
                fwhm_px=seeing / grid.pixel_scale if seeing else None,
            )
        )
        ceiling = float(header.get("SATURATE", camera.nonlinear_adu or camera.saturation_adu))
        limits.append((ceiling - float(sky)) * frame.flux_scale)
    return coming, seen, min(limits)


def run_swarp(resampled: Sequence[Resampled], options: SwarpOptions, folder: Path, timeout_s: float, log: Path) -> None:
    """Run SWarp on the inputs that `write_inputs` and `make_weights` left in a folder."""
    names = [frame.image.name.replace(".resamp", "") for frame in resampled]
    outputs = [path for frame in resampled for path in (frame.image, frame.weight)]
    if options.combine_type:
        outputs += [folder / f"{options.stem}.fits", folder / f"{options.stem}.weight.fits"]
    (folder / "swarp.conf").write_text("# all options are arguments\n", encoding="ascii")
    run_tool("SWarp", [*names, *options.arguments()], cwd=folder, timeout_s=timeout_s, outputs=outputs, log=log)


def _fwhm_arcsec(frame: ScaledFrame) -> float | None:
    solved = frame.aligned.frame.solved
    return solved.fwhm_arcsec or solved.measured.quality.fwhm_arcsec


def seeing_px(frames: Sequence[ScaledFrame], grid: Grid) -> float:
    """Typical seeing of the frames, px of the grid."""
    known = [width for frame in frames if (width := _fwhm_arcsec(frame))]
    return (float(np.median(known)) if known else _TYPICAL_SEEING_ARCSEC) / grid.pixel_scale


def _read_result(folder: Path, grid: Grid, stem: str = "coadd") -> tuple[FloatImage, FloatImage]:
    """Image and weight as SWarp wrote them, checked against the grid; exactly 0 where there is no data."""
    with (
        fits.open(folder / f"{stem}.fits", memmap=False) as image,
        fits.open(folder / f"{stem}.weight.fits", memmap=False) as map_,
    ):
        header = image[0].header
        data, weight = np.array(image[0].data, np.float32), np.array(map_[0].data, np.float32)
    wrong = wrong_cards(header, grid)
    if wrong or data.shape != (grid.ny, grid.nx) or weight.shape != data.shape:
        raise StageError(
            "stacking",
            f"SWarp made {data.shape[1]} x {data.shape[0]} px where {grid.nx} x {grid.ny} were asked for"
            + (f"; {wrong}" if wrong else ""),
            "is it the version that flows.doctor asks for?",
        )
    empty = ~(np.isfinite(data) & np.isfinite(weight) & (weight > 0))
    data[empty], weight[empty] = 0.0, 0.0
    return data, weight


def _loss_note(loss: LightLoss | None, how: str) -> str:
    if loss is None:
        return f"too few stars to see what the {how} loses of their light: nothing restored"
    verb, undone, light = (
        ("loses", "restored", "brighter") if loss.magnitude >= 0 else ("gains", "taken back", "fainter")
    )
    return (
        f"the {how} {verb} {abs(loss.magnitude):.4f} +- {loss.error:.4f} mag of the stars' light ({loss.n_stars} "
        f"stars, against the weighted mean); {undone}, so smooth extended light is {light} by as much"
    )


def _linearity_notes(found: StackLinearity | None) -> tuple[str, ...]:
    if found is None or not found.bent:
        return ()
    return (
        f"not linear: {found.n_faint} faint stars are {found.magnitude:+.3f} +- {found.error:.3f} mag off "
        f"{found.n_bright} bright ones, against the weighted mean of the same frames",
    )


def _lacking(frames: Sequence[ScaledFrame], grid: Grid, used: CountImage, roots: Roots) -> CountImage:
    """How many frames see a pixel and are not in it: masked there, or left out by the clip."""
    seen = np.zeros(used.shape, np.int16)
    for frame in frames:
        wcs, shape = head_wcs(frame.aligned, roots), frame.aligned.frame.raw.shape
        sky = wcs.all_pix2world(outline(shape, inset=LANCZOS_REACH), 1)
        plane = tangent_plane(unit_vectors(sky[:, 0], sky[:, 1]), grid.ra, grid.dec) * 3600.0 / grid.pixel_scale
        edge = np.column_stack([(grid.nx + 1) / 2 - plane[:, 0], (grid.ny + 1) / 2 + plane[:, 1]])
        x0, y0 = np.maximum(np.floor(edge.min(axis=0)).astype(int), 1)
        x1, y1 = np.minimum(np.ceil(edge.max(axis=0)).astype(int), [grid.nx, grid.ny])
        columns, rows = np.meshgrid(np.arange(x0, x1 + 1), np.arange(y0, y1 + 1))
        inside = Path2D(edge).contains_points(np.column_stack([columns.ravel(), rows.ravel()]))
        seen[y0 - 1 : y1, x0 - 1 : x1] += inside.reshape(columns.shape)
    lacking: CountImage = np.maximum(seen - used, 0).astype(np.int16)
    return lacking


def _write_maps(
    selection: Selection, frames: Sequence[ScaledFrame], grid: Grid, used: CountImage, paths: StackPaths, roots: Roots,
    telescope: Telescope, settings: StackSettings,
) -> None:  # fmt: skip
    for path, counts, what in (
        (paths.work_coverage, used, "frames combined in the pixel"),
        (paths.work_rejected, _lacking(frames, grid, used, roots), "frames that see the pixel, masked or clipped"),
    ):
        header = map_header(selection, len(frames), grid, telescope, settings, what)
        write_fits(path, [fits.PrimaryHDU(counts, header)])


def combine(selection: Selection, grid: Grid, roots: Roots, telescope: Telescope, settings: StackSettings) -> Stack:
    """Stack the chosen frames of one filter.

    SWarp resamples the frames once. The clipped mean is SWarp's, median and weighted mean are ours
    (`tasks.stacking.coadd`); the latter is made for all of them, since it is what the light of stars on the others is
    measured against. Stars in a median or clipped stack are brought to the flux they have in it
    (`tasks.stacking.light`), if ``settings.restore_light``; header (LIGHTCOR) and notes say by how much. How far faint
    stars are then off bright ones is in the header as PHOTLIN; for the weighted mean itself, against the same mean
    without the clip.

    Image and weight go to `models.stack.StackPaths.work_image` and ``work_weight``; `finish_stack` publishes
    them.

    Parameters
    ----------
    selection
        Frames with their flux scale.
    grid
        The group's.
    roots, telescope
        Where the frames are; the linearity limit.
    settings
        Combination, kernel, background mesh, limits of SWarp.

    Returns
    -------
    Stack
        Without PSF, validation and depth.

    Raises
    ------
    StageError
        If no frame is on the grid, a frame cannot be read, or SWarp fails or makes another grid.
    """
    frames, off_grid = on_grid(selection, grid, roots)
    if not frames:
        raise StageError(
            "stacking",
            f"no frame of {selection.group} {selection.filter} lies on the grid "
            f"({len(selection.chosen)} chosen{': ' + selection.reason if selection.reason else ''})",
            "see the reasons of the rejected frames",
        )
    paths = stack_paths(selection.group, telescope.name, selection.filter, roots)
    seeing = seeing_px(frames, grid)
    with scratch(roots.scratch, "swarp") as folder:
        resampled, seen, linear_limit = write_inputs(frames, grid, folder, roots, telescope)
        _, notes = make_weights(frames, seen, folder, roots, telescope)
        options = SwarpOptions(
            combine_type=_BY_SWARP.get(settings.combine),
            center=(grid.ra, grid.dec),
            image_size=(grid.nx, grid.ny),
            pixel_scale=grid.pixel_scale,
            resampling_type=settings.resampling,
            back_size=settings.back_size_px,
            memory_mb=settings.memory_mb,
        )
        log = roots.logs / f"swarp_{selection.group}_{telescope.name}_{selection.filter}.log"
        run_swarp(resampled, options, folder, settings.timeout_s, log)
        median = settings.combine == "median"
        ours = coadd(resampled, grid, settings.clip_sigma, settings.memory_mb, seeing, median)
        data, weight, mean = ours.data, ours.weight, ours.plain
        if options.combine_type:
            data, weight = _read_result(folder, grid)
        elif ours.median is not None and ours.median_weight is not None:
            data, weight = ours.median, ours.median_weight
    whole = settings.combine != "weighted"
    if whole:
        mean = ours.data
    bad = (weight <= 0) | (ours.weight <= 0)
    if bad.all():
        raise StageError(
            "stacking",
            f"{len(frames)} frames of {selection.group} {selection.filter} make an empty image",
            "look at the masks of the frames",
        )
    loss, beside = None, Beside(data, mean, bad)
    if settings.restore_light and whole and len(frames) > 2:
        loss = light_loss(beside, seeing, linear_limit)
        notes = (*notes, _loss_note(loss, settings.combine))
    linear = linearity(beside, seeing, linear_limit)
    if loss is not None:
        factor = np.float32(10.0 ** (0.4 * loss.magnitude))
        data, weight, linear_limit = data * factor, weight / factor**2, linear_limit * float(factor)
    clipped = float(ours.clipped.sum(dtype=np.int64)) / max(int(ours.used.sum(dtype=np.int64)), 1)
    header = stack_header(
        selection, frames, grid, telescope, settings, linear_limit, loss, linear,
        clipped=None if whole else clipped,
    )  # fmt: skip
    write_fits(paths.work_image, [fits.PrimaryHDU(data, header)])
    of_weight = weight_header(selection, len(frames), grid, telescope, settings)
    write_fits(paths.work_weight, [fits.PrimaryHDU(weight, of_weight)])
    if settings.maps:
        used = ours.used + (ours.clipped if whole else np.int16(0))
        _write_maps(selection, frames, grid, used, paths, roots, telescope, settings)
    return Stack(
        group=selection.group,
        filter=selection.filter,
        telescope=telescope.name,
        image=ref(paths.work_image, roots),
        weight=ref(paths.work_weight, roots),
        n_combined=len(frames),
        inputs=tuple(frame_label(frame.aligned) for frame in frames),
        rejected=(*selection.rejected, *off_grid),
        combine=settings.combine.upper(),
        exptime_s=math.fsum(frame.aligned.frame.raw.exptime for frame in frames),
        calibrated=all(frame.zero_point is not None for frame in frames),
        colour=selection.colour,
        scale_source="; ".join(sorted({frame.scale_source for frame in frames})),
        linearity=linear,
        rejected_map=ref(paths.work_rejected, roots) if settings.maps else None,
        coverage_map=ref(paths.work_coverage, roots) if settings.maps else None,
        notes=(*selection.notes, *notes, *_linearity_notes(linear)),
    )
