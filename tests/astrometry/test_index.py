"""Index files: from a Gaia cone, or somebody else's."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from models.astrometry import IndexSet
from models.telescope import Telescope, load_telescope
from tasks.astrometry import build_index, installed_index
from tasks.astrometry.index import index_scales
from tasks.core.errors import StageError
from tests.astrometry.sky import gaia_table, make_roots, stored


def test_scales_suit_the_field(telescope: Telescope) -> None:
    assert index_scales(telescope) == (0, 1, 2, 3, 4, 5)
    assert index_scales(load_telescope("T080")) == (-1, 0, 1, 2, 3, 4)


@pytest.mark.tools
def test_same_cone_same_bytes(tmp_path: Path, telescope: Telescope) -> None:
    made = []
    for place in ("one", "two elsewhere"):
        roots = make_roots(tmp_path / place)
        cone = stored(gaia_table(200, 10.0, -20.0, 0.3, 3), 10.0, -20.0, 0.3, roots)
        made.append(build_index(cone, roots, telescope))
        for file in made[-1].files:
            assert file.path.startswith("astrometry_index/index_10.0000_-20.0000_0.300_")
            assert str(tmp_path).encode() not in roots.of(file).read_bytes()
            assert fits.getheader(roots.of(file), 0)["NSTARS"] > 0
    assert made[0] == made[1]
    assert not list((tmp_path / "one" / "astrometry_index").glob(".*"))


@pytest.mark.tools
@pytest.mark.parametrize("n", [0, 4, 12])
def test_too_few_stars(tmp_path: Path, telescope: Telescope, n: int) -> None:
    """None at all, too few, and enough in number but too far apart for the field."""
    roots = make_roots(tmp_path)
    radius = 0.3 if n < 10 else 8.0
    cone = stored(gaia_table(n, 10.0, -20.0, radius, 3), 10.0, -20.0, radius, roots)
    with pytest.raises(StageError, match="stars") as failure:
        build_index(cone, roots, telescope)
    assert failure.value.stage == "astrometry index"


def test_installed_files_are_known_by_content(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    folder.mkdir()
    with pytest.raises(StageError, match="no index files"):
        installed_index(folder)
    with pytest.raises(StageError, match="no index files"):
        installed_index(tmp_path / "nowhere")
    (folder / "index-1.fits").write_bytes(np.arange(10).tobytes())
    first = installed_index(folder, make_roots(tmp_path))
    assert (first.source, first.folder, first.files) == ("installed", str(folder), ())
    shutil.copytree(folder, tmp_path / "copy")
    assert installed_index(tmp_path / "copy").fingerprint == first.fingerprint
    (folder / "index-1.fits").write_bytes(np.arange(11).tobytes())
    assert installed_index(folder, make_roots(tmp_path)).fingerprint != first.fingerprint


def test_an_index_is_one_or_the_other() -> None:
    with pytest.raises(ValueError, match="either"):
        IndexSet(source="gaia", folder="/usr/share/astrometry", fingerprint="0" * 64)
