"""The real client code against an archive on loopback that behaves as badly as archives do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from models.catalog import Cone
from models.settings import CatalogSettings, Settings
from tasks.catalogs import TruncatedError, fetch_cone, read_cone, store_cone
from tasks.catalogs.cones import contains, covers
from tasks.catalogs.services import TapService, service_for, tiles
from tasks.core.errors import StageError, TransientError

from .archive import Archive
from .conftest import gaia_table, ps1_table

M67 = Cone(ra=132.85, dec=11.81, radius=0.4)
WIDE = Cone(ra=132.85, dec=11.81, radius=1.2)
GAIA = gaia_table(WIDE, n=2000)
PS1 = ps1_table(WIDE, n=2000)
PS1["gMeanPSFMag"][::7] = np.nan
# Patient enough for a busy machine; what stalls on purpose is asked with less.
LIMITS = CatalogSettings(timeout_s=5.0, job_timeout_s=60.0, retries=2, max_rows=900, interval_s=0.0)
IMPATIENT = LIMITS.model_copy(update={"timeout_s": 0.3, "job_timeout_s": 0.6})

KINDS = ("tap", "tap sync", "mast", "vizier")
TAP = ("tap", "tap sync")
VOTABLES = ("tap", "tap sync", "vizier")


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """No waiting between tries; what the waits would have been."""
    made: list[float] = []
    monkeypatch.setattr("tasks.catalogs.fetch._rest", made.append)
    monkeypatch.setattr(TapService, "_POLL_S", (0.01, 0.05))
    return made


@pytest.fixture
def gaia():
    with Archive(GAIA) as archive:
        yield archive


@pytest.fixture
def ps1():
    with Archive(PS1) as archive:
        yield archive


@pytest.fixture
def archive(request, kind):
    return request.getfixturevalue("gaia" if kind in TAP else "ps1")


def address(archive: Archive, kind: str) -> str:
    return {"tap": archive.tap, "tap sync": f"{archive.tap}/sync", "mast": archive.mast, "vizier": archive.vizier}[kind]


def catalogue_of(kind: str) -> str:
    return "gaia" if kind in TAP else "ps1"


def settings_for(roots, *urls, limits=LIMITS, **options) -> Settings:
    return Settings(data_root=roots.data, gaia_urls=urls, ps1_urls=urls, catalogs=limits, **options)


def limits_for(mood: str) -> CatalogSettings:
    return IMPATIENT if mood in ("stall", "drip", "job for ever") else LIMITS


def nothing_stored(roots) -> bool:
    return not list((roots.data / "catalogs").rglob("*.json")) and not list((roots.data / "catalogs").rglob("*.fits"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_answer(roots, archive, kind):
    stored = fetch_cone(catalogue_of(kind), M67, roots, settings_for(roots, address(archive, kind)))
    assert stored.service == address(archive, kind)
    assert "132.85" in stored.query
    assert stored.release.startswith("Gaia DR3" if kind in TAP else "PS1 DR2")
    rows = read_cone(stored, roots)
    ra, identifier = ("ra", "source_id") if kind in TAP else ("raMean", "objID")
    dec = ra.replace("ra", "dec")
    truth = archive.table[contains(M67, archive.table[ra], archive.table[dec])]
    if kind == "vizier":
        truth = truth[truth["nDetections"] > 2]
    truth.sort(identifier)
    assert len(rows) == len(truth) > 150
    for name in rows.colnames:
        np.testing.assert_array_equal(rows[name], truth[name], err_msg=name)
    asked = len(archive.questions)
    assert asked == 1
    # Served from the store from now on, parts of it too.
    part = Cone(ra=132.9, dec=11.8, radius=0.3)
    assert fetch_cone(catalogue_of(kind), part, roots, settings_for(roots, address(archive, kind))) == stored
    assert len(archive.questions) == asked


PASSING = ["stall", "drop", "429", "503"]


@pytest.mark.parametrize("where", ["launch", "phase"])
@pytest.mark.parametrize("mood", ["stall", "drop", "429", "503", "html", "404"])
def test_failures_at_every_step_of_a_tap_job(roots, gaia, where, mood):
    gaia.where, gaia.moods = where, [mood]
    with pytest.raises(TransientError):
        fetch_cone("gaia", M67, roots, settings_for(roots, gaia.tap, limits=limits_for(mood)))
    assert len(gaia.questions) == (3 if mood in PASSING else 1)
    assert nothing_stored(roots)


@pytest.mark.parametrize("kind", ["vizier"])
def test_a_dripping_answer_ends(roots, archive, kind, monkeypatch):
    monkeypatch.setattr("tasks.catalogs.transport._PATIENCE", 1)
    archive.moods = ["drip", "answer"]
    limits = LIMITS.model_copy(update={"timeout_s": 1.0})
    settings = settings_for(roots, address(archive, kind), limits=limits)
    assert fetch_cone(catalogue_of(kind), M67, roots, settings).n_rows > 150
    assert len(archive.questions) == 2


def test_retry_after_is_obeyed_within_reason(roots, gaia, pauses):
    gaia.moods = ["429", "429", "answer"]
    fetch_cone("gaia", M67, roots, settings_for(roots, gaia.tap))
    assert pauses == [7.0, 7.0]
    pauses.clear()
    gaia.moods = ["429 long"]
    with pytest.raises(TransientError, match="429"):
        fetch_cone("gaia", Cone(ra=132.85, dec=11.81, radius=0.5), roots, settings_for(roots, gaia.tap))
    assert not pauses


def test_pauses_grow_and_differ(roots, gaia, pauses):
    gaia.moods = ["500"]
    limits = LIMITS.model_copy(update={"retries": 9, "patience_s": 1000.0})
    settings = settings_for(roots, gaia.tap).model_copy(update={"catalogs": limits})
    with pytest.raises(TransientError):
        fetch_cone("gaia", M67, roots, settings)
    assert len(pauses) == 9
    assert all(0.5 * 2**i <= pause <= 1.5 * 2**i for i, pause in enumerate(pauses[:6]))
    assert max(pauses) <= 90
    assert len({pause / min(2**i, 60) for i, pause in enumerate(pauses)}) > 1


def test_truncated_here_and_down_there_is_pending(roots, gaia):
    gaia.moods = ["overflow", "500"]
    with pytest.raises(TransientError) as caught:
        fetch_cone("gaia", M67, roots, settings_for(roots, gaia.tap, f"{gaia.tap}/sync"))
    assert "OVERFLOW" in caught.value.reason
    assert "500" in caught.value.reason


@pytest.mark.parametrize("kind", ["tap", "vizier", "mast"])
def test_a_radius_that_was_cut_in_silence_is_noticed(roots, archive, kind):
    archive.radius_limit = 0.3
    with pytest.raises(TruncatedError, match=r"reach only 0\.[23]"):
        fetch_cone(catalogue_of(kind), M67, roots, settings_for(roots, address(archive, kind)))
    assert nothing_stored(roots)


def test_a_full_page_is_asked_on(roots, ps1, monkeypatch):
    monkeypatch.setattr("tasks.catalogs.services._MAST_PAGE", 100)
    stored = fetch_cone("ps1", M67, roots, settings_for(roots, ps1.mast))
    truth = PS1[contains(M67, PS1["raMean"], PS1["decMean"])]
    assert stored.n_rows == len(truth)
    assert len(ps1.questions) == len(truth) // 100 + 1


def test_a_page_limit_of_the_services_own_is_noticed(roots):
    with Archive(ps1_table(M67, n=2500)) as archive:
        archive.page_limit = 1000
        limits = LIMITS.model_copy(update={"max_rows": 5000})
        settings = settings_for(roots, archive.mast).model_copy(update={"catalogs": limits})
        assert fetch_cone("ps1", M67, roots, settings).n_rows == 2500
        assert len(archive.questions) == 3


def test_a_wide_cone_is_asked_in_tiles(roots):
    with Archive(ps1_table(WIDE, n=800)) as archive:
        stored = fetch_cone("ps1", WIDE, roots, settings_for(roots, archive.mast))
        assert stored.n_rows == 800
        assert stored.cone == WIDE
        assert len(archive.questions) == len(tiles(WIDE, 0.5))


@pytest.mark.parametrize("dec", [0.0, 70.0, 89.5, -29.0])
@pytest.mark.parametrize("radius", [0.3, 0.51, 0.523, 0.5767, 0.6, 0.705, 0.71, 0.956, 1.0, 3.0])
def test_tiles_cover(dec, radius):
    cone = Cone(ra=359.8, dec=dec, radius=radius)
    parts = tiles(cone, 0.5)
    inside = gaia_table(cone, n=3000)
    covered = np.zeros(3000, bool)
    for part in parts:
        assert part.radius <= 0.5
        covered |= contains(part, inside["ra"], inside["dec"])
    assert covered.all()
    assert len(parts) == {0.3: 1, 0.51: 3, 0.523: 3, 0.5767: 3, 0.6: 4, 0.705: 4}.get(radius, len(parts))
    assert len(parts) < 2.5 * (radius / 0.5 + 1) ** 2


def test_mirrors_in_order_and_what_each_said(roots, gaia):
    gaia.moods = ["html", "503", "503", "503"]
    with Archive(GAIA) as mirror:
        urls = (gaia.tap, f"{gaia.tap}/sync", mirror.tap)
        assert fetch_cone("gaia", M67, roots, settings_for(roots, *urls)).service == mirror.tap
        assert len(gaia.questions) == 4
        assert len(mirror.questions) == 1
    gaia.moods = ["html", "503"]
    with pytest.raises(TransientError) as caught:
        fetch_cone("gaia", WIDE, roots, settings_for(roots, *urls))
    for said in ("web page", "HTTP 503", "no connection"):
        assert said in caught.value.reason


def test_nobody_listens(roots):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(TransientError, match="no connection"):
        fetch_cone("gaia", M67, roots, settings_for(roots, f"http://127.0.0.1:{port}/tap"))


@pytest.mark.parametrize("url", ["ftp://x/tap", "https://example.org/whatever", "nonsense"])
def test_an_address_of_no_service(roots, url):
    with pytest.raises(StageError, match="no address of a ps1 service") as caught:
        service_for("ps1", url, LIMITS, roots.data)
    assert "OHP_PS1_URLS" in caught.value.remedy


def test_the_default_addresses_are_known(roots):
    settings = Settings(data_root=roots.data)
    names = [type(service_for("gaia", url, LIMITS, roots.data)).__name__ for url in settings.gaia_urls]
    names += [type(service_for("ps1", url, LIMITS, roots.data)).__name__ for url in settings.ps1_urls]
    assert names == ["TapService", "TapService", "MastService", "VizierService"]


def test_ps1_has_no_south(roots, ps1):
    south = Cone(ra=10, dec=-31, radius=0.5)
    with pytest.raises(StageError, match="PS1 ends at declination -30") as caught:
        fetch_cone("ps1", south, roots, settings_for(roots, ps1.mast))
    assert not caught.value.pending
    assert not ps1.questions
    assert nothing_stored(roots)


def test_the_centre_is_rounded_and_the_cone_still_covered(roots, gaia):
    asked = Cone(ra=132.850049, dec=11.810049, radius=0.4001)
    stored = fetch_cone("gaia", asked, roots, settings_for(roots, gaia.tap))
    assert stored.file.path == "catalogs/gaia/gaia_132.8500_+11.8100_0.401.fits"
    assert covers(stored.cone, asked)


def test_a_deeper_limit_is_asked_anew(roots, gaia):
    settings = settings_for(roots, gaia.tap)
    shallow = LIMITS.model_copy(update={"gaia_limit": 15.0})
    bright = fetch_cone("gaia", M67, roots, settings.model_copy(update={"catalogs": shallow}))
    assert read_cone(bright, roots)["phot_g_mean_mag"].max() <= 15
    deep = fetch_cone("gaia", M67, roots, settings)
    assert deep.n_rows > bright.n_rows
    assert deep.limit == 20.5
    assert fetch_cone("gaia", M67, roots, settings.model_copy(update={"catalogs": shallow})) == deep


def test_offline_opens_no_socket(roots, monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, forbidden)
    settings = settings_for(roots, "https://example.org/tap", catalog_mode="offline")
    with pytest.raises(TransientError, match="offline") as caught:
        fetch_cone("gaia", M67, roots, settings)
    assert "python -m flows.import_catalog gaia" in caught.value.remedy
    stored = store_cone("gaia", M67, GAIA, roots, "simulation", "Gaia DR3")
    assert fetch_cone("gaia", M67, roots, settings) == stored


_SCRIPT = """
import sys
from models.base import Roots
from models.catalog import Cone
from models.settings import Settings
from tasks.catalogs import fetch_cone
data, gaia, mast, vizier = sys.argv[1:]
assert not [name for name in sys.modules if name.startswith(("astroquery", "requests"))], "imported for nothing"
asked = ("gaia", gaia, 0.3), ("gaia", gaia + "/sync", 0.4), ("ps1", mast, 0.3), ("ps1", vizier, 0.4)
for catalogue, url, radius in asked:
    settings = Settings(data_root=data, gaia_urls=(url,), ps1_urls=(url,), catalogs={"interval_s": 0.05})
    print(fetch_cone(catalogue, Cone(ra=132.85, dec=11.81, radius=radius), settings.roots, settings).n_rows)
"""


def test_no_state_outside_the_data_root(roots, gaia, ps1, tmp_path):
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    repo = Path(__file__).resolve().parents[2]
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("OHP_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(roots.data), gaia.tap, ps1.mast, ps1.vizier],
        env=keep | {"HOME": str(home), "PYTHONPATH": str(repo), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=work, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 4, done.stdout
    assert not list(home.rglob("*"))
    assert not list(work.rglob("*"))
    left = {path.suffix for path in roots.data.rglob("*") if path.is_file() and ".cache" not in path.parts}
    assert left <= {".fits", ".json", ""}


def test_two_that_want_the_same_ask_once(roots, gaia):
    gaia.moods = ["503", "answer"]
    settings = settings_for(roots, gaia.tap)
    with ThreadPoolExecutor(4) as pool:
        cones = [Cone(ra=132.85, dec=11.81, radius=radius) for radius in (0.4, 0.4, 0.4, 0.4)]
        found = list(pool.map(lambda cone: fetch_cone("gaia", cone, roots, settings), cones))
    assert len(set(found)) == 1
    assert len(gaia.questions) == 2
