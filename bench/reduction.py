"""Reduction of a frame to science, mask and variance, against a script of ccdproc and astroscrappy."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from astropy.io import fits

from bench.campaign import campaign, here
from bench.contest import Work, contest, ratio
from bench.figures import Figure
from bench.place import Place
from models.frame import MaskBit

__all__ = ["measure", "ours", "theirs"]

_FRAMES = 8
_NEAR = 2


def _some(science: list[Any]) -> list[Any]:
    step = max(1, len(science) // _FRAMES)
    return science[::step][:_FRAMES]


def ours(folder: str) -> Work:
    """`reduce_frame`: bias, flat, bleeds, trails, cosmic rays, holes filled, variance; written, digested."""
    from tasks.calibration import reduce_frame

    run, ready = here(folder)
    calls = [(raw, *ready.masters(raw)) for raw in _some(ready.science)]
    yield
    made = [reduce_frame(*call, run.roots, run.telescope, run.settings.reduction) for call in calls]
    return {"files": [each.file.path for each in made], "raw": [each.raw.path for each in made]}


def theirs(folder: str) -> Work:
    """The same steps with ccdproc, cosmic rays by astroscrappy's L.A.Cosmic; bleeds and trails not looked for."""
    import astropy.units as u
    import ccdproc
    from astropy.nddata import CCDData

    run, ready = here(folder)
    camera, settings = run.telescope.camera, run.settings.reduction
    calls = []
    for raw in _some(ready.science):
        bias, flat = ready.masters(raw)
        assert bias is not None
        assert flat is not None
        gain = raw.gain or camera.gain
        noise = bias.read_noise_e or camera.read_noise
        calls.append((raw.path, run.roots.of(bias.file), run.roots.of(flat.file), gain, noise))
    out = Path(folder) / "ccdproc"
    out.mkdir(exist_ok=True)
    yield
    written = []
    for number, (path, bias_file, flat_file, gain, noise) in enumerate(calls):
        bias = CCDData(fits.getdata(bias_file), unit="adu")
        with fits.open(flat_file) as hdus:
            flat = CCDData(hdus[0].data, unit="adu", mask=hdus["BPM"].data != 0)
        image = CCDData.read(run.roots.raw / path, unit="adu")
        image.data = image.data.astype(np.float32)
        saturated = image.data >= min(camera.saturation_adu, camera.nonlinear_adu or np.inf)
        image = ccdproc.create_deviation(
            image, gain=gain * u.electron / u.adu, readnoise=noise * u.electron, disregard_nan=True
        )
        image = ccdproc.subtract_bias(image, bias)
        image = ccdproc.flat_correct(image, flat, norm_value=1.0)
        image.mask = saturated if image.mask is None else image.mask | saturated
        image = ccdproc.cosmicray_lacosmic(
            image, sigclip=settings.cosmic_sigma, objlim=settings.cosmic_objlim, gain=gain, readnoise=noise,
            satlevel=gain * camera.saturation_adu, gain_apply=False, cleantype="median", fsmode="median",
        )  # fmt: skip
        image.mask, image.uncertainty.unit = np.asarray(image.mask), image.unit
        target = out / f"{number:03d}.fits"
        image.write(target, overwrite=True)
        written.append(target.name)
    return {"files": written}


def _agreement(folder: Path, our_files: list[str], their_files: list[str]) -> tuple[float, float]:
    """Share of groups of pixels hit (4 or more) that the other marks, too, within 2 px: of ours, of theirs."""
    from scipy import ndimage

    found, seen = [0, 0], [0, 0]
    square = np.ones((3, 3), bool)
    for own, other in zip(our_files, their_files, strict=True):
        with fits.open(folder / own) as hdus:
            bits = np.asarray(hdus["MASK"].data)
        with fits.open(folder / "ccdproc" / other) as hdus:
            masked = np.asarray(hdus["MASK"].data) != 0
        known = (bits & ~np.uint8(MaskBit.COSMIC_RAY)) != 0
        quiet = ~ndimage.binary_dilation(known, square, iterations=3)
        pair = ((bits & np.uint8(MaskBit.COSMIC_RAY)) != 0) & quiet, masked & quiet
        for index, (one, two) in enumerate((pair, pair[::-1])):
            labels, number = ndimage.label(one, square)
            sizes = np.bincount(labels.ravel(), minlength=number + 1)
            near = ndimage.binary_dilation(two, square, iterations=_NEAR)
            touched = np.unique(labels[near & (labels > 0)])
            large = np.flatnonzero(sizes[1:] >= 4) + 1
            found[index] += large.size
            seen[index] += np.isin(large, touched).sum()
    return seen[0] / max(1, found[0]), seen[1] / max(1, found[1])


def measure(place: Place) -> list[Figure]:
    """Both on the same frames, in turns."""
    roots = campaign(place)
    taken = contest(place, "reduction", "bench.reduction", {"folder": str(roots.data)}, ("ours", "theirs"))
    ours, theirs = taken["ours"], taken["theirs"]
    number = len(ours.said["files"])
    of_ours, of_theirs = _agreement(roots.data, ours.said["files"], theirs.said["files"])
    each = f"medians of a frame {median(theirs.seconds) / number:.3f} s and {median(ours.seconds) / number:.3f} s"
    return [
        ratio(
            "reduction of a frame, time of ccdproc and astroscrappy against ours", theirs.seconds, ours.seconds, 3.0,
            better="above", detail=each,
        ),
        Figure(
            name="cosmic rays of ours (4 px and more) that theirs masks, too", value=100 * of_ours, unit="%",
            detail=f"{number} frames; away from saturation, trails and bad pixels",
        ),
        Figure(
            name="cosmic rays of theirs (4 px and more) that ours masks, too", value=100 * of_theirs, unit="%",
            detail="ours gives back what is as round as the frame's stars",
        ),
    ]  # fmt: skip
