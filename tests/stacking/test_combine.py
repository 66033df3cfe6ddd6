"""SWarp's stacks of known stars: flux, grid, weights, header, bytes."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from models.base import FileRef
from models.frame import ColourTerm
from models.settings import StackSettings
from models.stack import Grid, ScaledFrame, Selection, StackNoise, StackPsf, StackTie, StackValidation, stack_paths
from models.telescope import load_telescope
from tasks.core.errors import StageError
from tasks.core.tools import run_tool
from tasks.photometry import aperture_photometry, area_map
from tasks.stacking import (
    combine,
    common_grid,
    depth,
    finish_stack,
    overlap_px,
    stack_colour,
)
from tasks.stacking.coadd import coadd
from tasks.stacking.combine import SwarpOptions, _loss_note, write_inputs
from tasks.stacking.heads import head_wcs, swarp_head
from tasks.stacking.light import LightLoss
from tasks.stacking.weights import make_weights
from tests.stacking.sky import Shot, make_roots, moffat, stars, take

T120 = load_telescope("T120")
SETTINGS = StackSettings(padding_px=10)
DITHERS = [(0.0, 0.0), (12.3, -9.4), (-15.1, 8.2), (7.7, 17.9), (-11.2, -14.6)]


def scale(aligned, zp):
    exptime = aligned.frame.raw.exptime
    return ScaledFrame(
        aligned=aligned,
        zero_point=zp,
        flux_scale=10 ** (0.4 * (30 - zp)) / exptime,
        scale_source="common stars, tied to PS1",
    )


def choose(frames, filter="r", group="M67"):
    return Selection(group=group, filter=filter, chosen=tuple(frames))


def aperture(image, x, y, radius):
    """Flux above the clipped median of an annulus, as the pipeline measures its stars; NaN never."""
    data = np.asarray(image, np.float32)
    return aperture_photometry(data, np.zeros(data.shape, np.uint8), np.ones_like(data), x, y, radius).flux


def magnitudes(stack, roots, sky, radius=12.0):
    """Magnitudes of the stars on a stack for all of their light, and where they are (0-based)."""
    header = fits.getheader(roots.of(stack.image))
    x, y = WCS(header).all_world2pix(np.asarray(sky["RA"]), np.asarray(sky["DEC"]), 0)
    flux = aperture(fits.getdata(roots.of(stack.image)), x, y, radius)
    ideal = moffat((201, 201), 100, 100, 3.5 * 0.773 / 0.770)
    share = aperture(ideal, np.array([100.0]), np.array([100.0]), radius)[0]
    return 30 - 2.5 * np.log10(flux / share), (x, y)


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    return make_roots(tmp_path_factory.mktemp("combine"))


@pytest.fixture(scope="module")
def sky():
    return stars(16, half_deg=0.021, bright=13.0, faint=15.5)


@pytest.fixture(scope="module")
def field(roots, sky):
    """Five frames, different transparency, exposure and distortion, without noise."""
    shots = [
        Shot(f"f{i}", zp=zp, exptime=t, dither=DITHERS[i], noise=False, k3=k3, flat=vignetting())
        for i, (zp, t, k3) in enumerate(
            [(23.0, 30, 0), (22.8, 60, 0.3), (22.9, 30, -0.2), (22.6, 45, 0.1), (23.1, 20, 0)]
        )
    ]
    return [scale(take(shot, sky, roots), shot.zp) for shot in shots]


def vignetting(shape=(256, 256)):
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    flat = 1.0 - 0.25 * ((xx - 127.5) ** 2 + (yy - 127.5) ** 2) / 128**2 / 2
    return flat / np.median(flat)


@pytest.fixture(scope="module")
def made(roots, field):
    grid = common_grid([choose(field)], roots, T120, SETTINGS)
    return grid, combine(choose(field), grid, roots, T120, SETTINGS)


@pytest.mark.tools
def test_stack_recovers_the_flux_to_millimagnitudes(roots, sky, made):
    _, stack = made
    measured, (x, y) = magnitudes(stack, roots, sky)
    error = measured - np.asarray(sky["MAG"])
    weight = fits.getdata(roots.of(stack.weight))
    inner = weight[np.rint(y).astype(int), np.rint(x).astype(int)] > 0
    assert inner.all()
    assert abs(np.median(error)) < 0.003
    assert np.std(error) < 0.006


@pytest.mark.tools
@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_the_median_is_what_swarp_makes_of_the_same_frames(roots, field, made, tmp_path, n):
    """Pixels of one to five frames, image and weight, to the rounding of float32."""
    grid, _ = made
    frames = field[:n]
    coming, seen, _ = write_inputs(frames, grid, tmp_path, roots, T120)
    make_weights(frames, seen, tmp_path, roots, T120)
    options = SwarpOptions(
        combine_type=None, center=(grid.ra, grid.dec), image_size=(grid.nx, grid.ny), pixel_scale=grid.pixel_scale,
        resampling_type="LANCZOS3", back_size=256, memory_mb=512,
    )  # fmt: skip
    (tmp_path / "swarp.conf").write_text("# all options are arguments\n")
    names = [f"{i:04d}.fits" for i in range(n)]
    median = ["-COMBINE", "Y", "-COMBINE_TYPE", "MEDIAN"]
    run_tool("SWarp", [*names, *options.arguments(), *median], cwd=tmp_path, timeout_s=60)
    image, weight = (np.array(fits.getdata(tmp_path / f"coadd{end}.fits"), float) for end in ("", ".weight"))
    ours = coadd(coming, grid, 5.0, 512, 4.0, median=True)
    assert set(np.unique(ours.used + ours.clipped)) == set(range(n + 1)), "places of no frame, of one, of all"
    assert np.array_equal(ours.median_weight > 0, weight > 0)
    assert np.allclose(ours.median_weight, weight, rtol=5e-7, atol=0)
    assert np.abs(ours.median[weight > 0] - image[weight > 0]).max() < 3e-7 * np.abs(image).max()
    assert not ours.median[weight == 0].any()


@pytest.mark.tools
@pytest.mark.parametrize("flat", [None, np.ones((256, 256))], ids=["no flat", "flat with pixel area"])
def test_pixel_area_is_accounted_for(roots, sky, flat):
    """A distorted frame, 1 % larger pixels at the corners: as large an effect as the T120's, undone to 2 mmag."""
    group = "areaflat" if flat is not None else "areabare"
    frame = take(Shot(group, noise=False, k3=3.0, exptime=30, flat=flat), sky, roots)
    wcs = head_wcs(frame, roots)
    area = area_map(wcs, (256, 256))
    assert area[0, 0] / area[128, 128] > 1.01
    grid = common_grid([choose([scale(frame, 23.0)])], roots, T120, SETTINGS)
    stack = combine(choose([scale(frame, 23.0)], group=group), grid, roots, T120, SETTINGS)
    measured, _ = magnitudes(stack, roots, sky, radius=10.0)
    error = measured - np.asarray(sky["MAG"])
    # What is left, +-2 mmag, is LANCZOS3's ripple: it is there without distortion as well.
    assert abs(np.median(error)) < 0.0015
    assert np.abs(error).max() < 0.0025


@pytest.mark.tools
def test_flux_in_is_flux_out_across_the_chip(roots):
    """Stars from the centre to the corners, over 10 mmag of pixel area: no trend of 1 mmag is left.

    Four frames a quarter of a pixel apart: LANCZOS3's ripple, of 1 mmag in each of them, is not what is asked for.
    """
    shape = (512, 512)
    sky = stars(36, half_deg=0.046, bright=13.5, faint=13.6)
    frames = [
        take(
            Shot(f"chip{i}", noise=False, k3=0.75, exptime=30, flat=np.ones(shape), dither=(0.193 * i, 0.193 * i)),
            sky, roots, shape,
        )
        for i in range(4)
    ]  # fmt: skip
    wcs = head_wcs(frames[0], roots)
    chosen = choose([scale(frame, 23.0) for frame in frames], group="chip")
    grid = common_grid([chosen], roots, T120, SETTINGS)
    stack = combine(chosen, grid, roots, T120, SETTINGS.model_copy(update={"combine": "weighted"}))
    measured, _ = magnitudes(stack, roots, sky, radius=14.0)
    x, y = np.rint(wcs.all_world2pix(np.asarray(sky["RA"]), np.asarray(sky["DEC"]), 0)).astype(int)
    area = 2.5 * np.log10(area_map(wcs, shape)[y, x])
    assert np.ptp(area) > 0.009, "what would be left if the area were not accounted for"
    error = measured - np.asarray(sky["MAG"])
    slope, _ = np.polyfit(area, error, 1)
    assert abs(slope) * np.ptp(area) < 0.001
    assert abs(np.median(error)) < 0.001
    assert np.std(error) < 0.001


@pytest.mark.tools
def test_grid_is_identical_in_all_filters(roots, sky, field, made):
    grid, r_stack = made
    g_frames = [
        scale(take(Shot(f"g{i}", filter="g", dither=DITHERS[i], noise=False), sky, roots), 23.0) for i in (0, 1)
    ]
    g_stack = combine(choose(g_frames, "g"), grid, roots, T120, SETTINGS)
    keys = [f"{key}{axis}" for key in ("NAXIS", "CTYPE", "CRPIX", "CRVAL") for axis in (1, 2)]
    keys += [f"CD{i}_{j}" for i in (1, 2) for j in (1, 2)]
    headers = [fits.getheader(roots.of(file)) for s in (r_stack, g_stack) for file in (s.image, s.weight)]
    values = {tuple(header[key] for key in keys) for header in headers}
    assert len(values) == 1
    assert not any("CDELT1" in header for header in headers)


@pytest.mark.tools
def test_header_tells_the_release_keywords(roots, made):
    _, stack = made
    with fits.open(roots.of(stack.image), checksum=True) as hdus:
        assert len(hdus) == 1
        assert hdus[0].header["BITPIX"] == -32
        header = hdus[0].header
    expected = {
        "OBJECT": "M67", "FILTER": "r", "TELESCOP": "T120", "PHOTZP": 30.0, "PHOTCAL": "PS1", "NCOMBINE": 5,
        "COMBTYPE": "MEDIAN", "BACKSUB": "Y", "BACKSIZE": 256, "PIXSCALE": 0.770, "BUNIT": "adu", "EXPTOTAL": 185.0,
        "RADESYS": "ICRS", "CTYPE1": "RA---TAN", "INP0001": "20250317/f0.fits", "INP0005": "20250317/f4.fits",
    }  # fmt: skip
    assert {key: header[key] for key in expected} == expected
    assert header.comments["PHOTZP"].startswith("[mag]")
    assert header.comments["PIXSCALE"].startswith("[arcsec/px]")
    assert header["DATE-OBS"] == "2025-03-17T22:00:00.000"
    assert header["DATE-END"] == "2025-03-17T22:01:00.000"
    assert "INP0006" not in header
    assert "DATE" not in header


@pytest.mark.tools
def test_weight_is_exactly_zero_without_data_and_so_is_the_image(roots, made):
    grid, stack = made
    data, weight = fits.getdata(roots.of(stack.image)), fits.getdata(roots.of(stack.weight))
    assert data.shape == (grid.ny, grid.nx)
    assert np.isfinite(data).all()
    assert (weight >= 0).all()
    assert (data[weight == 0] == 0).all()
    assert (weight[:8] == 0).all()
    assert (weight[grid.ny // 2 - 40 : grid.ny // 2 + 40, grid.nx // 2 - 40 : grid.nx // 2 + 40] > 0).all()


@pytest.mark.tools
def test_same_inputs_same_bytes(roots, field, made):
    grid, stack = made
    again = combine(choose(field), grid, roots, T120, SETTINGS)
    assert again == stack


def test_flux_scale_stands_once_in_the_head(roots, field):
    frame = field[0].aligned
    path = roots.of(frame.head)
    original = path.read_text()
    try:
        dirty = original.replace(
            "END\n", "FLXSCALE=                  0.0 / SCAMP with SOLVE_PHOTOM N\nHISTORY made by é\nEND\n"
        )
        path.write_text(dirty, encoding="utf-8")
        text = swarp_head(frame, 2.5e-3, roots)
    finally:
        path.write_text(original)
    assert text.count("FLXSCALE") == 1
    assert text.isascii()
    card = fits.Card.fromstring(next(line for line in text.splitlines() if line.startswith("FLXSCALE")))
    assert card.value == 2.5e-3
    assert text.rstrip().endswith("END")


@pytest.mark.tools
def test_a_frame_off_the_grid_is_rejected_and_said(roots, sky, field, made):
    grid, _ = made
    lost = scale(take(Shot("lost", centre=(133.5, 11.81), noise=False), sky, roots), 23.0)
    assert overlap_px(lost, grid, roots) == 0
    assert overlap_px(field[0], grid, roots) > 60000
    stack = combine(choose([*field[:2], lost], group="lost"), grid, roots, T120, SETTINGS)
    assert stack.n_combined == 2
    (rejected,) = stack.rejected
    assert rejected.file == "20250317/lost.fits"
    assert "off the grid" in rejected.reason
    with pytest.raises(StageError, match="no frame of lost r lies on the grid") as caught:
        combine(choose([lost], group="lost"), grid, roots, T120, SETTINGS)
    assert pickle.loads(pickle.dumps(caught.value)).reason == caught.value.reason


@pytest.mark.tools
def test_a_cosmic_ray_and_a_trail_leave_no_trace(roots, sky):
    spot, line = (slice(100, 104), slice(60, 63)), (slice(140, 142), slice(0, 256))
    shots = [Shot(f"c{i}", dither=DITHERS[i], noise=False, exptime=30) for i in range(2)]
    clean = [scale(take(shot, sky, roots), 23.0) for shot in shots]
    grid = common_grid([choose(clean)], roots, T120, SETTINGS)
    reference = fits.getdata(roots.of(combine(choose(clean, group="clean"), grid, roots, T120, SETTINGS).image)).copy()
    shots[0] = shots[0].but(name="c9", spoil={"COSMIC_RAY": spot, "TRAIL": line})
    spoilt = [scale(take(shot, sky, roots), 23.0) for shot in shots]
    stack = combine(choose(spoilt, group="spoilt"), grid, roots, T120, SETTINGS)
    data, weight = fits.getdata(roots.of(stack.image)), fits.getdata(roots.of(stack.weight))
    both = (weight > 0) & (reference != 0)
    step = 10 ** (0.4 * 7) / 30
    assert np.abs(data - reference)[both].max() < 0.02 * 50000 * step
    assert np.median(np.abs(data - reference)[both]) < 0.5 * step


@pytest.mark.tools
@pytest.mark.parametrize("how", ["weighted", "clipped"])
def test_other_combinations(roots, sky, field, made, how):
    grid, _ = made
    stack = combine(choose(field, group=how), grid, roots, T120, SETTINGS.model_copy(update={"combine": how}))
    header = fits.getheader(roots.of(stack.image))
    assert header["COMBTYPE"] == how.upper()
    assert ("CLIPSIG" in header) == (how == "weighted")
    measured, _ = magnitudes(stack, roots, sky)
    error = measured - np.asarray(sky["MAG"])
    assert abs(np.median(error)) < 0.004


@pytest.mark.tools
def test_maps_tell_what_each_pixel_has_and_lacks(roots, sky):
    """Two of three frames have a masked block in the same place, one has a hit that no mask knows."""
    spot = {"BAD_PIXEL": (slice(120, 130), slice(120, 130))}
    shots = [Shot(f"m{i}", exptime=30, spoil=spot if i < 2 else {}) for i in range(3)]
    frames = [scale(take(shot, sky, roots), 23.0) for shot in shots]
    path = roots.of(frames[2].aligned.frame.reduced.file)
    with fits.open(path, mode="update") as hdus:
        hdus[0].data[180:182, 60:62] = 9000.0
    grid = common_grid([choose(frames)], roots, T120, SETTINGS)
    settings = SETTINGS.model_copy(update={"combine": "weighted", "maps": True})
    stack = combine(choose(frames, group="maps"), grid, roots, T120, settings)
    done = finish_stack(stack, None, None, roots)
    assert done.coverage_map.path == "stacks/maps/T120/maps_r_ncov.fits"
    has, lacks = (fits.getdata(roots.of(file)) for file in (done.coverage_map, done.rejected_map))
    assert has.dtype == lacks.dtype == np.dtype(">i2")
    wcs, on_grid = head_wcs(frames[0].aligned, roots), WCS(fits.getheader(roots.of(done.image)))
    for (x, y), there in {(124.5, 124.5): (1, 2), (60.5, 180.5): (2, 1), (200, 60): (3, 0)}.items():
        column, row = np.rint(on_grid.all_world2pix(wcs.all_pix2world([[x, y]], 0), 0)[0]).astype(int)
        assert (has[row, column], lacks[row, column]) == there
    weight = fits.getdata(roots.of(done.weight))
    assert ((has > 0) == (weight > 0)).all()
    again = finish_stack(stack.model_copy(update={"coverage_map": None, "rejected_map": None}), None, None, roots)
    assert again.coverage_map is None
    assert not roots.of(done.coverage_map).exists(), "of a stack without maps none is left lying about"


@pytest.mark.tools
def test_the_median_of_mixed_seeing_gives_its_star_light_back(roots, sky):
    """Frames of 1.9 to 4.2 arcsec: the median loses star light, the weighted mean does not."""
    widths = [2.4, 5.8, 2.6, 5.2, 3.2]
    frames = [
        scale(
            take(Shot(f"s{i}", fwhm_px=width, dither=DITHERS[i], exptime=400, full_well=1e7, seed=i), sky, roots), 23.0
        )
        for i, width in enumerate(widths)
    ]
    grid = common_grid([choose(frames)], roots, T120, SETTINGS)
    plain = combine(
        choose(frames, group="plain"), grid, roots, T120, SETTINGS.model_copy(update={"restore_light": False})
    )
    restored = combine(choose(frames, group="restored"), grid, roots, T120, SETTINGS)

    def error(stack):
        data = fits.getdata(roots.of(stack.image))
        x, y = WCS(fits.getheader(roots.of(stack.image))).all_world2pix(sky["RA"], sky["DEC"], 0)
        truth = 10 ** (0.4 * (30 - np.asarray(sky["MAG"])))
        return -2.5 * np.log10(np.median(aperture(data, x, y, 14.0) / truth))

    assert error(plain) - error(restored) > 0.015
    assert abs(error(restored)) < 0.008, "of which some lie outside of the aperture"
    header = fits.getheader(roots.of(restored.image))
    assert header["LIGHTCOR"] == pytest.approx(error(plain) - error(restored), abs=5e-4)
    assert "LIGHTCOR" not in fits.getheader(roots.of(plain.image))
    assert "PHOTLIN" not in header, "16 stars of 2.5 mag are no faint and no bright ones"
    (note,) = (text for text in restored.notes if "light" in text)
    assert "the median loses 0.0" in note
    assert "restored, so smooth extended light is brighter" in note


def test_what_a_median_gains_is_no_loss():
    assert "gains 0.0023 +- 0.0009 mag" in _loss_note(LightLoss(-0.0023, 0.0009, 117), "median")
    assert "smooth extended light is fainter" in _loss_note(LightLoss(-0.0023, 0.0009, 117), "median")


@pytest.mark.tools
def test_relative_scale_is_said_and_has_no_zero_point(roots, field, made):
    grid, _ = made
    frames = [f.model_copy(update={"zero_point": None, "scale_source": "common stars, relative"}) for f in field[:2]]
    stack = combine(choose(frames, "Ha"), grid, roots, T120, SETTINGS)
    header = fits.getheader(roots.of(stack.image))
    assert not stack.calibrated
    assert "PHOTZP" not in header
    assert header["PHOTCAL"] == "RELATIVE"
    assert header["BUNIT"] == "adu/s"
    assert depth(stack, None, None, roots) is None


@pytest.mark.tools
def test_finished_stack_is_published_with_what_was_measured(roots, made):
    _, stack = made
    paths = stack_paths("M67", "T120", "r", roots)
    psf_image = moffat((25, 25), 12, 12, 3.5)
    paths.psf.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU((psf_image / psf_image.sum()).astype("f4")).writeto(paths.psf, overwrite=True)
    digest = hashlib.sha256(paths.psf.read_bytes()).hexdigest()
    psf = StackPsf(
        file=FileRef(path=paths.psf.relative_to(roots.data).as_posix(), digest=digest), fwhm_px=3.5, fwhm_arcsec=2.695,
        ee50_arcsec=1.6, ee80_arcsec=3.0, ellipticity=0.02, n_stars=28, chi2=1.1,
    )  # fmt: skip
    check = StackValidation(validated=True, reason="", zp_offset=0.004, zp_err=0.002, zp_rms=0.021, n_stars=26)
    noise = StackNoise(
        inverse_variance=1.25, correlation=1.07, aperture_sigma=80.0, aperture_px=3.5, n_apertures=900,
        surface_brightness=25.5,
    )  # fmt: skip
    done = finish_stack(stack, psf, check, roots, depth_5sigma=21.5, noise=noise)
    assert done.image.path == "stacks/M67/T120/M67_r.fits"
    assert done.weight.path == "stacks/M67/T120/M67_r.weight.fits"
    with fits.open(paths.image, checksum=True) as hdus:
        header = hdus[0].header
        assert (hdus[0].data == fits.getdata(roots.of(stack.image))).all()
    assert (header["FWHM_PX"], header["FWHM_AS"]) == (3.5, 2.695)
    assert (header["PHOTNSTR"], header["PHOTRMS"], header["PHOTCHK"], header["DEPTH5S"]) == (26, 0.021, True, 21.5)
    assert (header["SBLIM1"], header["INVVAR"], header["NOISCORR"]) == (25.5, 1.25, 1.07)
    of_weight = fits.getheader(paths.weight)
    assert (of_weight["INVVAR"], of_weight["NOISCORR"]) == (1.25, 1.07)
    assert done == finish_stack(stack, psf, check, roots, depth_5sigma=21.5, noise=noise), "again: the same bytes"
    tied = stack.model_copy(update={"tie": StackTie(offset=0.05, half_offset=0.05, err=0.004, n_stars=20)})
    raised = finish_stack(tied, psf, check, roots, depth_5sigma=21.5, noise=noise)
    assert raised.depth_5sigma == pytest.approx(21.45)
    assert raised.noise.surface_brightness == pytest.approx(25.45)
    with fits.open(paths.image) as image, fits.open(paths.weight) as weight:
        assert weight[0].header["INVVAR"] == 1.25
        pull = image[0].data * np.sqrt(weight[0].data)
    before = fits.getdata(roots.of(stack.image)) * np.sqrt(fits.getdata(roots.of(stack.weight)))
    np.testing.assert_allclose(pull, before, rtol=1e-5)
    entered = {header[f"INP{n:04d}"]: header[f"ZPT{n:04d}"] for n in range(1, header["NCOMBINE"] + 1)}
    assert entered == {f"20250317/f{n}.fits": zp for n, zp in enumerate([23.0, 22.8, 22.9, 22.6, 23.1])}
    assert "PHOTCT" not in header
    term = ColourTerm(filter="B", term=0.611, error=0.004, n_frames=9, date="2025-03-17")
    colour = stack_colour(T120.with_colour_terms([term]), "B", term.date)
    coloured = finish_stack(stack.model_copy(update={"colour": colour}), psf, check, roots, depth_5sigma=21.5)
    header = fits.getheader(roots.of(coloured.image))
    assert (header["PHOTCT"], header["PHOTCTE"], header["PHOTC2"], header["PHOTCTD"]) == (
        0.611, 0.004, 0.034, "2025-03-17",
    )  # fmt: skip
    assert header["PHOTEQ"] == "m = g + 0.611 (g-r) + 0.034 (g-r)^2, PS1"
    assert (header["VEGAZP"], header["VEGACT"]) == (30.212, pytest.approx(-0.055))
    assert header["VEGAEQ"] == "B = -2.5 log10(flux) + VEGAZP + VEGACT (g-r) of PS1"
    long = check.model_copy(
        update={"validated": False, "reason": "offset +0.312 mag, at most 0.1 is allowed; σ " + 9 * "long "}
    )
    text = fits.getheader(roots.of(finish_stack(stack, psf, long, roots).image))["PHOTWHY"]
    assert text.startswith("offset +0.312 mag, at most 0.1 is allowed; ? long")
    bare = finish_stack(stack, None, StackValidation(validated=False, reason="3 stars, 5 needed", n_stars=3), roots)
    header = fits.getheader(roots.of(bare.image))
    assert "FWHM_PX" not in header
    assert (header["PSFSTAT"], header["PHOTCHK"], header["PHOTNSTR"]) == ("NONE", False, 3)
    assert header["PHOTWHY"] == "3 stars, 5 needed"


def test_damaged_stack_is_a_stage_error(roots, made):
    _, stack = made
    gone = stack.model_copy(update={"image": FileRef(path="nowhere.fits", digest="0" * 64)})
    with pytest.raises(StageError, match=r"nowhere\.fits cannot be read"):
        finish_stack(gone, None, None, roots)


@pytest.mark.tools
def test_swarp_that_fails_names_its_log(roots, field):
    grid = Grid(ra=132.85, dec=11.81, pixel_scale=0.77, nx=300, ny=300)
    broken = field[0].aligned.frame.reduced.file
    path = roots.of(broken)
    content = path.read_bytes()
    try:
        path.write_bytes(content[:4000])
        with pytest.raises(StageError, match=r"f0\.fits"):
            combine(choose(field[:2], group="broken"), grid, roots, T120, SETTINGS)
    finally:
        path.write_bytes(content)
