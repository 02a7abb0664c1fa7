"""The leaderboard and `best`, from files alone."""

from __future__ import annotations

import csv
import json
import multiprocessing
from pathlib import Path

import pytest

from xr2ct.evaluation.leaderboard import (
    choose_best,
    format_leaderboard,
    leaderboard_file,
    read_leaderboard,
    rebuild_leaderboard,
)
from xr2ct.evaluation.results import COLUMNS, commit_rows, read_results, read_rows, result_file
from xr2ct.run import Run, step_name

CASES = ["a", "b"]


def rows(psnr: float, cases: list[str] = CASES) -> list[dict[str, object]]:
    """Patients one decibel on each side of a mean."""
    told = {"views": "90+0", "scaling": "window", "weights": "mapper", "store": "abc"}
    return [
        {"case": case, "patient": case, **told, "honest/psnr": psnr + 2 * (i % 2) - 1, "honest/mse": 0.01}
        for i, case in enumerate(cases)
    ]


def put(run: Run, source: str, psnr: float, split: str = "val", cases: list[str] = CASES) -> None:
    commit_rows(result_file(run, source, "lidc-idri", split), rows(psnr, cases))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Three whole checkpoints."""
    run = Run(tmp_path)
    for step in (0, 500, 1000):
        run.checkpoint(step).mkdir(parents=True)
        (run.checkpoint(step) / "COMPLETE").touch()
    return run


def test_rows_come_back_as_written(run: Run) -> None:
    file = result_file(run, "step-000500", "lidc-idri", "val")
    commit_rows(file, rows(20))
    (back, _) = read_rows(file) or []
    assert back["case"] == "a" and back["views"] == "90+0" and back["honest/psnr"] == 19
    assert back["psct/psnr"] != back["psct/psnr"]
    (result,) = read_results(run)
    assert (result.step, result.views, result.mean("honest/psnr")) == (500, (90.0, 0.0), 20)
    assert result.column("psct/psnr") == []


def test_a_file_of_before_patients_were_named_is_read(run: Run) -> None:
    put(run, "step-000500", 20)
    file = result_file(run, "step-000500", "lidc-idri", "val")
    with file.open(newline="") as opened:
        lines = [[line[0], *line[2:]] for line in csv.reader(opened)]
    file.write_text("".join(",".join(line) + "\n" for line in lines))
    assert "patient" not in file.read_text().splitlines()[0]
    (result,) = read_results(run)
    assert result.mean("honest/psnr") == 20 and [row["patient"] for row in result.rows] == ["", ""]
    assert result.patients == {"a": "a", "b": "b"}, "each case counts as somebody of their own"


def test_patients_are_counted_not_their_scans(run: Run) -> None:
    scans = [{**row, "patient": "p"} for row in rows(20)]
    commit_rows(result_file(run, "step-000500", "lidc-idri", "val"), scans)
    rebuild_leaderboard(run)
    assert read_leaderboard(run)[0]["patients"] == 1


@pytest.mark.parametrize(
    "harm", [lambda t: t[:-10], lambda t: t.replace("honest/ssim", "ssim"), lambda t: ""]
)
def test_a_file_that_is_not_whole_counts_as_absent(run: Run, harm) -> None:
    put(run, "step-000500", 20)
    file = result_file(run, "step-000500", "lidc-idri", "val")
    file.write_text(harm(file.read_text()))
    assert read_rows(file) is None
    assert read_results(run) == []


def test_leaderboard_is_rebuilt_from_the_files(run: Run) -> None:
    put(run, "step-001000", 21)
    put(run, "step-000500", 20)
    put(run, "prior-mean", 18)
    put(run, "step-000500", 10, split="test")
    rebuild_leaderboard(run)
    board = read_leaderboard(run)
    assert [(r["step"], r["split"], r["honest/psnr"]) for r in board] == [
        (500, "test", 10),
        (500, "val", 20),
        (1000, "val", 21),
        ("prior-mean", "val", 18),
    ]
    assert board[0]["patients"] == 2 and board[0]["psct/psnr"] is None and board[0]["scaling"] == "window"
    json.dumps(board, allow_nan=False)
    assert "prior-mean" in format_leaderboard(board)

    result_file(run, "step-000500", "lidc-idri", "test").unlink()
    rebuild_leaderboard(run)
    assert len(read_leaderboard(run)) == 3
    with leaderboard_file(run).open() as file:
        assert set(COLUMNS) <= set(next(csv.reader(file)))


def test_best_is_the_highest_validation_mean_and_no_test_set(run: Run) -> None:
    put(run, "step-000000", 15)
    put(run, "step-000500", 20)
    put(run, "step-001000", 19)
    put(run, "step-001000", 99, split="test")
    put(run, "prior-mean", 50)
    assert choose_best(run, "lidc-idri", CASES) == 500
    assert run.best.readlink() == Path("checkpoints/step-000500")
    assert run.best_step() == 500


def test_the_earliest_of_equals_wins(run: Run) -> None:
    put(run, "step-001000", 20)
    put(run, "step-000500", 20)
    assert choose_best(run, "lidc-idri", CASES) == 500


def test_best_needs_every_case_and_a_whole_checkpoint(run: Run) -> None:
    put(run, "step-000000", 15)
    put(run, "step-000500", 20, cases=["a"])
    put(run, "step-001000", 30)
    (run.checkpoint(1000) / "COMPLETE").unlink()
    assert choose_best(run, "lidc-idri", CASES) == 0
    assert choose_best(run, "lidc-idri", [*CASES, "c"]) is None
    assert run.best_step() == 0


def evaluator(path: Path, first: int) -> None:
    run = Run(path)
    for step in range(first, 40, 4):
        put(run, step_name(step), 10 + (step * 7) % 40)
        rebuild_leaderboard(run)
        choose_best(run, "lidc-idri", CASES)


def test_many_evaluators_at_once_end_with_everything_counted(run: Run) -> None:
    for step in range(40):
        run.checkpoint(step).mkdir(parents=True, exist_ok=True)
        (run.checkpoint(step) / "COMPLETE").touch()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=evaluator, args=(run.path, first)) for first in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    board = read_leaderboard(run)
    assert [r["step"] for r in board] == list(range(40))
    assert run.best_step() == max(range(40), key=lambda step: (10 + (step * 7) % 40, -step))
    assert not list(run.path.rglob(".*")), "a temporary file is left"
