"""Tables of views left out and of training times, from made-up runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_study import BEST, made_run, put

from xr2ct.errors import UserError
from xr2ct.reporting.exhibits.leave_one_out import make_leave_one_out
from xr2ct.reporting.exhibits.training_time import make_training_time
from xr2ct.reporting.study import Study

TEST = ("lidc-idri", "test")


def test_what_each_view_is_worth_is_paired_by_patient_and_seed(tmp_path: Path) -> None:
    runs = []
    for seed in (0, 1):
        scores = {TEST: {"a": 20.0 + seed, "b": 24.0}, ("lctsc", "test"): {"c": 22.0}}
        run = made_run(tmp_path / str(seed), scores, seed=seed, data={"views": [90, 0]})
        put(run, f"{BEST}~without-90", *TEST, {"a": 17.0 + seed, "b": 23.0})
        put(run, f"{BEST}~without-0", *TEST, {"a": 20.5 + seed, "b": 24.5})
        put(run, f"{BEST}~without-90", "lctsc", "test", {"c": 21.0})
        put(run, f"{BEST}~without-90", "lidc-idri", "val", {"a": 1.0})
        put(run, "step-000250~without-90", *TEST, {"a": 1.0, "b": 1.0})
        runs.append(run)
    study = Study.of(runs)
    assert [s.label for s in study.everyone] == ["made"], "no view left out is a system"
    table = make_leave_one_out(study)
    assert table is not None
    told = [(r["cohort"], r["left_out"], r["patients"]) for r in table.rows]
    assert told == [("lidc-idri", 90.0, 2), ("lidc-idri", 0.0, 2), ("lctsc", 90.0, 1)]
    first, second, _ = table.rows
    assert (first["psnr"], first["psnr_change"]) == pytest.approx(((17.5 + 23) / 2, -2.0))
    assert second["psnr_change"] == pytest.approx(0.5)
    assert first["interval"] == "−3.00 to −1.00" and second["interval"] == "+0.50 to +0.50"
    assert first["stand_in"] == "mean training view"


def test_zeros_stand_apart_from_the_mean_view(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", {TEST: {"a": 20.0}}, data={"views": [90, 0]})
    put(run, f"{BEST}~without-90", *TEST, {"a": 18.0})
    put(run, f"{BEST}~without-90-zero", *TEST, {"a": 15.0})
    table = make_leave_one_out(Study.of([run]))
    assert table is not None
    assert [(r["stand_in"], r["psnr_change"]) for r in table.rows] == [
        ("mean training view", -2.0),
        ("zeros", -5.0),
    ]


def test_nothing_left_out_has_no_table(tmp_path: Path) -> None:
    one = made_run(tmp_path / "one", {TEST: {"a": 20.0}}, data={"views": [90]})
    assert make_leave_one_out(Study.of([one])) is None
    two = made_run(tmp_path / "two", {TEST: {"a": 20.0}}, data={"views": [90, 0]})
    with pytest.raises(UserError, match="evaluate RUN --leave-out"):
        make_leave_one_out(Study.of([one, two]))


def test_training_time_is_that_of_the_steps_averaged_over_seeds(tmp_path: Path) -> None:
    runs = []
    for seed, seconds in ((0, [1.0, 0.5]), (1, [2.0, 1.5])):
        run = made_run(
            tmp_path / str(seed), {TEST: {"a": 20.0}}, seed=seed, training={"steps": 2, "warmup_steps": 0}
        )
        records = [{"step": i + 1, "seconds": s, "samples": 8} for i, s in enumerate(seconds)]
        run.metrics_file.write_text("".join(json.dumps(r) + "\n" for r in records))
        runs.append(run)
    table = make_training_time(Study.of(runs))
    (row,) = table.rows
    assert (row["seeds"], row["steps"], row["seconds"], row["samples"]) == (2, 2, 2.5, 16)
    assert (row["step_seconds"], row["rate"]) == pytest.approx((1.25, 6.4))
    assert row["precision"] == "fp32"
