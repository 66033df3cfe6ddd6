"""The automations that `deploy` registers, judged by Prefect's own reader of their patterns."""

from __future__ import annotations

import pytest
from prefect.server.events.schemas.automations import EventTrigger

from deployments._service import _AUTOMATIONS

SILENT, CANCELLED = (EventTrigger.model_validate(each["trigger"]) for each in _AUTOMATIONS)


@pytest.mark.parametrize("trigger", [SILENT, CANCELLED], ids=["silent", "cancelled"])
@pytest.mark.parametrize(
    "state", ["Completed", "CompletedWithErrors", "CompletedWithPending", "Failed", "Crashed", "Cancelled"]
)
def test_every_end_of_a_run_is_seen_as_one(trigger, state):
    """What a flow ends in (`flows._runner.finish`) or Prefect makes of it; one that is not seen becomes a crash."""
    event = f"prefect.flow-run.{state}"
    assert trigger.event_pattern.match(event)
    assert trigger.expects(event)


def test_what_begins_the_wait_is_seen_too():
    assert SILENT.event_pattern.match("prefect.flow-run.heartbeat")
    assert SILENT.starts_after("prefect.flow-run.heartbeat")
    assert CANCELLED.starts_after("prefect.flow-run.Cancelling")
    assert not SILENT.expects("prefect.flow-run.Running")
