"""The release rehearsed on the archive's own headers: what is played, and what came out against what was put in."""

from tasks.rehearsal.archive import Sample, choose_groups, read_exposures, sample
from tasks.rehearsal.compare import Comparison, GroupResult, compare
from tasks.rehearsal.page import page

__all__ = [
    "Comparison",
    "GroupResult",
    "Sample",
    "choose_groups",
    "compare",
    "page",
    "read_exposures",
    "sample",
]
