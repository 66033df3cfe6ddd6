"""Which frames a group is made of, from the records of the years: the sky decides, and what is left out is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import _group
from flows._group import frames_of_group, groups_seen
from flows._sky import sky_of_run, target_named
from models.base import Roots
from models.frame import CalibratedFrame, FrameRecord, ZeroPoint
from models.run import RunContext
from models.settings import Settings
from models.target import TargetError
from tasks.core.errors import UserError
from tasks.core.files import is_current, ref
from tasks.report import write_frames
from tests.fields.frames import solved


@pytest.fixture(autouse=True)
def files_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_group, "is_current", lambda file, roots: True)


def run_on(folder: Path, *records: FrameRecord, **selection: object) -> RunContext:
    done = []
    for record in records:
        assert record.solved is not None
        point = ZeroPoint(status="NO_PS1_BAND")
        done.append(FrameRecord(raw=record.raw, calibrated=CalibratedFrame(solved=record.solved, zero_point=point)))
    for year in {record.raw.year for record in done}:
        write_frames([record for record in done if record.raw.year == year], folder / str(year) / "T120")
    return RunContext.of("T120", Settings(data_root=folder, selection=selection))


def binned(record: FrameRecord, binning: int) -> FrameRecord:
    assert record.solved is not None
    data = record.solved.model_dump()
    data["measured"]["reduced"]["raw"]["binning"] = binning
    data["measured"]["reduced"]["raw"]["shape"] = (2048 // binning, 2048 // binning)
    data["solution"]["pixel_scale"] *= binning / 2
    return FrameRecord.model_validate({"solved": data, "raw": data["measured"]["reduced"]["raw"]})


def test_words_that_lie_are_told_by_the_group_they_name(tmp_path: Path) -> None:
    run = run_on(
        tmp_path, solved("M67", 202.47, 47.2, "20180301"), solved("M51", 202.46, 47.19, "20230301"),
        solved("M67", 132.85, 11.82, "20230301"),
    )  # fmt: skip
    assert [target.name for target in groups_seen(run)] == ["M51", "M67"]
    m51, m67 = (frames_of_group(target, run) for target in groups_seen(run))
    assert (len(m51.members), m51.rejected, m51.years) == (2, {}, (2018, 2023))
    ((left_out,),) = m67.rejected.values()
    assert left_out.reason == "OBJECT says M67, the field is at 13h30m +47°12′; not M67, it shows M51"


def test_abell_2744_is_no_group_of_pandoras_frames(tmp_path: Path) -> None:
    frames = [
        solved("Pandora", 175.7 - 0.2 * day, 5.8, f"2022030{day + 1}", hour=22 + i)
        for day in range(3)
        for i in range(2)
    ]
    run = run_on(tmp_path, *frames)
    assert groups_seen(run) == []
    abell = frames_of_group(run.targets["Abell2744"], run)
    assert not abell.members
    ((*reasons,),) = abell.rejected.values()
    assert len(reasons) == 6
    assert reasons[0].reason == "OBJECT says Pandora, the field is at 11h43m +05°48′; not Abell 2744"


def test_a_moving_target_is_stacked_only_if_asked(tmp_path: Path) -> None:
    frames = [
        solved("Frigga", 104.5 + 0.09 * day, 25.2, f"2025031{day}", hour=22 + i) for day in range(3) for i in range(2)
    ]
    run = run_on(tmp_path, *frames)
    place = target_named("j0658+2512", run)
    assert place.name == "J0658+2512"
    assert groups_seen(run) == []
    ((first, *_),) = frames_of_group(place, run).rejected.values()
    assert "a moving target (--selection-moving stacks it)" in first.reason
    asked = run_on(tmp_path, *frames, moving=True)
    assert [target.name for target in groups_seen(asked)] == ["J0658+2512"]
    assert len(frames_of_group(place, asked).members) == 6


def test_a_place_in_no_table_is_a_group_where_there_are_frames_enough(tmp_path: Path) -> None:
    run = run_on(
        tmp_path, solved("champ 2", 150.1, 2.2, hour=21), solved("champ 2", 150.1, 2.2), solved("a", 10.0, 40.0)
    )
    assert [target.name for target in groups_seen(run)] == ["J1000+0212"]
    assert sorted(sky_of_run(run).map.groups) == ["J0040+4000", "J1000+0212"]
    assert len(frames_of_group(target_named("J1000+0212", run), run).members) == 2
    with pytest.raises(TargetError, match="no target group 'J1111\\+1111'"):
        target_named("J1111+1111", run)


def test_binnings_are_never_mixed(tmp_path: Path) -> None:
    frames = [solved("M67", 132.85, 11.82, hour=20 + i) for i in range(3)]
    run = run_on(tmp_path, *frames, binned(solved("M67", 132.85, 11.82), 4), binned(solved("M67", 132.85, 11.82), 1))
    found = frames_of_group(run.targets["M67"], run)
    assert {record.raw.binning for record in found.members} == {2}
    ((*left_out,),) = found.rejected.values()
    assert sorted(each.reason for each in left_out) == [
        "binned 1 × 1, the group's other frames 2 × 2", "binned 4 × 4, the group's other frames 2 × 2",
    ]  # fmt: skip


@pytest.mark.parametrize("what", ["reduced file", "source table", "plate solution"])
def test_a_frame_whose_files_are_gone_is_left_out_while_they_are(tmp_path: Path, monkeypatch, what: str) -> None:
    """Not by a stage, whose record would stay: its key is of what was in the files."""
    monkeypatch.setattr(_group, "is_current", is_current)
    roots = Roots(data=tmp_path, raw=tmp_path / "raw")
    frames = []
    for number in range(3):
        data = solved("M67", 132.85, 11.82, hour=20 + number).model_dump(exclude={"raw", "reduced", "measured"})
        files = {name: tmp_path / f"{name}{number}" for name in ("reduced file", "source table", "plate solution")}
        for path in files.values():
            path.write_text(path.name)
        refs = {name: ref(path, roots).model_dump() for name, path in files.items()}
        data["solved"]["measured"]["reduced"]["file"] = refs["reduced file"]
        data["solved"]["measured"]["sources"] = refs["source table"]
        data["solved"]["solution"]["wcs"] = refs["plate solution"]
        frames.append(FrameRecord.model_validate({"solved": data["solved"]}))
    run = run_on(tmp_path, *frames)
    lost = tmp_path / f"{what}1"
    lost.rename(tmp_path / "away")
    found = frames_of_group(run.targets["M67"], run)
    assert len(found.members) == 2
    ((left_out,),) = found.rejected.values()
    assert left_out.reason == f"its {what} is gone or changed; run python -m flows.reduce_year 2025"
    (tmp_path / "away").rename(lost)
    assert len(frames_of_group(run.targets["M67"], run).members) == 3


def test_nothing_reduced(tmp_path: Path) -> None:
    run = RunContext.of("T120", Settings(data_root=tmp_path))
    assert groups_seen(run) == []
    with pytest.raises(UserError, match="no reduced frames of T120"):
        sky_of_run(run)
