"""Runs into systems, what these are called, and whose results they have."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from made_study import made_run, put

from xr2ct.errors import UserError
from xr2ct.evaluation import results as results_module
from xr2ct.reporting.study import Study

TEST = ("lidc-idri", "test")
VAL = ("lidc-idri", "val")
LCTSC = ("lctsc", "test")


def test_runs_that_differ_in_their_seed_alone_are_one_system(tmp_path: Path) -> None:
    runs = [made_run(tmp_path / f"{seed}", {TEST: {"a": 20 + seed}}, seed=seed) for seed in (3, 1)]
    other = made_run(tmp_path / "other", {TEST: {"a": 18}}, name="other", lift="rotate")
    study = Study.of([runs[0], other, runs[1]])
    assert [(s.label, s.seeds) for s in study.systems] == [("made", (3, 1)), ("other", (0,))]
    assert [r.mean("honest/psnr") for r in study.results(study.systems[0])] == [23, 21]
    assert study.systems[0].runs == (runs[0], runs[1])


def test_a_second_run_of_the_same_seed_is_no_further_seed(tmp_path: Path) -> None:
    study = Study.of([made_run(tmp_path / name) for name in ("one", "two")])
    assert [s.label for s in study.systems] == ["made", f"made ({tmp_path / 'two'})"]


@pytest.mark.parametrize(
    ("configs", "labels"),
    [
        (
            [{"data": {"views": [90]}}, {"data": {"views": [90, 0]}}],
            ["made, 1 view", "made, 2 views"],
        ),
        (
            [{"data": {"views": [90]}}, {"data": {"views": [0]}}],
            ["made, views 90", "made, views 0"],
        ),
        ([{}, {"data": {"size": 128}}], ["made, 64³", "made, 128³"]),
        ([{}, {"lift": "backproject"}], ["made, repeat", "made, backproject"]),
        (
            [{"method": {"name": "neural-ot", "blur": blur}} for blur in (0.5, 4)],
            ["made, blur=0.5", "made, blur=4"],
        ),
        (
            [{"data": {"train_cases": 50}}, {}],
            ["made, 50 training cases", "made, all training cases"],
        ),
        (
            [
                {"data": {"views": views}, "lift": lift}
                for views in ([90], [90, 0])
                for lift in ("repeat", "rotate")
            ],
            [
                "made, 1 view, repeat",
                "made, 1 view, rotate",
                "made, 2 views, repeat",
                "made, 2 views, rotate",
            ],
        ),
        (
            [
                {"variants": {"system": "small"}, "mapper": {"name": "unet", "channels": [8, 16]}},
                {"variants": {"system": "large"}, "mapper": {"name": "unet", "channels": [16, 32]}},
            ],
            ["made, small", "made, large"],
        ),
        ([{"label": "ours"}, {"label": "theirs"}], ["ours", "theirs"]),
    ],
)
def test_equal_labels_are_told_apart_by_the_fewest_differences(
    tmp_path: Path, configs: list[dict[str, object]], labels: list[str]
) -> None:
    study = Study.of([made_run(tmp_path / str(i), **config) for i, config in enumerate(configs)])
    assert [s.label for s in study.systems] == labels


def test_results_are_of_the_best_checkpoint_in_the_papers_order(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", {LCTSC: {"c": 18}, TEST: {"a": 20}, VAL: {"b": 21}})
    put(run, "step-000250", *TEST, {"a": 50})
    study = Study.of([run])
    assert study.pairs == [VAL, TEST, LCTSC] and study.tested == ["lidc-idri", "lctsc"]
    results = study.results(study.systems[0])
    assert [(r.cohort, r.split) for r in results] == study.pairs
    assert [r.mean("honest/psnr") for r in study.results(study.systems[0], *TEST)] == [20]
    assert len(study.every(run)) == 4


def test_what_needs_no_training_stands_once_beside_all_seeds(tmp_path: Path) -> None:
    runs = [made_run(tmp_path / str(seed), {TEST: {"a": 20}}, seed=seed) for seed in (0, 1)]
    for run in runs:
        for source in ("prior-nearest", "truth", "prior-mean", "elsewhere"):
            put(run, source, *TEST, {"a": 15})
    put(runs[1], "elsewhere", *LCTSC, {"c": 15})
    study = Study.of(runs)
    kinds = [(s.label, s.kind) for s in study.others]
    assert kinds == [
        ("elsewhere", "elsewhere"),
        ("mean chest (prior)", "prior"),
        ("nearest patient (prior)", "prior"),
        ("the truth itself", "truth"),
    ]
    assert [len(study.results(s)) for s in study.others] == [2, 1, 1, 1]
    assert study.everyone == (*study.systems, *study.others)


def test_priors_stand_apart_where_they_know_other_things(tmp_path: Path) -> None:
    runs = [made_run(tmp_path / str(len(views)), data={"views": views}) for views in ([90], [90, 0])]
    for run in runs:
        put(run, "prior-mean", *TEST, {"a": 15})
        put(run, "prior-nearest", *TEST, {"a": 15 + len(run.experiment().data.views)})
    study = Study.of(runs)
    labels = [s.label for s in study.others]
    assert labels == [
        "mean chest (prior)",
        "nearest patient (prior), 1 view",
        "nearest patient (prior), 2 views",
    ]
    (mean,) = study.results(study.others[0])
    assert mean.mean("honest/psnr") == 15
    assert mean.column("reprojection/relative_l2") == [], "of which views it would be is not said"
    assert study.results(study.others[2])[0].column("reprojection/relative_l2") == pytest.approx([1 / 17])


def test_a_prior_of_a_drawn_training_set_has_one_result_a_seed(tmp_path: Path) -> None:
    runs = [made_run(tmp_path / str(seed), data={"train_cases": 50}, seed=seed) for seed in (0, 1)]
    for i, run in enumerate(runs):
        put(run, "prior-mean", *TEST, {"a": 15 + i})
    study = Study.of(runs)
    assert [r.mean("honest/psnr") for r in study.results(study.others[0])] == [15, 16]


def test_predictions_that_differ_between_runs_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs = [made_run(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    put(runs[0], "theirs", *TEST, {"a": 15})
    put(runs[1], "theirs", *TEST, {"a": 16})
    with caplog.at_level(logging.WARNING):
        study = Study.of(runs)
        assert [r.mean("honest/psnr") for r in study.results(study.others[0])] == [15]
    assert "theirs in 1 is other than that in 0" in caplog.text


def test_predictions_named_as_a_system_are_told_apart(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", label="ours")
    put(run, "ours", *TEST, {"a": 15})
    assert [s.label for s in Study.of([run]).everyone] == ["ours, trained here", "ours, from elsewhere"]


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    rows = results_module.read_rows
    monkeypatch.setattr(results_module, "read_rows", lambda path: read.append(path) or rows(path))
    run = made_run(tmp_path / "run", {TEST: {"a": 20}})
    put(run, "prior-mean", *TEST, {"a": 15})
    study = Study.of([run])
    for system in study.everyone:
        study.results(system)
    study.every(run)
    assert len(read) == len(set(read)) == 2


def test_refused(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    other = made_run(tmp_path / "other", data={"scaling": "minmax"})
    with pytest.raises(UserError, match=r"data\.scaling"):
        Study.of([run, other])
    run.best.unlink()
    with pytest.raises(UserError, match="no best checkpoint yet"):
        Study.of([run])
    with pytest.raises(UserError, match="no run"):
        Study.of([])
