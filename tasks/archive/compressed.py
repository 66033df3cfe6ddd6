"""The tile-compressed copy of a release's images, and what it loses, in units of each image's noise."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import sep
from astropy.io import fits

from models.base import FileRef, Roots
from models.release import COMPRESSED, CompressedImage
from models.settings import ReleaseSettings
from tasks.core.errors import StageError
from tasks.core.files import digest_file, ref
from tasks.core.fitsio import quiet_fits, write_fits

__all__ = ["DEFAULT_FWHM_PX", "compress_image", "copy_of", "image_of", "measured_loss", "weight_of"]

Image = npt.NDArray[np.number]

_STAGE = "compressed copy"
_GZIP = b"\x1f\x8b"
_STAR_FWHM, _STAR_SIGMA, _STAR_SNR = 1.5, 10.0, 20.0
"""Of the stars whose flux is compared: aperture radius, detection, least S/N."""
DEFAULT_FWHM_PX = 3.0


class Loss(NamedTuple):
    """What an image lost.

    Attributes
    ----------
    noise
        Of the background, units of the image.
    rms, largest
        Of the differences of covered pixels, in units of the noise.
    n_stars
        Whose flux within 1.5 FWHM was compared.
    flux
        Rms of their change over the noise of the background in the aperture; None without stars.
    mag
        Largest change, mag.
    """

    noise: float
    rms: float
    largest: float
    n_stars: int
    flux: float | None
    mag: float | None


def copy_of(path: str) -> str:
    """Where the copy of a product lies: ``compressed/`` in place of ``stacks/``, ``.fz`` appended."""
    return f"{COMPRESSED}/{path.removeprefix('stacks/')}.fz"


def image_of(path: str) -> str:
    """The product that a file of the copy was made from."""
    return f"stacks/{path.removeprefix(f'{COMPRESSED}/').removesuffix('.fz')}"


def weight_of(image: str) -> str:
    """The weight map of a stack, or of its image for extended targets."""
    return image.replace("_ext.fits", ".fits").replace(".fits", ".weight.fits")


def measured_loss(before: Image, after: Image, covered: npt.NDArray[np.bool_], fwhm_px: float) -> Loss:
    """Compare an image with its copy.

    Parameters
    ----------
    before, after
        Images, shape (ny, nx).
    covered
        Pixels that have data.
    fwhm_px
        Width of the stars.
    """
    old, new = (np.ascontiguousarray(image, np.float64) for image in (before, after))
    bad = ~(covered & np.isfinite(old))
    sky = sep.Background(np.where(bad, 0.0, old), mask=bad, bw=64, bh=64)
    noise = float(sky.globalrms)
    difference = (new - old)[~bad]
    if noise <= 0 or not difference.size:
        return Loss(0.0, 0.0, 0.0, 0, None, None)
    rms, largest = float(np.sqrt(np.mean(np.square(difference)))), float(np.abs(difference).max())
    flat = np.where(bad, 0.0, old - sky.back())
    stars = sep.extract(flat, _STAR_SIGMA, err=noise, mask=bad, minarea=5)
    radius = _STAR_FWHM * fwhm_px
    place = (stars["x"], stars["y"], radius)
    light = sep.sum_circle(flat, *place, mask=bad)[0]
    change = sep.sum_circle(np.where(bad, 0.0, new - old), *place, mask=bad)[0]
    of_sky = noise * math.sqrt(math.pi) * radius
    strong = light > _STAR_SNR * of_sky
    if not strong.any():
        return Loss(noise, rms / noise, largest / noise, 0, None, None)
    relative = np.abs(change[strong] / light[strong])
    return Loss(
        noise=noise,
        rms=rms / noise,
        largest=largest / noise,
        n_stars=int(strong.sum()),
        flux=float(np.sqrt(np.mean(np.square(change[strong] / of_sky)))),
        mag=float(2.5 * np.log10(1.0 + relative.max())),
    )


def _tiles(data: Image, header: fits.Header, lossless: bool, level: float, seed: int) -> bytes:
    """The image tile by tile (a row each), as a FITS file without checksums; the same bytes whenever it is made."""
    if not lossless:
        how = {"compression_type": "RICE_1", "quantize_level": level, "quantize_method": 2, "dither_seed": seed}
    elif data.dtype.kind == "f":
        how = {"compression_type": "GZIP_2", "quantize_level": 0.0}
    else:
        how = {"compression_type": "RICE_1"}
    made, dated = io.BytesIO(), io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data, header, name="IMAGE", **how)]).writeto(dated)
    dated.seek(0)
    with fits.open(dated, disable_image_compression=True, memmap=False) as hdus:
        for name in (each for each in hdus[1].columns.names if each.endswith("COMPRESSED_DATA")):
            for tile in hdus[1].data[name]:
                if tile.dtype == np.uint8 and tile[:2].tobytes() == _GZIP:
                    tile[4:8] = 0  # gzip notes the time
        hdus.writeto(made)
    return made.getvalue()


def _read(path: Path) -> tuple[Image, fits.Header]:
    with quiet_fits(), fits.open(path, memmap=False) as hdus:
        data = np.asarray(hdus[0].data)
        header: fits.Header = hdus[0].header.copy()
    native: Image = data.astype(data.dtype.newbyteorder("="))
    return native, header


def compress_image(
    source: FileRef, weight: FileRef | None, target: str, roots: Roots, settings: ReleaseSettings
) -> CompressedImage:
    """Write the tile-compressed copy of an image, read it back, and say in it what it lost.

    Float images of the sky are quantised in steps of a part of each row's noise, with subtractive dither (so that no
    level is preferred and exact zeros stay zeros), then Rice-coded (Pence, White & Seaman 2010, PASP 122, 1065; FITS
    4.0, section 10). The dither's seed is a part of the image's own digest. All else loses nothing.

    Parameters
    ----------
    source
        The image: one HDU.
    weight
        Of an image of the sky: where it has data. None: the copy must lose nothing.
    target
        Path of the copy under the data root.
    roots, settings
        Where, and how fine the steps are.

    Raises
    ------
    StageError
        If the image cannot be read, or its copy does not give it back.
    """
    try:
        data, header = _read(roots.of(source))
        covered = _read(roots.of(weight))[0] > 0 if weight is not None else np.ones(data.shape, bool)
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise StageError(_STAGE, f"{source.path} cannot be read: {error}", "stack its group again") from error
    lossless = weight is None
    kept = header.copy()
    for key in ("CHECKSUM", "DATASUM"):
        kept.remove(key, ignore_missing=True)
    sha256 = digest_file(roots.of(source), roots)
    packed = _tiles(data, kept, lossless, settings.quantize_level, 1 + int(sha256[:8], 16) % 10_000)
    with fits.open(io.BytesIO(packed), memmap=False) as hdus:
        back = np.asarray(hdus[1].data)
    blanks_stay = not back[data == 0].any() and np.array_equal(np.isnan(back), np.isnan(data))
    if not blanks_stay or (lossless and not np.array_equal(back, data, equal_nan=data.dtype.kind == "f")):
        raise StageError(_STAGE, f"the copy of {source.path} does not give it back", "report it: astropy's fault")
    loss = None if lossless else measured_loss(data, back, covered, header.get("FWHM_PX") or DEFAULT_FWHM_PX)
    cards: list[tuple[str, object, str]] = [
        ("SRCFILE", Path(source.path).name, "the image this is a copy of"),
        ("SRCSHA", sha256, "its SHA-256"),
        ("LOSSLESS", lossless, "every pixel is the image's"),
    ]
    if loss is not None:
        cards += [
            ("LOSSQ", settings.quantize_level, "steps a sigma of a row's noise"),
            ("LOSSNOIS", round(loss.noise, 5), "noise of the image's background"),
            ("LOSSRMS", round(loss.rms, 5), "rms of copy - image, over LOSSNOIS"),
            ("LOSSMAX", round(loss.largest, 5), "largest of a pixel, over LOSSNOIS"),
            ("LOSSNSTR", loss.n_stars, "stars compared, 1.5 FWHM aperture"),
        ]
        if loss.flux is not None and loss.mag is not None:
            cards += [
                ("LOSSFLUX", round(loss.flux, 5), "rms change of their flux, over its sky noise"),
                ("LOSSMAG", round(loss.mag, 6), "[mag] largest change of one"),
            ]
    # Untouched since it was opened: only then astropy sums the heap as it stands.
    with fits.open(io.BytesIO(packed), disable_image_compression=True, memmap=False) as hdus:
        hdus[1].header.extend(cards, end=True)
        write_fits(roots.data / target, [fits.PrimaryHDU(), hdus[1]])
    return CompressedImage(file=ref(roots.data / target, roots), source=source.path)
