"""Real frames: HAT-P-32 by a 15 cm telescope, 5.17 arcsec/px, solved with Debian's Tycho-2 index files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from models.base import Roots
from models.catalog import Cone
from models.settings import AstrometrySettings, QualitySettings, ReductionSettings
from tasks.astrometry import installed_index, read_wcs, solve_frame
from tasks.calibration import reduce_frame
from tasks.core.errors import StageError
from tasks.inventory import take_inventory
from tasks.quality import measure_frame, read_sources
from tests.profiles import install

INDEX = Path("/usr/share/astrometry")
HAT_P_32 = (31.0426, 46.6878)


@pytest.mark.shared
@pytest.mark.tools
def test_hat_p_32_is_where_it_is(shared: Path, tmp_path: Path) -> None:
    if not list(INDEX.glob("index-tycho2-*.fits")):
        pytest.skip("astrometry-data-tycho2 is not installed")
    raw_root = tmp_path / "raw"
    raw_root.mkdir()
    for path in sorted((shared / "real" / "hatp32").glob("*.FITS"))[:13:12]:
        shutil.copy(path, raw_root)
    roots = Roots(data=tmp_path / "data", raw=raw_root)
    telescope = install("MICRO", roots.data)
    index = installed_index(INDEX, roots)
    settings = AstrometrySettings(reference="index")
    hasty = settings.model_copy(update={"cpu_limit_s": 1.0})
    scales, brightest = [], []
    for raw in take_inventory(roots, telescope).frames:
        assert raw.ra is not None
        assert raw.dec is not None
        reduced = reduce_frame(raw, None, None, roots, telescope, ReductionSettings())
        measured = measure_frame(reduced, roots, telescope, QualitySettings())
        hint = Cone(ra=raw.ra, dec=raw.dec, radius=2.0)
        solved = solve_frame(measured, hint, index, None, roots, telescope, settings)
        assert solved.status == "OK"
        assert solved.solution.n_matched >= 15
        assert solved.solution.rms_arcsec < 0.5 * 5.17
        assert "index-tycho2" in solved.solution.reference
        assert "Gaia not asked" in solved.solution.reference
        wcs = read_wcs(solved, roots)
        x, y = wcs.all_world2pix(*HAT_P_32, 1)
        sources = read_sources(measured, roots)
        assert np.min(np.hypot(sources["X"] - x, sources["Y"] - y)) < 1.0
        scales.append(solved.solution.pixel_scale)
        brightest.append((solved.solution.ra, solved.solution.dec))
        far = Cone(ra=(raw.ra + 40) % 360, dec=raw.dec, radius=1.0)
        with pytest.raises(StageError, match="no match"):
            solve_frame(measured, far, index, None, roots, telescope, hasty)
    assert len(scales) == 2
    assert np.ptp(scales) < 0.003 * 5.17
