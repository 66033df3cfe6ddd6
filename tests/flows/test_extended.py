"""What comes of the stack for extended targets never touches the default one."""

from __future__ import annotations

import pytest

from flows._extended import _with, extend_filters
from models.base import FileRef
from models.run import RunContext
from models.settings import Settings, StackSettings
from models.stack import ExtendedStack, Stack, stack_paths

FILE = FileRef(path="stacks/M51/T120/M51_r.fits", digest="0" * 64)


@pytest.fixture
def run(tmp_path):
    return RunContext.of("T120", Settings(data_root=tmp_path, stack=StackSettings(extended="never")))


@pytest.fixture
def stack(run):
    """A finished stack beside which an earlier run left one for extended targets."""
    path = stack_paths("M51", "T120", "r", run.roots).extended
    path.parent.mkdir(parents=True)
    path.write_bytes(b"of an earlier run")
    return Stack(
        group="M51", filter="r", telescope="T120", image=FILE, weight=FILE, n_combined=3, inputs=("a", "b", "c"),
        combine="MEDIAN", exptime_s=90.0, calibrated=True, notes=("as it was",),
    )  # fmt: skip


def there(run):
    return stack_paths("M51", "T120", "r", run.roots).extended.is_file()


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (RuntimeError("no such thing"), "not made: extend: unforeseen RuntimeError: no such thing"),
        (ExtendedStack(file=None, reason="not made: extended: only 1.0 % of the field"), "only 1.0 %"),
    ],
)
def test_a_failure_is_said_and_costs_nothing_else(run, stack, result, said):
    after = _with(stack, result, "made: an object is large", run)
    assert after.extended is not None
    assert after.extended.file is None
    assert said in after.extended.reason
    assert after.model_copy(update={"extended": None}) == stack
    assert not there(run)  # an old one beside a new default product would be taken for its companion


def test_success_is_said_with_why(run, stack):
    made = ExtendedStack(file=FILE, reason="sky from 30 % of the field")
    after = _with(stack, made, "made: an object is large", run)
    assert after.extended is not None
    assert after.extended.reason == "made: an object is large; sky from 30 % of the field"
    assert there(run)


def test_never_means_no_work_and_no_file(run, stack):
    (after,) = extend_filters([None], [stack], [stack], run, None)  # type: ignore[list-item,arg-type]
    assert isinstance(after, Stack)
    assert after.extended == ExtendedStack(file=None, reason="not made: stack.extended is never")
    assert not there(run)
