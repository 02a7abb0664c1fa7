"""What a submission will take: each figure from where it is said to come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launch.cost import costs, format_cost, member_cost
from launch.profiles import Profile
from xr2ct.config import Experiment, validate
from xr2ct.errors import UserError
from xr2ct.run import Run

TOLD = {
    "memory": [
        {
            "ranks": 2,
            "micro_batch": 4,
            "bytes_by_zero_stage": [9 * 10**9, 8 * 10**9, 7 * 10**9, 6 * 10**9],
            "step_seconds": 1.5,
        }
    ],
    "step_flops": 80 * 10**12,
    "checkpoint_bytes": {"weights": 3, "engines": 100},
}


def profile(**keys: Any) -> Profile:
    return validate(Profile, {"executor": "slurm", "gpus_per_node": 2} | keys, "profile")


def experiment(**training: Any) -> Experiment:
    return Experiment(
        name="x", training={"steps": 1000, "checkpoint_every": 250, "warmup_steps": 0} | training
    )


def trained(folder: Path, steps: int, seconds: float, saved: tuple[int, ...] = ()) -> Run:
    run = Run(folder / "run")
    run.path.mkdir()
    lines = [json.dumps({"step": step, "seconds": seconds}) + "\n" for step in range(1, steps + 1)]
    run.metrics_file.write_text("".join(lines))
    for step in saved:
        run.checkpoint(step).mkdir(parents=True)
        (run.checkpoint(step) / "COMPLETE").touch()
    return run


def test_hours_come_from_operations_where_the_profile_says_what_a_rank_achieves(tmp_path: Path) -> None:
    cost = member_cost(experiment(), Run(tmp_path), profile(sustained_tflops=20), TOLD)
    assert cost.seconds == pytest.approx(1000 * 80 / 40)
    text = format_cost([cost], profile(sustained_tflops=20), tmp_path)
    assert "about 33 min the longest run (from operations and sustained_tflops), 1.1 GPU-hours in all" in text


def test_steps_that_were_measured_count_for_more(tmp_path: Path) -> None:
    run = trained(tmp_path, 400, 3.0)
    cost = member_cost(experiment(), run, profile(sustained_tflops=20), TOLD)
    assert (cost.steps_left, cost.seconds, cost.source) == (600, 1800.0, "from steps measured")


def test_hours_are_those_of_the_profiles_device_and_said_to_be_extrapolated(tmp_path: Path) -> None:
    of_device = profile(device="a100-80gb")
    cost = member_cost(experiment(), Run(tmp_path), of_device, TOLD)
    assert cost.seconds == pytest.approx(1000 * 1.5)
    text = format_cost([cost], of_device, tmp_path)
    assert "about 25 min the longest run (extrapolated for a100-80gb), 0.8 GPU-hours in all" in text


def test_a_members_summary_is_of_the_profiles_ranks_and_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("launch.cost.summarise", lambda *told: asked.append(told[1:]) or TOLD)
    runs = [(experiment(steps=steps), Run(tmp_path / str(steps))) for steps in (1000, 1000, 2000)]
    costs(runs, profile(device="l40s"))
    assert asked == [("l40s", 2)] * 2  # the same networks are counted once


def test_without_either_no_hours_are_made_up(tmp_path: Path) -> None:
    cost = member_cost(experiment(), Run(tmp_path), profile(), TOLD)
    assert cost.seconds is None
    assert "at most 1 h 0 min an attempt" in format_cost([cost], profile(), tmp_path)


@pytest.mark.parametrize(("stage", "memory"), [(0, 9), (1, 8), (3, 6)])
def test_memory_is_that_of_the_zero_stage(tmp_path: Path, stage: int, memory: int) -> None:
    cost = member_cost(experiment(zero_stage=stage), Run(tmp_path), profile(), TOLD)
    assert cost.memory_bytes == memory * 10**9


def test_more_than_a_card_has_is_refused_before_it_waits(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"about 9\.0 GB a rank, and a card has 8 GB"):
        member_cost(experiment(), Run(tmp_path), profile(gpu_memory_gb=8), TOLD)
    member_cost(experiment(zero_stage=2), Run(tmp_path), profile(gpu_memory_gb=8), TOLD)


def test_disk_is_the_checkpoints_to_come_and_the_state_to_resume_from(tmp_path: Path) -> None:
    fresh = member_cost(experiment(), Run(tmp_path / "none"), profile(), TOLD)
    assert fresh.disk_bytes == 5 * 3 + 3 * 100  # steps 0, 250, …, 1000; two full ones, and one being written
    begun = member_cost(experiment(), trained(tmp_path, 250, 1.0, saved=(0, 250)), profile(), TOLD)
    assert begun.disk_bytes == 3 * 3 + 100


def test_a_disk_without_the_room_is_warned_of(tmp_path: Path) -> None:
    told = TOLD | {"checkpoint_bytes": {"weights": 10**18, "engines": 0}}
    cost = member_cost(experiment(), Run(tmp_path / "none"), profile(), told)
    assert "has not the room" in format_cost([cost], profile(), tmp_path / "not" / "yet")
