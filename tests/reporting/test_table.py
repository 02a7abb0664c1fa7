"""One table, four forms."""

from __future__ import annotations

import csv
import io

from xr2ct.reporting.table import Column, Table

TABLE = Table(
    name="t",
    title="Cohorts & methods",
    caption="PSNR at 64³, 95 % of patients_",
    columns=(Column("cohort", "Cohort"), Column("psnr", "PSNR dB", ".2f")),
    rows=[
        {"cohort": "lidc-idri", "psnr": 21.23456789, "kind": "ours"},
        {"cohort": "<lctsc> & co", "psnr": None, "kind": "paper"},
    ],
)


def test_markdown_lines_up() -> None:
    lines = TABLE.markdown().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    assert "| lidc-idri    | 21.23   |" in rows
    assert "–" in rows[-1]


def test_csv_keeps_every_digit_and_leaves_gaps_empty() -> None:
    rows = list(csv.DictReader(io.StringIO(TABLE.csv())))
    assert rows[0] == {"cohort": "lidc-idri", "psnr": "21.23456789"}
    assert rows[1]["psnr"] == ""


def test_latex_escapes_what_it_must() -> None:
    text = TABLE.latex()
    assert r"Cohorts \& methods" in text
    assert r"64$^3$, 95 \% of patients\_" in text
    assert r"lidc-idri & 21.23 \\" in text


def test_html_escapes_and_marks_rows() -> None:
    text = TABLE.html()
    assert "&lt;lctsc&gt; &amp; co" in text and "<lctsc>" not in text
    assert '<tr class="ours">' in text and '<tr class="paper">' in text
