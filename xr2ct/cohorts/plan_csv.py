"""PLAN.csv as text: written by us, read as a spreadsheet program may have saved it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from xr2ct.cohorts.choice import Take
from xr2ct.errors import UserError, nearest
from xr2ct.run import write_atomically

KEY = ("patient", "study", "series")
TAKES: tuple[Take, ...] = ("yes", "spare", "no")
COLUMNS = (
    *KEY,
    "modality",
    "kernel",
    "contrast",
    "thickness_mm",
    "spacing_mm",
    "slices",
    "lung_coverage",
    "take",
    "reason",
)
"""`spacing_mm` is z×y×x; `contrast` yes, no or empty; what is not known is empty."""

Cells = tuple[str, str, str]
"""Patient, study and series as they stand in the file."""


def write(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """The header and these rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([printable(cell) for cell in row] for row in rows)
    write_atomically(path, text.getvalue())


def read(path: Path) -> list[tuple[int, Cells, Take]]:
    """(line number, key, take) of every row; other columns, and the order of all, do not matter.

    UTF-8 with or without a mark, UTF-16 with one, or Windows' Western code page; commas, semicolons or tabs.
    Raises `UserError` for a column that is missing and an unknown take.
    """
    text = _text(path)
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
        for name in (*KEY, "take"):
            if name not in columns:
                raise UserError(f"{path}: no column {name!r}; expected {', '.join(COLUMNS)}")
        rows = []
        for row in reader:
            patient, study, series, take = ((row[columns[name]] or "").strip() for name in (*KEY, "take"))
            if not (patient or study or series):
                continue  # spreadsheets leave empty rows at the end
            known = next((one for one in TAKES if one == take.lower()), None)
            if known is None:
                raise UserError(
                    f"{path}, line {reader.line_num}: unknown take {take!r}: {nearest(take.lower(), TAKES)}"
                )
            rows.append((reader.line_num, (patient, study, series), known))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not readable as CSV ({error})") from error
    return rows


def printable(text: str) -> str:
    """What UTF-8 can say, on one line, without spaces at its ends: what is read back is stripped."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0").split())


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the plan cannot be read ({error.strerror})") from error
    encodings = ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError(f"{path}: the plan is no text (expected a CSV in UTF-8)")
