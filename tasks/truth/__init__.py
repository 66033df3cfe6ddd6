"""Products of a simulated campaign against its truth: the figures that say how good the pipeline is.

Nothing here uses how the pipeline came to its numbers: only its files and reports, and the simulator's truth.
"""

from models.base import Roots
from tasks.truth.astrometry import astrometric_figures
from tasks.truth.catalogue import catalogue_figures, catalogue_rows, catalogue_table
from tasks.truth.crowds import crowd_figures, crowd_rows, crowd_table
from tasks.truth.figure import Figure, markdown_table, over_seeds
from tasks.truth.light import light_figures, true_spiral
from tasks.truth.masks import mask_figures
from tasks.truth.noise import noise_figures
from tasks.truth.photometry import relative_figures, zero_point_figures
from tasks.truth.psf import psf_figures
from tasks.truth.scene import Scene
from tasks.truth.stacks import grid_figures, magnitude_figures, validation_figures

__all__ = [
    "Figure",
    "Scene",
    "catalogue_figures",
    "catalogue_rows",
    "catalogue_table",
    "crowd_figures",
    "crowd_rows",
    "crowd_table",
    "markdown_table",
    "measure_campaign",
    "measure_stacks",
    "over_seeds",
    "true_spiral",
]


def measure_stacks(scene: Scene) -> tuple[Figure, ...]:
    """Figures of the stacks that lie under the data root now."""
    return (
        *grid_figures(scene),
        *magnitude_figures(scene),
        *relative_figures(scene),
        *noise_figures(scene),
        *light_figures(scene),
        *psf_figures(scene),
        *validation_figures(scene),
    )


def measure_campaign(roots: Roots, telescope: str = "T120") -> tuple[Figure, ...]:
    """Measure what the pipeline made of a simulated campaign.

    Parameters
    ----------
    roots
        Data root with the simulator's ``truth.json``, reduced years and stacks.
    telescope
        Name of the profile.

    Returns
    -------
    tuple of Figure
        Every figure of merit, with its goal where there is one.

    Raises
    ------
    StageError
        If there is no truth or nothing was reduced.
    """
    scene = Scene.of(roots, telescope)
    return (
        *astrometric_figures(scene),
        *zero_point_figures(scene),
        *mask_figures(scene),
        *measure_stacks(scene),
    )
