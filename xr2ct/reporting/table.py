"""A table once, in the four forms it is wanted in."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from xr2ct.reporting.exhibit import Exhibit, Source

Cell = str | float | int | None


@dataclass(frozen=True)
class Column:
    """What a column is called and how its cells are printed."""

    key: str
    label: str
    format: str = ""
    """Of a number in every form but CSV, which keeps full precision: ``.2f``."""
    right: bool = False
    """Aligned at the right, as numbers are: for text made of numbers."""

    @property
    def numeric(self) -> bool:
        return self.right or bool(self.format)

    def text(self, row: Mapping[str, Cell]) -> str:
        value = row.get(self.key)
        if value is None:
            return "–"
        if not self.format or isinstance(value, str):
            return str(value)
        return minus(format(value, self.format))


@dataclass(frozen=True)
class Table(Exhibit):
    """Rows under columns, with the caption that says how to read them.

    A row's `kind` (ours, elsewhere, prior, truth, paper) is for the page's style and stands in no column.
    """

    kind: ClassVar[str] = "table"

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[Mapping[str, Cell]]

    def __post_init__(self) -> None:
        """A number that is none becomes a gap, an infinite one a sign: JSON has neither."""
        object.__setattr__(self, "rows", [{k: _plain(v) for k, v in row.items()} for row in self.rows])

    def source(self) -> Source:
        values = {
            "name": self.name,
            "title": self.title,
            "caption": self.caption,
            "columns": [asdict(column) for column in self.columns],
            "rows": [dict(row) for row in self.rows],
        }
        return values, {}

    @classmethod
    def from_source(cls, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Table:
        columns = tuple(Column(**column) for column in values["columns"])
        return cls(values["name"], values["title"], values["caption"], columns, values["rows"])

    def files(self) -> dict[str, bytes]:
        texts = {"md": self.markdown(), "csv": self.csv(), "tex": self.latex()}
        return {suffix: text.encode() for suffix, text in texts.items()}

    def markdown(self) -> str:
        head = [c.label for c in self.columns]
        cells = [head, *[[c.text(row) for c in self.columns] for row in self.rows]]
        widths = [max(3, *(len(line[i]) for line in cells)) for i in range(len(head))]
        rights = [c.numeric for c in self.columns]
        lines = [
            "| "
            + " | ".join(
                _bar_free(t).rjust(w) if right else _bar_free(t).ljust(w)
                for t, w, right in zip(line, widths, rights, strict=True)
            )
            + " |"
            for line in cells
        ]
        rules = ["-" * (w + 1) + (":" if right else "-") for w, right in zip(widths, rights, strict=True)]
        rule = "|" + "|".join(rules) + "|"
        return "\n".join([f"**{self.title}**", "", lines[0], rule, *lines[1:], "", self.caption, ""])

    def csv(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([c.key for c in self.columns])
        writer.writerows(
            [["" if row.get(c.key) is None else row[c.key] for c in self.columns] for row in self.rows]
        )
        return out.getvalue()

    def latex(self) -> str:
        align = "".join("r" if c.numeric else "l" for c in self.columns)
        lines = [
            r"\begin{table}",
            rf"\caption{{{_tex(self.title)}. {_tex(self.caption)}}}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\hline",
            " & ".join(_tex(c.label) for c in self.columns) + r" \\",
            r"\hline",
            *[" & ".join(_tex(c.text(row)) for c in self.columns) + r" \\" for row in self.rows],
            r"\hline",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        head = "".join(f"<th{_class(c)}>{html.escape(c.label)}</th>" for c in self.columns)
        body = "".join(f"<tr{_row_class(row)}>{self._html_cells(row)}</tr>" for row in self.rows)
        return (
            f'<div class="scroll"><table><caption>{html.escape(self.caption)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def _html_cells(self, row: Mapping[str, Cell]) -> str:
        return "".join(f"<td{_class(c)}>{html.escape(c.text(row))}</td>" for c in self.columns)


def minus(text: str) -> str:
    """A number's text with a minus that is one."""
    return text.replace("-", "−")


def _plain(value: Cell) -> Cell:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else ("∞" if value > 0 else "−∞")


def _class(column: Column) -> str:
    return ' class="number"' if column.numeric else ""


def _row_class(row: Mapping[str, Any]) -> str:
    return f' class="{row["kind"]}"' if row.get("kind") else ""


def _bar_free(text: str) -> str:
    """A bar would end the cell."""
    return text.replace("|", "¦")


_TEX = {
    "\\": r"\textbackslash{}", "±": r"$\pm$", "²": "$^2$", "³": "$^3$", "–": "--", "°": r"$^\circ$",
    "×": r"$\times$", "·": r"$\cdot$", "−": "$-$", "¹": "$^1$", "ⁿ": "$^n$", "⁻": "$^-$", "Δ": r"$\Delta$",
    "α": r"$\alpha$", "θ": r"$\theta$", "λ": r"$\lambda$", "σ": r"$\sigma$", "≥": r"$\geq$", "≤": r"$\leq$",
    "∞": r"$\infty$", "→": r"$\to$", "…": r"\ldots{}", "<": "$<$", ">": "$>$", "|": "$|$",
    '"': "''", "[": "{[}", "]": "{]}", "*": "{*}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(sign, sign) for sign in text)
