"""A made-up stack: image, weight map and the model that describes them."""

from __future__ import annotations

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from models.base import Roots
from models.stack import Stack, stack_paths
from tasks.core.files import ref

SCALE = 0.770


def tan_header(shape: tuple[int, int], ra: float, dec: float) -> fits.Header:
    """North up, east left."""
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRPIX1"], header["CRPIX2"] = (shape[1] + 1) / 2, (shape[0] + 1) / 2
    header["CRVAL1"], header["CRVAL2"] = ra, dec
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -SCALE / 3600, 0.0, 0.0, SCALE / 3600
    header["CUNIT1"] = header["CUNIT2"] = "deg"
    return header


def write_stack(
    roots: Roots,
    image: np.ndarray,
    weight: np.ndarray,
    header: fits.Header,
    band: str = "r",
    calibrated: bool = True,
    group: str = "M51",
) -> Stack:
    paths = stack_paths(group, "T120", band, roots)
    for path, data in ((paths.work_image, image), (paths.work_weight, weight)):
        path.parent.mkdir(parents=True, exist_ok=True)
        fits.PrimaryHDU(np.asarray(data, np.float32), header).writeto(path, overwrite=True)
    return Stack(
        group=group, filter=band, telescope="T120", image=ref(paths.work_image, roots),
        weight=ref(paths.work_weight, roots), n_combined=3, inputs=("a", "b", "c"), combine="MEDIAN",
        exptime_s=180.0, calibrated=calibrated,
    )  # fmt: skip


def pixels_of(header: fits.Header, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return tuple(WCS(header).all_world2pix(np.column_stack([ra, dec]), 0).T)
