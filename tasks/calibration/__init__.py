"""Calibration: master bias, master flats, and a raw frame's way to science, mask and variance."""

from tasks.calibration.bias import make_master_bias
from tasks.calibration.flat import make_master_flat
from tasks.calibration.reduction import read_reduced, reduce_frame

__all__ = ["make_master_bias", "make_master_flat", "read_reduced", "reduce_frame"]
