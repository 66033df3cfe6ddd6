"""Trivial stages with the real ones' arguments, results and file names: what is left is the pipeline around them.

Each writes small files under the names of the true products and returns the true model, without looking at a pixel.
`install` puts them in the place of the pure functions that the cached tasks hand to the process pool; tasks, keys
(which hold the digests of the *true* functions), pool, records, ledger, flows and reports are untouched.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.release import SIDE
from models.astrometry import Alignment, IndexSet
from models.base import FileRef, Roots
from models.catalog import Cone, StoredCone
from models.frame import (
    CalibratedFrame,
    ColourFit,
    FramePsf,
    FrameRecord,
    MasterBias,
    MasterFlat,
    MeasuredFrame,
    PlateSolution,
    Quality,
    RawFrame,
    ReducedFrame,
    Rejected,
    SolvedFrame,
    ZeroPoint,
)
from models.page import GroupPictures, PageFrame, Picture, StackPictures, StackPlots
from models.settings import (
    AstrometrySettings,
    BiasSettings,
    FlatSettings,
    PhotometrySettings,
    PsfSettings,
    QualitySettings,
    ReductionSettings,
    ScampSettings,
    SelectionSettings,
    SourceSettings,
    StackSettings,
    ValidationSettings,
)
from models.sourcelist import SourceList, source_list_paths
from models.stack import (
    AlignedFrame,
    Grid,
    GroupSources,
    ScaledFrame,
    Selection,
    Stack,
    StackPsf,
    StackTie,
    StackValidation,
    stack_paths,
)
from models.target import Target, load_targets
from models.telescope import Telescope
from tasks.core.files import ref, writing
from tasks.stacking import StarFluxes

__all__ = ["REPLACED", "install"]

_PICTURE = 600_000
_PLOT = 50_000
"""Sizes of the demo's pictures, bytes."""


def _write(path: Path, content: bytes) -> None:
    with writing(path, durable=False) as temporary:
        temporary.write_bytes(content)


def _card(keyword: str, value: str) -> str:
    return f"{keyword:<8}= {value}".ljust(80)


def _fits(path: Path, seed: str, more: Sequence[tuple[str, str]] = ()) -> None:
    """A float32 image of the frames' size whose content depends on `seed`."""
    cards = [("SIMPLE", f"{'T':>20}"), ("BITPIX", f"{-32:>20}"), ("NAXIS", f"{2:>20}")]
    cards += [("NAXIS1", f"{SIDE:>20}"), ("NAXIS2", f"{SIDE:>20}"), *more]
    header = "".join(_card(*card) for card in cards) + "END".ljust(80)
    number = zlib.crc32(seed.encode()) % 1_000_000
    pixels = number.to_bytes(4, "big") * (SIDE * SIDE)
    pixels += b"\0" * (-len(pixels) % 2880)
    _write(path, header.ljust(-(-len(header) // 2880) * 2880).encode("ascii") + pixels)


def _number(seed: str) -> float:
    """Between 0 and 1, the same for the same seed."""
    return zlib.crc32(seed.encode()) / 2**32


def _folder(raw: RawFrame, telescope: Telescope, roots: Roots) -> Path:
    return roots.data / str(raw.year) / telescope.name


def make_master_bias(
    frames: Sequence[RawFrame], roots: Roots, telescope: Telescope, settings: BiasSettings
) -> MasterBias:
    first = frames[0]
    name = f"master_bias_{first.year}_{telescope.name}_{first.binning}.fits"
    path = _folder(first, telescope, roots) / "master_bias" / name
    _fits(path, name)
    return MasterBias(
        file=ref(path, roots, "pixels"), telescope=telescope.name, year=first.year, binning=first.binning,
        n_combined=len(frames), level_adu=300.0, read_noise_e=8.0,
    )  # fmt: skip


def make_master_flat(
    frames: Sequence[RawFrame], bias: MasterBias | None, roots: Roots, telescope: Telescope, settings: FlatSettings
) -> MasterFlat:
    first = frames[0]
    name = f"master_flat_{first.year}_{telescope.name}_{first.binning}_{first.filter}.fits"
    path = _folder(first, telescope, roots) / "master_flat" / name
    _fits(path, name)
    return MasterFlat(
        file=ref(path, roots, "pixels"), telescope=telescope.name, year=first.year, binning=first.binning,
        filter=first.filter or "", n_combined=len(frames), level_adu=30000.0,
    )  # fmt: skip


def reduce_frame(
    raw: RawFrame,
    bias: MasterBias | None,
    flat: MasterFlat | None,
    roots: Roots,
    telescope: Telescope,
    settings: ReductionSettings,
) -> ReducedFrame:
    path = _folder(raw, telescope, roots) / "reduced" / raw.night / f"{raw.name}.fits"
    _fits(path, raw.path)
    return ReducedFrame(
        raw=raw, file=ref(path, roots, "pixels"), bias=bias and bias.file.digest, flat=flat and flat.file.digest,
        gain=1.5, read_noise=8.0, masked_fraction=0.01,
    )  # fmt: skip


def measure_frame(
    reduced: ReducedFrame, roots: Roots, telescope: Telescope, settings: QualitySettings
) -> MeasuredFrame:
    raw = reduced.raw
    path = roots.data / ".cache" / "sources" / str(raw.year) / telescope.name / raw.night / f"{raw.name}.fits"
    _write(path, raw.path.encode() * 100)
    quality = Quality(
        fwhm_px=3.0 + _number(raw.path), fwhm_arcsec=2.3 + _number(raw.path), elongation=1.1, sky_adu=200.0,
        sky_sigma=14.0, saturated_fraction=0.0, n_sources=150,
    )  # fmt: skip
    return MeasuredFrame(reduced=reduced, quality=quality, sources=ref(path, roots))


def build_index(gaia: StoredCone, roots: Roots, telescope: Telescope) -> IndexSet:
    path = roots.data / "astrometry_index" / f"index_{gaia.cone.ra:.4f}_{gaia.cone.dec:+.4f}.fits"
    _write(path, gaia.file.digest.encode() * 100)
    file = ref(path, roots)
    return IndexSet(source="gaia", files=(file,), fingerprint=file.digest)


def solve_frame(
    measured: MeasuredFrame,
    hint: Cone,
    index: IndexSet,
    gaia: StoredCone | None,
    roots: Roots,
    telescope: Telescope,
    settings: AstrometrySettings,
) -> SolvedFrame:
    raw = measured.raw
    path = roots.data / ".cache" / "wcs" / str(raw.year) / telescope.name / raw.night / f"{raw.name}.wcs"
    _write(path, raw.path.encode() * 40)
    solution = PlateSolution(
        wcs=ref(path, roots), ra=(hint.ra + 0.01 * _number(raw.path)) % 360, dec=hint.dec, pixel_scale=0.773,
        rotation_deg=-90.0, parity=-1, rms_arcsec=0.03, n_matched=60, reference="Gaia DR3 at J2025.2",
    )  # fmt: skip
    return SolvedFrame(measured=measured, solution=solution, status="OK", fwhm_arcsec=2.5)


def calibrate_frame(
    solved: SolvedFrame, ps1: StoredCone | None, roots: Roots, telescope: Telescope, settings: PhotometrySettings
) -> CalibratedFrame:
    term = telescope.band(solved.raw.filter or "").colour_term
    own = ColourFit(term=0.05 + 0.02 * _number(solved.raw.path), photon_error=0.01, star_error=0.003)
    point = ZeroPoint(
        status="OK", zp=24.0 + 0.01 * _number(solved.raw.path), zp_err=0.003, zp_rms=0.02, n_stars=40, n_matched=60,
        colour_term=own.term if term is None else term, colour_mean=0.7, own_colour=own, aperture_px=9.0,
        catalogue="PS1 DR2",
    )  # fmt: skip
    return CalibratedFrame(solved=solved, zero_point=point)


def model_psf(calibrated: CalibratedFrame, roots: Roots, telescope: Telescope, settings: PsfSettings) -> FramePsf:
    raw = calibrated.raw
    path = _folder(raw, telescope, roots) / "psf" / raw.night / f"{raw.name}.psf"
    catalogue = roots.data / ".cache" / "ldac" / str(raw.year) / telescope.name / raw.night / f"{raw.name}.ldac"
    _write(path, raw.path.encode() * 200)
    _write(catalogue, raw.path.encode() * 400)
    return FramePsf(
        psf=ref(path, roots), catalogue=ref(catalogue, roots), fwhm_px=3.2, fwhm_arcsec=2.5, ellipticity=0.05,
        chi2=1.1, n_stars_accepted=50,
    )  # fmt: skip


def publish_frame(record: FrameRecord, roots: Roots) -> FileRef:
    assert record.reduced is not None
    path = roots.of(record.reduced.file)
    _fits(path, record.raw.path, [("QCFWHM", f"{2.5:>20}"), ("PROCDATE", "'2025-01-01T00:00:00'")])
    ref(path, roots, scope="pixels")
    return ref(path, roots, scope="undated")


def align_frames(
    frames: Sequence[FrameRecord],
    gaia: StoredCone | None,
    group: str,
    roots: Roots,
    telescope: Telescope,
    settings: ScampSettings,
) -> Alignment:
    aligned = []
    for record in frames:
        assert record.calibrated is not None
        path = roots.of(record.calibrated.reduced.file).with_suffix(".head")
        _write(path, record.raw.path.encode() * 40)
        solution = record.calibrated.solved.solution
        aligned.append(
            AlignedFrame(
                frame=record.calibrated, head=ref(path, roots), source="scamp", rms_arcsec=0.02, n_matched=50,
                ra=solution.ra, dec=solution.dec,
            )
        )  # fmt: skip
    return Alignment(aligned=tuple(aligned), notes=(f"{group}: one season",))


def scale_and_select(
    target: Target,
    filter: str,
    aligned: Sequence[AlignedFrame],
    rejected: Sequence[Rejected],
    centre: tuple[float, float] | None,
    ps1: StoredCone | None,
    roots: Roots,
    telescope: Telescope,
    photometry: PhotometrySettings,
    selection: SelectionSettings,
    ahead: Mapping[str, StarFluxes] | None = None,
) -> Selection:
    chosen = tuple(
        ScaledFrame(aligned=frame, zero_point=24.0, flux_scale=8.0, scale_source="PS1 and common stars")
        for frame in aligned
    )
    return Selection(group=target.name, filter=filter, chosen=chosen, rejected=tuple(rejected))


def star_fluxes(
    frames: Sequence[CalibratedFrame], roots: Roots, telescope: Telescope, settings: PhotometrySettings
) -> dict[str, StarFluxes]:
    return {}


def common_grid(selections: Sequence[Selection], roots: Roots, telescope: Telescope, settings: StackSettings) -> Grid:
    first = selections[0].chosen[0].aligned
    return Grid(ra=first.ra, dec=first.dec, pixel_scale=0.77, nx=SIDE, ny=SIDE)


def combine(selection: Selection, grid: Grid, roots: Roots, telescope: Telescope, settings: StackSettings) -> Stack:
    paths = stack_paths(selection.group, telescope.name, selection.filter, roots)
    seed = f"{selection.group}_{selection.filter}"
    _fits(paths.work_image, seed)
    _fits(paths.work_weight, f"{seed} weight")
    return Stack(
        group=selection.group, filter=selection.filter, telescope=telescope.name,
        image=ref(paths.work_image, roots), weight=ref(paths.work_weight, roots), n_combined=len(selection.chosen),
        inputs=tuple(frame.aligned.frame.raw.label for frame in selection.chosen), combine=settings.combine,
        exptime_s=30.0 * len(selection.chosen), calibrated=True,
    )  # fmt: skip


def stack_psf(stack: Stack, roots: Roots, telescope: Telescope, settings: PsfSettings) -> StackPsf:
    path = stack_paths(stack.group, stack.telescope, stack.filter, roots).psf
    _fits(path, f"{stack.group}_{stack.filter} psf")
    return StackPsf(
        file=ref(path, roots), fwhm_px=3.3, fwhm_arcsec=2.5, ee50_arcsec=1.5, ee80_arcsec=3.0, ellipticity=0.03,
        n_stars=40, chi2=1.0,
    )  # fmt: skip


def tied(
    stack: Stack, ps1: StoredCone | None, roots: Roots, telescope: Telescope, settings: ValidationSettings
) -> Stack:
    return stack.model_copy(update={"tie": StackTie(offset=0.004, half_offset=0.004, err=0.001, n_stars=20)})


def validate_stack(
    stack: Stack, ps1: StoredCone | None, roots: Roots, telescope: Telescope, settings: ValidationSettings
) -> StackValidation:
    return StackValidation(
        validated=True, reason="within 0.1 mag", zp_offset=0.003, zp_err=0.001, zp_rms=0.02, n_stars=20
    )


def measure_and_plot(
    stack: Stack,
    verdict: StackValidation,
    ps1: StoredCone | None,
    roots: Roots,
    telescope: Telescope,
    settings: ValidationSettings,
) -> FileRef:
    return _picture(stack, "_phot", _PLOT, roots)


def _picture(stack: Stack, suffix: str, size: int, roots: Roots) -> FileRef:
    plots = stack_paths(stack.group, stack.telescope, stack.filter, roots).plots
    path = plots / f"{stack.group}_{stack.filter}{suffix}.png"
    content = f"{path.name} ".encode() * size
    _write(path, content[:size])
    return ref(path, roots)


def _stack_cards(stack: Stack) -> list[tuple[str, str]]:
    """What the release's tables read: where the stack lies, and of what it is."""
    place, step, middle = load_targets()[stack.group], 0.77 / 3600, (SIDE + 1) / 2
    numbers = {
        "CRVAL1": place.ra, "CRVAL2": place.dec, "CRPIX1": middle, "CRPIX2": middle,
        "CD1_1": -step, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": step,
    }  # fmt: skip
    words = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "OBJECT": stack.group, "FILTER": stack.filter}
    return [(key, f"{value:>20.12G}") for key, value in numbers.items()] + [
        (key, f"'{value:<8}'") for key, value in words.items()
    ]


def measure_and_finish(stack: Stack, psf: StackPsf | None, validation: StackValidation | None, roots: Roots) -> Stack:
    paths = stack_paths(stack.group, stack.telescope, stack.filter, roots)
    seed, cards = f"{stack.group}_{stack.filter}", _stack_cards(stack)
    _fits(paths.image, seed, cards)
    _fits(paths.weight, f"{seed} weight", cards)
    return stack.model_copy(
        update={
            "image": ref(paths.image, roots),
            "weight": ref(paths.weight, roots),
            "psf": psf,
            "validation": validation,
            "depth_5sigma": 22.0,
        }
    )


def plot_stack(stack: Stack, roots: Roots) -> FileRef:
    return _picture(stack, "", _PICTURE, roots)


def plot_rgb(stacks: Sequence[Stack], roots: Roots) -> FileRef | None:
    return _picture(stacks[0].model_copy(update={"filter": "rgb"}), "", _PICTURE, roots) if stacks else None


def mean_psf(psfs: Sequence[FramePsf], roots: Roots, telescope: Telescope) -> FileRef:
    path = roots.data / "stacks" / f"{telescope.name}_mean_psf.fits"
    _fits(path, "mean psf")
    return ref(path, roots)


def find_sources(stacks: Sequence[Stack], roots: Roots) -> GroupSources:
    """None so large that it needs stacks for extended targets."""
    path = roots.data / ".cache" / "stacks" / f"{stacks[0].group}_sources.fits"
    _fits(path, stacks[0].group)
    filters = tuple(stack.filter for stack in stacks)
    return GroupSources(group=stacks[0].group, map=ref(path, roots), diameter_px=0.0, filter="", filters=filters)


def _shown(name: str, stack: Stack, roots: Roots) -> Picture:
    return Picture(file=_picture(stack, f"_{name}", _PLOT, roots), alt=f"trivial {name}", width=100, height=100)


def pictures_of_stack(stack: Stack, roots: Roots) -> StackPictures:
    return StackPictures(view=_shown("view", stack, roots), weight=_shown("weight", stack, roots), depth=None)


def plots(
    stack: Stack,
    ps1: StoredCone | None,
    gaia: StoredCone | None,
    epoch: float,
    roots: Roots,
    telescope: Telescope,
    settings: ValidationSettings,
) -> StackPlots:
    return StackPlots(psf=_shown("psf", stack, roots), photometry=None, astrometry=None)


def group_pictures(
    stacks: Sequence[Stack], frames: Sequence[PageFrame], continuum: Mapping[str, str | None], roots: Roots
) -> GroupPictures:
    first = stacks[0].model_copy(update={"filter": "all"})
    return GroupPictures(colour=_shown("colour", first, roots), thumbnail=_shown("thumb", first, roots))


def night_picture(night: str, frames: Sequence[PageFrame], telescope: str, roots: Roots) -> Picture:
    path = roots.data / night[:4] / telescope / "plots" / f"{night}.svg"
    _write(path, f"<svg>{night}</svg>".encode())
    return Picture(file=ref(path, roots), alt=f"trivial {night}", width=100, height=100)


def make_source_list(
    stacks: Sequence[Stack],
    gaia: StoredCone | None,
    ps1: StoredCone | None,
    roots: Roots,
    telescope: Telescope,
    settings: SourceSettings,
) -> SourceList:
    group = stacks[0].group
    paths = source_list_paths(group, telescope.name, roots)
    for path in paths:
        _write(path, path.name.encode() * 1000)
    return SourceList(
        group=group, telescope=telescope.name, fits=ref(paths[0], roots), parquet=ref(paths[1], roots), n_sources=1000,
        n_crowded=0, detected_on=("r",), bands=(), n_gaia=100, n_ps1=100,
    )  # fmt: skip


REPLACED: dict[str, dict[str, Any]] = {
    "tasks.calibration.tasks": {
        "make_master_bias": make_master_bias,
        "make_master_flat": make_master_flat,
        "reduce_frame": reduce_frame,
    },
    "tasks.quality.tasks": {"measure_frame": measure_frame},
    "tasks.astrometry.tasks": {
        "build_index": build_index,
        "solve_frame": solve_frame,
        "align_frames": align_frames,
    },
    "tasks.photometry.tasks": {"calibrate_frame": calibrate_frame},
    "tasks.psf.tasks": {"model_psf": model_psf, "stack_psf": stack_psf, "mean_psf": mean_psf},
    "tasks.report.tasks": {"publish_frame": publish_frame},
    "tasks.stacking.tasks": {
        "_scale_and_select": scale_and_select,
        "star_fluxes": star_fluxes,
        "common_grid": common_grid,
        "combine": combine,
        "_measure_and_finish": measure_and_finish,
        "find_sources": find_sources,
        "plot_stack": plot_stack,
        "plot_rgb": plot_rgb,
    },
    "tasks.pages.tasks": {
        "pictures_of_stack": pictures_of_stack,
        "_plots": plots,
        "group_pictures": group_pictures,
        "night_picture": night_picture,
    },
    "tasks.sourcelists.tasks": {"make_source_list": make_source_list},
    "tasks.validation.tasks": {
        "_with_tie": tied,
        "validate_stack": validate_stack,
        "_measure_and_plot": measure_and_plot,
    },
}
"""What is replaced, by the module of the tasks that call it."""


def install() -> None:
    """Let the tasks of this process hand the trivial stages to the pool.

    Raises
    ------
    AttributeError
        If a task module has no such function any more.
    """
    for module_name, functions in REPLACED.items():
        module = importlib.import_module(module_name)
        for name, function in functions.items():
            getattr(module, name)
            setattr(module, name, function)
