"""Point spread functions: of frames (PSFEx), of stacks, and the telescope's mean."""

from tasks.psf.energy import EncircledEnergy, Growth, encircled_energy, measure_growth
from tasks.psf.extraction import ExtractionOptions, extract_catalogue, linear_header, read_objects, sky_weight
from tasks.psf.frame import model_psf
from tasks.psf.images import MoffatFit, centred, centroid, fit_moffat
from tasks.psf.psfex import PsfexOptions, PsfexResult, evaluate_psf, run_psfex, run_psfex_by_degree
from tasks.psf.stack import mean_psf, stack_psf

__all__ = [
    "EncircledEnergy",
    "ExtractionOptions",
    "Growth",
    "MoffatFit",
    "PsfexOptions",
    "PsfexResult",
    "centred",
    "centroid",
    "encircled_energy",
    "evaluate_psf",
    "extract_catalogue",
    "fit_moffat",
    "linear_header",
    "mean_psf",
    "measure_growth",
    "model_psf",
    "read_objects",
    "run_psfex",
    "run_psfex_by_degree",
    "sky_weight",
    "stack_psf",
]
