"""STORE/exclude.csv: cases that a person rejected. Their chunks stay; `Store.open` leaves them out.

Columns `case` and `reason`. Removing a line, or the file, brings the case back.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Collection, Iterator
from pathlib import Path

from xr2ct.errors import UserError
from xr2ct.run import write_atomically
from xr2ct.store import layout

COLUMNS = ["case", "reason"]


def read_exclude(path: Path) -> dict[str, str]:
    """Case → reason from a CSV with the header `case,reason`; a reason may be empty.

    Raises `UserError` with the line: another header, a line without a case or with more columns, a case
    twice.
    """
    return {case: reason for case, (reason, _) in _read(path).items()}


def install_exclude(store: Path, file: Path) -> dict[str, str]:
    """Put `file` in place as STORE/exclude.csv, instead of the one there, and return what it says.

    An empty list (the header alone) brings every case back. Raises `UserError` where `file` is not as
    `read_exclude` wants it, or names a case that the store has not; the store is then left as it was.
    """
    visible = [c["id"] for c in layout.group_attributes(store)["cases"]]
    reasons = _checked(file, visible, store)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([COLUMNS, *reasons.items()])
    write_atomically(layout.exclude_file(store), out.getvalue())
    return reasons


def installed_exclude(store: Path, visible: Collection[str]) -> dict[str, str]:
    """What STORE/exclude.csv says, nothing where there is none; `UserError` as in `install_exclude`."""
    file = layout.exclude_file(store)
    return _checked(file, visible, store) if file.is_file() else {}


def _checked(file: Path, visible: Collection[str], store: Path) -> dict[str, str]:
    """The cases of a file, all of them in the store: after a slip of the pen a rejected one would train."""
    known = set(visible)
    excluded = _read(file)
    for case, (_, line) in excluded.items():
        if case not in known:
            near = difflib.get_close_matches(case, sorted(known), n=1, cutoff=0.0)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{file}, line {line}: no case {case!r} in {store}{hint}")
    return {case: reason for case, (reason, _) in excluded.items()}


def _read(path: Path) -> dict[str, tuple[str, int]]:
    """Case → reason and line."""
    records = _records(path)
    if [cell.strip() for cell in next(records, (0, []))[1]] != COLUMNS:
        raise UserError(f"{path}: expected a CSV with the header 'case,reason' and a line for each case")
    found: dict[str, tuple[str, int]] = {}
    for line, cells in records:
        case, reason = (cell.strip() for cell in (*cells, "")[:2])
        if not case or len(cells) > 2:
            raise UserError(
                f'{path}, line {line}: expected a case and a reason (in "…" where it has a comma), '
                f"got {','.join(cells)!r}"
            )
        if case in found:
            raise UserError(f"{path}, line {line}: case {case!r} stands in line {found[case][1]} already")
        found[case] = (reason, line)
    return found


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Records that are not empty, each with the line that it begins in."""
    line = 1
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                if cells:
                    yield line, cells
                line = reader.line_num + 1
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}, line {line}: not readable as CSV ({error})") from None
