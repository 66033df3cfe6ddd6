"""Products of a simulated campaign against its truth: the figures that say how good the pipeline is."""

from tasks.truth.figures import Figure, measure_campaign

__all__ = ["Figure", "measure_campaign"]
