"""Frame quality: sources, seeing, elongation, sky, saturation."""

from tasks.quality.measure import measure_frame, read_sources

__all__ = ["measure_frame", "read_sources"]
