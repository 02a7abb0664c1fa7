"""Committed once: however many processes compute the same, one file, and the first wins."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path

import pytest

from xr2ct.errors import WorkFailed
from xr2ct.evaluation.once import create, remove_if
from xr2ct.evaluation.results import Row, commit_rows, read_rows

ABOUT = {"views": "90+0", "scaling": "window", "weights": "mapper", "store": "new"}
FORK = multiprocessing.get_context("fork")


def rows(psnr: float, store: str = "new") -> list[Row]:
    return [{"case": "a", "patient": "a", **ABOUT, "store": store, "honest/psnr": psnr}]


def current(there: object) -> bool:
    return there[0]["store"] == "new"  # type: ignore[index]


def psnr(path: Path) -> float:
    found = read_rows(path)
    assert found is not None
    return float(found[0]["honest/psnr"])


def test_the_first_wins_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "evaluations" / "lctsc-test.csv"
    assert commit_rows(path, rows(1, store="old"), current)
    assert commit_rows(path, rows(2), current)
    assert not commit_rows(path, rows(3), current)
    assert psnr(path) == 2
    path.write_text(path.read_text()[:-5])
    assert commit_rows(path, rows(4), current)
    assert psnr(path) == 4
    assert commit_rows(path, rows(5)), "predictions from elsewhere are always replaced"
    assert psnr(path) == 5
    assert [p.name for p in path.parent.iterdir()] == [path.name], "no temporary file stays"


def _commit(path: Path, value: float, start: object, won: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    if commit_rows(path, rows(value), current):
        won.put(value)  # type: ignore[attr-defined]


@pytest.mark.parametrize("there", ["nothing", "a stale file", "a torn file"])
def test_of_many_processes_at_once_one_commits(tmp_path: Path, there: str) -> None:
    for attempt in range(5):
        path = tmp_path / f"{attempt}.csv"
        if there != "nothing":
            commit_rows(path, rows(0, store="old"))
        if there == "a torn file":
            path.write_text(path.read_text()[:-5])
        start, won = FORK.Barrier(4), FORK.Queue()
        processes = [FORK.Process(target=_commit, args=(path, v, start, won)) for v in (1, 2, 3, 4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [p.exitcode for p in processes] == [0] * 4
        winners = [won.get(timeout=10)]
        while not won.empty():
            winners.append(won.get())
        assert winners == [psnr(path)]
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_successor_is_not_taken_away(tmp_path: Path) -> None:
    """What was unwanted when looked at may be another's by the time it is taken."""
    path = tmp_path / "claim"
    path.write_text("dead")

    def unwanted(file: Path) -> bool:
        was_dead = file.read_text() == "dead"
        if file == path:
            path.write_text("alive")
        return was_dead

    assert not remove_if(path, unwanted)
    assert path.read_text() == "alive"
    path.write_text("dead")
    assert remove_if(path, lambda file: file.read_text() == "dead")
    assert not remove_if(path, lambda file: True)
    assert list(tmp_path.iterdir()) == []


def test_a_lost_answer_of_a_network_file_system_is_still_a_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def answered_twice(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(errno.EEXIST, "sent again")

    monkeypatch.setattr(os, "link", answered_twice)
    assert create(tmp_path / "file", "mine")


def test_a_file_system_without_links_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(WorkFailed, match="makes no hard links"):
        create(tmp_path / "file", "mine")
    assert list(tmp_path.iterdir()) == []


def test_one_taken_away_in_the_moment_it_was_in_the_way_is_no_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_the_way(source: Path, target: Path) -> None:
        raise FileExistsError(errno.EEXIST, "and gone by now")

    monkeypatch.setattr(os, "link", in_the_way)
    assert not create(tmp_path / "file", "mine")
