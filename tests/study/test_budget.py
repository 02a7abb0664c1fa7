"""Schedules squeezed into minutes: every part keeps its share, whatever the speed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from xr2ct.config import Experiment, Training, load_members, validate
from xr2ct.errors import UserError
from xr2ct.study import budget
from xr2ct.study.budget import Pace, paced, squeezed
from xr2ct.study.member import Member
from xr2ct.training.stopping import Listener

PUBLISHED = Training(steps=5000, warmup_steps=1500, checkpoint_every=250)


def within(training: Training, pace: Pace, minutes: float) -> Training:
    """The schedule that the overrides make."""
    values: dict[str, Any] = {"name": "x", "training": training.model_dump()}
    for word in squeezed(training, pace, minutes):
        key, value = word.removeprefix("training.").split("=")
        values["training"][key] = value if key == "precision" else int(value)
    return validate(Experiment, values, "test").training


def test_parts_of_a_schedule_keep_their_shares() -> None:
    told = within(PUBLISHED, Pace(0.06, "bf16"), 1)
    assert (told.steps, told.warmup_steps, told.checkpoint_every) == (1000, 300, 50)
    assert told.precision == "bf16" and told.decay_after is None
    longer = within(PUBLISHED, Pace(0.006, "fp32"), 1)
    assert (longer.steps, longer.warmup_steps, longer.checkpoint_every) == (10000, 3000, 500)


def test_decay_keeps_its_place_too() -> None:
    published = Training(steps=22900, warmup_steps=0, decay_after=11450, checkpoint_every=1145)
    told = within(published, Pace(6.0, "fp32"), 1)
    assert (told.steps, told.decay_after, told.checkpoint_every) == (10, 5, 1)


@pytest.mark.parametrize("seconds", [0.5, 7.0, 40.0, 1000.0])
def test_even_a_step_or_two_make_a_valid_schedule(seconds: float) -> None:
    for training in (
        PUBLISHED,
        Training(steps=10, warmup_steps=9, decay_after=9, checkpoint_every=20),
        Training(steps=1, warmup_steps=0, decay_after=1),
    ):
        told = within(training, Pace(seconds, "fp32"), 1)
        assert told.steps == max(1, round(60 / seconds))


def members(folder: Path, **keys: Any) -> list[Member]:
    config = folder / "x.yaml"
    config.write_text(yaml.safe_dump({"name": "x", "run_root": str(folder / "runs"), **keys}))
    return [Member(config, *told) for told in load_members(config)]


def test_seeds_share_a_trial_and_later_commands_its_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def trial(member: Member, out: Path, listener: Listener) -> Pace:
        tried.append(str(member))
        return Pace(0.5 + len(tried), "fp32")

    monkeypatch.setattr(budget, "_trial", trial)
    asked = members(tmp_path, sweep={"data.views": [[90], [90, 0]], "seed": [0, 1]})
    failed: dict[Path, str] = {}
    first = paced(asked, 3, tmp_path / "out", Listener(), failed)
    assert len(tried) == 2 and not failed
    assert [member.experiment.training.steps for member in first] == [120, 120, 72, 72]
    assert all("training.steps" in str(member) or "+" in str(member) for member in first)
    again = paced(asked, 3, tmp_path / "out", Listener(), failed)
    assert len(tried) == 2
    assert [member.run.path for member in again] == [member.run.path for member in first]


def test_a_damaged_file_of_paces_is_named(tmp_path: Path) -> None:
    (tmp_path / "paces.json").write_text(json.dumps({"x": {"seconds": 1}}))
    with pytest.raises(UserError, match=r"paces\.json"):
        paced(members(tmp_path), 1, tmp_path, Listener(), {})
