"""Rejected cases: read with line numbers, put in place whole, left out by `Store.open`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from xr2ct.errors import UserError
from xr2ct.inspection import format_summary, summary
from xr2ct.store import Store, layout, write
from xr2ct.store.check import damage
from xr2ct.store.exclude import install_exclude, read_exclude

SPLITS = {"A-1": "train", "A-2": "train", "B.7": "val", "C_9": "test"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of four cases."""
    store = tmp_path / "lidc-idri.zarr"
    write.lay_out(store, "lidc-idri", 320.0, 4, [16], [])
    visible = []
    for row, (case, split) in enumerate(SPLITS.items()):
        chunk = write.write_chunk(store, "ct/16", row, np.full((16,) * 3, row, np.int16))
        about = {"checksums": {"ct/16": chunk}, "body_outside_cube": 0.0, "outside_beam": {}}
        write.write_case(store, case, about)
        visible.append({"id": case, "patient": case, "split": split, "row": row})
    write.publish(store, visible, [16], [])
    return store


def listed(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "to exclude.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_as_spreadsheets_and_people_write_it(tmp_path: Path) -> None:
    text = '\ufeffcase,reason\r\nA-1,"upside down, ""again"""\r\n\r\nB.7,\r\nC_9\r\nÄ-2,"two\nlines"\r\n'
    assert read_exclude(listed(tmp_path, text)) == {
        "A-1": 'upside down, "again"',
        "B.7": "",
        "C_9": "",
        "Ä-2": "two\nlines",
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the header 'case,reason'"),
        ("patient,reason\nA-1,x\n", "the header 'case,reason'"),
        ('case,reason\nA-1,"two\nlines"\nA-2,blurred, cut\n', r"line 4: expected a case and a reason"),
        ("case,reason\nA-1,x\n,nobody\n", "line 3: expected a case"),
        ("case,reason\nA-1,x\nB.7,\nA-1,y\n", "line 4: case 'A-1' stands in line 2 already"),
        ('case,reason\nA-1,x\nB.7,"never closed\n', "line 3: not readable as CSV"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_exclude(listed(tmp_path, text))


def test_a_file_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.csv: cannot be read"):
        read_exclude(tmp_path / "nothing.csv")
    (tmp_path / "picture.csv").write_bytes(b"case,reason\n\xff\xfe\x00")
    with pytest.raises(UserError, match="not readable as CSV"):
        read_exclude(tmp_path / "picture.csv")


def test_an_excluded_case_is_gone_and_comes_back_with_its_line(folder: Path, tmp_path: Path) -> None:
    whole = Store.open(folder)
    assert whole.excluded == {}
    reasons = {"A-2": "cut, below", "C_9": ""}
    assert install_exclude(folder, listed(tmp_path, 'case,reason\nA-2,"cut, below"\nC_9,\n')) == reasons
    left = Store.open(folder)
    assert [c.id for c in left.cases] == ["A-1", "B.7"]
    assert (left.split("test"), left.excluded) == ([], reasons)
    assert left.checksum() != whole.checksum()
    np.testing.assert_array_equal(left.volume(left.cases[1], 16), np.full((16,) * 3, 2))
    told = summary(left)
    assert (told["cases"], told["excluded"]) == (2, 2)
    assert "excluded by exclude.csv: 2 more" in format_summary(told)

    every = Store.open(folder, excluded=True)
    assert (every.cases, every.excluded) == (whole.cases, reasons)
    assert every.checksum() == whole.checksum()

    file = layout.exclude_file(folder)
    file.write_text("".join(line for line in file.read_text().splitlines(True) if "C_9" not in line))
    assert [c.id for c in Store.open(folder).split("test")] == ["C_9"]
    install_exclude(folder, listed(tmp_path, "case,reason\n"))
    assert Store.open(folder).cases == whole.cases


def test_an_unknown_case_is_refused_and_nothing_changes(folder: Path, tmp_path: Path) -> None:
    install_exclude(folder, listed(tmp_path, "case,reason\nA-1,x\n"))
    wrong = listed(tmp_path, "case,reason\nA-1,x\nB7,y\n")
    with pytest.raises(
        UserError, match=re.escape(f"{wrong}, line 3: no case 'B7' in {folder}: did you mean 'B.7'")
    ):
        install_exclude(folder, wrong)
    assert Store.open(folder).excluded == {"A-1": "x"}
    layout.exclude_file(folder).write_text("case,reason\nA-1x,y\n")
    with pytest.raises(UserError, match=r"exclude\.csv, line 2: no case 'A-1x'"):
        Store.open(folder)


def test_nothing_left(folder: Path, tmp_path: Path) -> None:
    install_exclude(folder, listed(tmp_path, "case,reason\n" + "".join(f"{case},\n" for case in SPLITS)))
    with pytest.raises(UserError, match=r"each of its 4 cases is excluded by .*exclude\.csv"):
        Store.open(folder)
    assert len(Store.open(folder, excluded=True).cases) == 4


def test_chunks_of_excluded_cases_are_verified_too(folder: Path, tmp_path: Path) -> None:
    install_exclude(folder, listed(tmp_path, "case,reason\nA-2,x\n"))
    before = damage(folder)
    layout.chunk_file(folder, "ct/16", 1).unlink()
    (lost,) = set(damage(folder)) - set(before)
    assert "case A-2: its chunk of ct/16" in lost
