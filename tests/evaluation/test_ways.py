"""Ways of making a checkpoint's volumes: named, scored beside it, in no other table, done once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from launch import score
from launch.evaluator_book import Work, plain_of
from launch.score import score_task
from xr2ct import cli
from xr2ct.config import Evaluation, Way
from xr2ct.errors import UserError, WorkFailed
from xr2ct.evaluation.in_way import InWay
from xr2ct.evaluation.leaderboard import leaderboard_file
from xr2ct.evaluation.pending import pending
from xr2ct.evaluation.results import read_results
from xr2ct.evaluation.sweep import evaluate
from xr2ct.evaluation.ways import evaluate_ways, read_ways
from xr2ct.reconstruction.calibration import calibration_file
from xr2ct.run import Run

MakeRun = Callable[..., Run]

REFINED, DOUBTED = Way(refine=30), Way(doubt="views")


@pytest.fixture(scope="module")
def sums(make_run: MakeRun) -> Run:
    """A run of one checkpoint that makes sums of its lifted views, scored as it is."""
    run = make_run({500: 0.0})
    weigh_views(run, 500)
    evaluate(run)
    return run


def weigh_views(run: Run, step: int) -> None:
    for name in ("mapper", "mapper-ema"):
        file = run.checkpoint(step) / f"{name}.safetensors"
        weights = load_file(file)
        kernel = torch.zeros_like(weights["backbone.weight"])
        kernel[0, :, 1, 1, 1] = torch.tensor([0.3, 0.3])
        save_file(weights | {"backbone.weight": kernel}, file)


def change(run: Run, section: str, **values: object) -> None:
    """Keys of a run's configuration."""
    told = yaml.safe_load(run.config_file.read_text(encoding="utf-8"))
    told[section] |= values
    run.config_file.write_text(yaml.safe_dump(told), encoding="utf-8")


def means(run: Run, source: str, column: str) -> dict[tuple[str, str], float]:
    found = read_results(run, aside="~" in source)
    return {(r.cohort, r.split): r.mean(column) for r in found if r.source == source}


def test_labels_name_what_is_done_and_are_read_back() -> None:
    assert Way().label == ""
    assert Way(align=5, refine=20, doubt="ensemble").label == "align-5+refine-20+doubt-ensemble"
    assert Way(samples=8, doubt="samples").label == "samples-8+doubt-samples"
    assert Way(refine=20, prior="features").label == "refine-20+prior-features"
    told = InWay("step-000500", Way(align=5, refine=20).label)
    assert told.source == "step-000500~align-5+refine-20" and InWay.of(told.source) == told
    assert InWay.of("step-000500") is None and InWay.of("step-000500~without-90") is None


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"doubt": "samples"}, "at least 2 samples"),
        ({"doubt": "views", "refine": 5}, "use ensemble or samples"),
        ({"doubt": "ensemble", "samples": 4}, "one sample"),
        ({"refine": -1}, "greater than or equal to 0"),
        ({"prior": "features"}, "goes with refine"),
    ],
)
def test_what_does_not_go_together_is_refused(keys: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Way.model_validate(keys)


def test_a_configuration_names_each_way_once() -> None:
    assert Evaluation(ways=[{"refine": 5}, {"refine": 6}]).ways[1].label == "refine-6"
    for ways in ([{}], [{"refine": 5}, {"refine": 5}]):
        with pytest.raises(ValidationError, match="differ"):
            Evaluation(ways=ways)


def test_refined_volumes_agree_better_and_stand_in_no_other_table(sums: Run) -> None:
    board = leaderboard_file(sums).read_bytes()
    assert len(evaluate_ways(sums, [REFINED]).written) == 3
    plain, refined = (
        means(sums, f"step-000500{suffix}", "reprojection/relative_l2") for suffix in ("", "~refine-30")
    )
    assert set(plain) == set(refined) == {("lidc-idri", "val"), ("lidc-idri", "test"), ("lctsc", "test")}
    assert all(refined[key] < 0.5 * plain[key] for key in plain)
    evaluate(sums)
    assert leaderboard_file(sums).read_bytes() == board
    assert evaluate_ways(sums, [REFINED]).written == []


def test_doubt_is_calibrated_on_validation_patients_and_kept(sums: Run) -> None:
    evaluate_ways(sums, [DOUBTED], cohorts=["lctsc"])  # none of them is a validation patient
    file = calibration_file(sums, 500, DOUBTED.label)
    told = json.loads(file.read_text(encoding="utf-8"))
    assert (told["patients"], told["draws"]) == (3, ["without-90", "without-0"])
    kept = file.stat().st_mtime_ns
    evaluate_ways(sums, [DOUBTED])
    assert file.stat().st_mtime_ns == kept
    covered = means(sums, "step-000500~doubt-views", "doubt/coverage_95")
    assert len(covered) == 3 and 0.8 < covered["lidc-idri", "val"] <= 1
    of_mapper, of_way = (means(sums, s, "honest/psnr") for s in ("step-000500", "step-000500~doubt-views"))
    assert of_mapper == of_way


def test_of_one_checkpoint_there_is_no_ensemble_and_no_draw(sums: Run) -> None:
    with pytest.raises(WorkFailed, match="needs 2 checkpoints"):
        evaluate_ways(sums, [Way(doubt="ensemble")])
    with pytest.raises(WorkFailed, match="draws nothing at random"):
        evaluate_ways(sums, [Way(samples=3)])
    assert all("ensemble" not in told.label and "samples" not in told.label for told, _ in read_ways(sums))


def test_ways_of_the_configuration_are_due_once_training_has_ended(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run({250: 0.5, 500: 0.15})
    change(run, "evaluation", ways=[{"refine": 2}])
    evaluate(run)
    assert pending(run) == []  # the configuration has 5,000 steps
    change(run, "training", steps=500, warmup_steps=0)
    due = pending(run)
    assert {p.source for p in due} == {"step-000500~refine-2"} and {p.step for p in due} == {500}
    monkeypatch.setenv("XR2CT_JOB", "7_0")
    monkeypatch.setattr(score, "_stop_when_told", threading.Event)
    score_task(str(tmp_path), "array-0", [plain_of(Work(run.path, pair)) for pair in due])
    assert pending(run) == [] and len(read_ways(run)) == 3
    assert evaluate_ways(run, run.experiment().evaluation.ways).written == []
    by_command = make_run({250: 0.5, 500: 0.15})
    change(by_command, "evaluation", ways=[{"refine": 2}])
    change(by_command, "training", steps=500, warmup_steps=0)
    assert cli.main(["evaluate", str(by_command.path)]) == 0
    assert pending(by_command) == [] and len(read_ways(by_command)) == 3


def test_ways_need_the_x_rays_that_came_in(make_run: MakeRun) -> None:
    run = make_run({500: 0.15})
    change(run, "evaluation", reprojection=False)
    with pytest.raises(UserError, match=r"evaluation\.reprojection is off"):
        evaluate_ways(run, [REFINED], steps="last")


def test_the_command_scores_a_way_and_refuses_two_studies_at_once(
    sums: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(sums.path), "--refine", "30", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["step"] for row in rows} >= {"step-000500~refine-30"}
    for wrong in (["--refine", "3", "--leave-out"], ["--doubt", "samples"]):
        assert cli.main(["evaluate", str(sums.path), *wrong]) == 2
        assert "xr2ct:" in capsys.readouterr().err
