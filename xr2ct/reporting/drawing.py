"""One way to draw: the same figure gives the same PDF and SVG in every process, whatever the user's settings.

No dates, no random names, the fonts that come with Matplotlib; text stays text in the SVG, and is embedded as
TrueType in the PDF, as journals ask for.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import matplotlib
import matplotlib.style
from matplotlib.figure import Figure

_SETTINGS = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.25,
    "pdf.fonttype": 42,
    "pdf.compression": 6,
    "svg.fonttype": "none",
    "svg.hashsalt": "xr2ct",
    "image.interpolation": "none",
}


def render(draw: Callable[[], Figure]) -> dict[str, bytes]:
    """The PDF and the SVG of the figure that `draw` makes; nothing of it is global."""
    with matplotlib.rc_context():
        matplotlib.style.use("default")
        matplotlib.rcParams.update(_SETTINGS)
        figure = draw()
        files = {}
        for suffix, dates in (("pdf", "CreationDate"), ("svg", "Date")):
            out = io.BytesIO()
            figure.savefig(out, format=suffix, transparent=True, metadata={dates: None})
            files[suffix] = out.getvalue()
    return files


def inline(svg: bytes) -> str:
    """An SVG file's element, to stand inside a page."""
    text = svg.decode("utf-8")
    return text[text.index("<svg") :]
