"""A person's own table of targets, and what is wrong with it, in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.target import TargetError, find_target, load_targets


def test_a_group_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "targets.toml").write_text('["HAT-P-32"]\nra = 31.0428\ndec = 46.6878\n')
    assert find_target("hatp32", load_targets(tmp_path)).name == "HAT-P-32"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[targets]]\nname = "X"\n', "targets: not a group; a group is a line [NAME]"),
        ("[X]\nra = 31.0\n", "X.dec: Field required"),
        ("[X]\nra = 31.0\ndec = 146.0\n", "X.dec: Input should be less than or equal to 90"),
        ("[X]\nra = 31.0\ndec = 46.0\nradius = 3\n", "X.radius: Extra inputs are not permitted"),
        ("ra = 31.0\n", "ra: not a group"),
        ("[X\n", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "targets.toml").write_text(text)
    with pytest.raises(TargetError) as failure:
        load_targets(tmp_path)
    assert said in str(failure.value)
    assert "targets.toml" in str(failure.value)
