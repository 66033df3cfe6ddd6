"""The release as machines take it: products with digests and provenance, ObsCore, coverage, a check of a copy."""

from tasks.archive.complete import complete_release, write_sky
from tasks.archive.compressed import compress_image, copy_of, weight_of
from tasks.archive.coverage import cover_group
from tasks.archive.products import list_products
from tasks.archive.verify import Checked, Finding, verify_copy

__all__ = [
    "Checked",
    "Finding",
    "complete_release",
    "compress_image",
    "copy_of",
    "cover_group",
    "list_products",
    "verify_copy",
    "weight_of",
    "write_sky",
]
