"""Pictures in Prefect's interface."""

from __future__ import annotations

import base64
import os

from defusedxml import ElementTree
from PIL import Image

from models.base import Roots
from tasks.pages.drawing import drawing, save_svg
from tasks.report import tasks


def test_a_picture_that_cannot_be_read_is_said_and_costs_no_stack(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(tasks, "create_markdown_artifact", lambda text, **_: said.append(text))
    path = tmp_path / "M51_g.png"
    path.write_bytes(os.urandom(500_000))
    tasks.show_picture.fn(path, "M51 g")
    assert "M51_g.png" in said[0]
    assert "Delete it and run the command again" in said[0]


def test_plots_and_maps_are_shown_as_they_are_on_paper(tmp_path, monkeypatch):
    """An SVG follows the reader's system, the interface its own setting: under a plot there is paper."""
    shown = []
    monkeypatch.setattr(tasks, "create_image_artifact", lambda url, **more: shown.append((url, more)))
    with drawing(3, 2) as figure:
        figure.subplots().set_xlabel("5 < 6 & <b>")
        made = save_svg(figure, tmp_path / "M51_g_mags.svg", "what it [shows](x)", Roots(data=tmp_path, raw=tmp_path))
    tasks.show_picture.fn(tmp_path / "M51_g_mags.svg", "M51_g_mags", made.alt)
    url, more = shown.pop()
    kind, _, content = url.partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert more["key"] == "m51-g-mags"
    assert "what it \\[shows\\](x)" in more["description"]
    svg = ElementTree.fromstring(base64.b64decode(content))
    assert svg.find("{http://www.w3.org/2000/svg}rect").attrib == {"width": "100%", "height": "100%", "fill": "#fff"}
    assert "5 < 6 & <b>" in "".join(svg.itertext())
    assert "dark" not in base64.b64decode(content).decode()
    assert "prefers-color-scheme:dark" in (tmp_path / "M51_g_mags.svg").read_text()

    Image.new("RGB", (9, 9)).save(tmp_path / "M51_g_view.webp")
    tasks.show_picture.fn(tmp_path / "M51_g_view.webp", "M51_g_view")
    assert shown.pop()[0].startswith("data:image/webp;base64,")
