"""Plots as SVG that are read on a light page and on a dark one, small, the same bytes each time."""

from __future__ import annotations

import base64
import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import TightLayoutEngine
from PIL import Image

from models.base import Roots
from models.page import Picture
from tasks.core.files import ref, writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["BLUE", "GREEN", "GREY", "INK", "LEGEND", "ORANGE", "band_style", "drawing", "faint_grid", "save_svg"]

INK = "#010203"
"""Stands for the colour of text and axes until the file is written: there it becomes the page's own."""

BLUE = "#010204"
"""The same for the colour of most points: blue on a light page, sky blue on a dark one."""

ORANGE, GREEN, GREY = "#d55e00", "#009e73", "#808080"
"""Of Okabe & Ito (2008), told apart by everybody; 3:1 against white and against the dark page."""

LEGEND = 0.25
"""Inches that a legend of one line takes above the axes."""

_BANDS = {
    "B": ("#0072b2", "o"), "g": ("#009e73", "s"), "V": ("#56b4e9", "^"), "r": ("#d55e00", "D"), "R": ("#cc79a7", "v"),
    "i": ("#e69f00", "P"), "Ha": ("#d55e00", "X"), "OIII": ("#009e73", "*"), "SII": ("#cc79a7", "p"),
    "z": ("#808080", "h"), "U": ("#808080", "<"),
}  # fmt: skip

_LOOK: dict[str, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "ohp", "font.size": 9.0, "axes.titlesize": 10.0, "axes.labelsize": 9.0,
    "legend.fontsize": 8.0, "xtick.labelsize": 8.0, "ytick.labelsize": 8.0, "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.facecolor": "none", "figure.facecolor": "none",
    "axes.linewidth": 0.8, "legend.frameon": False, "axes.titlelocation": "left", "path.simplify": True,
    "text.parse_math": False, "axes.unicode_minus": True,
}  # fmt: skip

_STYLE = (
    "<style>:root{--ink:#1b1b1b;--blue:#0072b2}text{font-family:system-ui,sans-serif}"
    "@media (prefers-color-scheme:dark){:root{--ink:#e8e8e8;--blue:#56b4e9}}</style>"
)
_FONT = re.compile(r" ?font(?:-family)?: (?:([\d.]+px) )?'[^\";]*;?")
_TAG = re.compile(r"<[^>]+>")
_DECIMALS = re.compile(r"(-?\d+\.\d\d)\d+")
_NEEDLESS = re.compile(r' id="[A-Za-z0-9.]+_\d+"|\s*<!--.*?-->', re.DOTALL)
_BETWEEN = re.compile(r">\s+<")
_METADATA = re.compile(r" *<metadata>.*?</metadata>\n", re.DOTALL)
_PT = 96.0 / 72.0
_PNG = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)")
_MAP_QUALITY = 70

_lock = threading.Lock()
"""Matplotlib's settings are one for all threads of a process."""


def band_style(band: str) -> tuple[str, str]:
    """Colour and marker of a filter: never the colour alone."""
    return _BANDS.get(band, (GREY, "d"))


@contextmanager
def drawing(width: float, height: float, above: float = 0.0) -> Iterator[Figure]:
    """A figure of so many inches in the pages' look, some of them free above; build and `save_svg` inside.

    Matplotlib's constrained layout has two solutions for one plot, a tenth of a pixel apart, and takes either.
    """
    with _lock, rc_context({**_LOOK, "font.family": matplotlib.rcParamsDefault["font.family"]}):
        layout = TightLayoutEngine(pad=0.6, rect=(0.0, 0.0, 1.0, 1.0 - above / height))
        figure = Figure(figsize=(width, height), layout=layout)
        FigureCanvasSVG(figure)
        yield figure


def laid_out(figure: Figure) -> None:
    """Give all parts of a figure their places now; Matplotlib would draw it once for that and throw it away."""
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)
        figure.set_layout_engine(None)


def faint_grid(axes: Axes) -> None:
    """Lines to read values by."""
    axes.grid(color=INK, alpha=0.13, linewidth=0.6)
    axes.set_axisbelow(True)


def _as_webp(found: re.Match[str]) -> str:
    """A map inside a plot: a third of the bytes that PNG takes."""
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as picture:
        sink = io.BytesIO()
        picture.save(sink, "WEBP", quality=_MAP_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(sink.getvalue()).decode()


def _plain(tag: re.Match[str]) -> str:
    """A tag without the names of fonts, and with two decimals of a point: enough for the eye. Text stays as it is."""
    fonts = _FONT.sub(lambda found: f" font-size: {found[1]};" if found[1] else "", tag[0])
    return _DECIMALS.sub(r"\1", fonts).replace("\n", " ")


def save_svg(figure: Figure, path: Path, alt: str, roots: Roots) -> Picture:
    """Write the figure.

    Text stays text, in the reader's own font.
    """
    sink = io.StringIO()
    laid_out(figure)
    figure.savefig(sink, format="svg", dpi=110, metadata={"Date": None, "Creator": None})
    text = _METADATA.sub("", sink.getvalue()).replace(INK, "var(--ink)").replace(BLUE, "var(--blue)")
    text = _BETWEEN.sub("><", _NEEDLESS.sub("", _PNG.sub(_as_webp, _TAG.sub(_plain, text))))
    head, mark, body = text.partition("<defs>")
    with writing(path) as temporary:
        temporary.write_text(head + _STYLE + mark + body, encoding="utf-8")
    width, height = figure.get_size_inches() * 72.0 * _PT
    return Picture(file=ref(path, roots), alt=alt, width=round(width), height=round(height))
