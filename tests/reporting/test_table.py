"""One table, four forms."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

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
    assert "| lidc-idri    |   21.23 |" in rows
    assert rows[1] == "|--------------|--------:|"
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


def test_its_source_alone_makes_it_again() -> None:
    values, arrays = TABLE.source()
    again = Table.from_source(json.loads(json.dumps(values, allow_nan=False)), arrays)
    assert again.files() == TABLE.files() and again.html() == TABLE.html()
    assert set(TABLE.files()) == {"md", "csv", "tex"} and TABLE.files()["csv"].decode() == TABLE.csv()


def test_a_number_that_is_none_is_a_gap_and_an_infinite_one_a_sign() -> None:
    rows = [{"cohort": "a", "psnr": math.nan}, {"cohort": "b", "psnr": math.inf}]
    table = replace(TABLE, rows=rows)
    assert [line.split(",")[1] for line in table.csv().splitlines()[1:]] == ["", "∞"]
    assert [TABLE.columns[1].text(row) for row in table.rows] == ["–", "∞"]
    assert r"b & $\infty$ \\" in table.latex()


def test_no_text_ends_a_cell_early() -> None:
    table = replace(TABLE, rows=[{"cohort": "a|b", "psnr": 1.0}])
    assert table.markdown().splitlines()[4].count("|") == 3
    assert "a$|$b" in table.latex()


def test_signs_of_numbers() -> None:
    table = replace(TABLE, rows=[{"cohort": "[x-ray]", "psnr": -1.5}])
    assert "| [x-ray] |   −1.50 |" in table.markdown()
    assert r"{[}x-ray{]} & $-$1.50 \\" in table.latex(), "a bracket after \\\\ would be its argument"
    assert "-1.5" in table.csv()


def test_html_escapes_and_marks_rows() -> None:
    text = TABLE.html()
    assert "&lt;lctsc&gt; &amp; co" in text and "<lctsc>" not in text
    assert '<tr class="ours">' in text and '<tr class="paper">' in text
