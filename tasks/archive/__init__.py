"""The release as machines take it: products with digests and provenance, ObsCore, coverage, a check of a copy."""

from tasks.archive.complete import complete_release
from tasks.archive.verify import Checked, Finding, verify_copy

__all__ = ["Checked", "Finding", "complete_release", "verify_copy"]
