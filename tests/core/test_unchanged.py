"""Sums of a data root: made again only when something in it has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.base import Roots
from tasks.core.unchanged import made_before, unless_unchanged


class Summing:
    """Joins all texts of a folder into one file there, and counts how often."""

    def __init__(self, folder: Path) -> None:
        self.roots = Roots(data=folder, raw=folder / "raw")
        self.sum, self.times, self.besides = folder / "stacks" / "sum.txt", 0, "settings"
        self.sum.parent.mkdir()
        for name in "ab":
            (self.sum.parent / f"{name}.txt").write_text(name)

    def inputs(self) -> list[Path]:
        return [path for path in self.sum.parent.rglob("*") if path.is_file()]

    def make(self) -> tuple[Path, ...]:
        self.times += 1
        texts = [path.read_text() for path in sorted(self.inputs()) if path != self.sum]
        self.sum.write_text("".join(texts))
        return (self.sum,)

    def run(self) -> str:
        (path,) = unless_unchanged(self.roots, "sum", self.inputs, self.besides, self.make)
        return path.read_text()


@pytest.fixture
def summing(tmp_path: Path) -> Summing:
    return Summing(tmp_path)


def test_nothing_changed(summing: Summing) -> None:
    assert made_before(summing.roots, "sum") == ()
    assert [summing.run() for _ in range(3)] == ["ab"] * 3
    assert summing.times == 1
    assert made_before(summing.roots, "sum") == (summing.sum,)
    (summing.sum.parent / "a.txt").touch()
    assert (summing.run(), summing.times) == ("ab", 1)


@pytest.mark.parametrize("change", ["content", "new", "gone", "renamed", "settings", "result", "result gone", "memory"])
def test_something_changed(summing: Summing, change: str) -> None:
    summing.run()
    folder, expected = summing.sum.parent, "ab"
    if change == "content":
        (folder / "a.txt").write_text("A")
        expected = "Ab"
    elif change == "new":
        (folder / "c.txt").write_text("c")
        expected = "abc"
    elif change == "gone":
        (folder / "b.txt").unlink()
        expected = "a"
    elif change == "renamed":
        (folder / "a.txt").rename(folder / "z.txt")
        expected = "ba"
    elif change == "settings":
        summing.besides = "others"
    elif change == "result":
        summing.sum.write_text("torn")
    elif change == "result gone":
        summing.sum.unlink()
    else:
        (summing.roots.data / ".cache" / "unchanged" / "sum.json").write_text("{")
    assert (summing.run(), summing.times) == (expected, 2)
    assert (summing.run(), summing.times) == (expected, 2)
