"""Checkpoints × cohorts on small stores: what is written, what is computed again, what is refused."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from xr2ct.errors import UserError, WorkFailed
from xr2ct.evaluation import sweep as sweep_module
from xr2ct.evaluation.leaderboard import read_leaderboard
from xr2ct.evaluation.pairs import Pair
from xr2ct.evaluation.results import Row, read_results, read_rows, result_file
from xr2ct.evaluation.scoring import TRUTH, Prediction, score_pair, the_truth
from xr2ct.evaluation.sweep import Sweep, evaluate
from xr2ct.evaluation.truth import Truth
from xr2ct.methods.base import Batch
from xr2ct.projection.geometry import Geometry
from xr2ct.reporting.study import order
from xr2ct.run import Run
from xr2ct.store import Store, layout
from xr2ct.window import HuWindow

SIZE = 32
PAIRS = [("lctsc", "test"), ("lidc-idri", "test"), ("lidc-idri", "val")]
METHODS = {"prior-mean", "prior-nearest", "truth"}

MakeRun = Callable[..., Run]
MakeStore = Callable[..., Store]


def truth(stores: Path, cohort: str, case: str) -> np.ndarray:
    store = Store.open(stores / f"{cohort}.zarr")
    (found,) = [c for c in store.cases if c.id == case]
    return store.volume(found, SIZE).astype(float)


def rows(run: Run, source: str, cohort: str = "lidc-idri", split: str = "val") -> list[Row]:
    found = read_rows(result_file(run, source, cohort, split))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def evaluated(make_run: MakeRun) -> tuple[Run, Sweep]:
    """A run of three checkpoints, everything scored; read only."""
    run = make_run({0: 0.9, 500: 0.15, 1000: 0.5})
    return run, evaluate(run)


def test_every_checkpoint_and_prior_on_every_split(evaluated: tuple[Run, Sweep]) -> None:
    run, done = evaluated
    results = read_results(run)
    assert len(done.written) == len(results) == 3 * (3 + 3)
    assert {(r.cohort, r.split) for r in results} == set(PAIRS)
    assert {r.source for r in results} == METHODS | {"step-000000", "step-000500", "step-001000"}
    assert set(done.missing) == {
        "covid-19-ny-sbu",
        "spie-aapm",
        "midrc-ricord-1b",
        "anti-pd-1",
        "nsclc-radiomics",
    }
    assert [row["case"] for row in rows(run, "step-000500")] == [f"lidc-idri-val{i}" for i in range(3)]
    assert done.best == 500 == run.best_step()
    assert len(read_leaderboard(run)) == len(results)


def test_scores_are_of_the_checkpoint_against_the_store(evaluated: tuple[Run, Sweep], stores: Path) -> None:
    run, _ = evaluated
    for row in rows(run, "step-000500", "lctsc", "test"):
        unit = HuWindow().to_unit(truth(stores, "lctsc", row["case"]))
        assert row["honest/mse"] == pytest.approx(np.mean((0.15 - unit) ** 2), rel=1e-5)
        assert row["honest/mae_hu"] == pytest.approx(2500 * np.mean(abs(0.15 - unit)), rel=1e-5)
        assert (row["views"], row["scaling"], row["weights"]) == ("90+0", "window", "mapper")
        lungs = row["honest_lungs/mae_hu"]
        assert lungs == pytest.approx(abs(0.15 * 2500 - 1024 + 820), abs=60), "the lungs are at -820 HU"


def test_truth_is_the_floor_of_the_reprojection_error(evaluated: tuple[Run, Sweep]) -> None:
    run, _ = evaluated
    for cohort, split in PAIRS:
        floor = rows(run, "truth", cohort, split)
        for source in ("prior-mean", "prior-nearest", "step-000500"):
            for low, row in zip(floor, rows(run, source, cohort, split), strict=True):
                assert 0 < low["reprojection/relative_l2"] < 0.1
                assert low["reprojection/relative_l2"] < row["reprojection/relative_l2"]
                assert low["reprojection/mae"] < row["reprojection/mae"]
    assert all(math.isnan(row["honest/psnr"]) for row in floor)


def test_mean_prior_is_the_mean_of_the_training_split(evaluated: tuple[Run, Sweep], stores: Path) -> None:
    run, _ = evaluated
    train = [HuWindow().to_unit(truth(stores, "lidc-idri", f"lidc-idri-train{i}")) for i in range(4)]
    for row in rows(run, "prior-mean", split="test"):
        unit = HuWindow().to_unit(truth(stores, "lidc-idri", row["case"]))
        assert row["honest/mse"] == pytest.approx(np.mean((np.mean(train, axis=0) - unit) ** 2), rel=1e-4)
        assert row["weights"] == ""


def test_priors_know_only_the_cases_trained_on(make_run: MakeRun, stores: Path) -> None:
    run = make_run({500: 0.15}, train_cases=1)
    evaluate(run)
    for mean, nearest in zip(rows(run, "prior-mean"), rows(run, "prior-nearest"), strict=True):
        assert mean["honest/psnr"] == pytest.approx(nearest["honest/psnr"], abs=1e-4)


def test_again_computes_only_what_is_missing(
    make_run: MakeRun, checkpoint_writer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = sweep_module.load_stages

    def counted(checkpoint: Path, *rest: object) -> object:
        loads.append(checkpoint.name)
        return load(checkpoint, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sweep_module, "load_stages", counted)
    run = make_run({0: 0.9, 500: 0.15})
    evaluate(run)
    assert loads == ["step-000000", "step-000500"], "one load a checkpoint, whatever the number of cohorts"
    assert evaluate(run).written == []

    gone = result_file(run, "step-000500", "lctsc", "test")
    torn = result_file(run, "prior-mean", "lidc-idri", "val")
    gone.unlink()
    torn.write_text(torn.read_text()[:-20])
    assert set(evaluate(run).written) == {gone, torn}
    checkpoint_writer(run, 1000, 0.2)
    assert {file.parent.name for file in evaluate(run).written} == {"step-001000"}
    assert loads == ["step-000000", "step-000500", "step-000500", "step-001000"]


def test_scores_of_other_volumes_or_weights_are_not_kept(
    make_run: MakeRun, store_writer: Callable[..., Store], tmp_path: Path
) -> None:
    folder = tmp_path / "stores"
    store_writer(folder, "lidc-idri", {"train": 2, "val": 1})
    run = make_run({500: 0.15}, stores=str(folder))
    evaluate(run)
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace("weights: mapper", "weights: mapper-ema"))
    assert [file.parent.name for file in evaluate(run).written] == ["step-000500"]
    shutil.rmtree(folder)
    store_writer(folder, "lidc-idri", {"train": 2, "val": 1}, seed=7)
    assert len(evaluate(run).written) == 4


def test_steps_are_chosen_by_name_or_number(make_run: MakeRun) -> None:
    run = make_run({0: 0.9, 500: 0.15, 1000: 0.3})
    with pytest.raises(UserError, match="no best checkpoint yet"):
        evaluate(run, "best")
    evaluate(run, "500", ["lidc-idri"])
    assert run.best_step() == 500
    assert {r.source for r in read_results(run)} == METHODS | {"step-000500"}
    evaluate(run, "last", ["lctsc"])
    assert {r.cohort for r in read_results(run) if r.step == 1000} == {"lctsc"}
    assert run.best_step() == 500
    assert evaluate(run, "best", ["lidc-idri"]).written == []
    with pytest.raises(UserError, match="no checkpoint of step '7'; valid: best, last, all, 0, 500, 1000"):
        evaluate(run, "7")
    with pytest.raises(UserError, match="no whole checkpoint"):
        evaluate(make_run({}))


def test_a_cohort_that_is_not_there_is_refused_only_if_asked_for(
    make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run({500: 0.15})
    with pytest.raises(UserError, match=r"spie-aapm\.zarr"):
        evaluate(run, cohorts=["spie-aapm"])
    with pytest.raises(UserError, match="did you mean 'lctsc'"):
        evaluate(run, cohorts=["lctcs"])
    assert read_results(run) == []
    with caplog.at_level(logging.WARNING):
        evaluate(run)
    assert "spie-aapm left out" in caplog.text


def test_excluded_cases_are_not_scored(make_run: MakeRun, stores: Path, tmp_path: Path) -> None:
    """What was scored with them is scored again."""
    shutil.copytree(stores, tmp_path / "stores")
    run = make_run({0: 0.5}, stores=str(tmp_path / "stores"))
    before = len(evaluate(run).written)
    for cohort, case in (("lidc-idri", "lidc-idri-val1"), ("lctsc", "lctsc-test0")):
        file = layout.exclude_file(tmp_path / "stores" / f"{cohort}.zarr")
        file.write_text(f"case,reason\n{case},cut\n")
    assert len(evaluate(run).written) == before
    assert [row["case"] for row in rows(run, "step-000000")] == ["lidc-idri-val0", "lidc-idri-val2"]
    assert [row["case"] for row in rows(run, "step-000000", "lctsc", "test")] == ["lctsc-test1"]


def test_stores_other_than_trained_for_are_refused(
    make_run: MakeRun, store_writer: Callable[..., Store], tmp_path: Path
) -> None:
    store_writer(tmp_path, "lidc-idri", {"val": 1}, geometry=Geometry("x2ct", 541, 949, 500, 32))
    run = make_run({500: 0.15}, stores=str(tmp_path))
    with pytest.raises(UserError, match="pixels 32, but the run was trained with 64"):
        evaluate(run, cohorts=["lidc-idri"])


def test_weights_that_are_no_numbers_fail_by_name_and_the_rest_is_done(make_run: MakeRun) -> None:
    run = make_run({0: 0.2, 500: math.nan, 1000: 0.15})
    with pytest.raises(WorkFailed, match=r"lidc-idri val, step-000500: .*: backbone.bias has values that"):
        evaluate(run)
    assert {r.source for r in read_results(run)} == METHODS | {"step-000000", "step-001000"}
    assert run.best_step() == 1000


def test_a_reconstruction_that_is_no_number_fails_by_case_alone(make_run: MakeRun, stores: Path) -> None:
    experiment = make_run({}).experiment()
    store = Store.open(stores / "lidc-idri.zarr")
    pair = Pair(store, "val", store.split("val"))

    def broken(batch: Batch, truths: Sequence[Truth]) -> Prediction:
        return Prediction(
            torch.where(torch.arange(len(batch.ct)).view(-1, 1, 1, 1, 1) == 1, math.nan, batch.ct)
        )

    labels: dict[str, dict[str, str]] = {"broken": {}, TRUTH: {}}
    predictors = {"broken": broken, TRUTH: the_truth}
    rows, failures = score_pair(pair, predictors, labels, experiment, torch.device("cpu"))
    assert set(rows) == {TRUTH} and len(rows[TRUTH]) == 3
    assert failures == {
        "broken": "lidc-idri val, broken: case lidc-idri-val1: the reconstruction is not finite"
    }


def test_a_damaged_checkpoint_or_chunk_fails_by_name_and_the_rest_is_done(
    make_run: MakeRun, stores: Path, tmp_path: Path
) -> None:
    shutil.copytree(stores, tmp_path / "stores")
    run = make_run({0: 0.2, 500: 0.15}, stores=str(tmp_path / "stores"))
    (run.checkpoint(0) / "mapper.safetensors").write_bytes(b"torn")
    lctsc = Store.open(tmp_path / "stores" / "lctsc.zarr")
    (case,) = [c for c in lctsc.cases if c.id == "lctsc-test1"]
    chunk = layout.chunk_file(lctsc.path, f"ct/{SIZE}", case.row)
    chunk.write_bytes(bytes(1) + chunk.read_bytes()[1:])
    with pytest.raises(WorkFailed) as failure:
        evaluate(run)
    assert "lctsc-test1" in str(failure.value) and "mapper.safetensors" in str(failure.value)
    assert {(r.cohort, r.split) for r in read_results(run)} == {("lidc-idri", "test"), ("lidc-idri", "val")}
    assert {r.source for r in read_results(run)} == METHODS | {"step-000500"}


def test_minmax_scores_are_on_each_volumes_own_range_and_say_so(make_run: MakeRun, stores: Path) -> None:
    run = make_run({500: 0.3}, scaling="minmax")
    evaluate(run)
    for row in rows(run, "step-000500"):
        hu = truth(stores, "lidc-idri", row["case"])
        unit = (hu - hu.min()) / np.ptp(hu)
        assert row["scaling"] == "minmax"
        assert row["honest/mae"] == pytest.approx(np.mean(abs(unit - 0.3)), rel=1e-5)
        assert row["honest/mae_hu"] == pytest.approx(np.ptp(hu) * np.mean(abs(unit - 0.3)), rel=1e-5)
    assert all(row["reprojection/relative_l2"] < 0.1 for row in rows(run, "truth"))
    assert read_leaderboard(run)[0]["scaling"] == "minmax"


def test_without_reprojection(make_run: MakeRun) -> None:
    run = make_run({500: 0.3})
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace("reprojection: true", "reprojection: false"))
    evaluate(run, cohorts=["lctsc"])
    assert {r.source for r in read_results(run)} == METHODS - {"truth"} | {"step-000500"}
    assert all(math.isnan(row["reprojection/mae"]) for row in rows(run, "step-000500", "lctsc", "test"))
    run.config_file.write_text(text)
    assert len(evaluate(run, cohorts=["lctsc"]).written) == 4


def test_no_store_at_all_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no store with a case to score"):
        evaluate(make_run({500: 0.3}, stores=str(tmp_path)))


class TestOwnCohorts:
    """A laboratory's own cohort is evaluated, ordered and trained on like the seven."""

    @pytest.fixture
    def ward(
        self, tmp_path: Path, stores: Path, store_writer: MakeStore, monkeypatch: pytest.MonkeyPatch
    ) -> Path:
        """A folder of stores with `ward-7.b` beside the others."""
        folder = tmp_path / "stores"
        shutil.copytree(stores, folder)
        store_writer(folder, "ward-7.b", {"val": 1, "test": 2, "train": 1}, seed=2)
        (tmp_path / "own.yaml").write_text("ward-7.b: {}\n")
        monkeypatch.setenv("XR2CT_COHORTS", str(tmp_path / "own.yaml"))
        return folder

    def test_it_is_scored_after_the_seven(self, make_run: MakeRun, ward: Path) -> None:
        run = make_run({0: 0.5}, stores=str(ward))
        evaluate(run, cohorts=["ward-7.b"])
        evaluate(run, cohorts=["lctsc"])
        board = [(row["cohort"], row["split"]) for row in read_leaderboard(run)]
        assert list(dict.fromkeys(board)) == [("lctsc", "test"), ("ward-7.b", "test")]
        scored = {(r.cohort, r.split) for r in read_results(run)}
        assert sorted(scored, key=order) == [("lctsc", "test"), ("ward-7.b", "test")]

    def test_the_one_trained_on_is_always_evaluated_and_chooses(self, make_run: MakeRun, ward: Path) -> None:
        run = make_run({0: 0.5}, stores=str(ward), cohort="ward-7.b")
        done = evaluate(run)
        assert ("ward-7.b", "val") in {(r.cohort, r.split) for r in read_results(run)}
        assert done.best == 0


def test_nobody_learnt_from_is_tested_on(
    make_run: MakeRun, stores: Path, store_writer: MakeStore, tmp_path: Path
) -> None:
    folder = tmp_path / "stores"
    shutil.copytree(stores, folder)
    store_writer(folder, "anti-pd-1", {"test": 1})  # the volume of the first of lidc-idri's train split
    run = make_run({0: 0.5}, stores=str(folder))
    with pytest.raises(UserError, match=r"the same volume.*lidc-idri-train0.*anti-pd-1-test0"):
        evaluate(run)
    assert not read_results(run)
    evaluate(run, cohorts=["lctsc"])
