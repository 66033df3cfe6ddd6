"""Where a frame is looked for: hints, known fields, blind; real tools, made-up skies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import _search
from flows._search import Search
from models.catalog import Cone
from models.field import Field, FieldCatalogs
from models.frame import FrameFailure, MeasuredFrame
from models.run import RunContext
from models.settings import Settings
from models.target import load_targets
from models.telescope import load_telescope
from tasks.astrometry import build_index
from tests.astrometry.sky import Camera, gaia_table, make_roots, measured_frame, raw_frame, source_table, stored

pytestmark = pytest.mark.tools

TARGETS = load_targets()
T120 = load_telescope("T120")
PLACES = {name: (TARGETS[name].ra, TARGETS[name].dec) for name in ("M67", "M51", "M13")} | {"lost": (300.0, 10.0)}


class Sky:
    """Fields with stars, the catalogues of three of them in this run, one more from an earlier year."""

    def __init__(self, folder: Path) -> None:
        self.roots = make_roots(folder)
        self.run = RunContext.of("T120", Settings(data_root=self.roots.data, catalog_mode="offline"))
        self.stars, self.cones, self.fields = {}, {}, {}
        for seed, (name, (ra, dec)) in enumerate(PLACES.items()):
            self.stars[name] = gaia_table(1100, ra, dec, 0.5, seed=seed)
            self.cones[name] = stored(self.stars[name], ra, dec, 0.5, self.roots)
            index = build_index(self.cones[name], self.roots, T120)
            field = Field(name=name, cone=Cone(ra=ra, dec=dec, radius=0.5))
            self.fields[name] = FieldCatalogs(field=field, gaia=self.cones[name], index=index)
        self.asked: list[Field] = []
        self.count = 0

    def frame(
        self, shows: str, word: str = "", header: tuple[float, float] | None = None, **options: float
    ) -> MeasuredFrame:
        ra, dec = PLACES[shows]
        self.count += 1
        table, _ = source_table(self.stars[shows], Camera(ra=ra + 0.02, dec=dec - 0.03), 2023.4, 3, **options)
        raw = raw_frame(f"f{self.count}", 2023.4).model_copy(update={"object": word, "ra": None, "dec": None})
        if header is not None:
            raw = raw.model_copy(update={"ra": header[0], "dec": header[1]})
        return measured_frame(raw, table, self.roots)

    def late(self, field: Field, run: RunContext) -> FieldCatalogs:
        self.asked.append(field)
        return self.fields["lost"].model_copy(update={"field": field})

    def look(self, frame: MeasuredFrame, *names: str, **settings: Any) -> Search:
        fields = [self.fields[name] for name in names]
        run = self.run
        if settings:
            astrometry = run.settings.astrometry.model_copy(update=settings)
            run = run.model_copy(update={"settings": run.settings.model_copy(update={"astrometry": astrometry})})
        self.asked = []
        return Search(frame, fields, run, self.late)


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Sky:
    return Sky(tmp_path_factory.mktemp("search"))


@pytest.fixture(autouse=True)
def without_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: Any, stage: Any, *args: Any) -> Any:
        function: Callable[..., Any] = getattr(stage, "fn", stage)
        result = function(*args)
        if isinstance(result, FrameFailure):
            self.failures.append(result)
            return None
        return result

    monkeypatch.setattr(_search.Way, "step", step)


def steps(search: Search) -> list[tuple[str, str, bool]]:
    return [(step.step, step.where, step.found) for step in search.steps]


def test_a_header_that_is_right(sky: Sky) -> None:
    search = sky.look(sky.frame("M51", "M67", header=(PLACES["M51"][0] + 0.2, PLACES["M51"][1])), "M67", "M51", "M13")
    assert steps(search) == [("header", "M51", True)]
    assert search.failure is None
    assert search.field is not None
    assert search.field.field.name == "M51"


def test_a_header_that_is_degrees_off_and_a_word_that_is_right(sky: Sky) -> None:
    search = sky.look(sky.frame("M51", "Tourbillon", header=PLACES["M67"]), "M67", "M51")
    assert steps(search) == [("header", "M67", False), ("name", "M51", True)]
    assert "no match" in search.steps[0].reason
    assert search.steps[0].limit_s == sky.run.settings.astrometry.cpu_limit_s


def test_both_lie_and_another_field_of_the_run_has_it(sky: Sky) -> None:
    search = sky.look(sky.frame("M13", "M51", header=PLACES["M67"]), "M67", "M51", "M13")
    assert steps(search) == [("header", "M67", False), ("name", "M51", False), ("known fields", "M13", True)]
    assert search.solved is not None
    assert search.solved.solution.dec == pytest.approx(PLACES["M13"][1] - 0.03, abs=0.001)


def test_a_frame_that_says_nothing_is_found_among_all_at_once(sky: Sky) -> None:
    search = sky.look(sky.frame("M51"), "M67", "M51", "M13")
    assert steps(search) == [("known fields", "M67, M51, M13", True)]
    assert search.field is not None
    assert search.field.field.name == "M51"


def test_blind_over_what_earlier_years_left(sky: Sky) -> None:
    """Its place is in no field of this run: the index of another year knows it, and its catalogues are asked for."""
    search = sky.look(sky.frame("lost", "M67"), "M67", "M51")
    assert [(step, found) for step, _, found in steps(search)] == [
        ("name", False), ("known fields", False), ("blind", True),
    ]  # fmt: skip
    assert "more index files under the data root" in search.steps[-1].where
    (field,) = sky.asked
    assert field.cone.ra == pytest.approx(300.0, abs=0.05)
    assert search.failure is None


@pytest.mark.parametrize("binning", [1, 4])
def test_a_frame_that_is_binned_otherwise_has_another_scale(sky: Sky, binning: int) -> None:
    ra, dec = PLACES["M51"]
    side = 2048 // binning
    camera = Camera(ra=ra, dec=dec, scale=0.385 * binning, shape=(side, side))
    table, _ = source_table(sky.stars["M51"], camera, 2023.4, 3)
    raw = raw_frame(f"bin{binning}", 2023.4, shape=(side, side)).model_copy(update={"binning": binning})
    search = sky.look(measured_frame(raw, table, sky.roots), "M67", "M51")
    assert search.solved is not None
    assert search.solved.solution.pixel_scale == pytest.approx(0.385 * binning, rel=1e-3)


def test_found_nowhere_says_where_it_was_looked_for(sky: Sky) -> None:
    nothing = sky.frame("M67", "M67", limit=9.0, spurious=60)
    search = sky.look(nothing, "M67", "M51")
    assert [step for step, _, _ in steps(search)] == ["name", "known fields", "blind"]
    assert search.failure is not None
    assert search.failure.reason.startswith("looked where OBJECT says (M67); in M51; over ")
    assert not search.failure.pending
    assert (search.solved, search.field) == (None, None)
    assert steps(sky.look(nothing, "M67", "M51", blind_limit_s=0)) == [("name", "M67", False)]


def test_while_a_catalogue_is_awaited_the_frame_waits(sky: Sky) -> None:
    field = sky.fields["M67"].field
    away = FrameFailure(file="gaia", stage="catalogues", reason="no answer", remedy="later", pending=True)
    waiting = FieldCatalogs(field=field, failures=(away,))
    search = Search(
        sky.frame("M67", "M67"),
        [waiting, sky.fields["M51"]],
        sky.run.model_copy(
            update={
                "settings": sky.run.settings.model_copy(
                    update={"astrometry": sky.run.settings.astrometry.model_copy(update={"blind_limit_s": 0.0})}
                )
            }
        ),
        sky.late,
    )
    assert search.failure is not None
    assert search.failure.pending


def test_no_field_at_all(sky: Sky, tmp_path: Path) -> None:
    run = sky.run.model_copy(update={"roots": make_roots(tmp_path / "empty")})
    frame = sky.frame("M67")
    search = Search(frame, [], run, sky.late)
    assert search.steps == []
    assert search.failure is not None
    assert "no field is known" in search.failure.reason
