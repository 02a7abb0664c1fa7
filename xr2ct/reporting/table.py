"""A table once, in the four forms it is wanted in."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Cell = str | float | int | None


@dataclass(frozen=True)
class Column:
    """What a column is called and how its numbers are printed."""

    key: str
    label: str
    format: str = ""
    """Of a number in every form but CSV, which keeps full precision: ``.2f``."""

    def text(self, row: Mapping[str, Cell]) -> str:
        value = row.get(self.key)
        if value is None:
            return "–"
        return format(value, self.format) if self.format and not isinstance(value, str) else str(value)


@dataclass(frozen=True)
class Table:
    """Rows under columns, with the caption that says how to read them."""

    name: str
    """File name without suffix."""
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[Mapping[str, Cell]]

    def markdown(self) -> str:
        head = [c.label for c in self.columns]
        cells = [head, *[[c.text(row) for c in self.columns] for row in self.rows]]
        widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
        lines = [
            "| " + " | ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)) + " |" for line in cells
        ]
        rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
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
        align = "".join("r" if c.format else "l" for c in self.columns)
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
        head = "".join(f"<th>{html.escape(c.label)}</th>" for c in self.columns)
        body = "".join(f"<tr{_row_class(row)}>{self._html_cells(row)}</tr>" for row in self.rows)
        return (
            f'<div class="scroll"><table><caption>{html.escape(self.caption)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def _html_cells(self, row: Mapping[str, Cell]) -> str:
        cells = []
        for column in self.columns:
            number = ' class="number"' if column.format else ""
            cells.append(f"<td{number}>{html.escape(column.text(row))}</td>")
        return "".join(cells)


def _row_class(row: Mapping[str, Any]) -> str:
    """Rows carry their kind (ours, prior, paper) for the page's style."""
    return f' class="{row["kind"]}"' if row.get("kind") else ""


_TEX = {
    "\\": r"\textbackslash{}", "±": r"$\pm$", "³": "$^3$", "–": "--", "°": r"$^\circ$", "×": r"$\times$",
    "−": "$-$", "θ": r"$\theta$", "≥": r"$\geq$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(sign, sign) for sign in text)
