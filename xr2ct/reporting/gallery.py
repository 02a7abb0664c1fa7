"""A grid of pictures under heads of columns, beside heads of rows."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from xr2ct.evaluation.results import csv_text
from xr2ct.reporting.exhibit import Exhibit, Source
from xr2ct.reporting.pictures import MAPS, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TILE_IN, _GAP_IN, _LINE_IN, _ROW_HEAD_IN = 1.3, 0.05, 0.125, 1.05
_FONT_PT = 7.5
_LETTERS_AN_INCH = 17
"""Of that size, at the most."""


@dataclass(frozen=True)
class Gallery(Exhibit):
    """Rows of pictures; a place may be empty."""

    kind = "gallery"
    name: str
    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    pictures: tuple[tuple[Picture | None, ...], ...]
    """(row, column)."""

    def source(self) -> Source:
        arrays, cells = {}, []
        for i, j, picture in self._places():
            key = f"r{i:03d}c{j:03d}"
            arrays[key] = picture.shares
            told = {
                "low": picture.low,
                "high": picture.high,
                "colours": picture.colours,
                "note": picture.note,
            }
            cells.append({"row": i, "column": j, "array": key, **told})
        heads = {"columns": list(self.columns), "rows": list(self.rows)}
        return {
            "name": self.name, "title": self.title, "caption": self.caption, **heads, "pictures": cells,
        }, arrays  # fmt: skip

    @classmethod
    def from_source(cls, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Gallery:
        grid: list[list[Picture | None]] = [[None] * len(values["columns"]) for _ in values["rows"]]
        for cell in values["pictures"]:
            told = (cell[key] for key in ("low", "high", "colours", "note"))
            grid[cell["row"]][cell["column"]] = Picture(arrays[cell["array"]], *told)
        heads = tuple(values["columns"]), tuple(values["rows"])
        return cls(values["name"], values["title"], values["caption"], *heads, tuple(map(tuple, grid)))

    def files(self) -> dict[str, bytes]:
        from xr2ct.reporting.drawing import pdf_and_svg

        return pdf_and_svg(self._draw) | {"csv": self._csv().encode()}

    def html(self) -> str:
        from xr2ct.reporting.drawing import figure_tag

        return figure_tag(self._draw, self.caption)

    def _places(self) -> list[tuple[int, int, Picture]]:
        return [(i, j, p) for i, row in enumerate(self.pictures) for j, p in enumerate(row) if p is not None]

    def _csv(self) -> str:
        """What each picture is: the pixels are in the source's arrays."""
        lines: list[Sequence[Any]] = [["row", "column", "note", "colours", "low", "high", "pixels"]]
        for i, j, p in self._places():
            size = "×".join(map(str, p.shares.shape))
            lines.append([self.rows[i], self.columns[j], p.note, p.colours, p.low, p.high, size])
        return csv_text(lines)

    def _draw(self) -> Figure:
        from matplotlib.figure import Figure

        heads = [_wrap(head, _TILE_IN) for head in self.columns]
        # A note's line stands under a row where any picture of it has one.
        notes = [_lines([_wrap(p.note, _TILE_IN) for p in row if p]) * _LINE_IN for row in self.pictures]
        top = _lines(heads) * _LINE_IN + 2 * _GAP_IN
        margin = _ROW_HEAD_IN if any(self.rows) else 0.0
        width = margin + len(self.columns) * (_TILE_IN + _GAP_IN)
        height = top + sum(notes) + len(self.rows) * (_TILE_IN + 2 * _GAP_IN)
        figure = Figure(figsize=(width, height))
        # One pair of axes for all, in inches from the top left corner: a pair for each takes seconds.
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        axes.set_axis_off()
        text = partial(axes.text, size=_FONT_PT)
        left = [margin + j * (_TILE_IN + _GAP_IN) for j in range(len(self.columns))]
        for x, head in zip(left, heads, strict=True):
            text(x + _TILE_IN / 2, top - _GAP_IN, head, ha="center", va="bottom")
        y = top
        for head, note_in, row in zip(self.rows, notes, self.pictures, strict=True):
            text(_GAP_IN, y + _TILE_IN / 2, _wrap(head, _ROW_HEAD_IN), ha="left", va="center")
            for x, picture in zip(left, row, strict=True):
                if picture is not None:
                    _draw_picture(axes, picture, x, y)
                    note = _wrap(picture.note, _TILE_IN)
                    text(x + _TILE_IN / 2, y + _TILE_IN + _GAP_IN / 2, note, ha="center", va="top")
            y += _TILE_IN + note_in + 2 * _GAP_IN
        return figure


def _draw_picture(axes: Axes, picture: Picture, x: float, y: float) -> None:
    """In the middle of the tile with its upper left corner at (x, y), pixels square."""
    rows, columns = (_TILE_IN * n / max(picture.shares.shape) for n in picture.shares.shape)
    x, y = x + (_TILE_IN - columns) / 2, y + (_TILE_IN - rows) / 2
    extent = (x, x + columns, y + rows, y)
    shares = picture.shares.astype(np.float32)
    axes.imshow(shares, cmap=MAPS[picture.colours], vmin=0, vmax=1, extent=extent, aspect="auto")


def _wrap(text: str, inches: float) -> str:
    return "\n".join(textwrap.wrap(text, round(inches * _LETTERS_AN_INCH), break_on_hyphens=True))


def _lines(texts: Sequence[str]) -> int:
    return max((text.count("\n") + 1 for text in texts if text), default=0)
