"""Volumes, X-rays and curves as pictures that live inside a page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

DISPLAY_HU = (-1000.0, 400.0)
"""Window of the grey planes: lung and soft tissue at once."""
DIFFERENCE_HU = 500.0
"""Largest difference that has a colour of its own."""

matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "xr2ct", "font.size": 9})


def planes(volume: np.ndarray) -> dict[str, np.ndarray]:
    """The three middle planes of a volume (z, y, x) as a radiologist hangs them.

    Axial: front at the top, the patient's right on the left. Coronal and sagittal: head at the top; the
    sagittal plane has the front on the left.
    """
    z, y, x = (n // 2 for n in volume.shape)
    return {"axial": volume[z], "coronal": volume[::-1, y], "sagittal": volume[::-1, :, x]}


def grey(picture: np.ndarray, low: float, high: float) -> str:
    """A data URI of a picture in grey levels."""
    return _png(picture, "gray", low, high)


def signed(picture: np.ndarray, limit: float) -> str:
    """A data URI of a picture of differences: blue below zero, red above, white at it."""
    return _png(picture, "RdBu_r", -limit, limit)


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    ylabel: str,
    *,
    xlabel: str = "outer step",
    horizontal: Mapping[str, float] | None = None,
    marker: str | None = None,
) -> str:
    """An SVG of named lines (x, y); `horizontal` draws levels to compare them with."""
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    for name, (x, y) in series.items():
        axes.plot(x, y, label=name, linewidth=1.4, marker=marker, markersize=4)
    for i, (name, level) in enumerate((horizontal or {}).items()):
        axes.axhline(level, label=name, linewidth=1, linestyle=("--", ":", "-.")[i % 3], color="gray")
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(series) + len(horizontal or {}) > 1:
        axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def figure_tag(source: str, caption: str) -> str:
    """An image with its caption, as HTML."""
    told = html.escape(caption)
    return f'<figure><img src="{source}" alt="{told}"><figcaption>{told}</figcaption></figure>'


def _png(picture: np.ndarray, colours: str, low: float, high: float) -> str:
    from matplotlib.image import imsave

    out = io.BytesIO()
    imsave(out, np.asarray(picture, dtype=np.float32), cmap=colours, vmin=low, vmax=high, format="png")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
