"""Lines and points with their spread, in one panel or several side by side."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from xr2ct.evaluation.results import csv_text
from xr2ct.reporting.exhibit import Exhibit, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
"""Okabe and Ito's, told apart without red and green."""
_LEVELS = ("--", ":", "-.")
_ACROSS = 3
"""Panels in a row."""
_LEGEND_PT, _HANDLE_IN, _LETTERS_AN_INCH = 7.5, 0.6, 16
"""Of the legend: its letters, what stands before and between its columns, and how many letters fit."""
_TICKS_APART = 0.07
"""Of the axis: labels nearer than this run into each other."""


@dataclass(frozen=True)
class Series:
    """Points of one name, in the order of `x`."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    """Lower ends of the spread, and upper ones; none where empty."""
    high: tuple[float, ...] = ()
    spread: Literal["bars", "band"] = "bars"
    marker: str | None = "o"
    """Matplotlib's letter; none for a bare line."""
    line: bool = True
    tone: str | None = None
    """Series of the same tone have the same colour; the label where unset."""
    light: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    xlabel: str
    ylabel: str
    series: tuple[Series, ...]
    levels: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Horizontal lines to compare with, by name."""
    log_x: bool = False
    ticks: tuple[float, ...] = ()
    """Where x is labelled; Matplotlib's choice where empty."""
    title: str = ""


@dataclass(frozen=True)
class Chart(Exhibit):
    """Panels under one legend."""

    kind = "chart"
    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]

    def source(self) -> Source:
        return dataclasses.asdict(self), {}

    @classmethod
    def from_source(cls, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Chart:
        panels = [
            Panel(**{**p, "ticks": tuple(p["ticks"]), "series": tuple(map(_series, p["series"]))})
            for p in values["panels"]
        ]
        return cls(values["name"], values["title"], values["caption"], tuple(panels))

    def files(self) -> dict[str, bytes]:
        from xr2ct.reporting.drawing import pdf_and_svg

        return pdf_and_svg(self._draw) | {"csv": self._csv().encode()}

    def html(self) -> str:
        from xr2ct.reporting.drawing import figure_tag

        return figure_tag(self._draw, self.caption)

    def _csv(self) -> str:
        lines: list[Sequence[Any]] = [["panel", "series", "x", "y", "low", "high"]]
        for panel in self.panels:
            name = panel.title or panel.ylabel
            for s in panel.series:
                for i, (x, y) in enumerate(zip(s.x, s.y, strict=True)):
                    ends = (s.low[i], s.high[i]) if s.low else (None, None)
                    lines.append([name, s.label, x, *["" if _absent(v) else v for v in (y, *ends)]])
            lines += [[name, label, "", level, "", ""] for label, level in panel.levels.items()]
        return csv_text(lines)

    def _draw(self) -> Figure:
        from matplotlib.figure import Figure

        across = 2 if len(self.panels) == 4 else min(len(self.panels), _ACROSS)
        down = math.ceil(len(self.panels) / across)
        width = 4.4 if across == 1 else 3.3 * across
        named, columns = self._legend(width)
        rows = [list(named.values())[i : i + columns] for i in range(0, len(named), columns)]
        lines = sum(max(text.count("\n") + 1 for text in row) for row in rows)
        legend_in = 0.16 * lines + 0.15 if len(named) > 1 else 0.0
        figure = Figure(figsize=(width, 2.6 * down + legend_in), layout="constrained")
        colours = self._colours()
        drawn: dict[str, Any] = {}
        for axes, panel in zip(figure.subplots(down, across, squeeze=False).flat, self.panels, strict=False):
            drawn = _draw_panel(axes, panel, colours) | drawn
        for axes in figure.axes[len(self.panels) :]:
            axes.set_axis_off()
        if len(named) > 1:
            figure.legend(
                [drawn[label] for label in named], list(named.values()), loc="outside lower center",
                ncols=columns, frameon=False, fontsize=_LEGEND_PT,
            )  # fmt: skip
        return figure

    def _legend(self, width: float) -> tuple[dict[str, str], int]:
        """Each label once with its text, and in how many columns they fit into `width` inches."""
        labels = [s.label for p in self.panels for s in p.series] + self._levels()
        longest = round((width - _HANDLE_IN) * _LETTERS_AN_INCH)
        named = {label: textwrap.fill(label, longest) for label in dict.fromkeys(labels) if label}
        widest = max((len(line) for text in named.values() for line in text.split("\n")), default=1)
        fitting = int(width // (_HANDLE_IN + widest / _LETTERS_AN_INCH))
        return named, max(1, min(len(named), fitting))

    def _levels(self) -> list[str]:
        return list(dict.fromkeys(label for p in self.panels for label in p.levels))

    def _colours(self) -> dict[str, Any]:
        """By tone the colour, by level the dashes: one of each over all panels."""
        tones = dict.fromkeys(_tone(s) for p in self.panels for s in p.series)
        dashes = {label: _LEVELS[i % len(_LEVELS)] for i, label in enumerate(self._levels())}
        return {tone: COLOURS[i % len(COLOURS)] for i, tone in enumerate(tones)} | dashes


def _draw_panel(axes: Axes, panel: Panel, colours: Mapping[str, Any]) -> dict[str, Any]:
    """Draw it; what stands for each label in a legend."""
    drawn: dict[str, Any] = {}
    for s in panel.series:
        style: dict[str, Any] = {
            "color": colours[_tone(s)],
            "alpha": 0.4 if s.light else 1.0,
            "marker": s.marker,
            "markersize": 8 if s.marker == "*" else 5,
            "linewidth": 1.4 if s.line else 0,
        }
        if s.low and s.spread == "bars":
            ends = np.abs(np.subtract([s.low, s.high], s.y))
            drawn[s.label] = axes.errorbar(s.x, s.y, ends, capsize=2.5, elinewidth=1, **style)
        else:
            (drawn[s.label],) = axes.plot(s.x, s.y, **style)
        if s.low and s.spread == "band":
            axes.fill_between(s.x, s.low, s.high, color=style["color"], alpha=0.15, linewidth=0)
    for label, level in panel.levels.items():
        drawn[label] = axes.axhline(level, linewidth=1, linestyle=colours[label], color="gray")
    if panel.log_x:
        axes.set_xscale("log")
    if panel.ticks:
        axes.set_xticks(panel.ticks, _tick_labels(panel))
        axes.minorticks_off()
    elif not panel.log_x and all(float(x).is_integer() for s in panel.series for x in s.x):
        axes.locator_params("x", integer=True)
    axes.set_xlabel(panel.xlabel)
    axes.set_ylabel(panel.ylabel)
    axes.set_title(panel.title, fontsize=9, loc="left")
    axes.grid(True)
    return drawn


def _tick_labels(panel: Panel) -> list[str]:
    """From the last backwards, without those that would run into the one before."""
    at = [math.log(tick) if panel.log_x else tick for tick in panel.ticks]
    apart = _TICKS_APART * (max(at) - min(at))
    labels, last = [""] * len(at), math.inf
    for i in sorted(range(len(at)), key=lambda i: -at[i]):
        if last - at[i] >= apart:
            labels[i], last = f"{panel.ticks[i]:g}", at[i]
    return labels


def _tone(series: Series) -> str:
    return series.label if series.tone is None else series.tone


def _absent(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _series(values: Mapping[str, Any]) -> Series:
    """What JSON holds of a series: lists, and None where a number was NaN."""
    numbers = {
        key: tuple(math.nan if v is None else v for v in values[key]) for key in ("x", "y", "low", "high")
    }
    return Series(**{**values, **numbers})
