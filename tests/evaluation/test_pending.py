"""What is still to be scored: nothing twice, nothing torn, nothing that cannot be scored at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from xr2ct.errors import UserError, WorkFailed
from xr2ct.evaluation import pending as pending_module
from xr2ct.evaluation.pairs import Stores
from xr2ct.evaluation.pending import PendingPair, pending
from xr2ct.evaluation.results import read_results, result_file
from xr2ct.evaluation.sweep import evaluate
from xr2ct.run import Run
from xr2ct.store import Store, StoreError

METHODS = {"prior-mean", "prior-nearest", "truth"}
PAIRS = {("lctsc", "test"), ("lidc-idri", "test"), ("lidc-idri", "val")}

MakeRun = Callable[..., Run]


def told(run: Run) -> set[tuple[str, str, str]]:
    return {(p.source, p.cohort, p.split) for p in pending(run)}


def test_all_of_a_new_run_and_nothing_once_evaluated(make_run: MakeRun) -> None:
    run = make_run({0: 0.9, 500: 0.15})
    assert told(run) == {(s, *pair) for s in METHODS | {"step-000000", "step-000500"} for pair in PAIRS}
    evaluate(run, cohorts=["lctsc"])
    assert {pair[1] for pair in told(run)} == {"lidc-idri"}
    evaluate(run)
    assert pending(run) == []


def test_validation_first_then_the_order_of_training(make_run: MakeRun) -> None:
    run = make_run({1000: 0.2, 500: 0.15})
    found = pending(run)
    assert [p.split for p in found] == ["val"] * 5 + ["test"] * 10
    assert [p.step for p in found[:5]] == [None, None, None, 500, 1000]
    assert found[0].patients == 3


def test_agrees_with_what_evaluate_writes(make_run: MakeRun) -> None:
    run = make_run({0: 0.9, 500: 0.15})
    asked = {result_file(run, *pair) for pair in told(run)}
    assert set(evaluate(run).written) == asked


def test_a_checkpoint_that_is_not_whole_is_none(
    make_run: MakeRun, checkpoint_writer: Callable[..., None]
) -> None:
    run = make_run({0: 0.9})
    evaluate(run)
    checkpoint_writer(run, 500, 0.1)
    (run.checkpoint(500) / "COMPLETE").unlink()
    assert pending(run) == []
    (run.checkpoint(500) / "COMPLETE").touch()
    assert {p.source for p in pending(run)} == {"step-000500"}


def test_nothing_without_a_checkpoint(make_run: MakeRun) -> None:
    assert pending(make_run({})) == []


def test_a_torn_a_lost_and_a_stale_file_are_pending_again(make_run: MakeRun) -> None:
    run = make_run({0: 0.9, 500: 0.15})
    evaluate(run)
    assert pending(run) == []
    torn = result_file(run, "step-000000", "lctsc", "test")
    torn.write_text(torn.read_text()[:-20])
    result_file(run, "truth", "lidc-idri", "val").unlink()
    without_patients = result_file(run, "step-000500", "lidc-idri", "val")
    lines = [line.split(",") for line in without_patients.read_text().splitlines()]
    without_patients.write_text("".join(",".join([line[0], *line[2:]]) + "\n" for line in lines))
    assert told(run) == {
        ("step-000000", "lctsc", "test"),
        ("truth", "lidc-idri", "val"),
        ("step-000500", "lidc-idri", "val"),
    }
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace("weights: mapper", "weights: mapper-ema"))
    assert {p.source for p in pending(run)} == {"step-000000", "step-000500", "truth"}
    assert len(pending(run)) == 2 * 3 + 1


def test_other_volumes_make_everything_pending(
    make_run: MakeRun, store_writer: Callable[..., Store], tmp_path: Path
) -> None:
    store_writer(tmp_path, "lidc-idri", {"train": 2, "val": 1})
    run = make_run({500: 0.15}, stores=str(tmp_path))
    evaluate(run)
    assert pending(run) == []
    shutil.rmtree(tmp_path / "lidc-idri.zarr")
    store_writer(tmp_path, "lidc-idri", {"train": 2, "val": 1}, seed=7)
    assert len(pending(run)) == 4


def test_a_file_is_read_once_while_it_stays(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = pending_module.read_rows

    def counted(path: Path) -> object:
        read.append(path)
        return real(path)

    monkeypatch.setattr(pending_module, "read_rows", counted)
    run = make_run({0: 0.9})
    evaluate(run)
    assert pending(run) == [] and len(read) == 4 * 3
    assert pending(run) == [] and len(read) == 4 * 3
    file = result_file(run, "step-000000", "lctsc", "test")
    file.write_text(file.read_text()[:-1] + "\n")
    pending(run)
    assert read[12:] == [file]


def test_a_damaged_or_unwritable_memo_only_costs_time(make_run: MakeRun) -> None:
    run = make_run({0: 0.9})
    evaluate(run)
    pending(run)
    memo = run.evaluations / ".current.json"
    assert len(json.loads(memo.read_text())) == 12
    memo.write_text("{")
    assert pending(run) == []
    memo.unlink()
    memo.mkdir()
    assert pending(run) == []


def test_stores_are_opened_once_for_many_runs(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    real = Store.open

    def counted(path: Path) -> Store:
        opened.append(path)
        return real(path)

    runs = [make_run({0: 0.9}), make_run({0: 0.1})]
    monkeypatch.setattr(Store, "open", counted)
    stores = Stores()
    assert [len(pending(run, stores)) for run in runs] == [12, 12]
    found = [path.name for path in opened]
    assert found.count("lidc-idri.zarr") == found.count("lctsc.zarr") == 1


def test_without_any_store_it_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no store with a case to score"):
        pending(make_run({0: 0.9}, stores=str(tmp_path)))


def test_names(make_run: MakeRun) -> None:
    pair = PendingPair("step-000500", "ward-7.b", "test")
    assert (pair.step, pair.name) == (500, "step-000500-ward-7.b-test")
    assert PendingPair("prior-mean", "lctsc", "test").step is None
    assert read_results(make_run({})) == []


def test_a_damaged_store_leaves_the_others(make_run: MakeRun, stores: Path, tmp_path: Path) -> None:
    shutil.copytree(stores, tmp_path / "stores")
    run = make_run({0: 0.9}, stores=str(tmp_path / "stores"))
    next((tmp_path / "stores" / "lctsc.zarr" / "cases").glob("*.json")).unlink()
    with pytest.raises(StoreError, match=r"lctsc\.zarr"):
        pending(run)
    damaged: dict[str, str] = {}
    assert {p.cohort for p in pending(run, damaged=damaged)} == {"lidc-idri"}
    assert list(damaged) == ["lctsc"]
    with pytest.raises(WorkFailed, match=r"lctsc\.zarr"):
        evaluate(run)
    assert {r.cohort for r in read_results(run)} == {"lidc-idri"}
