"""Where frames look: index files, plate solutions against Gaia, alignment of a group with SCAMP."""

from tasks.astrometry.alignment import align_frames
from tasks.astrometry.headers import head_cards, read_head, read_wcs, tpv_head, wcs_cards
from tasks.astrometry.index import build_index, gathered_index, index_at_hand, installed_index
from tasks.astrometry.locate import locate_frame
from tasks.astrometry.plate import solve_frame

__all__ = [
    "align_frames",
    "build_index",
    "gathered_index",
    "head_cards",
    "index_at_hand",
    "installed_index",
    "locate_frame",
    "read_head",
    "read_wcs",
    "solve_frame",
    "tpv_head",
    "wcs_cards",
]
