"""Where frames look: index files, plate solutions against Gaia, alignment of a group with SCAMP."""

from tasks.astrometry.alignment import align_frames
from tasks.astrometry.headers import head_cards, read_head, read_wcs, tpv_head, wcs_cards
from tasks.astrometry.index import build_index, installed_index
from tasks.astrometry.plate import solve_frame

__all__ = [
    "align_frames",
    "build_index",
    "head_cards",
    "installed_index",
    "read_head",
    "read_wcs",
    "solve_frame",
    "tpv_head",
    "wcs_cards",
]
