"""One way to draw: the same figure gives the same PDF and SVG in every process, whatever the user's settings.

No dates, no random names, the fonts that come with Matplotlib; text stays text in the SVG, and is embedded as
TrueType in the PDF, as journals ask for.
"""

from __future__ import annotations

import html
import io
import logging
from collections.abc import Callable
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every glyph embedded

_SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.25,
    "pdf.fonttype": 42,
    "pdf.compression": 6,
    "svg.fonttype": "none",
    "svg.hashsalt": "xr2ct",
    "image.interpolation": "none",
    "image.composite_image": False,
}


def pdf_and_svg(draw: Callable[[], Figure]) -> dict[str, bytes]:
    """Both files of the figure that `draw` makes, by suffix."""
    return {"pdf": _save(draw, "pdf", "CreationDate"), "svg": _save(draw, "svg", "Date")}


def figure_tag(draw: Callable[[], Figure], caption: str) -> str:
    """The figure and its caption, as HTML that stands inside a page."""
    svg = _save(draw, "svg", "Date").decode("utf-8")
    told = html.escape(caption)
    return f'<figure class="drawn">{svg[svg.index("<svg") :]}<figcaption>{told}</figcaption></figure>'


def _save(draw: Callable[[], Figure], suffix: str, date: str) -> bytes:
    out = io.BytesIO()
    with matplotlib.style.context(_SETTINGS, after_reset=True):
        draw().savefig(out, format=suffix, transparent=True, metadata={date: None})
    return out.getvalue()
