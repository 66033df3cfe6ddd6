"""Pictures in Prefect's interface."""

from __future__ import annotations

import os

from tasks.report import tasks


def test_a_picture_that_cannot_be_read_is_said_and_costs_no_stack(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(tasks, "create_markdown_artifact", lambda text, **_: said.append(text))
    path = tmp_path / "M51_g.png"
    path.write_bytes(os.urandom(500_000))
    tasks.show_picture.fn(path, "M51 g")
    assert "M51_g.png" in said[0]
    assert "Delete it and run the command again" in said[0]
