"""Master bias and master flat of 50 frames of 1024 x 1024 pixels, against `ccdproc.combine` with the same method."""

from __future__ import annotations

import itertools
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from astropy.io import fits

from bench.contest import Taken, Work, contest, ratio
from bench.figures import Figure
from bench.place import Place

__all__ = ["measure", "ours", "theirs"]

_SIDE, _FRAMES = 1024, 50
_SAME = 1e-5
_READ_NOISE, _LEVEL, _GAIN = 6.0, 300.0, 1.5


def _card(kind: str, number: int) -> fits.Header:
    header = fits.Header()
    header["DATE-OBS"] = f"2025-03-17T17:{number // 60:02d}:{number % 60:02d}.00"
    header["EXPTIME"] = 0.0 if kind == "bias" else 5.0
    header["IMAGETYP"] = "Bias Frame" if kind == "bias" else "Flat Field"
    header["CCD-TEMP"], header["XBINNING"], header["YBINNING"] = -60.0, 2, 2
    header["OBJECT"], header["INSTRUME"] = kind, "Andor Tech"
    if kind == "flat":
        header["FILTER"] = "g"
    return header


def _raw_frames(folder: Path) -> None:
    """50 biases and 50 flats: fixed pattern, read noise, some hits of cosmic rays; twilight that changes."""
    rng = np.random.default_rng(11)
    pattern = rng.normal(0, 2, (_SIDE, _SIDE))
    y, x = np.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
    response = (1 - 0.08 * (x**2 + y**2)) * rng.normal(1, 0.005, (_SIDE, _SIDE))
    for kind in ("bias", "flat"):
        for number in range(_FRAMES):
            image = _LEVEL + pattern + rng.normal(0, _READ_NOISE, (_SIDE, _SIDE))
            if kind == "flat":
                light = 22000 + 6000 * np.cos(number)
                image += rng.normal(light * response, np.sqrt(light / _GAIN))
            image[tuple(rng.integers(0, _SIDE, (2, 60)))] += 3000
            path = folder / "raw" / "2025" / f"{kind}-{number:03d}.fits"
            path.parent.mkdir(parents=True, exist_ok=True)
            fits.PrimaryHDU(np.clip(np.rint(image), 0, 65535).astype(np.uint16), _card(kind, number)).writeto(path)


def ours(folder: str, kind: str) -> Work:
    """The pipeline's function; it also judges the frames, writes bad pixels and variance, and sums up."""
    from models.base import Roots
    from models.settings import Settings
    from models.telescope import load_telescope
    from tasks.calibration import make_master_bias, make_master_flat
    from tasks.inventory import take_inventory

    roots = Roots(data=Path(folder), raw=Path(folder) / "raw")
    telescope, settings = load_telescope("T120", roots.data), Settings()
    frames = [frame for frame in take_inventory(roots, telescope).frames if frame.kind == kind]
    biases = [frame for frame in take_inventory(roots, telescope).frames if frame.kind == "bias"]
    bias = make_master_bias(biases, roots, telescope, settings.bias) if kind == "flat" else None
    yield
    if kind == "bias":
        made: Any = make_master_bias(frames, roots, telescope, settings.bias)
    else:
        made = make_master_flat(frames, bias, roots, telescope, settings.flat)
    return {"file": made.file.path, "combined": made.n_combined}


def theirs(folder: str, kind: str) -> Work:
    """The same with ccdproc on the same frames: a clip about the median, or the median of scaled frames."""
    import astropy.units as u
    import ccdproc
    from astropy.nddata import CCDData

    from models.settings import BiasSettings
    from tasks.calibration.combine import centre_and_noise

    paths = sorted((Path(folder) / "raw" / "2025").glob(f"{kind}-*.fits"))
    clip = BiasSettings().clip_sigma
    levels, noise = None, 0.0
    if kind == "bias":  # what the clip needs to know is given to it for nothing
        images = [fits.getdata(path).astype(np.float32) for path in paths]
        cut = [image[_SIDE // 4 : _SIDE - _SIDE // 4][::4] for image in images]
        levels = [centre_and_noise(each)[0] for each in cut]
        halves = [image[_SIDE // 4 : _SIDE - _SIDE // 4] for image in images[:11]]
        noise = median(centre_and_noise(a - b)[1] / np.sqrt(2) for a, b in itertools.pairwise(halves))
        del images, cut, halves
    else:
        bias = CCDData(fits.getdata(next(Path(folder).glob("2025/T120/master_bias/*.fits"))), unit="adu")

    def deviation(values: Any, axis: int) -> Any:
        low, high = np.nanpercentile(values, [25, 75], axis=axis)
        return np.maximum(0.7413 * (high - low), noise)

    yield
    out = Path(folder) / f"ccdproc_{kind}.fits"
    if kind == "bias":
        assert levels is not None
        middle = median(levels)
        shifted = [
            CCDData(fits.getdata(path).astype(np.float32) - np.float32(level - middle), unit="adu")
            for path, level in zip(paths, levels, strict=True)
        ]
        made = ccdproc.combine(
            shifted, method="average", sigma_clip=True, sigma_clip_low_thresh=clip, sigma_clip_high_thresh=clip,
            sigma_clip_func=np.ma.median, sigma_clip_dev_func=deviation, dtype=np.float32, mem_limit=2e9,
        )  # fmt: skip
    else:
        flats = [ccdproc.subtract_bias(CCDData.read(path, unit=u.adu), bias) for path in paths]
        made = ccdproc.combine(
            flats, method="median", scale=lambda image: 1 / np.median(image), dtype=np.float32, mem_limit=2e9
        )
        made = made.divide(float(np.median(made.data)))
    made.write(out, overwrite=True)
    return {"file": out.name, "combined": len(paths)}


def _different(folder: Path, taken: dict[str, Taken]) -> tuple[float, float, int]:
    """Share of the good pixels that differ by more than 1e-5, the largest difference of the others, the number."""
    with fits.open(folder / taken["ours"].said["file"]) as hdus:
        own = np.asarray(hdus[0].data, np.float64)
        good = hdus["BPM"].data == 0 if "BPM" in hdus else np.ones(own.shape, bool)
    other = np.asarray(fits.getdata(folder / taken["theirs"].said["file"]), np.float64)
    off = np.abs(own / other - 1)[good]
    differ = off > _SAME
    return float(differ.mean()), float(off[~differ].max()), int(differ.sum())


def measure(place: Place) -> list[Figure]:
    """Both masters by both, in turns."""
    folder = place.folder / "masters"
    if not folder.exists():
        _raw_frames(folder)
    figures = []
    for kind in ("bias", "flat"):
        taken = contest(
            place, f"master {kind}", "bench.masters", {"folder": str(folder), "kind": kind}, ("ours", "theirs")
        )
        ours, theirs = taken["ours"], taken["theirs"]
        share, rest, number = _different(folder, taken)
        figures += [
            ratio(
                f"master {kind} of {_FRAMES} frames, time of ccdproc.combine against ours", theirs.seconds,
                ours.seconds, 8.0, better="above",
                detail=f"medians {median(theirs.seconds):.2f} s and {median(ours.seconds):.2f} s",
            ),
            ratio(
                f"master {kind}, our peak memory against theirs", ours.memory_mb, theirs.memory_mb, 1 / 3,
                detail=f"medians {median(ours.memory_mb):.0f} and {median(theirs.memory_mb):.0f} MB, all included",
            ),
            Figure(
                name=f"master {kind}, good pixels that differ by more than {_SAME:g}", value=share, goal=1e-5,
                detail=f"{number} pixels: a value within float32's rounding of the clip is in one mean and not in the "
                f"other; all others agree to {rest:.1g}; {ours.said['combined']} of {theirs.said['combined']} frames",
            ),
        ]  # fmt: skip
    return figures
