"""From simulated raw frames to aligned ones: positions against the simulation's truth."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from models.base import Roots
from models.catalog import Cone
from models.frame import CalibratedFrame, FrameRecord, MeasuredFrame, SolvedFrame, ZeroPoint
from models.settings import (
    AstrometrySettings,
    BiasSettings,
    FlatSettings,
    PsfSettings,
    QualitySettings,
    ReductionSettings,
    ScampSettings,
)
from models.simulation import TrueWcs
from models.telescope import Telescope
from tasks.astrometry import align_frames, build_index, read_head, read_wcs, solve_frame
from tasks.calibration import make_master_bias, make_master_flat, reduce_frame
from tasks.catalogs import find_cone
from tasks.inventory import take_inventory
from tasks.psf import model_psf
from tasks.quality import measure_frame, read_sources
from tasks.simulation import to_pixels, to_sky
from tests.conftest import Campaign

pytestmark = pytest.mark.tools


def measure(roots: Roots, telescope: Telescope) -> list[MeasuredFrame]:
    """Two frames of each filter, reduced and measured."""
    frames = take_inventory(roots, telescope).frames
    bias = make_master_bias([f for f in frames if f.kind == "bias"], roots, telescope, BiasSettings())
    measured = []
    for band in ("g", "r"):
        flats = [f for f in frames if f.kind == "flat" and f.filter == band]
        flat = make_master_flat(flats, bias, roots, telescope, FlatSettings())
        for raw in [f for f in frames if f.kind == "science" and f.filter == band][:2]:
            reduced = reduce_frame(raw, bias, flat, roots, telescope, ReductionSettings())
            measured.append(measure_frame(reduced, roots, telescope, QualitySettings()))
    return measured


def bright_errors_mas(solved: SolvedFrame, wcs: object, truth: TrueWcs, roots: Roots) -> np.ndarray:
    """Mapping error (east, north) at the places of the frame's sources with S/N > 50."""
    table: Table = read_sources(solved.measured, roots)
    bright = np.asarray(table["SNR"]) > 50
    x, y = np.asarray(table["X"])[bright], np.asarray(table["Y"])[bright]
    ra, dec = wcs.all_pix2world(x, y, 1)  # type: ignore[attr-defined]
    true_ra, true_dec = to_sky(truth, x, y)
    return np.column_stack([(ra - true_ra) * np.cos(np.radians(true_dec)), dec - true_dec]) * 3.6e6


def rms(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.sum(errors**2, axis=-1))))


def test_positions_of_bright_stars(campaign: Campaign, campaign_roots: Roots, telescope: Telescope) -> None:
    roots = campaign_roots
    truths = {frame.path: frame for frame in campaign.truth.frames}
    records, index, cone = [], None, None
    for measured in measure(roots, telescope):
        truth = truths[measured.raw.path]
        assert truth.wcs is not None
        if cone is None:
            cone = find_cone("gaia", Cone(ra=truth.wcs.crval[0], dec=truth.wcs.crval[1], radius=0.3), roots)
            assert cone is not None
            index = build_index(cone, roots, telescope)
        assert index is not None
        hint = Cone(ra=cone.cone.ra, dec=cone.cone.dec, radius=1.0)
        solved = solve_frame(measured, hint, index, cone, roots, telescope, AstrometrySettings())
        assert solved.status == "OK"
        assert rms(bright_errors_mas(solved, read_wcs(solved, roots), truth.wcs, roots)) < 30
        assert truth.seeing_arcsec is not None
        assert solved.fwhm_arcsec == pytest.approx(truth.seeing_arcsec, rel=0.08)
        centre = to_pixels(truth.wcs, np.array([solved.solution.ra]), np.array([solved.solution.dec]))
        assert np.allclose(np.ravel(centre), 512.5, atol=0.1)
        calibrated = CalibratedFrame(solved=solved, zero_point=ZeroPoint(status="FEW_STARS"))
        psf = model_psf(calibrated, roots, telescope, PsfSettings())
        records.append(FrameRecord(raw=solved.raw, solved=solved, calibrated=calibrated, psf=psf))

    result = align_frames(records, cone, "M67", roots, telescope, ScampSettings())
    assert not result.rejected
    assert not any("refused" in frame.reason or "failed" in frame.reason for frame in result.aligned)
    means = {}
    for frame in result.aligned:
        wcs, truth = read_head(roots.of(frame.head)), truths[frame.frame.raw.path]
        assert truth.wcs is not None
        errors = bright_errors_mas(frame.frame.solved, wcs, truth.wcs, roots)
        assert rms(errors) < 30
        means.setdefault(frame.frame.raw.filter, []).append(errors.mean(axis=0))
    between = np.mean(means["g"], axis=0) - np.mean(means["r"], axis=0)
    assert np.hypot(*between) < 20
